//! The states of a followed file that goes to a log: what the page history does not keep, or lost, the log may have.

use std::{io::IoSliceMut, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use partial_sync_core::{PageNo, PageSize, Revision};
use roaring::RoaringBitmap;
use tokio::sync::watch;

use super::{follower::Follower, log::RevisionLog};
use crate::{
    error::{HistoryError, ServerError},
    history::{Comparison, RevisionRecord, Seq},
    states::{Found, Latest, States},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct LoggedStates {
    follower: Arc<Follower>,
    log: Arc<dyn RevisionLog>,
}

impl LoggedStates {
    /// Those of a file and its log.
    pub(crate) fn new(follower: Arc<Follower>, log: Arc<dyn RevisionLog>) -> Self {
        Self { follower, log }
    }

    /// What the page history says, or if it does not have a state, what the log does, which has all until `until`.
    fn either<T>(
        &self,
        until: Seq,
        of_file: impl FnOnce(&Follower) -> Result<T, HistoryError>,
        of_log: impl FnOnce(&dyn States) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        match of_file(&self.follower) {
            Err(HistoryError::Expired(_) | HistoryError::Unknown(_)) => of_log(&*self.log.states(until)?),
            told => told,
        }
    }
}

impl States for LoggedStates {
    fn page_size(&self) -> PageSize {
        self.follower.page_size()
    }

    fn is_writable(&self) -> bool {
        self.follower.is_writable() && !self.log.is_fenced()
    }

    fn check_open(&self) -> Result<(), ServerError> {
        States::check_open(&*self.follower)
    }

    fn latest(&self) -> Latest {
        self.follower.latest()
    }

    fn subscribe(&self) -> watch::Receiver<Latest> {
        States::subscribe(&*self.follower)
    }

    fn up_to_date(self: Arc<Self>) -> BoxFuture<'static, Result<Latest, ServerError>> {
        Arc::clone(&self.follower).up_to_date()
    }

    fn find(&self, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError> {
        let current = self.follower.current();
        let Some(seq) = current.generation.parse(revision) else {
            return Ok(None);
        };
        if seq > current.seq {
            // Were it told that there is none, a replica would begin again with a state that is older than its own.
            return match self.log.states(seq)?.find(revision) {
                Ok(None) => Ok(None),
                Ok(Some(_)) | Err(HistoryError::Expired(_)) => Err(ServerError::Behind(seq).into()),
                Err(error) => Err(error),
            };
        }
        self.either(seq, |file| file.find(revision), |log| log.find(revision))
    }

    fn find_at_once(&self, revision: &Revision) -> Found {
        match self.follower.find_at_once(revision) {
            Found::Unknown if self.follower.current().generation.parse(revision).is_some() => {
                Found::NotAtOnce
            }
            found => found,
        }
    }

    fn pages(&self, at: RevisionRecord, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError> {
        let mut found = self.either(at.seq, |file| file.pages(at, pages), |log| log.pages(at, pages))?;
        let lost: Vec<_> = (0..pages.len()).filter(|n| found[*n].is_none()).collect();
        if !lost.is_empty() {
            let pages: Vec<_> = lost.iter().map(|n| pages[*n]).collect();
            let of_log = self.log.states(at.seq)?.pages(at, &pages)?;
            for (n, page) in lost.into_iter().zip(of_log) {
                found[n] = page;
            }
        }
        Ok(found)
    }

    fn changed(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        self.either(
            since.seq.max(until.seq),
            |file| file.changed(since, until, among),
            |log| log.changed(since, until, among),
        )
    }

    fn changed_at_once(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        self.follower.changed_at_once(since, until)
    }

    fn check_none_lost(&self, _: RevisionRecord, _: &RoaringBitmap) -> Result<(), HistoryError> {
        // What the history lost, the log has, or says so when it is asked.
        Ok(())
    }

    fn comparing(&self) -> Option<Comparison> {
        States::comparing(&*self.follower)
    }

    fn compare_some(self: Arc<Self>) -> BoxFuture<'static, Result<(), ServerError>> {
        Arc::clone(&self.follower).compare_some()
    }

    fn read_at_once(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        to: &mut [IoSliceMut<'_>],
    ) -> Result<bool, ServerError> {
        self.follower.read_at_once(at, pages, to)
    }
}
