//! The pages that a query touches, told while it runs: by the thread that runs it, to the answer that sends them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;
use partial_sync_core::PageNo;
use roaring::RoaringBitmap;
use tokio::sync::Notify;

/// See the module. For a [`QueryRunner`](super::QueryRunner), which notes them.
#[derive(Debug, Default)]
pub struct Touched {
    pages: Mutex<Pages>,
    news: Notify,
    is_stopped: AtomicBool,
    stop: Notify,
}

#[derive(Debug, Default)]
struct Pages {
    all: RoaringBitmap,
    /// Those that were not taken.
    new: RoaringBitmap,
    is_over: bool,
}

impl Touched {
    /// The query touches a page. Returns how many it has touched.
    pub fn note(&self, page: PageNo) -> u64 {
        let mut pages = self.pages.lock();
        if pages.all.insert(page.id().0) {
            pages.new.insert(page.id().0);
            self.news.notify_one();
        }
        pages.all.len()
    }

    /// Whether nobody wants to know any more: the query may end.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
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
pub(super) struct Coming {
    touched: Arc<Touched>,
    /// Ids of pages that need not be sent.
    but: RoaringBitmap,
}

impl Coming {
    pub(super) fn new(touched: Arc<Touched>, but: RoaringBitmap) -> Self {
        Self { touched, but }
    }

    /// Waits for the ids of the next pages; `None` = the query has ended.
    pub(super) async fn next(&mut self) -> Option<RoaringBitmap> {
        loop {
            let (new, is_over) = {
                let mut pages = self.touched.pages.lock();
                (std::mem::take(&mut pages.new) - &self.but, pages.is_over)
            };
            if !new.is_empty() {
                return Some(new);
            }
            if is_over {
                return None;
            }
            self.touched.news.notified().await;
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.touched.is_stopped.store(true, Relaxed);
        self.touched.stop.notify_one();
    }
}
