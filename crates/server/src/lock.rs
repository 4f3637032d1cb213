//! The lock that keeps a second server away from a database: two would count revisions in one page history, and each
//! would find the other's numbers where its own should be.
//!
//! A `flock` on a file of its own beside the database (`-lock`), which says whose it is. Not on the history or the
//! database: closing a descriptor of a file that SQLite has open takes SQLite's locks away.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use partial_sync_vfs::side_file_path;

use crate::{error::ServerError, file_id::FileId};

/// Digits of the number of a process, and more.
const LONGEST_ID: u64 = 32;

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct DatabaseLock {
    file: File,
    path: PathBuf,
}

impl DatabaseLock {
    /// Takes the lock of the database at a path; fails at once if somebody has it.
    pub(crate) fn take(database: &Path) -> Result<Self, ServerError> {
        let path = side_file_path(database, "-lock");
        let failed = |operation, source| ServerError::Io {
            operation,
            path: path.clone(),
            source,
        };
        loop {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|e| failed("opened", e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // Whose it is cannot be read: it is taken all the same.
                    let _ = file.take(LONGEST_ID).read_to_string(&mut text);
                    return Err(ServerError::InUse {
                        path: database.to_owned(),
                        process: text.trim().parse().ok(),
                    });
                }
                Err(TryLockError::Error(e)) => return Err(failed("locked", e)),
            }
            let mut this = Self {
                file,
                path: path.clone(),
            };
            // The one who had it may have removed the file between the two calls: then this lock is on no file.
            if this.is_in_place() {
                if let Err(error) = this.sign() {
                    // It is held all the same; the disk may be full.
                    tracing::debug!(path = %this.path.display(), %error, "the lock does not say whose it is");
                }
                return Ok(this);
            }
        }
    }

    /// Whether the file is still there, so that others find it.
    pub(crate) fn is_in_place(&self) -> bool {
        let open = self.file.metadata().map(|meta| FileId::of(&meta));
        open.is_ok_and(|open| FileId::at(&self.path).is_ok_and(|found| found == open))
    }

    fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for DatabaseLock {
    fn drop(&mut self) {
        if self.is_in_place() {
            // What stays is taken over by the next one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v9_the_lock_is_free_again_when_its_holder_is_gone_and_names_the_holder_before() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let first = DatabaseLock::take(&database).unwrap();
        match DatabaseLock::take(&database) {
            Err(ServerError::InUse { process, .. }) => assert_eq!(process, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        assert!(!folder.path().join("a.db-lock").exists());
        // What a killed process leaves.
        std::fs::write(folder.path().join("a.db-lock"), "1234567890\n").unwrap();
        let second = DatabaseLock::take(&database).unwrap();
        let text = std::fs::read_to_string(folder.path().join("a.db-lock")).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
        // Somebody tidies up: the lock keeps nobody out any more, and knows it.
        std::fs::remove_file(folder.path().join("a.db-lock")).unwrap();
        assert!(!second.is_in_place());
        let third = DatabaseLock::take(&database).unwrap();
        drop(second);
        assert!(third.is_in_place());
    }

    /// Was red: a server could not start on a full disk.
    #[test]
    fn v8_a_lock_that_cannot_be_signed_is_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        std::os::unix::fs::symlink("/dev/full", folder.path().join("a.db-lock")).unwrap();
        let first = DatabaseLock::take(&database).unwrap();
        assert!(first.is_in_place());
        match DatabaseLock::take(&database) {
            Err(ServerError::InUse { process, .. }) => assert_eq!(process, None),
            other => panic!("{other:?}"),
        }
    }
}
