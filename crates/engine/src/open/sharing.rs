//! Which replicas this process has open: a second connect to a path joins the replica that is open there, for two page
//! maps of one file would each think the other's pages absent. One that is being opened or closed is waited for.
//!
//! Only replicas in the file system are shared; other storages, and remotes of a caller's making, are their owner's.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak},
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use partial_sync_vfs::ReadError;

use crate::{
    error::{Error, Result},
    open::options::Builder,
    runtime::{LOOK, Moment},
};

/// What this process has open.
pub(crate) struct Sharing<T: 'static> {
    /// By path: what is there, and in which process it was opened; an empty reference while it is being opened or closed.
    open: LazyLock<Mutex<ByPath<T>>>,
    changed: Condvar,
}

type ByPath<T> = HashMap<PathBuf, (u32, Weak<T>)>;

/// What a connect finds.
pub(crate) enum Claim<T: 'static> {
    /// The replica is open: join it.
    Join(Arc<T>),
    /// It is this caller's to open. Others wait until the place is filled or given back.
    Open(Reservation<T>),
}

/// The right to have the replica at a path open; given back when dropped, which must be after its files are closed.
pub(crate) struct Reservation<T: 'static> {
    sharing: &'static Sharing<T>,
    path: PathBuf,
}

impl<T> Reservation<T> {
    /// Says that it is open, for others to join.
    pub(crate) fn fill(&self, opened: &Arc<T>) {
        let opened = (std::process::id(), Arc::downgrade(opened));
        self.sharing.open.lock().insert(self.path.clone(), opened);
        self.sharing.changed.notify_all();
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        self.sharing.open.lock().remove(&self.path);
        self.sharing.changed.notify_all();
    }
}

impl<T> Sharing<T> {
    pub(crate) const fn new() -> Self {
        Self {
            open: LazyLock::new(Mutex::default),
            changed: Condvar::new(),
        }
    }

    /// Whether this replica's files are not given back yet.
    pub(crate) fn has(&self, replica: &Weak<T>) -> bool {
        self.open.lock().values().any(|(_, open)| open.ptr_eq(replica))
    }

    /// Waits for a turn at a path, as long as the options let a connect wait.
    pub(crate) fn claim(&'static self, path: &Path, options: &Builder, begun: Moment) -> Result<Claim<T>> {
        let deadline = Instant::now() + options.timeout;
        let mut open = self.open.lock();
        loop {
            match open.get(path).map(|(process, open)| (*process, open.upgrade())) {
                None => {
                    open.insert(path.to_owned(), (std::process::id(), Weak::new()));
                    return Ok(Claim::Open(Reservation {
                        sharing: self,
                        path: path.to_owned(),
                    }));
                }
                // The threads that work for it are the parent's.
                Some((process, _)) if process != std::process::id() => {
                    return Err(ReadError::OpenInParent {
                        path: path.to_owned(),
                    }
                    .into());
                }
                Some((_, Some(opened))) => return Ok(Claim::Join(opened)),
                Some((_, None)) => {}
            }
            if options.cancel.is_cancelled_since(begun) {
                return Err(Error::Interrupted {
                    operation: "the connect",
                });
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Error::InUse {
                    path: path.to_owned(),
                });
            }
            self.changed.wait_until(&mut open, deadline.min(now + LOOK));
        }
    }
}
