//! What goes between a replica and its remote: pull, push, checkpoint, hydration, verification, and stopping them.
//!
//! One of them runs at a time for each database; another one waits for it, as long as the database's timeout.

use std::{
    ffi::{c_char, c_void},
    path::Path,
    ptr,
    sync::Arc,
};

use partial_sync::Database;
use partial_sync_core::ChangeId;

use crate::{
    asked::ask,
    boundary::{answer, handle, optional_text, quietly, tell},
    call::call_network,
    config::millis,
    database::PartialSyncDatabase,
    error::{PartialSyncCode, PartialSyncError},
};

/// Told how far a hydration or verification is: `done` pages of `total` (0: not known). It runs during the call, perhaps
/// on another thread, and must return soon. It may call `partial_sync_cancel`; what else it calls of the database fails with
/// `PARTIAL_SYNC_CODE_MISUSE`, as for the functions of `PartialSyncConfig`.
/// It must return normally: no `longjmp`, no C++ exception.
pub type PartialSyncProgress = Option<unsafe extern "C" fn(user_data: *mut c_void, done: u32, total: u32)>;

/// What a hydration did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PartialSyncHydrated {
    /// Pages that it fetched.
    pub fetched: u32,
    /// Pages of the remote's database that are still absent.
    pub absent: u32,
}

/// What a verification found, in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PartialSyncVerified {
    /// Compared with the remote's.
    pub compared: u32,
    /// Not compared, because local transactions wrote them.
    pub dirty_skipped: u32,
    /// Not here.
    pub absent: u32,
    /// Different from the remote's: 0 is what one wants.
    pub differing: u32,
    /// The first that differs, as SQLite counts from 1; 0 when none does.
    pub first_differing: u32,
}

/// The caller's function with its data, which the engine may call from one other thread.
struct Progress {
    function: PartialSyncProgress,
    user_data: *mut c_void,
    database: Arc<Path>,
}

// SAFETY: the header says that the function may be called from another thread during the call; the pointer is only
// handed on.
unsafe impl Send for Progress {}

impl Progress {
    fn of(database: &PartialSyncDatabase, function: PartialSyncProgress, user_data: *mut c_void) -> Self {
        Self {
            function,
            user_data,
            database: database.name.clone(),
        }
    }

    fn tell(&self, done: u32, total: u32) {
        if let Some(function) = self.function {
            // SAFETY: the caller gave a function of this type, to be called with this data.
            ask(&self.database, || unsafe {
                function(self.user_data, done, total)
            });
        }
    }
}

/// Does with a database what may use the network, and tells what came of it.
///
/// # Safety
/// By the rules of the boundary; `told` is null or writable.
unsafe fn remotely<T: Default>(
    database: *const PartialSyncDatabase,
    told: *mut T,
    error: *mut *mut PartialSyncError,
    work: impl FnOnce(&Database) -> partial_sync::Result<T>,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            tell(told, T::default());
            tell(told, work(handle(database, "database")?.enter()?)?);
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call_network(error, body) }
}

/// Brings the remote's changes and puts local ones that were not pushed back on top. `*changed` (may be NULL) tells
/// whether anything came.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_pull(
    database: *const PartialSyncDatabase,
    changed: *mut bool,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, changed, error, Database::pull) }
}

/// The same, letting the remote wait `wait_ms` milliseconds for a change before it answers that there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_pull_waiting(
    database: *const PartialSyncDatabase,
    wait_ms: u64,
    changed: *mut bool,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let wait = millis(wait_ms).unwrap_or_default();
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, changed, error, |database| database.pull_waiting(wait)) }
}

/// Sends local changes to the remote, whole transactions in order. What the remote confirmed is done, also when a later
/// batch fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_push(
    database: *const PartialSyncDatabase,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, ptr::null_mut(), error, Database::push) }
}

/// Gives up one local change: it is neither pushed nor put back, and what it did is gone from here with the next pull. The
/// way out when the remote refuses it. `*found` (may be NULL): whether there was such a change.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_discard_change(
    database: *const PartialSyncDatabase,
    change: i64,
    found: *mut bool,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let change = ChangeId(change);
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, found, error, |database| database.discard_change(change)) }
}

/// The same, with every later change that cannot stay without it: of the same row, of rows that refer to it by a foreign
/// key, and for a schema change of whatever it made or altered. `*discarded` (may be NULL): how many changes that were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_discard_change_with_dependents(
    database: *const PartialSyncDatabase,
    change: i64,
    discarded: *mut u64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let work = |database: &Database| {
        let gone = database.discard_change_with_dependents(ChangeId(change))?;
        Ok(gone.len() as u64)
    };
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, discarded, error, work) }
}

/// Moves what is in the write-ahead log into the database file, as far as readers allow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_checkpoint(
    database: *const PartialSyncDatabase,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { remotely(database, ptr::null_mut(), error, Database::checkpoint) }
}

/// Fetches absent pages: all of them (`query` NULL), or those that a SELECT touches when the remote runs it. `progress`
/// and `hydrated` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_hydrate(
    database: *const PartialSyncDatabase,
    query: *const c_char,
    progress: PartialSyncProgress,
    user_data: *mut c_void,
    hydrated: *mut PartialSyncHydrated,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            tell(hydrated, PartialSyncHydrated::default());
            let handle = handle(database, "database")?;
            let progress = Progress::of(handle, progress, user_data);
            let database = handle.enter()?;
            let progress = move |at: partial_sync::HydrateProgress| progress.tell(at.fetched, at.total);
            let done = match optional_text(query, "the query")? {
                None => database.hydrate(progress)?,
                Some(query) => database.hydrate_query(query, progress)?,
            };
            let partial_sync::Hydrated { fetched, absent } = done;
            tell(hydrated, PartialSyncHydrated { fetched, absent });
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call_network(error, body) }
}

/// Compares every page that is here and not written locally with the remote's. Changes nothing and fetches no page.
/// `progress` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_verify(
    database: *const PartialSyncDatabase,
    progress: PartialSyncProgress,
    user_data: *mut c_void,
    verified: *mut PartialSyncVerified,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let verified = unsafe { answer(verified, PartialSyncVerified::default(), "verified")? };
        // SAFETY: by the rules of the boundary.
        let handle = unsafe { handle(database, "database")? };
        let progress = Progress::of(handle, progress, user_data);
        let database = handle.enter()?;
        let found = database.verify(move |at| progress.tell(at.compared, at.total))?;
        *verified = PartialSyncVerified {
            compared: found.compared,
            dirty_skipped: found.dirty_skipped,
            absent: found.absent,
            differing: u32::try_from(found.differing.len()).unwrap_or(u32::MAX),
            first_differing: found.differing.first().map_or(0, |d| d.page),
        };
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call_network(error, body) }
}

/// Breaks the network waits of a pull, push, hydration or verification that runs now, from any thread; that call fails
/// with `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched. Does nothing for NULL and for a plain local
/// database. Statements are broken with `partial_sync_interrupt`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_cancel(database: *const PartialSyncDatabase) {
    // SAFETY: null or live, by the rules of the boundary.
    let database = unsafe { database.as_ref() };
    quietly((), || {
        if let Some(Ok(handle)) = database.map(|d| d.database.cancel_handle()) {
            handle.cancel();
        }
    });
}
