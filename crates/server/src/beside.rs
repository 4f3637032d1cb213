//! The files that belong to a database besides its own: how they are called, and how they go. One never goes: the WAL of a file that
//! was replaced, which holds commits of that file and of no other.

use std::{
    ffi::OsString,
    fs::{DirEntry, Metadata},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use partial_sync_vfs::side_file_path;

use crate::{error::ServerError, new_file::sync_folder_of};

/// What is in use with it.
const BESIDE: [&str; 7] = [
    "-history",
    "-history-wal",
    "-history-shm",
    "-history-journal",
    "-wal",
    "-shm",
    "-journal",
];
/// What follows its name in that of a file that waits to take its place, and begins with a dot: such a file is not served.
pub(crate) const STAGED: &str = "-restore-";
pub(crate) const CLAIMED: &str = "-restoring-";
/// And in that of the WAL of a file that was replaced before that had all of its commits.
const SET_ASIDE: &str = "-wal-";
/// What nobody has completed for so long, and is for a file that is gone, is not wanted any more.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// What a file is called that waits to take the place of `old` at a path.
pub(crate) fn waiting(path: &Path, old: &Metadata, kind: &str) -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    // An inode number is given out again.
    let made = old
        .created()
        .ok()
        .and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
    let made = made.unwrap_or_default().as_nanos();
    let mut name = hidden(path, kind);
    name.push(format!("{:x}-{made:x}", old.ino()));
    path.with_file_name(name)
}

/// What the WAL of a file that was replaced is called.
pub(crate) fn set_aside(path: &Path, inode: u64) -> PathBuf {
    side_file_path(path, &format!("{SET_ASIDE}{inode}"))
}

/// Removes what is in use with a file that is to be replaced. Says whether something of it is gone, also when it fails.
pub(crate) fn remove_used(path: &Path, is_removed: &mut bool) -> Result<(), ServerError> {
    for suffix in BESIDE {
        *is_removed |= remove(&side_file_path(path, suffix))?;
    }
    let is_stale = |meta: Metadata| {
        let age = meta.modified().ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > STALE)
    };
    // Of restores that were killed, and whose file was replaced by another one since. What stays is tried again the next time.
    for entry in listed(path).filter(|entry| is_waiting(path, entry)) {
        if entry.metadata().is_ok_and(is_stale) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    sync_folder_of(path).map_err(|e| io(path, e))
}

/// Removes all that belongs to a database, and last its file. WALs that were set aside are another file's, wherever that is now.
pub(crate) fn remove_all(path: &Path) -> Result<(), ServerError> {
    for suffix in BESIDE {
        remove(&side_file_path(path, suffix))?;
    }
    for entry in listed(path).filter(|entry| is_waiting(path, entry)) {
        remove(&entry.path())?;
    }
    // Whenever this is cut off, there is the database, or nothing of it.
    sync_folder_of(path).map_err(|e| io(path, e))?;
    remove(path)?;
    sync_folder_of(path).map_err(|e| io(path, e))
}

/// The same, and first its file: where the disk has no room for it to have all of its commits, and nobody else has it open. What this
/// leaves when it is cut off is not a database.
pub(crate) fn remove_file_first(path: &Path) -> Result<(), ServerError> {
    remove(path)?;
    sync_folder_of(path).map_err(|e| io(path, e))?;
    remove_all(path)
}

/// Whether there was one.
fn remove(path: &Path) -> Result<bool, ServerError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io(path, e)),
    }
}

/// The files of the folder of a database.
fn listed(path: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = path.parent().map(std::fs::read_dir).and_then(Result::ok);
    let entries = entries.into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
}

fn is_waiting(path: &Path, entry: &DirEntry) -> bool {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_hexdigit);
    [STAGED, CLAIMED].iter().any(|kind| {
        let name = entry.file_name();
        let prefix = hidden(path, kind);
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let mut parts = rest.unwrap_or_default().split(|byte| *byte == b'-');
        parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number) && parts.next().is_none()
    })
}

fn hidden(path: &Path, kind: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(kind);
    name
}

fn io(path: &Path, source: std::io::Error) -> ServerError {
    ServerError::Io {
        operation: "removed",
        path: path.to_owned(),
        source,
    }
}
