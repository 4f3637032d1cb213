//! What can go wrong in the server, in two families: with a revision that a client names ([`HistoryError`]), and with
//! the server or a database as a whole ([`ServerError`]).
//!
//! Texts say what to do, with paths, for a log; [`ServerError::for_clients`] is what an answer may say. Nothing here
//! decides an HTTP status; `pages` does.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use partial_sync_core::{PageCount, PageNo};
use partial_sync_store::StoreError;
use partial_sync_transport::RemoteError;

use crate::{auth::CredentialError, history::revision::Seq};

/// What a page history can say instead of an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The history never made that revision.
    #[error("revision {0} was never made by this history")]
    Unknown(Seq),
    /// The revision was made and is no longer kept.
    #[error("revision {0} is no longer kept: start again from the latest revision")]
    Expired(Seq),
    /// The remote that is served does not keep the revision any more.
    #[error(
        "revision {0} is no longer kept by the remote that this server asks: start again from the latest revision"
    )]
    ExpiredElsewhere(String),
    /// The remote that is served does not know the revision any more.
    #[error(
        "revision {0} is unknown to the remote that this server asks: start again from the latest revision"
    )]
    UnknownElsewhere(String),
    /// So many revisions came since that this one is forgotten here, and has to be named again.
    #[error("the revision was forgotten while it was being read: ask again")]
    Forgotten,
    /// A page of that revision was overwritten while nobody looked, and its old bytes are gone.
    #[error(
        "page {page} of revision {seq} was overwritten while the server was not running: start again from the \
         latest revision"
    )]
    Lost {
        /// The revision asked for.
        seq: Seq,
        /// The page that is gone.
        page: PageNo,
    },
    /// Somebody else added a revision to the same history.
    #[error(
        "the page history is at revision {found}, not at {expected}: another server follows the same file; stop one"
    )]
    Conflict {
        /// The latest revision that the caller knows.
        expected: Seq,
        /// The revision that is the latest.
        found: Seq,
    },
    /// The history's file cannot be opened.
    #[error("the page history cannot be opened: {0}; is another server using it?")]
    Storage(#[from] std::io::Error),
    /// The history's file was moved or removed.
    #[error("the page history was moved or removed while it was in use: ask again")]
    Moved,
    /// A stored page cannot be read back.
    #[error("the page history is damaged ({0}): stop the server and delete the file that ends in -history")]
    Damaged(String),
    /// SQLite failed on the side database.
    #[error("the page history cannot be read or written: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The database that is being followed cannot be read.
    #[error("the database cannot be read: {0}")]
    Source(#[from] Box<ServerError>),
}

impl HistoryError {
    /// Whether the history could be read but not written: its disk is full, or was taken away.
    pub fn is_unwritable(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        let HistoryError::Sqlite(error) = self else {
            return false;
        };
        matches!(
            error.sqlite_error_code(),
            Some(CannotOpen | DiskFull | ReadOnly | SystemIoFailure)
        )
    }
}

/// What can go wrong with a server or with one of its databases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The path is neither a file nor a folder that can be served.
    #[error("{path} cannot be served: {reason}")]
    BadPath {
        /// The path given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is not a SQLite database, or SQLite cannot open it.
    #[error("{path} cannot be opened as a SQLite database: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// Another program holds the file so that it cannot be put into WAL mode.
    #[error(
        "{path} is in journal mode {mode} and cannot be put into WAL mode: close the programs that have it open"
    )]
    NotWal {
        /// The file.
        path: PathBuf,
        /// The mode it is in.
        mode: String,
    },
    /// SQLite failed on a database that was open.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// A file cannot be read or written.
    #[error("{path} cannot be {operation}: {source}")]
    Io {
        /// `read`, `opened`, ...
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another server follows this database.
    #[error(
        "{path} is already being served{}: stop that server, or serve a copy of the file",
        process.map(|id| format!(" by process {id}")).unwrap_or_default()
    )]
    InUse {
        /// The database.
        path: PathBuf,
        /// The other server's process, if it can be told.
        process: Option<u32>,
    },
    /// The path leads to another file than the one that was opened.
    #[error(
        "{path} was moved, removed or replaced, or its page history was, while it was being served: ask again for what \
         is there now"
    )]
    Replaced {
        /// The database.
        path: PathBuf,
    },
    /// A file that was being served is not there any more.
    #[error("{path} is not there any more: put it back, or put another database in its place")]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// A file has more than one name.
    #[error(
        "{path} has another name too, and a database has one only, since what is beside it belongs to the name: remove the other, or make \
         it a copy. `find FOLDER -samefile {path}` finds hard links; in a folder that takes capital letters for small ones, it may be that"
    )]
    TwoNames {
        /// The name that was asked for.
        path: PathBuf,
    },
    /// Another database cannot be open: the process may have too few descriptors for it.
    #[error(
        "{most} databases are in use, which is as many as there are file descriptors for: try again later, or let the \
         server have more (ulimit -n)"
    )]
    ManyInUse {
        /// How many.
        most: usize,
    },
    /// More names are asked for that are not known than are looked for at a time.
    #[error("too many databases are asked for that this server does not know yet: ask again in a moment")]
    ManyNames,
    /// A name that no new database may have.
    #[error("{name:?} cannot be the name of a database: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// There is a database, or something else, of the name of a new one.
    #[error("there is a database {name:?} already: give another name, or delete it first")]
    Exists {
        /// The name.
        name: String,
    },
    /// What is left of an older database would be taken for a part of the new one.
    #[error(
        "{path} is left of a database that is not there any more: put that one back, or remove the file if nothing of it \
         is wanted"
    )]
    Leftover {
        /// What is left.
        path: PathBuf,
    },
    /// A file that is not a backup.
    #[error("{path} cannot be restored: {reason}")]
    BadBackup {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A server has the database open and did not put the restored one in its place.
    #[error(
        "nothing was restored, because {path} is being served{} by a server that did not take the new file over. A database that is \
         replicated to a bucket is restored under another name and to an empty place. Is the server older than this program? Stop it, \
         restore, and start it again",
        process.map(|id| format!(", by process {id},")).unwrap_or_default()
    )]
    NotTakenOver {
        /// The database.
        path: PathBuf,
        /// The server's process, if it can be told.
        process: Option<u32>,
    },
    /// A server waits for a file that was moved away.
    #[error(
        "nothing was restored, because {path} was moved away while it was being served{}, by a server that waits for it to be put back: put \
         it back or stop that server, and restore then",
        process.map(|id| format!(" by process {id}")).unwrap_or_default()
    )]
    MovedAway {
        /// The database.
        path: PathBuf,
        /// The server's process, if it can be told.
        process: Option<u32>,
    },
    /// A restore cannot be completed now, and not be taken back either.
    #[error(
        "the restore of {path} has begun and is completed by the server that serves it, the next one that opens it, or the next \
         restore; what keeps it: {source}"
    )]
    RestoreBegun {
        /// The database.
        path: PathBuf,
        /// Why it is not completed.
        source: Box<ServerError>,
    },
    /// A server of one file has no others.
    #[error("this server serves one file, so no database can be {what}: start it with a folder")]
    OneDatabase {
        /// `made`, `removed`.
        what: &'static str,
    },
    /// A database cannot be removed while others have it open.
    #[error(
        "{path} is open in another program, or a statement on it does not end: close that program, or try again later"
    )]
    OpenElsewhere {
        /// The database.
        path: PathBuf,
    },
    /// What is to be written would fill the disk.
    #[error(
        "{needed} bytes would be written and {free} are free, of which {reserve} must stay: make room on the disk"
    )]
    DiskFull {
        /// What would be written.
        needed: u64,
        /// What may still be written, if it can be told.
        free: u64,
        /// [`Limits::disk_reserve`](crate::Limits::disk_reserve).
        reserve: u64,
    },
    /// Who administers has to show a token, wherever the server listens.
    #[error("administration needs a token: give one with --admin-token-file, or in PARTIAL_SYNC_ADMIN_TOKEN")]
    AdminWithoutToken,
    /// The WAL changed under a snapshot that should have kept it as it was.
    #[error("{path}: the WAL changed while it was being read; was the file replaced? Restart the server")]
    WalMoved {
        /// The database.
        path: PathBuf,
    },
    /// No moment could be found at which the database stood still.
    #[error(
        "{path}: no snapshot could be taken within {tries} tries; the database is written to without a pause"
    )]
    NoSnapshot {
        /// The database.
        path: PathBuf,
        /// How often it was tried.
        tries: u32,
    },
    /// A page that the database does not have was asked for.
    #[error("{page} was asked of a database of {size} pages")]
    NoSuchPage {
        /// The page.
        page: PageNo,
        /// The size.
        size: PageCount,
    },
    /// Only a database that is kept is replicated.
    #[error("a database in memory cannot be replicated: give the path of a file or a folder")]
    NothingToReplicate,
    /// A file that cannot be written is not the working copy of a log.
    #[error(
        "{path} cannot be written, so that it cannot be replicated: see its permissions and those of its folder"
    )]
    ReadOnlyFile {
        /// The file.
        path: PathBuf,
    },
    /// The bucket that the database is replicated to failed.
    #[error(transparent)]
    Log(Arc<StoreError>),
    /// The remote that is served failed.
    #[error("the remote that is served cannot be asked: {0}")]
    Origin(Arc<RemoteError>),
    /// The remote that is served did not answer in time.
    #[error("the remote that is served has not answered in time")]
    OriginTooSlow,
    /// The remote that is served has another history now.
    #[error(
        "the remote that is served has another history now than when it was first asked: ask again for what is there now"
    )]
    OriginReplaced,
    /// Another server has the folder of the cache.
    #[error("{path} is the cache of another server: give this one another folder")]
    CacheInUse {
        /// The folder.
        path: PathBuf,
    },
    /// There is no HTTP client for the writer of a bucket.
    #[error("no HTTP client can be made: {0}")]
    NoClient(String),
    /// A server of a bucket, or of another remote, has no files to administer.
    #[error(
        "a server with --from has nothing to administer: its databases are those of the server that writes them"
    )]
    NothingToAdminister,
    /// The bucket did not answer in time.
    #[error(
        "the bucket has not taken a commit in time: it stays in the database's file and is tried again; is the store reachable?"
    )]
    LogTooSlow,
    /// A revision that the log in the bucket has, and this server has not.
    #[error(
        "the bucket has revision {0}, and this server has not: another server writes the database now, which is the one to ask"
    )]
    Behind(Seq),
    /// The log in the bucket gave a transaction another id than the page history did.
    #[error("the log in the bucket is at transaction {found}, not at {expected}: start the server again")]
    OtherId {
        /// What the page history has.
        expected: Seq,
        /// What the log has.
        found: Seq,
    },
    /// The bucket has another database, or a later state of this one.
    #[error(
        "the file cannot be replicated to {bucket}: {why}. To go on with the database that is there, move the file away and          restore that one; to replicate this file, give an empty place{}",
        writer.as_ref().map_or_else(String::new, |url| format!(". The writer there is {url}"))
    )]
    OtherLog {
        /// The place in the bucket.
        bucket: String,
        /// The url of who writes there.
        writer: Option<String>,
        /// How that is known.
        why: String,
    },
    /// There is no file, and the bucket has a database.
    #[error(
        "{path} is not there, and {bucket} has a database: start with --take-over to restore it here, and to be its writer from now on{}",
        writer.as_ref().map_or_else(String::new, |url| format!(" in the place of {url}"))
    )]
    NoFile {
        /// The file.
        path: PathBuf,
        /// The place in the bucket.
        bucket: String,
        /// The url of who writes there.
        writer: Option<String>,
    },
    /// The page history failed.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The address to listen on leads nowhere.
    #[error("the address to listen on cannot be resolved: {0}; give one such as 127.0.0.1:8080")]
    Address(#[source] io::Error),
    /// Listening beyond loopback without a token would give the database to everyone.
    #[error(
        "refusing to listen on {0} without authentication: everyone who reaches it could read and write. Give a token \
         or a key, listen on 127.0.0.1, or say explicitly that no authentication is wanted"
    )]
    Unauthenticated(SocketAddr),
    /// An origin that no browser would send.
    #[error("{0:?} is not an origin: give SCHEME://HOST or SCHEME://HOST:PORT, without a path, or * for all")]
    BadOrigin(String),
    /// What is neither an address nor a network.
    #[error("{0:?} is not the address of a proxy, nor a network like 10.0.0.0/8 or fd00::/8")]
    BadProxy(String),
    /// The keys or tokens that decide who is let in cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// Some of what was to be read again cannot be used; what was in force stays.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Reload(Vec<ServerError>),
    /// The certificate or key cannot be used.
    #[error("the TLS certificate or key cannot be used: {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A worker thread is gone.
    #[error("the server is stopping")]
    Stopping,
}

impl From<Arc<StoreError>> for ServerError {
    fn from(error: Arc<StoreError>) -> Self {
        Self::Log(error)
    }
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl From<Arc<RemoteError>> for ServerError {
    fn from(error: Arc<RemoteError>) -> Self {
        Self::Origin(error)
    }
}

impl From<RemoteError> for ServerError {
    fn from(error: RemoteError) -> Self {
        Self::Origin(Arc::new(error))
    }
}

/// What a client is told of what only the log may tell in full.
const SEE_LOG: &str = "the server cannot answer from this database at the moment; its log says why";

impl ServerError {
    /// Whether the file of the database, or of its page history, is not what it should be: nobody can use it as it is.
    pub(crate) fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
        let is_bad = |error: &rusqlite::Error| {
            // The last one is of a file of a format that this SQLite does not know.
            matches!(
                error.sqlite_error_code(),
                Some(DatabaseCorrupt | NotADatabase | Unknown)
            )
        };
        match self {
            Self::Open { source, .. } | Self::Sqlite { source, .. } => is_bad(source),
            Self::History(HistoryError::Sqlite(source)) => is_bad(source),
            Self::History(HistoryError::Damaged(_)) => true,
            Self::History(HistoryError::Source(source)) => source.is_damage(),
            _ => false,
        }
    }

    /// Whether it is about the bucket that the database is replicated to.
    pub(crate) fn is_of_log(&self) -> bool {
        match self {
            Self::Log(_)
            | Self::LogTooSlow
            | Self::OtherLog { .. }
            | Self::Behind(_)
            | Self::OtherId { .. }
            | Self::NoFile { .. } => true,
            Self::History(HistoryError::Source(source)) => source.is_of_log(),
            _ => false,
        }
    }

    /// Whether the remote that is served failed.
    pub(crate) fn is_of_origin(&self) -> bool {
        match self {
            Self::Origin(_) | Self::OriginTooSlow => true,
            Self::History(HistoryError::Source(source)) => source.is_of_origin(),
            _ => false,
        }
    }

    /// Whether there is no room on the disk of the database, or of its page history.
    pub(crate) fn is_full(&self) -> bool {
        let is_full = |error: &rusqlite::Error| {
            // The second one is of the index of a WAL, for which SQLite takes room before it uses it.
            let extended = error.sqlite_error().map(|error| error.extended_code);
            matches!(
                extended,
                Some(rusqlite::ffi::SQLITE_FULL | rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
            )
        };
        match self {
            Self::DiskFull { .. } => true,
            Self::Io { source, .. } | Self::History(HistoryError::Storage(source)) => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::Open { source, .. }
            | Self::Sqlite { source, .. }
            | Self::History(HistoryError::Sqlite(source)) => is_full(source),
            Self::History(HistoryError::Source(source)) => source.is_full(),
            _ => false,
        }
    }

    /// The text for an answer: without paths, and without what SQLite or the system say, which may have some.
    pub fn for_clients(&self) -> String {
        match self {
            Self::Replaced { .. } => {
                "the database was moved, removed or replaced while it was being served: ask again for what is there now"
                    .to_owned()
            }
            Self::Missing { .. } => {
                "the database's file is not there: ask again when it was put back or another one is in its place"
                    .to_owned()
            }
            Self::Origin(_) | Self::OriginTooSlow => {
                "the remote that this server asks does not answer as it should; the server's log says why. What was read before is \
                 served; try again later"
                    .to_owned()
            }
            Self::NoSnapshot { .. } => {
                "no snapshot of the database could be taken, because it is written to without \
                                        a pause: try again later"
                    .to_owned()
            }
            Self::Leftover { path } => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!(
                    "{name} is left of a database that is not there any more: put that one back, or remove the file if \
                     nothing of it is wanted"
                )
            }
            Self::OpenElsewhere { .. } => {
                "the database is open in another program, or a statement on it does not end: close that program, or try \
                 again later"
                    .to_owned()
            }
            Self::TwoNames { .. } => {
                "the database's file has another name too, and is served when it has one only; the server's log says how to find it"
                    .to_owned()
            }
            Self::Log(error) if matches!(**error, StoreError::Fenced { .. }) => {
                "another server has taken this database over: ask that one".to_owned()
            }
            Self::OtherLog { writer, .. } | Self::NoFile { writer, .. } => format!(
                "this server has not the database that is in the bucket it is replicated to; its log says why{}",
                writer.as_ref().map_or_else(String::new, |url| format!(". The writer there is {url}"))
            ),
            Self::Behind(_) => {
                "another server writes this database now, and this one has not what it wrote: ask that one, or a server of the bucket"
                    .to_owned()
            }
            Self::Log(_) | Self::LogTooSlow | Self::OtherId { .. } => {
                "the bucket that this database is replicated to does not answer as it should: ask again; the server's log says why"
                    .to_owned()
            }
            Self::NoSuchPage { .. }
            | Self::ManyInUse { .. }
            | Self::ManyNames
            | Self::BadName { .. }
            | Self::Exists { .. }
            | Self::OneDatabase { .. }
            | Self::DiskFull { .. }
            | Self::Stopping => self.to_string(),
            full if full.is_full() => {
                "the disk of the database is full: what was committed is there; make room on the disk of the server, then ask \
                 again"
                    .to_owned()
            }
            Self::History(error) => error.for_clients(),
            _ => SEE_LOG.to_owned(),
        }
    }
}

impl HistoryError {
    /// The same.
    pub fn for_clients(&self) -> String {
        match self {
            Self::Unknown(_)
            | Self::Expired(_)
            | Self::ExpiredElsewhere(_)
            | Self::UnknownElsewhere(_)
            | Self::Forgotten
            | Self::Lost { .. }
            | Self::Conflict { .. }
            | Self::Moved => self.to_string(),
            Self::Source(error) => error.for_clients(),
            Self::Storage(_) | Self::Damaged(_) | Self::Sqlite(_) => SEE_LOG.to_owned(),
        }
    }
}

impl From<ServerError> for HistoryError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::History(error) => error,
            error => HistoryError::Source(Box::new(error)),
        }
    }
}
