//! The states of a database as its origin tells them.
//!
//! The latest one is asked for when somebody asks here, and while somebody waits for a new one the origin is waited for. A revision that is
//! not known here is looked for there. Pages are [gathered](super::gathering). That the origin
//! does not know a revision any more which it gave itself is the end: what is there now is another database.

use std::{
    fmt,
    io::IoSliceMut,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use partial_sync_core::{PageNo, PageSize, Revision};
use partial_sync_transport::{Features, Remote, RemoteError, RemoteErrorKind};
use roaring::RoaringBitmap;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    asking::{self, Since, Told},
    cache::{Cache, Cached, DatabaseId},
    fetching::Flights,
    timeline::{ASIDE, Changed, Timeline},
};
use crate::{
    error::{HistoryError, ServerError},
    history::{RevisionRecord, Seq},
    ids::ids_below,
    looks::Looks,
    states::{Found, Latest, Statement, States},
};

/// How long the origin is waited for at a time while somebody waits here, and the pause after it has failed.
const POLL: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// How long the origin is waited for when nobody waits here any more: most come again.
const LINGER: Duration = Duration::from_secs(1);
/// How often is asked again what changed, where states come faster than answers; and about a state that was forgotten meanwhile.
const ASKS: u32 = 20;
const TRIES: u32 = 3;

/// See the module.
pub(super) struct OriginStates {
    pub(super) remote: Arc<dyn Remote>,
    pub(super) cache: Arc<Cache>,
    pub(super) database: DatabaseId,
    pub(super) page_size: PageSize,
    /// Locked before the cache, and after what is under way.
    pub(super) timeline: Mutex<Timeline>,
    pub(super) features: Mutex<Features>,
    pub(super) flights: Flights,
    pub(super) looks: Looks<Result<(), Arc<RemoteError>>>,
    pub(super) published: watch::Sender<Latest>,
    /// Somebody waits for a new state.
    pub(super) waits: Arc<Notify>,
    pub(super) poller: Mutex<Option<AbortHandle>>,
    pub(super) this: Weak<Self>,
    pub(super) has_ended: AtomicBool,
    pub(super) runtime: Handle,
}

impl fmt::Debug for OriginStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.remote.url())
    }
}

impl Drop for OriginStates {
    fn drop(&mut self) {
        if let Some(poller) = self.poller.get_mut() {
            poller.abort();
        }
        self.cache.remove(self.database);
    }
}

impl OriginStates {
    /// Those of a remote, which is asked what the latest one is.
    pub(super) async fn open(
        remote: Arc<dyn Remote>,
        cache: &Arc<Cache>,
        turns: Arc<Semaphore>,
    ) -> Result<Arc<Self>, RemoteError> {
        let told = asking::state(&*remote, None).await?;
        let timeline = Timeline::new(told.revision.clone(), told.size);
        let (at, revision) = timeline.latest();
        let latest = Latest {
            at,
            revision: revision.clone(),
        };
        let page_size = told.page_size().unwrap_or(PageSize::DEFAULT);
        let url = remote.url();
        let database = cache.add(&url, &told.revision);
        adopt(&*remote, cache, database, &told).await;
        let this = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            remote,
            database,
            cache: Arc::clone(cache),
            page_size,
            timeline: Mutex::new(timeline),
            features: Mutex::new(told.features),
            flights: Flights::new(page_size, turns),
            looks: Looks::default(),
            published: watch::Sender::new(latest),
            waits: Arc::default(),
            poller: Mutex::default(),
            has_ended: AtomicBool::new(false),
            runtime: Handle::current(),
        });
        if let Some(page_1) = told.page_1 {
            this.keep(at.seq, 0, &page_1)?;
        }
        let poller = tokio::spawn(poll_while_somebody_waits(
            Arc::downgrade(&this),
            Arc::clone(&this.waits),
        ));
        *this.poller.lock() = Some(poller.abort_handle());
        Ok(this)
    }

    /// Whether somebody waits for a new state.
    pub(super) fn has_waiters(&self) -> bool {
        self.published.receiver_count() > 0
    }

    /// Whether the origin heeds what this server says that a client may do: those of before did not, and had no `zstd-bodies`.
    pub(super) fn heeds_access(&self) -> bool {
        self.features.lock().zstd_bodies && !self.has_foreign_sql()
    }

    /// The latest state is asked for; those who ask meanwhile share the next answer.
    async fn look(self: &Arc<Self>) -> Result<Latest, ServerError> {
        let this = Arc::clone(self);
        let look = async move { this.advance(None).await.map_err(Arc::new) };
        self.looks.take(look).await.ok_or(ServerError::Stopping)??;
        self.check_open()?;
        Ok(self.latest())
    }

    /// Asks what there is since the latest state that is known.
    async fn advance(&self, wait: Option<Duration>) -> Result<(), RemoteError> {
        for _ in 0..ASKS {
            let (latest, revision) = self.known_latest();
            let since = match self.since(&revision, wait).await {
                // It is so old that nobody knows any more what changed since.
                Err(error) if error.kind == RemoteErrorKind::RevisionExpired => self.afresh().await?,
                since => since?,
            };
            if since.revision == revision || self.append(latest.seq, since) {
                return Ok(());
            }
            // Another state was told of meanwhile, and which of the two is newer is not known: asked again.
        }
        let problem = format!("{}: there are new states faster than answers", self.remote.url());
        Err(RemoteError::new(RemoteErrorKind::Failed, problem))
    }

    fn known_latest(&self) -> (RevisionRecord, Revision) {
        let timeline = self.timeline.lock();
        let (at, revision) = timeline.latest();
        (at, revision.clone())
    }

    /// What there is since a state that the origin gave.
    async fn since(&self, revision: &Revision, wait: Option<Duration>) -> Result<Since, RemoteError> {
        let lists = self.features.lock().list;
        let since = asking::since(&*self.remote, revision, wait, lists).await;
        let since = since.inspect_err(|error| self.end_if_replaced(error))?;
        *self.features.lock() = since.features;
        Ok(since)
    }

    /// The latest state, when it is not known what changed.
    async fn afresh(&self) -> Result<Since, RemoteError> {
        let told = asking::state(&*self.remote, None).await?;
        let page_1 = told.page_1.map(|page_1| (0, page_1));
        Ok(Since {
            revision: told.revision,
            size: told.size,
            features: told.features,
            changed: None,
            pages: page_1.into_iter().collect(),
        })
    }

    /// A state follows the one that was the latest; `false`: it is not that any more.
    fn append(&self, after: Seq, since: Since) -> bool {
        let is_a_page = |(_, data): &(u32, Bytes)| data.len() == self.page_size.as_usize();
        if !since.pages.iter().all(is_a_page) {
            self.end();
            return true;
        }
        let latest = {
            let mut timeline = self.timeline.lock();
            let (latest, _) = timeline.latest();
            if latest.seq != after {
                return timeline.find(&since.revision).is_some();
            }
            if timeline
                .find(&since.revision)
                .is_some_and(|known| known.seq.0 < ASIDE)
            {
                // Back to where it was: what the names mean now is anybody's guess.
                drop(timeline);
                self.end();
                return true;
            }
            let revision = since.revision.clone();
            let changed = since.changed.clone();
            let at = timeline.append(since.revision, since.size, since.changed);
            let now = revision.clone();
            let changed = changed.map(|mut ids| {
                let sizes = [latest.db_size.0, at.db_size.0];
                ids.insert_range(sizes[0].min(sizes[1])..sizes[0].max(sizes[1]));
                ids
            });
            self.cache.close(self.database, &changed, after, &now);
            for (page, data) in since.pages {
                let span = timeline.span(at.seq, page);
                self.cache.put(self.database, page, at.seq, span, data);
            }
            Latest { at, revision }
        };
        self.published.send_if_modified(|published| {
            let is_new = published.at.seq < latest.at.seq;
            if is_new {
                *published = latest;
            }
            is_new
        });
        true
    }

    pub(super) fn end(&self) {
        self.cache.remove(self.database);
        self.cache.disown(&self.remote.url());
        if !self.has_ended.swap(true, Relaxed) {
            tracing::warn!(origin = ?self, "it has another history now: nothing that was known of it counts any more");
            self.published.send_modify(|_| {});
        }
    }

    /// A revision that the origin gave is unknown to it, or the database is not there.
    fn end_if_replaced(&self, error: &RemoteError) {
        if let RemoteErrorKind::RevisionUnknown | RemoteErrorKind::NotFound = error.kind {
            self.end();
        }
    }

    /// A revision that is not known here: a new one, or one from before this server has asked.
    async fn look_for(self: &Arc<Self>, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError> {
        // The latest one after that is not older than this one, if the origin knows it.
        self.look().await?;
        if let Some(known) = self.timeline.lock().find(revision) {
            return Ok(Some(known));
        }
        let told = match asking::state(&*self.remote, Some(revision)).await {
            Ok(told) => told,
            Err(error) if error.kind == RemoteErrorKind::RevisionUnknown => return Ok(None),
            Err(error) => return Err(self.failed(revision, Seq(ASIDE), &error)),
        };
        if told.page_size().is_some_and(|size| size != self.page_size) {
            self.end();
            return Ok(None);
        }
        let mut timeline = self.timeline.lock();
        let known = timeline.find(revision);
        let at = known.unwrap_or_else(|| timeline.put_beside(told.revision, told.size));
        drop(timeline);
        if let Some(page_1) = &told.page_1 {
            let kept = self.keep(at.seq, 0, page_1);
            kept.map_err(ServerError::from)?;
        }
        Ok(Some(at))
    }

    /// What may differ between two states, asked for where it is not known.
    async fn differs(self: &Arc<Self>, one: Seq, other: Seq) -> Result<Changed, HistoryError> {
        for _ in 0..TRIES {
            let aside = {
                let timeline = self.timeline.lock();
                if let Some(changed) = timeline.changed(one, other) {
                    return Ok(changed);
                }
                let mut aside = Vec::new();
                for seq in [one, other].into_iter().filter(|seq| seq.0 >= ASIDE) {
                    let revision = timeline.revision(seq).ok_or(HistoryError::Forgotten)?;
                    aside.push((seq, revision.clone()));
                }
                aside
            };
            if aside.is_empty() {
                return Err(HistoryError::Forgotten);
            }
            for (seq, revision) in aside {
                let lists = self.features.lock().list;
                let since = asking::since(&*self.remote, &revision, None, lists).await;
                let since = since.map_err(|error| self.failed(&revision, seq, &error))?;
                if self.timeline.lock().find(&since.revision).is_none() {
                    self.look().await?;
                }
                let mut timeline = self.timeline.lock();
                if let Some(main) = timeline.find(&since.revision).filter(|main| main.seq.0 < ASIDE) {
                    timeline.join(seq, main, since.changed);
                }
            }
        }
        // States come too fast: all of it is right too.
        Ok(None)
    }

    /// The error of a question about a state that the origin has told of. That it does not know one any more which a client named is that
    /// client's business.
    pub(super) fn failed(&self, revision: &Revision, seq: Seq, error: &RemoteError) -> HistoryError {
        if seq.0 < ASIDE || error.kind == RemoteErrorKind::NotFound {
            self.end_if_replaced(error);
        }
        match error.kind {
            RemoteErrorKind::RevisionExpired => expired(revision),
            RemoteErrorKind::RevisionUnknown => HistoryError::UnknownElsewhere(shortened(revision)),
            _ => ServerError::from(error.clone()).into(),
        }
    }

    /// The revision of a state that was told to somebody; it may be forgotten since.
    pub(super) fn revision(&self, seq: Seq) -> Result<Revision, HistoryError> {
        let timeline = self.timeline.lock();
        timeline.revision(seq).cloned().ok_or(HistoryError::Forgotten)
    }
}

fn expired(revision: &Revision) -> HistoryError {
    HistoryError::ExpiredElsewhere(shortened(revision))
}

fn shortened(revision: &Revision) -> String {
    revision.as_str().chars().take(100).collect()
}

/// Takes what the cache has of before the start, if the origin says what changed since. Only of a remote of ours, whose revisions name the
/// history too: a mere number would be known to another one as well.
async fn adopt(remote: &dyn Remote, cache: &Cache, database: DatabaseId, told: &Told) {
    let url = remote.url();
    let Some(stored) = cache.stored(&url) else { return };
    let is_ours = told.features.list && !told.features.foreign_sql;
    let changed = match is_ours {
        true if stored == told.revision => Some(RoaringBitmap::new()),
        true => match asking::since(remote, &stored, None, true).await {
            Ok(since) if since.revision == told.revision => since.changed,
            _ => None,
        },
        false => None,
    };
    match changed {
        Some(changed) => {
            let size = told.page_size().map_or(0, PageSize::bytes);
            cache.adopt(database, Seq::FIRST, |page, len| {
                len == size && page < told.size.0 && !changed.contains(page)
            });
        }
        None => cache.disown(&url),
    }
}

async fn poll_while_somebody_waits(states: Weak<OriginStates>, waits: Arc<Notify>) {
    loop {
        waits.notified().await;
        while let Some(states) = states.upgrade()
            && states.has_waiters()
        {
            let nobody_waits = async {
                while states.has_waiters() {
                    states.published.closed().await;
                    tokio::time::sleep(LINGER).await;
                }
            };
            let (before, began) = (states.latest(), Instant::now());
            let polled = tokio::select! {
                polled = states.advance(Some(POLL)) => polled,
                () = nobody_waits => break,
            };
            if states.check_open().is_err() {
                return;
            }
            let is_news = polled.is_ok() && states.latest() != before;
            if let Err(error) = polled {
                tracing::warn!(origin = ?states, %error, "cannot wait for what is new");
            }
            drop(states);
            // Not every remote waits.
            if !is_news && began.elapsed() < PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl States for OriginStates {
    fn page_size(&self) -> PageSize {
        self.page_size
    }

    fn is_writable(&self) -> bool {
        self.features.lock().writes
    }

    fn has_foreign_sql(&self) -> bool {
        let features = *self.features.lock();
        features == Features::default() || features.foreign_sql
    }

    fn check_open(&self) -> Result<(), ServerError> {
        match self.has_ended.load(Relaxed) {
            true => Err(ServerError::OriginReplaced),
            false => Ok(()),
        }
    }

    fn latest(&self) -> Latest {
        self.published.borrow().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Latest> {
        let receiver = self.published.subscribe();
        self.waits.notify_one();
        receiver
    }

    fn up_to_date(self: Arc<Self>) -> BoxFuture<'static, Result<Latest, ServerError>> {
        async move { self.look().await }.boxed()
    }

    fn find(&self, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError> {
        let this = self.this.upgrade().ok_or(ServerError::Stopping)?;
        self.runtime.block_on(this.look_for(revision))
    }

    fn find_at_once(&self, revision: &Revision) -> Found {
        let known = self.timeline.lock().find(revision);
        known.map_or(Found::NotAtOnce, Found::Kept)
    }

    fn pages(&self, at: RevisionRecord, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError> {
        self.read(at, pages, None)
    }

    fn pages_of_query(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        query: &Arc<Statement>,
    ) -> Result<Vec<Option<Bytes>>, HistoryError> {
        self.read(at, pages, Some(query))
    }

    fn are_far(&self) -> bool {
        true
    }

    fn draw_near(
        self: Arc<Self>,
        at: RevisionRecord,
        now: &[PageNo],
        soon: &[PageNo],
        query: Option<&Arc<Statement>>,
    ) -> BoxFuture<'static, Result<(), HistoryError>> {
        self.gather(at, now, soon, query)
    }

    fn is_newer(&self, one: RevisionRecord, other: RevisionRecord) -> bool {
        let [one, other] = [one.seq, other.seq].map(|seq| (seq, seq.0 < ASIDE));
        one.1 && other.1 && one.0 > other.0
    }

    fn namespace(&self) -> u64 {
        self.database
    }

    fn changed(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        let this = self.this.upgrade().ok_or(ServerError::Stopping)?;
        let changed = self.runtime.block_on(this.differs(since.seq, until.seq))?;
        Ok(changed.map_or_else(|| among.clone(), |changed| changed & among))
    }

    fn changed_at_once(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        let changed = self.timeline.lock().changed(since.seq, until.seq);
        Ok(changed.map(|changed| changed.unwrap_or_else(|| ids_below(until.db_size))))
    }

    fn check_none_lost(&self, _: RevisionRecord, _: &RoaringBitmap) -> Result<(), HistoryError> {
        Ok(())
    }

    fn read_at_once(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        to: &mut [IoSliceMut<'_>],
    ) -> Result<bool, ServerError> {
        let timeline = self.timeline.lock();
        let here = |page: &PageNo| match self.cached(&timeline, at.seq, page.id().0)? {
            Cached::Here(data) => Some(data),
            Cached::There(_) => None,
        };
        let cached = pages.iter().map(here);
        let Some(cached) = cached.collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        drop(timeline);
        for (data, to) in cached.iter().zip(to) {
            to.copy_from_slice(data);
        }
        Ok(true)
    }
}
