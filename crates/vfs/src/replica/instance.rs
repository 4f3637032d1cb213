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
    /// Whether it was closed. Held shared by whoever changes a file, so that closing waits for that.
    standing: RwLock<Standing>,
    /// The same, for whoever only reads.
    closed: AtomicBool,
    pub(crate) handles: Handles,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Open,
    Closed,
}

impl Instance {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Replica {
    /// Runs what changes a file of the replica, unless it is closed; closing waits until it has ended.
    pub(crate) fn writing<T>(&self, change: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let standing = self.instance.standing.read();
        match *standing {
            Standing::Open => change(),
            Standing::Closed => Err(ReadError::Closed),
        }
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
