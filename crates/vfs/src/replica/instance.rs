//! To whom the files of a replica belong: to one instance at a time, from its registration to its close. What a connection
//! does to a file goes through here, so that a connection that outlives its instance can change nothing: SQLite names
//! files by their path, and the next instance has the same paths. While any file of a closed instance is open, no other
//! instance of that path can be registered.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::Replica;
use crate::{
    error::ReadError,
    registry::{self, Handles},
    sync::RwLock,
};

/// What the VFS must know of a replica when the replica itself is gone already.
#[derive(Default)]
pub(crate) struct Instance {
    /// Held shared by whoever changes a file, so that a change of it waits for that.
    pub(super) standing: RwLock<Standing>,
    /// Whether it was closed, for whoever only reads.
    closed: AtomicBool,
    pub(crate) handles: Handles,
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
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Says that other programs can write to the database file.
    pub(super) fn is_ordinary(&self) {
        *self.standing.write() = Standing::Ordinary;
    }
}

impl Replica {
    /// Runs what does something to a file of the replica, unless it is closed; closing waits until it has ended.
    pub(crate) fn while_open<T>(&self, work: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        // Recursive: what runs in it may wait for a pull that moves the base, which writes to the WAL.
        let standing = self.instance.standing.read_recursive();
        match *standing {
            Standing::Open | Standing::Ordinary => work(),
            Standing::Closed => Err(ReadError::Closed),
        }
    }

    /// Runs what gives the database file or the WAL other contents: before that, other programs refuse the database file.
    pub(crate) fn writing<T>(&self, change: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let standing = loop {
            let standing = self.instance.standing.read();
            match *standing {
                Standing::Open => break standing,
                Standing::Closed => return Err(ReadError::Closed),
                Standing::Ordinary => {}
            }
            drop(standing);
            self.claim()?;
        };
        let changed = change();
        drop(standing);
        changed
    }

    /// Ends the replica: no connection and no fetch that is still there reads or writes a file of it any more. To be called
    /// before the lock of the file is given back.
    pub fn close(&self) {
        *self.instance.standing.write() = Standing::Closed;
        self.instance.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.instance.is_closed()
    }

    /// Waits until no connection has a file of the replica open, at most so long. How many files there are still.
    pub fn wait_until_unused(&self, wait: Duration) -> usize {
        registry::wait_until_unused(&self.instance, Instant::now() + wait)
    }
}
