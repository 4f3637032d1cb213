//! Lines on their way to stderr. Who says something waits for nobody: a thread of its own writes, and what it has not written yet takes
//! so much room and no more. If nobody reads, lines are dropped; how many is told as soon as somebody does.

use std::{
    cell::Cell,
    io::Write as _,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Bytes of lines that wait.
const ROOM: usize = 1 << 20;
/// How long the end of the program waits for somebody who reads.
const PATIENCE: Duration = Duration::from_millis(500);

static LINES: Lines = Lines {
    now: Mutex::new(Now {
        waiting: Vec::new(),
        dropped: 0,
        is_writing: false,
    }),
    changed: Condvar::new(),
};

thread_local! {
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

struct Lines {
    now: Mutex<Now>,
    changed: Condvar,
}

struct Now {
    waiting: Vec<u8>,
    dropped: u64,
    is_writing: bool,
}

/// Starts the thread. `dropped` says on it how many lines were dropped.
pub(crate) fn start(dropped: impl Fn(u64) + Send + 'static) -> std::io::Result<()> {
    let write = move || {
        IS_WRITER.set(true);
        loop {
            LINES.write_those_that_wait(&dropped);
        }
    };
    std::thread::Builder::new().name("stderr".into()).spawn(write)?;
    Ok(())
}

/// Says something, which ends with a line break.
pub(crate) fn say(text: &[u8]) {
    let mut now = LINES.now();
    // The writer does not wait for itself.
    if now.waiting.len() + text.len() > ROOM && !now.waiting.is_empty() && !IS_WRITER.get() {
        now.dropped += 1;
        return;
    }
    now.waiting.extend(text);
    drop(now);
    LINES.changed.notify_all();
}

/// Waits until all is written, or nobody reads.
pub(crate) fn finish() {
    let waits = |now: &mut Now| now.is_writing || !now.waiting.is_empty();
    // What is left is nobody's.
    drop(LINES.changed.wait_timeout_while(LINES.now(), PATIENCE, waits));
}

impl Lines {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_those_that_wait(&self, dropped: &impl Fn(u64)) {
        let waits = self.changed.wait_while(self.now(), |now| now.waiting.is_empty());
        let mut now = waits.unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut now.waiting);
        now.is_writing = true;
        drop(now);
        // Where nothing can be written, there is nobody to tell.
        let _ = std::io::stderr().write_all(&lines);
        let lost = std::mem::take(&mut self.now().dropped);
        if lost > 0 {
            dropped(lost);
        }
        self.now().is_writing = false;
        self.changed.notify_all();
    }
}
