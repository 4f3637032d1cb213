//! Pages of one revision, whatever has been committed since.

use std::sync::Arc;

use bytes::Bytes;
use partial_sync_core::{PageId, PageNo, PageSize};
use roaring::RoaringBitmap;

use super::ids::ids_of;
use crate::{
    error::{HistoryError, ServerError},
    follow::{Current, Follower},
    history::{Kept, RevisionRecord, Seq},
};

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
        // The snapshot first, the history second: a page without a pre-image after our revision is then in the snapshot
        // as it was at our revision, even if the next revision is being recorded meanwhile.
        let current = self.follower.current();
        let snapshot = &current.snapshot;
        if current.seq == self.at.seq {
            return pages.iter().map(|page| Ok(snapshot.read(*page)?)).collect();
        }
        let kept = self.follower.history().pages_at(self.at.seq, pages);
        // Before its outcome: after the end, the same numbers are other revisions.
        self.follower.check_open()?;
        let kept = kept?;
        let one = |(page, kept): (&PageNo, Kept)| match kept {
            Kept::Page(data) => Ok(data),
            Kept::Unchanged => Ok(snapshot.read(*page)?),
        };
        pages.iter().zip(kept).map(one).collect()
    }

    /// The page numbers that differ between an earlier revision and this one, or may.
    pub fn changed_since(&self, since: Seq) -> Result<RoaringBitmap, HistoryError> {
        match since == self.at.seq {
            true => Ok(RoaringBitmap::new()),
            false => {
                let changed = self.follower.history().changed(since, self.at.seq);
                self.follower.check_open()?;
                changed
            }
        }
    }

    /// Fails if one of these page ids is no longer to be had at this revision.
    pub(super) fn check_none_lost(&self, ids: &RoaringBitmap) -> Result<(), HistoryError> {
        if ids.is_empty() || self.follower.current().seq == self.at.seq {
            return Ok(());
        }
        let lost = self.follower.history().lost(self.at.seq);
        self.follower.check_open()?;
        let lost = ids_of(&lost?);
        match (&lost & ids).min().and_then(|id| PageId(id).no()) {
            None => Ok(()),
            Some(page) => Err(HistoryError::Lost {
                seq: self.at.seq,
                page,
            }),
        }
    }
}
