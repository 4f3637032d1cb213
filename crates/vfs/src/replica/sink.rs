//! Where the pages of a fetch land. A page never overwrites one that is present.

use std::sync::{Arc, Weak, atomic::Ordering};

use partial_sync_core::{Epoch, PageId, PageNo, Planner, admit::admit};
use roaring::RoaringBitmap;

use super::{flight::Flight, hidden::hidden, state::Replica};
use crate::{
    error::ReadError,
    source::{Base, PageSink, SourceError},
};

/// Most bytes kept of pages that cannot go to the main file.
const PRIVATE_BYTES: usize = 32 << 20;

/// Runs of pages that are named as those that are here, at most;
const HAVE_RUNS: usize = 1024;
/// and around a page, so many pages.
const HAVE_AROUND: u32 = 4096;

/// The [`PageSink`] of a replica. Keeps nothing open: an answer that never comes must not hold the files of a replica that was
/// given back.
pub(super) struct Landing {
    pub(super) replica: Weak<Replica>,
    pub(super) flight: Arc<Flight>,
    pub(super) epoch: Epoch,
    /// 0-based ids.
    asked: RoaringBitmap,
    finished: bool,
}

impl Landing {
    /// For these pages.
    pub(super) fn of(
        replica: Weak<Replica>,
        flight: Arc<Flight>,
        epoch: Epoch,
        pages: &[PageNo],
    ) -> Box<Self> {
        Box::new(Self {
            replica,
            flight,
            epoch,
            asked: pages.iter().map(|page| page.id().0).collect(),
            finished: false,
        })
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

impl PageSink for Landing {
    fn page(&self, page: PageNo, data: &[u8]) -> Result<(), ReadError> {
        let replica = &*self.replica.upgrade().ok_or(ReadError::Closed)?;
        let Some(data) = admit(page, data, replica.page_size)? else {
            return Ok(());
        };
        let is_beyond = |base: &Base| !base.size.contains(page);
        if replica.bases.read().of(self.epoch).is_some_and(is_beyond) {
            // Whatever the remote says of its size: file and map would become as long as it likes.
            return Ok(());
        }
        let hidden = (page == PageNo::FIRST).then(|| hidden(&data));
        let stored = hidden.as_deref().unwrap_or(&data);
        let mut is_new = false;
        let filled = replica.writing(|| {
            let _fill = replica.fill.lock();
            Ok(if self.epoch != replica.epoch() || replica.map.is_retired(page) {
                // A reader from before a pull may need the copy that is in the file.
                false
            } else if replica.map.is_present(page) {
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
                        tracing::warn!(%page, %error, "a fetched page could not be stored; the query continues without");
                        false
                    }
                }
            })
        })?;
        let came_along = is_new && !self.asked.contains(page.id().0);
        if filled && replica.prefetch.load(Ordering::Relaxed) {
            if Planner::is_interesting(page, &data) {
                replica.planner.lock().observe_page(page, &data);
            }
            if came_along && replica.extra.lock().insert(page.id().0) {
                replica.fetched_extra.fetch_add(1, Ordering::Relaxed);
            }
        }
        if came_along {
            // Somebody else's fetch may be waiting for it.
            let waiting = replica.flights.lock().get(&(self.epoch, page)).cloned();
            if let Some(waiting) = waiting {
                drop(waiting.state.lock());
                waiting.arrived.notify_all();
            }
        }
        if !filled {
            let bytes: Arc<[u8]> = (&*data).into();
            // Who waits with this flight waits for a page that it was to bring.
            if self.asked.contains(page.id().0) {
                self.flight.state.lock().private.insert(page, bytes.clone());
            }
            replica.keep_private(self.epoch, page, bytes);
        } else {
            // Anyone who looked at the map before the page was set present waits by now.
            drop(self.flight.state.lock());
        }
        self.flight.arrived.notify_all();
        Ok(())
    }

    fn have(&self) -> RoaringBitmap {
        let Some(replica) = self.replica.upgrade() else {
            return RoaringBitmap::new();
        };
        if let Some(few) = replica.map.present_if_few(HAVE_RUNS) {
            return few;
        }
        let mut around = RoaringBitmap::new();
        for id in self.asked.min().into_iter().chain([0]) {
            let first = id - id % HAVE_AROUND;
            around.insert_range(first..=first + (HAVE_AROUND - 1));
        }
        replica.map.present_among(&around)
    }

    fn present_among(&self, ids: &RoaringBitmap) -> RoaringBitmap {
        self.replica
            .upgrade()
            .map_or_else(RoaringBitmap::new, |replica| replica.map.present_among(ids))
    }

    fn has(&self, page: PageNo) -> bool {
        self.replica.upgrade().is_some_and(|replica| {
            self.epoch == replica.epoch() && replica.map.look(page, self.epoch).is_some()
        })
    }

    fn fills(&self) -> bool {
        self.replica
            .upgrade()
            .is_some_and(|replica| self.epoch == replica.epoch())
    }

    fn finish(mut self: Box<Self>, result: Result<(), SourceError>) {
        self.land(result);
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if !self.finished {
            self.land(Err(Arc::new(ReadError::Abandoned)));
        }
    }
}

impl Replica {
    /// Keeps a page that could not go to the main file for the readers of an epoch, as long as it has any.
    pub(super) fn keep_private(&self, epoch: Epoch, page: PageNo, bytes: Arc<[u8]>) {
        let index = self.wal_index.lock();
        if epoch == self.epoch() || index.has_readers(epoch) {
            let mut private = self.private_pages.lock();
            if private.len() * bytes.len() < PRIVATE_BYTES {
                private.insert((epoch, page), bytes);
            }
        }
    }
}
