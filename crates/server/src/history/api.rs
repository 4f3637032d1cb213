//! What a page history does, wherever it keeps the pages.

use std::{fmt, time::Duration};

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};
use roaring::RoaringBitmap;

use super::revision::{Generation, RevisionRecord, Seq};
use crate::error::HistoryError;

/// One page that a new revision changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The page.
    pub page: PageNo,
    /// What it was.
    pub before: Before,
    /// [`page_hash`] of what it is; `None` = the database has become shorter.
    pub after: Option<u64>,
}

/// What a page was before a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    /// These bytes.
    Page(Bytes),
    /// The database was shorter.
    Absent,
}

/// A page at a revision, as far as the history knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was not changed since: the current page.
    Unchanged,
    /// The current page, if it has this hash; else it was overwritten while nobody looked. It is not compared yet.
    UnchangedIf(u64),
    /// These bytes.
    Page(Bytes),
    /// It was overwritten while nobody looked.
    Lost,
}

/// How far the comparison of all pages with their hashes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The revision that began with it.
    pub seq: Seq,
    /// The pages from this one on are still to be compared.
    pub next: PageNo,
    /// As many pages as there are to compare in all.
    pub pages: PageCount,
}

impl Comparison {
    /// Pages that are still to be compared.
    pub fn left(&self) -> u32 {
        self.pages.0.saturating_sub(self.next.get() - 1)
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistorySize {
    /// Revisions that can be asked for.
    pub revisions: u64,
    /// Bytes of pre-images, as stored.
    pub bytes: u64,
    /// When the oldest of them was made, in milliseconds since 1970: a replica that has pulled since then can continue.
    pub oldest_unix_ms: Option<i64>,
}

/// A revision that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptRevision {
    /// Its number and size.
    pub record: RevisionRecord,
    /// When it was made, in milliseconds since 1970.
    pub unix_ms: i64,
    /// Bytes of what the pages were that it changed, as stored.
    pub bytes: u64,
}

/// What one step of [`History::prune`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// There is more to let go of.
    pub more: bool,
    /// Revisions went before their time, for their bytes.
    pub early: bool,
}

/// For how long and up to how much old pages are kept. The current revision is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A revision is kept for this long after the next one replaced it.
    pub age: Duration,
    /// Stored bytes of pre-images; the oldest go first.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(24 * 60 * 60),
            bytes: 1 << 30,
        }
    }
}

/// Where the history stood when it was left; opaque to the history.
pub type Position = Vec<u8>;

/// A stream of changes in rising page order, read while the revision is being stored.
pub type Changes<'a> = dyn Iterator<Item = Result<Change, HistoryError>> + 'a;

/// Keeps pre-images. All calls block; one caller at a time writes, any number read.
pub trait History: Send + Sync + fmt::Debug {
    /// This life of the history, and the page size it is for; `None` = it is new: [`History::begin`] it.
    fn generation(&self) -> Result<Option<(Generation, PageSize)>, HistoryError>;

    /// Forgets everything and begins a new life with revision 1, and with a comparison that notes its hashes.
    fn begin(
        &self,
        page_size: PageSize,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<Generation, HistoryError> {
        let generation = Generation(fastrand::u64(1..));
        self.begin_as(generation, Seq::FIRST, page_size, db_size, unix_ms)?;
        Ok(generation)
    }

    /// The same, with a life and a first revision that were named elsewhere.
    fn begin_as(
        &self,
        generation: Generation,
        first: Seq,
        page_size: PageSize,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<(), HistoryError>;

    /// Adds a revision after `after`, between which nobody looked at the database, and begins its comparison: the next one, or `seq`.
    /// That may be `after` itself if nobody was told of it: then what is found is added to what it changed. A comparison that is not
    /// finished ends: the revisions since it began are no longer kept.
    fn resume(
        &self,
        after: RevisionRecord,
        seq: Option<Seq>,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<RevisionRecord, HistoryError>;

    /// The log that names the revisions has one, `fence`, that changed nothing, as those before it did that are not here. If `fence` is
    /// here, and is the latest, nobody was told of it: it is the next one now.
    fn pass(&self, fence: Seq, unix_ms: i64) -> Result<(), HistoryError>;

    /// Page numbers that a revision changed, added or took away, as far as they are compared.
    fn changed_by(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError>;

    /// The writers that have begun to write the log which names the revisions; empty = there is none.
    fn log_nodes(&self) -> Result<Vec<u64>, HistoryError>;

    /// Notes them, durably.
    fn set_log_nodes(&self, nodes: &[u64]) -> Result<(), HistoryError>;

    /// The comparison that is not finished.
    fn comparison(&self) -> Result<Option<Comparison>, HistoryError>;

    /// Compares the next pages, from `at.next` on: these are their hashes at the latest revision, which is `latest`; `None` = the
    /// database is shorter. What differs was changed by the revision `at.seq`, and what it was is lost. Returns what is left.
    fn compare(
        &self,
        latest: RevisionRecord,
        at: Comparison,
        hashes: &[Option<u64>],
    ) -> Result<Option<Comparison>, HistoryError>;

    /// Lets this life end: there is no [`History::generation`] from here on, until [`History::begin`].
    fn forget(&self) -> Result<(), HistoryError>;

    /// Ends this life as [`History::forget`] does, and removes what keeps it, if nothing else is kept there.
    fn remove(&self) -> Result<(), HistoryError> {
        self.forget()
    }

    /// Whether what keeps it is still where it was.
    fn is_in_place(&self) -> bool {
        true
    }

    /// The latest revision.
    fn latest(&self) -> Result<RevisionRecord, HistoryError>;

    /// Makes the next revision's number a random distance larger than it would be. To be called when a history is taken up
    /// again: it may be a copy, restored from a backup, of one that has given out the next numbers already.
    fn leap(&self);

    /// Adds the revision after `after`, durably, all or nothing. `None` and nothing is added if there is no change. Pages that
    /// it changes and that are not compared yet are compared.
    fn record(
        &self,
        after: RevisionRecord,
        db_size: PageCount,
        unix_ms: i64,
        changes: &mut Changes<'_>,
    ) -> Result<Option<RevisionRecord>, HistoryError>;

    /// A revision that is kept.
    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError>;

    /// These pages at a revision that is kept, in the order asked. They must lie within its size.
    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError>;

    /// What [`History::revision`] says of it, if that can be told without waiting for anything.
    fn revision_at_once(&self, _seq: Seq) -> Option<RevisionRecord> {
        None
    }

    /// What [`History::pages_at`] says of them, if that can be told without waiting for anything. It knows as much as had been
    /// recorded when this was called.
    fn pages_at_once(&self, _seq: Seq, _pages: &[PageNo]) -> Option<Vec<Kept>> {
        None
    }

    /// What [`History::changed`] says of them, if that can be told without waiting for anything.
    fn changed_at_once(&self, _since: Seq, _until: Seq) -> Option<RoaringBitmap> {
        None
    }

    /// Page numbers that revisions in `(since, until]` changed, added or took away, as far as they are compared.
    fn changed(&self, since: Seq, until: Seq) -> Result<RoaringBitmap, HistoryError>;

    /// Page numbers whose bytes at a revision are gone, as far as they are compared.
    fn lost(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError>;

    /// The position stored last, and the revision it belongs to.
    fn position(&self) -> Result<Option<(Seq, Position)>, HistoryError>;

    /// Stores where the database stands at a revision.
    fn set_position(&self, seq: Seq, position: &Position) -> Result<(), HistoryError>;

    /// Lets go of a little of what need not be kept.
    fn prune(&self, retention: &Retention, unix_ms: i64) -> Result<Pruned, HistoryError>;

    /// Lets go of a little of what is older than a revision that is kept; `true` = there is more.
    fn drop_before(&self, seq: Seq) -> Result<bool, HistoryError>;

    /// The revisions that are kept, the latest first, from the one before `before` on; at most so many.
    fn list(&self, before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError>;

    /// The latest revision that is kept and was there at a time, in milliseconds since 1970.
    fn at_time(&self, unix_ms: i64) -> Result<Option<RevisionRecord>, HistoryError>;

    /// How much is kept.
    fn size(&self) -> Result<HistorySize, HistoryError>;

    /// Where it is kept, for messages.
    fn place(&self) -> String;
}

/// By what a page is recognised after a restart.
pub fn page_hash(page: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(page)
}
