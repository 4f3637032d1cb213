//! A replica as one handle sees it: what is open, which handles of a process may share, and this handle's own options.
//!
//! Pulls, pushes, checkpoints, hydration and verification run on a [`Session`], so that each handle has its own deadlines,
//! thresholds, transform and cancellation, no matter who opened the replica first. A session is one operation: a cancel that
//! comes after it began ends it, wherever it is by then.

use std::{future::Future, ops::Deref, time::Instant};

use parking_lot::{Mutex, MutexGuard};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use partial_sync_vfs::sqlite::Conn;

use crate::{
    error::{Error, Result},
    open::{info::Info, options::Builder, replica::OpenReplica},
    runtime::{Interrupting, LOOK, Moment},
};

/// An open replica and the options of the handle that works on it.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) open: &'a OpenReplica,
    pub(crate) options: &'a Builder,
    begun: Moment,
}

impl Deref for Session<'_> {
    type Target = OpenReplica;

    fn deref(&self) -> &OpenReplica {
        self.open
    }
}

impl<'a> Session<'a> {
    /// An operation that begins now.
    pub(crate) fn new(open: &'a OpenReplica, options: &'a Builder) -> Self {
        Self::since(open, options, options.cancel.moment())
    }

    /// The same, of something that began earlier.
    pub(crate) fn since(open: &'a OpenReplica, options: &'a Builder, begun: Moment) -> Self {
        Self { open, options, begun }
    }

    /// Waits for the turn of this push, checkpoint or hydration, or of a pull that has its answer.
    pub(crate) fn lock_sync(&self, operation: &'static str) -> Result<MutexGuard<'a, ()>> {
        self.take_turn(&self.open.sync, operation)
    }

    /// Waits for the turn of this pull. Before [`lock_sync`](Self::lock_sync).
    pub(crate) fn lock_pulls(&self, operation: &'static str) -> Result<MutexGuard<'a, ()>> {
        self.take_turn(&self.open.pulling, operation)
    }

    fn take_turn(&self, turns: &'a Mutex<()>, operation: &'static str) -> Result<MutexGuard<'a, ()>> {
        let deadline = Instant::now() + self.options.timeout;
        loop {
            self.check(operation)?;
            let now = Instant::now();
            if let Some(turn) = turns.try_lock_until(deadline.min(now + LOOK)) {
                return Ok(turn);
            }
            if now >= deadline {
                return Err(Error::SyncBusy { operation });
            }
        }
    }

    /// The url that is about to be asked, `None` while sync is paused. One of another remote than before is refused, unless
    /// it was said to be accepted.
    pub(crate) fn checked_url(&self) -> Result<Option<String>> {
        let url = self.open.remote.known_url();
        if !self.open.accepts_new_url {
            self.open
                .info
                .lock()
                .check_url(url.as_deref(), self.open.replica.name())?;
        }
        Ok(url)
    }

    /// The remote at this url has answered: from now on the replica belongs to it.
    pub(crate) fn adopt(&self, url: Option<String>) -> Result<()> {
        match url {
            Some(url) if self.open.info.lock().remote_url != url => {
                self.open.update_info(|info| info.adopt(url))
            }
            _ => Ok(()),
        }
    }

    /// Whether the remote at this url may say what changed since the base; if not, everything counts as changed.
    pub(crate) fn base_is_elsewhere(&self, url: Option<&str>) -> bool {
        self.open.info.lock().base_is_elsewhere(url)
    }

    /// The remote does not know the base: it was restored from a backup, or replaced. Where that was said to be accepted the
    /// replica moves to what is there now.
    pub(crate) fn move_away(&self, error: &RemoteError) -> Result<bool> {
        if error.kind != RemoteErrorKind::RevisionUnknown || !self.open.accepts_new_url {
            return Ok(false);
        }
        self.open.update_info(Info::move_away)?;
        Ok(true)
    }

    /// Fails when this operation was cancelled.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        match self.options.cancel.is_cancelled_since(self.begun) {
            true => Err(Error::Interrupted { operation }),
            false => Ok(()),
        }
    }

    /// Interrupts a connection when this operation is cancelled, for as long as the answer lives: around what may wait for
    /// a page or a lock, and not around what tidies up.
    pub(crate) fn interrupts(&self, connection: &Conn) -> Interrupting {
        self.options
            .cancel
            .interrupts(connection.interrupt_handle(), self.begun)
    }

    /// Begins a transaction on the engine's own connection.
    pub(crate) fn begin_immediate(&self) -> Result<()> {
        self.begin_immediate_on(&self.open.engine_conn)
    }

    /// Begins a transaction that writes. An application may have the write lock for long: a cancel ends the wait.
    pub(crate) fn begin_immediate_on(&self, connection: &Conn) -> Result<()> {
        let _broken_by_cancel = self.interrupts(connection);
        Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Runs a future of the remote, which this handle's [`CancelHandle`](crate::CancelHandle) breaks.
    pub(crate) fn wait<T: Send>(
        &self,
        operation: &'static str,
        future: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.options.cancel.wait(self.begun, operation, future)
    }
}
