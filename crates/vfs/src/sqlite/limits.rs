//! What a connection may take: until when it runs, and how long it waits for a lock.
//!
//! SQLite's own wait for a lock sleeps through an interrupt. This one looks up every few milliseconds, so that
//! interrupts, deadlines and threads that must not wait all end it. It must never end a wait that nobody wanted ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    context,
    deadline::{Deadline, nanos},
    turns::Turns,
};

/// How many steps of the virtual machine SQLite takes between two looks at the limits.
const STEPS_BETWEEN_LOOKS: u32 = 1000;
/// How many such looks there are between two questions to the thread's watch, which may be slow to answer.
const LOOKS_BETWEEN_QUESTIONS: u32 = 100;
/// The longest sleep between two tries for a lock.
const LONGEST_SLEEP: Duration = Duration::from_millis(10);

/// The limits of one connection, which any thread may change while another one runs it.
pub(super) struct Limits {
    pub(super) deadline: Deadline,
    /// What the times below count from.
    opened: Instant,
    /// Milliseconds.
    busy_timeout: AtomicU64,
    /// Nanoseconds at which the wait for a lock that is under way began.
    waiting_since: AtomicU64,
    /// Whether SQLite was told to look at the deadline.
    watched: AtomicBool,
    /// Who else wants the file's locks.
    pub(super) turns: Arc<Turns>,
    is_waiting: AtomicBool,
    /// Whether the connection has written and not begun to write again.
    has_written: AtomicBool,
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.end_to_wait();
    }
}

impl Limits {
    pub(super) fn new(busy_timeout: Duration, turns: Arc<Turns>) -> Self {
        let limits = Self {
            deadline: Deadline::none(),
            opened: Instant::now(),
            busy_timeout: AtomicU64::default(),
            waiting_since: AtomicU64::default(),
            watched: AtomicBool::default(),
            turns,
            is_waiting: AtomicBool::default(),
            has_written: AtomicBool::default(),
        };
        limits.set_busy_timeout(busy_timeout);
        limits
    }

    pub(super) fn set_busy_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.busy_timeout.store(millis, Ordering::Relaxed);
    }

    /// Makes SQLite wait for locks here.
    pub(super) fn wait_for_locks(
        limits: &Arc<Self>,
        conn: &mut rusqlite::Connection,
    ) -> rusqlite::Result<()> {
        let limits = limits.clone();
        conn.busy_handler(Some(move |tries| limits.try_lock_again(tries)))
    }

    /// Makes SQLite look at the deadline, and at the steps that a thread in haste has left, while it runs.
    pub(super) fn watch(limits: &Arc<Self>, conn: &mut rusqlite::Connection) -> rusqlite::Result<()> {
        if limits.watched.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let watcher = limits.clone();
        let mut looks = 0_u32;
        let stop = move || {
            looks = looks.wrapping_add(1);
            context::spend(STEPS_BETWEEN_LOOKS)
                || watcher.deadline.has_passed()
                || (looks.is_multiple_of(LOOKS_BETWEEN_QUESTIONS) && context::is_stopped())
        };
        conn.progress_handler(STEPS_BETWEEN_LOOKS as i32, Some(stop))
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// A statement that may take the write lock is about to be run outside of a transaction.
    pub(super) fn before_write(&self) {
        if self.turns.waiting() > 0 && self.has_written.swap(false, Ordering::Relaxed) {
            self.turns.let_others_try();
        }
    }

    /// A transaction that may have had the write lock has ended.
    pub(super) fn after_write(&self) {
        self.has_written.store(true, Ordering::Relaxed);
    }

    /// The call that may have waited for a lock has ended.
    pub(super) fn end_to_wait(&self) {
        if self.is_waiting.load(Ordering::Relaxed) && self.is_waiting.swap(false, Ordering::Relaxed) {
            self.turns.end_to_wait();
        }
    }

    /// SQLite found a lock taken for the `tries`th time since it wanted it: true = try again.
    fn try_lock_again(&self, tries: i32) -> bool {
        let now = nanos(self.opened.elapsed());
        if tries == 0 {
            self.waiting_since.store(now, Ordering::Relaxed);
            if !self.is_waiting.swap(true, Ordering::Relaxed) {
                self.turns.begin_to_wait();
            }
        }
        let timeout = self
            .busy_timeout
            .load(Ordering::Relaxed)
            .saturating_mul(1_000_000);
        let waited = now.saturating_sub(self.waiting_since.load(Ordering::Relaxed));
        if waited >= timeout || context::must_not_wait() || context::is_interrupted() {
            return false;
        }
        let left = Duration::from_nanos(timeout - waited);
        let sleep = Duration::from_millis(1 << tries.clamp(0, 4)).min(LONGEST_SLEEP);
        thread::sleep(sleep.min(left));
        true
    }
}
