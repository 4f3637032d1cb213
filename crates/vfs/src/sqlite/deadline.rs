//! Until when a connection runs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A moment, or none, that any thread may change while another one looks.
pub(super) struct Deadline {
    from: Instant,
    /// Nanoseconds since then, or `NEVER`.
    at: AtomicU64,
}

impl Deadline {
    pub(super) fn none() -> Self {
        Self {
            from: Instant::now(),
            at: AtomicU64::new(NEVER),
        }
    }

    pub(super) fn set(&self, deadline: Option<Instant>) {
        let nanos = deadline.map_or(NEVER, |at| nanos(at.saturating_duration_since(self.from)));
        self.at.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn has_passed(&self) -> bool {
        let at = self.at.load(Ordering::Relaxed);
        at != NEVER && nanos(self.from.elapsed()) >= at
    }
}

/// Capped below `NEVER`.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER - 1)
}
