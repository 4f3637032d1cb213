//! To whom the files of a replica belong: to one instance at a time, from its registration to its close. What a connection
//! does to a file goes through here, so that a connection that outlives its instance can change nothing: SQLite names
//! files by their path, and the next instance has the same paths. While any file of a closed instance is open, no other
//! instance of that path can be registered.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sync::RwLock;

/// What the VFS must know of a replica when the replica itself is gone already.
#[derive(Default)]
pub(crate) struct Instance {
    /// Held shared by anyone who changes a file, so that a change of it waits for that.
    pub(super) standing: RwLock<Standing>,
    /// Whether it was closed, for anyone who only reads.
    pub(super) closed: AtomicBool,
    /// Changed by [`crate::registry`] only.
    pub(crate) handles: AtomicUsize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It reads and writes its files, and other programs refuse the database file.
    #[default]
    Open,
    /// The same, but the database file is an ordinary one. To be claimed before a file is changed.
    Ordinary,
    /// It does nothing to its files.
    Closed,
}

impl Instance {
    /// How many of its files SQLite has open.
    pub(crate) fn handles(&self) -> usize {
        self.handles.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Says that other programs can write to the database file.
    pub(super) fn is_ordinary(&self) {
        *self.standing.write() = Standing::Ordinary;
    }
}
