//! What one connection is doing, and when it has taken too long for it.
//!
//! | it is | until |
//! |---|---|
//! | sending the head of a request | [`Limits::head_time`] |
//! | idle: no request is under way | [`Limits::idle_time`], or until it has to make room |
//! | waiting for its client to take what was written | [`Limits::stall_time`] |
//! | answering | whatever the answer takes; while it waits for its client or for a commit, until it has to make room |
//! | without a request under way when the server stops | [`LAST_MOMENT`], of HTTP/2 [`SLOW`], after that or its last answer |
//!
//! One clock for all of them. hyper's own begins when it knows which HTTP is spoken, which a client may never say, and
//! knows nothing of writes.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody as _};
use hyper::Version;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

use super::through::through;
use crate::limits::Limits;

/// How much longer a stream of HTTP/2 may stall than a connection: pieces of an answer are large, and that one of them is
/// being taken is not seen.
const STREAM_STALL: u32 = 5;
/// A client for which the server waits, and which neither sent nor took anything for so long, makes room for another.
const SLOW: Duration = Duration::from_secs(1);

/// How long the last answers of a connection that makes room may take, where its client can ask again meanwhile.
const LAST_MOMENT: Duration = Duration::from_millis(250);

/// Where a request came from.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The client's address.
    pub address: IpAddr,
    /// The connection.
    pub activity: Arc<Activity>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Activity {
    head_time: Duration,
    idle_time: Duration,
    stall_time: Duration,
    state: Mutex<State>,
    has_to_go: Notify,
    polls_have_to_go: Notify,
}

/// What counts against closing a connection to make room. The least goes first: idle ones, then those that only wait for a
/// commit, then those whose clients neither send the rest of a request nor take the rest of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// No request is under way: whether one was let in ever, whether the rest of an answer is still on its way, since when.
    Idle(bool, bool, Instant),
    Polls(Instant),
    Slow(Instant),
}

impl Worth {
    pub(super) const fn is_known_and_idle(self) -> bool {
        matches!(self, Self::Idle(true, _, _))
    }
}

#[derive(Debug)]
struct State {
    /// When it was opened, or ended its last answer.
    idle_since: Instant,
    /// When something was read or written last.
    moved: Instant,
    /// Requests on which the server is at work: it does not wait for their client, nor for a commit.
    working: usize,
    /// Long polls that wait.
    polls: usize,
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
    /// Since when the server stops.
    stopping: Option<Instant>,
    /// It has to make room for another, as soon as no request is under way or the server waits for its client,
    evicted: bool,
    /// or from then on whatever is.
    cut: Option<Instant>,
}

impl State {
    /// See [`Activity::worth`].
    fn worth(&self) -> Option<Worth> {
        if self.answers.is_empty() {
            let sending = self.stalled_since.is_some();
            return Some(Worth::Idle(self.known, sending, self.idle_since));
        }
        if self.working > 0 {
            return None;
        }
        if self.polls >= self.answers.len() {
            return Some(Worth::Polls(self.moved));
        }
        (self.moved.elapsed() >= SLOW).then_some(Worth::Slow(self.moved))
    }
}

impl Activity {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            head_time: limits.head_time,
            idle_time: limits.idle_time,
            stall_time: limits.stall_time,
            state: Mutex::new(State {
                idle_since: Instant::now(),
                moved: Instant::now(),
                working: 0,
                polls: 0,
                head_since: None,
                stalled_since: None,
                answers: HashMap::new(),
                next_answer: 0,
                asked: false,
                multiplexed: false,
                known: false,
                stopping: None,
                evicted: false,
                cut: None,
            }),
            has_to_go: Notify::new(),
            polls_have_to_go: Notify::new(),
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

    /// The server works on a request that has come whole, until what is returned is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Working {
        self.state.lock().working += 1;
        Working(Arc::clone(self))
    }

    /// A long poll waits, until what is returned is dropped. It is one of those that the server works on.
    pub(super) fn poll(self: &Arc<Self>) -> Polling {
        let mut state = self.state.lock();
        state.polls += 1;
        state.working = state.working.saturating_sub(1);
        Polling(Arc::clone(self))
    }

    /// `None` = the server works on a request.
    pub(super) fn worth(&self) -> Option<Worth> {
        self.state.lock().worth()
    }

    /// The same as [`close`](Self::close), unless it can have several requests under way.
    pub(super) fn close_unless_shared(&self) {
        let is_shared = self.state.lock().multiplexed;
        if !is_shared {
            self.close();
        }
    }

    /// It has to go, as soon as no request is under way.
    pub(super) fn close(&self) {
        self.state.lock().evicted = true;
        self.polls_have_to_go.notify_waiters();
        self.has_to_go.notify_one();
    }

    /// The server stops: it has to go when no request is under way, also if half of one is, or if its client does not say that it has seen
    /// the end.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = Some(Instant::now());
        self.has_to_go.notify_one();
    }

    /// It has to make room.
    pub(super) fn evict(&self, worth: Worth) {
        let mut state = self.state.lock();
        state.evicted = true;
        state.cut = match worth {
            // As long as it is slow it is closed without it.
            Worth::Slow(_) => None,
            Worth::Polls(_) => Some(Instant::now() + LAST_MOMENT),
            Worth::Idle(..) => state.multiplexed.then(|| Instant::now() + LAST_MOMENT),
        };
        drop(state);
        self.polls_have_to_go.notify_waiters();
        self.has_to_go.notify_one();
    }

    /// Waits until its polls have to be answered, so that it can make room.
    async fn has_to_answer(&self) {
        loop {
            let mut told = pin!(self.polls_have_to_go.notified());
            told.as_mut().enable();
            if self.state.lock().evicted {
                return;
            }
            told.await;
        }
    }

    /// Waits until it has to be closed, and says why.
    pub(crate) async fn overdue(&self) -> &'static str {
        // What begins after a look is not overdue before the next.
        let look = self.head_time.min(self.idle_time).min(self.stall_time);
        loop {
            let now = Instant::now();
            let next = {
                let state = self.state.lock();
                let made_room = "it made room for another";
                if state.evicted && matches!(state.worth(), Some(Worth::Idle(..) | Worth::Slow(_))) {
                    return made_room;
                }
                let look = now + if state.evicted { look.min(SLOW) } else { look };
                let cut = state.cut.map(|cut| (cut, made_room));
                match cut.into_iter().chain(self.deadline(&state)).min() {
                    Some((deadline, why)) if deadline <= now => return why,
                    Some((deadline, _)) => deadline.min(look),
                    None => look,
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
        if let Some(stopping) = state.stopping {
            // The last piece of an answer may still wait for the client's leave, of HTTP/2.
            let end = match state.multiplexed {
                true => stopping.max(state.moved) + SLOW,
                false => stopping.max(state.idle_since) + LAST_MOMENT,
            };
            return Some((end, "the server stops"));
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
        state.moved = Instant::now();
        if state.answers.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn has_written<T>(&self, written: Poll<T>) -> Poll<T> {
        let mut state = self.state.lock();
        state.stalled_since = match written {
            Poll::Ready(_) => {
                state.moved = Instant::now();
                None
            }
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
        through(body, move |body, cx| {
            self.waits_for_client(None);
            let piece = body.poll_frame(cx);
            if matches!(piece, Poll::Ready(Some(Ok(_)))) {
                self.waits_for_client(Some(Instant::now()));
            }
            piece
        })
    }

    /// Whether no request may follow it on its connection.
    pub(crate) fn is_last(&self) -> bool {
        let state = self.activity.state.lock();
        state.evicted && !state.multiplexed
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
            if state.evicted {
                self.activity.has_to_go.notify_one();
            }
        }
    }
}

/// See [`Activity::work`].
#[derive(Debug)]
pub(crate) struct Working(Arc<Activity>);

impl Drop for Working {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.working = state.working.saturating_sub(1);
    }
}

/// See [`Activity::poll`].
#[derive(Debug)]
pub(super) struct Polling(Arc<Activity>);

impl Polling {
    /// See [`Activity::has_to_answer`].
    pub(super) async fn has_to_answer(&self) {
        self.0.has_to_answer().await;
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.polls -= 1;
        state.working += 1;
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
