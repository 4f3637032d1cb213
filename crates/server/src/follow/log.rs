//! The seam to a log outside of this machine that a database's revisions go to before they are published.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use partial_sync_core::{PageCount, PageNo};

use super::snapshot::Snapshot;
use crate::{
    error::ServerError,
    history::{Generation, History, Seq},
    states::States,
};

/// Pages of a revision, ascending.
pub(crate) type Pages<'a> = dyn Iterator<Item = Result<(PageNo, Bytes), ServerError>> + 'a;

/// A log. Its transactions have the numbers of revisions.
pub(crate) trait RevisionLog: Send + Sync + fmt::Debug {
    /// Sees to it that the log has a revision: its transaction, of these pages, is there when this returns. Blocks. After an error it may
    /// be there or not; the same is to be asked again before anything else.
    fn ship(
        &self,
        seq: Seq,
        db_size: PageCount,
        unix_ms: i64,
        pages: &mut Pages<'_>,
    ) -> Result<(), ServerError>;

    /// Another server writes the log.
    fn is_fenced(&self) -> bool;

    /// How long somebody waits for it, also where many others do.
    fn patience(&self) -> Duration;

    /// Whether the answer to a commit waits for it.
    fn is_durable(&self) -> bool;

    /// The states that it keeps, up to this one at least. Blocks.
    fn states(&self, until: Seq) -> Result<Arc<dyn States>, ServerError>;

    /// Nobody waits for it for long any more.
    fn close(&self);

    /// Keeps it in order beside all that; to be dropped when it is closed.
    fn keep(self: Arc<Self>) -> BoxFuture<'static, ()>;
}

/// Attaches a database's file to its log.
pub(crate) trait AttachLog: Send + fmt::Debug {
    /// Makes the file's state the last one of the log. Blocks; nobody is served meanwhile.
    fn attach(&self, file: &File<'_>) -> Result<Attached, ServerError>;
}

/// The file as it is, and what is known of it.
pub(crate) struct File<'a> {
    pub snapshot: &'a Arc<Snapshot>,
    pub history: &'a dyn History,
    /// It is certainly at the latest revision.
    pub stands_still: bool,
    pub unix_ms: i64,
}

/// A log, and the revision that the file's state has in it.
pub(crate) struct Attached {
    pub log: Arc<dyn RevisionLog>,
    pub generation: Generation,
    pub seq: Seq,
}
