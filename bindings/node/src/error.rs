//! Errors on their way to JavaScript: a text, a kind, SQLite's extended result code, and that code's name.

use napi_derive::napi;
use partial_sync::{
    Error, ErrorKind,
    options::{Language, in_language},
};
use partial_sync_vfs::sqlite::code_names::name_of;

/// What `lib/error.js` makes a `SqliteError` of.
#[napi(object, object_from_js = false)]
pub struct Failure {
    /// The engine's text.
    pub message: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// SQLite's extended result code.
    pub raw_code: i32,
    /// The local change that a push or pull failed at.
    pub change: Option<i64>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            message: in_language(&error.to_string(), Language::Node),
            kind: error.kind().name(),
            raw_code: error.sqlite_code(),
            change: error.change().map(|change| change.0),
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
        Self::of(ErrorKind::Misuse, message.into())
    }

    /// A worker thread panicked, which is a mistake in this package.
    pub(crate) fn panicked() -> Self {
        Self::of(
            ErrorKind::Internal,
            "an internal check failed; the database is as the last finished call left it. Please report it"
                .into(),
        )
    }

    fn of(kind: ErrorKind, message: String) -> Self {
        Self {
            message,
            kind: kind.name(),
            raw_code: kind.sqlite_code(),
            change: None,
        }
    }
}

/// The name of a result code: of the extended one, or of the primary one where that is not known.
#[napi]
pub(crate) fn code_name(code: i32) -> &'static str {
    name_of(code)
}

/// Every kind of error and the code that it has where SQLite gave none, for the test of the table in docs/errors.md.
#[napi(object, object_from_js = false)]
pub(crate) struct KindOfError {
    /// Its name.
    pub kind: &'static str,
    /// Its result code.
    pub raw_code: i32,
}

/// See [`KindOfError`].
#[napi]
pub(crate) fn kinds_of_errors() -> Vec<KindOfError> {
    (ErrorKind::ALL.iter())
        .map(|kind| KindOfError {
            kind: kind.name(),
            raw_code: kind.sqlite_code(),
        })
        .collect()
}
