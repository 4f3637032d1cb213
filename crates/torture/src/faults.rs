//! The line between a replica and the remote: an [`HttpClient`] around the real one that loses, cuts, doubles, delays and
//! refuses what it is told to, counts, and tells the world when a request is on its way. A fault happens to the bytes of
//! HTTP; everything above them is the real thing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use partial_sync_transport::{
    HttpClient, RemoteError, RemoteErrorKind,
    http::{HttpRequest, HttpResponse},
};
use tokio::sync::{oneshot, watch};

use crate::steps::{Net, Trouble};

/// A request is on its way and continues when the sender is used or dropped.
pub struct OnItsWay {
    /// Lets it continue.
    pub go: oneshot::Sender<()>,
}

#[derive(Default)]
struct Script {
    troubles: BTreeMap<usize, Trouble>,
    offline_from: Option<usize>,
    seen: usize,
    /// Requests and answers that are held.
    held: usize,
    hook: Option<Hook>,
}

/// Is told of requests.
pub type Hook = Arc<dyn Fn(OnItsWay) + Send + Sync>;

/// The line of one replica. Clones are the same line.
#[derive(Clone)]
pub struct Line(Arc<Inner>);

struct Inner {
    server: Mutex<Option<Arc<dyn HttpClient>>>,
    script: Mutex<Script>,
    requests: AtomicU64,
    /// Faults that happened.
    faults: AtomicU64,
    /// Answers under way, without those that are held.
    under_way: AtomicUsize,
    released: watch::Sender<u64>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Default for Line {
    fn default() -> Self {
        Self(Arc::new(Inner {
            server: Mutex::default(),
            script: Mutex::default(),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            released: watch::Sender::new(0),
        }))
    }
}

impl Line {
    /// Where requests go; `None` = the server is down.
    pub fn connect(&self, server: Option<Arc<dyn HttpClient>>) {
        *self.0.server.lock() = server;
    }

    /// Does what a step says.
    pub fn set(&self, net: Net) {
        let mut script = self.0.script.lock();
        let seen = script.seen;
        match net {
            Net::Offline => script.offline_from = Some(0),
            Net::OfflineFrom(n) => script.offline_from = Some(seen + n),
            Net::Well => {
                script.offline_from = None;
                script.troubles.clear();
            }
            Net::Trouble(n, trouble) => {
                script.troubles.insert(seen + n, trouble);
            }
            Net::Release => {
                let held = std::mem::take(&mut script.held);
                self.0.under_way.fetch_add(held, SeqCst);
                self.0.released.send_modify(|n| *n += 1);
            }
        }
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(SeqCst)
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.0.faults.load(SeqCst)
    }

    /// From now on every request waits until it is let go.
    pub fn watch(&self, hook: Hook) {
        self.0.script.lock().hook = Some(hook);
    }

    /// No request waits any more.
    pub fn unwatch(&self) {
        self.0.script.lock().hook = None;
    }

    /// Waits until no answer is under way, except those that are held. `false` = it took too long.
    pub fn quiet(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while self.0.under_way.load(SeqCst) > 0 {
            if Instant::now() > end {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }
}

/// An answer under way.
struct UnderWay(Arc<Inner>);

impl UnderWay {
    fn new(inner: &Arc<Inner>) -> Self {
        inner.under_way.fetch_add(1, SeqCst);
        Self(inner.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

/// A request or an answer that is held until it is released, and is under way from then on.
struct Held {
    inner: Arc<Inner>,
    released: watch::Receiver<u64>,
    since: u64,
}

impl Held {
    fn new(inner: &Arc<Inner>) -> Self {
        let mut script = inner.script.lock();
        script.held += 1;
        let mut released = inner.released.subscribe();
        let since = *released.borrow_and_update();
        Self {
            inner: inner.clone(),
            released,
            since,
        }
    }

    async fn wait(&mut self) {
        let _ = self.released.changed().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut script = self.inner.script.lock();
        match *self.released.borrow() == self.since {
            true => script.held -= 1,
            false => drop(self.inner.under_way.fetch_sub(1, SeqCst)),
        }
    }
}

fn broken(what: &str) -> RemoteError {
    RemoteError::new(RemoteErrorKind::Unreachable, format!("{what} (made to fail)"))
}

impl HttpClient for Line {
    fn keeps_codings(&self) -> bool {
        true
    }

    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        let inner = self.0.clone();
        async move {
            let under_way = UnderWay::new(&inner);
            inner.requests.fetch_add(1, SeqCst);
            let (trouble, hook) = {
                let mut script = inner.script.lock();
                script.seen += 1;
                let seen = script.seen;
                let trouble = match script.offline_from {
                    Some(from) if seen >= from => Some(Trouble::Fail),
                    _ => script.troubles.remove(&seen),
                };
                (trouble, script.hook.clone())
            };
            if let Some(hook) = hook {
                let (go, gone) = oneshot::channel();
                hook(OnItsWay { go });
                // An error means that the sender was dropped, which lets it go as well.
                let _ = gone.await;
            }
            if trouble.is_some() {
                inner.faults.fetch_add(1, SeqCst);
            }
            let Some(server) = inner.server.lock().clone() else {
                inner.faults.fetch_add(1, SeqCst);
                return Err(broken("the server is down"));
            };
            match trouble {
                None => with_end(server.send(request).await?, under_way, None),
                Some(Trouble::Fail) => Err(broken("no connection")),
                Some(Trouble::Refuse) => Ok(HttpResponse {
                    status: 503,
                    headers: vec![("content-type".into(), "application/json".into())],
                    end_is_marked: true,
                    body: stream::once(async {
                        Ok(Bytes::from_static(
                            br#"{"code":"BUSY","message":"made to refuse"}"#,
                        ))
                    })
                    .boxed(),
                }),
                Some(Trouble::Lose) => {
                    finish(server.send(request).await?).await;
                    Err(broken("the answer was lost"))
                }
                Some(Trouble::Twice) => {
                    finish(server.send(request.clone()).await?).await;
                    with_end(server.send(request).await?, under_way, None)
                }
                Some(Trouble::Late) => {
                    let mut held = Held::new(&inner);
                    tokio::spawn(async move {
                        held.wait().await;
                        // It reaches the server that runs by then, not one that was killed meanwhile.
                        let Some(server) = inner.server.lock().clone() else {
                            return;
                        };
                        if let Ok(answer) = server.send(request).await {
                            finish(answer).await;
                        }
                    });
                    Err(broken("the connection broke"))
                }
                Some(Trouble::Cut(bytes)) => {
                    with_end(cut(server.send(request).await?, bytes), under_way, None)
                }
                Some(Trouble::HoldEnd) => {
                    let answer = server.send(request).await?;
                    with_end(answer, under_way, Some(inner))
                }
            }
        }
        .boxed()
    }
}

async fn finish(mut answer: HttpResponse) {
    while answer.body.next().await.is_some() {}
}

/// The same answer, whose end ends what is under way, or waits until it is let go.
fn with_end(
    answer: HttpResponse,
    under_way: UnderWay,
    held: Option<Arc<Inner>>,
) -> Result<HttpResponse, RemoteError> {
    let end = stream::once(async move {
        let held = held.as_ref().map(Held::new);
        drop(under_way);
        if let Some(mut held) = held {
            held.wait().await;
        }
        None
    });
    let body = answer
        .body
        .map(Some)
        .chain(end)
        .filter_map(std::future::ready)
        .boxed();
    Ok(HttpResponse { body, ..answer })
}

fn cut(answer: HttpResponse, bytes: usize) -> HttpResponse {
    let body = answer.body.scan(Some(bytes), |left, piece| {
        let next = match (left.take(), piece) {
            (None, _) => None,
            (Some(n), Ok(piece)) if piece.len() <= n => {
                *left = Some(n - piece.len());
                Some(vec![Ok(piece)])
            }
            (Some(n), Ok(piece)) => Some(vec![Ok(piece.slice(..n)), Err(broken("the answer was cut"))]),
            (Some(_), Err(e)) => Some(vec![Err(e)]),
        };
        std::future::ready(next)
    });
    HttpResponse {
        body: body.flat_map(stream::iter).boxed(),
        ..answer
    }
}
