//! What kind of failure an error is, decided once for every language: the bindings map kinds to their codes and classes and
//! look at nothing else. No `match` here over our own errors has a wildcard arm, so that a new one cannot be forgotten.

use std::io;

use partial_sync_transport::RemoteErrorKind;
use partial_sync_vfs::{
    ReadError,
    sqlite::{code_names::code_of, codes},
};

use crate::{change::position::PositionError, error::Error, options::OptionError};

macro_rules! kinds {
    ($($(#[doc = $text:literal])+ $kind:ident = $name:literal => $code:ident,)+) => {
        /// What kind of failure an [`Error`] is. docs/errors.md has the table of what each is in every language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorKind {
            $($(#[doc = $text])+ $kind,)+
        }

        impl ErrorKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Its name in every language: `"revision_expired"`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// SQLite's result code for it, for programs that know no other.
            pub fn sqlite_code(self) -> i32 {
                match self {
                    $(Self::$kind => codes::$code,)+
                }
            }
        }
    };
}

kinds! {
    /// SQLite refused the statement: a syntax error, a table that does not exist, ...
    Sql = "sql" => ERROR,
    /// A lock was held for too long: by another connection, by another pull or push, or by another process that has the
    /// replica open. Try again.
    Busy = "busy" => BUSY,
    /// A constraint failed; the SQLite code says which kind.
    Constraint = "constraint" => CONSTRAINT,
    /// Interrupted or cancelled. Nothing is lost.
    Interrupted = "interrupted" => INTERRUPT,
    /// SQLite rolled the transaction back when a statement before this one failed. This one was not run, and none is until
    /// the transaction is ended.
    TransactionLost = "transaction_lost" => ABORT_ROLLBACK,
    /// The database cannot be written to.
    ReadOnly = "read_only" => READONLY,
    /// The database, its change log or another of its files is damaged.
    Corrupt = "corrupt" => CORRUPT,
    /// What is at the path is not a database, not a replica, or was changed by another program.
    NotADatabase = "not_a_database" => NOTADB,
    /// The disk is full.
    Full = "full" => FULL,
    /// The file system failed.
    Io = "io" => IOERR,
    /// A file cannot be opened: it does not exist, or permission is denied.
    CannotOpen = "cannot_open" => CANTOPEN,
    /// Out of memory.
    NoMemory = "no_memory" => NOMEM,
    /// A text, blob or statement is larger than SQLite allows.
    TooBig = "too_big" => TOOBIG,
    /// A value is not of the type that was asked for, or of a type that SQLite does not have.
    Conversion = "conversion" => MISMATCH,
    /// The calling program is wrong: an option out of range, a closed handle, an invalid url, ...
    Misuse = "misuse" => MISUSE,
    /// The remote could not be reached or failed, or sync is paused.
    Network = "network" => IOERR,
    /// The remote took longer than the timeout.
    Timeout = "timeout" => IOERR,
    /// The token is missing, wrong, expired, or does not allow this.
    Unauthorized = "unauthorized" => AUTH,
    /// The remote has no database at the url.
    NotFound = "not_found" => CANTOPEN,
    /// What answers at the url does not speak the protocol, or broke it.
    Protocol = "protocol" => IOERR,
    /// The remote refused the request, for example a bootstrap query that it cannot run.
    RemoteRefused = "remote_refused" => ERROR,
    /// The remote no longer keeps the revision that is needed: pull, then repeat the call.
    RevisionExpired = "revision_expired" => IOERR,
    /// A constraint on the remote refused a local change. The error names the change.
    PushConstraint = "push_constraint" => CONSTRAINT,
    /// The remote refused a local change for another reason. The error names the change.
    PushRefused = "push_refused" => ERROR,
    /// A local change cannot be sent as it is. The text says what to do: to pull first, to push again, ...
    Unsendable = "unsendable" => ERROR,
    /// A local change does not fit what the remote has now. The error names the change.
    PullConflict = "pull_conflict" => CONSTRAINT,
    /// Remote and replica disagree about what was pushed: one of them was restored from a backup.
    Diverged = "diverged" => ERROR,
    /// The call needs a remote, and the database has none.
    NoRemote = "no_remote" => MISUSE,
    /// The call needs the remote's database, and nothing of it was fetched yet: pull first.
    NotPulledYet = "not_pulled_yet" => CANTOPEN,
    /// The replica belongs to another remote than the one given.
    OtherRemote = "other_remote" => CANTOPEN,
    /// Not possible on a replica, or not with this remote.
    Unsupported = "unsupported" => MISUSE,
    /// A function of the program (token, url, ...) failed.
    Callback = "callback" => ERROR,
    /// A bug in this library; nothing that was committed is lost. Please report it.
    Internal = "internal" => INTERNAL,
}

impl ErrorKind {
    fn of_sqlite(extended: i32) -> Self {
        match extended & 0xff {
            codes::ABORT if extended == codes::ABORT_ROLLBACK => Self::TransactionLost,
            codes::BUSY | codes::LOCKED => Self::Busy,
            codes::CONSTRAINT => Self::Constraint,
            codes::INTERRUPT => Self::Interrupted,
            codes::READONLY => Self::ReadOnly,
            codes::CORRUPT => Self::Corrupt,
            codes::NOTADB => Self::NotADatabase,
            codes::FULL => Self::Full,
            codes::IOERR => Self::Io,
            codes::CANTOPEN => Self::CannotOpen,
            codes::NOMEM => Self::NoMemory,
            codes::TOOBIG => Self::TooBig,
            codes::INTERNAL => Self::Internal,
            codes::MISUSE | codes::RANGE => Self::Misuse,
            // The rest has no meaning of its own for a program: SQLite's text says what it is.
            _ => Self::Sql,
        }
    }

    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound => Self::CannotOpen,
            _ => Self::Io,
        }
    }

    fn of_remote(kind: RemoteErrorKind) -> Self {
        match kind {
            RemoteErrorKind::InvalidUrl => Self::Misuse,
            RemoteErrorKind::Client => Self::Callback,
            RemoteErrorKind::Unreachable | RemoteErrorKind::Failed | RemoteErrorKind::Paused => Self::Network,
            RemoteErrorKind::TimedOut => Self::Timeout,
            RemoteErrorKind::Unauthorized => Self::Unauthorized,
            RemoteErrorKind::NotFound => Self::NotFound,
            RemoteErrorKind::RevisionExpired | RemoteErrorKind::RevisionUnknown => Self::RevisionExpired,
            RemoteErrorKind::Refused => Self::RemoteRefused,
            RemoteErrorKind::Protocol => Self::Protocol,
        }
    }

    fn of_read(error: &ReadError) -> Self {
        match error {
            ReadError::Io { source, .. } => Self::of_io(source),
            ReadError::CutOff { .. } | ReadError::BeyondEnd | ReadError::NoBase => Self::Io,
            ReadError::Source { .. } | ReadError::Abandoned => Self::Network,
            ReadError::NotSent { .. } | ReadError::PageSize { .. } => Self::Protocol,
            ReadError::TimedOut { .. } => Self::Timeout,
            ReadError::Interrupted { .. } | ReadError::InterruptedByUser => Self::Interrupted,
            ReadError::WouldWait { .. } | ReadError::PullUnderWay { .. } | ReadError::LeftOpen { .. } => {
                Self::Busy
            }
            ReadError::AttachesReplica { .. } => Self::Unsupported,
            ReadError::OpenInParent { .. } => Self::CannotOpen,
            ReadError::Closed => Self::Misuse,
        }
    }
}

impl Error {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind as Kind;
        // The cause below SQLite says more than SQLite's "disk I/O error".
        if self.is_interrupted() {
            return Kind::Interrupted;
        }
        if let Some(remote) = self.remote() {
            return Kind::of_remote(remote.kind);
        }
        if let Some(read) = self.read_error() {
            return Kind::of_read(read);
        }
        match self {
            Self::Sqlite(e) => Kind::of_sqlite(e.extended_code()),
            Self::Remote(e) => Kind::of_remote(e.kind),
            Self::Read(e) => Kind::of_read(e),
            Self::NoRemote { .. } => Kind::NoRemote,
            Self::NotPulledYet { .. } => Kind::NotPulledYet,
            Self::NotAReplica { .. } | Self::ChangedElsewhere { .. } => Kind::NotADatabase,
            Self::OtherRemote { .. } => Kind::OtherRemote,
            Self::InUse { .. } | Self::LeftOpen { .. } | Self::SyncBusy { .. } | Self::WouldWait => {
                Kind::Busy
            }
            Self::Option(OptionError::Refused { .. }) => Kind::Unsupported,
            Self::Option(_) | Self::OpenedOtherwise { .. } | Self::SegmentSize(_) => Kind::Misuse,
            Self::BootstrapQuery { .. } => Kind::RemoteRefused,
            Self::Storage { source, .. } => Kind::of_io(source),
            Self::UnusableDatabase { .. } | Self::Unsupported { .. } => Kind::Unsupported,
            Self::Unsendable { .. } => Kind::Unsendable,
            Self::PushRefused(refused) if refused.is_constraint() => Kind::PushConstraint,
            Self::PushRefused(_) => Kind::PushRefused,
            Self::PullConflict { .. } => Kind::PullConflict,
            Self::Position(PositionError::Unreadable(_)) => Kind::Protocol,
            Self::Position(PositionError::RemoteBehind { .. } | PositionError::ReplicaBehind { .. }) => {
                Kind::Diverged
            }
            Self::Damaged { .. } => Kind::Corrupt,
            Self::Interrupted { .. } => Kind::Interrupted,
            Self::NoRows => Kind::Sql,
            Self::Conversion(_) => Kind::Conversion,
        }
    }

    /// SQLite's result code: the extended one where SQLite, here or on the remote, gave one.
    pub fn sqlite_code(&self) -> i32 {
        let kind = self.kind();
        match self {
            Self::Sqlite(e) if ErrorKind::of_sqlite(e.extended_code()) == kind => e.extended_code(),
            Self::PushRefused(refused) => (refused.code.as_deref().and_then(code_of))
                .filter(|code| code & 0xff == kind.sqlite_code())
                .unwrap_or(kind.sqlite_code()),
            _ => kind.sqlite_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use partial_sync_core::{ChangeId, PageNo};
    use partial_sync_transport::RemoteError;
    use partial_sync_vfs::sqlite::{self, code_names::name_of};

    use super::*;
    use crate::change::push::PushRefused;
    use crate::error::PageFetchError;

    const PAGE: PageNo = PageNo::new(7).unwrap();

    fn sqlite(code: i32) -> Error {
        sqlite::Error::new(code, "").into()
    }

    /// SQLite's error for a page that could not be had.
    fn page(cause: ReadError) -> Error {
        let mut error = sqlite::Error::new(codes::IOERR, "disk I/O error");
        error.source = Some(Arc::new(cause));
        Error::from(error)
    }

    fn fetch(kind: RemoteErrorKind) -> Error {
        page(ReadError::Source {
            page: PAGE,
            source: Arc::new(PageFetchError {
                source: RemoteError::new(kind, ""),
            }),
        })
    }

    fn file(kind: io::ErrorKind) -> Error {
        Error::storage("write", "/x".as_ref(), kind.into())
    }

    fn refused(message: &str, code: Option<&str>) -> Error {
        Error::PushRefused(Box::new(PushRefused {
            change_id: Some(ChangeId(3)),
            batch: (ChangeId(1), ChangeId(4)),
            table: None,
            key: vec![],
            sql: String::new(),
            message: message.into(),
            code: code.map(Into::into),
        }))
    }

    #[test]
    fn what_happens_has_its_kind() {
        use ErrorKind as Kind;
        let (path, operation) = (std::path::PathBuf::from("/x"), "a pull");
        let table = [
            (sqlite(codes::ERROR), Kind::Sql),
            (sqlite(codes::BUSY), Kind::Busy),
            (Error::InUse { path: path.clone() }, Kind::Busy),
            (Error::SyncBusy { operation }, Kind::Busy),
            (
                page(ReadError::PullUnderWay {
                    waited: Duration::ZERO,
                }),
                Kind::Busy,
            ),
            (sqlite(2067), Kind::Constraint),
            (sqlite(codes::INTERRUPT), Kind::Interrupted),
            (Error::Interrupted { operation }, Kind::Interrupted),
            (page(ReadError::Interrupted { page: PAGE }), Kind::Interrupted),
            (sqlite(codes::ABORT_ROLLBACK), Kind::TransactionLost),
            (sqlite(codes::READONLY), Kind::ReadOnly),
            (file(io::ErrorKind::ReadOnlyFilesystem), Kind::ReadOnly),
            (sqlite(codes::CORRUPT), Kind::Corrupt),
            (
                Error::Damaged {
                    what: "the change log",
                    why: String::new(),
                },
                Kind::Corrupt,
            ),
            (sqlite(codes::NOTADB), Kind::NotADatabase),
            (
                Error::NotAReplica {
                    path: path.clone(),
                    why: String::new(),
                },
                Kind::NotADatabase,
            ),
            (sqlite(codes::FULL), Kind::Full),
            (file(io::ErrorKind::StorageFull), Kind::Full),
            (
                page(ReadError::Io {
                    operation: "write",
                    path: path.clone(),
                    source: io::ErrorKind::StorageFull.into(),
                }),
                Kind::Full,
            ),
            (sqlite(codes::IOERR), Kind::Io),
            (file(io::ErrorKind::Other), Kind::Io),
            (sqlite(codes::CANTOPEN), Kind::CannotOpen),
            (file(io::ErrorKind::PermissionDenied), Kind::CannotOpen),
            (sqlite(codes::NOMEM), Kind::NoMemory),
            (sqlite(codes::TOOBIG), Kind::TooBig),
            (Error::Conversion(String::new()), Kind::Conversion),
            (sqlite(codes::MISUSE), Kind::Misuse),
            (
                Error::OpenedOtherwise {
                    path: path.clone(),
                    option: "segment size",
                },
                Kind::Misuse,
            ),
            (
                Error::Remote(RemoteError::new(RemoteErrorKind::InvalidUrl, "")),
                Kind::Misuse,
            ),
            (
                Error::Remote(RemoteError::new(RemoteErrorKind::Unreachable, "")),
                Kind::Network,
            ),
            (fetch(RemoteErrorKind::Failed), Kind::Network),
            (fetch(RemoteErrorKind::Paused), Kind::Network),
            (fetch(RemoteErrorKind::TimedOut), Kind::Timeout),
            (
                page(ReadError::TimedOut {
                    page: PAGE,
                    waited: Duration::ZERO,
                }),
                Kind::Timeout,
            ),
            (fetch(RemoteErrorKind::Unauthorized), Kind::Unauthorized),
            (fetch(RemoteErrorKind::NotFound), Kind::NotFound),
            (page(ReadError::NotSent { page: PAGE }), Kind::Protocol),
            (fetch(RemoteErrorKind::Refused), Kind::RemoteRefused),
            (
                Error::BootstrapQuery {
                    message: String::new(),
                },
                Kind::RemoteRefused,
            ),
            (fetch(RemoteErrorKind::RevisionExpired), Kind::RevisionExpired),
            (
                refused("x", Some("SQLITE_CONSTRAINT_UNIQUE")),
                Kind::PushConstraint,
            ),
            (
                refused("UNIQUE constraint failed: t.a", None),
                Kind::PushConstraint,
            ),
            (
                refused("no such table: t", Some("SQLITE_ERROR")),
                Kind::PushRefused,
            ),
            (
                Error::PullConflict {
                    change: ChangeId(1),
                    what: String::new(),
                    message: String::new(),
                },
                Kind::PullConflict,
            ),
            (
                Error::Position(PositionError::RemoteBehind {
                    remote: None,
                    acknowledged: ChangeId(2),
                }),
                Kind::Diverged,
            ),
            (
                Error::Unsendable {
                    change: None,
                    message: String::new(),
                },
                Kind::Unsendable,
            ),
            (fetch(RemoteErrorKind::Client), Kind::Callback),
            (Error::NoRemote { operation }, Kind::NoRemote),
            (Error::NotPulledYet { operation }, Kind::NotPulledYet),
            (
                Error::OtherRemote {
                    path: path.clone(),
                    replica: String::new(),
                    asked: String::new(),
                },
                Kind::OtherRemote,
            ),
            (
                Error::Unsupported {
                    what: String::new(),
                    why: "",
                },
                Kind::Unsupported,
            ),
            (page(ReadError::AttachesReplica { path }), Kind::Unsupported),
            (sqlite(codes::INTERNAL), Kind::Internal),
        ];
        for (error, kind) in &table {
            assert_eq!(error.kind(), *kind, "{error:?}");
        }
        let met: BTreeSet<ErrorKind> = table.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(met, ErrorKind::ALL.iter().copied().collect());
    }

    #[test]
    fn an_extended_code_is_kept_where_it_is_of_the_kind() {
        assert_eq!(sqlite(2067).sqlite_code(), 2067);
        assert_eq!(refused("", Some("SQLITE_CONSTRAINT_UNIQUE")).sqlite_code(), 2067);
        assert_eq!(
            refused("UNIQUE constraint failed", None).sqlite_code(),
            codes::CONSTRAINT
        );
        assert_eq!(fetch(RemoteErrorKind::Unauthorized).sqlite_code(), codes::AUTH);
        assert_eq!(sqlite(codes::ABORT).kind(), ErrorKind::Sql);
    }

    /// The bindings hold themselves to the same table.
    #[test]
    fn the_table_in_the_documentation_is_the_one_of_the_code() {
        let text = include_str!("../../../docs/errors.md");
        let rows: Vec<(&str, &str)> = (text.lines())
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let cells: Vec<&str> = line.split(" | ").collect();
                (
                    cells[0].trim_start_matches("| ").trim_matches('`'),
                    cells[2].trim_matches('`'),
                )
            })
            .collect();
        let kinds: Vec<(&str, &str)> = (ErrorKind::ALL.iter())
            .map(|kind| (kind.name(), name_of(kind.sqlite_code())))
            .collect();
        assert_eq!(rows, kinds);
    }
}
