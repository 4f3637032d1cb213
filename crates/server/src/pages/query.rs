//! Query selectors: which pages a statement touches. [`SnapshotQueries`](super::SnapshotQueries) runs them; a server can be given another [`QueryRunner`].

use std::{sync::Arc, time::Duration};

use super::{reader::RevisionReader, touched::Touched};
use crate::error::HistoryError;

/// How much a query selector may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Time it may run.
    pub time: Duration,
    /// Pages it may touch.
    pub pages: u64,
    /// Bytes of one value or row that SQLite may build for it.
    pub value_bytes: usize,
    /// Bytes of a pattern of LIKE or GLOB.
    pub pattern_bytes: usize,
    /// It ends when all statements of the process have so many bytes of SQLite's memory; `None` = half of what SQLite may have,
    /// if there is a limit.
    pub memory_bytes: Option<u64>,
    /// Bytes of temporary files of all selectors that run; one file may have half of them.
    pub temporary_bytes: u64,
    /// Selectors that run at the same time; others wait for their turn.
    pub at_once: usize,
    /// How many of these one caller has.
    pub of_caller: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(10),
            pages: 1 << 20,
            value_bytes: 16 << 20,
            pattern_bytes: 256,
            memory_bytes: None,
            temporary_bytes: 256 << 20,
            at_once: 16,
            of_caller: 4,
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
    /// All statements together take too much memory.
    #[error("the statements of this server have more than {0} bytes of memory together; try again later")]
    Memory(u64),
    /// What it sorts or groups does not fit into the temporary space.
    #[error("what it sorts or groups takes more temporary space than there is; select fewer rows")]
    Temporary,
    /// The pages of the revision cannot be read.
    #[error(transparent)]
    Pages(#[from] HistoryError),
}

/// Runs a statement on a read-only view of one revision and notes which pages it reads.
pub trait QueryRunner: Send + Sync {
    /// Notes the pages that `sql` touches at the reader's revision, when it touches them. Blocks for at most the time allowed, and
    /// ends soon after nobody wants to know any more.
    fn run(
        &self,
        pages: &RevisionReader,
        sql: &str,
        limits: &QueryLimits,
        touched: &Arc<Touched>,
    ) -> Result<(), QueryError>;
}
