//! What answers with pages have of memory together, from when a piece is read until its client has it. No answer waits for
//! another: the more they have, the smaller their next pieces are.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Beyond this, a piece is one page.
const MOST: usize = 32 << 20;
/// A piece takes at most such a part of what is left.
const PART: usize = 16;

/// See the module. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// How large the next piece of an answer may be, unless it is one page.
    pub(super) fn piece(&self) -> usize {
        MOST.saturating_sub(self.0.load(Relaxed)) / PART
    }

    /// Counts bytes until what is returned is dropped.
    pub(super) fn hold(&self, bytes: usize) -> Held {
        self.0.fetch_add(bytes, Relaxed);
        Held {
            of: self.clone(),
            bytes,
        }
    }
}

/// Bytes that count.
#[derive(Debug)]
pub(super) struct Held {
    of: InFlight,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v7_however_many_answers_there_are_their_pieces_fit() {
        let all = InFlight::default();
        let (page, most) = (4096, 128 << 10);
        let held: Vec<_> = (0..10_000)
            .map(|_| all.hold(all.piece().clamp(page, most)))
            .collect();
        assert_eq!(held[0].bytes, most);
        assert!(all.0.load(Relaxed) < MOST + held.len() * page, "{all:?}");
        drop(held);
        assert_eq!(all.0.load(Relaxed), 0);
    }
}
