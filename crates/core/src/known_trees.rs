//! What the planner knows of the database's B-trees: the ordered children of every interior page that was seen.
//!
//! All of it is a hint. A page that arrives may be a freed one with the content of its former life, so links are claims:
//! a claim by an interior page that SQLite itself has read since wins over one that only happened to arrive. Nothing
//! here may recurse or grow without bound, whatever the pages say, and nothing here decides what is fetched.
//!
//! Memory: at most [`MAX_LINKS`] children, about 30 bytes each; beyond that the lowest interior pages that were seen
//! first are forgotten, which in a scan are those that lie behind.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use crate::{
    btree::{BTreePage, PageKind},
    types::PageNo,
};

/// The most children that are remembered: those of 4 GiB of 4 KiB pages.
pub(crate) const MAX_LINKS: usize = 1 << 20;

/// No tree of SQLite is deeper.
const MAX_DEPTH: u32 = 20;

/// A place in a tree: the child number `index` of an interior page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) parent: PageNo,
    pub(crate) index: u32,
}

/// The two ways through a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ascending,
    Descending,
}

impl Direction {
    pub(crate) const fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }

    /// The neighbour of an index this way, among `len`.
    fn next_index(self, index: u32, len: usize) -> Option<u32> {
        let next = match self {
            Self::Ascending => index.checked_add(1)?,
            Self::Descending => index.checked_sub(1)?,
        };
        ((next as usize) < len).then_some(next)
    }

    /// Where one enters a page with `len` children when going this way.
    fn entry(self, len: usize) -> u32 {
        match self {
            Self::Ascending => 0,
            Self::Descending => len.saturating_sub(1) as u32,
        }
    }
}

/// What lies beside a position on the same level of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Neighbour {
    /// This page, here.
    To(Position, PageNo),
    /// Something, under an interior page that was not seen yet.
    Unseen(PageNo),
    /// Nothing that is known of.
    End,
}

#[derive(Debug)]
struct Interior {
    children: Box<[PageNo]>,
    /// Some child was seen to be interior: then all are, for a B-tree's leaves have one depth.
    above_interior: bool,
    /// SQLite read the page itself, so it is part of a tree now.
    live: bool,
}

#[derive(Debug, Default)]
pub(crate) struct KnownTrees {
    nodes: HashMap<PageNo, Interior>,
    parents: HashMap<PageNo, Position>,
    /// Nodes in the order in which they were learned; may name forgotten ones.
    order: VecDeque<PageNo>,
    links: usize,
}

impl KnownTrees {
    /// Takes in a page that was seen; a page that is not interior (any more) is forgotten.
    pub(crate) fn see(&mut self, page: PageNo, bytes: &[u8], usable_size: u32) {
        match interior_children(page, bytes, usable_size) {
            None => self.forget(page),
            Some(children) => {
                if self
                    .nodes
                    .get(&page)
                    .is_none_or(|known| *known.children != *children)
                {
                    self.learn(page, children.into_boxed_slice());
                }
            }
        }
    }

    /// SQLite read this page as part of a tree; its claims are good.
    pub(crate) fn confirm(&mut self, page: PageNo) {
        if let Some(node) = self.nodes.get_mut(&page)
            && !node.live
        {
            node.live = true;
            self.claim(page);
        }
    }

    /// Where the page hangs, when an interior page that was seen names it.
    pub(crate) fn position(&self, page: PageNo) -> Option<Position> {
        let position = *self.parents.get(&page)?;
        (self.page_at(position) == Some(page)).then_some(position)
    }

    /// The highest page above this one that is known: the root of its tree, if SQLite came from there.
    pub(crate) fn root_of(&self, page: PageNo) -> PageNo {
        let mut root = page;
        for _ in 0..MAX_DEPTH {
            match self.position(root) {
                Some(position) => root = position.parent,
                None => break,
            }
        }
        root
    }

    /// The children of an interior page, in order; nothing when it was not seen.
    pub(crate) fn children(&self, page: PageNo) -> &[PageNo] {
        self.nodes.get(&page).map_or(&[], |node| &node.children)
    }

    /// Whether the children of this page are interior pages: one was seen to be, or one of a page beside it on its level.
    pub(crate) fn is_above_interior(&self, page: PageNo) -> bool {
        let flag = |page: PageNo| self.nodes.get(&page).is_some_and(|node| node.above_interior);
        flag(page)
            || self.position(page).is_some_and(|position| {
                [Direction::Ascending, Direction::Descending].into_iter().any(
                    |way| matches!(self.neighbour(position, way), Neighbour::To(_, sibling) if flag(sibling)),
                )
            })
    }

    /// One step on the level of `position`, over the parent's edge into the next parent if that one was seen.
    pub(crate) fn neighbour(&self, position: Position, way: Direction) -> Neighbour {
        self.neighbour_at_depth(position, way, 0)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn neighbour_at_depth(&self, position: Position, way: Direction, depth: u32) -> Neighbour {
        let children = self.children(position.parent);
        if position.index as usize >= children.len() || depth > MAX_DEPTH {
            return Neighbour::End;
        }
        if let Some(index) = way.next_index(position.index, children.len()) {
            return Neighbour::To(Position { index, ..position }, children[index as usize]);
        }
        let Some(above) = self.position(position.parent) else {
            return Neighbour::End;
        };
        match self.neighbour_at_depth(above, way, depth + 1) {
            Neighbour::To(_, parent) => match self.nodes.get(&parent) {
                None => Neighbour::Unseen(parent),
                Some(node) => {
                    let index = way.entry(node.children.len());
                    Neighbour::To(Position { parent, index }, node.children[index as usize])
                }
            },
            other => other,
        }
    }

    fn page_at(&self, position: Position) -> Option<PageNo> {
        self.nodes
            .get(&position.parent)?
            .children
            .get(position.index as usize)
            .copied()
    }

    /// Remembers the children of an interior page instead of what was known of it.
    pub(crate) fn learn(&mut self, page: PageNo, children: Box<[PageNo]>) {
        let live = self.nodes.get(&page).is_some_and(|known| known.live);
        self.forget(page);
        self.links += children.len();
        let above_interior = children.iter().any(|child| self.nodes.contains_key(child));
        self.nodes.insert(
            page,
            Interior {
                children,
                above_interior,
                live,
            },
        );
        self.order.push_back(page);
        self.claim(page);
        self.tell_parent(page);
        self.keep_within_bounds(page);
    }

    /// Makes the page the parent of its children, except of those that a live page claims when this one is not live.
    fn claim(&mut self, page: PageNo) {
        let Some(node) = self.nodes.get(&page) else { return };
        for (index, child) in (0..).zip(&node.children) {
            let position = Position { parent: page, index };
            match self.parents.entry(*child) {
                Entry::Vacant(entry) => {
                    entry.insert(position);
                }
                Entry::Occupied(mut entry) => {
                    let rival = entry.get().parent;
                    if node.live || rival == page || !self.nodes.get(&rival).is_some_and(|n| n.live) {
                        entry.insert(position);
                    }
                }
            }
        }
    }

    fn tell_parent(&mut self, page: PageNo) {
        if let Some(position) = self.position(page)
            && let Some(parent) = self.nodes.get_mut(&position.parent)
        {
            parent.above_interior = true;
        }
    }

    fn forget(&mut self, page: PageNo) {
        let Some(node) = self.nodes.remove(&page) else {
            return;
        };
        self.links -= node.children.len();
        for child in &node.children {
            if let Entry::Occupied(entry) = self.parents.entry(*child)
                && entry.get().parent == page
            {
                entry.remove();
            }
        }
    }

    /// Forgets the nodes learned first, but for those above interior pages: there are few and they hold trees together.
    fn keep_within_bounds(&mut self, newest: PageNo) {
        let mut spared = 0;
        while self.links > MAX_LINKS && self.order.len() > spared {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            match self.nodes.get(&oldest) {
                Some(node) if oldest == newest || (node.above_interior && spared < self.nodes.len() / 2) => {
                    spared += 1;
                    self.order.push_back(oldest);
                }
                Some(_) => self.forget(oldest),
                None => {}
            }
        }
        // A node that is learned again and again leaves stale entries in the queue.
        if self.order.len() > 2 * self.nodes.len() + 64 {
            let mut seen = std::collections::HashSet::new();
            self.order
                .retain(|page| self.nodes.contains_key(page) && seen.insert(*page));
        }
    }
}

/// The children of an interior page, if the bytes hold up as one. Strict, because pointer-map and overflow pages can
/// begin with the same byte: every pointer must be good, the children distinct, and the rowids of a table go up.
fn interior_children(page: PageNo, bytes: &[u8], usable_size: u32) -> Option<Vec<PageNo>> {
    let parsed = BTreePage::parse(page, bytes, usable_size).ok()?;
    if !parsed.kind().is_interior() {
        return None;
    }
    let children: Vec<PageNo> = parsed.children().collect::<Result<_, _>>().ok()?;
    let mut sorted = children.clone();
    sorted.sort_unstable();
    let distinct = sorted.is_sorted_by(|a, b| a < b);
    if !distinct || sorted.first() == Some(&PageNo::FIRST) || sorted.binary_search(&page).is_ok() {
        return None;
    }
    if parsed.kind() == PageKind::InteriorTable {
        let rowids: Vec<i64> = parsed
            .cells()
            .map(|cell| cell.ok()?.rowid)
            .collect::<Option<_>>()?;
        if !rowids.is_sorted_by(|a, b| a < b) {
            return None;
        }
    }
    Some(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(n: u32) -> PageNo {
        PageNo::new(n).unwrap()
    }

    /// An interior table page of 512 bytes with these children.
    fn interior(children: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        let (last, left) = children.split_last().unwrap();
        bytes[0] = 5;
        bytes[3..5].copy_from_slice(&(left.len() as u16).to_be_bytes());
        bytes[8..12].copy_from_slice(&last.to_be_bytes());
        for (index, child) in left.iter().enumerate() {
            let at = 512 - 5 * (index + 1);
            bytes[12 + 2 * index..][..2].copy_from_slice(&(at as u16).to_be_bytes());
            bytes[at..at + 4].copy_from_slice(&child.to_be_bytes());
            bytes[at + 4] = index as u8;
        }
        bytes
    }

    fn trees(pages: &[(u32, &[u32])]) -> KnownTrees {
        let mut trees = KnownTrees::default();
        for (no, children) in pages {
            trees.see(page(*no), &interior(children), 512);
        }
        trees
    }

    fn walk(trees: &KnownTrees, from: u32, way: Direction) -> (Vec<u32>, Neighbour) {
        let mut position = trees.position(page(from)).unwrap();
        let mut pages = vec![];
        loop {
            match trees.neighbour(position, way) {
                Neighbour::To(next, page) => {
                    position = next;
                    pages.push(page.get());
                }
                end => return (pages, end),
            }
        }
    }

    #[test]
    fn steps_cross_from_parent_to_parent_and_stop_where_a_parent_was_not_seen() {
        let trees = trees(&[(2, &[3, 4, 5]), (3, &[10, 11]), (4, &[12, 9])]);
        assert_eq!(
            walk(&trees, 10, Direction::Ascending),
            (vec![11, 12, 9], Neighbour::Unseen(page(5)))
        );
        assert_eq!(
            walk(&trees, 9, Direction::Descending),
            (vec![12, 11, 10], Neighbour::End)
        );
        assert!(trees.is_above_interior(page(2)));
        assert!(!trees.is_above_interior(page(3)));
    }

    #[test]
    fn the_level_of_a_page_is_known_from_the_page_beside_it() {
        let trees = trees(&[(2, &[3, 4]), (3, &[5, 6]), (4, &[7, 8]), (5, &[9, 10])]);
        assert!(trees.is_above_interior(page(4)));
    }

    #[test]
    fn a_freed_page_with_its_old_content_takes_no_child_from_a_page_that_sqlite_read() {
        let mut trees = trees(&[(3, &[10, 11])]);
        trees.confirm(page(3));
        trees.see(page(4), &interior(&[11, 10]), 512);
        assert_eq!(
            trees.position(page(10)),
            Some(Position {
                parent: page(3),
                index: 0
            })
        );
        trees.confirm(page(4));
        assert_eq!(
            trees.position(page(10)),
            Some(Position {
                parent: page(4),
                index: 1
            })
        );
    }

    #[test]
    fn a_page_that_changed_is_learned_again_and_one_that_is_no_longer_interior_is_forgotten() {
        let mut trees = trees(&[(3, &[10, 11])]);
        trees.see(page(3), &interior(&[11, 12]), 512);
        assert_eq!(trees.position(page(10)), None);
        assert_eq!(
            trees.position(page(11)),
            Some(Position {
                parent: page(3),
                index: 0
            })
        );
        trees.see(page(3), &[0; 512], 512);
        assert_eq!(trees.position(page(11)), None);
        assert_eq!((trees.links, trees.nodes.len(), trees.parents.len()), (0, 0, 0));
    }

    #[test]
    fn pages_that_name_each_other_in_a_circle_end() {
        let trees = trees(&[(2, &[3]), (3, &[2])]);
        assert_eq!(walk(&trees, 2, Direction::Ascending), (vec![], Neighbour::End));
        assert!(trees.position(page(3)).is_some());
    }

    #[test]
    fn bytes_that_only_begin_like_an_interior_page_are_not_one() {
        let pointer_map: Vec<u8> = [5, 0, 0, 0, 2].into_iter().cycle().take(512).collect();
        assert_eq!(interior_children(page(2), &pointer_map, 512), None);
        assert_eq!(interior_children(page(2), &interior(&[4, 4]), 512), None);
        assert_eq!(interior_children(page(2), &interior(&[4, 2]), 512), None);
        assert_eq!(interior_children(page(2), &interior(&[4, 1]), 512), None);
        assert_eq!(
            interior_children(page(2), &interior(&[4, 3]), 512),
            Some(vec![page(4), page(3)])
        );
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_lowest_pages_go_first() {
        let mut trees = KnownTrees::default();
        let top: Vec<PageNo> = (3..40).map(page).collect();
        trees.learn(page(2), top.into_boxed_slice());
        let each = 100_000;
        for n in 0..37 {
            let first = 100 + n * each;
            trees.learn(page(3 + n), (first..first + each).map(page).collect());
        }
        assert!(trees.links <= MAX_LINKS && trees.parents.len() <= MAX_LINKS);
        assert!(trees.position(page(100)).is_none(), "the first was forgotten");
        assert!(
            trees.position(page(100 + 36 * each)).is_some(),
            "the last is there"
        );
        assert!(trees.is_above_interior(page(2)), "and so is the root");
    }
}
