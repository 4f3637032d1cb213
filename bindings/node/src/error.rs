//! Errors on their way to JavaScript: a text, SQLite's extended result code, and that code's name.

use napi_derive::napi;
use partial_sync::Error;
use partial_sync_transport::RemoteErrorKind;
use partial_sync_vfs::sqlite::{code_names::name_of, codes};

/// What `lib/error.js` makes a `SqliteError` of.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// The engine's text.
    pub message: String,
    /// SQLite's extended result code.
    pub raw_code: i32,
    /// Whether the remote was needed while there was no url.
    pub paused: bool,
    /// The local change that a push or pull failed at.
    pub change: Option<i64>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            message: error
                .to_string()
                .replace("discard_change(", "discardChange(")
                .replace("accept_new_url", "acceptNewUrl"),
            raw_code: raw_code(error),
            change: error.change().map(|change| change.0),
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
            raw_code: codes::MISUSE,
            paused: false,
            change: None,
        }
    }

    /// A worker thread panicked, which is a mistake in this package.
    pub(crate) fn panicked() -> Self {
        Self {
            message: "an internal check failed; the database is as the last finished call left it. Please report it"
                .into(),
            raw_code: codes::INTERNAL,
            paused: false,
            change: None,
        }
    }
}

/// The extended result code that an error is told by. docs/node.md has the table.
fn raw_code(error: &Error) -> i32 {
    if error.is_interrupted() {
        return codes::INTERRUPT;
    }
    if let Some(remote) = error.remote() {
        return match remote.kind {
            RemoteErrorKind::Unauthorized => codes::AUTH,
            RemoteErrorKind::InvalidUrl => codes::MISUSE,
            RemoteErrorKind::NotFound => codes::CANTOPEN,
            RemoteErrorKind::Refused => codes::ERROR,
            _ => codes::IOERR,
        };
    }
    match error {
        Error::Sqlite(e) => e.extended_code(),
        Error::NoRemote { .. }
        | Error::SegmentSize(_)
        | Error::OpenedOtherwise { .. }
        | Error::Unsupported { .. } => codes::MISUSE,
        Error::NotAReplica { .. } | Error::ChangedElsewhere { .. } => codes::NOTADB,
        Error::OtherRemote { .. } | Error::UnusableDatabase { .. } => codes::CANTOPEN,
        Error::InUse { .. } | Error::LeftOpen { .. } | Error::SyncBusy { .. } => codes::BUSY,
        Error::Storage { .. } | Error::Read(_) => codes::IOERR,
        Error::PullConflict { .. } => codes::CONSTRAINT,
        Error::Damaged { .. } => codes::CORRUPT,
        Error::Conversion(_) => codes::MISMATCH,
        _ => codes::ERROR,
    }
}

/// The name of a result code: of the extended one, or of the primary one where that is not known.
#[napi]
pub fn code_name(code: i32) -> &'static str {
    name_of(code)
}
