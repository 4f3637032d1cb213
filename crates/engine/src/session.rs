//! A replica as one handle sees it: what is open, which handles of a process may share, and this handle's own options.
//!
//! Pulls, pushes, hydration and verification run on a [`Session`], so that each handle has its own deadlines, thresholds,
//! transform and cancellation, whoever opened the replica first.

use std::{future::Future, ops::Deref};

use parking_lot::MutexGuard;

use crate::{
    database::OpenReplica,
    error::{Error, Result},
    options::Builder,
};

/// An open replica and the options of the handle that works on it.
#[derive(Clone, Copy)]
pub(crate) struct Session<'a> {
    pub(crate) open: &'a OpenReplica,
    pub(crate) options: &'a Builder,
}

impl Deref for Session<'_> {
    type Target = OpenReplica;

    fn deref(&self) -> &OpenReplica {
        self.open
    }
}

impl Session<'_> {
    /// Waits for the turn of this pull, push, checkpoint or hydration.
    pub(crate) fn lock_sync(&self, doing: &'static str) -> Result<MutexGuard<'_, ()>> {
        self.open
            .sync
            .try_lock_for(self.options.timeout)
            .ok_or(Error::SyncBusy { doing })
    }

    /// Runs a future of the remote, which this handle's [`CancelHandle`](crate::CancelHandle) breaks.
    pub(crate) fn wait<T: Send>(
        &self,
        doing: &'static str,
        future: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.options.cancel.wait(doing, future)
    }
}
