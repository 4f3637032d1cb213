//! Remotes around a remote: [`Counting`] remembers what was asked, [`Delayed`] is far away, [`Faulty`] fails on cue.
//!
//! Tests and benches share them. They change nothing but what they are told to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use tokio::time::sleep;

use crate::{
    hrana::{Batch, BatchResult},
    http::DEFAULT_DEADLINE,
    remote::{
        PageSelector, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, RemotePage,
        TransferStats,
    },
};

type RemoteFuture<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// What a decorator is told to change nothing of.
macro_rules! as_inner {
    () => {
        fn runs_sql(&self) -> bool {
            self.inner.runs_sql()
        }

        fn url(&self) -> String {
            self.inner.url()
        }

        fn known_url(&self) -> Option<String> {
            self.inner.known_url()
        }

        fn transferred(&self) -> TransferStats {
            self.inner.transferred()
        }
    };
}

/// Remembers every request and which pages arrived.
#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn Remote>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    pages: Vec<PagesRequest>,
    batches: Vec<Batch>,
    delivered: Vec<u32>,
}

impl Counting {
    /// Around a remote.
    pub fn new(inner: Arc<dyn Remote>) -> Self {
        Self {
            inner,
            seen: Arc::default(),
        }
    }

    /// Page requests, in order.
    pub fn page_requests(&self) -> Vec<PagesRequest> {
        self.seen.lock().pages.clone()
    }

    /// The ids that each page request selected, in order; `None` = all.
    pub fn ids_asked(&self) -> Vec<Option<Vec<u32>>> {
        let ids = |request: &PagesRequest| match &request.select {
            PageSelector::All => None,
            PageSelector::Ids(ids) => Some(ids.iter().collect()),
        };
        self.seen.lock().pages.iter().map(ids).collect()
    }

    /// Batches of SQL, in order.
    pub fn batches(&self) -> Vec<Batch> {
        self.seen.lock().batches.clone()
    }

    /// Ids of the pages that arrived, in order, repeats included.
    pub fn ids_delivered(&self) -> Vec<u32> {
        self.seen.lock().delivered.clone()
    }

    /// Ids that arrived more than once.
    pub fn ids_delivered_twice(&self) -> RoaringBitmap {
        let mut once = RoaringBitmap::new();
        let seen = self.seen.lock();
        seen.delivered
            .iter()
            .filter(|id| !once.insert(**id))
            .copied()
            .collect()
    }

    /// Requests of both kinds.
    pub fn requests(&self) -> usize {
        let seen = self.seen.lock();
        seen.pages.len() + seen.batches.len()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.seen.lock() = Seen::default();
    }
}

impl Remote for Counting {
    fn pages(&self, request: PagesRequest) -> RemoteFuture<'_, PageStream> {
        self.seen.lock().pages.push(request.clone());
        async move {
            let answer = self.inner.pages(request).await?;
            let seen = self.seen.clone();
            let pages = answer.pages.inspect(move |page| {
                if let Ok(page) = page {
                    seen.lock().delivered.push(page.id.0);
                }
            });
            Ok(PageStream {
                header: answer.header,
                pages: pages.boxed(),
            })
        }
        .boxed()
    }

    fn execute(&self, batch: Batch, deadline: Option<Duration>) -> RemoteFuture<'_, BatchResult> {
        self.seen.lock().batches.push(batch.clone());
        self.inner.execute(batch, deadline)
    }

    as_inner!();
}

/// Adds a pause before each answer and before each page.
#[derive(Debug)]
pub struct Delayed {
    inner: Arc<dyn Remote>,
    request: Duration,
    page: Duration,
}

impl Delayed {
    /// Around a remote: `request` before each answer (a round trip).
    pub fn new(inner: Arc<dyn Remote>, request: Duration) -> Self {
        Self {
            inner,
            request,
            page: Duration::ZERO,
        }
    }

    /// And this before each page (a narrow line).
    pub fn per_page(mut self, page: Duration) -> Self {
        self.page = page;
        self
    }
}

impl Remote for Delayed {
    fn pages(&self, request: PagesRequest) -> RemoteFuture<'_, PageStream> {
        async move {
            sleep(self.request).await;
            let answer = self.inner.pages(request).await?;
            let pause = self.page;
            if pause.is_zero() {
                return Ok(answer);
            }
            let pages = answer.pages.then(move |page| async move {
                sleep(pause).await;
                page
            });
            Ok(PageStream {
                header: answer.header,
                pages: pages.boxed(),
            })
        }
        .boxed()
    }

    fn execute(&self, batch: Batch, deadline: Option<Duration>) -> RemoteFuture<'_, BatchResult> {
        async move {
            sleep(self.request).await;
            self.inner.execute(batch, deadline).await
        }
        .boxed()
    }

    as_inner!();
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It fails before it reaches the remote.
    Fail(RemoteErrorKind),
    /// It reaches the remote and does its work, and the answer is lost.
    LoseAnswer,
    /// No answer comes; the request's deadline runs out.
    Hang,
    /// The stream breaks after this many pages.
    CutAfterPages(usize),
    /// The stream breaks before the page that would take it beyond this many bytes.
    CutAfterBytes(usize),
    /// The stream stops after this many pages; the request's deadline runs out.
    HangAfterPages(usize),
    /// The page at this place in the stream (from 0) is replaced by what the function makes of it.
    WrongPage(usize, fn(RemotePage) -> RemotePage),
}

/// Fails on cue: the n-th request, every one from the n-th on, or all while switched off.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Remote>,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    requests: usize,
    at: BTreeMap<usize, Fault>,
    from: Option<(usize, Fault)>,
    offline: bool,
}

impl Faulty {
    /// Around a remote, without a fault.
    pub fn new(inner: Arc<dyn Remote>) -> Self {
        Self {
            inner,
            script: Mutex::default(),
        }
    }

    /// The `nth` request from now (1 = the next one, pages and SQL counted together) suffers this.
    pub fn fail_nth(&self, nth: usize, fault: Fault) {
        let mut script = self.script.lock();
        let nth = script.requests + nth;
        script.at.insert(nth, fault);
    }

    /// Every request suffers this, from the `nth` from now on.
    pub fn fail_from(&self, nth: usize, fault: Fault) {
        let mut script = self.script.lock();
        script.from = Some((script.requests + nth, fault));
    }

    /// While `true`, every request fails as if there were no network.
    pub fn set_offline(&self, offline: bool) {
        self.script.lock().offline = offline;
    }

    /// Takes back every fault that has not happened.
    pub fn heal(&self) {
        let mut script = self.script.lock();
        *script = Script {
            requests: script.requests,
            ..Script::default()
        };
    }

    /// Requests so far, failed ones included.
    pub fn requests(&self) -> usize {
        self.script.lock().requests
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut script = self.script.lock();
        script.requests += 1;
        let now = script.requests;
        if script.offline {
            return Some(Fault::Fail(RemoteErrorKind::Unreachable));
        }
        script.at.remove(&now).or_else(|| match &script.from {
            Some((first, fault)) if now >= *first => Some(fault.clone()),
            _ => None,
        })
    }
}

fn broken(kind: RemoteErrorKind) -> RemoteError {
    RemoteError::new(kind, format!("made to fail ({kind:?}). Try again"))
}

async fn hang<T>(deadline: Option<Duration>) -> Result<T, RemoteError> {
    sleep(deadline.unwrap_or(DEFAULT_DEADLINE)).await;
    Err(broken(RemoteErrorKind::TimedOut))
}

impl Remote for Faulty {
    fn pages(&self, request: PagesRequest) -> RemoteFuture<'_, PageStream> {
        let fault = self.next_fault();
        async move {
            let deadline = request.deadline;
            match &fault {
                Some(Fault::Fail(kind)) => return Err(broken(*kind)),
                Some(Fault::Hang) => return hang(deadline).await,
                Some(Fault::LoseAnswer) => {
                    self.inner.pages(request).await?;
                    return Err(broken(RemoteErrorKind::Unreachable));
                }
                _ => {}
            }
            let PageStream { header, pages } = self.inner.pages(request).await?;
            let end = |kind| stream::once(async move { Err(broken(kind)) });
            let pages = match fault {
                Some(Fault::CutAfterPages(n)) => {
                    pages.take(n).chain(end(RemoteErrorKind::Unreachable)).boxed()
                }
                Some(Fault::CutAfterBytes(limit)) => {
                    let mut sum = 0;
                    let fits = move |page: &Result<RemotePage, _>| {
                        sum += page.as_ref().map_or(0, |page| page.data.len());
                        std::future::ready(sum <= limit)
                    };
                    pages
                        .take_while(fits)
                        .chain(end(RemoteErrorKind::Unreachable))
                        .boxed()
                }
                Some(Fault::HangAfterPages(n)) => pages.take(n).chain(stream::once(hang(deadline))).boxed(),
                Some(Fault::WrongPage(nth, change)) => pages
                    .enumerate()
                    .map(move |(n, page)| if n == nth { page.map(change) } else { page })
                    .boxed(),
                _ => pages,
            };
            Ok(PageStream { header, pages })
        }
        .boxed()
    }

    fn execute(&self, batch: Batch, deadline: Option<Duration>) -> RemoteFuture<'_, BatchResult> {
        let fault = self.next_fault();
        async move {
            match fault {
                None => self.inner.execute(batch, deadline).await,
                Some(Fault::Fail(kind)) => Err(broken(kind)),
                Some(Fault::Hang) => hang(deadline).await,
                // Faults of a page stream mean for SQL that the answer is lost on its way back.
                Some(_) => {
                    self.inner.execute(batch, deadline).await?;
                    Err(broken(RemoteErrorKind::Unreachable))
                }
            }
        }
        .boxed()
    }

    as_inner!();
}
