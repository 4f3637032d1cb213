//! Putting a backup in the place of a database, whether a server has it open or not.
//!
//! A new file never meets what belongs to the old one: its WAL, whose pages SQLite would take for the new file's, and its revisions.
//! Several files cannot be replaced in one step, so the new one first waits beside the old one, under a name that says for
//! which file it is (its inode and when that was made). From that moment on the restore has happened, and the one who has the lock
//! of the database completes it: takes away all that belongs to the old file, and then gives the new one its name. That is
//! - the restoring process itself, if no server serves the database;
//! - the server that serves it, when it looks after it the next time;
//! - after a kill of either, the next server that opens the database, or the next restore.
//!
//! Where there is no old file, the new one gets its name at once, after what may have been left of another one is gone.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use partial_sync_core::header::{HEADER_LEN, stated_page_size};
use partial_sync_vfs::side_file_path;
use rusqlite::{Connection, OpenFlags};

use crate::{
    error::ServerError,
    file_id::FileId,
    follow::immutable,
    lock::DatabaseLock,
    new_file::{NewFile, sync_folder_of},
};

/// What belongs to a database, besides its file.
const BESIDE: [&str; 7] = [
    "-history",
    "-history-wal",
    "-history-shm",
    "-history-journal",
    "-wal",
    "-shm",
    "-journal",
];
const COPIED_AT_A_TIME: usize = 1 << 20;
/// How often is looked whether a server has completed it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Pages of the database.
    pub pages: u64,
    /// A server has the database open, and took it over.
    pub served: bool,
}

/// Puts the database in the file `backup` in the place of `database`, which need not be there. It has happened when this
/// succeeds, and not at all when it fails; a process that is killed in the middle has done one or the other. If a server has
/// it open, waits for it for so long at most.
pub fn restore(backup: &Path, database: &Path, patience: Duration) -> Result<Restored, ServerError> {
    let absolute = std::path::absolute(database).map_err(|e| io("restored", database, e))?;
    // SQLite keeps the WAL beside the file that a link leads to.
    let path = std::fs::canonicalize(&absolute).unwrap_or(absolute);
    let old = path.metadata().ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return Err(ServerError::BadPath {
            path,
            reason: "it is not a file".to_owned(),
        });
    }
    let (new, pages) = copy(backup, &path, old.as_ref())?;
    check(new.path(), backup)?;
    let served = match DatabaseLock::take(&path) {
        Ok(lock) => {
            put(&path, new)?;
            drop(lock);
            false
        }
        Err(ServerError::InUse { process, .. }) => hand_over(&path, new, process, patience)?,
        Err(error) => return Err(error),
    };
    Ok(Restored { pages, served })
}

/// The file that waits to take the place of what is at a path now.
pub(crate) fn waiting(path: &Path) -> Option<PathBuf> {
    let staged = staged_path(path, &path.metadata().ok()?);
    staged.symlink_metadata().is_ok().then_some(staged)
}

/// Completes a restore that a kill has interrupted. To be called before a database is opened.
pub(crate) fn finish(path: &Path) -> Result<(), ServerError> {
    if waiting(path).is_none() {
        return Ok(());
    }
    let _lock = DatabaseLock::take(path)?;
    // It may have been completed meanwhile.
    match waiting(path) {
        Some(staged) => complete(path, &staged),
        None => Ok(()),
    }
}

/// Takes away what belongs to the old file, and gives the new one its name. By who has the lock, and has nothing of the old one
/// open that still writes.
pub(crate) fn complete(path: &Path, staged: &Path) -> Result<(), ServerError> {
    remove_beside(path)?;
    std::fs::rename(staged, path).map_err(|e| io("replaced", path, e))?;
    sync_folder_of(path).map_err(|e| io("replaced", path, e))?;
    tracing::info!(path = %path.display(), "restored from a backup");
    Ok(())
}

/// By who has the lock, when no server has the database open.
fn put(path: &Path, new: NewFile) -> Result<(), ServerError> {
    let Ok(old) = path.metadata() else {
        remove_beside(path)?;
        return new.finish(path, false).map_err(|e| io("made", path, e));
    };
    let staged = staged_path(path, &old);
    new.finish(&staged, true).map_err(|e| io("restored", path, e))?;
    // For another program that opens it before the new one has its name. A file that is damaged cannot do it.
    let folded = Connection::open(path)
        .and_then(|old| old.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get::<_, String>(0)));
    if let Err(error) = folded {
        tracing::debug!(path = %path.display(), %error, "the file that is replaced stays as it is");
    }
    complete(path, &staged)
}

/// Lets the server that has the database open put the new file in its place.
fn hand_over(
    path: &Path,
    new: NewFile,
    process: Option<u32>,
    patience: Duration,
) -> Result<bool, ServerError> {
    let old = path.metadata().map_err(|e| io("read", path, e))?;
    let staged = staged_path(path, &old);
    new.finish(&staged, true).map_err(|e| io("restored", path, e))?;
    let until = Instant::now() + patience;
    loop {
        if staged.symlink_metadata().is_err() {
            return Ok(true);
        }
        // The server may have stopped.
        match finish(path) {
            Ok(()) if staged.symlink_metadata().is_err() => return Ok(false),
            Ok(()) | Err(ServerError::InUse { .. }) => {}
            Err(error) => return Err(error),
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    match std::fs::remove_file(&staged) {
        // It was taken in this moment.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(io("withdrawn", &staged, e)),
        Ok(()) => Err(ServerError::NotTakenOver {
            path: path.to_owned(),
            process,
        }),
    }
}

fn staged_path(path: &Path, old: &Metadata) -> PathBuf {
    // An inode number is given out again.
    let made = old
        .created()
        .ok()
        .and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
    let made = made.unwrap_or_default().as_nanos();
    side_file_path(path, &format!("-restore-{:x}-{made:x}", old.ino()))
}

fn remove_beside(path: &Path) -> Result<(), ServerError> {
    let removed = |path: PathBuf| match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io("removed", &path, e)),
        _ => Ok(()),
    };
    for suffix in BESIDE {
        removed(side_file_path(path, suffix))?;
    }
    // Of restores that were killed, and whose file was replaced by another one since.
    let waiting = path.metadata().ok().map(|meta| staged_path(path, &meta));
    let prefix = side_file_path(path, "-restore-");
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    let folder = path.parent().unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder)
        .map_err(|e| io("listed", folder, e))?
        .flatten()
    {
        let of_us = entry.file_name().as_encoded_bytes().starts_with(prefix);
        if of_us && Some(entry.path()) != waiting {
            removed(entry.path())?;
        }
    }
    sync_folder_of(path).map_err(|e| io("removed", path, e))
}

/// Copies a backup beside the database that it is to replace.
fn copy(backup: &Path, path: &Path, old: Option<&Metadata>) -> Result<(NewFile, u64), ServerError> {
    let read = |e| io("read", backup, e);
    let bad = |reason: &str| ServerError::BadBackup {
        path: backup.to_owned(),
        reason: reason.to_owned(),
    };
    let mut file = File::open(backup).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(bad("it is not a file"));
    }
    if old.is_some_and(|old| FileId::of(old) == FileId::of(&meta)) {
        return Err(bad("it is the database itself"));
    }
    for suffix in ["-wal", "-journal"] {
        if side_file_path(backup, suffix)
            .metadata()
            .is_ok_and(|meta| meta.len() > 0)
        {
            return Err(bad(
                "there is a WAL or a journal beside it, so the file alone is not the whole database: make the backup with \
                 `partial-sync backup` or `sqlite3 FILE '.backup NEW'`",
            ));
        }
    }
    let mut header = [0; HEADER_LEN];
    let has_header = file.read_exact(&mut header).is_ok() && header.starts_with(MAGIC);
    let page_size = match (has_header, stated_page_size(&header)) {
        (true, Some(Ok(size))) => u64::from(size.bytes()),
        _ => return Err(bad("it is not a SQLite database")),
    };
    let stated = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    // SQLite goes by it if it was written together with the last change.
    let pages = meta.len() / page_size;
    let is_valid = header[24..28] == header[92..96] && stated > 0;
    if !meta.len().is_multiple_of(page_size) || (is_valid && u64::from(stated) != pages) {
        return Err(bad("it is not whole: it was cut, or is still being copied"));
    }
    let new = NewFile::beside(path).map_err(|e| io("written", path, e))?;
    if let Some(old) = old {
        let file = new.file();
        file.set_permissions(old.permissions())
            .map_err(|e| io("written", path, e))?;
        // Only the system's administrator can, and then it matters: the server may be somebody else.
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
    let mut buffer = vec![0; COPIED_AT_A_TIME];
    buffer[..HEADER_LEN].copy_from_slice(&header);
    let (mut at, mut have) = (0, HEADER_LEN);
    loop {
        let n = file.read(&mut buffer[have..]).map_err(read)?;
        have += n;
        if n == 0 || have == buffer.len() {
            new.write_at(&buffer[..have], at)
                .map_err(|e| io("written", path, e))?;
            at += have as u64;
            have = 0;
        }
        if n == 0 {
            break;
        }
    }
    match at == meta.len() {
        true => Ok((new, pages)),
        false => Err(bad("it changed while it was being copied")),
    }
}

fn check(copy: &Path, backup: &Path) -> Result<(), ServerError> {
    let bad = |reason: String| ServerError::BadBackup {
        path: backup.to_owned(),
        reason: format!("it is damaged: {reason}"),
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(immutable(copy), flags)
        .and_then(|db| db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(bad(found)),
        Err(error) => Err(bad(error.to_string())),
    }
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> ServerError {
    ServerError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}
