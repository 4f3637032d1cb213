//! Errors as the caller sees them: a code to branch on, and an object with the rest, which the caller owns.
//!
//! An error tells what the engine's error says and adds nothing to it; each engine error has exactly one code.

use std::{
    any::Any,
    ffi::{CString, c_char},
    ptr,
};

use partial_sync::Error;
use partial_sync_transport::RemoteErrorKind;
use partial_sync_vfs::ReadError;

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
    /// What is at the path is no database, or no replica.
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
    /// The remote, or a pull that is being applied, took longer than the timeout.
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
    /// The remote refused a local change; `partial_sync_error_change` says which.
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
}

/// Why a call failed. Owned by whoever gave the variable that it was put in; release it with
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
            Failure::Misuse(what) => Self::of(PartialSyncCode::Misuse, what),
            Failure::Engine(error) => Self {
                sqlite_code: match &error {
                    Error::Sqlite(e) => e.extended_code(),
                    _ => 0,
                },
                page: error.page().map_or(0, |page| page.get()),
                change: error.change().map_or(0, |change| change.0),
                transient: error.is_transient(),
                ..Self::of(code_of(&error), error.to_string())
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
            PartialSyncCode::Internal,
            format!("a bug in partial-sync, please report it: {why}"),
        )
    }

    fn of(code: PartialSyncCode, message: String) -> Self {
        Self {
            code,
            sqlite_code: 0,
            page: 0,
            change: 0,
            transient: false,
            message: CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default(),
        }
    }
}

fn code_of(error: &Error) -> PartialSyncCode {
    use PartialSyncCode as Code;
    // The cause below SQLite says more than SQLite's "disk I/O error".
    if error.is_interrupted() {
        return Code::Interrupt;
    }
    if error.is_transaction_lost() {
        return Code::TransactionLost;
    }
    if let Some(remote) = error.remote() {
        return of_remote(remote.kind);
    }
    match error {
        Error::Sqlite(e) => match e.cause().and_then(|cause| cause.downcast_ref::<ReadError>()) {
            Some(cause) => of_read(cause).unwrap_or_else(|| of_sqlite(e.code())),
            None => of_sqlite(e.code()),
        },
        Error::Read(cause) => of_read(cause).unwrap_or(Code::Io),
        Error::NoRemote { .. } => Code::NoRemote,
        Error::NotAReplica { .. } | Error::ChangedElsewhere { .. } => Code::NotADatabase,
        Error::OtherRemote { .. } => Code::OtherRemote,
        Error::InUse { .. } | Error::LeftOpen { .. } | Error::SyncBusy { .. } => Code::Busy,
        Error::SegmentSize(_) | Error::Conversion(_) | Error::OpenedOtherwise { .. } => Code::Misuse,
        Error::BootstrapQuery { .. } => Code::RemoteRefused,
        Error::Storage { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::Full,
            std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => Code::ReadOnly,
            _ => Code::Io,
        },
        Error::PushRefused(_) => Code::PushRefused,
        Error::PullConflict { .. } => Code::PullConflict,
        Error::Position(_) => Code::Diverged,
        Error::Damaged { .. } => Code::Corrupt,
        Error::UnusableDatabase { .. } | Error::Unsendable { .. } | Error::Unsupported { .. } => {
            Code::Unsupported
        }
        Error::Interrupted { .. } => Code::Interrupt,
        _ => Code::Sql,
    }
}

fn of_remote(kind: RemoteErrorKind) -> PartialSyncCode {
    use PartialSyncCode as Code;
    match kind {
        RemoteErrorKind::TimedOut => Code::Timeout,
        RemoteErrorKind::Unauthorized => Code::Unauthorized,
        RemoteErrorKind::NotFound => Code::NotFound,
        RemoteErrorKind::RevisionExpired | RemoteErrorKind::RevisionUnknown => Code::RevisionExpired,
        RemoteErrorKind::Refused => Code::RemoteRefused,
        RemoteErrorKind::Protocol => Code::Protocol,
        RemoteErrorKind::InvalidUrl | RemoteErrorKind::Client => Code::Misuse,
        _ => Code::Network,
    }
}

/// `None`: the code that came with it says it well enough.
fn of_read(cause: &ReadError) -> Option<PartialSyncCode> {
    use PartialSyncCode as Code;
    match cause {
        ReadError::TimedOut { .. } | ReadError::PullUnderWay { .. } => Some(Code::Timeout),
        ReadError::Interrupted { .. } | ReadError::InterruptedByUser => Some(Code::Interrupt),
        ReadError::Source { .. } | ReadError::Abandoned => Some(Code::Network),
        ReadError::NotSent { .. } | ReadError::PageSize { .. } => Some(Code::Protocol),
        _ => None,
    }
}

fn of_sqlite(primary: i32) -> PartialSyncCode {
    use PartialSyncCode as Code;
    use rusqlite::ffi;
    match primary {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => Code::Busy,
        ffi::SQLITE_CONSTRAINT => Code::Constraint,
        ffi::SQLITE_INTERRUPT => Code::Interrupt,
        ffi::SQLITE_READONLY => Code::ReadOnly,
        ffi::SQLITE_CORRUPT => Code::Corrupt,
        ffi::SQLITE_NOTADB => Code::NotADatabase,
        ffi::SQLITE_FULL => Code::Full,
        ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => Code::Io,
        ffi::SQLITE_NOMEM => Code::NoMemory,
        ffi::SQLITE_TOOBIG => Code::TooBig,
        ffi::SQLITE_MISUSE | ffi::SQLITE_RANGE => Code::Misuse,
        _ => Code::Sql,
    }
}

/// The code that the failed call returned; `PARTIAL_SYNC_CODE_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_error_code(error: *const PartialSyncError) -> PartialSyncCode {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { error.as_ref() }.map_or(PartialSyncCode::Ok, |e| e.code)
}

/// SQLite's extended result code (`SQLITE_CONSTRAINT_UNIQUE` is 2067); its low byte is the primary one. 0 when the error
/// did not come through SQLite.
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
