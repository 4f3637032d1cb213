//! The connection handle, and the handle that interrupts it from elsewhere.

use std::{ffi::c_char, path::Path, sync::Arc};

use partial_sync::Connection;
use partial_sync_vfs::sqlite::InterruptHandle;

use crate::{
    asked::{refuse_when_asked, release_of},
    boundary::{self, Result, answer, give, handle, quietly, sized_text, tell},
    call::call,
    config::busy,
    error::{PartialSyncCode, PartialSyncError},
    limit::QueryTimeout,
    statement::PartialSyncStatement,
};

/// A connection. It keeps its database open. Threads may share it and then take turns, in one transaction; threads that
/// work at the same time take one each.
#[derive(Debug)]
pub struct PartialSyncConnection {
    connection: Connection,
    database: Arc<Path>,
    limit: QueryTimeout,
}

/// Interrupts a connection from any thread at any time, also when that is closed already. It keeps nothing open.
#[derive(Debug)]
pub struct PartialSyncInterrupt {
    handle: InterruptHandle,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<PartialSyncConnection>();
    is_shared::<PartialSyncInterrupt>();
};

impl PartialSyncConnection {
    pub(crate) fn new(connection: Connection, database: Arc<Path>, query_timeout_ms: u32) -> Self {
        Self {
            connection,
            database,
            limit: QueryTimeout::new(query_timeout_ms),
        }
    }

    /// The connection, but not for its database's own functions.
    fn enter(&self) -> Result<&Connection> {
        refuse_when_asked(&self.database)?;
        Ok(&self.connection)
    }
}

/// Closes the connection in `*connection` and sets `*connection` to NULL. An open transaction is rolled back once the
/// connection's statements are finalized too. No other thread may be using the handle. A function of its database may call
/// it, as `partial_sync_finalize`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_connection_close(connection: *mut *mut PartialSyncConnection) {
    // SAFETY: by the rules of the boundary.
    unsafe { release_of(connection, |c| &c.database) };
}

/// Runs every statement of `sql` and throws rows away; stops at the first error. `length` is in bytes, or negative: up
/// to NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_execute_batch(
    connection: *const PartialSyncConnection,
    sql: *const c_char,
    length: i64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let (connection, sql) = unsafe {
            (
                handle(connection, "connection")?,
                sized_text(sql, length, "the SQL text")?,
            )
        };
        let entered = connection.enter()?;
        connection
            .limit
            .timed(entered, || Ok(entered.execute_batch(sql)?))
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Compiles the first statement of `sql` and puts its handle in `*statement`: NULL, and no error, when only white space
/// and comments are left. `*tail` (may be NULL) is the byte at which the next statement begins, or the length of `sql`
/// where none does. `length` is in bytes, or negative: up to NUL. Release the statement with `partial_sync_finalize`; it
/// keeps the connection open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_prepare(
    connection: *const PartialSyncConnection,
    sql: *const c_char,
    length: i64,
    statement: *mut *mut PartialSyncStatement,
    tail: *mut usize,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            tell(tail, 0);
            let statement = answer(statement, std::ptr::null_mut(), "statement")?;
            let handle = handle(connection, "connection")?;
            let connection = handle.enter()?;
            let (first, rest) = connection.prepare_first(sized_text(sql, length, "the SQL text")?)?;
            tell(tail, rest);
            if let Some(first) = first {
                let database = handle.database.clone();
                *statement = give(PartialSyncStatement::new(
                    first,
                    connection.clone(),
                    database,
                    handle.limit.clone(),
                ));
            }
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// What a connection says of itself, where it can be asked.
///
/// # Safety
/// By the rules of the boundary.
unsafe fn told<T: Copy>(
    connection: *const PartialSyncConnection,
    otherwise: T,
    what: impl FnOnce(&Connection) -> T,
) -> T {
    // SAFETY: null or live, by the rules of the boundary.
    let connection = unsafe { connection.as_ref() };
    quietly(otherwise, || {
        connection.and_then(|c| c.enter().ok()).map_or(otherwise, what)
    })
}

/// Rows that the last finished INSERT, UPDATE or DELETE changed itself. 0 for NULL, and for a function of its database.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_changes(connection: *const PartialSyncConnection) -> u64 {
    // SAFETY: by the rules of the boundary.
    unsafe { told(connection, 0, Connection::changes) }
}

/// Rows changed since the connection was opened, by triggers and foreign keys too. 0 for NULL, and for a function of its
/// database.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_total_changes(connection: *const PartialSyncConnection) -> u64 {
    // SAFETY: by the rules of the boundary.
    unsafe { told(connection, 0, Connection::total_changes) }
}

/// Rowid of the last row inserted into a table with rowids. 0 for NULL, and for a function of its database.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_last_insert_rowid(connection: *const PartialSyncConnection) -> i64 {
    // SAFETY: by the rules of the boundary.
    unsafe { told(connection, 0, Connection::last_insert_rowid) }
}

/// True outside of transactions, for NULL, and for a function of its database. A transaction that SQLite has rolled back by
/// itself counts until it is ended, see `PARTIAL_SYNC_CODE_TRANSACTION_LOST`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_is_autocommit(connection: *const PartialSyncConnection) -> bool {
    // SAFETY: by the rules of the boundary.
    unsafe { told(connection, true, Connection::is_autocommit) }
}

/// Rolls back the transaction that is open, if one is, for a caller who has another error to tell. Unlike `ROLLBACK` it ends the
/// transaction in any case: what an interrupt keeps from being undone, because a query of the connection is unread, is undone before
/// the next statement.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_undo_transaction(
    connection: *const PartialSyncConnection,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe { handle(connection, "connection")? }
            .enter()?
            .undo_transaction();
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Sets how many milliseconds a statement waits for a lock that another connection holds. 0 and -1: not at all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_busy_timeout(
    connection: *const PartialSyncConnection,
    ms: i32,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let connection = unsafe { handle(connection, "connection")? };
        Ok(connection.enter()?.busy_timeout(busy(ms)?)?)
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Sets how many milliseconds one call may run statements of the connection, waits for the network and for locks included: a call of
/// `partial_sync_execute_batch`, `partial_sync_step`, `partial_sync_execute`, `partial_sync_run` or `partial_sync_fetch`. One that takes longer fails
/// with `PARTIAL_SYNC_CODE_INTERRUPT`, as if it were interrupted. 0: for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_query_timeout(
    connection: *const PartialSyncConnection,
    ms: u32,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let connection = unsafe { handle(connection, "connection")? };
        connection.enter()?;
        connection.limit.set(ms);
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Breaks what runs on the connection now, a network wait included, from any thread; it fails with
/// `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched. The connection must not be closed meanwhile: where
/// that cannot be ruled out, use a `PartialSyncInterrupt`. Does nothing for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_interrupt(connection: *const PartialSyncConnection) {
    // SAFETY: null or live, by the rules of the boundary.
    let connection = unsafe { connection.as_ref() };
    quietly((), || {
        if let Some(connection) = connection {
            connection.connection.interrupt();
        }
    });
}

/// Puts something that interrupts the connection, and that may outlive it, in `*interrupt`. Release it with
/// `partial_sync_interrupt_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_interrupt_new(
    connection: *const PartialSyncConnection,
    interrupt: *mut *mut PartialSyncInterrupt,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            let interrupt = answer(interrupt, std::ptr::null_mut(), "interrupt")?;
            let handle = handle(connection, "connection")?.connection.interrupt_handle();
            *interrupt = give(PartialSyncInterrupt { handle });
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Breaks what runs on the connection now, like `partial_sync_interrupt`. Does nothing when the connection is closed,
/// and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_interrupt_now(interrupt: *const PartialSyncInterrupt) {
    // SAFETY: null or live, by the rules of the boundary.
    let interrupt = unsafe { interrupt.as_ref() };
    quietly((), || {
        if let Some(interrupt) = interrupt {
            interrupt.handle.interrupt();
        }
    });
}

/// Releases what is in `*interrupt` and sets `*interrupt` to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_interrupt_free(interrupt: *mut *mut PartialSyncInterrupt) {
    // SAFETY: by the rules of the boundary.
    quietly((), || unsafe { boundary::release(interrupt) });
}
