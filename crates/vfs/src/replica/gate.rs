//! Where snapshots begin, and the gate that a pull closes between its two commits: no snapshot begins meanwhile, except the
//! pull's own. The base revision and the epoch move here and nowhere else.

use std::{
    marker::PhantomData,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use partial_sync_core::{Epoch, PageId};
use roaring::RoaringBitmap;

use super::{Replica, fetch::INTERRUPT_POLL};
use crate::{
    error::ReadError,
    locks::HeldSlots,
    source::{Base, SourceError},
    sqlite::context,
};

thread_local! {
    /// Address of the replica whose gate this thread passes; 0 = none.
    static BYPASS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn gate_is_bypassed(replica: &Replica) -> bool {
    BYPASS.get() == std::ptr::from_ref(replica) as usize
}

impl Replica {
    /// Why this thread may not write now, if so. A transaction that began before a pull failed could otherwise go on to
    /// write, and finishing the pull would undo it.
    pub(crate) fn refuses_writes(&self) -> Option<ReadError> {
        if gate_is_bypassed(self) {
            return None;
        }
        let source = self.poisoned.lock().clone()?;
        Some(ReadError::Poisoned { source })
    }

    /// Lets no statement run any more; each fails with `why`.
    pub fn poison(&self, why: SourceError) {
        *self.poisoned.lock() = Some(why);
        self.gate_opened.notify_all();
    }

    /// Undoes [`Self::poison`].
    pub fn heal(&self) {
        *self.poisoned.lock() = None;
    }

    /// A connection takes a read mark: its snapshot begins, in the current epoch. Waits while a pull is between its two
    /// commits. `Ok(false)` = busy.
    pub(crate) fn begin_snapshot(&self, held: &mut HeldSlots, slot: usize) -> Result<bool, ReadError> {
        let mut index = self.wal_index.lock();
        if !gate_is_bypassed(self) {
            let deadline = Instant::now() + self.wait;
            loop {
                if let Some(source) = &*self.poisoned.lock() {
                    return Err(ReadError::Poisoned {
                        source: source.clone(),
                    });
                }
                if !index.gate_closed {
                    break;
                }
                if context::must_not_wait() {
                    return Err(ReadError::WouldWait { what: "a pull" });
                }
                if context::is_interrupted() {
                    return Err(ReadError::InterruptedByUser);
                }
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

    /// A read transaction ended; `last` = it was the last of its epoch.
    pub(crate) fn end_snapshot(&self, epoch: Epoch, last: bool) {
        if last && epoch != self.epoch() {
            self.old_pages.lock().retain(|(e, _), _| *e != epoch);
            if !self.wal_index.lock().has_readers(epoch) {
                self.bases.write().remove(&epoch);
            }
        }
    }

    /// Closes the gate for new snapshots; the calling thread passes until the guard is dropped.
    pub fn close_gate(self: &Arc<Self>) -> Gate {
        self.wal_index.lock().gate_closed = true;
        BYPASS.set(Arc::as_ptr(self) as usize);
        Gate {
            replica: self.clone(),
            this_thread: PhantomData,
        }
    }
}

/// Held by a pull from the commit of the remote's pages to the commit of the put-back. No snapshot begins meanwhile,
/// except on the thread that made it. Not `Send`: it speaks of its thread.
pub struct Gate {
    replica: Arc<Replica>,
    this_thread: PhantomData<*const ()>,
}

impl Gate {
    /// The base revision is `base` from now on. Pages that are present but not in `keep` (0-based ids) were filled too
    /// late to be known to be valid at `base`: they become absent. Nothing is dirty but those of `keep` that the main file
    /// does not have, and those beyond the end that may be in the WAL.
    pub fn move_base(&self, base: Base, keep: &RoaringBitmap) {
        let replica = &self.replica;
        let _fill = replica.fill.lock();
        let old = replica.epoch();
        let epoch = old.next();
        let mut cut_off = replica.map.present() | replica.map.dirty();
        cut_off.remove_range(..base.size.0);
        for id in replica.map.present() - keep {
            if let Some(page) = PageId(id).no() {
                replica.map.clear_present(page);
            }
        }
        replica.map.clear_all_dirty();
        // Pages beyond the end may still have frames in the WAL. When the database grows over them again SQLite would
        // read those; the pull that makes it grow must bring them.
        for id in cut_off {
            if let Some(page) = PageId(id).no() {
                replica.map.set_dirty(page);
            }
        }
        // What is only in the WAL (SQLite had allocated it without reading it) must be brought by the next pull too.
        for id in keep - replica.map.present() {
            if let Some(page) = PageId(id).no() {
                replica.map.set_dirty(page);
            }
        }
        replica
            .size
            .fetch_max(base.size.bytes(replica.page_size), Ordering::AcqRel);
        let index = replica.wal_index.lock();
        {
            let mut bases = replica.bases.write();
            bases.insert(epoch, base);
            bases.retain(|&e, _| e == epoch || index.has_readers(e));
        }
        replica.epoch.store(epoch.0, Ordering::Release);
        drop(index);
        replica.planner.lock().reset();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        BYPASS.set(0);
        self.replica.wal_index.lock().gate_closed = false;
        self.replica.gate_opened.notify_all();
    }
}
