//! Putting a backup in the place of a database, whether a server has it open or not.
//!
//! A new file never meets what belongs to the old one: its WAL, whose pages SQLite would take for the new file's, and its revisions.
//! Several files cannot be replaced in one step, so the new one first waits beside the old one, under a name that says for
//! which file it is (its inode and when that was made). The one who has the lock of the database claims it, by another such
//! name. From that moment on the restore has happened, and nobody can take it back: the one who has the lock then
//! completes it, takes away all that belongs to the old file, and then gives the new one its name. That is
//! - the restoring process itself, if no server serves the database;
//! - the server that serves it, when it looks after it the next time;
//! - after a kill of either, the next server that opens the database, or the next restore.
//!
//! Until it is claimed, the one who put it there may take it back, and nobody else replaces it: of two restores one waits. Where there
//! is not an old file yet, the new one gets its name at once, after what may have been left of another one is gone.

use std::{
    fs::Metadata,
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use partial_sync_core::header::{HEADER_LEN, stated_page_size};
use partial_sync_vfs::side_file_path;
use rusqlite::{Connection, OpenFlags};

use crate::{
    backup_file::unseal,
    beside::{CLAIMED, STAGED, remove_used, waiting},
    descriptors::{Descriptor, close_unused_descriptors},
    error::ServerError,
    file_id::FileId,
    follow::as_immutable,
    lock::DatabaseLock,
    new_file::{NewFile, sync_folder_of},
};

/// What is beside a replica.
const REPLICA: [&str; 3] = ["-info", "-pages", "-replica-wal"];
const COPIED_AT_A_TIME: usize = 1 << 20;
/// How often is looked whether a server has completed it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Twice what any file system takes for one moment.
const TIMESTAMP_GRAIN: Duration = Duration::from_millis(20);
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What became of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Pages of the database.
    pub pages: u64,
    /// A server has the database open, and took it over.
    pub served: bool,
    /// Another program may have the old file open: what it writes from here on is in no file.
    pub others: bool,
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
    if REPLICA
        .iter()
        .any(|suffix| side_file_path(&path, suffix).exists())
    {
        return Err(ServerError::BadPath {
            path,
            reason: "it is a replica, which may have changes that were not pushed: restore the database of its server, or move the \
                     replica away with all files that begin with its name"
                .to_owned(),
        });
    }
    let (new, pages) = copy(backup, &path, old.as_ref())?;
    check(new.path(), backup)?;
    let ends = match DatabaseLock::take(&path) {
        Ok(_lock) => put(&path, new),
        Err(ServerError::InUse { process, .. }) => hand_over(&path, new, process, patience),
        Err(error) => Err(error),
    };
    close_unused_descriptors();
    let ends = ends?;
    Ok(Restored {
        pages,
        served: ends == Ends::Served,
        others: ends == Ends::Others,
    })
}

/// How the old file was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Served,
    Alone,
    Others,
}

/// Whether a file waits to take the place of what is at a path now.
pub(crate) fn waits(path: &Path) -> bool {
    path.metadata().is_ok_and(|old| {
        [STAGED, CLAIMED]
            .iter()
            .any(|kind| is_there(&waiting(path, &old, kind)))
    })
}

/// Claims the file that waits, so that it is not taken back any more. By who has the lock.
pub(crate) fn claim(path: &Path) -> Result<Option<PathBuf>, ServerError> {
    let Ok(old) = path.metadata() else { return Ok(None) };
    let claimed = waiting(path, &old, CLAIMED);
    match std::fs::rename(waiting(path, &old, STAGED), &claimed) {
        Ok(()) => sync_folder_of(path).map_err(|e| io("replaced", path, e))?,
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(io("replaced", path, e)),
    }
    Ok(is_there(&claimed).then_some(claimed))
}

/// Completes a restore that a kill has interrupted. To be called before a database is opened.
pub(crate) fn finish(path: &Path) -> Result<(), ServerError> {
    if !waits(path) {
        return Ok(());
    }
    let _lock = DatabaseLock::take(path)?;
    // It may have been completed meanwhile.
    match claim(path)? {
        Some(claimed) => complete(path, &claimed),
        None => Ok(()),
    }
}

/// Takes away what belongs to the old file, and gives the new one, which was claimed, its name. By who has the lock, and has nothing
/// of the old one open that still writes.
pub(crate) fn complete(path: &Path, claimed: &Path) -> Result<(), ServerError> {
    let begun = |source| ServerError::RestoreBegun {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let mut removed = false;
    if let Err(error) = remove_used(path, &mut removed) {
        if removed {
            return Err(begun(error));
        }
        // Nothing has happened yet.
        return Err(match std::fs::remove_file(claimed) {
            Ok(()) => error,
            Err(_) => begun(error),
        });
    }
    std::fs::rename(claimed, path).map_err(|e| begun(io("replaced", path, e)))?;
    sync_folder_of(path).map_err(|e| begun(io("replaced", path, e)))?;
    tracing::info!(path = %path.display(), "restored from a backup");
    Ok(())
}

/// By who has the lock, when no server has the database open.
fn put(path: &Path, new: NewFile) -> Result<Ends, ServerError> {
    let Ok(old) = path.metadata() else {
        remove_used(path, &mut false)?;
        new.finish(path, false).map_err(|e| io("made", path, e))?;
        return Ok(Ends::Alone);
    };
    let claimed = waiting(path, &old, CLAIMED);
    new.finish(&claimed, true).map_err(|e| io("restored", path, e))?;
    end_old(path, &claimed)
}

/// By who has the lock and has claimed the new file.
fn end_old(path: &Path, claimed: &Path) -> Result<Ends, ServerError> {
    let others = others_use(path);
    complete(path, claimed)?;
    Ok(if others { Ends::Others } else { Ends::Alone })
}

/// Whether another program has a file open that is to go, as far as that can be found out. The file takes its WAL in for one that opens
/// it before it is gone. By who has the lock, when no server has it open.
pub(crate) fn others_use(path: &Path) -> bool {
    // A file that is damaged cannot do it, nor one that another program has open.
    let folded = Connection::open(path)
        .and_then(|old| old.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get::<_, String>(0)));
    match folded {
        Err(error) if is_busy(&error) => true,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a file that is to go stays as it is");
            false
        }
        Ok(mode) => mode == "wal",
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

/// Lets the server that has the database open put the new file in its place, or does it when the server has gone.
fn hand_over(
    path: &Path,
    new: NewFile,
    process: Option<u32>,
    patience: Duration,
) -> Result<Ends, ServerError> {
    let until = Instant::now() + patience;
    let old = loop {
        match path.metadata() {
            Ok(old) => break old,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(io("read", path, e)),
        }
        // A server that finds its file deleted lets go of it.
        match DatabaseLock::take(path) {
            Ok(_lock) => return put(path, new),
            Err(ServerError::InUse { .. }) if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
            Err(ServerError::InUse { process, .. }) => {
                let path = path.to_owned();
                return Err(ServerError::MovedAway { path, process });
            }
            Err(error) => return Err(error),
        }
    };
    let (staged, claimed) = (waiting(path, &old, STAGED), waiting(path, &old, CLAIMED));
    let ours = FileId::at(new.path()).map_err(|e| io("read", path, e))?;
    let mut new = Some(new);
    loop {
        if let Some(file) = new.take() {
            // Another restore may wait there.
            new = file.name(&staged).map_err(|e| io("restored", path, e))?;
        }
        let is_ours = || FileId::at(path).is_ok_and(|found| found == ours);
        if new.is_none() && is_ours() {
            return Ok(Ends::Served);
        }
        // The server may have stopped.
        match (DatabaseLock::take(path), new.take()) {
            (Ok(_lock), Some(file)) => return put(path, file),
            (Ok(_lock), None) => {
                if is_ours() {
                    return Ok(Ends::Served);
                }
                let now = path.metadata().map_err(|e| io("read", path, e))?;
                let claimed_now = waiting(path, &now, CLAIMED);
                // Claimed by a server that was killed, or not at all, also for a file that is there no more.
                for ready in [&claimed, &staged] {
                    if FileId::at(ready).is_ok_and(|found| found == ours) {
                        std::fs::rename(ready, &claimed_now).map_err(|e| io("replaced", path, e))?;
                        return end_old(path, &claimed_now);
                    }
                }
                return Err(not_taken(path, process));
            }
            (Err(ServerError::InUse { .. }), left) => new = left,
            (Err(error), _) => {
                let _ = std::fs::remove_file(&staged);
                return Err(error);
            }
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    if new.is_some() {
        return Err(not_taken(path, process));
    }
    match std::fs::remove_file(&staged) {
        // It was claimed: nobody can take it back.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            match FileId::at(path).is_ok_and(|found| found == ours) {
                true => Ok(Ends::Served),
                false => Err(ServerError::RestoreBegun {
                    path: path.to_owned(),
                    source: Box::new(not_taken(path, process)),
                }),
            }
        }
        Err(e) => Err(io("withdrawn", &staged, e)),
        Ok(()) => Err(not_taken(path, process)),
    }
}

fn not_taken(path: &Path, process: Option<u32>) -> ServerError {
    ServerError::NotTakenOver {
        path: path.to_owned(),
        process,
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// Copies a backup beside the database that it is to replace.
fn copy(backup: &Path, path: &Path, old: Option<&Metadata>) -> Result<(NewFile, u64), ServerError> {
    let read = |e| io("read", backup, e);
    let bad = |reason: &str| ServerError::BadBackup {
        path: backup.to_owned(),
        reason: reason.to_owned(),
    };
    // Opening a pipe would wait for its writer.
    if !backup.metadata().map_err(read)?.is_file() {
        return Err(bad("it is not a file"));
    }
    // This process may have it open through SQLite.
    let file = Descriptor::open(backup).map_err(read)?;
    let file = file.file();
    let meta = file.metadata().map_err(read)?;
    // What changed less than this ago could change again without another time stamp.
    std::thread::sleep(TIMESTAMP_GRAIN);
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
    let has_header = file.read_exact_at(&mut header, 0).is_ok() && header.starts_with(MAGIC);
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
    unseal(&mut header);
    let new = NewFile::beside(path).map_err(|e| io("written", path, e))?;
    let made = new.file();
    made.set_permissions(old.unwrap_or(&meta).permissions())
        .map_err(|e| io("written", path, e))?;
    if let Some(old) = old {
        // Only the system's administrator can, and then it matters: the server may be somebody else.
        let _ = std::os::unix::fs::fchown(made, Some(old.uid()), Some(old.gid()));
    }
    let mut buffer = vec![0; COPIED_AT_A_TIME];
    buffer[..HEADER_LEN].copy_from_slice(&header);
    let (mut at, mut have) = (0, HEADER_LEN);
    loop {
        let n = file
            .read_at(&mut buffer[have..], at + have as u64)
            .map_err(read)?;
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
    // Longer than it was, or as long and written to: what was copied may be of several states.
    let now = file.metadata().map_err(read)?;
    let stamp = |meta: &Metadata| {
        let modified = (meta.mtime(), meta.mtime_nsec());
        (meta.len(), modified, (meta.ctime(), meta.ctime_nsec()))
    };
    match at == meta.len() && stamp(&now) == stamp(&meta) {
        true => Ok((new, pages)),
        false => Err(bad(
            "it changed while it was being copied: a database that is in use is not a backup, but `partial-sync backup` makes one of it",
        )),
    }
}

fn check(copy: &Path, backup: &Path) -> Result<(), ServerError> {
    let bad = |reason: String| ServerError::BadBackup {
        path: backup.to_owned(),
        reason: format!("it is damaged: {reason}"),
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(as_immutable(copy), flags)
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
