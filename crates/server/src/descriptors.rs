//! Descriptors for reading a database's files that are never closed at a dangerous moment.
//!
//! SQLite's locks are POSIX locks: when a process closes *any* descriptor of a file, *all* its locks on that file are
//! gone, those of unrelated SQLite connections too (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_>).
//! So a descriptor that is done with is parked, and taken again when the same file is opened again; it is closed only
//! when the file has no name any more, or by [`close_unused_descriptors`] when nobody else has the file open.

use std::{collections::HashMap, fs::File, io, os::unix::fs::MetadataExt, path::Path};

use parking_lot::Mutex;

use crate::file_id::FileId;

static PARKED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A descriptor for positional reads. Parked when dropped.
#[derive(Debug)]
pub(crate) struct Descriptor(Option<File>);

impl Descriptor {
    /// Opens a file for reading, or takes its parked descriptor.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let wanted = FileId::at(path)?;
        let mut parked = PARKED.lock();
        let found = parked
            .iter()
            .position(|file| file.metadata().is_ok_and(|meta| FileId::of(&meta) == wanted));
        match found {
            Some(at) => Ok(Self(Some(parked.swap_remove(at)))),
            None => Ok(Self(Some(File::open(path)?))),
        }
    }

    /// Takes over one that was opened otherwise.
    pub(crate) fn of(file: File) -> Self {
        Self(Some(file))
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.0.as_ref().expect("the file is taken out in drop only")
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut parked = PARKED.lock();
        parked.extend(self.0.take());
        parked.retain(|file| file.metadata().map_or(true, |m| m.nlink() > 0));
    }
}

/// Closes the parked descriptors of files that this process has not open otherwise: nobody here has locks on them that
/// could be lost. Looks at every descriptor of the process.
pub(crate) fn close_unused_descriptors() {
    let mut parked = PARKED.lock();
    if parked.is_empty() {
        return;
    }
    // Of each file, how many more there are than are parked.
    let mut others: HashMap<FileId, isize> = HashMap::new();
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    for descriptor in descriptors.flatten() {
        if let Ok(id) = FileId::at(&descriptor.path()) {
            *others.entry(id).or_default() += 1;
        }
    }
    let id_of = |file: &File| file.metadata().ok().map(|meta| FileId::of(&meta));
    for id in parked.iter().filter_map(id_of) {
        *others.entry(id).or_default() -= 1;
    }
    parked.retain(|file| id_of(file).is_some_and(|id| others.get(&id).is_none_or(|n| *n != 0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_parked(path: &Path) -> bool {
        let wanted = FileId::at(path).unwrap();
        let parked = PARKED.lock();
        parked
            .iter()
            .any(|file| FileId::of(&file.metadata().unwrap()) == wanted)
    }

    #[test]
    fn v11_a_descriptor_is_closed_when_nobody_else_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let other = File::open(&path).unwrap();
        drop(Descriptor::open(&path).unwrap());
        close_unused_descriptors();
        assert!(
            is_parked(&path),
            "closing it would take the locks of the other away"
        );
        drop(other);
        close_unused_descriptors();
        if cfg!(target_os = "linux") {
            assert!(!is_parked(&path));
        }
    }

    /// Was red: each of them kept the other one, for as long as the file had a name.
    #[test]
    fn v11_two_descriptors_of_a_file_that_nobody_else_has_open_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let two = [(); 2].map(|()| Descriptor::open(&path).unwrap());
        close_unused_descriptors();
        drop(two);
        let other = File::open(&path).unwrap();
        close_unused_descriptors();
        assert!(is_parked(&path), "the locks of the other");
        drop(other);
        close_unused_descriptors();
        if cfg!(target_os = "linux") {
            assert!(!is_parked(&path));
        }
    }
}
