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
    database::Inner,
    error::{Error, Result},
    options::Builder,
    runtime::{LOOK, Moment},
};

type Opened = (u32, Weak<Inner>);

/// By path: what is there, and in which process it was opened; an empty reference while it is being opened or closed.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Opened>>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();

/// What a connect finds.
pub(crate) enum Turn {
    /// The replica is open: join it.
    Join(Arc<Inner>),
    /// It is this caller's to open. Others wait until the place is filled or given back.
    Open(Place),
}

/// The right to have the replica at a path open; given back when dropped, which must be after its files are closed.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// Says that it is open, for others to join.
    pub(crate) fn fill(&self, inner: &Arc<Inner>) {
        let open = (std::process::id(), Arc::downgrade(inner));
        OPEN.lock().insert(self.path.clone(), open);
        CHANGED.notify_all();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.lock().remove(&self.path);
        CHANGED.notify_all();
    }
}

/// Whether this replica's files are not given back yet.
pub(crate) fn is_there(replica: &Weak<Inner>) -> bool {
    OPEN.lock().values().any(|(_, open)| open.ptr_eq(replica))
}

/// Waits for a turn at a path, as long as the options let a connect wait.
pub(crate) fn take_turn(path: &Path, options: &Builder, begun: Moment) -> Result<Turn> {
    let deadline = Instant::now() + options.timeout;
    let mut open = OPEN.lock();
    loop {
        match open.get(path).map(|(process, open)| (*process, open.upgrade())) {
            None => {
                open.insert(path.to_owned(), (std::process::id(), Weak::new()));
                return Ok(Turn::Open(Place {
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
            Some((_, Some(inner))) => return Ok(Turn::Join(inner)),
            Some((_, None)) => {}
        }
        if options.cancel.is_cancelled_since(begun) {
            return Err(Error::Interrupted { doing: "the connect" });
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(Error::InUse {
                path: path.to_owned(),
            });
        }
        CHANGED.wait_until(&mut open, deadline.min(now + LOOK));
    }
}
