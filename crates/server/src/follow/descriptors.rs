//! Read-only descriptors of a database's files that are never closed at a dangerous moment.
//!
//! SQLite's locks are POSIX locks: when a process closes *any* descriptor of a file, *all* its locks on that file are
//! gone, those of unrelated SQLite connections too (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_>).
//! So a descriptor that is done with is parked, and taken again when the same file is opened again; it is closed only
//! when the file has no name any more.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path};

use parking_lot::Mutex;

static PARKED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A descriptor for positional reads. Parked when dropped.
#[derive(Debug)]
pub(super) struct Descriptor(Option<File>);

impl Descriptor {
    /// Opens a file for reading, or takes its parked descriptor.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let wanted = std::fs::metadata(path)?;
        let mut parked = PARKED.lock();
        let found = parked.iter().position(|file| {
            file.metadata()
                .is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()))
        });
        match found {
            Some(at) => Ok(Self(Some(parked.swap_remove(at)))),
            None => Ok(Self(Some(File::open(path)?))),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
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
