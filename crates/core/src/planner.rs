//! The fetch planner: names every page that should come in the same request as a page that a reader waits for.
//!
//! It never guesses where it can know. In this order:
//!
//! 1. the wanted page;
//! 2. the absent pages of its segment, unless a sequential run is on, for then it is known what comes next;
//! 3. with prefetch, the absent interior pages beside the wanted page and beside its parent: they are few, every later
//!    lookup needs one, and readahead can look no further than the interior pages that are here;
//! 4. with prefetch and a sequential run, the next leaves by their exact numbers in the order of their parents, and where
//!    these lead to an interior page that was not seen, that one and those after it on its level; the
//!    window doubling from `max(segment, 8 pages)` each time a reader had to wait.
//!
//! A run is on when two leaves were read that lie beside each other in their tree, in either direction, also across the
//! border of two parents. One leaf is not evidence, so a point lookup brings its segment and interior pages, never a
//! window. Several scans are told apart by where they are, lookups in one tree do not disturb a scan of another.
//!
//! A planner holds no page and does no I/O; its owner keeps it behind a mutex and drops the mutex before it fetches.
//! What it must never do: name a page that is here, in flight, beyond the end, the lock-byte page, or one twice.

use std::collections::HashSet;

use crate::{
    header::DatabaseHeader,
    known_trees::{Direction, KnownTrees, Neighbour},
    segment::{SegmentSize, segment_of},
    streams::{Stream, Streams},
    types::{PageCount, PageNo, PageSize},
};

/// The most interior pages that one plan adds around one place.
const MAX_INTERIOR: u32 = 4096;

/// A window starts with at least this many pages.
const MIN_WINDOW: u32 = 8;

/// How a planner plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// The page size of the database.
    pub page_size: PageSize,
    /// Bytes of a page that SQLite uses; `None`: all of them until page 1 is observed, then what its header says.
    pub usable_size: Option<u32>,
    /// What comes along with a wanted page.
    pub segment: SegmentSize,
    /// Whether to use what interior pages say. Without it a plan is the segment.
    pub prefetch: bool,
    /// The most bytes that one plan adds to the wanted page and its segment.
    pub max_window: u32,
}

impl PlannerConfig {
    /// 16 MiB.
    pub const DEFAULT_MAX_WINDOW: u32 = 16 * 1024 * 1024;

    /// Segments only, and a window of 16 MiB in case `prefetch` is turned on.
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

/// Decides what to fetch; see the module.
#[derive(Debug)]
pub struct Planner {
    config: PlannerConfig,
    usable_size: u32,
    trees: KnownTrees,
    streams: Streams,
}

impl Planner {
    /// A planner that knows nothing yet.
    pub fn new(config: PlannerConfig) -> Self {
        let usable_size = config.usable_size.unwrap_or(config.page_size.bytes());
        Self {
            config,
            usable_size,
            trees: KnownTrees::default(),
            streams: Streams::default(),
        }
    }

    /// How it plans.
    pub const fn config(&self) -> &PlannerConfig {
        &self.config
    }

    /// Whether [`Planner::observe_page`] can learn anything from this page: page 1, or a type byte of an interior page.
    /// A caller that asks first leaves the planner's mutex alone for nearly all pages.
    pub fn is_interesting(page: PageNo, bytes: &[u8]) -> bool {
        page == PageNo::FIRST || matches!(bytes.first(), Some(0x02 | 0x05))
    }

    /// Takes in a page that arrived, was read, or was written. Pages may come in any order and again; one whose content
    /// changed is learned again.
    pub fn observe_page(&mut self, page: PageNo, bytes: &[u8]) {
        if !self.config.prefetch {
            return;
        }
        if page == PageNo::FIRST
            && self.config.usable_size.is_none()
            && let Ok(header) = DatabaseHeader::parse(bytes)
            && header.page_size == self.config.page_size
        {
            self.usable_size = header.usable_size();
        }
        self.trees.see(page, bytes, self.usable_size);
    }

    /// SQLite read this page of the main file; call it for every such read, also of pages that are here, or runs go
    /// unseen. Reading a page again changes nothing.
    pub fn observe_read(&mut self, page: PageNo) {
        self.follow(page);
    }

    /// The pages to fetch in one request because a reader waits for `wanted`, which comes first; that it is absent and
    /// in no running fetch is what the caller found out. Empty when no remote can have it: it lies beyond the end or is
    /// the lock-byte page. Counts as a read of `wanted`.
    ///
    /// At most the segment and `max_window` bytes.
    pub fn plan(&mut self, wanted: PageNo, view: &impl FetchView) -> Vec<PageNo> {
        let db_size = view.db_size();
        if !db_size.contains(wanted) || wanted.is_lock_byte_page(self.config.page_size) {
            return Vec::new();
        }
        let mut plan = FetchPlan::new(wanted, self.config.page_size, db_size, view);
        let run = self
            .follow(wanted)
            .and_then(|stream| Some((stream, stream.run()?)));
        if run.is_none()
            && let Some(segment) = segment_of(wanted, self.config.page_size, self.config.segment, db_size)
        {
            plan.room = segment.page_count();
            segment.iter().for_each(|page| plan.add(page));
        }
        if self.config.prefetch {
            let room = self.max_pages();
            let way = run.map(|(_, way)| way);
            // Interior pages take at most a quarter, so that a window is never starved; a sixteenth for a lone lookup.
            plan.room = (room / if way.is_some() { 4 } else { 16 }).min(MAX_INTERIOR);
            let before = plan.pages.len();
            self.add_interior(&mut plan, wanted, way);
            let interior = (plan.pages.len() - before) as u32;
            if let Some((stream, way)) = run {
                plan.room = room - interior;
                self.add_window(&mut plan, stream, way);
                self.widen(wanted);
            }
        }
        plan.pages
    }

    /// Forgets everything that was observed: the database is another one now (the base revision moved).
    pub fn reset(&mut self) {
        self.trees.clear();
        self.streams.clear();
    }

    /// The absent pages beside `wanted`, if they are interior, and those beside its parent, which are; nearest first,
    /// those that lie ahead before those behind.
    fn add_interior<V: FetchView>(
        &self,
        plan: &mut FetchPlan<'_, V>,
        wanted: PageNo,
        way: Option<Direction>,
    ) {
        let Some(here) = self.trees.position(wanted) else {
            return;
        };
        let sibling = self.trees.is_above_interior(here.parent).then_some(here);
        for center in sibling.into_iter().chain(self.trees.position(here.parent)) {
            let siblings = self.trees.children(center.parent);
            let (before, after) = siblings.split_at((center.index as usize).min(siblings.len()));
            let after = after.iter().skip(1);
            let before = before.iter().rev();
            match way {
                Some(Direction::Ascending) => after.chain(before).for_each(|page| plan.add(*page)),
                Some(Direction::Descending) => before.chain(after).for_each(|page| plan.add(*page)),
                None => {
                    let (mut after, mut before) = (after, before);
                    loop {
                        let pair = (after.next(), before.next());
                        if pair == (None, None) {
                            break;
                        }
                        pair.0.into_iter().chain(pair.1).for_each(|page| plan.add(*page));
                    }
                }
            }
        }
    }

    /// The next pages of a run. The window counts pages to fetch, the wanted one among them.
    fn add_window<V: FetchView>(&self, plan: &mut FetchPlan<'_, V>, stream: Stream, way: Direction) {
        let Stream { mut at, window, .. } = stream;
        let rest = plan.room.saturating_sub(window - 1);
        plan.room = plan.room.min(window - 1);
        // Where much is here already, look only so far ahead for what is not.
        for _ in 0..u64::from(window) * 4 {
            if plan.room == 0 {
                break;
            }
            match self.trees.neighbour(at, way) {
                Neighbour::To(next, page) => {
                    plan.add(page);
                    at = next;
                }
                Neighbour::Unseen(parent) => {
                    plan.room = (plan.room + rest).min(MAX_INTERIOR);
                    self.add_level(plan, parent, way);
                    break;
                }
                Neighbour::End => break,
            }
        }
    }

    /// An interior page that a run comes to next, and those that follow it on its level: without them the run would
    /// stop again at each.
    fn add_level<V: FetchView>(&self, plan: &mut FetchPlan<'_, V>, first: PageNo, way: Direction) {
        plan.add(first);
        let mut next = self.trees.position(first);
        for _ in 0..MAX_INTERIOR {
            let Some(at) = next.filter(|_| plan.room > 0) else {
                return;
            };
            next = match self.trees.neighbour(at, way) {
                Neighbour::To(sibling, page) => {
                    plan.add(page);
                    Some(sibling)
                }
                Neighbour::Unseen(parent) => {
                    plan.add(parent);
                    None
                }
                Neighbour::End => None,
            };
        }
    }

    /// Counts a read; the reader's stream, when prefetch is on and it is known where the page hangs.
    fn follow(&mut self, page: PageNo) -> Option<Stream> {
        if !self.config.prefetch {
            return None;
        }
        self.trees.confirm(page);
        let start = self.start_window();
        self.streams.follow(&self.trees, page, start).copied()
    }

    /// Doubles the window of the stream that is at `page`: its reader had to wait.
    fn widen(&mut self, page: PageNo) {
        let (start, most) = (self.start_window(), self.max_pages().max(1));
        if let Some(stream) = self.streams.follow(&self.trees, page, start) {
            stream.window = stream.window.saturating_mul(2).min(most);
        }
    }

    fn start_window(&self) -> u32 {
        let segment = self.config.segment.pages(self.config.page_size);
        segment.max(MIN_WINDOW).min(self.max_pages()).max(1)
    }

    /// The most pages that a plan adds to the wanted page and its segment.
    const fn max_pages(&self) -> u32 {
        self.config.max_window / self.config.page_size.bytes()
    }
}

/// A list of pages that lets nothing forbidden in.
struct FetchPlan<'a, V> {
    pages: Vec<PageNo>,
    chosen: HashSet<PageNo>,
    /// How many more may come in.
    room: u32,
    page_size: PageSize,
    db_size: PageCount,
    view: &'a V,
}

impl<'a, V: FetchView> FetchPlan<'a, V> {
    fn new(wanted: PageNo, page_size: PageSize, db_size: PageCount, view: &'a V) -> Self {
        Self {
            pages: vec![wanted],
            chosen: HashSet::from([wanted]),
            room: 0,
            page_size,
            db_size,
            view,
        }
    }

    fn add(&mut self, page: PageNo) {
        if self.room > 0
            && self.db_size.contains(page)
            && !page.is_lock_byte_page(self.page_size)
            && !self.chosen.contains(&page)
            && self.view.wants(page)
        {
            self.room -= 1;
            self.chosen.insert(page);
            self.pages.push(page);
        }
    }
}
