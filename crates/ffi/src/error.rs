//! Errors as the caller sees them: a code to branch on, and an object with the rest, which the caller owns.
//!
//! An error tells what the engine's error says and adds nothing to it; each kind of engine error has a code of its own.

use std::{
    any::Any,
    ffi::{CString, c_char},
    ptr,
};

use partial_sync::{
    ErrorKind,
    options::{Language, in_language},
};

use crate::boundary::{self, Failure, quietly};

/// How a call ended. `PARTIAL_SYNC_CODE_OK` is 0. Later versions may add codes: treat one that you do not know as
/// `PARTIAL_SYNC_CODE_SQL`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialSyncCode {
    /// It was done.
    Ok = 0,
    /// SQLite refused the statement: a syntax error, a table that is not there, ...
    Sql = 1,
    /// A lock was held for too long by another connection, by another pull or push, or (when opening) by somebody else
    /// who has the replica open. Try again.
    Busy = 2,
    /// A constraint failed; `partial_sync_error_sqlite_code` says which kind.
    Constraint = 3,
    /// Interrupted or cancelled. Nothing is lost; the handles stay usable.
    Interrupt = 4,
    /// The database cannot be written to.
    ReadOnly = 5,
    /// The database, its change log or the file of a pull under way is damaged.
    Corrupt = 6,
    /// What is at the path is not a database, not a replica, or was changed by another program.
    NotADatabase = 7,
    /// The disk is full.
    Full = 8,
    /// The file system failed.
    Io = 9,
    /// Out of memory.
    NoMemory = 10,
    /// A text, blob or statement is larger than SQLite allows.
    TooBig = 11,
    /// A NULL handle, an index out of range, text that is not UTF-8, ...: the calling program has a bug.
    Misuse = 12,
    /// The remote could not be reached, or failed.
    Network = 13,
    /// The remote took longer than the timeout.
    Timeout = 14,
    /// The token is missing, wrong, expired, or not good for this.
    Unauthorized = 15,
    /// The remote has no database at the url.
    NotFound = 16,
    /// What answers at the url does not speak the protocol, or broke it.
    Protocol = 17,
    /// The remote refused the request, for example a bootstrap query that it cannot run.
    RemoteRefused = 18,
    /// The remote no longer keeps the revision that is needed: pull, then repeat the call.
    RevisionExpired = 19,
    /// The remote refused a local change, not for a constraint; `partial_sync_error_change` says which.
    PushRefused = 20,
    /// A local change does not fit what the remote has now; `partial_sync_error_change` says which.
    PullConflict = 21,
    /// Remote and replica disagree about what was pushed: one of them was restored from a backup.
    Diverged = 22,
    /// The call needs a remote, and the database has none.
    NoRemote = 23,
    /// The replica belongs to another remote than the one given.
    OtherRemote = 24,
    /// Not possible on a replica, or not with this remote.
    Unsupported = 25,
    /// A bug in this library; nothing that was committed is lost. Please report it.
    Internal = 26,
    /// The transaction was rolled back by SQLite when a statement before this one failed. This one was not run, and none
    /// is until the transaction is ended: with `ROLLBACK`, or with `COMMIT`, which fails with this code too.
    TransactionLost = 27,
    /// A file cannot be opened: it does not exist, or permission is denied.
    CannotOpen = 28,
    /// A value is not of the type that was asked for.
    Conversion = 29,
    /// A constraint on the remote refused a local change; `partial_sync_error_change` says which change, and
    /// `partial_sync_error_sqlite_code` which kind of constraint.
    PushConstraint = 30,
    /// The call needs the remote's database, and nothing of it was fetched yet: pull first.
    NotPulledYet = 31,
    /// A local change cannot be sent as it is; the message says what to do: to pull first, to push again, ...
    Unsendable = 32,
    /// A function of the program (token, url, ...) failed.
    Callback = 33,
}

/// Why a call failed. Owned by anyone who gave the variable that it was put in; release it with
/// `partial_sync_error_free`. It never changes, so threads may share it.
#[derive(Debug)]
pub struct PartialSyncError {
    pub(crate) code: PartialSyncCode,
    sqlite_code: i32,
    page: u32,
    change: i64,
    transient: bool,
    message: CString,
}

impl PartialSyncError {
    pub(crate) fn new(failure: Failure) -> Self {
        match failure {
            Failure::Misuse(what) => Self::of(ErrorKind::Misuse, what),
            Failure::Engine(error) => Self {
                sqlite_code: error.sqlite_code(),
                page: error.page().map_or(0, |page| page.get()),
                change: error.change().map_or(0, |change| change.0),
                transient: error.is_transient(),
                ..Self::of(error.kind(), in_language(&error.to_string(), Language::C))
            },
        }
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let why = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        Self::of(
            ErrorKind::Internal,
            format!("a bug in partial-sync, please report it: {why}"),
        )
    }

    fn of(kind: ErrorKind, message: String) -> Self {
        Self {
            code: kind.into(),
            sqlite_code: kind.sqlite_code(),
            page: 0,
            change: 0,
            transient: false,
            message: CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default(),
        }
    }
}

impl From<ErrorKind> for PartialSyncCode {
    fn from(kind: ErrorKind) -> Self {
        use ErrorKind as Kind;
        match kind {
            Kind::Sql => Self::Sql,
            Kind::Busy => Self::Busy,
            Kind::Constraint => Self::Constraint,
            Kind::Interrupted => Self::Interrupt,
            Kind::ReadOnly => Self::ReadOnly,
            Kind::Corrupt => Self::Corrupt,
            Kind::NotADatabase => Self::NotADatabase,
            Kind::Full => Self::Full,
            Kind::Io => Self::Io,
            Kind::NoMemory => Self::NoMemory,
            Kind::TooBig => Self::TooBig,
            Kind::Misuse => Self::Misuse,
            Kind::Network => Self::Network,
            Kind::Timeout => Self::Timeout,
            Kind::Unauthorized => Self::Unauthorized,
            Kind::NotFound => Self::NotFound,
            Kind::Protocol => Self::Protocol,
            Kind::RemoteRefused => Self::RemoteRefused,
            Kind::RevisionExpired => Self::RevisionExpired,
            Kind::PushRefused => Self::PushRefused,
            Kind::PullConflict => Self::PullConflict,
            Kind::Diverged => Self::Diverged,
            Kind::NoRemote => Self::NoRemote,
            Kind::OtherRemote => Self::OtherRemote,
            Kind::Unsupported => Self::Unsupported,
            Kind::Internal => Self::Internal,
            Kind::TransactionLost => Self::TransactionLost,
            Kind::CannotOpen => Self::CannotOpen,
            Kind::Conversion => Self::Conversion,
            Kind::PushConstraint => Self::PushConstraint,
            Kind::NotPulledYet => Self::NotPulledYet,
            Kind::Unsendable => Self::Unsendable,
            Kind::Callback => Self::Callback,
        }
    }
}

/// The code that the failed call returned; `PARTIAL_SYNC_CODE_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_code(error: *const PartialSyncError) -> PartialSyncCode {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(PartialSyncCode::Ok, |e| e.code)
}

/// SQLite's extended result code (`SQLITE_CONSTRAINT_UNIQUE` is 2067); its low byte is the primary one. For an error that
/// did not come through SQLite it is the code that docs/errors.md gives its kind. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_sqlite_code(error: *const PartialSyncError) -> i32 {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(0, |e| e.sqlite_code)
}

/// What was being done, what happened, and what can be done about it. Valid until the error is freed; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_message(error: *const PartialSyncError) -> *const c_char {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(ptr::null(), |e| e.message.as_ptr())
}

/// True when the same call may succeed later without anyone changing anything: the network, a timeout, a lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_is_transient(error: *const PartialSyncError) -> bool {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.is_some_and(|e| e.transient)
}

/// The local change that a push or pull failed at, for `partial_sync_discard_change`; 0 when it was not one change.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_change(error: *const PartialSyncError) -> i64 {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(0, |e| e.change)
}

/// The page (as SQLite counts, from 1) that could not be had; 0 when the error is about something else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_page(error: *const PartialSyncError) -> u32 {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(0, |e| e.page)
}

/// Releases the error in `*error` and sets `*error` to NULL. Does nothing where `error` or `*error` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_free(error: *mut *mut PartialSyncError) {
    // SAFETY: by the rules of the boundary.
    quietly((), || unsafe { boundary::release(error) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_documentation_is_the_one_of_the_code() {
        let text = include_str!("../../../docs/errors.md");
        let rows: Vec<(&str, &str)> = (text.lines())
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let cells: Vec<&str> = line
                    .split('|')
                    .map(|cell| cell.trim().trim_matches('`'))
                    .collect();
                (cells[1], cells[4])
            })
            .collect();
        assert_eq!(rows.len(), ErrorKind::ALL.len());
        for ((name, code), kind) in rows.iter().zip(ErrorKind::ALL) {
            assert_eq!(*name, kind.name());
            let ours = format!("{:?}", PartialSyncCode::from(*kind));
            assert_eq!(code.replace('_', ""), ours.to_uppercase());
        }
    }
}
