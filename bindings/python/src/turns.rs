//! Turns on a connection: one thread at a time, in the order in which they came, and nobody waits for itself.
//!
//! Nobody waits for a turn with the GIL, and nobody waits for a turn while it has it: a call in the middle of another call
//! of its thread is told so at once. Who gives its turn back hands it to the one who has waited longest, so that a thread
//! that calls again and again does not keep the others out.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// Whose turn it is, and who waits.
#[derive(Default)]
pub(crate) struct Turns {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    holder: Option<ThreadId>,
    waiting: VecDeque<Arc<Waiter>>,
}

/// A thread in the queue; the turn is its own once it was woken.
struct Waiter {
    thread: ThreadId,
    called: AtomicBool,
    woken: Condvar,
}

impl Turns {
    /// A turn, where nobody has it.
    pub(crate) fn try_take(&self) -> Option<Turn<'_>> {
        let mut queue = self.queue.lock();
        if queue.holder.is_some() {
            return None;
        }
        queue.holder = Some(thread::current().id());
        Some(Turn { turns: self })
    }

    /// Whether this thread has the turn.
    pub(crate) fn is_mine(&self) -> bool {
        self.queue.lock().holder == Some(thread::current().id())
    }

    /// Takes a place at the end of the queue.
    pub(crate) fn wait(&self) -> Place<'_> {
        let mut queue = self.queue.lock();
        let waiter = Arc::new(Waiter {
            thread: thread::current().id(),
            called: AtomicBool::new(queue.holder.is_none()),
            woken: Condvar::new(),
        });
        match queue.holder {
            Some(_) => queue.waiting.push_back(waiter.clone()),
            None => queue.holder = Some(waiter.thread),
        }
        Place {
            turns: self,
            waiter,
            used: false,
        }
    }

    fn give_back(&self) {
        let mut queue = self.queue.lock();
        let next = queue.waiting.pop_front();
        queue.holder = next.as_ref().map(|next| next.thread);
        if let Some(next) = next {
            next.called.store(true, Ordering::Relaxed);
            next.woken.notify_one();
        }
    }
}

/// A place in the queue, given up when dropped.
pub(crate) struct Place<'t> {
    turns: &'t Turns,
    waiter: Arc<Waiter>,
    /// The turn came and was taken.
    used: bool,
}

impl<'t> Place<'t> {
    /// Waits to be called, for so long at most.
    pub(crate) fn wait_for(&self, time: Duration) {
        let mut queue = self.turns.queue.lock();
        if !self.waiter.called.load(Ordering::Relaxed) {
            self.waiter.woken.wait_for(&mut queue, time);
        }
    }

    /// The turn, once it has come.
    pub(crate) fn turn(&mut self) -> Option<Turn<'t>> {
        self.used = self.waiter.called.load(Ordering::Relaxed);
        self.used.then(|| Turn { turns: self.turns })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.used {
            return;
        }
        let mut queue = self.turns.queue.lock();
        queue
            .waiting
            .retain(|waiting| !Arc::ptr_eq(waiting, &self.waiter));
        let called = self.waiter.called.load(Ordering::Relaxed);
        drop(queue);
        if called {
            self.turns.give_back();
        }
    }
}

/// This thread's turn, given back when dropped.
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.give_back();
    }
}
