//! Who may change a file of a replica. What a connection or a fetch does to one goes through here.

use std::sync::atomic::Ordering;

use super::{hidden::hide_file, instance::Standing, state::Replica};
use crate::error::ReadError;

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

    /// Other programs refuse the file from now on, if it is a replica's that is open.
    pub(crate) fn claim(&self) -> Result<(), ReadError> {
        if *self.instance.standing.read() != Standing::Ordinary {
            return Ok(());
        }
        let mut standing = self.instance.standing.write();
        if *standing == Standing::Ordinary {
            hide_file(&*self.main).map_err(ReadError::io("write", &self.path))?;
            *standing = Standing::Open;
        }
        Ok(())
    }
}
