//! The queue of those who want to write to one database. SQLite's own waiting polls, so that who polls at the right moment wins
//! and somebody else waits for ever; here who came first is served first.
//!
//! SQLite's lock decides, whatever is said here: other programs do not queue, and who has the turn may still find it taken.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// How often a waiter looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Default)]
pub(super) struct Writers(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// Somebody has the turn.
    taken: bool,
    /// When it was last passed on.
    passed: Option<Instant>,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Default)]
struct Waiter {
    /// Set under the queue's lock.
    served: Mutex<bool>,
    wake: Condvar,
}

impl Writers {
    /// The turn, if nobody has it or waits for it.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<WriteTurn> {
        let mut queue = self.0.lock();
        if queue.taken {
            return None;
        }
        queue.taken = true;
        Some(WriteTurn(self.clone()))
    }

    /// Waits for the turn as long as it is passed on at least every `patience`, and not beyond `until`; `None` when it was not
    /// to be had or the waiter is `gone`. Blocks.
    pub(super) fn take(
        self: &Arc<Self>,
        patience: Duration,
        until: Instant,
        gone: impl Fn() -> bool,
    ) -> Option<WriteTurn> {
        let came = Instant::now();
        let me = Arc::new(Waiter::default());
        let mut queue = self.0.lock();
        if !queue.taken {
            queue.taken = true;
            return Some(WriteTurn(self.clone()));
        }
        queue.waiting.push_back(me.clone());
        loop {
            if *me.served.lock() {
                return Some(WriteTurn(self.clone()));
            }
            let since = queue.passed.map_or(came, |passed| passed.max(came));
            let end = (since + patience).min(until);
            let now = Instant::now();
            if now >= end || gone() {
                queue.waiting.retain(|waiter| !Arc::ptr_eq(waiter, &me));
                return None;
            }
            me.wake.wait_until(&mut queue, end.min(now + LOOK));
        }
    }

    fn pass_on(&self) {
        let mut queue = self.0.lock();
        queue.passed = Some(Instant::now());
        match queue.waiting.pop_front() {
            Some(next) => {
                *next.served.lock() = true;
                next.wake.notify_one();
            }
            None => queue.taken = false,
        }
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }
}

/// The right to try to write; passed on when it is dropped.
pub(super) struct WriteTurn(Arc<Writers>);

impl Drop for WriteTurn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn never() -> bool {
        false
    }

    fn wait_until_waiting(writers: &Writers, count: usize) {
        while writers.waiting() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn v14_who_came_first_is_served_first_and_who_comes_later_does_not_overtake() {
        let writers = Arc::new(Writers::default());
        let held = writers.try_take().unwrap();
        let served = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for n in 0..8 {
                let (writers, served) = (&writers, &served);
                scope.spawn(move || {
                    let turn = writers.take(LONG, Instant::now() + LONG, never).unwrap();
                    served.lock().push(n);
                    drop(turn);
                });
                wait_until_waiting(writers, n + 1);
            }
            assert!(writers.try_take().is_none());
            drop(held);
        });
        assert_eq!(*served.lock(), (0..8).collect::<Vec<_>>());
        assert!(writers.try_take().is_some());
    }

    #[test]
    fn who_gives_up_or_has_gone_is_left_out() {
        let writers = Arc::new(Writers::default());
        let held = writers.try_take().unwrap();
        assert!(
            writers
                .take(Duration::ZERO, Instant::now() + LONG, never)
                .is_none()
        );
        assert!(writers.take(LONG, Instant::now(), never).is_none());
        assert!(writers.take(LONG, Instant::now() + LONG, || true).is_none());
        assert_eq!(writers.waiting(), 0);
        drop(held);
        assert!(writers.take(Duration::ZERO, Instant::now(), never).is_some());
    }
}
