//! Blocks of a larger file, and what is read of it before anybody asks for it: the blocks behind those of somebody who reads one after the
//! other, more each time.
//!
//! What must never happen here: that who reads here and there makes more be read than he asks for, or that more is read ahead than is kept.

use std::{collections::HashMap, hash::Hash, ops::Range};

/// Bytes of a block. A file ends in a block of fewer.
pub(super) const BLOCK: u64 = 256 << 10;
/// How many blocks one request brings at most.
pub(super) const BLOCKS: usize = 16;
/// The least that is read ahead.
const FIRST: u64 = 2;
/// How many files are known that somebody reads so.
const FILES: usize = 64;

/// See the module. Blocks are numbered.
#[derive(Debug)]
pub(super) struct Ahead<F> {
    most: u64,
    files: HashMap<F, Reading>,
}

#[derive(Debug)]
struct Reading {
    /// Where the last one ended.
    next: u64,
    /// Up to where blocks were read ahead.
    until: u64,
    /// How many, the last time.
    window: u64,
}

impl<F: Eq + Hash> Ahead<F> {
    /// Where so many bytes are kept.
    pub(super) fn within(memory: u64) -> Self {
        Self {
            most: (memory / BLOCK / 4).min(BLOCKS as u64),
            files: HashMap::new(),
        }
    }

    /// Somebody reads these blocks of a file that has `end`: those to be read for later.
    pub(super) fn read(&mut self, file: F, blocks: Range<u64>, end: u64) -> Range<u64> {
        if self.files.len() >= FILES && !self.files.contains_key(&file) {
            self.files.clear();
        }
        let reading = self.files.entry(file).or_insert(Reading {
            next: u64::MAX,
            until: 0,
            window: 0,
        });
        // The block in which the last one ended may be asked for again.
        let is_near = (blocks.start..=blocks.start + 1).contains(&reading.next);
        if is_near && blocks.end <= reading.next {
            return 0..0;
        }
        if !is_near {
            *reading = Reading {
                next: blocks.end,
                until: 0,
                window: 0,
            };
            return 0..0;
        }
        reading.next = blocks.end;
        let from = reading.until.max(blocks.end);
        if from - blocks.end > reading.window / 2 {
            return 0..0;
        }
        reading.window = (reading.window * 2).max(FIRST).min(self.most);
        reading.until = (from + reading.window).min(end).max(from);
        from..reading.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_one_after_the_other_finds_more_each_time_and_who_does_not_finds_what_he_asks_for() {
        let mut ahead = Ahead::within(8 * 4 * BLOCK);
        let mut fetched = Vec::new();
        for n in 0..40 {
            let more = ahead.read('a', n..n + 1, 40);
            assert!(
                more.end <= 40 && more.end.saturating_sub(n) <= 13,
                "{n}: {more:?}"
            );
            fetched.extend(more.clone());
            if !more.is_empty() {
                assert!(more.start > n, "{n}: {more:?}");
            }
        }
        // Each once, and all but the first two.
        assert_eq!(fetched, Vec::from_iter(2..40));
        let mut random = Ahead::within(8 * 4 * BLOCK);
        for n in [5, 3, 3, 30, 12, 31, 7, 7, 7] {
            assert!(random.read('a', n..n + 1, 40).is_empty(), "{n}");
        }
        // Parts of the same block, and then the next.
        let mut parts = Ahead::within(8 * 4 * BLOCK);
        assert!(parts.read('a', 3..4, 40).is_empty());
        assert_eq!(parts.read('a', 3..5, 40), 5..7);
        let mut none = Ahead::within(BLOCK);
        assert!((0..9).all(|n| none.read('a', n..n + 1, 40).is_empty()));
    }
}
