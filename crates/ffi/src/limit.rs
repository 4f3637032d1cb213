//! How long one call may run statements of a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use partial_sync::Connection;

use crate::boundary::Result;

/// The query timeout of a connection, which its statements share.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryTimeout {
    /// Milliseconds; 0 = no limit.
    ms: Arc<AtomicU32>,
}

impl QueryTimeout {
    pub(crate) fn new(ms: u32) -> Self {
        Self {
            ms: Arc::new(AtomicU32::new(ms)),
        }
    }

    pub(crate) fn set(&self, ms: u32) {
        self.ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn is_none(&self) -> bool {
        self.ms.load(Ordering::Relaxed) == 0
    }

    /// Runs statements of the connection for at most so long. Other threads' statements wait meanwhile, as they do for
    /// any: the limit is not for them.
    pub(crate) fn timed<T>(&self, connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.ms.load(Ordering::Relaxed) {
            0 => work(),
            ms => {
                let _held = connection.hold();
                connection.within(Some(Duration::from_millis(ms.into())), work)
            }
        }
    }
}
