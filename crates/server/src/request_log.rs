//! One line of the log for each request, when its answer has ended.
//!
//! Nothing in a line is the client's own text, since a client can put a secret, or a line break, anywhere: of a path only the words that
//! this server knows are told and everything else is `*`, of a method only the usual ones, and of headers, queries and bodies nothing.
//! Requests that show no good token share a few lines a second, so that a stranger cannot fill a disk.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderName, HeaderValue, Method, Request, request::Parts},
    response::Response,
};
use bytes::Bytes;
use parking_lot::Mutex;
use tracing::Instrument as _;

use crate::{
    access::CallerId,
    front::{Peer, Piece, through},
};

/// What an answer is told to be answer to, also in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Lines in a second for requests without a good token.
const OF_STRANGERS: u32 = 20;

/// The status that stands for "the client left before there was one", as in nginx's logs.
const LEFT: u16 = 499;

/// The words of paths that this server knows.
const WORDS: [&str; 17] = [
    "v2",
    "v3",
    "v3-protobuf",
    "pipeline",
    "cursor",
    "pull-updates",
    "health",
    "ready",
    "metrics",
    "v1",
    "namespaces",
    "create",
    "fork",
    "stats",
    "revisions",
    "drop-history",
    "kick",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// Makes a number an id that tells nobody how many there were.
    key: RandomState,
    next: AtomicU64,
    strangers: Mutex<Strangers>,
}

#[derive(Debug)]
struct Strangers {
    since: Instant,
    told: u32,
    untold: u64,
}

/// What becomes known of a request while it is answered.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<KnownNow>);

#[derive(Clone, Debug, Default)]
struct KnownNow {
    path: Option<String>,
    database: Option<String>,
    caller: Option<CallerId>,
}

impl Known {
    /// What is known of a request, if it is going to be logged.
    pub(crate) fn of(request: &Parts) -> Option<&Self> {
        request.extensions.get::<Arc<Self>>().map(|known| &**known)
    }

    /// It is for this database. In its path, a database that exists is called `name`; empty = none is.
    pub(crate) fn goes_to(&self, database: &str, name: &str, path: &str) {
        let mut now = self.0.lock();
        now.path = Some(path_told(name, path));
        now.database = Some(database.to_owned()).filter(|name| !name.is_empty());
    }

    /// It was let in.
    pub(crate) fn comes_from(&self, caller: CallerId) {
        self.0.lock().caller = Some(caller).filter(|caller| *caller != CallerId::ANYONE);
    }
}

impl RequestLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            key: RandomState::new(),
            next: AtomicU64::default(),
            strangers: Mutex::new(Strangers {
                since: Instant::now(),
                told: 0,
                untold: 0,
            }),
        })
    }

    /// Answers a request, and tells of it if there is a log.
    pub(crate) async fn telling<F: Future<Output = Response>>(
        log: Option<&Arc<Self>>,
        mut request: Request<Body>,
        answer: impl FnOnce(Request<Body>) -> F,
    ) -> Response {
        let Some(log) = log else {
            return answer(request).await;
        };
        let remote = request.extensions().get::<Peer>().map(|peer| peer.address);
        let line = log.begin(&mut request, remote);
        let answered = answer(request).instrument(line.span()).await;
        line.follow(answered)
    }

    /// A request came. Its line is written when what is returned is dropped.
    fn begin(self: &Arc<Self>, request: &mut Request<Body>, remote: Option<IpAddr>) -> Line {
        let known = Arc::new(Known::default());
        request.extensions_mut().insert(Arc::clone(&known));
        Line {
            log: Arc::clone(self),
            id: format!("{:016x}", self.key.hash_one(self.next.fetch_add(1, Relaxed))),
            method: method_told(request.method()),
            remote,
            known,
            started: Instant::now(),
            status: LEFT,
            bytes: 0,
            cut: false,
        }
    }

    /// Whether a stranger's request may have a line, and how many had none since the last.
    fn of_strangers(&self, now: Instant) -> Option<u64> {
        let mut strangers = self.strangers.lock();
        if now.duration_since(strangers.since) >= Duration::from_secs(1) {
            (strangers.since, strangers.told) = (now, 0);
        }
        if strangers.told >= OF_STRANGERS {
            strangers.untold += 1;
            return None;
        }
        strangers.told += 1;
        Some(std::mem::take(&mut strangers.untold))
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct Line {
    log: Arc<RequestLog>,
    id: String,
    method: &'static str,
    remote: Option<IpAddr>,
    known: Arc<Known>,
    started: Instant,
    status: u16,
    bytes: u64,
    cut: bool,
}

impl Line {
    /// For what else is logged of it.
    fn span(&self) -> tracing::Span {
        tracing::info_span!("request", id = self.id)
    }

    /// The answer, which tells the client the id of the request. The line is written when it has been handed over, or is dropped.
    fn follow(mut self, mut answer: Response) -> Response {
        self.status = answer.status().as_u16();
        self.cut = self.method != "HEAD" && !answer.body().is_end_stream();
        if let Ok(id) = HeaderValue::try_from(&self.id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer.map(|body| {
            through(body, move |mut body, cx| {
                let piece = body.as_mut().poll_frame(cx);
                self.note(&piece, body.is_end_stream());
                piece
            })
        })
    }

    fn note(&mut self, piece: &Piece, is_end: bool) {
        match piece {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                self.cut = !is_end;
            }
            Poll::Ready(None) => self.cut = false,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let KnownNow {
            path,
            database,
            caller,
        } = self.known.0.lock().clone();
        let untold = match caller {
            Some(_) => 0,
            None => match self.log.of_strangers(Instant::now()) {
                Some(untold) => untold,
                None => return,
            },
        };
        tracing::info!(
            id = self.id,
            method = self.method,
            path = path.as_deref().unwrap_or("*"),
            database,
            status = self.status,
            bytes = self.bytes,
            ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            caller = caller.map(|caller| caller.to_string()),
            remote = self.remote.map(tracing::field::display),
            cut = self.cut.then_some(true),
            requests_of_strangers_not_told = Some(untold).filter(|untold| *untold > 0),
            "request"
        );
    }
}

fn method_told(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "*",
    }
}

/// `name` is that of a database that exists, or empty.
fn path_told(name: &str, path: &str) -> String {
    /// No path of this server is longer.
    const LONGEST: usize = 5;
    let mut told = String::new();
    for (at, part) in path.split('/').skip(1).enumerate() {
        let known = part.is_empty() || part == name || WORDS.contains(&part);
        match at {
            LONGEST => return told + "/*",
            _ if known => told = told + "/" + part,
            _ => told += "/*",
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_only_known_words_are_told() {
        for (name, path, told) in [
            ("", "/v2/pipeline", "/v2/pipeline"),
            ("orders", "/orders/pull-updates", "/orders/pull-updates"),
            (
                "orders",
                "/v1/namespaces/orders/fork/sesame",
                "/v1/namespaces/orders/fork/*",
            ),
            ("", "/v2/sesame", "/v2/*"),
            ("", "/sesame/v3/cursor", "/*/v3/cursor"),
            ("", "/", "/"),
            ("", "/a/b/c/d/e/f", "/*/*/*/*/*/*"),
            ("", "/a/b/c/d/e/f/g", "/*/*/*/*/*/*"),
            ("", "*", ""),
        ] {
            assert_eq!(path_told(name, path), told, "{name} {path}");
        }
    }

    #[test]
    fn strangers_share_a_few_lines_and_the_next_one_tells_of_the_others() {
        let log = RequestLog::new();
        let now = Instant::now();
        let told = (0..1000).filter(|_| log.of_strangers(now).is_some()).count();
        assert_eq!(told, OF_STRANGERS as usize);
        assert_eq!(log.of_strangers(now + Duration::from_secs(2)), Some(1000 - 20));
        assert_eq!(log.of_strangers(now + Duration::from_secs(2)), Some(0));
    }
}
