//! Errors on their way to JavaScript: a text, SQLite's extended result code, and that code's name.

use napi_derive::napi;
use partial_sync::Error;
use partial_sync_transport::RemoteErrorKind;

/// What `lib/error.js` makes a `SqliteError` of.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// The engine's text.
    pub message: String,
    /// SQLite's extended result code.
    pub raw_code: i32,
    /// Whether the remote was needed while there was no url.
    pub paused: bool,
}

const ERROR: i32 = 1;
const INTERNAL: i32 = 2;
const BUSY: i32 = 5;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const CANTOPEN: i32 = 14;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const MISUSE: i32 = 21;
const AUTH: i32 = 23;
const NOTADB: i32 = 26;

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            message: error.to_string(),
            raw_code: raw_code(error),
            paused: error.remote().is_some_and(|e| e.kind == RemoteErrorKind::Paused),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl Failure {
    /// A call that cannot be: a closed statement, a closed database.
    pub(crate) fn misuse(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            raw_code: MISUSE,
            paused: false,
        }
    }

    /// A worker thread panicked, which is a mistake in this package.
    pub(crate) fn panicked() -> Self {
        Self {
            message: "an internal check failed; the database is as the last finished call left it. Please report it"
                .into(),
            raw_code: INTERNAL,
            paused: false,
        }
    }
}

/// The extended result code that an error is told by. docs/node.md has the table.
fn raw_code(error: &Error) -> i32 {
    if error.is_interrupted() {
        return INTERRUPT;
    }
    if let Some(remote) = error.remote() {
        return match remote.kind {
            RemoteErrorKind::Unauthorized => AUTH,
            RemoteErrorKind::InvalidUrl => MISUSE,
            RemoteErrorKind::NotFound => CANTOPEN,
            RemoteErrorKind::Refused => ERROR,
            _ => IOERR,
        };
    }
    match error {
        Error::Sqlite(e) => e.extended_code(),
        Error::NoRemote { .. } | Error::SegmentSize(_) | Error::Unsupported { .. } => MISUSE,
        Error::NotAReplica { .. } => NOTADB,
        Error::OtherRemote { .. } | Error::UnusableDatabase { .. } => CANTOPEN,
        Error::InUse { .. } | Error::SyncBusy { .. } => BUSY,
        Error::Storage { .. } | Error::Read(_) => IOERR,
        Error::PullConflict { .. } => CONSTRAINT,
        Error::Damaged { .. } => CORRUPT,
        Error::Conversion(_) => MISMATCH,
        _ => ERROR,
    }
}

macro_rules! names {
    ($($code:literal $name:literal)+) => {
        /// The name of a result code: of the extended one, or of the primary one where that is not known.
        #[napi]
        pub fn code_name(code: i32) -> &'static str {
            match code {
                $($code => $name,)+
                _ if code > 0xff => code_name(code & 0xff),
                _ => "SQLITE_ERROR",
            }
        }
    };
}

names! {
    1 "SQLITE_ERROR" 2 "SQLITE_INTERNAL" 3 "SQLITE_PERM" 4 "SQLITE_ABORT" 5 "SQLITE_BUSY" 6 "SQLITE_LOCKED"
    7 "SQLITE_NOMEM" 8 "SQLITE_READONLY" 9 "SQLITE_INTERRUPT" 10 "SQLITE_IOERR" 11 "SQLITE_CORRUPT"
    12 "SQLITE_NOTFOUND" 13 "SQLITE_FULL" 14 "SQLITE_CANTOPEN" 15 "SQLITE_PROTOCOL" 16 "SQLITE_EMPTY"
    17 "SQLITE_SCHEMA" 18 "SQLITE_TOOBIG" 19 "SQLITE_CONSTRAINT" 20 "SQLITE_MISMATCH" 21 "SQLITE_MISUSE"
    22 "SQLITE_NOLFS" 23 "SQLITE_AUTH" 24 "SQLITE_FORMAT" 25 "SQLITE_RANGE" 26 "SQLITE_NOTADB"
    257 "SQLITE_ERROR_MISSING_COLLSEQ" 513 "SQLITE_ERROR_RETRY" 769 "SQLITE_ERROR_SNAPSHOT"
    266 "SQLITE_IOERR_READ" 522 "SQLITE_IOERR_SHORT_READ" 778 "SQLITE_IOERR_WRITE" 1034 "SQLITE_IOERR_FSYNC"
    1290 "SQLITE_IOERR_DIR_FSYNC" 1546 "SQLITE_IOERR_TRUNCATE" 1802 "SQLITE_IOERR_FSTAT" 2058 "SQLITE_IOERR_UNLOCK"
    2314 "SQLITE_IOERR_RDLOCK" 2570 "SQLITE_IOERR_DELETE" 3082 "SQLITE_IOERR_NOMEM" 3338 "SQLITE_IOERR_ACCESS"
    3850 "SQLITE_IOERR_LOCK" 4106 "SQLITE_IOERR_CLOSE" 4618 "SQLITE_IOERR_SHMOPEN" 4874 "SQLITE_IOERR_SHMSIZE"
    5130 "SQLITE_IOERR_SHMLOCK" 5386 "SQLITE_IOERR_SHMMAP" 8458 "SQLITE_IOERR_CORRUPTFS"
    261 "SQLITE_BUSY_RECOVERY" 517 "SQLITE_BUSY_SNAPSHOT" 773 "SQLITE_BUSY_TIMEOUT"
    262 "SQLITE_LOCKED_SHAREDCACHE" 516 "SQLITE_ABORT_ROLLBACK"
    264 "SQLITE_READONLY_RECOVERY" 520 "SQLITE_READONLY_CANTLOCK" 776 "SQLITE_READONLY_ROLLBACK"
    1032 "SQLITE_READONLY_DBMOVED" 1288 "SQLITE_READONLY_CANTINIT" 1544 "SQLITE_READONLY_DIRECTORY"
    267 "SQLITE_CORRUPT_VTAB" 523 "SQLITE_CORRUPT_SEQUENCE" 779 "SQLITE_CORRUPT_INDEX"
    270 "SQLITE_CANTOPEN_NOTEMPDIR" 526 "SQLITE_CANTOPEN_ISDIR" 782 "SQLITE_CANTOPEN_FULLPATH"
    275 "SQLITE_CONSTRAINT_CHECK" 531 "SQLITE_CONSTRAINT_COMMITHOOK" 787 "SQLITE_CONSTRAINT_FOREIGNKEY"
    1043 "SQLITE_CONSTRAINT_FUNCTION" 1299 "SQLITE_CONSTRAINT_NOTNULL" 1555 "SQLITE_CONSTRAINT_PRIMARYKEY"
    1811 "SQLITE_CONSTRAINT_TRIGGER" 2067 "SQLITE_CONSTRAINT_UNIQUE" 2323 "SQLITE_CONSTRAINT_VTAB"
    2579 "SQLITE_CONSTRAINT_ROWID" 2835 "SQLITE_CONSTRAINT_PINNED" 3091 "SQLITE_CONSTRAINT_DATATYPE"
    279 "SQLITE_AUTH_USER"
}
