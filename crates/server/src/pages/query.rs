//! Query selectors: which pages a statement touches. [`SnapshotQueries`](super::SnapshotQueries) runs them; a server can be given another [`QueryRunner`].

use std::time::Duration;

use roaring::RoaringBitmap;

use super::reader::RevisionReader;
use crate::error::HistoryError;

/// How much a query selector may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Time it may run.
    pub time: Duration,
    /// Pages it may touch.
    pub pages: u64,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            pages: 1 << 20,
        }
    }
}

/// Why a query selector was not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It is not one statement that only reads.
    #[error("it must be a single SELECT (or WITH ... SELECT) statement")]
    NotASelect,
    /// SQLite refused it.
    #[error("{0}")]
    Sql(String),
    /// It took longer than allowed.
    #[error("it ran for more than {} ms; select fewer rows", .0.as_millis())]
    TooSlow(Duration),
    /// It touched more pages than allowed.
    #[error("it touched more than {0} pages; select fewer rows")]
    TooMany(u64),
    /// The pages of the revision cannot be read.
    #[error(transparent)]
    Pages(#[from] HistoryError),
}

/// Runs a statement on a read-only view of one revision and notes which pages it reads.
pub trait QueryRunner: Send + Sync {
    /// The ids of the pages that `sql` touches at the reader's revision. Blocks for at most the time allowed.
    fn touched(
        &self,
        pages: &RevisionReader,
        sql: &str,
        limits: &QueryLimits,
    ) -> Result<RoaringBitmap, QueryError>;
}
