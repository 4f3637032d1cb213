//! What SQLite otherwise keeps in the operating system for the connections of one database, kept in memory because one
//! process owns a replica: the five lock levels of the main file, and the wal-index ("shared memory") with its eight
//! locks. It is also where a reader gets its epoch, because taking a read mark is where its snapshot begins.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use partial_sync_core::{Epoch, wal::Salts};

/// Slots of the wal-index: 0 write, 1 checkpoint, 2 recover, 3 to 7 read marks.
pub(crate) const SLOTS: usize = 8;
/// Bytes at the start of the wal-index that are not its hash tables
/// (<https://www.sqlite.org/walformat.html#the_wal_index_header>).
pub const HEAD_LEN: usize = 136;
/// The slot of the write lock.
pub(crate) const WRITE_SLOT: usize = 0;
/// The first slot that is a read mark.
pub(crate) const FIRST_READ_SLOT: usize = 3;

/// Levels of the main file's lock, SQLite's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    None = 0,
    Shared = 1,
    Reserved = 2,
    Pending = 3,
    Exclusive = 4,
}

impl Level {
    pub(crate) fn from_raw(raw: i32) -> Self {
        match raw {
            i32::MIN..=0 => Self::None,
            1 => Self::Shared,
            2 => Self::Reserved,
            3 => Self::Pending,
            _ => Self::Exclusive,
        }
    }
}

/// The main file's lock over all connections. The rules are those of <https://www.sqlite.org/lockingv3.html>.
#[derive(Debug, Default)]
pub(crate) struct MainLock {
    shared: usize,
    reserved: bool,
    pending: bool,
    exclusive: bool,
}

impl MainLock {
    /// Raises `held` to `wanted`; false = busy.
    pub(crate) fn raise(&mut self, held: &mut Level, wanted: Level) -> bool {
        if *held >= wanted {
            return true;
        }
        if *held == Level::None {
            if self.pending || self.exclusive {
                return false;
            }
            self.shared += 1;
            *held = Level::Shared;
        }
        if wanted == Level::Shared {
            return true;
        }
        if *held == Level::Shared {
            if self.reserved {
                return false;
            }
            self.reserved = true;
            *held = Level::Reserved;
        }
        if wanted == Level::Reserved {
            return true;
        }
        self.pending = true;
        *held = (*held).max(Level::Pending);
        if wanted == Level::Pending {
            return true;
        }
        if self.shared > 1 {
            return false;
        }
        self.exclusive = true;
        *held = Level::Exclusive;
        true
    }

    /// Lowers `held` to `wanted` (none or shared).
    pub(crate) fn lower(&mut self, held: &mut Level, wanted: Level) {
        if *held <= wanted {
            return;
        }
        if *held >= Level::Reserved {
            self.reserved = false;
            self.pending = false;
            self.exclusive = false;
        }
        if wanted == Level::None {
            self.shared -= 1;
        }
        *held = wanted;
    }

    pub(crate) fn is_reserved(&self) -> bool {
        self.reserved
    }
}

/// One connection's share of the wal-index locks, as bits by slot.
#[derive(Debug, Default)]
pub(crate) struct HeldSlots {
    shared: u8,
    exclusive: u8,
    mapped: bool,
    /// The epoch of the read transaction; the last one's between two.
    pub(crate) epoch: Epoch,
}

/// The wal-index of a replica: its memory, its locks, and the readers of each epoch.
#[derive(Default)]
pub(crate) struct WalIndex {
    /// SQLite reads and writes these as it likes, from every connection; atomics because that is what shared memory is.
    /// Their addresses are stable while any connection has them mapped.
    regions: Vec<Arc<[AtomicU64]>>,
    mapped: usize,
    shared: [u32; SLOTS],
    exclusive: [bool; SLOTS],
    /// How many read transactions are open, by epoch.
    readers: BTreeMap<Epoch, usize>,
    /// While a pull's commit becomes visible and the base moves: no snapshot may begin.
    pub(crate) gate_closed: bool,
}

impl WalIndex {
    /// The address of region `index`, making it when `extend` is set.
    pub(crate) fn map(
        &mut self,
        held: &mut HeldSlots,
        index: usize,
        size: usize,
        extend: bool,
    ) -> Option<*mut u8> {
        if !held.mapped {
            held.mapped = true;
            self.mapped += 1;
        }
        while self.regions.len() <= index {
            if !extend {
                return None;
            }
            self.regions
                .push((0..size.div_ceil(8)).map(|_| AtomicU64::new(0)).collect());
        }
        Some(self.regions[index].as_ptr().cast_mut().cast())
    }

    /// Gives everything back; the last connection to do so leaves an empty wal-index, as SQLite expects when it deletes
    /// the WAL.
    pub(crate) fn unmap(&mut self, held: &mut HeldSlots) {
        for slot in 0..SLOTS {
            self.unlock_shared(held, slot);
        }
        self.unlock_exclusive(held, 0, SLOTS);
        if std::mem::take(&mut held.mapped) {
            self.mapped -= 1;
            if self.mapped == 0 {
                self.regions.clear();
            }
        }
    }

    /// Takes `slot` shared; a read mark also gives the reader its epoch. False = busy.
    pub(crate) fn lock_shared(&mut self, held: &mut HeldSlots, slot: usize, epoch: Epoch) -> bool {
        if held.shared >> slot & 1 == 1 {
            return true;
        }
        if self.exclusive[slot] {
            return false;
        }
        self.shared[slot] += 1;
        held.shared |= 1 << slot;
        if slot >= FIRST_READ_SLOT {
            held.epoch = epoch;
            *self.readers.entry(epoch).or_default() += 1;
        }
        true
    }

    /// Gives `slot` back. True when the last reader of its epoch went.
    pub(crate) fn unlock_shared(&mut self, held: &mut HeldSlots, slot: usize) -> bool {
        if held.shared >> slot & 1 == 0 {
            return false;
        }
        self.shared[slot] -= 1;
        held.shared &= !(1 << slot);
        if slot < FIRST_READ_SLOT {
            return false;
        }
        let Some(readers) = self.readers.get_mut(&held.epoch) else {
            return false;
        };
        *readers -= 1;
        if *readers > 0 {
            return false;
        }
        self.readers.remove(&held.epoch);
        true
    }

    /// Takes `count` slots from `first` exclusively, or none. False = busy.
    pub(crate) fn lock_exclusive(&mut self, held: &mut HeldSlots, first: usize, count: usize) -> bool {
        let mine = held.exclusive;
        let slots = || (first..first + count).filter(move |s| mine >> s & 1 == 0);
        if slots().any(|s| self.exclusive[s] || self.shared[s] > u32::from(held.shared >> s & 1)) {
            return false;
        }
        for slot in slots() {
            self.exclusive[slot] = true;
            held.exclusive |= 1 << slot;
        }
        true
    }

    /// Gives `count` slots from `first` back.
    pub(crate) fn unlock_exclusive(&mut self, held: &mut HeldSlots, first: usize, count: usize) {
        for slot in first..first + count {
            if held.exclusive >> slot & 1 == 1 {
                self.exclusive[slot] = false;
                held.exclusive &= !(1 << slot);
            }
        }
    }

    /// The salts of the WAL and how many of its frames are committed, as SQLite keeps them at the start of the wal-index
    /// (<https://www.sqlite.org/walformat.html#the_wal_index_header>); `None` before the first connection read the WAL.
    pub(crate) fn committed(&self) -> Option<([u32; 2], u32)> {
        let region = self.regions.first()?;
        let word = |byte: usize| {
            region
                .get(byte / 8)
                .map(|w| w.load(Ordering::Acquire).to_ne_bytes())
        };
        let (flags, frames, salts) = (word(8)?, word(16)?, word(32)?);
        let is_init = flags[4] != 0;
        is_init.then(|| {
            (
                Salts(salts).numbers(),
                u32::from_ne_bytes([frames[0], frames[1], frames[2], frames[3]]),
            )
        })
    }

    /// Its first bytes: two copies of the header, and how far checkpoints are; `None` before the first connection read the WAL.
    pub(crate) fn head(&self) -> Option<[u8; HEAD_LEN]> {
        let region = self.regions.first()?;
        let mut head = [0; HEAD_LEN];
        for (bytes, word) in head.chunks_exact_mut(8).zip(region.iter()) {
            bytes.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        Some(head)
    }

    /// Whether any read transaction of this epoch is open.
    pub(crate) fn has_readers(&self, epoch: Epoch) -> bool {
        self.readers.contains_key(&epoch)
    }

    /// The epoch of the oldest read transaction that is open.
    pub(crate) fn oldest_reader(&self) -> Option<Epoch> {
        self.readers.keys().next().copied()
    }

    /// Whether this connection holds the write lock.
    pub(crate) fn holds_write_lock(held: &HeldSlots) -> bool {
        held.exclusive >> WRITE_SLOT & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_closes_while_others_read_does_not_get_the_exclusive_lock() {
        let mut lock = MainLock::default();
        let (mut a, mut b) = (Level::None, Level::None);
        assert!(lock.raise(&mut a, Level::Shared) && lock.raise(&mut b, Level::Shared));
        assert!(!lock.raise(&mut a, Level::Exclusive));
        let mut c = Level::None;
        assert!(
            !lock.raise(&mut c, Level::Shared),
            "pending keeps new readers out"
        );
        lock.lower(&mut b, Level::None);
        assert!(lock.raise(&mut a, Level::Exclusive));
        lock.lower(&mut a, Level::None);
        assert!(lock.raise(&mut c, Level::Exclusive));
    }

    #[test]
    fn a_read_mark_gives_the_epoch_and_tells_when_its_last_reader_went() {
        let mut index = WalIndex::default();
        let (mut a, mut b) = (HeldSlots::default(), HeldSlots::default());
        assert!(index.lock_shared(&mut a, 3, Epoch(1)) && index.lock_shared(&mut b, 4, Epoch(1)));
        assert!(!index.lock_exclusive(&mut a, 4, 1));
        assert!(!index.unlock_shared(&mut a, 3));
        assert!(index.has_readers(Epoch(1)));
        assert!(index.unlock_shared(&mut b, 4));
        assert!(index.lock_exclusive(&mut a, 0, 8));
        assert!(!index.lock_shared(&mut b, 3, Epoch(2)));
    }
}
