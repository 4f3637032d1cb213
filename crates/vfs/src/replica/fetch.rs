//! How a replica gets a page that is not here: single flight, what the planner adds, and the wait with its deadline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use partial_sync_core::{Epoch, FetchView, PageCount, PageNo, Planner, segment_of};

use super::{
    flight::{Flight, FlightState, Flights, INTERRUPT_POLL},
    sink::Landing,
    state::Replica,
};
use crate::{
    error::ReadError,
    source::{Base, Miss, PageSink},
    sqlite::context,
};

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
        map.look(page, self.epoch).is_none()
            && !map.is_dirty(page)
            && !self.flights.contains_key(&(self.epoch, page))
    }
}

/// A fetch that no query waits for: the base to fetch at, what to fetch, and where it goes.
pub(super) type BackgroundFetch = (Base, Vec<PageNo>, Box<dyn PageSink>);

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
            if self.map.look(page, epoch).is_some() {
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
            let sink = Landing::of(self.me.clone(), flight.clone(), epoch, &pages);
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
    pub fn begin_fetch(&self, pages: impl IntoIterator<Item = PageNo>) -> Result<BackgroundFetch, ReadError> {
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
        let sink = Landing::of(self.me.clone(), flight, epoch, &pages);
        Ok((base, pages, sink))
    }

    /// Waits until the fetches that are under way now have ended, at most so long: a query continues as soon as its own
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

    /// What a fetch has come to for a reader of one of its pages; `None` while it continues without that page.
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
        if self.map.look(page, epoch).is_some() {
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
                match moved || self.map.look(page, epoch).is_some() {
                    true => Some(Ok(None)),
                    false => Some(Err(ReadError::NotSent { page })),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use partial_sync_core::{PageMap, PageSize, Revision, SegmentSize};

    use roaring::RoaringBitmap;

    use super::*;
    use crate::{
        MemoryStorage, PageSource,
        replica::{NextBase, ReplicaConfig, Stay},
        sync::Mutex,
    };

    struct NeverAnswers;

    impl PageSource for NeverAnswers {
        fn fetch(&self, _miss: Miss, _sink: Box<dyn PageSink>) {}
    }

    /// Never answers, and keeps the fetches open.
    #[derive(Default)]
    struct Silent(Mutex<Vec<Box<dyn PageSink>>>);

    impl PageSource for Silent {
        fn fetch(&self, _miss: Miss, sink: Box<dyn PageSink>) {
            self.0.lock().push(sink);
        }
    }

    /// A replica whose remote never answers.
    fn silent(name: &str) -> (Arc<Replica>, Arc<Silent>) {
        let source = Arc::new(Silent::default());
        let replica = Replica::register(ReplicaConfig {
            storage: Arc::new(MemoryStorage::default()),
            path: PathBuf::from(format!("/{name}/app.db")),
            page_size: PageSize::DEFAULT,
            base: Base {
                revision: Revision::new("1").unwrap(),
                size: PageCount(1000),
            },
            map: PageMap::new(),
            source: source.clone(),
            segment: SegmentSize::DEFAULT,
            prefetch: false,
            wait: Duration::from_secs(1),
            temporary: false,
        })
        .unwrap();
        (replica, source)
    }

    /// A pull moves the base, and no page stays.
    fn move_on(replica: &Replica) {
        let next = NextBase {
            base: Base {
                revision: Revision::new("2").unwrap(),
                size: PageCount(1000),
            },
            stay: Stay::none(),
            committed: Default::default(),
            dirty: Default::default(),
            end: PageCount(1000),
        };
        replica.move_base(&next, || Ok::<_, ()>(())).unwrap();
    }

    /// They stayed, 32 MiB at most, until a reader of another epoch ended; later ones were not kept for want of room.
    #[test]
    fn copies_of_an_epoch_that_nobody_reads_go_when_a_pull_moves_the_base() {
        let (replica, _) = silent("copies_of_an_epoch");
        replica.keep_private(replica.epoch(), PageNo::new(10).unwrap(), vec![1; 4096].into());
        move_on(&replica);
        assert!(replica.private_pages.lock().is_empty());
    }

    /// Nobody waits with a fetch for a page that came along. All that a long statement touches was kept until its answer had
    /// ended when a pull moved the base meanwhile, or the disk was full.
    #[test]
    fn pages_that_came_along_and_cannot_be_stored_are_not_kept_with_the_fetch() {
        let (replica, _) = silent("pages_that_came_along");
        let asked = [10, 11].map(|n| PageNo::new(n).unwrap());
        let flight = Arc::new(Flight::default());
        let sink = Landing::of(replica.me.clone(), flight.clone(), replica.epoch(), &asked);
        move_on(&replica);
        for page in (1..100).filter_map(PageNo::new) {
            sink.page(page, &vec![1; 4096]).unwrap();
        }
        let mut kept: Vec<PageNo> = flight.state.lock().private.keys().copied().collect();
        kept.sort();
        assert_eq!(kept, asked);
    }

    /// It wrote to a file whose lock was gone, over what the next owner had put there.
    #[test]
    fn invariant_12_a_page_that_comes_late_is_not_written_to_a_replica_that_was_closed() {
        let (replica, source) = silent("invariant_12_a_page");
        let page = PageNo::new(10).unwrap();
        let result = replica.obtain(replica.epoch(), page, Instant::now());
        assert!(matches!(result, Err(ReadError::TimedOut { .. })), "{result:?}");
        let data = vec![1; PageSize::DEFAULT.as_usize()];
        let sinks = std::mem::take(&mut *source.0.lock());
        sinks[0].page(page, &data).unwrap();
        assert!(replica.map.is_present(page));
        replica.close();
        let next = PageNo::new(11).unwrap();
        let late = sinks[0].page(next, &data);
        assert!(matches!(late, Err(ReadError::Closed)), "{late:?}");
        assert!(!replica.map.is_present(next));
    }

    /// An interrupted page fetch went on without anybody, and the next reader of that page waited for it.
    #[test]
    fn b9_a_fetch_that_its_readers_gave_up_is_joined_by_nobody() {
        let (replica, source) = silent("b9_a_fetch");
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
                map: PageMap::from_sets(&present, &RoaringBitmap::new()),
                source: Arc::new(NeverAnswers),
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
