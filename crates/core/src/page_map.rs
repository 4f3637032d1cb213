//! The runtime page map: which pages are here, since which epoch, and which were written locally.
//!
//! Many threads share one map. Asking and changing take no lock; a lookup is three dependent loads. Presence is only
//! ever what [`PageMap::set_present`] said: never infer it from the file system. The form on disk is
//! [`crate::saved_map::SavedPageMap`].
//!
//! # State of a page
//!
//! One `u32`: 0 = absent; `e + 1` = present, with content that is right for readers of epoch `e` and later. A reader of
//! an older epoch must fetch its own copy and keep it to itself. With the highest bit set the page is *retired*: absent for
//! new readers, but its bytes are still those that readers from before a pull may need, perhaps the only copy there is. The
//! dirty bit is independent of all that: a page can be dirty and absent (written, then cut off by a shrinking database),
//! and only a pull takes it away.
//!
//! # Reading: ask, read, ask again
//!
//! ```text
//! reader                                     filler (one per page at a time; owner of the page's fetch)
//! 1  s = map.state(p)          Acquire       1  write the page's bytes to the file
//! 2  s.visible_to(epoch)? else fetch         2  map.set_present(p, epoch)            Release
//! 3  read the page's bytes
//! 4  map.is_still(p, s)?  else go to 1
//! ```
//!
//! Step 1 of the reader synchronizes with step 2 of the filler, so a reader that sees the page present reads bytes that
//! were written before. Who replaces the content of a present page while readers of the main file may be inside step 3
//! calls [`PageMap::clear_present`] *first*, then writes, then `set_present` with a **later epoch than before**: then a
//! reader that got any of the new bytes sees another state in step 4 and starts over. Without the later epoch, a state
//! that went away and came back would look untouched.
//!
//! # Memory
//!
//! Three levels of 1024 x 1024 x 4096 entries; a level is allocated when the first page in it is touched: 48 KiB for a
//! database of one page, then 16.5 KiB for every 4096 pages; page `u32::MAX` costs no more than page 1. Asking about a
//! page that was never touched allocates nothing.

// Not in `sync`: nothing that makes a level takes turns with other threads.
use std::sync::OnceLock;

use roaring::RoaringBitmap;

use crate::{
    sync::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence},
    types::{Epoch, PageCount, PageId, PageNo},
};

// Under the scheduler an atomic takes some hundred bytes, and every word that a walk looks at is a choice.
const LEAF_BITS: u32 = if cfg!(feature = "shuttle") { 6 } else { 12 };
const NODE_BITS: u32 = if cfg!(feature = "shuttle") { 13 } else { 10 };
const LEAF_PAGES: usize = 1 << LEAF_BITS;
const NODE_LEAVES: usize = 1 << NODE_BITS;
const ROOT_NODES: usize = 1 << (32 - LEAF_BITS - NODE_BITS);
const LEAF_WORDS: usize = LEAF_PAGES / 64;

/// What the map says of a page at one moment. Two equal states with a read between them mean that the page did not
/// change during the read; see the module's protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageState(u32);

/// Set in the state of a page that is retired; the rest of it still tells since when it was here.
const RETIRED: u32 = 1 << 31;

impl PageState {
    /// The state of a page that is not here.
    pub const ABSENT: PageState = PageState(0);

    /// The state of a page that is here for readers of `since` and later. Epochs from 2^31 - 2 on share a state: no
    /// replica gets there.
    pub const fn present(since: Epoch) -> Self {
        let since = since.0.saturating_add(1);
        Self(if since < RETIRED { since } else { RETIRED - 1 })
    }

    /// Whether the page is not here.
    pub const fn is_absent(self) -> bool {
        self.0 == 0
    }

    /// Whether the page is here no more for new readers, while its bytes stay in the file for older ones: see
    /// [`PageMap::retire`].
    pub const fn is_retired(self) -> bool {
        self.0 & RETIRED != 0
    }

    /// Whether the page is here, for readers of some epoch and of every later one.
    pub const fn is_present(self) -> bool {
        self.0 != 0 && !self.is_retired()
    }

    /// Whether a reader of this epoch may take the page from the file. Not for retired pages, of which the map does not
    /// know until when they were here.
    pub const fn visible_to(self, reader: Epoch) -> bool {
        self.is_present() && self.0 - 1 <= reader.0
    }

    /// The first epoch whose readers may take the page; `None` when it is absent.
    pub const fn since(self) -> Option<Epoch> {
        match (self.0 & !RETIRED).checked_sub(1) {
            Some(epoch) => Some(Epoch(epoch)),
            None => None,
        }
    }
}

struct Leaf {
    states: [AtomicU32; LEAF_PAGES],
    dirty: [AtomicU64; LEAF_WORDS],
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self {
            states: [const { AtomicU32::new(0) }; LEAF_PAGES],
            dirty: [const { AtomicU64::new(0) }; LEAF_WORDS],
        })
    }
}

type Node = [OnceLock<Box<Leaf>>; NODE_LEAVES];

/// Where a page id lives in the three levels.
struct Location {
    node: usize,
    leaf: usize,
    slot: usize,
}

impl Location {
    fn of(id: PageId) -> Self {
        Self {
            node: (id.0 >> (LEAF_BITS + NODE_BITS)) as usize,
            leaf: (id.0 >> LEAF_BITS) as usize % NODE_LEAVES,
            slot: id.0 as usize % LEAF_PAGES,
        }
    }

    fn dirty_bit(&self) -> (usize, u64) {
        (self.slot / 64, 1 << (self.slot % 64))
    }
}

/// The shared page map. See the module for the protocol between readers and fillers.
pub struct PageMap {
    root: Box<[OnceLock<Box<Node>>; ROOT_NODES]>,
    // Signed: of two threads that set and clear one page, the one that clears may count first.
    present: AtomicI64,
    dirty: AtomicI64,
    version: AtomicU64,
    saved: AtomicU64,
}

/// Names one moment of a map, so that a saver can say what it saved: see [`PageMap::version`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapVersion(u64);

/// One page's place in a [`PageMap`].
#[derive(Clone, Copy, Debug)]
pub struct PageCell<'m>(&'m AtomicU32);

impl PageCell<'_> {
    /// As [`PageMap::state`].
    pub fn state(self) -> PageState {
        PageState(self.0.load(Ordering::Acquire))
    }

    /// As [`PageMap::is_still`].
    pub fn is_still(self, state: PageState) -> bool {
        fence(Ordering::Acquire);
        self.state() == state
    }
}

impl PageMap {
    /// A map with every page absent and clean.
    pub fn new() -> Self {
        Self {
            root: Box::new([const { OnceLock::new() }; ROOT_NODES]),
            present: AtomicI64::new(0),
            dirty: AtomicI64::new(0),
            version: AtomicU64::new(0),
            saved: AtomicU64::new(0),
        }
    }

    /// A map with these pages present since `epoch` and those dirty, and nothing to save. It takes 16.5 KiB for every
    /// 4096 pages that the sets touch: check sets that come from outside against the size of the database file first.
    pub fn from_sets(present: &RoaringBitmap, dirty: &RoaringBitmap, epoch: Epoch) -> Self {
        let map = Self::new();
        for page in present.iter().filter_map(|id| PageId(id).no()) {
            map.set_present(page, epoch);
        }
        for page in dirty.iter().filter_map(|id| PageId(id).no()) {
            map.set_dirty(page);
        }
        map.mark_saved(map.version());
        map
    }

    /// The state of a page now. Acquire: what was written before the page was set present can be read after this.
    pub fn state(&self, page: PageNo) -> PageState {
        let location = Location::of(page.id());
        PageState(
            self.leaf(&location)
                .map_or(0, |leaf| leaf.states[location.slot].load(Ordering::Acquire)),
        )
    }

    /// The page's place in the map, for a reader that looks at it before and after reading; `None`: absent, as every page
    /// around it.
    pub fn cell(&self, page: PageNo) -> Option<PageCell<'_>> {
        let location = Location::of(page.id());
        let leaf = self.leaf(&location)?;
        Some(PageCell(&leaf.states[location.slot]))
    }

    /// Step 4 of the protocol: whether the page is still in the state that [`PageMap::state`] returned before its bytes
    /// were read. The bytes must not be used when this says no.
    pub fn is_still(&self, page: PageNo, state: PageState) -> bool {
        // Orders the caller's read of the bytes before the load; an acquire load alone would not.
        fence(Ordering::Acquire);
        self.state(page) == state
    }

    /// Says that the page's bytes are in the file and right for readers of `since` and later. Release: call it after
    /// the bytes were written.
    pub fn set_present(&self, page: PageNo, since: Epoch) {
        let location = Location::of(page.id());
        let state = PageState::present(since).0;
        let before = self.leaf_or_new(&location).states[location.slot].swap(state, Ordering::AcqRel);
        if !PageState(before).is_present() {
            self.present.fetch_add(1, Ordering::Relaxed);
            self.touch();
        }
    }

    /// Sets a page present that is not (absent or retired), and says whether it did: of two fillers one wins, and a page
    /// that is here keeps its state.
    pub fn set_present_if_absent(&self, page: PageNo, since: Epoch) -> bool {
        let location = Location::of(page.id());
        let state = PageState::present(since).0;
        let slot = &self.leaf_or_new(&location).states[location.slot];
        let won = slot
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |before| {
                (!PageState(before).is_present()).then_some(state)
            })
            .is_ok();
        if won {
            self.present.fetch_add(1, Ordering::Relaxed);
            self.touch();
        }
        won
    }

    /// Forgets that the page is here. Call it before the bytes of a present page are replaced.
    pub fn clear_present(&self, page: PageNo) {
        let location = Location::of(page.id());
        if let Some(leaf) = self.leaf(&location) {
            self.clear_slot(&leaf.states[location.slot]);
            // Orders the cleared state before the bytes that the caller writes next.
            fence(Ordering::SeqCst);
        }
    }

    /// Says that a page is here for readers that began before now, and absent for those that begin later. Its bytes stay
    /// as they are: nobody may fill the page before [`PageMap::forget_retired`], except a checkpoint, which SQLite only lets
    /// write a page whose older copy no reader needs.
    pub fn retire(&self, page: PageNo) {
        let location = Location::of(page.id());
        let Some(leaf) = self.leaf(&location) else { return };
        let slot = &leaf.states[location.slot];
        let retired = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            PageState(state).is_present().then_some(state | RETIRED)
        });
        if retired.is_ok() {
            self.present.fetch_sub(1, Ordering::Relaxed);
            self.touch();
        }
    }

    /// Makes a page that is still retired absent: no reader is left that may take it.
    pub fn forget_retired(&self, page: PageNo) {
        let location = Location::of(page.id());
        if let Some(leaf) = self.leaf(&location) {
            let slot = &leaf.states[location.slot];
            // A page that a checkpoint has written meanwhile is present, and stays so.
            let _ = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                PageState(state).is_retired().then_some(0)
            });
        }
    }

    /// Whether the page was written by a local transaction since the base revision.
    pub fn is_dirty(&self, page: PageNo) -> bool {
        let location = Location::of(page.id());
        let (word, bit) = location.dirty_bit();
        self.leaf(&location)
            .is_some_and(|leaf| leaf.dirty[word].load(Ordering::Acquire) & bit != 0)
    }

    /// Marks the page as written locally.
    pub fn set_dirty(&self, page: PageNo) {
        let location = Location::of(page.id());
        let (word, bit) = location.dirty_bit();
        let word = &self.leaf_or_new(&location).dirty[word];
        // Most writes hit pages that are dirty already: look before taking the cache line for writing.
        if word.load(Ordering::Acquire) & bit == 0 && word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            self.dirty.fetch_add(1, Ordering::Relaxed);
            self.touch();
        }
    }

    /// Takes the page's dirty mark away.
    pub fn clear_dirty(&self, page: PageNo) {
        let location = Location::of(page.id());
        let (word, bit) = location.dirty_bit();
        if let Some(leaf) = self.leaf(&location)
            && leaf.dirty[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
        {
            self.dirty.fetch_sub(1, Ordering::Relaxed);
            self.touch();
        }
    }

    /// Takes every dirty mark away. A mark set by another thread meanwhile may stay or go: keep writers out.
    pub fn clear_all_dirty(&self) {
        for (_, leaf) in self.leaves() {
            for word in &leaf.dirty {
                let cleared = word.swap(0, Ordering::AcqRel).count_ones();
                if cleared > 0 {
                    self.dirty.fetch_sub(i64::from(cleared), Ordering::Relaxed);
                    self.touch();
                }
            }
        }
    }

    /// Forgets the presence of every page beyond the end, and marks those pages dirty: that a page was cut off locally is a
    /// local change, and an older copy of it may be in the WAL. Other marks stay, for they may be a superset but never a subset.
    pub fn truncate(&self, size: PageCount) {
        for (first, leaf) in self.leaves() {
            let keep = size.0.saturating_sub(first) as usize;
            for (nth, slot) in leaf.states.iter().enumerate().skip(keep) {
                if PageState(slot.load(Ordering::Acquire)).is_present()
                    && let Some(page) = PageId(first + nth as u32).no()
                {
                    self.set_dirty(page);
                }
                self.clear_slot(slot);
            }
        }
        fence(Ordering::SeqCst);
    }

    /// The 0-based ids of the pages that are here, in any epoch. Pages that other threads change meanwhile may be in it
    /// or not; a page set present before the call is in it.
    pub fn present(&self) -> RoaringBitmap {
        self.collect(|leaf, slot| PageState(leaf.states[slot].load(Ordering::Acquire)).is_present())
    }

    /// The 0-based ids of the dirty pages, with the same promise.
    pub fn dirty(&self) -> RoaringBitmap {
        self.collect(|leaf, slot| leaf.dirty[slot / 64].load(Ordering::Acquire) & (1 << (slot % 64)) != 0)
    }

    /// How many pages are here; a counter, not a walk.
    pub fn present_count(&self) -> PageCount {
        count(&self.present)
    }

    /// How many pages are dirty; a counter, not a walk.
    pub fn dirty_count(&self) -> PageCount {
        count(&self.dirty)
    }

    /// The present moment of the two sets. A saver takes it, *then* takes the sets, writes them, and hands it to
    /// [`PageMap::mark_saved`]: what changed in between is saved next time.
    pub fn version(&self) -> MapVersion {
        MapVersion(self.version.load(Ordering::Acquire))
    }

    /// Remembers that the sets as of this moment are on disk.
    pub fn mark_saved(&self, version: MapVersion) {
        self.saved.fetch_max(version.0, Ordering::AcqRel);
    }

    /// Whether a set changed since what [`PageMap::mark_saved`] was last told.
    pub fn changed_since_saved(&self) -> bool {
        self.version.load(Ordering::Acquire) != self.saved.load(Ordering::Acquire)
    }

    fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn clear_slot(&self, slot: &AtomicU32) {
        if slot.load(Ordering::Acquire) != 0 && PageState(slot.swap(0, Ordering::AcqRel)).is_present() {
            self.present.fetch_sub(1, Ordering::Relaxed);
            self.touch();
        }
    }

    fn leaf(&self, location: &Location) -> Option<&Leaf> {
        self.root[location.node].get()?[location.leaf]
            .get()
            .map(Box::as_ref)
    }

    fn leaf_or_new(&self, location: &Location) -> &Leaf {
        let node =
            self.root[location.node].get_or_init(|| Box::new([const { OnceLock::new() }; NODE_LEAVES]));
        node[location.leaf].get_or_init(Leaf::new)
    }

    /// Every leaf that exists, in page order, with the id of its first page.
    fn leaves(&self) -> impl Iterator<Item = (u32, &Leaf)> {
        let nodes = (0_u32..).zip(self.root.iter());
        nodes
            .filter_map(|(n, node)| Some((n, node.get()?)))
            .flat_map(|(n, node)| {
                let leaves = (0_u32..).zip(node.iter());
                leaves.filter_map(move |(l, leaf)| {
                    Some((
                        (n << (LEAF_BITS + NODE_BITS)) | (l << LEAF_BITS),
                        leaf.get()?.as_ref(),
                    ))
                })
            })
    }

    /// Collects the pages for which `holds` says yes, run by run: a hydrated database is one run, not a million ids.
    fn collect(&self, holds: impl Fn(&Leaf, usize) -> bool) -> RoaringBitmap {
        let mut set = RoaringBitmap::new();
        for (first, leaf) in self.leaves() {
            let mut run = None;
            for slot in 0..=LEAF_PAGES {
                let held = slot < LEAF_PAGES && holds(leaf, slot);
                match run {
                    None if held => run = Some(slot),
                    Some(start) if !held => {
                        set.insert_range(first + start as u32..=first + (slot - 1) as u32);
                        run = None;
                    }
                    _ => {}
                }
            }
        }
        set
    }
}

fn count(counter: &AtomicI64) -> PageCount {
    PageCount(u32::try_from(counter.load(Ordering::Relaxed).max(0)).unwrap_or(u32::MAX))
}

impl Default for PageMap {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for PageMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "page map with {} pages present, {} dirty",
            self.present_count(),
            self.dirty_count()
        )
    }
}
