//! Connections of this process that write to one file take turns.
//!
//! SQLite waits for a lock by trying again now and then. A connection that commits and begins again at once has the lock back
//! before anybody tries, and the others give up in the end, however long they wait. So a connection that has just written
//! lets those that wait try first: until one of them has the lock, at most for [`PAUSE`].

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::context;

/// A little longer than the longest sleep between two tries.
const PAUSE: Duration = Duration::from_millis(12);
/// How often it looks.
const LOOK: Duration = Duration::from_micros(500);

static TURNS: LazyLock<Mutex<HashMap<PathBuf, Weak<Turns>>>> = LazyLock::new(Mutex::default);

/// Who waits for a lock of one file.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: AtomicUsize,
    /// How many waits have ended.
    ended: AtomicUsize,
}

impl Turns {
    /// Those of the file at this path.
    pub(super) fn of(path: &Path) -> Arc<Self> {
        let mut turns = TURNS.lock();
        if let Some(known) = turns.get(path).and_then(Weak::upgrade) {
            return known;
        }
        turns.retain(|_, turns| turns.strong_count() > 0);
        let new = Arc::new(Self::default());
        turns.insert(path.to_owned(), Arc::downgrade(&new));
        new
    }

    pub(super) fn begin_to_wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_to_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Lets those that wait try.
    pub(super) fn let_others_try(&self) {
        let (begun, before) = (Instant::now(), self.ended.load(Ordering::Relaxed));
        while self.waiting() > 0
            && self.ended.load(Ordering::Relaxed) == before
            && begun.elapsed() < PAUSE
            && !context::is_in_haste()
        {
            std::thread::sleep(LOOK);
        }
    }
}
