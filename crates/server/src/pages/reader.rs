//! Pages of one revision, whatever has been committed since.

use std::sync::Arc;

use bytes::Bytes;
use partial_sync_core::{PageId, PageNo, PageSize};
use roaring::RoaringBitmap;

use super::ids::{ids_of, not_before};
use crate::{
    error::{HistoryError, ServerError},
    follow::{Current, Follower},
    history::{Kept, RevisionRecord, Seq, page_hash},
};

/// Pages that are compared at a time.
const AT_A_TIME: usize = 64;

/// Reads pages of one revision. Holds no snapshot between two calls; all calls block.
#[derive(Clone, Debug)]
pub struct RevisionReader {
    follower: Arc<Follower>,
    at: RevisionRecord,
}

impl RevisionReader {
    /// A reader of a revision that the follower has published.
    pub fn new(follower: Arc<Follower>, at: RevisionRecord) -> Self {
        Self { follower, at }
    }

    /// The revision.
    pub fn at(&self) -> RevisionRecord {
        self.at
    }

    /// The page size, which is the same at all revisions.
    pub fn page_size(&self) -> PageSize {
        self.follower.current().snapshot.page_size()
    }

    /// The latest state.
    pub(super) fn current(&self) -> Arc<Current> {
        self.follower.current()
    }

    /// What is known of pages without waiting, where `current` is the latest state or was: [`Kept::Page`] or
    /// [`Kept::Unchanged`], that is in its snapshot.
    pub(super) fn at_once(&self, current: &Current, pages: &[PageNo]) -> Option<Vec<Kept>> {
        if current.seq == self.at.seq {
            return Some(vec![Kept::Unchanged; pages.len()]);
        }
        // As in `look`: the snapshot was first.
        let kept = self.follower.history().pages_at_once(self.at.seq, pages)?;
        let known = |kept: &Kept| matches!(kept, Kept::Page(_) | Kept::Unchanged);
        kept.iter().all(known).then_some(kept)
    }

    /// Reads pages, in the order asked.
    pub fn read(&self, pages: &[PageNo]) -> Result<Vec<Bytes>, HistoryError> {
        if pages.is_empty() {
            // The end of an answer: its revision may have expired since the last page was read.
            return Ok(Vec::new());
        }
        if let Some(beyond) = pages.iter().find(|page| !self.at.db_size.contains(**page)) {
            let (page, size) = (*beyond, self.at.db_size);
            return Err(ServerError::NoSuchPage { page, size }.into());
        }
        let found = self.look(pages)?;
        let found = pages.iter().zip(found).map(|(page, data)| {
            data.ok_or(HistoryError::Lost {
                seq: self.at.seq,
                page: *page,
            })
        });
        found.collect()
    }

    /// The same; `None` = what the page was is gone.
    fn look(&self, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError> {
        // The snapshot first, the history second: a page without a pre-image after our revision is then in the snapshot
        // as it was at our revision, even if the next revision is being recorded meanwhile.
        let current = self.follower.current();
        let snapshot = &current.snapshot;
        let kept = match self.at_once(&current, pages) {
            Some(kept) => Ok(kept),
            None => self.follower.history().pages_at(self.at.seq, pages),
        };
        // Before its outcome: after the end, the same numbers are other revisions.
        self.follower.check_open()?;
        let one = |(page, kept): (&PageNo, Kept)| {
            Ok(match kept {
                Kept::Page(data) => Some(data),
                Kept::Unchanged => Some(snapshot.read(*page)?),
                Kept::UnchangedIf(hash) if snapshot.db_size().contains(*page) => {
                    Some(snapshot.read(*page)?).filter(|data| page_hash(data) == hash)
                }
                Kept::UnchangedIf(_) | Kept::Lost => None,
            })
        };
        pages.iter().zip(kept?).map(one).collect()
    }

    /// Those of the page ids that differ between an earlier revision and this one, or may.
    pub(super) fn changed_since(
        &self,
        since: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        if let Some(changed) = self.changed_at_once(since)? {
            return Ok(changed & among);
        }
        // Before the history is asked: what is compared later is in its answer.
        let uncompared = match self.follower.comparing() {
            Some(comparing) if comparing.seq > self.at.seq => RoaringBitmap::new(),
            _ => self.uncompared(since.seq, among),
        };
        let changed = self.follower.history().changed(since.seq, self.at.seq);
        self.follower.check_open()?;
        let mut changed = ids_of(&changed?) & among;
        let before = Self::new(Arc::clone(&self.follower), since);
        for pages in chunks(&(uncompared - &changed)) {
            let (old, new) = pages.split_at(pages.partition_point(|page| since.db_size.contains(*page)));
            let same = before.look(old)?;
            let differ = old.iter().zip(same).filter(|(_, same)| same.is_none());
            changed.extend(differ.map(|(page, _)| page).chain(new).map(|page| page.id().0));
        }
        Ok(changed)
    }

    /// The page ids that differ between an earlier revision and this one, if that can be told without waiting.
    pub(super) fn changed_at_once(
        &self,
        since: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        let comparing = self.follower.comparing();
        if comparing.is_some_and(|comparing| since.seq < comparing.seq) {
            return Ok(None);
        }
        let changed = self.follower.history().changed_at_once(since.seq, self.at.seq);
        self.follower.check_open()?;
        Ok(changed.map(|changed| ids_of(&changed)))
    }

    /// Those of the page ids of which the history does not know yet whether they are as they were at a revision.
    fn uncompared(&self, at: Seq, among: &RoaringBitmap) -> RoaringBitmap {
        let comparing = self.follower.comparing().filter(|comparing| at < comparing.seq);
        comparing.map_or_else(RoaringBitmap::new, |comparing| not_before(among, comparing.next))
    }

    /// Fails if one of these page ids is no longer to be had at this revision.
    pub(super) fn check_none_lost(&self, ids: &RoaringBitmap) -> Result<(), HistoryError> {
        if ids.is_empty() || self.follower.current().seq == self.at.seq {
            return Ok(());
        }
        let uncompared = self.uncompared(self.at.seq, ids);
        let lost = self.follower.history().lost(self.at.seq);
        self.follower.check_open()?;
        let lost = ids_of(&lost?);
        if let Some(page) = (&lost & ids).min().and_then(|id| PageId(id).no()) {
            return Err(HistoryError::Lost {
                seq: self.at.seq,
                page,
            });
        }
        chunks(&uncompared).try_for_each(|pages| self.read(&pages).map(drop))
    }
}

/// The pages of these ids, a few at a time.
fn chunks(ids: &RoaringBitmap) -> impl Iterator<Item = Vec<PageNo>> {
    let mut pages = ids.iter().filter_map(|id| PageId(id).no());
    std::iter::from_fn(move || {
        let chunk: Vec<_> = pages.by_ref().take(AT_A_TIME).collect();
        (!chunk.is_empty()).then_some(chunk)
    })
}
