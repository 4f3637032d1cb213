//! Asks the origin for pages. What several want of a state is asked for once, and what is wanted while as many requests are under way as may
//! be goes with the next one.
//!
//! A request continues when who wanted its pages leaves, and ends by the remote's deadline. The pages that came are kept with it until it
//! has ended, so that the cache may let go of them before those who wait have looked.

use std::{collections::HashMap, num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use parking_lot::Mutex;
use partial_sync_core::{PageSize, Revision};
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteError};
use roaring::RoaringBitmap;
use tokio::sync::{Semaphore, watch};

use crate::{history::Seq, states::Statement};

/// Requests for pages of a database at a time, and of all of a server.
const AT_A_TIME: usize = 8;
const IN_ALL: usize = 32;
/// Bytes of pages that one brings, about: they are in memory until it has ended.
const MOST: u64 = 8 << 20;
/// More pages that a query touches than its client wants are asked for: it may have some that are not here.
const MORE: u64 = 256;

/// What came of a request, and what did not.
pub(super) type Ended = Result<(), Arc<RemoteError>>;

/// A request, and which of the pages that somebody wants it brings.
pub(super) type Joined = (Arc<Flight>, RoaringBitmap);

/// A request, from when somebody wants its pages until it has ended.
#[derive(Debug)]
pub(super) struct Flight {
    at: Seq,
    /// Pages of a query may come too.
    is_of_query: bool,
    arrived: Mutex<Arrived>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Arrived {
    pages: HashMap<u32, Bytes>,
    ended: Option<Ended>,
}

impl Flight {
    fn new(at: Seq, is_of_query: bool) -> Arc<Self> {
        Arc::new(Self {
            at,
            is_of_query,
            arrived: Mutex::default(),
            news: watch::Sender::new(()),
        })
    }

    /// Waits until these pages have come, or no more come, and takes what there is of them; and why the others did not come, if there are
    /// any.
    pub(super) async fn take(&self, wanted: &RoaringBitmap) -> (HashMap<u32, Bytes>, Ended) {
        let mut news = self.news.subscribe();
        loop {
            {
                let arrived = self.arrived.lock();
                let is_here = wanted.iter().all(|page| arrived.pages.contains_key(&page));
                if is_here || arrived.ended.is_some() {
                    let page = |page| Some((page, arrived.pages.get(&page)?.clone()));
                    let ended = arrived.ended.clone().filter(|_| !is_here);
                    return (wanted.iter().filter_map(page).collect(), ended.unwrap_or(Ok(())));
                }
            }
            // The sender is here.
            let _ = news.changed().await;
        }
    }

    /// Whether it brings no more.
    pub(super) fn has_ended(&self) -> bool {
        self.arrived.lock().ended.is_some()
    }

    fn came(&self, page: u32, data: Bytes) {
        self.arrived.lock().pages.insert(page, data);
        self.news.send_replace(());
    }
}

/// A request that is under way, or is going to be.
#[derive(Debug)]
struct Entry {
    flight: Arc<Flight>,
    ids: RoaringBitmap,
    is_sent: bool,
}

/// How many requests may be under way, of all databases of a server.
pub(super) fn turns_in_all() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(IN_ALL))
}

/// The requests of a database.
#[derive(Debug)]
pub(super) struct Flights {
    entries: Mutex<Vec<Entry>>,
    turns: Semaphore,
    turns_in_all: Arc<Semaphore>,
    /// Pages of one.
    most: u64,
}

/// What is to be sent.
pub(super) struct Departure {
    pub(super) flight: Arc<Flight>,
    pub(super) revision: Revision,
    pub(super) query: Option<Arc<Statement>>,
    /// Pages that need not come for the query.
    pub(super) have: Option<RoaringBitmap>,
}

/// Ends a flight, whatever happens.
struct Landing<'f> {
    flights: &'f Flights,
    flight: &'f Arc<Flight>,
    ended: Ended,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut entries = self.flights.entries.lock();
        entries.retain(|entry| !Arc::ptr_eq(&entry.flight, self.flight));
        self.flight.arrived.lock().ended = Some(self.ended.clone());
        self.flight.news.send_replace(());
    }
}

impl Flights {
    /// None yet, of a database with such pages.
    pub(super) fn new(page_size: PageSize, turns_in_all: Arc<Semaphore>) -> Self {
        Self {
            entries: Mutex::default(),
            turns: Semaphore::new(AT_A_TIME),
            turns_in_all,
            most: MOST / u64::from(page_size.bytes()),
        }
    }

    /// Who brings these pages of a state, and which of them each brings. Of those that nobody brings, `more` says what is asked for in
    /// their place, if anything is; then there is one to be [sent](Self::send), unless it goes with another.
    pub(super) fn join(
        &self,
        at: Seq,
        mut wanted: RoaringBitmap,
        is_of_query: bool,
        more: impl FnOnce(RoaringBitmap) -> Option<RoaringBitmap>,
    ) -> (Vec<Joined>, Option<Arc<Flight>>) {
        let mut joined = Vec::new();
        let mut entries = self.entries.lock();
        for entry in entries.iter().filter(|entry| entry.flight.at == at) {
            let brings = &wanted & &entry.ids;
            if !brings.is_empty() {
                wanted -= &brings;
                joined.push((Arc::clone(&entry.flight), brings));
            }
        }
        if wanted.is_empty() {
            return (joined, None);
        }
        let Some(ids) = more(wanted) else {
            return (joined, None);
        };
        let waits = |entry: &&mut Entry| {
            let is_the_same = entry.flight.at == at && !entry.flight.is_of_query && !is_of_query;
            is_the_same && !entry.is_sent && entry.ids.len() + ids.len() <= self.most
        };
        if let Some(entry) = entries.iter_mut().find(waits) {
            entry.ids |= &ids;
            joined.push((Arc::clone(&entry.flight), ids));
            return (joined, None);
        }
        let flight = Flight::new(at, is_of_query);
        entries.push(Entry {
            flight: Arc::clone(&flight),
            ids: ids.clone(),
            is_sent: false,
        });
        joined.push((Arc::clone(&flight), ids));
        (joined, Some(flight))
    }

    /// Sends it when it is its turn, and has the pages kept that come.
    pub(super) async fn send(
        &self,
        remote: &dyn Remote,
        departure: Departure,
        keep: impl Fn(u32, &Bytes) -> Result<(), RemoteError>,
    ) -> Ended {
        let Departure {
            flight,
            revision,
            query,
            have,
        } = departure;
        let mut landing = Landing {
            flights: self,
            flight: &flight,
            // Of one that is dropped or panics.
            ended: Err(Arc::new(RemoteError::new(
                partial_sync_transport::RemoteErrorKind::Failed,
                "the request to the origin was given up",
            ))),
        };
        // They are never closed.
        let _turn = self.turns.acquire().await;
        let _turn_in_all = self.turns_in_all.acquire().await;
        let ids = {
            let mut entries = self.entries.lock();
            let entry = entries
                .iter_mut()
                .find(|entry| Arc::ptr_eq(&entry.flight, &flight));
            entry.map(|entry| {
                entry.is_sent = true;
                entry.ids.clone()
            })
        };
        let request = PagesRequest {
            revision: Some(revision),
            select: PageSelector::Ids(ids.unwrap_or_default()),
            most_along: query.as_ref().and_then(|query| {
                let wanted = query
                    .most
                    .map_or(self.most, |most| most.get().saturating_add(MORE));
                NonZeroU64::new(wanted.min(self.most))
            }),
            query: query.map(|query| query.sql.clone()),
            have,
            ..PagesRequest::default()
        };
        let asked = async {
            let mut answer = remote.pages(request).await?;
            while let Some(page) = answer.pages.try_next().await? {
                // Of its own: what came is a part of something larger.
                let data = Bytes::copy_from_slice(&page.data);
                keep(page.id.0, &data)?;
                flight.came(page.id.0, data);
            }
            Ok(())
        };
        landing.ended = asked.await.map_err(Arc::new);
        landing.ended.clone()
    }
}
