//! What the last revisions changed, in memory, so that it can be told without asking the file, and so can a page at one of them
//! where it is what it is now, or was asked for before. Some of what the file says, and never anything else.
//!
//! A revision is added when it is durable and before anybody hears of it. So anyone who has a snapshot of a revision finds here what
//! that revision changed; what later ones changed does no harm, since a page is what it was before the *first* change after the
//! revision that is asked for.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use bytes::Bytes;
use parking_lot::RwLock;
use partial_sync_core::PageNo;
use roaring::RoaringBitmap;

use super::{
    api::Kept,
    revision::{RevisionRecord, Seq},
};

/// Revisions and changes that are remembered, of at most about 100 bytes each.
pub(super) const MOST: usize = 1 << 14;
/// Bytes of pages that are remembered.
const MOST_BYTES: usize = 2 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Changes when everything is forgotten: the same numbers may be other revisions then.
    life: u64,
    /// Without gaps. The changes of all but the first are known.
    revisions: VecDeque<RevisionRecord>,
    /// In the order in which they were made.
    changes: VecDeque<Change>,
    /// The revisions that changed a page, in order.
    of_page: HashMap<PageNo, VecDeque<Seq>>,
    /// What pages were before their changes, as far as somebody asked.
    before: HashMap<Change, Bytes>,
}

/// A page, and the revision that changed it.
type Change = (PageNo, Seq);

impl Recent {
    /// Remembers the revision after `after`, which changed these pages; if there are more than [`MOST`], nothing before it is known
    /// any more.
    pub(super) fn add(&self, after: RevisionRecord, new: RevisionRecord, pages: &[PageNo]) {
        let mut known = self.0.write();
        if pages.len() > MOST {
            known.clear();
        } else {
            if known.revisions.back() != Some(&after) {
                known.clear();
                known.revisions.push_back(after);
            }
            for page in pages {
                known.of_page.entry(*page).or_default().push_back(new.seq);
                known.changes.push_back((*page, new.seq));
            }
        }
        known.revisions.push_back(new);
        while known.revisions.len() + known.changes.len() > MOST {
            known.forget_first();
        }
    }

    /// To be asked before the file is.
    pub(super) fn life(&self) -> u64 {
        self.0.read().life
    }

    /// Remembers what the file said of pages at a revision.
    pub(super) fn heard<'a>(&self, life: u64, seq: Seq, pages: impl Iterator<Item = (PageNo, &'a Bytes)>) {
        let mut pages = pages.peekable();
        if pages.peek().is_none() {
            return;
        }
        let mut known = self.0.write();
        if known.life != life || known.revision(seq).is_none() {
            return;
        }
        for (page, data) in pages {
            if let Some(change) = known.first_change(page, seq) {
                if (known.before.len() + 1) * data.len() > MOST_BYTES {
                    known.before.clear();
                }
                known.before.insert(change, data.clone());
            }
        }
    }

    /// Forgets the revisions before this one.
    pub(super) fn forget_before(&self, oldest: Seq) {
        let mut known = self.0.write();
        while known.revisions.front().is_some_and(|first| first.seq < oldest) {
            known.forget_first();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.write().clear();
    }

    /// The revision, if it is remembered.
    pub(super) fn revision(&self, seq: Seq) -> Option<RevisionRecord> {
        self.0.read().revision(seq)
    }

    /// The pages that revisions in `(since, until]` changed, if that is known.
    pub(super) fn changed(&self, since: Seq, until: Seq) -> Option<RoaringBitmap> {
        let known = self.0.read();
        known.revision(since)?;
        known.revision(until)?;
        let first = known.changes.partition_point(|(_, seq)| *seq <= since);
        let end = known.changes.partition_point(|(_, seq)| *seq <= until);
        let changes = known.changes.range(first..end.max(first));
        Some(changes.map(|(page, _)| page.get()).collect())
    }

    /// Pages at a revision, if all of them are known.
    pub(super) fn pages(&self, seq: Seq, pages: &[PageNo]) -> Option<Vec<Kept>> {
        let known = self.0.read();
        known.revision(seq)?;
        let one = |page: &PageNo| match known.first_change(*page, seq) {
            None => Some(Kept::Unchanged),
            Some(change) => known.before.get(&change).cloned().map(Kept::Page),
        };
        pages.iter().map(one).collect()
    }
}

impl Known {
    fn clear(&mut self) {
        let life = self.life + 1;
        *self = Self {
            life,
            ..Self::default()
        };
    }

    fn revision(&self, seq: Seq) -> Option<RevisionRecord> {
        let at = self.revisions.binary_search_by_key(&seq, |revision| revision.seq);
        at.ok().map(|at| self.revisions[at])
    }

    fn first_change(&self, page: PageNo, after: Seq) -> Option<Change> {
        let changes = self.of_page.get(&page)?;
        let first = changes.partition_point(|seq| *seq <= after);
        changes.get(first).map(|seq| (page, *seq))
    }

    /// What is known of the next revision is then what it is, and not what it changed.
    fn forget_first(&mut self) {
        self.revisions.pop_front();
        let first = self.revisions.front().map(|first| first.seq);
        while let Some(change) = self
            .changes
            .pop_front_if(|(_, seq)| first.is_none_or(|first| *seq <= first))
        {
            self.before.remove(&change);
            if let Entry::Occupied(mut of_page) = self.of_page.entry(change.0) {
                of_page.get_mut().pop_front();
                if of_page.get().is_empty() {
                    of_page.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use partial_sync_core::PageCount;

    use super::*;

    fn revision(seq: u64) -> RevisionRecord {
        RevisionRecord {
            seq: Seq(seq),
            db_size: PageCount(u32::MAX),
        }
    }

    fn pages(pages: std::ops::RangeInclusive<u32>) -> Vec<PageNo> {
        pages.filter_map(PageNo::new).collect()
    }

    #[test]
    fn v22_what_is_remembered_has_bounds() {
        let recent = Recent::default();
        let most = MOST as u32;
        for seq in 1..100 {
            recent.add(revision(seq), revision(seq + 1), &pages(1..=most / 10));
        }
        {
            let known = recent.0.read();
            assert!(known.changes.len() + known.revisions.len() <= MOST);
            let of_pages: usize = known.of_page.values().map(VecDeque::len).sum();
            assert_eq!(known.changes.len(), of_pages);
            assert_eq!(
                known.revisions.len(),
                10,
                "nine changes of a tenth, and what was before them"
            );
        }
        assert_eq!(recent.revision(Seq(91)), Some(revision(91)));
        assert_eq!(
            recent.pages(Seq(91), &pages(1..=1)),
            None,
            "nobody has asked for it"
        );
        assert_eq!(
            recent.pages(Seq(91), &pages(most..=most)),
            Some(vec![Kept::Unchanged])
        );
        assert_eq!(recent.revision(Seq(90)), None);
        let (size, asked) = (65536, pages(1..=1000));
        let data = Bytes::from(vec![7; size]);
        recent.heard(recent.life(), Seq(91), asked.iter().map(|page| (*page, &data)));
        assert!(matches!(
            recent.pages(Seq(91), &pages(1000..=1000)).as_deref(),
            Some([Kept::Page(_)])
        ));
        assert!(recent.0.read().before.len() <= MOST_BYTES / size);
        // More than all that fits.
        recent.add(revision(100), revision(101), &pages(1..=most + 1));
        let known = recent.0.read();
        assert_eq!(known.revisions, [revision(101)]);
        assert!(known.changes.is_empty() && known.of_page.is_empty());
        assert!(known.before.is_empty());
    }

    /// Pages that were being read from the file when everything was forgotten.
    #[test]
    fn v22_what_was_heard_of_another_life_is_not_remembered() {
        let recent = Recent::default();
        recent.add(revision(1), revision(2), &pages(1..=1));
        let life = recent.life();
        recent.clear();
        recent.add(revision(1), revision(2), &pages(1..=1));
        let data = Bytes::from_static(b"another");
        recent.heard(life, Seq(1), std::iter::once((PageNo::FIRST, &data)));
        assert_eq!(recent.pages(Seq(1), &[PageNo::FIRST]), None);
    }

    #[test]
    fn v22_a_revision_that_follows_no_other_starts_over() {
        let recent = Recent::default();
        recent.add(revision(1), revision(2), &pages(1..=1));
        recent.add(revision(5), revision(6), &pages(2..=2));
        assert_eq!(recent.revision(Seq(2)), None);
        assert_eq!(recent.pages(Seq(1), &pages(2..=2)), None);
        assert_eq!(recent.pages(Seq(5), &pages(1..=1)), Some(vec![Kept::Unchanged]));
    }
}
