//! The one error of this crate. Its text says what was being done, what happened and what the caller can do.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use partial_sync_core::{ChangeId, InvalidSegmentSize, PageNo};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use partial_sync_vfs::{ReadError, sqlite};

use crate::{change, options::OptionError};

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Nothing that was committed is lost by any of these.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// SQLite refused a statement, or a page that it needed could not be had.
    #[error("{0}")]
    Sqlite(#[from] SqliteError),
    /// The remote could not be used.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// The remote is needed, but there is none.
    #[error("{operation} needs the remote, but this database was opened without one: give its url")]
    NoRemote {
        /// What was being done.
        operation: &'static str,
    },
    /// The remote's database is needed, but nothing of it was fetched yet.
    #[error("{operation} needs the remote's database, nothing of which was fetched yet: pull first")]
    NotPulledYet {
        /// What was being done.
        operation: &'static str,
    },
    /// What is at the path is not a replica.
    #[error("{} is not a replica: {why}", path.display())]
    NotAReplica {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The replica at the path belongs to another remote.
    #[error(
        "the replica at {} belongs to {replica}, not to {asked}; open it with its own url, or use another path for the \
         other remote. If its database has moved there, say so with accept_new_url", path.display()
    )]
    OtherRemote {
        /// The path.
        path: PathBuf,
        /// Url that the replica was made from.
        replica: String,
        /// Url that was given.
        asked: String,
    },
    /// Somebody else has the replica open.
    #[error("{} is open already, in another process or in another way; close it there first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Another program wrote to the replica's files while they were not open here.
    #[error(
        "{} was changed by another program: {how}. What that program wrote was not recorded and cannot be pushed; its \
         pages may not fit together any more. Move the file and its side files away and connect again{}",
        path.display(), not_pushed(*unpushed)
    )]
    ChangedElsewhere {
        /// The path.
        path: PathBuf,
        /// What shows it.
        how: &'static str,
        /// Recorded changes that were not pushed when it was last closed, where that is known.
        unpushed: Option<u64>,
    },
    /// The replica was closed, but not all that stands on it: its files are still in use.
    #[error(
        "{} is still in use by {what} of this process; drop what is left of them (statements and iterators keep their \
         connection)", path.display()
    )]
    LeftOpen {
        /// The path.
        path: PathBuf,
        /// By what.
        what: &'static str,
    },
    /// The replica is open in this process with another value of an option that all who have it open share.
    #[error(
        "{} is open already in this process with another {option}; close it there first, or give the same {option}",
        path.display()
    )]
    OpenedOtherwise {
        /// The path.
        path: PathBuf,
        /// The option.
        option: &'static str,
    },
    /// An invalid option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// An invalid segment size in a replica's files.
    #[error(transparent)]
    SegmentSize(#[from] InvalidSegmentSize),
    /// A bootstrap query that the remote did not run.
    #[error("the bootstrap query failed: {message}; it must be a single SELECT that the remote can run")]
    BootstrapQuery {
        /// The remote's words.
        message: String,
    },
    /// The file system failed.
    #[error("could not {operation} {}: {source}", path.display())]
    Storage {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The remote's database cannot be replicated.
    #[error("the remote's database cannot be used: {why}")]
    UnusableDatabase {
        /// What is wrong.
        why: String,
    },
    /// The remote refused a change; nothing of its batch landed and the change log is as it was.
    #[error("{0}")]
    PushRefused(Box<change::push::PushRefused>),
    /// A local change cannot be put on top of what the remote has now; the pull did not happen.
    #[error(
        "local change {change} to {what} cannot be put on top of the remote's new state: {message}; change the rows that \
         are in its way, or discard the change with discard_change({change}), and pull again"
    )]
    PullConflict {
        /// The change.
        change: ChangeId,
        /// Table, with the row's key where it has one.
        what: String,
        /// SQLite's words.
        message: String,
    },
    /// The remote and the replica disagree about what was pushed: one of them was restored from a backup.
    #[error(transparent)]
    Position(#[from] change::position::PositionError),
    /// Changes that cannot be sent, or that the remote would not take now.
    #[error("{message}")]
    Unsendable {
        /// The change, where it is the fault of one.
        change: Option<ChangeId>,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The change log or the file of a pull under way is damaged.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which.
        what: &'static str,
        /// How.
        why: String,
    },
    /// Something that would break a replica.
    #[error("{what} is not possible on a replica: {why}")]
    Unsupported {
        /// The statement or pragma.
        what: String,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// Cancelled while it waited.
    #[error("{operation} was cancelled; nothing is lost, call it again")]
    Interrupted {
        /// What was being done.
        operation: &'static str,
    },
    /// What ran under [`Connection::without_waiting`](crate::Connection::without_waiting) would have had to wait.
    #[error("this would have to wait; run it where it may")]
    WouldWait,
    /// Another pull, push or checkpoint took too long.
    #[error(
        "{operation} waited for another pull, push or checkpoint of this database for too long; call it again"
    )]
    SyncBusy {
        /// What was being done.
        operation: &'static str,
    },
    /// A page could not be stored or read.
    #[error("{0}")]
    Read(Arc<ReadError>),
    /// A query that must give a row gave none.
    #[error("the query gave no row")]
    NoRows,
    /// A value that is not of the type it was asked as, or that SQLite has no type for.
    #[error("{0}")]
    Conversion(String),
}

/// What SQLite said.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{inner}")]
pub struct SqliteError {
    /// SQLite's code, text and, where a page was missing, the cause.
    #[source]
    inner: Arc<sqlite::Error>,
}

impl SqliteError {
    /// Primary result code, `SQLITE_CONSTRAINT` = 19, ...
    pub fn code(&self) -> i32 {
        self.inner.code
    }

    /// Extended result code, `SQLITE_CONSTRAINT_UNIQUE` = 2067, ...
    pub fn extended_code(&self) -> i32 {
        self.inner.extended_code
    }

    /// SQLite's text alone.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The cause, where the VFS gave one.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.inner.source.as_deref()
    }
}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        if let Some(ReadError::AttachesReplica { path }) =
            error.source.as_deref().and_then(|source| source.downcast_ref())
        {
            return Self::Unsupported {
                what: format!("ATTACH or VACUUM INTO with {}", path.display()),
                why: "that file is a replica: what is written there would not be recorded, and absent pages could not \
                      be fetched. Open it as a database of its own",
            };
        }
        Self::Sqlite(SqliteError {
            inner: Arc::new(error),
        })
    }
}

impl From<crate::log::LogError> for Error {
    fn from(error: crate::log::LogError) -> Self {
        match error {
            crate::log::LogError::Sqlite(error) => error.into(),
            crate::log::LogError::Codec(error) => Self::Damaged {
                what: "the change log",
                why: error.to_string(),
            },
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Read(Arc::new(error))
    }
}

impl Error {
    pub(crate) fn not_a_replica(path: &Path, why: String) -> Self {
        Self::NotAReplica {
            path: path.to_owned(),
            why,
        }
    }

    pub(crate) fn storage(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Storage {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn read_error(&self) -> Option<&ReadError> {
        match self {
            Self::Sqlite(e) => e.cause()?.downcast_ref::<ReadError>(),
            Self::Read(e) => Some(e),
            _ => None,
        }
    }

    /// The remote's error, where that is the cause: of a pull or push, or of a query that needed a page.
    pub fn remote(&self) -> Option<&RemoteError> {
        match (self, self.read_error()) {
            (Self::Remote(e), _) => Some(e),
            (_, Some(ReadError::Source { source, .. })) => {
                source.downcast_ref::<PageFetchError>().map(|e| &e.source)
            }
            _ => None,
        }
    }

    /// The local change that a push or pull failed at, where it was one: for
    /// [`Database::discard_change`](crate::Database::discard_change).
    pub fn change(&self) -> Option<ChangeId> {
        match self {
            Self::PushRefused(refused) => refused.change_id,
            Self::PullConflict { change, .. } => Some(*change),
            Self::Unsendable { change, .. } => *change,
            _ => None,
        }
    }

    /// The page that could not be had, where that is what failed.
    pub fn page(&self) -> Option<PageNo> {
        match self.read_error()? {
            ReadError::Source { page, .. }
            | ReadError::NotSent { page }
            | ReadError::TimedOut { page, .. }
            | ReadError::Interrupted { page } => Some(*page),
            _ => None,
        }
    }

    /// The remote no longer keeps the revision that a snapshot needs.
    pub fn is_revision_expired(&self) -> bool {
        self.remote()
            .is_some_and(|e| e.kind == RemoteErrorKind::RevisionExpired)
    }

    /// The token is missing, wrong or expired.
    pub fn is_unauthorized(&self) -> bool {
        self.remote()
            .is_some_and(|e| e.kind == RemoteErrorKind::Unauthorized)
    }

    /// The call may succeed later without anyone changing anything: the network, a deadline, a busy database.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::SyncBusy { .. } | Self::InUse { .. } | Self::LeftOpen { .. } => true,
            Self::Sqlite(e) if matches!(e.code(), 5 | 6) => true,
            _ => {
                self.remote().is_some_and(RemoteError::is_transient)
                    || matches!(
                        self.read_error(),
                        Some(
                            ReadError::TimedOut { .. }
                                | ReadError::PullUnderWay { .. }
                                | ReadError::Abandoned
                        )
                    )
            }
        }
    }

    /// SQLite has rolled the transaction back by itself before this statement, which was therefore not run: nothing is until
    /// the transaction is ended with ROLLBACK or COMMIT.
    pub fn is_transaction_lost(&self) -> bool {
        matches!(self, Self::Sqlite(e) if e.extended_code() == sqlite::codes::ABORT_ROLLBACK)
    }

    /// The call was interrupted or cancelled.
    pub fn is_interrupted(&self) -> bool {
        match self {
            Self::Interrupted { .. } => true,
            Self::Sqlite(e) => e.code() == 9,
            _ => matches!(
                self.read_error(),
                Some(ReadError::Interrupted { .. } | ReadError::InterruptedByUser)
            ),
        }
    }
}

/// For [`Error::ChangedElsewhere`].
fn not_pushed(changes: Option<u64>) -> String {
    match changes {
        Some(0) => "; no local change is lost, all of them were pushed".into(),
        Some(n) => format!(
            "; {n} local changes that were not pushed are in the file that is moved away, which any SQLite program \
             reads"
        ),
        None => "; local changes that were not pushed are in the files that are moved away".into(),
    }
}

/// Why a page fetch failed: the remote's error, and the url it was asked at.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct PageFetchError {
    #[source]
    pub(crate) source: RemoteError,
}
