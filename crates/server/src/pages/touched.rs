//! The pages that a query touches, told while it runs: by the thread that runs it, to the answer that sends them.
//!
//! A client may say how many it takes. They are the first that the query touches; then it ends, and so does the answer. Were it for
//! the client to leave an answer that it has enough of, what is on its way by then would be sent for nothing.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use partial_sync_core::PageNo;
use roaring::RoaringBitmap;
use tokio::sync::Notify;

/// See the module. For a [`QueryRunner`](super::QueryRunner), which notes them.
#[derive(Debug)]
pub struct Touched {
    pages: Mutex<Pages>,
    /// Ids of pages that need not be told.
    but: RoaringBitmap,
    news: Notify,
    is_stopped: AtomicBool,
    stop: Notify,
}

#[derive(Debug)]
struct Pages {
    all: RoaringBitmap,
    /// Those that were not taken.
    new: RoaringBitmap,
    /// How many more are to be told.
    wanted: u64,
    is_over: bool,
}

impl Default for Touched {
    fn default() -> Self {
        Self::but(RoaringBitmap::new(), None)
    }
}

impl Touched {
    /// All but these ids are to be told, and no more than so many; `None` = however many there are.
    pub(super) fn but(ids: RoaringBitmap, most: Option<NonZeroU64>) -> Self {
        Self {
            pages: Mutex::new(Pages {
                all: RoaringBitmap::new(),
                new: RoaringBitmap::new(),
                wanted: most.map_or(u64::MAX, NonZeroU64::get),
                is_over: false,
            }),
            but: ids,
            news: Notify::new(),
            is_stopped: AtomicBool::new(false),
            stop: Notify::new(),
        }
    }

    /// The query touches a page. Returns how many it has touched.
    pub fn note(&self, page: PageNo) -> u64 {
        let id = page.id().0;
        let mut pages = self.pages.lock();
        if pages.all.insert(id) && !self.but.contains(id) && pages.wanted > 0 {
            pages.new.insert(id);
            pages.wanted -= 1;
            self.news.notify_one();
            if pages.wanted == 0 {
                self.stop();
            }
        }
        pages.all.len()
    }

    /// Whether nobody wants to know any more: the query may end.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }

    fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
        self.stop.notify_one();
    }

    /// Waits until nobody wants to know any more; for one.
    pub(super) async fn stopped(&self) {
        while !self.is_stopped() {
            self.stop.notified().await;
        }
    }

    /// The ids of all of them.
    pub(super) fn all(&self) -> RoaringBitmap {
        self.pages.lock().all.clone()
    }
}

/// What runs the query; the end of it is the end of the query.
pub(super) struct Running(pub(super) Arc<Touched>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.pages.lock().is_over = true;
        self.0.news.notify_one();
    }
}

/// What sends the pages; when it goes, the query need not run any more.
pub(super) struct Coming(pub(super) Arc<Touched>);

impl Coming {
    /// Waits for the ids of the next pages; `None` = the query has ended, or there are to be no more.
    pub(super) async fn next(&mut self) -> Option<RoaringBitmap> {
        loop {
            let (new, is_over) = {
                let mut pages = self.0.pages.lock();
                let new = std::mem::take(&mut pages.new);
                (new, pages.is_over || pages.wanted == 0)
            };
            if !new.is_empty() {
                return Some(new);
            }
            if is_over {
                return None;
            }
            self.0.news.notified().await;
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.stop();
    }
}
