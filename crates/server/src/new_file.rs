//! A file that comes into being whole: it is written under a name that nobody takes for a database, put on the disk, and
//! only then given its name. Whenever the process ends, either all of it is there under that name, or nothing.
//!
//! What a killed process leaves behind is removed by the next one that makes a file in the same folder: a file that is being
//! written is locked by who writes it.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use tempfile::TempPath;

use crate::{descriptors::Descriptor, file_id::FileId};

const PREFIX: &str = ".partial-sync-";
const SUFFIX: &str = ".tmp";
/// With which SQLite creates files.
const MODE: u32 = 0o644;

/// See the module. Removed when it is dropped before it has its name.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: TempPath,
}

impl NewFile {
    /// Begins one in the folder of `target`.
    pub fn beside(target: &Path) -> io::Result<Self> {
        let folder = folder_of(target);
        sweep(folder);
        loop {
            let made = tempfile::Builder::new()
                .prefix(PREFIX)
                .suffix(SUFFIX)
                .permissions(Permissions::from_mode(MODE))
                .tempfile_in(folder)?;
            let (file, path) = made.into_parts();
            file.lock()?;
            // Another process may have swept it away before it was locked.
            if FileId::at(&path)
                .is_ok_and(|found| file.metadata().is_ok_and(|ours| FileId::of(&ours) == found))
            {
                return Ok(Self { file, path });
            }
        }
    }

    /// Where it is until it has its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes at a position.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Puts it on the disk and gives it its name. If there is something of that name already, it is replaced, or stays and is an
    /// error of the kind `AlreadyExists`.
    ///
    /// The descriptor is closed last: nobody in this process may have the file open through SQLite by then.
    pub fn finish(self, target: &Path, replace: bool) -> io::Result<()> {
        self.file.sync_all()?;
        match replace {
            true => self.path.persist(target).map_err(|e| e.error)?,
            false => self.path.persist_noclobber(target).map_err(|e| e.error)?,
        }
        sync_folder_of(target)
    }
}

impl NewFile {
    /// As [`finish`](Self::finish), but if there is something of that name already, gives the file back.
    pub(crate) fn name(self, target: &Path) -> io::Result<Option<Self>> {
        self.file.sync_all()?;
        let Self { file, path } = self;
        match path.persist_noclobber(target) {
            Ok(()) => {}
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Some(Self { file, path: e.path }));
            }
            Err(e) => return Err(e.error),
        }
        // A server of this process may have opened it by now.
        drop(Descriptor::of(file));
        sync_folder_of(target)?;
        Ok(None)
    }
}

/// Makes what was created, renamed and removed in the folder of a file survive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes what killed processes have left.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let left = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    };
    for path in entries
        .flatten()
        .filter(|entry| left(&entry.file_name()))
        .map(|entry| entry.path())
    {
        // What stays is tried again the next time.
        let _ = remove_left(&path);
    }
}

/// Locked until it is gone: who has just made it finds that then.
fn remove_left(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_file() {
        let left = File::open(path)?;
        left.try_lock().map_err(io::Error::from)?;
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_there_whole_or_not_at_all_and_what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.db");
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        let left = folder.path().join(".partial-sync-left.tmp");
        std::fs::write(&left, "x").unwrap();
        let first = NewFile::beside(&target).unwrap();
        assert!(!left.exists());
        first.write_at(b"one", 0).unwrap();
        let second = NewFile::beside(&target).unwrap();
        assert!(first.path().exists(), "it is being written");
        second.write_at(b"two", 0).unwrap();
        let third = NewFile::beside(&target).unwrap();
        first.finish(&target, false).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        let there = second.finish(&target, false).unwrap_err();
        assert_eq!(there.kind(), io::ErrorKind::AlreadyExists);
        third.write_at(b"three", 0).unwrap();
        third.finish(&target, true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"three");
        assert_eq!(count(), 1);
    }
}
