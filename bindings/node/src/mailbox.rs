//! What goes from worker threads to JavaScript: outcomes of jobs, and questions whose answers a thread or a task waits
//! for. The functions behind it do not keep Node alive; `lib/work.js` does while there is something to wait for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::Duration,
};

use bytes::Bytes;
use napi::{
    Status,
    bindgen_prelude::{FnArgs, Function, Uint8Array, Unknown},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use napi_derive::napi;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    database::Counters,
    error::Failure,
    statement::{Batch, Ran, Statement},
};

/// How long JavaScript may take to answer a question that blocks a thread.
const ANSWER: Duration = Duration::from_secs(30);

/// How a job ended.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct Outcome {
    /// It failed.
    pub error: Option<Failure>,
    /// Rows.
    pub batch: Option<Batch>,
    /// What a statement without rows did.
    pub ran: Option<Ran>,
    /// A prepared statement.
    pub statement: Option<Statement>,
    /// Yes or no.
    pub flag: Option<bool>,
    /// Statistics.
    pub stats: Option<Counters>,
    /// How many.
    pub count: Option<u32>,
}

impl Outcome {
    /// A failure.
    pub(crate) fn failed(error: impl Into<Failure>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }
}

/// Something that JavaScript is asked.
#[napi(object, object_from_js = false)]
#[derive(Default)]
pub struct Question {
    /// `url`, `token`, `fetch`, `read`, `abort` or `transform`.
    pub kind: String,
    /// Whether a statement waits for the answer, which must not use the database then.
    pub for_a_statement: bool,
    /// Of `read` and `abort`: the question that began the fetch.
    pub about: Option<u32>,
    /// Of `fetch`.
    pub request: Option<Request>,
    /// Of `transform`.
    pub mutation: Option<crate::transform::Mutation>,
}

/// A request for the `fetch` function.
#[napi(object, object_from_js = false)]
pub struct Request {
    /// Absolute.
    pub url: String,
    /// `POST`.
    pub method: String,
    /// Names and values.
    pub headers: Vec<Vec<String>>,
    /// The whole body.
    pub body: Uint8Array,
}

/// JavaScript's answer.
#[napi(object, object_to_js = false)]
#[derive(Default)]
pub struct Reply {
    /// The function threw or rejected.
    pub error: Option<String>,
    /// Whether it would again.
    pub last: Option<bool>,
    /// A url or a token; of a transform, the SQL.
    pub text: Option<String>,
    /// A response's status.
    pub status: Option<u32>,
    /// A response's headers: names and values.
    pub headers: Option<Vec<Vec<String>>>,
    /// Of a transform: `keep`, `skip` or `rewrite`.
    pub decision: Option<String>,
    /// Of a transform: the values of the parameters, encoded.
    pub words: Option<napi::bindgen_prelude::BigInt64Array>,
    /// How many values.
    pub count: Option<u32>,
    /// The texts among them.
    pub texts: Option<Vec<String>>,
    /// The blobs among them.
    pub blobs: Option<Vec<Uint8Array>>,
}

/// An answer, with what must not be held as a JavaScript value taken out of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A text or nothing.
    Text(Option<String>),
    /// The head of a response.
    Head(u16, Vec<(String, String)>),
    /// A piece of a body; empty at its end.
    Chunk(Bytes),
    /// A decision about a change.
    Decision(partial_sync::change::transform::Transform),
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) message: String,
    /// Whether asking again cannot help.
    pub(crate) last: bool,
}

impl From<&str> for Refused {
    fn from(message: &str) -> Self {
        Self {
            message: message.into(),
            last: false,
        }
    }
}

pub(crate) type Answered = Result<Answer, Refused>;
/// What to do with an answer.
type Then = Box<dyn FnOnce(Answered) + Send>;
type Receive<T> =
    ThreadsafeFunction<FnArgs<(u32, T)>, Unknown<'static>, FnArgs<(u32, T)>, Status, false, true>;

/// The way to JavaScript.
pub(crate) struct Mailbox {
    settled: Receive<Outcome>,
    asked: Receive<Question>,
    /// None when nobody answers any more.
    waiting: Mutex<Option<HashMap<u32, Then>>>,
    next: AtomicU32,
    thread: ThreadId,
    /// What the url function threw when it was asked last. The engine only knows that there is no url.
    pub(crate) url_problem: Mutex<Option<String>>,
}

impl Mailbox {
    /// Called on JavaScript's thread.
    pub(crate) fn new(
        settled: &Function<'_, FnArgs<(u32, Outcome)>, Unknown<'static>>,
        asked: &Function<'_, FnArgs<(u32, Question)>, Unknown<'static>>,
    ) -> napi::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            settled: settled.build_threadsafe_function().weak::<true>().build()?,
            asked: asked.build_threadsafe_function().weak::<true>().build()?,
            waiting: Mutex::new(Some(HashMap::new())),
            next: AtomicU32::new(1),
            thread: thread::current().id(),
            url_problem: Mutex::default(),
        }))
    }

    /// Tells how a job ended.
    pub(crate) fn settle(&self, job: u32, outcome: Outcome) {
        self.settled.call(
            FnArgs::from((job, outcome)),
            ThreadsafeFunctionCallMode::NonBlocking,
        );
    }

    fn send(&self, mut question: Question, then: impl FnOnce(Answered) + Send + 'static) -> u32 {
        question.for_a_statement = partial_sync::is_asked_for_a_statement();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        match &mut *self.waiting.lock() {
            Some(waiting) => waiting.insert(id, Box::new(then)),
            // Nobody answers any more: anyone who waits learns it by the sender's end.
            None => return id,
        };
        let status = self.asked.call(
            FnArgs::from((id, question)),
            ThreadsafeFunctionCallMode::NonBlocking,
        );
        if status != Status::Ok {
            // Node is going down.
            self.forget(id);
        }
        id
    }

    /// Says something that needs no answer.
    pub(crate) fn tell(&self, question: Question) {
        self.asked.call(
            FnArgs::from((0, question)),
            ThreadsafeFunctionCallMode::NonBlocking,
        );
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
