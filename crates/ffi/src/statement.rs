//! The statement handle: parameters, stepping, release. Reading rows is in [`crate::column`].
//!
//! A statement is used by one thread at a time. A second one is turned away with an error instead of being trusted.

use std::{
    collections::BTreeMap,
    ffi::{CString, c_char},
    path::Path,
    ptr,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use partial_sync::{Connection, Statement};

use crate::{
    asked::{is_asked, refuse_when_asked, release_of},
    boundary::{self, Result, answer, bytes, handle, misuse, quietly, sized_text, text},
    call::call,
    error::{PartialSyncCode, PartialSyncError},
    limit::QueryTimeout,
};

/// A prepared statement. It keeps its connection open. It may move between threads; a call while another thread is in
/// one fails with `PARTIAL_SYNC_CODE_MISUSE`, or gives nothing where it cannot fail.
#[derive(Debug)]
pub struct PartialSyncStatement {
    inner: Mutex<Inner>,
    database: Arc<Path>,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<PartialSyncStatement>();
};

/// Which text about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum About {
    ColumnName(usize),
    ColumnType(usize),
    ParameterName(usize),
    Sql,
}

/// A statement with the texts that it was asked for: their pointers are with the caller, so each stays where it is.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) statement: Statement,
    /// Texts of the current row by column, each with a NUL after it.
    pub(crate) row: BTreeMap<usize, Box<[u8]>>,
    about: BTreeMap<About, CString>,
    /// The connection that it is of, for its counters.
    pub(crate) connection: Connection,
    limit: QueryTimeout,
    /// What batches are taken from.
    pub(crate) execution: Execution,
    /// What `partial_sync_describe` said.
    pub(crate) described: Vec<u8>,
}

/// Room that is given back when the statement no longer needs it.
const KEPT_ROOM: usize = 1 << 20;

/// The execution that batches are taken from.
#[derive(Debug, Default)]
pub(crate) struct Execution {
    pub(crate) encoded: Vec<u8>,
    /// What the connection's counter said when it began.
    pub(crate) changes_before: u64,
    /// Happened behind rows that were handed out: what the next fetch says.
    pub(crate) failed: Option<partial_sync::Error>,
    pub(crate) running: bool,
}

impl Execution {
    /// Forgets all; the statement was reset, or stepped by other means.
    pub(crate) fn end(&mut self) {
        self.running = false;
        self.failed = None;
        self.encoded.clear();
        if self.encoded.capacity() > KEPT_ROOM {
            self.encoded = Vec::new();
        }
    }
}

impl Inner {
    /// Leaves the current row and batch: what was handed out of them is no longer valid.
    pub(crate) fn leave(&mut self) {
        self.row.clear();
        self.execution.end();
    }

    /// Runs the statement for at most as long as a call may.
    pub(crate) fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.limit.is_none() {
            return work(self);
        }
        let (limit, connection) = (self.limit.clone(), self.connection.clone());
        limit.timed(&connection, || work(self))
    }

    /// Keeps a text for the caller and gives its address. It moves only when it changes, after a schema change.
    pub(crate) fn keep(&mut self, about: About, text: Option<String>) -> *const c_char {
        let Some(text) = text.and_then(|text| CString::new(text).ok()) else {
            return ptr::null();
        };
        match self.about.get(&about) {
            Some(kept) if *kept == text => kept.as_ptr(),
            _ => {
                self.about.insert(about, text);
                self.about[&about].as_ptr()
            }
        }
    }
}

impl PartialSyncStatement {
    pub(crate) fn new(
        statement: Statement,
        connection: Connection,
        database: Arc<Path>,
        limit: QueryTimeout,
    ) -> Self {
        Self {
            database,
            inner: Mutex::new(Inner {
                statement,
                row: BTreeMap::new(),
                about: BTreeMap::new(),
                connection,
                limit,
                execution: Execution::default(),
                described: Vec::new(),
            }),
        }
    }

    /// The statement, but not for its database's own functions.
    pub(crate) fn enter(&self) -> Result<MutexGuard<'_, Inner>> {
        refuse_when_asked(&self.database)?;
        match self.inner.try_lock() {
            Some(inner) => Ok(inner),
            None => misuse(
                "the statement is being used by another thread at this moment: prepare one for each thread",
            ),
        }
    }

    fn reset(&self) -> Result<()> {
        let mut s = self.enter()?;
        s.leave();
        Ok(s.statement.reset()?)
    }
}

/// The statement, for functions that cannot fail.
///
/// # Safety
/// By the rules of the boundary.
pub(crate) unsafe fn peek<'a>(statement: *const PartialSyncStatement) -> Option<MutexGuard<'a, Inner>> {
    // SAFETY: null or live, by the rules of the boundary.
    unsafe { statement.as_ref() }?.enter().ok()
}

/// Runs with the statement, for functions that can.
///
/// # Safety
/// By the rules of the boundary.
pub(crate) unsafe fn with(
    statement: *const PartialSyncStatement,
    error: *mut *mut PartialSyncError,
    body: impl FnOnce(&mut Inner) -> Result<()>,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, || body(&mut *handle(statement, "statement")?.enter()?)) }
}

/// Releases the statement in `*statement` and sets `*statement` to NULL, also when it fails: with what ending its current
/// execution failed with, which `partial_sync_step` has not told. No other thread may be using the handle. A function of its
/// database may call it: the statement is then released as soon as the database does not wait for the function any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_finalize(statement: *mut *mut PartialSyncStatement) -> PartialSyncCode {
    let body = || {
        // SAFETY: null, or a variable that holds null or a live statement, by the rules of the boundary.
        match unsafe { statement.as_ref().and_then(|held| held.as_ref()) } {
            Some(held) if !is_asked(&held.database) => held.reset(),
            _ => Ok(()),
        }
    };
    // SAFETY: by the rules of the boundary; no error object is asked for.
    unsafe {
        let code = call(ptr::null_mut(), body);
        release_of(statement, |s| &s.database);
        code
    }
}

/// Runs until the next row: `*row` is true when there is one, false at the end. After the end it starts over. After an
/// error it is reset, and may be stepped again.
///
/// A statement that writes runs to its end before its first row (of `RETURNING`) is handed out: when this succeeds, it has
/// made all its changes, and outside of a transaction they are committed.
///
/// This is where the network may be waited for: an absent page is fetched in the middle of the step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_step(
    statement: *const PartialSyncStatement,
    row: *mut bool,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let (row, statement) = unsafe { (answer(row, false, "row")?, handle(statement, "statement")?) };
        let mut s = statement.enter()?;
        s.leave();
        *row = s.timed(|s| Ok(s.statement.step()?))?;
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Steps to the end, throws rows away, and resets. `*changes` (may be NULL) is the number of rows that it changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_execute(
    statement: *const PartialSyncStatement,
    changes: *mut u64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe {
        boundary::tell(changes, 0);
        with(statement, error, |s| {
            s.leave();
            boundary::tell(changes, s.timed(|s| Ok(s.statement.execute(Bound)?))?);
            Ok(())
        })
    }
}

/// The parameters as they are bound.
struct Bound;

impl partial_sync::Params for Bound {
    fn bind(self, _: &mut Statement) -> partial_sync::Result<()> {
        Ok(())
    }
}

/// Ends the current execution; parameters stay bound. Fails when what was executed could not be ended well. Does nothing
/// for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_reset(statement: *const PartialSyncStatement) -> PartialSyncCode {
    let body = || {
        // SAFETY: null or live, by the rules of the boundary.
        unsafe { statement.as_ref() }.map_or(Ok(()), PartialSyncStatement::reset)
    };
    // SAFETY: no error object is asked for.
    unsafe { call(ptr::null_mut(), body) }
}

/// Makes every parameter NULL. Does nothing for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_clear_bindings(statement: *const PartialSyncStatement) {
    quietly((), || {
        // SAFETY: by the rules of the boundary.
        if let Some(mut s) = unsafe { peek(statement) } {
            s.statement.clear_bindings();
        }
    });
}

/// Number of parameters: the largest index. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_parameter_count(statement: *const PartialSyncStatement) -> usize {
    quietly(0, || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(0, |s| s.statement.parameter_count())
    })
}

/// Name of parameter `index` (from 1) with its prefix; NULL for a plain `?`. Valid until the statement is stepped, reset
/// or finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_parameter_name(
    statement: *const PartialSyncStatement,
    index: usize,
) -> *const c_char {
    quietly(ptr::null(), || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(ptr::null(), |mut s| {
            let name = s.statement.parameter_name(index);
            s.keep(About::ParameterName(index), name)
        })
    })
}

/// Index (from 1) of the parameter called `name`, with its prefix (`":a"`, `"@a"`, `"$a"`); 0 when there is none. With it
/// every `partial_sync_bind_*` binds by name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_parameter_index(
    statement: *const PartialSyncStatement,
    name: *const c_char,
) -> usize {
    quietly(0, || {
        // SAFETY: by the rules of the boundary.
        let (statement, name) = unsafe { (peek(statement), text(name, "the name")) };
        match (statement, name) {
            (Some(s), Ok(name)) => s.statement.parameter_index(name).unwrap_or(0),
            _ => 0,
        }
    })
}

/// Binds NULL to parameter `index` (from 1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_bind_null(
    statement: *const PartialSyncStatement,
    index: usize,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { with(statement, error, |s| Ok(s.statement.bind(index, None::<i64>)?)) }
}

/// Binds an integer to parameter `index` (from 1).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_bind_int64(
    statement: *const PartialSyncStatement,
    index: usize,
    value: i64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { with(statement, error, |s| Ok(s.statement.bind(index, value)?)) }
}

/// Binds a floating-point number to parameter `index` (from 1); NaN binds NULL, as SQLite has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_bind_double(
    statement: *const PartialSyncStatement,
    index: usize,
    value: f64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe { with(statement, error, |s| Ok(s.statement.bind(index, value)?)) }
}

/// Binds a copy of a text to parameter `index` (from 1). `length` is in bytes, or negative: up to NUL. The text must be
/// UTF-8. To bind no text, use `partial_sync_bind_null`: a NULL `value` is an error, unless the length is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_bind_text(
    statement: *const PartialSyncStatement,
    index: usize,
    value: *const c_char,
    length: i64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe {
        with(statement, error, |s| {
            let value = sized_text(value, length, "the text to bind")?;
            Ok(s.statement.bind(index, value)?)
        })
    }
}

/// Binds a copy of `length` bytes to parameter `index` (from 1). No bytes are an empty blob, not NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_bind_blob(
    statement: *const PartialSyncStatement,
    index: usize,
    value: *const u8,
    length: usize,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe {
        with(statement, error, |s| {
            let value = bytes(value, length, "the blob to bind")?;
            Ok(s.statement.bind(index, value)?)
        })
    }
}

/// True when the statement itself changes nothing in any database, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_is_readonly(statement: *const PartialSyncStatement) -> bool {
    quietly(true, || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.is_none_or(|s| s.statement.readonly())
    })
}

/// The text of this statement alone. Valid until it is finalized; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_sql(statement: *const PartialSyncStatement) -> *const c_char {
    quietly(ptr::null(), || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(ptr::null(), |mut s| {
            let sql = s.statement.sql();
            s.keep(About::Sql, Some(sql))
        })
    })
}
