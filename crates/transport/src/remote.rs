//! The [`Remote`] trait: the two things a replica asks of a remote, pages and SQL, and what can go wrong.

use std::{fmt, num::NonZeroU64, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use partial_sync_core::{PageCount, PageId, PageSize, Revision};
use roaring::RoaringBitmap;

use crate::hrana::{Batch, BatchResult};

/// Which pages an answer should hold, before a query adds to them. Bitmaps hold 0-based page ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PageSelector {
    /// Every page (or, with [`PagesRequest::query`] alone, those that the query touches).
    #[default]
    All,
    /// These page ids; ids beyond the database's end are left out of the answer.
    Ids(RoaringBitmap),
}

/// One `POST /pull-updates`.
#[derive(Clone, Debug, Default)]
pub struct PagesRequest {
    /// The revision wanted; `None` = the latest.
    pub revision: Option<Revision>,
    /// "What changed since": the revision the replica has.
    pub since: Option<Revision>,
    /// With `since`: how long the remote may wait for a change before it answers that there is none.
    pub long_poll: Option<Duration>,
    /// Pages to send.
    pub select: PageSelector,
    /// Pages the replica has already; a remote with [`Features::hydrate`] leaves them out.
    pub have: Option<RoaringBitmap>,
    /// SQL whose touched pages are to be sent.
    pub query: Option<String>,
    /// With `query` and selected ids: pages that come along because the query touches them, at most; those in `have` are not
    /// counted. A remote that does not know it sends all of them.
    pub most_along: Option<NonZeroU64>,
    /// With `since`: pages to send even if unchanged; honoured with [`Features::require`] only.
    pub require: Option<RoaringBitmap>,
    /// Name the pages of the answer ([`PagesHeader::listed`]) and send none; for a remote with [`Features::list`].
    pub list: bool,
    /// The page size when the replica knows it already: a page of another size is an error.
    pub page_size: Option<PageSize>,
    /// Longest silence: from the request to the answer's header, and then between two pieces of it; also how far the
    /// answer may fall behind 4 KiB a second. `None` = the remote's default.
    pub deadline: Option<Duration>,
}

/// What a remote says it can do, from the answer's header `partial-sync-features`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `revision`, `select`, `have` and `query` together: selected pages first, then those the query touches.
    pub hydrate: bool,
    /// `require` is honoured.
    pub require: bool,
    /// Pages can come compressed.
    pub zstd: bool,
    /// `list` is honoured.
    pub list: bool,
    /// Bodies of requests can come compressed.
    pub zstd_bodies: bool,
    /// Pages can come compressed, many together.
    pub zstd_blocks: bool,
    /// It takes changes from who asks, as rows as they came out too.
    pub writes: bool,
    /// What it has of this project is the pages: SQL is passed on to a remote that may know nothing of it.
    pub foreign_sql: bool,
}

/// How the pages of a "what changed" answer are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyMode {
    /// The pages are those that changed.
    Incremental,
    /// The remote cannot say what changed: every page the replica has is to be taken as changed.
    ReplaceBase,
}

/// What comes before the pages of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesHeader {
    /// The revision that the pages belong to.
    pub revision: Revision,
    /// Size of the database at that revision. Some remotes state the latest size in an answer that was pinned with
    /// [`PagesRequest::revision`]: anyone who knows the size at that revision from an earlier answer should go by that.
    pub db_size: PageCount,
    /// See [`ApplyMode`].
    pub mode: ApplyMode,
    /// What the remote can do.
    pub features: Features,
    /// The ids of the pages of this answer, of which none comes; `None`: they come. It may be more than there are.
    pub listed: Option<RoaringBitmap>,
}

/// One page of an answer, decompressed; its length is a valid page size and the same for every page of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePage {
    /// 0-based id.
    pub id: PageId,
    /// The page's bytes as the remote has them.
    pub data: Bytes,
}

/// An answer whose header has arrived and whose pages are still coming. Every check of the protocol is made while it is
/// read: a stream that ends without an error was complete. Dropping it ends the transfer.
pub struct PageStream {
    /// The header.
    pub header: PagesHeader,
    /// The pages, in the order sent. Ends after the first error.
    pub pages: BoxStream<'static, Result<RemotePage, RemoteError>>,
}

impl fmt::Debug for PageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStream")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// Requests and bytes since the remote was made. Bytes are those of bodies, as they went over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// HTTP requests sent, retries included; to a bucket, as many as its store was asked for something.
    pub requests: u64,
    /// Bytes of request bodies.
    pub bytes_sent: u64,
    /// Bytes of answer bodies.
    pub bytes_received: u64,
}

/// A remote database. Implementations are cheap to call from many tasks at once.
pub trait Remote: Send + Sync + fmt::Debug {
    /// Asks for pages. Resolves when the answer's header has arrived.
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>>;

    /// Runs a batch of SQL. It is sent once and never retried by the remote itself: only the caller knows whether that
    /// is safe. Steps that fail are in the result; an error here means that the batch's fate may be unknown.
    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>>;

    /// Whether it runs SQL. One that does not has pages only: it takes no changes, and cannot tell what a query touches.
    fn runs_sql(&self) -> bool {
        true
    }

    /// Where this remote is, for messages; without secrets.
    fn url(&self) -> String;

    /// The same when it is known now; `None` while sync is paused ([`RemoteErrorKind::Paused`]).
    fn known_url(&self) -> Option<String> {
        Some(self.url())
    }

    /// Counters since the start.
    fn transferred(&self) -> TransferStats;
}

/// What went wrong between a replica and its remote.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What kind of failure it was.
    pub kind: RemoteErrorKind,
    /// What was being done, what happened and what the caller can do about it.
    pub message: String,
    /// The error underneath, where there is one.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of [`RemoteError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteErrorKind {
    /// The url cannot be used.
    InvalidUrl,
    /// No connection, or it broke.
    Unreachable,
    /// Nothing came within the deadline.
    TimedOut,
    /// 401 or 403: the token is missing, wrong, expired or not allowed to do this.
    Unauthorized,
    /// 404: there is no database at that url.
    NotFound,
    /// 410: the remote no longer keeps the revision.
    RevisionExpired,
    /// The remote does not know the revision.
    RevisionUnknown,
    /// The remote refused the request (another 4xx): bad query selector, too large, ...
    Refused,
    /// The remote failed (5xx), after the retries.
    Failed,
    /// The answer breaks the protocol: not a remote, a wrong page, a cut stream.
    Protocol,
    /// The token function or a decorator failed.
    Client,
    /// The url function gave no url: sync is paused.
    Paused,
}

impl RemoteError {
    /// An error without a cause underneath.
    pub fn new(kind: RemoteErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same with the error underneath.
    pub fn with_source(
        kind: RemoteErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(Arc::new(source)),
        }
    }

    /// Whether the same call may well succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            RemoteErrorKind::Unreachable | RemoteErrorKind::TimedOut | RemoteErrorKind::Failed
        )
    }
}
