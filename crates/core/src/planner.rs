//! The fetch planner.

use crate::{
    segment::{SegmentSize, segment_of},
    types::{PageCount, PageNo, PageSize},
};

/// How a planner plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// The page size of the database.
    pub page_size: PageSize,
    /// Bytes of a page that SQLite uses; `None` until page 1 was seen: then it is read there.
    pub usable_size: Option<u32>,
    /// What comes along with a wanted page.
    pub segment: SegmentSize,
    /// Whether to use what interior pages say.
    pub prefetch: bool,
    /// The most bytes of one plan.
    pub max_window: u32,
}

impl PlannerConfig {
    /// 16 MiB.
    pub const DEFAULT_MAX_WINDOW: u32 = 16 * 1024 * 1024;

    /// Segments only.
    pub const fn new(page_size: PageSize, segment: SegmentSize) -> Self {
        Self {
            page_size,
            usable_size: None,
            segment,
            prefetch: false,
            max_window: Self::DEFAULT_MAX_WINDOW,
        }
    }
}

/// What a planner asks about the replica while it plans.
pub trait FetchView {
    /// The size of the database at the revision at which pages are fetched.
    fn db_size(&self) -> PageCount;

    /// Whether the page would have to be fetched: absent, not written locally, and in no running fetch.
    fn wants(&self, page: PageNo) -> bool;
}

/// Decides what to fetch.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
}

impl Planner {
    /// A planner that knows nothing yet.
    pub fn new(config: PlannerConfig) -> Self {
        Self { config }
    }

    /// Whether [`Planner::observe_page`] would learn anything from this page: a test of one byte, so that a caller can
    /// leave the planner's mutex alone for all other pages.
    pub fn is_interesting(page: PageNo, data: &[u8]) -> bool {
        let at = if page == PageNo::FIRST { 100 } else { 0 };
        matches!(data.get(at), Some(0x02 | 0x05))
    }

    /// A page arrived or was read.
    pub fn observe_page(&mut self, _page: PageNo, _data: &[u8]) {}

    /// SQLite read this page of the main file.
    pub fn observe_read(&mut self, _page: PageNo) {}

    /// The pages to fetch in one request because a reader waits for `wanted`, which comes first.
    pub fn plan(&mut self, wanted: PageNo, view: &impl FetchView) -> Vec<PageNo> {
        let mut pages = vec![wanted];
        if let Some(segment) = segment_of(wanted, self.config.page_size, self.config.segment, view.db_size())
        {
            pages.extend(
                segment.iter().filter(|p| {
                    *p != wanted && !p.is_lock_byte_page(self.config.page_size) && view.wants(*p)
                }),
            );
        }
        pages
    }

    /// Forgets everything.
    pub fn reset(&mut self) {}
}
