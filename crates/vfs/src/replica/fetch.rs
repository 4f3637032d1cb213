//! How a replica gets a page that is not here: single flight, what the planner adds, the wait with its deadline, and the
//! sink that takes the pages as they arrive. A fetch never overwrites a page that is present.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use partial_sync_core::{Epoch, FetchView, PageCount, PageId, PageNo, Planner, admit::admit, segment_of};
use roaring::RoaringBitmap;

use super::{Replica, hidden};
use crate::{
    error::ReadError,
    source::{Base, Miss, SourceError},
    sqlite::context,
    sync::{Condvar, Mutex},
};

/// Most bytes kept of pages that cannot go to the main file.
const PRIVATE_BYTES: usize = 32 << 20;
/// How often a wait looks whether its statement was interrupted.
pub(super) const INTERRUPT_POLL: Duration = Duration::from_millis(10);

/// One request under way.
#[derive(Default)]
pub(super) struct Flight {
    /// Whether its pages were to fill the map when it started.
    fills: bool,
    /// Who wants its pages; counted under the lock of [`Flights`].
    wanted_by: AtomicU32,
    state: Mutex<FlightState>,
    arrived: Condvar,
}

#[derive(Default)]
struct FlightState {
    /// Pages that came but may not fill the map.
    private: HashMap<PageNo, Arc<[u8]>>,
    done: Option<Result<(), SourceError>>,
}

pub(super) type PrivatePages = HashMap<(Epoch, PageNo), Arc<[u8]>>;
pub(super) type Flights = HashMap<(Epoch, PageNo), Arc<Flight>>;

/// What the planner sees of a replica while it plans.
struct View<'a> {
    replica: &'a Replica,
    epoch: Epoch,
    size: PageCount,
    flights: &'a Flights,
}

impl FetchView for View<'_> {
    fn db_size(&self) -> PageCount {
        self.size
    }

    fn wants(&self, page: PageNo) -> bool {
        let map = &self.replica.map;
        !map.state(page).visible_to(self.epoch)
            && !map.is_dirty(page)
            && !self.flights.contains_key(&(self.epoch, page))
    }
}

impl Replica {
    /// Tells the planner, where it is in use, what SQLite reads.
    pub(super) fn observe(&self, page: PageNo, within: usize, data: &[u8]) {
        if !self.prefetch.load(Ordering::Relaxed) || within != 0 || data.len() != self.page_size.as_usize() {
            return;
        }
        let size = self.bases.read().base.size;
        if self.map.present_count() >= size.with_content(self.page_size) {
            // Nothing is left to fetch.
            return;
        }
        {
            let mut extra = self.extra.lock();
            if !extra.is_empty() && extra.remove(page.id().0) {
                self.used_extra.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut planner = self.planner.lock();
        if Planner::is_interesting(page, data) {
            planner.observe_page(page, data);
        }
        planner.observe_read(page);
    }

    /// Waits until `page` is visible to `epoch` or hands out a private copy; `None`: look at the map again.
    pub(super) fn obtain(
        &self,
        epoch: Epoch,
        page: PageNo,
        deadline: Instant,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        if let Some(bytes) = self.private_pages.lock().get(&(epoch, page)) {
            return Ok(Some(bytes.clone()));
        }
        let base = self.base_of(epoch).ok_or(ReadError::NoBase)?;
        if !base.size.contains(page) {
            // The local file is larger than the remote database and SQLite never wrote this page: it has no content
            // (a free page of a transaction that grew the file), as in a plain file.
            return Ok(Some(vec![0; self.page_size.as_usize()].into()));
        }
        if context::must_not_wait() {
            return Err(ReadError::WouldWait { what: "a page" });
        }
        let (flight, to_fetch) = {
            let mut flights = self.flights.lock();
            if self.map.state(page).visible_to(epoch) {
                return Ok(None);
            }
            let (flight, to_fetch) = match flights.get(&(epoch, page)) {
                Some(flight) => (flight.clone(), None),
                None => {
                    let pages = self.plan(epoch, page, &base, &flights);
                    let flight = Arc::new(Flight {
                        fills: epoch == self.epoch(),
                        ..Flight::default()
                    });
                    flights.extend(pages.iter().map(|&p| ((epoch, p), flight.clone())));
                    (flight, Some(pages))
                }
            };
            flight.wanted_by.fetch_add(1, Ordering::Relaxed);
            (flight, to_fetch)
        };
        let joined = to_fetch.is_none();
        if let Some(pages) = to_fetch {
            self.note_extra(page, &pages, &base);
            let sink = PageSink {
                replica: self.me.clone(),
                flight: flight.clone(),
                epoch,
                asked: ids_of(&pages),
                finished: false,
            };
            let statement = context::current_statement_sql();
            self.source.fetch(
                Miss {
                    wanted: page,
                    pages,
                    base,
                    epoch,
                    statement,
                },
                sink,
            );
        }
        let result = self.wait_for(&flight, epoch, page, deadline);
        self.leave(&flight, &result);
        match result {
            // Somebody else's fetch, begun under other circumstances, failed; this reader still has time for its own.
            Err(ReadError::Source { .. } | ReadError::NotSent { .. })
                if joined && Instant::now() < deadline =>
            {
                Ok(None)
            }
            result => result,
        }
    }

    /// A reader waits no longer. A fetch that all its readers have given up may never end: who comes next does not join it.
    fn leave(&self, flight: &Arc<Flight>, result: &Result<Option<Arc<[u8]>>, ReadError>) {
        let mut flights = self.flights.lock();
        let last = flight.wanted_by.fetch_sub(1, Ordering::Relaxed) == 1;
        if last
            && matches!(
                result,
                Err(ReadError::Interrupted { .. } | ReadError::TimedOut { .. })
            )
        {
            flights.retain(|_, other| !Arc::ptr_eq(other, flight));
        }
    }

    fn plan(&self, epoch: Epoch, page: PageNo, base: &Base, flights: &Flights) -> Vec<PageNo> {
        if epoch == self.epoch() {
            self.planner.lock().plan(
                page,
                &View {
                    replica: self,
                    epoch,
                    size: base.size,
                    flights,
                },
            )
        } else {
            vec![page]
        }
    }

    /// Counts the pages that the planner added beyond the segment.
    fn note_extra(&self, wanted: PageNo, pages: &[PageNo], base: &Base) {
        if !self.prefetch.load(Ordering::Relaxed) {
            return;
        }
        let segment = segment_of(wanted, self.page_size, self.segment, base.size);
        let mut extra = self.extra.lock();
        for page in pages
            .iter()
            .filter(|&&p| p != wanted && !segment.is_some_and(|s| s.contains(p)))
        {
            if extra.insert(page.id().0) {
                self.fetched_extra.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Begins a fetch that no query waits for: of `pages`, those that are absent and not in flight are to be fetched at
    /// the base that is returned, and given to the sink.
    pub fn begin_fetch(
        &self,
        pages: impl IntoIterator<Item = PageNo>,
    ) -> Result<(Base, Vec<PageNo>, PageSink), ReadError> {
        let epoch = self.epoch();
        let base = self.base_of(epoch).ok_or(ReadError::NoBase)?;
        let flight = Arc::new(Flight {
            fills: true,
            wanted_by: AtomicU32::new(1),
            ..Flight::default()
        });
        let mut flights = self.flights.lock();
        let pages: Vec<PageNo> = {
            let view = View {
                replica: self,
                epoch,
                size: base.size,
                flights: &flights,
            };
            pages
                .into_iter()
                .filter(|&p| base.size.contains(p) && !p.is_lock_byte_page(self.page_size) && view.wants(p))
                .collect()
        };
        flights.extend(pages.iter().map(|&p| ((epoch, p), flight.clone())));
        drop(flights);
        let sink = PageSink {
            replica: self.me.clone(),
            flight,
            epoch,
            asked: ids_of(&pages),
            finished: false,
        };
        Ok((base, pages, sink))
    }

    /// Waits until the fetches that are under way now have ended, at most so long: a query goes on as soon as its own
    /// page has come, while the rest still streams in. False when they have not ended in time, or `stop` said so.
    pub fn settle(&self, wait: Duration, stop: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let flights: Vec<Arc<Flight>> = self.flights.lock().values().cloned().collect();
        flights.iter().all(|flight| {
            let mut state = flight.state.lock();
            while state.done.is_none() {
                // Not a moment in time: the longest wait that can be asked for has none.
                let left = wait.saturating_sub(begun.elapsed());
                if left.is_zero() || stop() {
                    return false;
                }
                flight.arrived.wait_for(&mut state, left.min(INTERRUPT_POLL));
            }
            true
        })
    }

    /// Keeps a page that could not go to the main file for the readers of an epoch, as long as it has any.
    fn keep_private(&self, epoch: Epoch, page: PageNo, bytes: Arc<[u8]>) {
        let index = self.wal_index.lock();
        if epoch == self.epoch() || index.has_readers(epoch) {
            let mut private = self.private_pages.lock();
            if private.len() * bytes.len() < PRIVATE_BYTES {
                private.insert((epoch, page), bytes);
            }
        }
    }

    fn wait_for(
        &self,
        flight: &Flight,
        epoch: Epoch,
        page: PageNo,
        deadline: Instant,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        loop {
            if let Some(came) = self.has_come(flight, &flight.state.lock(), epoch, page) {
                return came;
            }
            // Asked without the lock: what answers may run a signal handler of the program, which may read pages.
            if context::is_interrupted() {
                return Err(ReadError::Interrupted { page });
            }
            let mut state = flight.state.lock();
            if let Some(came) = self.has_come(flight, &state, epoch, page) {
                return came;
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ReadError::TimedOut {
                    page,
                    waited: self.wait,
                });
            }
            flight
                .arrived
                .wait_until(&mut state, deadline.min(now + INTERRUPT_POLL));
        }
    }

    /// What a fetch has come to for a reader of one of its pages; `None` while it goes on without that page.
    fn has_come(
        &self,
        flight: &Flight,
        state: &FlightState,
        epoch: Epoch,
        page: PageNo,
    ) -> Option<Result<Option<Arc<[u8]>>, ReadError>> {
        if let Some(bytes) = state.private.get(&page) {
            return Some(Ok(Some(bytes.clone())));
        }
        if self.map.state(page).visible_to(epoch) {
            return Some(Ok(None));
        }
        match state.done.as_ref()? {
            Err(source) => Some(Err(ReadError::Source {
                page,
                source: source.clone(),
            })),
            Ok(()) => {
                // A pull takes pages out of the map before it moves the epoch; wait until it has done both.
                drop(self.fill.lock());
                let moved = flight.fills && epoch != self.epoch();
                // When it moved after the page had filled the map: start over at this reader's own revision.
                match moved || self.map.state(page).visible_to(epoch) {
                    true => Some(Ok(None)),
                    false => Some(Err(ReadError::NotSent { page })),
                }
            }
        }
    }
}

/// Takes the pages of one [`Miss`] as they arrive. Dropped without [`PageSink::finish`], the readers get an error. Keeps
/// nothing open: an answer that never comes must not hold the files of a replica that was given back.
pub struct PageSink {
    replica: Weak<Replica>,
    flight: Arc<Flight>,
    epoch: Epoch,
    /// 0-based ids.
    asked: RoaringBitmap,
    finished: bool,
}

fn ids_of(pages: &[PageNo]) -> RoaringBitmap {
    pages.iter().map(|page| page.id().0).collect()
}

impl PageSink {
    /// A page has arrived, asked for or not. It becomes present unless it is already, or the epoch moved on, or the disk
    /// refuses it: then only the readers that wait for it get it.
    pub fn page(&self, page: PageNo, data: &[u8]) -> Result<(), ReadError> {
        let replica = &*self.replica.upgrade().ok_or(ReadError::Closed)?;
        let Some(data) = admit(page, data, replica.page_size)? else {
            return Ok(());
        };
        let hidden = (page == PageNo::FIRST).then(|| hidden(&data));
        let stored = hidden.as_deref().unwrap_or(&data);
        let mut is_new = false;
        let filled = replica.writing(|| {
            let _fill = replica.fill.lock();
            let state = replica.map.state(page);
            Ok(if self.epoch != replica.epoch() || state.is_retired() {
                // A reader from before a pull may need the copy that is in the file.
                false
            } else if state.is_present() {
                // It became present meanwhile; that copy is at least as good as this one.
                true
            } else {
                match replica.main.write_at(stored, page.offset(replica.page_size)) {
                    Ok(()) => {
                        replica.map.set_present(page, self.epoch);
                        is_new = true;
                        true
                    }
                    Err(error) => {
                        tracing::warn!(%page, %error, "a fetched page could not be stored; the query goes on without");
                        false
                    }
                }
            })
        })?;
        if filled && replica.prefetch.load(Ordering::Relaxed) {
            if Planner::is_interesting(page, &data) {
                replica.planner.lock().observe_page(page, &data);
            }
            if is_new && !self.asked.contains(page.id().0) {
                if replica.extra.lock().insert(page.id().0) {
                    replica.fetched_extra.fetch_add(1, Ordering::Relaxed);
                }
                // Somebody else's fetch may be waiting for what came along with this one.
                let waiting = replica.flights.lock().get(&(self.epoch, page)).cloned();
                if let Some(waiting) = waiting {
                    drop(waiting.state.lock());
                    waiting.arrived.notify_all();
                }
            }
        }
        if !filled {
            let mut state = self.flight.state.lock();
            let bytes: Arc<[u8]> = (&*data).into();
            state.private.insert(page, bytes.clone());
            drop(state);
            replica.keep_private(self.epoch, page, bytes);
        } else {
            // Whoever looked at the map before the page was set present waits by now.
            drop(self.flight.state.lock());
        }
        self.flight.arrived.notify_all();
        Ok(())
    }

    /// The pages that are here (0-based ids), and need not be sent.
    pub fn present(&self) -> RoaringBitmap {
        self.replica
            .upgrade()
            .map_or_else(RoaringBitmap::new, |replica| replica.map.present())
    }

    /// Whether a page is here and stays.
    pub fn has(&self, page: PageNo) -> bool {
        self.replica.upgrade().is_some_and(|replica| {
            self.epoch == replica.epoch() && replica.map.state(page).visible_to(self.epoch)
        })
    }

    /// Whether pages that come now stay, for the epoch has not moved since they were asked for.
    pub fn fills(&self) -> bool {
        self.replica
            .upgrade()
            .is_some_and(|replica| self.epoch == replica.epoch())
    }

    /// The fetch is over. Readers whose page did not come fail with the error, or, after `Ok`, with one that says so.
    pub fn finish(mut self, result: Result<(), SourceError>) {
        self.land(result);
    }

    fn land(&mut self, result: Result<(), SourceError>) {
        self.finished = true;
        if let Some(replica) = self.replica.upgrade() {
            let mut flights = replica.flights.lock();
            for page in self.asked.iter().filter_map(|id| PageId(id).no()) {
                if flights
                    .get(&(self.epoch, page))
                    .is_some_and(|f| Arc::ptr_eq(f, &self.flight))
                {
                    flights.remove(&(self.epoch, page));
                }
            }
        }
        self.flight.state.lock().done = Some(result);
        self.flight.arrived.notify_all();
    }
}

impl Drop for PageSink {
    fn drop(&mut self) {
        if !self.finished {
            self.land(Err(Arc::new(ReadError::Abandoned)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use partial_sync_core::{PageMap, PageSize, Revision, SegmentSize};

    use super::*;
    use crate::{MemoryStorage, PageSource, replica::ReplicaConfig};

    struct NoSource;

    impl PageSource for NoSource {
        fn fetch(&self, _miss: Miss, _sink: PageSink) {}
    }

    /// Never answers, and keeps the fetches open.
    #[derive(Default)]
    struct Silent(Mutex<Vec<PageSink>>);

    impl PageSource for Silent {
        fn fetch(&self, _miss: Miss, sink: PageSink) {
            self.0.lock().push(sink);
        }
    }

    /// An interrupted page fetch went on without anybody, and the next reader of that page waited for it.
    #[test]
    fn b9_a_fetch_that_its_readers_gave_up_is_joined_by_nobody() {
        let source = Arc::new(Silent::default());
        let size = PageCount(1000);
        let replica = Replica::register(ReplicaConfig {
            storage: Arc::new(MemoryStorage::default()),
            path: PathBuf::from("/b9_a_fetch/app.db"),
            page_size: PageSize::DEFAULT,
            base: Base {
                revision: Revision::new("1").unwrap(),
                size,
            },
            map: PageMap::new(),
            source: source.clone(),
            segment: SegmentSize::DEFAULT,
            prefetch: false,
            wait: Duration::from_secs(1),
            temporary: false,
        })
        .unwrap();
        let page = PageNo::new(10).unwrap();
        for fetches in 1..4 {
            let result = replica.obtain(replica.epoch(), page, Instant::now());
            assert!(matches!(result, Err(ReadError::TimedOut { .. })), "{result:?}");
            assert_eq!(source.0.lock().len(), fetches);
        }
        // One that nobody waits for from the start, as a hydration begins it, is joined.
        let other = PageNo::new(500).unwrap();
        let (_, pages, sink) = replica.begin_fetch([other]).unwrap();
        assert_eq!(pages, [other]);
        let result = replica.obtain(replica.epoch(), other, Instant::now());
        assert!(matches!(result, Err(ReadError::TimedOut { .. })), "{result:?}");
        assert!(replica.begin_fetch([other]).unwrap().1.is_empty());
        drop(sink);
        assert_eq!(source.0.lock().len(), 3);
    }

    /// The page of SQLite's locks is never here, so beyond 1 GiB "all pages are here" was never true, and every read of
    /// a whole replica went through the planner's mutex.
    #[test]
    fn l_a_whole_replica_beyond_1_gib_leaves_the_planner_alone() {
        for (size, missing) in [(1000, 0), (262_144, 0), (262_145, 0), (300_000, 0), (300_000, 1)] {
            let size = PageCount(size);
            let page_size = PageSize::DEFAULT;
            let mut present = RoaringBitmap::new();
            present.insert_range(missing..size.0);
            present.remove(262_144);
            let replica = Replica::register(ReplicaConfig {
                storage: Arc::new(MemoryStorage::default()),
                path: PathBuf::from(format!("/l_a_whole_replica/{}-{missing}.db", size.0)),
                page_size,
                base: Base {
                    revision: Revision::new("1").unwrap(),
                    size,
                },
                map: PageMap::from_sets(&present, &RoaringBitmap::new(), Epoch(0)),
                source: Arc::new(NoSource),
                segment: SegmentSize::DEFAULT,
                prefetch: true,
                wait: Duration::from_secs(1),
                temporary: false,
            })
            .unwrap();
            let page = PageNo::new(10).unwrap();
            replica.extra.lock().insert(page.id().0);
            replica.observe(page, 0, &vec![0; page_size.as_usize()]);
            let looked = !replica.extra.lock().contains(page.id().0);
            assert_eq!(looked, missing > 0, "{size} pages, {missing} of them missing");
        }
    }
}
