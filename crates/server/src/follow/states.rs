//! The states of a followed file: the latest one is in its snapshot, and what the pages were before is in the page history.

use std::{io::IoSliceMut, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use partial_sync_core::{PageId, PageNo, PageSize, Revision};
use roaring::RoaringBitmap;
use tokio::sync::watch;

use super::{Current, Follower};
use crate::{
    error::{HistoryError, ServerError},
    history::{Comparison, Kept, RevisionRecord, Seq, page_hash},
    ids::{ids_of, not_before},
    states::{Found, Latest, States},
};

/// Pages that are compared at a time.
const AT_A_TIME: usize = 64;

impl States for Follower {
    fn page_size(&self) -> PageSize {
        self.current().snapshot.page_size()
    }

    fn is_writable(&self) -> bool {
        !self.files().read_only()
    }

    fn check_open(&self) -> Result<(), ServerError> {
        Follower::check_open(self)
    }

    fn latest(&self) -> Latest {
        self.current().latest().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Latest> {
        Follower::subscribe(self)
    }

    fn up_to_date(self: Arc<Self>) -> BoxFuture<'static, Result<Latest, ServerError>> {
        Box::pin(async move { Ok(self.refresh().await?.latest().clone()) })
    }

    fn find(&self, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError> {
        let seq = self.current().seq_of(revision);
        seq.map(|seq| self.history().revision(seq)).transpose()
    }

    fn find_at_once(&self, revision: &Revision) -> Found {
        let current = self.current();
        match current.seq_of(revision) {
            None => Found::Unknown,
            Some(seq) if seq == current.seq => Found::Kept(current.latest().at),
            Some(seq) => {
                let kept = self.history().revision_at_once(seq);
                kept.map_or(Found::NotAtOnce, Found::Kept)
            }
        }
    }

    fn pages(&self, at: RevisionRecord, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError> {
        // The snapshot first, the history second: a page without a pre-image after our revision is then in the snapshot
        // as it was at our revision, even if the next revision is being recorded meanwhile.
        let current = self.current();
        let snapshot = &current.snapshot;
        let kept = match self.known_at_once(&current, at, pages) {
            Some(kept) => Ok(kept),
            None => self.history().pages_at(at.seq, pages),
        };
        // Before its outcome: after the end, the same numbers are other revisions.
        Follower::check_open(self)?;
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

    fn changed(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        if let Some(changed) = self.changed_at_once(since, until)? {
            return Ok(changed & among);
        }
        // Before the history is asked: what is compared later is in its answer.
        let uncompared = match Follower::comparing(self) {
            Some(comparing) if comparing.seq > until.seq => RoaringBitmap::new(),
            _ => self.uncompared(since.seq, among),
        };
        let changed = self.history().changed(since.seq, until.seq);
        Follower::check_open(self)?;
        let mut changed = ids_of(&changed?) & among;
        for pages in chunks(&(uncompared - &changed)) {
            let (old, new) = pages.split_at(pages.partition_point(|page| since.db_size.contains(*page)));
            let same = self.pages(since, old)?;
            let differ = old.iter().zip(same).filter(|(_, same)| same.is_none());
            changed.extend(differ.map(|(page, _)| page).chain(new).map(|page| page.id().0));
        }
        Ok(changed)
    }

    fn changed_at_once(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        let comparing = Follower::comparing(self);
        if comparing.is_some_and(|comparing| since.seq < comparing.seq) {
            return Ok(None);
        }
        let changed = self.history().changed_at_once(since.seq, until.seq);
        Follower::check_open(self)?;
        Ok(changed.map(|changed| ids_of(&changed)))
    }

    fn check_none_lost(&self, at: RevisionRecord, ids: &RoaringBitmap) -> Result<(), HistoryError> {
        if ids.is_empty() || self.current().seq == at.seq {
            return Ok(());
        }
        let uncompared = self.uncompared(at.seq, ids);
        let lost = self.history().lost(at.seq);
        Follower::check_open(self)?;
        let lost = ids_of(&lost?) & ids;
        let mut page = lost.min().and_then(|id| PageId(id).no());
        for pages in chunks(&uncompared) {
            if page.is_some() {
                break;
            }
            let there = self.pages(at, &pages)?;
            page = pages
                .into_iter()
                .zip(there)
                .find_map(|(page, there)| there.is_none().then_some(page));
        }
        match page {
            Some(page) => Err(HistoryError::Lost { seq: at.seq, page }),
            None => Ok(()),
        }
    }

    fn comparing(&self) -> Option<Comparison> {
        Follower::comparing(self)
    }

    fn compare_some(self: Arc<Self>) -> BoxFuture<'static, Result<(), ServerError>> {
        Box::pin(async move { self.compare().await.map(drop) })
    }

    fn read_at_once(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        to: &mut [IoSliceMut<'_>],
    ) -> Result<bool, ServerError> {
        let current = self.current();
        let Some(known) = self.known_at_once(&current, at, pages) else {
            return Ok(false);
        };
        let (mut unchanged, mut places) = (Vec::with_capacity(pages.len()), Vec::with_capacity(pages.len()));
        for ((page, known), to) in pages.iter().zip(known).zip(to) {
            match known {
                Kept::Page(data) if data.len() == to.len() => to.copy_from_slice(&data),
                Kept::Unchanged => {
                    unchanged.push(*page);
                    places.push(IoSliceMut::new(to));
                }
                _ => return Ok(false),
            }
        }
        current.snapshot.read_at_once(&unchanged, &mut places)
    }
}

impl Follower {
    /// What is known of pages without waiting, where `current` is the latest state or was: [`Kept::Page`] or
    /// [`Kept::Unchanged`], that is in its snapshot.
    fn known_at_once(&self, current: &Current, at: RevisionRecord, pages: &[PageNo]) -> Option<Vec<Kept>> {
        if current.seq == at.seq {
            return Some(vec![Kept::Unchanged; pages.len()]);
        }
        // As in `pages`: the snapshot was first.
        let kept = self.history().pages_at_once(at.seq, pages)?;
        let known = |kept: &Kept| matches!(kept, Kept::Page(_) | Kept::Unchanged);
        kept.iter().all(known).then_some(kept)
    }

    /// Those of the page ids of which the history does not know yet whether they are as they were at a revision.
    fn uncompared(&self, at: Seq, among: &RoaringBitmap) -> RoaringBitmap {
        let comparing = Follower::comparing(self).filter(|comparing| at < comparing.seq);
        comparing.map_or_else(RoaringBitmap::new, |comparing| not_before(among, comparing.next))
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
