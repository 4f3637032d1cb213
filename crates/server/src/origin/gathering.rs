//! The pages of a state: those of the cache, and of the others, [fetched](super::fetching) from the origin at the very revision, with what a
//! query touches or with what is around them.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use partial_sync_core::{PageId, PageNo};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use roaring::RoaringBitmap;

use super::{
    cache::Cached,
    fetching::{Departure, Flight, Joined},
    states::OriginStates,
    timeline::Timeline,
};
use crate::{
    error::{HistoryError, ServerError},
    history::{RevisionRecord, Seq},
    states::Statement,
};

/// Pages that are fetched together for a query that the origin does not run: the segment around one.
const SEGMENT: u32 = 32;
/// The pages that are here are told to an origin that runs a query, unless there are more of them.
const TOLD: usize = 1 << 15;
/// How often is asked again for pages that were here or under way, and are not.
const TRIES: u32 = 3;

impl OriginStates {
    /// Keeps a page that came.
    pub(super) fn keep(&self, at: Seq, page: u32, data: &Bytes) -> Result<(), RemoteError> {
        if data.len() != self.page_size.as_usize() {
            self.end();
            return Err(self.other_size());
        }
        let timeline = self.timeline.lock();
        let home = timeline.home(at, page);
        let span = timeline.span(home, page);
        self.cache.put(self.database, page, home, span, data.clone());
        Ok(())
    }

    pub(super) fn other_size(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Protocol,
            format!("{} has pages of another size than before", self.remote.url()),
        )
    }

    /// A page of a state, if it is here.
    pub(super) fn cached(&self, timeline: &Timeline, at: Seq, page: u32) -> Option<Cached> {
        if PageId(page)
            .no()
            .is_some_and(|page| page.is_lock_byte_page(self.page_size))
        {
            // It holds nothing, and not every remote sends it.
            return Some(Cached::Here(vec![0; self.page_size.as_usize()].into()));
        }
        self.cache.get(self.database, page, timeline.home(at, page))
    }

    /// Those of the pages that are not here.
    fn missing(&self, at: Seq, ids: &RoaringBitmap) -> RoaringBitmap {
        let timeline = self.timeline.lock();
        let is_missing = |page: &u32| self.cached(&timeline, at, *page).is_none();
        ids.iter().filter(is_missing).collect()
    }

    /// Takes the pages that are here, and returns the others.
    async fn take_cached(
        &self,
        at: Seq,
        ids: &RoaringBitmap,
        found: &mut HashMap<u32, Bytes>,
    ) -> RoaringBitmap {
        let mut written = Vec::new();
        {
            let timeline = self.timeline.lock();
            for page in ids {
                match self.cached(&timeline, at, page) {
                    Some(Cached::Here(data)) => drop(found.insert(page, data)),
                    Some(Cached::There(there)) => written.push((page, there)),
                    None => {}
                }
            }
        }
        if !written.is_empty() {
            let cache = Arc::clone(&self.cache);
            let read = move || {
                let read = written.iter().map(|(page, there)| (*page, cache.read(there)));
                read.collect::<Vec<_>>()
            };
            // A panic there has been reported by its thread, and nothing was read.
            let read = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            found.extend(read.into_iter().filter_map(|(page, data)| Some((page, data?))));
        }
        ids.iter().filter(|page| !found.contains_key(page)).collect()
    }

    /// Who brings these pages, which are not here; somebody is sent for those that nobody brings.
    fn want(
        self: &Arc<Self>,
        at: RevisionRecord,
        wanted: RoaringBitmap,
        query: Option<&Arc<Statement>>,
    ) -> Result<Vec<Joined>, HistoryError> {
        let revision = self.revision(at.seq)?;
        let runs = query.filter(|_| self.features.lock().hydrate);
        let more = |rest: RoaringBitmap| {
            // What landed meanwhile is here now.
            let rest = self.missing(at.seq, &rest);
            (!rest.is_empty()).then(|| match query {
                Some(_) if runs.is_none() => self.segments(at, &rest),
                _ => rest,
            })
        };
        let (joined, begun) = self.flights.join(at.seq, wanted, runs.is_some(), more);
        if let Some(flight) = begun {
            let have = runs.map(|query| {
                let running = running(query);
                *running.flight.lock() = Some(Arc::clone(&flight));
                let timeline = self.timeline.lock();
                let home = |page| timeline.home(at.seq, page);
                let here = self.cache.ids(self.database, TOLD, home);
                here.unwrap_or_default() | &*running.read.lock()
            });
            let departure = Departure {
                flight,
                revision,
                query: runs.cloned(),
                have,
            };
            let this = Arc::clone(self);
            self.runtime.spawn(async move {
                let keep = |page, data: &Bytes| this.keep(at.seq, page, data);
                if let Err(error) = this.flights.send(&*this.remote, departure, keep).await {
                    tracing::debug!(%error, "pages did not come");
                }
            });
        }
        Ok(joined)
    }

    /// Pages around these that are not here either.
    fn segments(&self, at: RevisionRecord, ids: &RoaringBitmap) -> RoaringBitmap {
        let mut around = RoaringBitmap::new();
        for id in ids {
            let start = id / SEGMENT * SEGMENT;
            around.insert_range(start..start.saturating_add(SEGMENT).min(at.db_size.0));
        }
        self.missing(at.seq, &around)
    }

    /// Pages of a state.
    async fn fetch(
        self: Arc<Self>,
        at: RevisionRecord,
        ids: RoaringBitmap,
        query: Option<&Arc<Statement>>,
    ) -> Result<HashMap<u32, Bytes>, HistoryError> {
        let mut found = HashMap::new();
        let mut missing = self.take_cached(at.seq, &ids, &mut found).await;
        let mut runs = query;
        for _ in 0..TRIES {
            if missing.is_empty() {
                break;
            }
            let joined = match query.and_then(|query| under_way(query)) {
                Some(flight) => {
                    let (mut joined, _) = self.flights.join(at.seq, missing.clone(), false, |_| None);
                    let others = joined
                        .iter()
                        .fold(missing.clone(), |rest, (_, brings)| rest - brings);
                    joined.push((flight, others));
                    joined
                }
                None => self.want(at, missing.clone(), runs.take())?,
            };
            for (flight, brings) in joined {
                let (came, ended) = flight.take(&(brings & &missing)).await;
                found.extend(came);
                if let Err(error) = ended {
                    // Of a query: without it, then.
                    if query.is_none() || error.kind != RemoteErrorKind::Refused {
                        return Err(self.failed(&self.revision(at.seq)?, at.seq, &error));
                    }
                }
            }
            let left = missing.iter().filter(|page| !found.contains_key(page)).collect();
            missing = self.take_cached(at.seq, &left, &mut found).await;
        }
        Ok(found)
    }

    /// The same, on a thread that may wait, in the order asked.
    pub(super) fn read(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        query: Option<&Arc<Statement>>,
    ) -> Result<Vec<Option<Bytes>>, HistoryError> {
        let this = self.this.upgrade().ok_or(ServerError::Stopping)?;
        let ids = ids_of(pages);
        let found = self.runtime.block_on(this.fetch(at, ids.clone(), query))?;
        if let Some(query) = query {
            *running(query).read.lock() |= ids;
        }
        Ok(pages
            .iter()
            .map(|page| found.get(&page.id().0).cloned())
            .collect())
    }

    /// Fetches pages that are wanted now, and has begun to fetch those that are wanted soon.
    pub(super) fn gather(
        self: Arc<Self>,
        at: RevisionRecord,
        now: &[PageNo],
        soon: &[PageNo],
        query: Option<&Arc<Statement>>,
    ) -> BoxFuture<'static, Result<(), HistoryError>> {
        let now = ids_of(now);
        let wanted = self.missing(at.seq, &(&now | ids_of(soon)));
        let query = query.cloned();
        async move {
            if query.as_ref().and_then(|query| under_way(query)).is_none() {
                self.want(at, wanted, query.as_ref())?;
            }
            self.fetch(at, now, query.as_ref()).await.map(drop)
        }
        .boxed()
    }
}

/// What is known of a query that runs.
#[derive(Debug, Default)]
struct Running {
    /// What brings pages for it.
    flight: Mutex<Option<Arc<Flight>>>,
    /// Pages that it has read.
    read: Mutex<RoaringBitmap>,
}

fn running(query: &Statement) -> Arc<Running> {
    let mut kept = query.kept.lock();
    let found = kept.clone().and_then(|kept| kept.downcast::<Running>().ok());
    found.unwrap_or_else(|| {
        let begun = Arc::<Running>::default();
        *kept = Some(Arc::clone(&begun) as _);
        begun
    })
}

/// What is under way for a query, and may bring what it touches.
fn under_way(query: &Statement) -> Option<Arc<Flight>> {
    let flight = running(query).flight.lock().clone()?;
    (!flight.has_ended()).then_some(flight)
}

fn ids_of(pages: &[PageNo]) -> RoaringBitmap {
    pages.iter().map(|page| page.id().0).collect()
}
