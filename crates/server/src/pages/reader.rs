//! Pages of one revision, whatever has been committed since.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use partial_sync_core::{PageNo, PageSize};
use roaring::RoaringBitmap;

use crate::{
    error::{HistoryError, ServerError},
    history::RevisionRecord,
    states::{Statement, States},
};

/// Reads pages of one revision. Holds no snapshot between two calls; all calls block.
#[derive(Clone, Debug)]
pub struct RevisionReader {
    states: Arc<dyn States>,
    at: RevisionRecord,
    /// The query that reads, if it is one.
    query: Option<Arc<Statement>>,
}

impl RevisionReader {
    /// A reader of a revision that was published.
    pub fn new(states: Arc<dyn States>, at: RevisionRecord) -> Self {
        let query = None;
        Self { states, at, query }
    }

    /// The same for a query.
    pub(super) fn of_query(&self, query: &Arc<Statement>) -> Self {
        Self {
            query: Some(Arc::clone(query)),
            ..self.clone()
        }
    }

    /// The revision.
    pub fn at(&self) -> RevisionRecord {
        self.at
    }

    /// The page size, which is the same at all revisions.
    pub fn page_size(&self) -> PageSize {
        self.states.page_size()
    }

    pub(super) fn states(&self) -> &dyn States {
        &*self.states
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
        let found = match &self.query {
            Some(query) => self.states.pages_of_query(self.at, pages, query)?,
            None => self.states.pages(self.at, pages)?,
        };
        let found = pages.iter().zip(found).map(|(page, data)| {
            data.ok_or(HistoryError::Lost {
                seq: self.at.seq,
                page: *page,
            })
        });
        found.collect()
    }

    /// Before pages are read, some now and others soon. Blocks no thread.
    pub(super) fn draw_near(
        &self,
        now: &[PageNo],
        soon: &[PageNo],
        query: Option<&Arc<Statement>>,
    ) -> BoxFuture<'static, Result<(), HistoryError>> {
        Arc::clone(&self.states).draw_near(self.at, now, soon, query)
    }

    /// Those of the page ids that differ between an earlier revision and this one, or may.
    pub(super) fn changed_since(
        &self,
        since: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        self.states.changed(since, self.at, among)
    }

    /// The page ids that differ between an earlier revision and this one, if that can be told without waiting.
    pub(super) fn changed_at_once(
        &self,
        since: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        self.states.changed_at_once(since, self.at)
    }

    /// Fails if one of these page ids is no longer to be had at this revision.
    pub(super) fn check_none_lost(&self, ids: &RoaringBitmap) -> Result<(), HistoryError> {
        self.states.check_none_lost(self.at, ids)
    }
}
