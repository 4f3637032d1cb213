//! The database handle: open, what it is, connections to it, release.

use std::{
    ffi::{CString, c_char},
    path::Path,
    sync::Arc,
};

use partial_sync::Database;

use crate::{
    asked::{refuse_when_asked, release_of},
    boundary::{Result, answer, give, handle, misuse, quietly, text},
    call::{call, call_network},
    config::{Opened, PartialSyncConfig, Token, millis},
    connection::PartialSyncConnection,
    error::{PartialSyncCode, PartialSyncError},
};

/// An open database: a replica of a remote, or a plain local one. Threads may share the handle. Its files are given back
/// when it is closed and its last connection and statement are gone too, in whatever order.
#[derive(Debug)]
pub struct PartialSyncDatabase {
    pub(crate) database: Database,
    pub(crate) name: Arc<Path>,
    token: Option<Token>,
    query_timeout_ms: u32,
}

impl PartialSyncDatabase {
    /// The database, but not for its own functions.
    pub(crate) fn enter(&self) -> Result<&Database> {
        refuse_when_asked(&self.name)?;
        Ok(&self.database)
    }
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<PartialSyncDatabase>();
};

/// Opens a database and puts its handle in `*database`; close it with `partial_sync_close`. A replica that is not there
/// yet is made first, which asks the remote for the bootstrap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_open(
    config: *const PartialSyncConfig,
    database: *mut *mut PartialSyncDatabase,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            let opening = PartialSyncConfig::take(config);
            let database = answer(database, std::ptr::null_mut(), "database")?;
            let Opened {
                database: opened,
                name,
                token,
                query_timeout_ms,
            } = opening?.open()?;
            *database = give(PartialSyncDatabase {
                database: opened,
                name,
                token,
                query_timeout_ms,
            });
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call_network(error, body) }
}

/// Closes the database in `*database` and sets `*database` to NULL. Connections and statements that are still there go
/// on working; the files are given back when they are gone. No other thread may be using the handle. A function of the
/// database may call it, as `partial_sync_finalize`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_close(database: *mut *mut PartialSyncDatabase) {
    // SAFETY: by the rules of the boundary.
    unsafe { release_of(database, |d| &d.name) };
}

/// Waits, for at most `wait_ms` milliseconds, for pages that are still streaming in: a query continues as soon as its own page
/// has come, and the pages around it come later. For programs that end after a query, before closing. False when they have
/// not come in time, at once for a function of the database, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_settle(database: *const PartialSyncDatabase, wait_ms: u64) -> bool {
    // SAFETY: null or live, by the rules of the boundary.
    let database = unsafe { database.as_ref() };
    let wait = millis(wait_ms).unwrap_or_default();
    quietly(false, || {
        database.is_some_and(|d| d.enter().is_ok_and(|d| d.settle(wait)))
    })
}

/// Opens a connection and puts its handle in `*connection`; close it with `partial_sync_connection_close`. Take one for
/// each thread that works at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_connect(
    database: *const PartialSyncDatabase,
    connection: *mut *mut PartialSyncConnection,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            let connection = answer(connection, std::ptr::null_mut(), "connection")?;
            let database = handle(database, "database")?;
            let opened = database.enter()?.connection()?;
            *connection = give(PartialSyncConnection::new(
                opened,
                database.name.clone(),
                database.query_timeout_ms,
            ));
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Whether the database is a replica of a remote, reachable or not, and no plain local one. False for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_is_replica(database: *const PartialSyncDatabase) -> bool {
    // SAFETY: null or live, by the rules of the boundary.
    let database = unsafe { database.as_ref() };
    quietly(false, || database.is_some_and(|d| d.database.is_replica()))
}

/// Fails with `PARTIAL_SYNC_CODE_MISUSE` when this thread runs a function of the database, which would wait for what is called
/// there. For libraries that stand on this one and have waits of their own; this one's own functions ask by themselves.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn partial_sync_may_wait(
    database: *const PartialSyncDatabase,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, || handle(database, "database")?.enter().map(drop)) }
}

/// Replaces the bearer token, from any thread; the next request carries it, a retry included. Only for a database that
/// was opened with a token (`""` counts, and sends none).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_set_auth_token(
    database: *const PartialSyncDatabase,
    token: *const c_char,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let (database, new) = unsafe { (handle(database, "database")?, text(token, "the token")?) };
        match &database.token {
            Some(token) => {
                new.clone_into(&mut token.lock());
                Ok(())
            }
            None => misuse(
                "the database was opened without a token: set config.auth_token, \"\" if there is none yet",
            ),
        }
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Puts the revision of the remote that the replica is at in `*revision`: an opaque text, NULL for a plain local
/// database. Release it with `partial_sync_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_revision(
    database: *const PartialSyncDatabase,
    revision: *mut *mut c_char,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            let revision = answer(revision, std::ptr::null_mut(), "revision")?;
            if let Some(now) = handle(database, "database")?.enter()?.stats()?.revision {
                *revision = CString::new(now)
                    .or_else(|_| misuse("the remote's revision holds a NUL character"))?
                    .into_raw();
            }
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Releases a text that a function of this library gave away, and sets `*string` to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_string_free(string: *mut *mut c_char) {
    if string.is_null() {
        return;
    }
    // SAFETY: not null; what it holds came from CString::into_raw and is taken out before it is dropped.
    unsafe {
        let raw = string.replace(std::ptr::null_mut());
        if !raw.is_null() {
            drop(CString::from_raw(raw));
        }
    }
}
