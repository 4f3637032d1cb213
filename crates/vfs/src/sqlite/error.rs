//! The error type of this folder, and SQLite's result codes.

use std::{
    error::Error as StdError,
    ffi::{CStr, c_int},
    fmt,
};

use libsqlite3_sys as ffi;

use super::context;

/// SQLite's result codes, as far as callers tell them apart: primary ones, but for ABORT_ROLLBACK and CONSTRAINT_DATATYPE.
pub mod codes {
    pub use libsqlite3_sys::{
        SQLITE_ABORT as ABORT, SQLITE_ABORT_ROLLBACK as ABORT_ROLLBACK, SQLITE_AUTH as AUTH,
        SQLITE_BUSY as BUSY, SQLITE_CANTOPEN as CANTOPEN, SQLITE_CONSTRAINT as CONSTRAINT,
        SQLITE_CONSTRAINT_DATATYPE as CONSTRAINT_DATATYPE, SQLITE_CORRUPT as CORRUPT, SQLITE_ERROR as ERROR,
        SQLITE_FULL as FULL, SQLITE_INTERNAL as INTERNAL, SQLITE_INTERRUPT as INTERRUPT,
        SQLITE_IOERR as IOERR, SQLITE_LOCKED as LOCKED, SQLITE_MISMATCH as MISMATCH, SQLITE_MISUSE as MISUSE,
        SQLITE_NOMEM as NOMEM, SQLITE_NOTADB as NOTADB, SQLITE_NOTFOUND as NOTFOUND,
        SQLITE_PROTOCOL as PROTOCOL, SQLITE_RANGE as RANGE, SQLITE_READONLY as READONLY,
        SQLITE_SCHEMA as SCHEMA, SQLITE_TOOBIG as TOOBIG,
    };
}

/// The result of a call into SQLite.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What SQLite said, and what the VFS below it said when that is where the failure came from.
#[derive(Clone, Debug)]
pub struct Error {
    /// The primary result code, one of [`codes`].
    pub code: i32,
    /// The extended result code; its low byte is `code`.
    pub extended_code: i32,
    /// SQLite's message, for example `no such table: t`.
    pub message: String,
    /// The byte of the SQL text that the message is about, if SQLite knows.
    pub offset: Option<usize>,
    /// The VFS error behind an I/O error.
    pub source: Option<context::SharedError>,
}

impl Error {
    /// An error of this folder's own, in SQLite's terms.
    pub fn new(extended_code: i32, message: impl Into<String>) -> Self {
        Self {
            code: extended_code & 0xff,
            extended_code,
            message: message.into(),
            offset: None,
            source: None,
        }
    }

    /// Reads the connection's last error after a call on this thread returned `rc`. The text belongs to the connection and
    /// is freed by the next call on it, from whichever thread: see [`Conn::call`](super::Conn::call).
    ///
    /// # Safety
    /// `db` must be a live connection whose mutex this thread has held since before that call.
    pub(super) unsafe fn last(db: *mut ffi::sqlite3, rc: c_int) -> Self {
        // SAFETY: the connection is live, and no other thread can run anything on it until the message is copied.
        let (message, offset) = unsafe {
            // A call that fails without setting the connection's error leaves an older one there.
            let text = if ffi::sqlite3_extended_errcode(db) & 0xff == rc & 0xff {
                ffi::sqlite3_errmsg(db)
            } else {
                ffi::sqlite3_errstr(rc)
            };
            let message = match text.is_null() {
                true => format!("SQLite error {rc}"),
                false => CStr::from_ptr(text).to_string_lossy().into_owned(),
            };
            (message, ffi::sqlite3_error_offset(db))
        };
        let left_by_vfs = matches!(
            rc & 0xff,
            codes::IOERR
                | codes::CANTOPEN
                | codes::BUSY
                | codes::PROTOCOL
                | codes::INTERRUPT
                | codes::NOTADB
                | codes::CORRUPT
                | codes::FULL
                | codes::READONLY
                | codes::SCHEMA
                | codes::ERROR
        );
        Self {
            code: rc & 0xff,
            extended_code: rc,
            message,
            offset: usize::try_from(offset).ok(),
            source: left_by_vfs.then(context::take_last_error).flatten(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            // SQLite's "disk I/O error" would send people to look at their disk.
            Some(source) if self.code == codes::IOERR => write!(f, "{source}"),
            Some(source) => write!(f, "{}: {source}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map_or(codes::ERROR, |e| e.extended_code);
        let message = match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message,
            other => other.to_string(),
        };
        Self {
            source: context::take_last_error(),
            ..Self::new(extended, message)
        }
    }
}
