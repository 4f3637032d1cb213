//! The runtime page map: which pages are here, for readers of which epoch, and which were written locally.
//!
//! Many threads share one map. Looking for a page that is here takes no lock: it is a few dependent loads. Changes take
//! turns, and so do the rare questions that a bit cannot answer. Presence is only ever what [`PageMap::set_present`] said:
//! never infer it from the file system. The form on disk is [`crate::saved_map`].
//!
//! # What is known of a page
//!
//! - *Present*, one bit: its bytes are in the file. Nearly every page that is here is right for every reader there is. Only
//!   after a pull that found older readers at work is a page that is filled noted as *young*: those older readers must fetch
//!   their own copy and keep it to themselves. What is young is forgotten with the last of them.
//! - *Retired*: absent for new readers, but its bytes are still those that readers from before a pull may need, perhaps the
//!   only copy there is. Forgotten with the last of them, too.
//! - *Dirty*, which is independent of all that: a page can be dirty and absent (written, then cut off by a shrinking
//!   database), and only a pull takes it away. That a page was cut off here is a change too, whether it was written or not:
//!   an older copy of it may be what is found when the database grows over it again.
//!
//! # Reading: look, read, look again
//!
//! ```text
//! reader                                     filler (one per page at a time; owner of the page's fetch)
//! 1  seen = map.look(p, epoch)  else fetch   1  write the page's bytes to the file
//! 2  read the page's bytes                   2  map.set_present(p, epoch)
//! 3  seen.is_still()?  else go to 1
//! ```
//!
//! Step 1 of the reader synchronizes with step 2 of the filler, so a reader that sees the page present reads bytes that
//! were written before. Who replaces the content of a present page while readers of the main file may be inside step 2
//! calls [`PageMap::clear_present`] *first*, then writes, then `set_present`. Each clearing counts up a number that the pages
//! around it share, so a reader that got any of the new bytes sees in step 3 that a page went away, even if it is back;
//! sometimes it was another page, and it reads again.
//!
//! # Memory
//!
//! Three levels of 1024 x 1024 x 4096 pages; a level is allocated when the first page in it becomes present: 33 KiB for a
//! database of one page, then half a KiB for every 4096 pages: 3.3 MB for 100 GB of pages of 4 KiB, whichever of them are here.
//! Dirty, young and retired pages are Roaring bitmaps.

// Not in `sync`: nothing that makes a level takes turns with other threads.
use std::{collections::BTreeMap, ops::Bound, sync::OnceLock};

use roaring::RoaringBitmap;

use crate::{
    chunk::{Bits, CHUNK_PAGES, CHUNK_WORDS, CHUNKS, Chunk},
    sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, fence},
    types::{Epoch, PageCount, PageId, PageNo},
};

// Under the scheduler an atomic takes some hundred bytes, and every word that a walk looks at is a choice.
const LEAF_BITS: u32 = if cfg!(feature = "shuttle") { 6 } else { 12 };
const NODE_BITS: u32 = if cfg!(feature = "shuttle") { 13 } else { 10 };
const LEAF_PAGES: u32 = 1 << LEAF_BITS;
const NODE_LEAVES: usize = 1 << NODE_BITS;
const ROOT_NODES: usize = 1 << (32 - LEAF_BITS - NODE_BITS);
const LEAF_WORDS: usize = (LEAF_PAGES / 64) as usize;

struct Leaf {
    present: [AtomicU64; LEAF_WORDS],
    /// How often a page of it was cleared: after its bit went, before anyone can set it again.
    cleared: AtomicU64,
}

impl Leaf {
    fn new() -> Box<Self> {
        Box::new(Self {
            present: [const { AtomicU64::new(0) }; LEAF_WORDS],
            cleared: AtomicU64::new(0),
        })
    }

    fn has(&self, slot: Slot) -> bool {
        self.present[slot.word].load(Ordering::Acquire) & slot.bit != 0
    }
}

type Node = [OnceLock<Box<Leaf>>; NODE_LEAVES];

/// A page's bit in its leaf.
#[derive(Clone, Copy)]
struct Slot {
    word: usize,
    bit: u64,
}

impl Slot {
    fn of(id: u32) -> Self {
        let nth = id % LEAF_PAGES;
        Self {
            word: (nth / 64) as usize,
            bit: 1 << (nth % 64),
        }
    }
}

/// A page that was seen present. See the module for what it is good for.
pub struct Seen<'m> {
    leaf: &'m Leaf,
    slot: Slot,
    cleared: u64,
}

impl Seen<'_> {
    /// Step 3 of the protocol: whether the page has been here all the time since [`PageMap::look`]. The bytes that were
    /// read meanwhile must not be used when this says no.
    pub fn is_still(&self) -> bool {
        // Orders the caller's read of the bytes before the loads; acquire loads alone would not.
        fence(Ordering::Acquire);
        self.leaf.has(self.slot) && self.leaf.cleared.load(Ordering::Acquire) == self.cleared
    }
}

/// The pages that become present while it lives; see [`PageMap::note_arrivals`].
pub struct Arrivals<'m>(&'m PageMap);

impl Arrivals<'_> {
    /// 0-based ids of those that did so far, whatever became of them since.
    pub fn ids(&self) -> RoaringBitmap {
        self.0.shared().arrived.clone().unwrap_or_default()
    }
}

impl Drop for Arrivals<'_> {
    fn drop(&mut self) {
        self.0.shared().arrived = None;
    }
}

/// Where in its file a map was saved last; the numbers are [`crate::saved_map`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// How many saves the file has seen.
    pub saves: u64,
    /// Where the next record goes.
    pub end: u64,
    /// The checksum of the last record, which those before it went into.
    pub chain: u64,
    /// Where the record ends that holds the whole map.
    pub whole_end: u64,
}

/// What takes turns.
#[derive(Default)]
struct Shared {
    /// 0-based ids.
    dirty: RoaringBitmap,
    /// Pages that were filled in the epoch of the key or later, but before that of the next key, and are not for readers of
    /// earlier ones. There is a key for each epoch that began while there were such readers, until they have ended.
    young: BTreeMap<Epoch, RoaringBitmap>,
    /// Pages whose copy in the file is for readers of epochs before the key only.
    retired: BTreeMap<Epoch, RoaringBitmap>,
    /// Chunks of which something changed since they were last taken for a save.
    unsaved: RoaringBitmap,
    /// Chunks that were taken for a save that has not succeeded so far.
    in_save: RoaringBitmap,
    /// Pages that became present since somebody wants to know.
    arrived: Option<RoaringBitmap>,
    /// What is on disk may not be what was read of it.
    differs: bool,
    /// `None`: the file is to be written as a whole.
    saved_at: Option<Position>,
}

impl Shared {
    fn touch(&mut self, id: u32) {
        self.unsaved.insert(id / CHUNK_PAGES);
    }

    fn set_dirty(&mut self, id: u32) {
        if self.dirty.insert(id) {
            self.touch(id);
        }
    }
}

/// The shared page map. See the module for the protocol between readers and fillers.
pub struct PageMap {
    root: Box<[OnceLock<Box<Node>>; ROOT_NODES]>,
    /// The last key of `young`; 0 is none: no epoch that something moved to is.
    youngest: AtomicU32,
    /// Changed by those who have `shared`.
    present_count: AtomicU32,
    shared: Mutex<Shared>,
}

impl PageMap {
    /// A map with every page absent and clean.
    pub fn new() -> Self {
        Self {
            root: Box::new([const { OnceLock::new() }; ROOT_NODES]),
            youngest: AtomicU32::new(0),
            present_count: AtomicU32::new(0),
            shared: Mutex::default(),
        }
    }

    /// A map with these pages (0-based ids) present and those dirty, as one that was not saved so far. Half a KiB of memory
    /// for every 4096 pages that the sets touch: check sets that come from outside against the size of the database file first.
    pub fn from_sets(present: &RoaringBitmap, dirty: &RoaringBitmap) -> Self {
        let map = Self::new();
        let pages = |ids: &RoaringBitmap| {
            let mut ids = ids.clone();
            ids.remove(u32::MAX);
            ids
        };
        let (present, dirty) = (pages(present), pages(dirty));
        for id in &present {
            let slot = Slot::of(id);
            map.leaf_or_new(id).present[slot.word].fetch_or(slot.bit, Ordering::Release);
        }
        let count = u32::try_from(present.len()).unwrap_or(u32::MAX);
        map.present_count.store(count, Ordering::Relaxed);
        {
            let shared = &mut *map.shared();
            shared.unsaved = (present | &dirty).iter().map(|id| id / CHUNK_PAGES).collect();
            shared.dirty = dirty;
        }
        map
    }

    /// Looks whether a reader of this epoch may take the page from the file, as one that is present. Acquire: what was
    /// written before the page was set present can be read after this.
    pub fn look(&self, page: PageNo, reader: Epoch) -> Option<Seen<'_>> {
        let id = page.id().0;
        let seen = self.look_at_any(id)?;
        // Whoever filled a page of an epoch had seen that epoch begin.
        if reader.0 < self.youngest.load(Ordering::Acquire) && is_among(&self.shared().young, reader, id) {
            return None;
        }
        Some(seen)
    }

    /// The same for a reader that takes any copy of the page.
    pub fn look_for_any(&self, page: PageNo) -> Option<Seen<'_>> {
        self.look_at_any(page.id().0)
    }

    fn look_at_any(&self, id: u32) -> Option<Seen<'_>> {
        let leaf = self.leaf(id)?;
        let slot = Slot::of(id);
        let cleared = leaf.cleared.load(Ordering::Acquire);
        leaf.has(slot).then_some(Seen { leaf, slot, cleared })
    }

    /// Whether the page is here, for readers of some epoch and of every later one.
    pub fn is_present(&self, page: PageNo) -> bool {
        let id = page.id().0;
        self.leaf(id).is_some_and(|leaf| leaf.has(Slot::of(id)))
    }

    /// Notes which pages become present, until what is returned is dropped. For one at a time.
    pub fn note_arrivals(&self) -> Arrivals<'_> {
        self.shared().arrived = Some(RoaringBitmap::new());
        Arrivals(self)
    }

    /// Whether the page is here and has been all the time since arrivals are noted. While none are, that is not known of any.
    pub fn was_here(&self, page: PageNo) -> bool {
        let shared = self.shared();
        let came = |arrived: &RoaringBitmap| arrived.contains(page.id().0);
        self.is_present(page) && !shared.arrived.as_ref().is_none_or(came)
    }

    /// Whether the page is neither here nor retired.
    pub fn is_absent(&self, page: PageNo) -> bool {
        // Both at the same moment: a checkpoint may make the one of the other.
        let shared = self.shared();
        !self.is_present(page) && !shared.retired.values().any(|pages| pages.contains(page.id().0))
    }

    /// Whether the page is here no more for new readers, while its bytes stay in the file for older ones.
    pub fn is_retired(&self, page: PageNo) -> bool {
        let id = page.id().0;
        self.shared().retired.values().any(|pages| pages.contains(id))
    }

    /// The 0-based ids of the pages that are retired.
    pub fn retired(&self) -> RoaringBitmap {
        let mut ids = RoaringBitmap::new();
        for pages in self.shared().retired.values() {
            ids |= pages;
        }
        ids
    }

    /// Whether any page is retired.
    pub fn has_retired(&self) -> bool {
        !self.shared().retired.is_empty()
    }

    /// Whether the file has no copy of the page for a reader of this epoch.
    pub fn is_absent_for(&self, page: PageNo, reader: Epoch) -> bool {
        let id = page.id().0;
        let shared = self.shared();
        let is_here = self.is_present(page) || is_among(&shared.retired, reader, id);
        !is_here || is_among(&shared.young, reader, id)
    }

    /// Whether a reader of this epoch may take the page from the file although it is retired. To be asked again after
    /// reading.
    pub fn is_kept_for(&self, page: PageNo, reader: Epoch) -> bool {
        let id = page.id().0;
        let shared = self.shared();
        is_among(&shared.retired, reader, id) && !is_among(&shared.young, reader, id)
    }

    /// Says that the page's bytes are in the file and right for readers of `since` and later; `Epoch(0)`: for all. Says
    /// whether it was not here before: of two fillers one wins, and a page that is here stays what it is. Release: call it
    /// after the bytes were written.
    pub fn set_present(&self, page: PageNo, since: Epoch) -> bool {
        let id = page.id().0;
        let (leaf, slot) = (self.leaf_or_new(id), Slot::of(id));
        let mut shared = self.shared();
        if leaf.has(slot) {
            return false;
        }
        for pages in shared.retired.values_mut() {
            pages.remove(id);
        }
        for (&epoch, pages) in &mut shared.young {
            match epoch == since {
                true => pages.insert(id),
                false => pages.remove(id),
            };
        }
        if let Some(arrived) = &mut shared.arrived {
            arrived.insert(id);
        }
        self.present_count.fetch_add(1, Ordering::Relaxed);
        shared.touch(id);
        leaf.present[slot.word].fetch_or(slot.bit, Ordering::AcqRel);
        true
    }

    /// Forgets that the page is here. Call it before the bytes of a present page are replaced.
    pub fn clear_present(&self, page: PageNo) {
        self.clear(&mut self.shared(), std::iter::once(page.id().0));
    }

    /// Takes pages out. No reader takes bytes of them that are written after this.
    fn clear(&self, shared: &mut Shared, ids: impl Iterator<Item = u32>) {
        let mut last: Option<(u32, &Leaf)> = None;
        let counted = |leaf: &Leaf| leaf.cleared.fetch_add(1, Ordering::AcqRel);
        for id in ids {
            let nth = id / LEAF_PAGES;
            let leaf = match last {
                Some((at, leaf)) if at == nth => leaf,
                _ => {
                    if let Some((_, leaf)) = last.take() {
                        counted(leaf);
                    }
                    let Some(leaf) = self.leaf(id) else { continue };
                    last = Some((nth, leaf));
                    leaf
                }
            };
            let slot = Slot::of(id);
            if leaf.present[slot.word].fetch_and(!slot.bit, Ordering::AcqRel) & slot.bit != 0 {
                self.present_count.fetch_sub(1, Ordering::Relaxed);
                shared.touch(id);
            }
        }
        if let Some((_, leaf)) = last {
            counted(leaf);
        }
        // Orders the cleared bits before the bytes that the caller writes next.
        fence(Ordering::SeqCst);
    }

    /// The base moves: the pages of `leaving` are absent for those who begin later, and `dirty` is what is dirty on top of
    /// the new base. With readers from before, whose next epoch `older` is, what leaves is retired: its bytes stay as they
    /// are, and nobody may fill such a page before [`PageMap::forget_older`], except a checkpoint, which SQLite only lets
    /// write a page whose older copy no reader needs.
    pub fn move_base(&self, older: Option<Epoch>, leaving: &RoaringBitmap, dirty: RoaringBitmap) {
        let shared = &mut *self.shared();
        match older {
            Some(epoch) => {
                shared.young.insert(epoch, RoaringBitmap::new());
                self.youngest.store(epoch.0, Ordering::Release);
                if !leaving.is_empty() {
                    shared.retired.insert(epoch, leaving.clone());
                }
            }
            None => {
                shared.retired.clear();
                shared.young.clear();
                self.youngest.store(0, Ordering::Release);
            }
        }
        self.clear(shared, leaving.iter());
        for id in &shared.dirty ^ &dirty {
            shared.touch(id);
        }
        shared.dirty = dirty;
    }

    /// No reader of an epoch before this one is left: what only they could use, or must not use, is forgotten.
    pub fn forget_older(&self, oldest: Epoch) {
        let shared = &mut *self.shared();
        shared.retired.retain(|epoch, _| *epoch > oldest);
        shared.young.retain(|epoch, _| *epoch > oldest);
        let youngest = shared.young.last_key_value().map_or(0, |(epoch, _)| epoch.0);
        self.youngest.store(youngest, Ordering::Release);
    }

    /// Whether the page was written by a local transaction since the base revision.
    pub fn is_dirty(&self, page: PageNo) -> bool {
        self.shared().dirty.contains(page.id().0)
    }

    /// Marks the page as written locally.
    pub fn set_dirty(&self, page: PageNo) {
        self.shared().set_dirty(page.id().0);
    }

    /// The database ends here from now on: the pages beyond that are here are dirty. Their bytes stay, for readers from before.
    pub fn cut_off(&self, size: PageCount) {
        self.cut_off_in(&mut self.shared(), size);
    }

    fn cut_off_in(&self, shared: &mut Shared, size: PageCount) -> RoaringBitmap {
        let cut_off = self.present_from(size);
        for id in &cut_off {
            shared.set_dirty(id);
        }
        cut_off
    }

    /// The file ends here from now on, and so does the database: what it had of the pages beyond is gone. Other marks stay, for
    /// they may be a superset but never a subset.
    pub fn truncate(&self, size: PageCount) {
        let shared = &mut *self.shared();
        let cut_off = self.cut_off_in(shared, size);
        self.clear(shared, cut_off.iter());
        for pages in shared.retired.values_mut().chain(shared.young.values_mut()) {
            pages.remove_range(size.0..);
        }
    }

    /// The 0-based ids of the pages that are here, in any epoch: a walk over the whole map. Pages that other threads change
    /// meanwhile may be in it or not; a page set present before the call is in it.
    pub fn present(&self) -> RoaringBitmap {
        self.collect(0)
    }

    /// Those of the pages beyond an end that are here.
    pub fn present_from(&self, end: PageCount) -> RoaringBitmap {
        let mut ids = self.collect(end.0);
        ids.remove_range(..end.0);
        ids
    }

    /// All pages that are here if they are at most so many runs of pages that follow each other, and not very many pages. Looks
    /// not much further than it takes to know.
    pub fn present_if_few(&self, runs: usize) -> Option<RoaringBitmap> {
        /// 4 GiB of pages of 4 KiB.
        const PAGES: u32 = 1 << 20;
        if self.present_count().0 > PAGES {
            return None;
        }
        let (mut begun, mut last, mut next) = (0, 0, 0);
        for (first, leaf) in self.leaves(0) {
            if first != next {
                last = 0;
            }
            for word in &leaf.present {
                let bits = word.load(Ordering::Acquire);
                begun += (bits & !(bits << 1 | last)).count_ones() as usize;
                last = bits >> 63;
            }
            if begun > runs {
                return None;
            }
            next = first.wrapping_add(LEAF_PAGES);
        }
        Some(self.present())
    }

    /// Those of some pages that are here.
    pub fn present_among(&self, ids: &RoaringBitmap) -> RoaringBitmap {
        if ids.len() > u64::from(LEAF_PAGES) * 4 {
            return self.collect(ids.min().unwrap_or_default()) & ids;
        }
        let pages = ids.iter().filter_map(|id| PageId(id).no());
        pages
            .filter(|page| self.is_present(*page))
            .map(|page| page.id().0)
            .collect()
    }

    /// Whether every page up to an end is here, or dirty where `or_dirty` says that this is enough; `but` need not be.
    pub fn has_all(&self, end: PageCount, but: PageNo, or_dirty: bool) -> bool {
        self.missing(end, but, or_dirty) == 0
    }

    /// How many pages up to an end are not here, nor dirty where `or_dirty` says that this is enough, but for `but`. Counts, and
    /// looks at nothing but dirty pages and those beyond the end.
    pub fn missing(&self, end: PageCount, but: PageNo, or_dirty: bool) -> u64 {
        let shared = self.shared();
        let has_but = end.contains(but);
        let here = u64::from(self.present_count().0) - self.present_from(end).len();
        let here = here - u64::from(has_but && self.is_present(but));
        let absent = u64::from(end.0) - u64::from(has_but) - here;
        if !or_dirty || absent == 0 {
            return absent;
        }
        let only_dirty = |id: &u32| {
            PageId(*id)
                .no()
                .is_some_and(|page| page != but && !self.is_present(page))
        };
        absent - shared.dirty.range(..end.0).filter(only_dirty).count() as u64
    }

    /// The 0-based ids of the dirty pages.
    pub fn dirty(&self) -> RoaringBitmap {
        self.shared().dirty.clone()
    }

    /// How many pages are here; a counter, not a walk.
    pub fn present_count(&self) -> PageCount {
        PageCount(self.present_count.load(Ordering::Relaxed))
    }

    /// How many pages are dirty.
    pub fn dirty_count(&self) -> PageCount {
        PageCount(u32::try_from(self.shared().dirty.len()).unwrap_or(u32::MAX))
    }

    /// Takes what is to be saved, and where the last save has ended: the chunks of which something changed. It counts as
    /// unsaved until [`PageMap::mark_saved`] is called with where this one ends; until then the next save is a whole one. For
    /// one saver at a time.
    pub fn begin_save(&self) -> (Vec<Chunk>, Option<Position>) {
        let shared = &mut *self.shared();
        let taken = std::mem::take(&mut shared.unsaved);
        shared.in_save |= taken;
        let mut chunks = Vec::new();
        for nth in &shared.in_save {
            self.chunk(nth, &shared.dirty).append_to(&mut chunks);
        }
        (chunks, shared.saved_at.take())
    }

    /// The whole map, for a save that has begun.
    pub fn all_chunks(&self) -> Vec<Chunk> {
        let shared = self.shared();
        let mut used: RoaringBitmap = shared.dirty.iter().map(|id| id / CHUNK_PAGES).collect();
        for (first, _) in self.leaves(0) {
            used.insert(first / CHUNK_PAGES);
        }
        let mut chunks = Vec::new();
        for nth in &used {
            let chunk = self.chunk(nth, &shared.dirty);
            if (&chunk.present, &chunk.dirty) != (&Bits::Empty, &Bits::Empty) {
                chunk.append_to(&mut chunks);
            }
        }
        chunks
    }

    /// What was taken last is on disk.
    pub fn mark_saved(&self, at: Position) {
        let shared = &mut *self.shared();
        shared.in_save.clear();
        shared.differs = false;
        shared.saved_at = Some(at);
    }

    /// Whether something changed that is not known to be on disk.
    pub fn changed_since_saved(&self) -> bool {
        let shared = self.shared();
        shared.differs || !shared.unsaved.is_empty() || !shared.in_save.is_empty()
    }

    /// What was read of a saved map is all there is: nothing is to be saved, and the next save continues `at`.
    pub(crate) fn as_loaded(&self, at: Option<Position>, differs: bool) {
        let shared = &mut *self.shared();
        shared.unsaved.clear();
        shared.differs = differs;
        shared.saved_at = at.filter(|_| !differs);
    }

    /// Sets the pages of some chunks, of which nothing was said so far, to what was saved of them, but those beyond `end`. Says
    /// whether there were such.
    pub(crate) fn load(&self, chunk: &Chunk, these: &RoaringBitmap, end: PageCount) -> bool {
        let shared = &mut *self.shared();
        let mut beyond = false;
        let chunks = end.0.div_ceil(CHUNK_PAGES);
        if (&chunk.present, &chunk.dirty) == (&Bits::Empty, &Bits::Empty) {
            return false;
        }
        for nth in these {
            if nth >= chunks {
                return true;
            }
            let first = nth * CHUNK_PAGES;
            if chunk.dirty == Bits::Full {
                let last = first + (CHUNK_PAGES - 1);
                shared.dirty.insert_range(first..=last.min(end.0 - 1));
            }
            for word in 0..CHUNK_WORDS {
                let at = first + word as u32 * 64;
                let inside = match end.0.saturating_sub(at) {
                    64.. => u64::MAX,
                    left => (1 << left) - 1,
                };
                let (present, dirty) = (chunk.present.word(word), chunk.dirty.word(word));
                beyond |= (present | dirty) & !inside != 0;
                self.load_word(at, present & inside);
                if let Bits::Some(_) = chunk.dirty {
                    for bit in (0..64).filter(|bit| (dirty & inside) >> bit & 1 == 1) {
                        shared.dirty.insert(at + bit);
                    }
                }
            }
        }
        beyond
    }

    fn load_word(&self, first: u32, present: u64) {
        if present != 0 {
            self.leaf_or_new(first).present[Slot::of(first).word].store(present, Ordering::Release);
            self.present_count
                .fetch_add(present.count_ones(), Ordering::Relaxed);
        }
    }

    fn chunk(&self, nth: u32, dirty: &RoaringBitmap) -> Chunk {
        let first = nth * CHUNK_PAGES;
        let (mut here, mut written) = ([0; CHUNK_WORDS], [0; CHUNK_WORDS]);
        for (word, bits) in (0..).zip(&mut here) {
            *bits = self.word(first + word * 64);
        }
        for id in dirty.range(first..=first + (CHUNK_PAGES - 1)) {
            let nth = id - first;
            written[(nth / 64) as usize] |= 1_u64 << (nth % 64);
        }
        Chunk {
            first: nth,
            count: 1,
            present: Bits::of(here),
            dirty: Bits::of(written),
        }
    }

    fn word(&self, first: u32) -> u64 {
        self.leaf(first).map_or(0, |leaf| {
            leaf.present[Slot::of(first).word].load(Ordering::Acquire)
        })
    }

    fn leaf(&self, id: u32) -> Option<&Leaf> {
        let nth = (id >> LEAF_BITS) as usize;
        self.root[nth >> NODE_BITS].get()?[nth % NODE_LEAVES]
            .get()
            .map(Box::as_ref)
    }

    fn leaf_or_new(&self, id: u32) -> &Leaf {
        let nth = (id >> LEAF_BITS) as usize;
        let node =
            self.root[nth >> NODE_BITS].get_or_init(|| Box::new([const { OnceLock::new() }; NODE_LEAVES]));
        node[nth % NODE_LEAVES].get_or_init(Leaf::new)
    }

    /// Every leaf that exists and holds pages from this id on, in page order, with the id of its first page.
    fn leaves(&self, from: u32) -> impl Iterator<Item = (u32, &Leaf)> {
        let from = (from >> LEAF_BITS) as usize;
        let nodes = (0_usize..).zip(self.root.iter()).skip(from >> NODE_BITS);
        nodes
            .filter_map(|(n, node)| Some((n, node.get()?)))
            .flat_map(|(n, node)| {
                let leaves = (n << NODE_BITS..).zip(node.iter());
                leaves.filter_map(|(nth, leaf)| Some(((nth as u32) << LEAF_BITS, leaf.get()?.as_ref())))
            })
            .skip_while(move |(first, _)| ((first >> LEAF_BITS) as usize) < from)
    }

    /// The pages that are present, of every leaf that has pages from this id on.
    fn collect(&self, from: u32) -> RoaringBitmap {
        // As many as a container of the bitmap holds.
        const BLOCK: u32 = 1 << 16;
        let mut set = RoaringBitmap::new();
        let mut block = vec![0_u8; BLOCK as usize / 8];
        let mut leaves = self.leaves(from).peekable();
        while let Some(&(first, _)) = leaves.peek() {
            let start = first / BLOCK * BLOCK;
            let mut ones = 0;
            block.fill(0);
            while let Some((first, leaf)) = leaves.next_if(|(first, _)| first / BLOCK == start / BLOCK) {
                let at = (first - start) as usize / 8;
                for (word, bytes) in leaf.present.iter().zip(block[at..].chunks_exact_mut(8)) {
                    let bits = word.load(Ordering::Acquire);
                    ones += bits.count_ones();
                    bytes.copy_from_slice(&bits.to_le_bytes());
                }
            }
            if ones == BLOCK {
                set.insert_range(start..=start + (BLOCK - 1));
            } else {
                set |= RoaringBitmap::from_lsb0_bytes(start, &block);
            }
        }
        set
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock()
    }
}

/// Whether a page is in what began after a reader of this epoch did.
fn is_among(sets: &BTreeMap<Epoch, RoaringBitmap>, reader: Epoch, id: u32) -> bool {
    sets.range((Bound::Excluded(reader), Bound::Unbounded))
        .any(|(_, pages)| pages.contains(id))
}

// The chunks tile the ids.
const _: () = assert!(CHUNKS as u64 * CHUNK_PAGES as u64 == 1 << 32);

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
