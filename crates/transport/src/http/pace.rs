//! How long an answer may take: a limit on silence alone would let a byte now and then hold a caller for ever.
//!
//! A budget of time that begins full, at the request's deadline. Waiting for the answer uses it up, and what arrives fills
//! it again, a second for every [`SLOWEST`] bytes, never beyond the deadline. So an answer of any length comes through
//! whose pace is the slowest one or faster, silence ends at the deadline, and what only drips ends soon after. Time that
//! the reader takes for itself does not count.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};

use super::describe::timed_out;
use crate::remote::{RemoteError, RemoteErrorKind};

/// The slowest pace of an answer, in bytes a second.
pub(super) const SLOWEST: u64 = 4096;

/// The budget of one answer.
pub(super) struct Pace {
    full: Duration,
    left: Duration,
    received: u64,
    /// How long the last wait took.
    waited: Duration,
}

impl Pace {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            full: deadline,
            left: deadline,
            received: 0,
            waited: Duration::ZERO,
        }
    }

    /// Waits within the budget; `None` when it is used up.
    pub(super) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let came = timeout(self.left, next).await;
        self.waited = began.elapsed();
        self.left = self.left.saturating_sub(self.waited);
        came.ok()
    }

    /// Bytes of the answer have arrived.
    pub(super) fn came(&mut self, bytes: usize) {
        self.received += bytes as u64;
        let nanos = (bytes as u64).saturating_mul(1_000_000_000) / SLOWEST;
        self.left = self
            .left
            .saturating_add(Duration::from_nanos(nanos))
            .min(self.full);
    }

    /// Why the budget is used up: nothing came any more, or too little.
    pub(super) fn used_up(&self, what: &str) -> RemoteError {
        if self.waited >= self.full / 2 {
            return timed_out(what, self.waited);
        }
        RemoteError::new(
            RemoteErrorKind::TimedOut,
            format!(
                "{what}: the answer is too slow: after {} bytes it is {:.1} s behind {SLOWEST} bytes a second. Check the \
                 network, or allow more time with the deadline",
                self.received,
                self.full.as_secs_f64()
            ),
        )
    }
}
