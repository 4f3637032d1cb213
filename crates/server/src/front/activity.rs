//! What one connection is doing, and when it has taken too long for it.
//!
//! | it is | until |
//! |---|---|
//! | sending the head of a request | [`Limits::head_time`] |
//! | idle: no request is under way | [`Limits::idle_time`], or until it has to make room |
//! | waiting for its client to take what was written | [`Limits::stall_time`] |
//! | answering | whatever the answer takes |
//!
//! One clock for all of them. hyper's own begins when it knows which HTTP is spoken, which a client may never say, and
//! knows nothing of writes.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Version,
    body::{Body as HttpBody, Frame, SizeHint},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use crate::limits::Limits;

/// How much longer a stream of HTTP/2 may stall than a connection: pieces of an answer are large, and that one of them is
/// being taken is not seen.
const STREAM_STALL: u32 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Activity {
    head_time: Duration,
    idle_time: Duration,
    stall_time: Duration,
    state: Mutex<State>,
    has_to_go: Notify,
}

#[derive(Debug)]
struct State {
    /// When it was opened, or ended its last answer.
    idle_since: Instant,
    /// When something arrived after that.
    head_since: Option<Instant>,
    /// Since when nothing more could be written.
    stalled_since: Option<Instant>,
    /// The answers under way, and since when what was handed over of one has not been enough for it.
    answers: HashMap<u64, Option<Instant>>,
    next_answer: u64,
    /// It has sent a request.
    asked: bool,
    /// It speaks HTTP/2.
    multiplexed: bool,
    /// It has sent a request that was let in.
    known: bool,
    /// It has to make room for another, as soon as no request is under way.
    evicted: bool,
}

impl Activity {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            head_time: limits.head_time,
            idle_time: limits.idle_time,
            stall_time: limits.stall_time,
            state: Mutex::new(State {
                idle_since: Instant::now(),
                head_since: None,
                stalled_since: None,
                answers: HashMap::new(),
                next_answer: 0,
                asked: false,
                multiplexed: false,
                known: false,
                evicted: false,
            }),
            has_to_go: Notify::new(),
        })
    }

    /// A request has come. It is under way until what is returned is dropped.
    pub(crate) fn request(self: &Arc<Self>, version: Version) -> Answering {
        let mut state = self.state.lock();
        state.asked = true;
        state.multiplexed = version == Version::HTTP_2;
        let id = state.next_answer;
        state.next_answer += 1;
        state.answers.insert(id, None);
        Answering {
            activity: Arc::clone(self),
            id,
        }
    }

    /// Its request was let in.
    pub(crate) fn let_in(&self) {
        self.state.lock().known = true;
    }

    /// What counts against closing it to make room, the least first: that it has sent a request that was let in, that
    /// the rest of an answer is still on its way, and for how short it has been idle. `None` = a request is under way.
    pub(super) fn worth(&self) -> Option<(bool, bool, Instant)> {
        let state = self.state.lock();
        let sending = state.stalled_since.is_some();
        state
            .answers
            .is_empty()
            .then_some((state.known, sending, state.idle_since))
    }

    /// It has to make room.
    pub(super) fn evict(&self) {
        self.state.lock().evicted = true;
        self.has_to_go.notify_one();
    }

    /// Waits until it has to be closed, and says why.
    pub(crate) async fn overdue(&self) -> &'static str {
        // What begins after a look is not overdue before the next.
        let look = self.head_time.min(self.idle_time).min(self.stall_time);
        loop {
            let now = Instant::now();
            let next = {
                let state = self.state.lock();
                if state.evicted && state.answers.is_empty() {
                    return "it made room for another";
                }
                match self.deadline(&state) {
                    Some((deadline, why)) if deadline <= now => return why,
                    Some((deadline, _)) => deadline.min(now + look),
                    None => now + look,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = self.has_to_go.notified() => {}
            }
        }
    }

    fn deadline(&self, state: &State) -> Option<(Instant, &'static str)> {
        let stalled = "its client took nothing of an answer";
        let stream = state.answers.values().flatten().min();
        let stream = stream.filter(|_| state.multiplexed);
        let stalls = [
            state.stalled_since.map(|since| since + self.stall_time),
            stream.map(|since| *since + self.stall_time * STREAM_STALL),
        ];
        if let Some(deadline) = stalls.into_iter().flatten().min() {
            return Some((deadline, stalled));
        }
        if !state.answers.is_empty() {
            return None;
        }
        let head_since = match state.asked {
            false => Some(state.idle_since),
            // A frame of HTTP/2 is not always part of a request.
            true => state.head_since.filter(|_| !state.multiplexed),
        };
        Some(match head_since {
            Some(since) => (since + self.head_time, "it asked nothing in time"),
            None => (state.idle_since + self.idle_time, "it was idle"),
        })
    }

    fn has_read(&self) {
        let mut state = self.state.lock();
        if state.answers.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn has_written<T>(&self, written: Poll<T>) -> Poll<T> {
        let mut state = self.state.lock();
        state.stalled_since = match written {
            Poll::Ready(_) => None,
            Poll::Pending => state.stalled_since.or_else(|| Some(Instant::now())),
        };
        written
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Answering {
    activity: Arc<Activity>,
    id: u64,
}

impl Answering {
    /// The answer's body, watched until it is dropped.
    pub(crate) fn watch(self, body: Body) -> Body {
        Body::new(WatchedBody {
            body,
            answering: self,
        })
    }

    fn waits_for_client(&self, since: Option<Instant>) {
        self.activity.state.lock().answers.insert(self.id, since);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.activity.state.lock();
        state.answers.remove(&self.id);
        if state.answers.is_empty() {
            state.idle_since = Instant::now();
            state.head_since = None;
        }
    }
}

struct WatchedBody {
    body: Body,
    answering: Answering,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answering.waits_for_client(None);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.answering.waits_for_client(Some(Instant::now()));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells what is read from it and whether it can be written to.
#[derive(Debug)]
pub(crate) struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.has_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.activity.has_written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.activity.has_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
