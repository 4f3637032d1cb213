//! The seam between what answers requests for pages and what is served: the committed states of one database, as far as they are
//! kept, each with a revision and its pages. [`Follower`](crate::follow::Follower) has those of a file.
//!
//! Nothing here knows of HTTP, and nothing above it of files.

use std::{any::Any, fmt, io::IoSliceMut, num::NonZeroU64, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use partial_sync_core::{PageNo, PageSize, Revision};
use roaring::RoaringBitmap;
use tokio::sync::watch;

use crate::{
    error::{HistoryError, ServerError},
    history::{Comparison, RevisionRecord},
};

/// The latest state that has a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its number and size.
    pub at: RevisionRecord,
    /// The revision as clients see it.
    pub revision: Revision,
}

/// What is known of a revision that a client names, without waiting for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is kept.
    Kept(RevisionRecord),
    /// It is none of this database.
    Unknown,
    /// That has to be [looked up](States::find).
    NotAtOnce,
}

/// A query of which it is found out which pages of a state it touches. It runs here; who has to get pages from somewhere else may have it
/// run there, so that they come together.
#[derive(Debug)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// How many pages are wanted for it, at most.
    pub most: Option<NonZeroU64>,
    /// What the states remember of it.
    pub(crate) kept: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Statement {
    /// One that nobody has seen yet.
    pub fn new(sql: String, most: Option<NonZeroU64>) -> Self {
        let kept = Mutex::default();
        Self { sql, most, kept }
    }
}

/// The states of one database. Calls that are not futures and do not say otherwise may block.
pub trait States: Send + Sync + fmt::Debug {
    /// Bytes of a page, the same in all states.
    fn page_size(&self) -> PageSize;

    /// Whether SQL that this server is sent can change the database.
    fn is_writable(&self) -> bool;

    /// Whether SQL is passed on to a server that may know nothing of what this project adds.
    fn has_foreign_sql(&self) -> bool {
        false
    }

    /// Fails when the database is not the one that is served any more: then the same numbers are other revisions. What was read before
    /// this succeeds is of this one. Does not block.
    fn check_open(&self) -> Result<(), ServerError>;

    /// The latest state. Does not block.
    fn latest(&self) -> Latest;

    /// Wakes up whenever there is a new [`States::latest`], and when [`States::check_open`] begins to fail.
    fn subscribe(&self) -> watch::Receiver<Latest>;

    /// A state that is not older than any commit that had finished when this was called.
    fn up_to_date(self: Arc<Self>) -> BoxFuture<'static, Result<Latest, ServerError>>;

    /// The state that a client names; `None` = it is none of this database.
    fn find(&self, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError>;

    /// The same, as far as that can be told without waiting for anything.
    fn find_at_once(&self, revision: &Revision) -> Found;

    /// Pages of a state, in the order asked; `None` for one that is not to be had any more. They lie within its size.
    fn pages(&self, at: RevisionRecord, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError>;

    /// The same for a query that runs.
    fn pages_of_query(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        query: &Arc<Statement>,
    ) -> Result<Vec<Option<Bytes>>, HistoryError> {
        let _ = query;
        self.pages(at, pages)
    }

    /// Whether pages may have to be got from somewhere else, so that who reads some says so [before](Self::draw_near).
    fn are_far(&self) -> bool {
        false
    }

    /// Gets pages of a state that will be read, some of them before this is over, the others soon; and with them those that a query touches.
    fn draw_near(
        self: Arc<Self>,
        at: RevisionRecord,
        now: &[PageNo],
        soon: &[PageNo],
        query: Option<&Arc<Statement>>,
    ) -> BoxFuture<'static, Result<(), HistoryError>> {
        let (_, _, _, _) = (at, now, soon, query);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether one state is known to be newer than another.
    fn is_newer(&self, one: RevisionRecord, other: RevisionRecord) -> bool {
        one.seq > other.seq
    }

    /// A number that no two databases have in common which may call different states by one name; 0 = none does.
    fn namespace(&self) -> u64 {
        0
    }

    /// Those of the page ids that differ between two states, or may.
    fn changed(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError>;

    /// All page ids that differ between two states, if that can be told without waiting for anything.
    fn changed_at_once(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError>;

    /// Fails if one of these page ids is not to be had any more at a state.
    fn check_none_lost(&self, at: RevisionRecord, ids: &RoaringBitmap) -> Result<(), HistoryError>;

    /// How far the pages are compared, where it is not known yet which of them changed; `None` = it is known of all. Does not block.
    fn comparing(&self) -> Option<Comparison> {
        None
    }

    /// Compares a few more pages.
    fn compare_some(self: Arc<Self>) -> BoxFuture<'static, Result<(), ServerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Reads pages of a state into as many buffers, if they can be had without waiting for anything; `false` where they cannot. To be
    /// followed by [`States::check_open`].
    fn read_at_once(
        &self,
        at: RevisionRecord,
        pages: &[PageNo],
        to: &mut [IoSliceMut<'_>],
    ) -> Result<bool, ServerError> {
        let (_, _, _) = (at, pages, to);
        Ok(false)
    }
}
