//! Where snapshots begin and end, and where a pull moves the base: the one instant in which no snapshot may begin.
//!
//! Epoch and base change together, under one lock, between the moment when the pull's commit becomes visible in the
//! wal-index and the moment when the next snapshot begins. A reader from before keeps its epoch, the base of it, and every
//! page that it could read: what new readers must not see any more is *retired* ([`PageMap::move_base`]) until the last of
//! the older readers has ended.
//!
//! [`PageMap::move_base`]: partial_sync_core::PageMap::move_base

use std::{sync::atomic::Ordering, time::Instant};

use partial_sync_core::{PageCount, PageId};
use roaring::RoaringBitmap;

use super::{flight::INTERRUPT_POLL, state::Replica};
use crate::{
    error::ReadError,
    locks::{HeldSlots, WalIndex},
    source::Base,
    sqlite::context,
};

/// Pages (0-based ids) of which a copy from before the move of a base, here at any time before it, is right on top of the new
/// one: they have not changed there, and were not written here.
#[derive(Clone, Debug, PartialEq)]
pub enum Stay {
    /// These only: of others it is not known.
    Only(RoaringBitmap),
    /// All but these.
    AllBut(RoaringBitmap),
}

impl Stay {
    /// None.
    pub fn none() -> Self {
        Self::Only(RoaringBitmap::new())
    }

    /// Whether a page is one of them.
    pub fn has(&self, id: PageId) -> bool {
        match self {
            Self::Only(ids) => ids.contains(id.0),
            Self::AllBut(ids) => !ids.contains(id.0),
        }
    }

    /// Without these pages.
    pub fn without(&self, ids: &RoaringBitmap) -> Self {
        match self {
            Self::Only(these) => Self::Only(these - ids),
            Self::AllBut(these) => Self::AllBut(these | ids),
        }
    }
}

/// What a replica is based on once a pull has committed.
#[derive(Clone, Debug)]
pub struct NextBase {
    /// The remote state that absent pages belong to.
    pub base: Base,
    /// Which pages stay, where `base` has them. Others that are present become absent, unless they are `committed`.
    pub stay: Stay,
    /// Pages (0-based ids) of which the commit has a copy that is right on top of `base`.
    pub committed: RoaringBitmap,
    /// Pages whose content differs from that of `base`.
    pub dirty: RoaringBitmap,
    /// How many pages the database has, or more than that where `dirty` has those after it: what is here of them is not read now,
    /// and is not right when it grows again.
    pub end: PageCount,
}

impl Replica {
    /// A connection takes a read mark: its snapshot begins, in the current epoch. `Ok(false)` = busy.
    pub(crate) fn begin_snapshot(&self, held: &mut HeldSlots, slot: usize) -> Result<bool, ReadError> {
        let deadline = Instant::now() + self.wait;
        // Who holds the write lock only takes another mark, because it restarts the WAL: it began long ago.
        let must_wait =
            |index: &WalIndex, held: &HeldSlots| index.gate_closed && !WalIndex::holds_write_lock(held);
        let mut index = self.wal_index.lock();
        while must_wait(&index, held) {
            if context::must_not_wait() {
                return Err(ReadError::WouldWait { what: "a pull" });
            }
            // Asked without the lock: what answers may run a signal handler of the program, which may read pages.
            drop(index);
            if context::is_interrupted() {
                return Err(ReadError::InterruptedByUser);
            }
            index = self.wal_index.lock();
            if must_wait(&index, held) {
                let now = Instant::now();
                if now >= deadline {
                    return Err(ReadError::PullUnderWay { waited: self.wait });
                }
                self.gate_opened
                    .wait_until(&mut index, deadline.min(now + INTERRUPT_POLL));
            }
        }
        Ok(index.lock_shared(held, slot, self.epoch()))
    }

    /// A connection gives a slot of the wal-index back. With the last reader of an epoch goes what only it could use.
    pub(crate) fn end_snapshot(&self, held: &mut HeldSlots, slot: usize) {
        let mut index = self.wal_index.lock();
        if index.unlock_shared(held, slot) && held.epoch != self.epoch() {
            self.forget_unread(&index);
        }
    }

    /// A connection closes its share of the wal-index.
    pub(crate) fn leave_wal_index(&self, held: &mut HeldSlots) {
        let mut index = self.wal_index.lock();
        index.unmap(held);
        self.forget_unread(&index);
    }

    /// Forgets the bases, private copies and retired pages that no open read transaction can use.
    fn forget_unread(&self, index: &WalIndex) {
        let current = {
            let mut bases = self.bases.write();
            bases.older.retain(|&epoch, _| index.has_readers(epoch));
            bases.epoch
        };
        self.private_pages
            .lock()
            .retain(|(epoch, _), _| *epoch == current || index.has_readers(*epoch));
        self.map.forget_older(index.oldest_reader().unwrap_or(current));
    }

    /// Runs `commit` and, when it succeeds, moves the base. No snapshot begins meanwhile, so everything that takes time must
    /// have happened before: `commit` makes visible what is written already.
    pub fn move_base<T, E>(&self, next: &NextBase, commit: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // Now, because it waits for those that write; when it fails, the first write of the commit says so.
        let _ = self.claim();
        // No page is filled from here on: what leaves is known before the gate closes.
        let _fill = self.fill.lock();
        let mut leaving = match &next.stay {
            Stay::Only(ids) => self.map.present() - ids,
            Stay::AllBut(ids) => self.map.present_among(ids),
        };
        leaving |= self.map.present_from(next.base.size);
        leaving -= &next.committed;
        // What is only in the WAL counts as written here: the next pull must bring it, changed or not.
        let mut dirty = &next.dirty | (&next.committed - self.map.present_among(&next.committed));
        // Pages beyond the end may have older copies in the WAL, or in the file because a checkpoint passes by those in the
        // WAL. When the database grows over them again SQLite would read those: the pull that makes it grow must bring them.
        let mut written = self.map.dirty() - &next.committed;
        written.remove_range(..next.end.0);
        dirty |= self.map.present_from(next.end) | written;
        self.wal_index.lock().gate_closed = true;
        let committed = commit();
        let mut index = self.wal_index.lock();
        if committed.is_ok() {
            self.move_to(&next.base, &leaving, dirty, &index);
        }
        index.gate_closed = false;
        self.gate_opened.notify_all();
        committed
    }

    fn move_to(&self, base: &Base, leaving: &RoaringBitmap, dirty: RoaringBitmap, index: &WalIndex) {
        let epoch = {
            let mut bases = self.bases.write();
            bases.move_to(base.clone());
            bases.epoch
        };
        let older = index.oldest_reader().map(|_| epoch);
        self.map.move_base(older, leaving, dirty);
        // The epoch that was the current one may have private copies and no reader.
        self.forget_unread(index);
        self.size
            .fetch_max(base.size.bytes(self.page_size), Ordering::AcqRel);
        self.planner.lock().reset();
    }
}
