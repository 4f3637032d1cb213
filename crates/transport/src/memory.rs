//! [`MemoryRemote`]: a remote whose revisions are vectors of pages, for tests, examples and simulations.
//!
//! It answers page requests as our server does, and SQL through a closure. It has no clock but tokio's and no I/O.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use partial_sync_core::{PageCount, PageId, Revision};
use roaring::RoaringBitmap;
use tokio::sync::watch;

use crate::{
    hrana::{Batch, BatchResult},
    remote::{
        ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
        RemoteErrorKind, RemotePage, TransferStats,
    },
};

/// Tells which 0-based pages a query touches, given its text and the pages of the revision asked for.
pub type QueryFunction = Arc<dyn Fn(&str, &[Bytes]) -> Result<RoaringBitmap, RemoteError> + Send + Sync>;

/// Runs a batch. It may push a revision onto the remote that it is given.
pub type SqlFunction = Arc<dyn Fn(&MemoryRemote, Batch) -> Result<BatchResult, RemoteError> + Send + Sync>;

/// A remote in memory. Clones share everything.
///
/// ```
/// use bytes::Bytes;
/// use futures_util::TryStreamExt;
/// use partial_sync_transport::{PagesRequest, Remote, memory::MemoryRemote};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let remote = MemoryRemote::new();
/// let first = remote.push_revision(vec![Bytes::from(vec![0; 512]), Bytes::from(vec![1; 512])]);
/// remote.push_revision(vec![Bytes::from(vec![0; 512]), Bytes::from(vec![2; 512])]);
/// let changed = remote
///     .pages(PagesRequest { since: Some(first), ..PagesRequest::default() })
///     .await
///     .unwrap();
/// let pages: Vec<_> = changed.pages.try_collect().await.unwrap();
/// assert_eq!((pages.len(), pages[0].id.0, pages[0].data[0]), (1, 1, 2));
/// # });
/// ```
#[derive(Clone)]
pub struct MemoryRemote {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Counts revisions; long polls wait on it.
    pushed: watch::Sender<usize>,
    requests: AtomicU64,
    bytes_received: AtomicU64,
}

struct State {
    revisions: Vec<Stored>,
    features: Features,
    replace_base: bool,
    query: Option<QueryFunction>,
    sql: Option<SqlFunction>,
}

#[derive(Clone)]
struct Stored {
    name: Revision,
    pages: Arc<[Bytes]>,
    expired: bool,
}

impl Default for MemoryRemote {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MemoryRemote({} revisions)",
            self.inner.state.lock().revisions.len()
        )
    }
}

impl MemoryRemote {
    /// A remote without a revision, with every feature. Give it one before it is asked.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    revisions: Vec::new(),
                    features: Features::ALL,
                    replace_base: false,
                    query: None,
                    sql: None,
                }),
                pushed: watch::Sender::new(0),
                requests: AtomicU64::new(0),
                bytes_received: AtomicU64::new(0),
            }),
        }
    }

    /// What the remote says and does from now on.
    pub fn set_features(&self, features: Features) {
        self.inner.state.lock().features = features;
    }

    /// Whether "what changed" is answered with [`ApplyMode::ReplaceBase`] and every selected page.
    pub fn set_replace_base(&self, on: bool) {
        self.inner.state.lock().replace_base = on;
    }

    /// Answers [`PagesRequest::query`].
    pub fn on_query(
        &self,
        f: impl Fn(&str, &[Bytes]) -> Result<RoaringBitmap, RemoteError> + Send + Sync + 'static,
    ) {
        self.inner.state.lock().query = Some(Arc::new(f));
    }

    /// Answers [`Remote::execute`].
    pub fn on_execute(
        &self,
        f: impl Fn(&MemoryRemote, Batch) -> Result<BatchResult, RemoteError> + Send + Sync + 'static,
    ) {
        self.inner.state.lock().sql = Some(Arc::new(f));
    }

    /// Adds a revision, which becomes the latest. Pages must all have one size.
    pub fn push_revision(&self, pages: Vec<Bytes>) -> Revision {
        let count = {
            let mut state = self.inner.state.lock();
            let name =
                Revision::new(format!("m{}", state.revisions.len() + 1)).expect("the name is not empty");
            state.revisions.push(Stored {
                name,
                pages: pages.into(),
                expired: false,
            });
            state.revisions.len()
        };
        self.inner.pushed.send_replace(count);
        self.latest().expect("one was just added").0
    }

    /// The latest revision and its pages.
    pub fn latest(&self) -> Option<(Revision, Arc<[Bytes]>)> {
        let state = self.inner.state.lock();
        state.revisions.last().map(|r| (r.name.clone(), r.pages.clone()))
    }

    /// Forgets the pages of a revision: asking for it is answered with "expired". The latest cannot expire.
    pub fn expire(&self, revision: &Revision) {
        let mut state = self.inner.state.lock();
        if let Some((_, older)) = state.revisions.split_last_mut() {
            for stored in older.iter_mut().filter(|r| r.name == *revision) {
                stored.expired = true;
                stored.pages = Arc::new([]);
            }
        }
    }

    async fn answer(&self, request: PagesRequest) -> Result<PageStream, RemoteError> {
        self.inner.requests.fetch_add(1, Relaxed);
        if let (Some(since), Some(patience), None) = (&request.since, request.long_poll, &request.revision) {
            self.wait_for_change(since, patience).await;
        }
        let state = self.inner.state.lock();
        let target = state.find(request.revision.as_ref())?;
        let (mode, ids) = state.choose(&request, &target)?;
        let header = PagesHeader {
            revision: target.name.clone(),
            db_size: PageCount(target.count()),
            mode,
            features: state.features,
            listed: (request.list && state.features.list).then(|| ids.iter().copied().collect()),
        };
        drop(state);
        let ids = if header.listed.is_some() { vec![] } else { ids };
        let inner = self.inner.clone();
        let pages = ids.into_iter().map(move |id| {
            let data = target.pages[id as usize].clone();
            inner.bytes_received.fetch_add(data.len() as u64, Relaxed);
            Ok(RemotePage { id: PageId(id), data })
        });
        Ok(PageStream {
            header,
            pages: stream::iter(pages).boxed(),
        })
    }

    async fn wait_for_change(&self, since: &Revision, patience: Duration) {
        let mut pushed = self.inner.pushed.subscribe();
        let changed = async {
            while self.latest().is_some_and(|(latest, _)| latest == *since) {
                if pushed.changed().await.is_err() {
                    break;
                }
            }
        };
        // Running out of patience is an answer too: no change.
        let _ = tokio::time::timeout(patience, changed).await;
    }
}

impl Stored {
    fn count(&self) -> u32 {
        u32::try_from(self.pages.len()).expect("a database in memory has fewer than 2^32 pages")
    }
}

impl State {
    fn find(&self, wanted: Option<&Revision>) -> Result<Stored, RemoteError> {
        let found = match wanted {
            None => self.revisions.last(),
            Some(name) => self.revisions.iter().find(|r| r.name == *name),
        };
        match found {
            Some(stored) if stored.expired => Err(RemoteError::new(
                RemoteErrorKind::RevisionExpired,
                format!("{} is no longer kept. Pull to move to a newer one", stored.name),
            )),
            Some(stored) => Ok(stored.clone()),
            None => Err(RemoteError::new(
                RemoteErrorKind::RevisionUnknown,
                match wanted {
                    Some(name) => {
                        format!("revision {name} is unknown. Is this the remote of this replica?")
                    }
                    None => "this remote has no revision yet; push one".to_owned(),
                },
            )),
        }
    }

    /// The ids to send, in order.
    fn choose(&self, request: &PagesRequest, target: &Stored) -> Result<(ApplyMode, Vec<u32>), RemoteError> {
        let mut all = RoaringBitmap::new();
        all.insert_range(..target.count());
        let mut selected = match &request.select {
            PageSelector::Ids(ids) => ids & &all,
            PageSelector::All if request.query.is_some() => RoaringBitmap::new(),
            PageSelector::All => all.clone(),
        };
        let mut mode = ApplyMode::Incremental;
        if let Some(since) = &request.since {
            let base = self.find(Some(since))?;
            if self.replace_base && base.name != target.name {
                mode = ApplyMode::ReplaceBase;
            } else {
                selected &= changed_pages(&base.pages, &target.pages);
                if let Some(require) = request.require.as_ref().filter(|_| self.features.require) {
                    selected |= require & &all;
                }
            }
        }
        let mut touched = match &request.query {
            None => RoaringBitmap::new(),
            Some(sql) => {
                let query = self.query.as_ref().ok_or_else(|| {
                    RemoteError::new(
                        RemoteErrorKind::Refused,
                        "this remote answers no queries; set on_query",
                    )
                })?;
                query(sql, &target.pages)? & &all
            }
        };
        if let Some(have) = request
            .have
            .as_ref()
            .filter(|_| self.features.hydrate && request.since.is_none())
        {
            selected -= have;
            touched -= have;
        }
        touched -= &selected;
        Ok((mode, selected.into_iter().chain(touched).collect()))
    }
}

fn changed_pages(old: &[Bytes], new: &[Bytes]) -> RoaringBitmap {
    (0u32..)
        .zip(new)
        .filter(|(id, page)| old.get(*id as usize) != Some(page))
        .map(|(id, _)| id)
        .collect()
}

impl Remote for MemoryRemote {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.answer(request).boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        _deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        async move {
            self.inner.requests.fetch_add(1, Relaxed);
            let sql = self.inner.state.lock().sql.clone();
            match sql {
                Some(sql) => sql(self, batch),
                None => Err(RemoteError::new(
                    RemoteErrorKind::Refused,
                    "this remote runs no SQL; set on_execute",
                )),
            }
        }
        .boxed()
    }

    fn url(&self) -> String {
        "memory".to_owned()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats {
            requests: self.inner.requests.load(Relaxed),
            bytes_sent: 0,
            bytes_received: self.inner.bytes_received.load(Relaxed),
        }
    }
}
