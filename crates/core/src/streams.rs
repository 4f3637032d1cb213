//! Follows readers through the leaves of trees, to tell a scan from lookups.
//!
//! The evidence for a scan is a read beside one of the last reads **of the same tree**: an index scan that looks up a
//! hundred rows of a table between two of its own leaves is a scan all the same, and a hundred lookups all over a table
//! are none. So each tree remembers its last few places, and no tree's reads push out those of another.

use crate::{
    known_trees::{Direction, KnownTrees, Neighbour, Position},
    types::PageNo,
};

/// How many places a tree remembers: that many scans of one tree are told apart.
pub(crate) const PLACES: usize = 8;

/// How many trees are remembered.
const TREES: usize = 64;

/// This many reads in line make a run.
const RUN: u32 = 2;

/// A scan may leap over this many leaves less one (SQLite had them in its cache) and still be the same scan.
const MAX_LEAP: u32 = 3;

/// Where a reader is in a tree and how it got there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) at: Position,
    /// How many pages to fetch when this reader has to wait the next time.
    pub(crate) window: u32,
    way: Option<Direction>,
    run: u32,
}

impl Stream {
    /// The direction of a run, if one is on.
    pub(crate) fn run(&self) -> Option<Direction> {
        self.way.filter(|_| self.run >= RUN)
    }

    /// This stream after a read at `here`, if that is a little further on its run.
    fn leaps_to(&self, here: Position) -> Option<Direction> {
        let way = self.run().filter(|_| self.at.parent == here.parent)?;
        let (from, to) = match way {
            Direction::Ascending => (self.at.index, here.index),
            Direction::Descending => (here.index, self.at.index),
        };
        (to > from && to - from <= MAX_LEAP).then_some(way)
    }
}

#[derive(Debug)]
struct Tree {
    root: PageNo,
    /// The one read last is last.
    streams: Vec<Stream>,
    used: u64,
}

/// The readers of all trees.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    trees: Vec<Tree>,
    clock: u64,
}

impl Streams {
    /// Moves the stream that leads to `page` there, or starts one whose window is `start`. `None` when nothing that was
    /// seen says where the page hangs. Following to where a stream is already changes nothing.
    pub(crate) fn follow(&mut self, known: &KnownTrees, page: PageNo, start: u32) -> Option<&mut Stream> {
        let here = known.position(page)?;
        let streams = self.tree(known.root_of(page));
        let next = if let Some(index) = streams.iter().position(|stream| stream.at == here) {
            streams.remove(index)
        } else if let Some((index, way)) = leading_to(streams, known, here) {
            let stream = streams.remove(index);
            if stream.way == Some(way) {
                Stream {
                    at: here,
                    run: (stream.run + 1).min(2 * RUN),
                    ..stream
                }
            } else {
                Stream {
                    at: here,
                    way: Some(way),
                    run: RUN,
                    window: start,
                }
            }
        } else if let Some(index) = streams.iter().position(|stream| stream.leaps_to(here).is_some()) {
            // Evidence for the run and against it; with one leap after the other the run ends.
            let stream = streams.remove(index);
            Stream {
                at: here,
                run: stream.run - 1,
                ..stream
            }
        } else {
            if streams.len() >= PLACES {
                streams.remove(0);
            }
            Stream {
                at: here,
                way: None,
                run: 1,
                window: start,
            }
        };
        streams.push(next);
        streams.last_mut()
    }

    pub(crate) fn clear(&mut self) {
        self.trees.clear();
    }

    fn tree(&mut self, root: PageNo) -> &mut Vec<Stream> {
        self.clock += 1;
        let known = self.trees.iter().position(|tree| tree.root == root);
        let index = known.unwrap_or_else(|| {
            let oldest = (0..self.trees.len()).min_by_key(|index| self.trees[*index].used);
            if let Some(oldest) = oldest.filter(|_| self.trees.len() >= TREES) {
                self.trees.swap_remove(oldest);
            }
            self.trees.push(Tree {
                root,
                streams: Vec::with_capacity(PLACES),
                used: 0,
            });
            self.trees.len() - 1
        });
        let tree = &mut self.trees[index];
        tree.used = self.clock;
        &mut tree.streams
    }
}

/// The stream whose next page, one way or the other, lies `here`; one that already goes that way before others.
fn leading_to(streams: &[Stream], known: &KnownTrees, here: Position) -> Option<(usize, Direction)> {
    let sibling = [Direction::Ascending, Direction::Descending].map(|way| {
        match known.neighbour(here, way.reversed()) {
            Neighbour::To(behind, _) => Some((behind, way)),
            Neighbour::Unseen(_) | Neighbour::End => None,
        }
    });
    let leading = sibling.into_iter().flatten().flat_map(|(behind, way)| {
        let there = streams
            .iter()
            .enumerate()
            .filter(move |(_, stream)| stream.at == behind);
        there.map(move |(index, stream)| (stream.way == Some(way), stream.run, index, way))
    });
    leading
        .max_by_key(|(same, run, ..)| (*same, *run))
        .map(|(.., index, way)| (index, way))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: u32) -> PageNo {
        PageNo::new(n).unwrap()
    }

    /// A tree with root 2 and parents 3 and 4 of twenty leaves each, 100 and up, and another with root 5 over 200 and up.
    fn known() -> KnownTrees {
        let mut known = KnownTrees::default();
        let pages = |from: u32, to: u32| (from..to).map(page).collect::<Box<[_]>>();
        known.learn(page(2), pages(3, 5));
        known.learn(page(3), pages(100, 120));
        known.learn(page(4), pages(120, 140));
        known.learn(page(5), pages(200, 1000));
        known
    }

    fn run(streams: &mut Streams, known: &KnownTrees, pages: &[u32]) -> Vec<Option<Direction>> {
        pages
            .iter()
            .map(|n| streams.follow(known, page(*n), 8).and_then(|stream| stream.run()))
            .collect()
    }

    const UP: Option<Direction> = Some(Direction::Ascending);
    const DOWN: Option<Direction> = Some(Direction::Descending);

    #[test]
    fn two_reads_side_by_side_make_a_run_also_across_parents() {
        let known = known();
        assert_eq!(
            run(&mut Streams::default(), &known, &[105, 106, 107]),
            [None, UP, UP]
        );
        assert_eq!(run(&mut Streams::default(), &known, &[119, 120]), [None, UP]);
        assert_eq!(run(&mut Streams::default(), &known, &[120, 119]), [None, DOWN]);
        assert_eq!(
            run(&mut Streams::default(), &known, &[105, 105, 107, 109]),
            [None; 4]
        );
        assert_eq!(run(&mut Streams::default(), &known, &[7, 8]), [None; 2]);
    }

    #[test]
    fn a_leap_is_forgiven_when_it_is_the_exception() {
        let known = known();
        let pages = [100, 101, 102, 104, 105, 107, 109, 111, 113];
        let runs = run(&mut Streams::default(), &known, &pages);
        assert_eq!(runs, [None, UP, UP, UP, UP, UP, None, None, None]);
    }

    #[test]
    fn lookups_in_another_tree_do_not_end_a_run_and_those_in_this_one_do_in_time() {
        let known = known();
        let mut streams = Streams::default();
        let elsewhere: Vec<u32> = (0..300).map(|n| 200 + n * 37 % 800 / 2 * 2).collect();
        assert_eq!(run(&mut streams, &known, &[100]), [None]);
        run(&mut streams, &known, &elsewhere);
        assert_eq!(run(&mut streams, &known, &[101]), [UP]);
        run(&mut streams, &known, &[105, 107, 109, 111, 121, 123, 125, 127]);
        assert_eq!(run(&mut streams, &known, &[102]), [None]);
    }

    #[test]
    fn a_turn_starts_a_run_the_other_way_with_a_small_window() {
        let known = known();
        let mut streams = Streams::default();
        run(&mut streams, &known, &[100, 101, 102]);
        streams.follow(&known, page(102), 8).unwrap().window = 512;
        assert_eq!(run(&mut streams, &known, &[101]), [DOWN]);
        assert_eq!(streams.follow(&known, page(101), 8).unwrap().window, 8);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = KnownTrees::default();
        let mut streams = Streams::default();
        for tree in 0..1000 {
            let first = 10_000 + tree * 40;
            known.learn(page(2 + tree), (first..first + 40).map(page).collect());
            for leaf in (first..first + 40).step_by(2) {
                streams.follow(&known, page(leaf), 8);
            }
        }
        assert_eq!(streams.trees.len(), TREES);
        assert!(streams.trees.iter().all(|tree| tree.streams.len() <= PLACES));
    }
}
