//! How long ago something was, when the machine may have been asleep.
//!
//! A steady clock stands still while a machine sleeps, the wall clock may be set back, and both stand still in a virtual machine that
//! is paused. So the time that passed is the longest that any of the clocks tells, where there is one the store's own too (the
//! `Date` of its answers, of which the answer to a PUT has one); and if one of them went back, nothing is known.

use std::{
    fmt::Debug,
    time::{Duration, Instant, SystemTime},
};

/// What clocks there are say at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// A clock that is never set.
    pub steady: Duration,
    /// The time of day, since 1970.
    pub wall: Duration,
    /// The time of day that the store told last, since 1970; zero if it tells none.
    pub store: Duration,
}

impl Mark {
    /// How much time passed since `before`, at the most; `None` if that is not known.
    pub(crate) fn since(self, before: Self) -> Option<Duration> {
        let steady = self.steady.checked_sub(before.steady)?;
        let wall = self.wall.checked_sub(before.wall)?;
        let store = self.store.checked_sub(before.store)?;
        Some(steady.max(wall).max(store))
    }
}

/// Tells the time.
pub trait Clock: Debug + Send + Sync {
    /// What the clocks say now.
    fn mark(&self) -> Mark;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    start: Instant,
}

impl LocalClock {
    /// The clocks.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for LocalClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for LocalClock {
    fn mark(&self) -> Mark {
        Mark {
            steady: self.start.elapsed(),
            wall: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
            store: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_counts_and_a_clock_that_went_back_tells_nothing() {
        let mark = |steady, wall, store| Mark {
            steady: Duration::from_secs(steady),
            wall: Duration::from_secs(wall),
            store: Duration::from_secs(store),
        };
        let before = mark(5, 100, 200);
        assert_eq!(mark(6, 102, 200).since(before), Some(Duration::from_secs(2)));
        assert_eq!(mark(9, 102, 200).since(before), Some(Duration::from_secs(4)));
        assert_eq!(mark(5, 100, 260).since(before), Some(Duration::from_secs(60)));
        assert_eq!(mark(6, 99, 200).since(before), None);
    }
}
