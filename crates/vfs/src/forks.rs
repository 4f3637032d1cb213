//! Which database files this process has open through SQLite's own VFS. That VFS remembers, for the whole process, what it has
//! locked in a file; a child that is forked inherits the memory and not the locks. What the child would write there would be
//! under no lock, and lost. So a file that was open at the fork is not opened in the child, as long as the child has not
//! closed what it inherited.
//!
//! A replica's file has a lock that belongs to the open file: the child's conflicts with it.

use std::{collections::HashMap, path::Path, sync::LazyLock};

use parking_lot::Mutex;

use crate::{
    error::ReadError,
    registry::{FileId, file_id},
};

/// How many times a file is open, by the process that opened it.
static OPEN: LazyLock<Mutex<HashMap<(FileId, u32), usize>>> = LazyLock::new(Mutex::default);

/// A file that this process has open until this is dropped.
#[derive(Debug)]
pub struct OpenFile {
    file: FileId,
    process: u32,
}

impl OpenFile {
    /// Notes that the file is open; `None` when it is not there. Fails when it was open in the process that this one was
    /// forked from.
    pub fn register(path: &Path) -> Result<Option<Self>, ReadError> {
        Self::register_in(std::process::id(), path)
    }

    fn register_in(process: u32, path: &Path) -> Result<Option<Self>, ReadError> {
        let Some(file) = file_id(path) else {
            return Ok(None);
        };
        let mut open = OPEN.lock();
        let is_inherited = |(of, by): &(FileId, u32)| *of == file && *by != process;
        if open.keys().any(is_inherited) {
            return Err(ReadError::OpenInParent {
                path: path.to_owned(),
            });
        }
        *open.entry((file.clone(), process)).or_default() += 1;
        Ok(Some(Self { file, process }))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        let key = (self.file.clone(), self.process);
        if let Some(count) = open.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b7_a_file_that_was_open_before_the_fork_is_not_opened_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        assert!(OpenFile::register(&path).unwrap().is_none(), "it is not there");
        std::fs::write(&path, "").unwrap();
        let one = OpenFile::register(&path).unwrap();
        let two = OpenFile::register(&path).unwrap();
        let child = std::process::id() + 1;
        for inherited in [one, two] {
            let error = OpenFile::register_in(child, &path).unwrap_err();
            assert!(error.to_string().contains("forked"), "{error}");
            drop(inherited);
        }
        assert!(OpenFile::register_in(child, &path).unwrap().is_some());
    }
}
