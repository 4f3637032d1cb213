//! The way from worker threads to JavaScript: it is told how jobs end, and asked questions whose answers a thread or a task
//! waits for. The functions behind it do not keep Node alive; `lib/work.js` does while there is something to wait for.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::Duration,
};

use napi::{
    Status,
    bindgen_prelude::{FnArgs, Function, Unknown},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::{
    error::Failure,
    messages::{Answered, Outcome, Question},
};

/// How long JavaScript may take to answer a question that blocks a thread.
const ANSWER: Duration = Duration::from_secs(30);

/// What to do with an answer.
type Then = Box<dyn FnOnce(Answered) + Send>;
type Receive<T> =
    ThreadsafeFunction<FnArgs<(u32, T)>, Unknown<'static>, FnArgs<(u32, T)>, Status, false, true>;

/// What JavaScript is called by.
struct Functions {
    settled: Receive<Outcome>,
    asked: Receive<Question>,
}

/// See the module.
pub(crate) struct Mailbox {
    /// None when the database in JavaScript is gone. Node frees them with its environment, also while another thread gives them
    /// back: so JavaScript's thread alone does, see [`Mailbox::release`].
    functions: RwLock<Option<Functions>>,
    /// None when nobody answers any more.
    waiting: Mutex<Option<HashMap<u32, Then>>>,
    next: AtomicU32,
    thread: ThreadId,
}

impl Mailbox {
    /// Called on JavaScript's thread.
    pub(crate) fn new(
        settled: &Function<'_, FnArgs<(u32, Outcome)>, Unknown<'static>>,
        asked: &Function<'_, FnArgs<(u32, Question)>, Unknown<'static>>,
    ) -> napi::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            functions: RwLock::new(Some(Functions {
                settled: settled.build_threadsafe_function().weak::<true>().build()?,
                asked: asked.build_threadsafe_function().weak::<true>().build()?,
            })),
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU32::new(1),
            thread: thread::current().id(),
        }))
    }

    /// Does the work of a job and tells how it ended.
    pub(crate) fn settle(&self, job: u32, work: impl FnOnce() -> Result<Outcome, Failure>) {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Failure::panicked()));
        let outcome = outcome.unwrap_or_else(Outcome::failed);
        if let Some(functions) = &*self.functions.read() {
            functions.settled.call(
                FnArgs::from((job, outcome)),
                ThreadsafeFunctionCallMode::NonBlocking,
            );
        }
    }

    /// JavaScript hears nothing from here on. To be called on its thread before the mailbox is dropped by another one.
    pub(crate) fn release(&self) {
        self.functions.write().take();
    }

    /// Whether it will reach JavaScript.
    fn call(&self, id: u32, question: Question) -> bool {
        self.functions.read().as_ref().is_some_and(|functions| {
            functions.asked.call(
                FnArgs::from((id, question)),
                ThreadsafeFunctionCallMode::NonBlocking,
            ) == Status::Ok
        })
    }

    fn send(&self, mut question: Question, then: impl FnOnce(Answered) + Send + 'static) -> u32 {
        question.for_a_statement = partial_sync::is_asked_for_a_statement();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        match &mut *self.waiting.lock() {
            Some(waiting) => waiting.insert(id, Box::new(then)),
            // Nobody answers any more: anyone who waits learns it by the sender's end.
            None => return id,
        };
        if !self.call(id, question) {
            // Node is going down.
            self.forget(id);
        }
        id
    }

    /// Says something that needs no answer.
    pub(crate) fn tell(&self, question: Question) {
        self.call(0, question);
    }

    /// Asks; the receiver fails when JavaScript is gone.
    pub(crate) fn ask(&self, question: Question) -> (u32, oneshot::Receiver<Answered>) {
        let (sender, receiver) = oneshot::channel();
        let id = self.send(question, move |answer| {
            let _ = sender.send(answer);
        });
        (id, receiver)
    }

    /// Whether this is JavaScript's thread, which must not wait for itself.
    pub(crate) fn is_own_thread(&self) -> bool {
        thread::current().id() == self.thread
    }

    /// Asks and waits on this thread, which must not be JavaScript's.
    pub(crate) fn ask_blocking(&self, question: Question) -> Answered {
        let (sender, receiver) = mpsc::channel();
        let id = self.send(question, move |answer| {
            let _ = sender.send(answer);
        });
        receiver.recv_timeout(ANSWER).unwrap_or_else(|_| {
            self.forget(id);
            Err("JavaScript gave no answer".into())
        })
    }

    /// The answer is no longer wanted.
    pub(crate) fn forget(&self, id: u32) {
        if let Some(waiting) = &mut *self.waiting.lock() {
            waiting.remove(&id);
        }
    }

    /// Hands an answer over.
    pub(crate) fn answer(&self, id: u32, answer: Answered) {
        let then = self
            .waiting
            .lock()
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(then) = then {
            then(answer);
        }
    }

    /// Anyone who still waits for an answer, or asks from now on, gets none.
    pub(crate) fn close(&self) {
        let waiting = self.waiting.lock().take();
        drop(waiting);
    }
}
