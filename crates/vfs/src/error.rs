//! What a read of a replica's file fails with. SQLite only carries a number; the text reaches the SQL caller through
//! [`crate::sqlite::context`].

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use partial_sync_core::{PageNo, admit::WrongLength};

/// What a source failed with; it reaches the SQL caller unchanged, as the source of the query's error.
pub type SourceError = Arc<dyn Error + Send + Sync>;

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system failed.
    #[error("could not {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file ends before what must be in it: somebody else cut, replaced or removed it.
    #[error(
        "{} ends before byte {end}, which must be in it; was it changed by another program?", path.display()
    )]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Up to where it was read.
        end: u64,
    },
    /// The source failed.
    #[error("page {page} is not in the replica and could not be fetched: {source}")]
    Source {
        /// The page wanted.
        page: PageNo,
        /// Why.
        source: SourceError,
    },
    /// The source ended well, but without the page.
    #[error(
        "page {page} is not in the replica and the remote answered without it; check the replica with `partial-sync verify`"
    )]
    NotSent {
        /// The page wanted.
        page: PageNo,
    },
    /// The deadline passed.
    #[error(
        "page {page} is not in the replica and did not arrive within {waited:?}; check the connection to the remote or raise the \
         timeout, and run the query again"
    )]
    TimedOut {
        /// The page wanted.
        page: PageNo,
        /// How long the read waited.
        waited: Duration,
    },
    /// The statement was interrupted while it waited.
    #[error("interrupted while page {page} was being fetched")]
    Interrupted {
        /// The page wanted.
        page: PageNo,
    },
    /// The statement was interrupted while it waited for a pull.
    #[error("interrupted while a pull was being applied")]
    InterruptedByUser,
    /// The statement must not wait, and would have to.
    #[error("the statement was not to wait, and would have to: for {what}")]
    WouldWait {
        /// What for.
        what: &'static str,
    },
    /// A pull did not let new snapshots begin for too long.
    #[error("a pull is being applied and did not end within {waited:?}; run the statement again")]
    PullUnderWay {
        /// How long the statement waited.
        waited: Duration,
    },
    /// The fetch was given up.
    #[error("the fetch was abandoned; run the query again")]
    Abandoned,
    /// A page of the wrong length.
    #[error(transparent)]
    PageSize(#[from] WrongLength),
    /// The offset lies where no SQLite database goes.
    #[error("the offset lies beyond the largest database that SQLite allows")]
    BeyondEnd,
    /// A reader of an epoch that is over.
    #[error("the snapshot's revision is no longer known; begin a new transaction")]
    NoBase,
    /// A statement wanted to attach a file that is a replica, or is to copy a database over it.
    #[error(
        "{} is a replica, which cannot be attached: what is written there would not be recorded, and absent pages \
         could not be fetched. Open it as a database of its own, and copy rows over", path.display()
    )]
    AttachesReplica {
        /// The file.
        path: PathBuf,
    },
    /// The file was open in the process that this one was forked from.
    #[error(
        "{} was open already when this process was forked from its parent: SQLite's locks on it are the parent's, and what is \
         written here would be lost. Close it before the fork, or open it in one of the two only", path.display()
    )]
    OpenInParent {
        /// The database file.
        path: PathBuf,
    },
    /// The replica was closed.
    #[error("the replica was closed, and this connection with it; open the database again")]
    Closed,
    /// An earlier open of the same file has connections that were not closed.
    #[error(
        "{} was closed, but {handles} of its files are still in use by connections of that open; drop what is left of \
         them (statements, iterators) first", path.display()
    )]
    LeftOpen {
        /// The database file.
        path: PathBuf,
        /// How many files its connections have open.
        handles: usize,
    },
}

impl ReadError {
    /// For `map_err`: what was being done to which file.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}
