//! Which base belongs to which epoch.

use std::collections::HashMap;

use partial_sync_core::Epoch;

use crate::source::Base;

/// The current epoch and its base, and those of older epochs that still have readers.
pub(super) struct Bases {
    pub(super) epoch: Epoch,
    pub(super) base: Base,
    pub(super) older: HashMap<Epoch, Base>,
}

impl Bases {
    pub(super) fn new(base: Base) -> Self {
        Self {
            epoch: Epoch(0),
            base,
            older: HashMap::new(),
        }
    }

    pub(super) fn of(&self, epoch: Epoch) -> Option<&Base> {
        match epoch == self.epoch {
            true => Some(&self.base),
            false => self.older.get(&epoch),
        }
    }

    pub(super) fn move_to(&mut self, base: Base) {
        let old = std::mem::replace(&mut self.base, base);
        self.older.insert(self.epoch, old);
        self.epoch = self.epoch.next();
    }
}
