//! An owned prepared statement: it keeps its connection alive and has no lifetime to carry around.
//!
//! Every index is checked here and misuse is a typed error, so that nothing a caller passes can reach SQLite's undefined
//! behaviour. Column values are borrowed from SQLite and end with the next call that changes the statement.

use std::{
    borrow::Cow,
    ffi::{CStr, CString, c_char, c_int},
    fmt,
    marker::PhantomData,
    ptr, slice,
};

use libsqlite3_sys as ffi;
use rusqlite::types::ValueRef;

use super::{
    conn::Conn,
    context::{self, Running},
    error::{Error, Result, codes},
};

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is a row to read.
    Row,
    /// The statement has finished.
    Done,
}

/// A prepared statement. It may move to another thread, but is used by one at a time.
pub struct Stmt {
    raw: *mut ffi::sqlite3_stmt,
    conn: Conn,
    /// Whether the last step gave a row, so that there are values to read.
    on_row: bool,
    /// Whether it was stepped since the last reset, so that there is something to reset.
    stepped: bool,
    /// Of the text, and of the values that are bound.
    bytes: usize,
    /// Bytes of the value of each parameter, as far as values that have any were bound.
    bound: Vec<usize>,
    /// Reading a value may convert it in place: not `Sync`.
    not_sync: PhantomData<std::cell::Cell<()>>,
}

impl Conn {
    /// Compiles the first statement of `sql`. Gives the statement (`None` for white space and comments) and the byte at
    /// which the rest begins. `persistent` tells SQLite that the statement will be kept and reused.
    pub fn prepare(&self, sql: &str, persistent: bool) -> Result<(Option<Stmt>, usize)> {
        Stmt::prepare(self, sql, persistent)
    }

    /// Compiles exactly one statement.
    pub fn prepare_one(&self, sql: &str) -> Result<Stmt> {
        let (stmt, _) = self.prepare(sql, true)?;
        stmt.ok_or_else(|| Error::new(codes::MISUSE, "the SQL text holds no statement"))
    }

    /// Runs every statement of `sql`, throwing rows away; stops at the first error.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        let mut rest = sql;
        while !rest.is_empty() {
            let (stmt, tail) = self.prepare(rest, false)?;
            if let Some(mut stmt) = stmt {
                stmt.execute()?;
            }
            rest = &rest[tail..];
        }
        Ok(())
    }
}

// SAFETY: what a statement shares with others of its connection is used by who holds the connection; what is its own alone, by who
// has the statement, which `!Sync` and `&mut self` keep to one thread at a time.
unsafe impl Send for Stmt {}

impl Drop for Stmt {
    fn drop(&mut self) {
        let _held = self.conn.hold();
        // SAFETY: `raw` is ours and live, and `conn` keeps the connection alive and is held; finalizing can finish a
        // transaction and so do I/O, hence the frame.
        unsafe {
            let _entered = context::enter(self.conn.raw(), Running::NOTHING, &self.conn.limits().deadline);
            ffi::sqlite3_finalize(self.raw);
        }
    }
}

impl fmt::Debug for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stmt").field(&self.sql()).finish()
    }
}

impl Stmt {
    pub(super) fn prepare(conn: &Conn, sql: &str, persistent: bool) -> Result<(Option<Stmt>, usize)> {
        if sql.as_bytes().contains(&0) {
            return Err(Error::new(codes::MISUSE, "the SQL text holds a NUL character"));
        }
        let len = c_int::try_from(sql.len())
            .map_err(|_| Error::new(codes::TOOBIG, "the SQL text is longer than SQLite allows"))?;
        let flags = if persistent {
            ffi::SQLITE_PREPARE_PERSISTENT
        } else {
            0
        };
        let (mut raw, mut tail) = (ptr::null_mut(), ptr::null());
        let start: *const c_char = sql.as_ptr().cast();
        conn.call(Running::NOTHING, || {
            // SAFETY: `sql` is `len` readable bytes; `raw` and `tail` are out parameters; the connection is live.
            unsafe { ffi::sqlite3_prepare_v3(conn.raw(), start, len, flags, &mut raw, &mut tail) }
        })?;
        let consumed = if tail.is_null() {
            sql.len()
        } else {
            (tail as usize).saturating_sub(start as usize)
        };
        // SQLite may stop inside white space, never inside a character; be sure of it before slicing by it.
        let consumed = (consumed..=sql.len())
            .find(|&i| sql.is_char_boundary(i))
            .unwrap_or(sql.len());
        let stmt = (!raw.is_null()).then(|| Stmt {
            raw,
            conn: conn.clone(),
            on_row: false,
            stepped: false,
            bytes: consumed,
            bound: Vec::new(),
            not_sync: PhantomData,
        });
        Ok((stmt, consumed))
    }

    /// The connection this statement belongs to.
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// Binds parameter `index` (from 1). Text need not be UTF-8.
    pub fn bind(&mut self, index: usize, value: ValueRef<'_>) -> Result<()> {
        let count = self.parameter_count();
        if index == 0 || index > count {
            let message = format!("there is no parameter {index}: the statement has {count}");
            return Err(Error::new(codes::RANGE, message));
        }
        let i = index as c_int;
        // SAFETY: the statement is live, the index was checked, and SQLITE_TRANSIENT makes SQLite copy the bytes, whose
        // pointer is never null (an empty slice's is dangling, which SQLite does not read).
        let bind = || unsafe {
            match value {
                ValueRef::Null => ffi::sqlite3_bind_null(self.raw, i),
                ValueRef::Integer(v) => ffi::sqlite3_bind_int64(self.raw, i, v),
                ValueRef::Real(v) => ffi::sqlite3_bind_double(self.raw, i, v),
                ValueRef::Text(v) => ffi::sqlite3_bind_text64(
                    self.raw,
                    i,
                    v.as_ptr().cast(),
                    v.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                    ffi::SQLITE_UTF8 as u8,
                ),
                ValueRef::Blob(v) => ffi::sqlite3_bind_blob64(
                    self.raw,
                    i,
                    v.as_ptr().cast(),
                    v.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                ),
            }
        };
        self.conn.call_at_rest(bind)?;
        self.note_bound(
            index - 1,
            match value {
                ValueRef::Text(v) | ValueRef::Blob(v) => v.len(),
                _ => 0,
            },
        );
        Ok(())
    }

    fn note_bound(&mut self, nth: usize, bytes: usize) {
        if nth >= self.bound.len() {
            if bytes == 0 {
                return;
            }
            self.bound.resize(nth + 1, 0);
        }
        let before = std::mem::replace(&mut self.bound[nth], bytes);
        self.bytes = self.bytes - before + bytes;
    }

    fn running(&self) -> Running {
        Running {
            stmt: self.raw,
            bytes: self.bytes,
        }
    }

    /// Binds the parameter called `name`, with its prefix (`:a`, `@a`, `$a`, `?7`).
    pub fn bind_named(&mut self, name: &str, value: ValueRef<'_>) -> Result<()> {
        match self.parameter_index(name) {
            Some(index) => self.bind(index, value),
            None => Err(Error::new(
                codes::RANGE,
                format!("the statement has no parameter {name}"),
            )),
        }
    }

    /// Runs until the next row or the end. After an error the statement is reset, so that it can be stepped again.
    pub fn step(&mut self) -> Result<Step> {
        self.on_row = false;
        self.stepped = true;
        let rc = self.conn.call(self.running(), || {
            // SAFETY: statement and connection are live.
            unsafe { ffi::sqlite3_step(self.raw) }
        });
        match rc {
            Ok(ffi::SQLITE_ROW) => {
                self.on_row = true;
                Ok(Step::Row)
            }
            Ok(_) => Ok(Step::Done),
            Err(error) => {
                // What the reset answers is what the step has failed with.
                let _ = self.reset();
                Err(error)
            }
        }
    }

    /// Steps to the end, throwing rows away, and resets.
    pub fn execute(&mut self) -> Result<()> {
        while self.step()? == Step::Row {}
        self.reset()
    }

    /// Ends the current execution. Bound values stay. The error is that of the step that failed last, or, where a write was
    /// not stepped to its end, why it could not be committed.
    pub fn reset(&mut self) -> Result<()> {
        self.on_row = false;
        if !std::mem::take(&mut self.stepped) {
            return Ok(());
        }
        // SAFETY: statement and connection are live.
        let reset = || unsafe { ffi::sqlite3_reset(self.raw) };
        self.conn.call(self.running(), reset).map(drop)
    }

    /// Makes every parameter NULL.
    pub fn clear_bindings(&mut self) {
        let _held = self.conn.hold();
        // SAFETY: the statement is live, and its connection held.
        unsafe { ffi::sqlite3_clear_bindings(self.raw) };
        self.bytes -= self.bound.drain(..).sum::<usize>();
    }

    /// Number of columns of the result; 0 for a statement that gives none.
    pub fn column_count(&self) -> usize {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_column_count(self.raw) as usize }
    }

    /// Name of a column (from 0).
    pub fn column_name(&self, column: usize) -> Result<String> {
        let i = self.column_index(column)?;
        let _held = self.conn.hold();
        // SAFETY: the index was checked; the text is copied before anything can change it.
        unsafe { self.text(ffi::sqlite3_column_name(self.raw, i)) }
            .ok_or_else(|| Error::new(codes::NOMEM, "out of memory"))
    }

    /// Declared type of the table column behind a result column; `None` for expressions.
    pub fn column_decltype(&self, column: usize) -> Result<Option<String>> {
        let i = self.column_index(column)?;
        let _held = self.conn.hold();
        // SAFETY: the index was checked; the text is copied before anything can change it.
        Ok(unsafe { self.text(ffi::sqlite3_column_decltype(self.raw, i)) })
    }

    /// A value of the current row (column from 0), borrowed until the next call that takes `&mut self`.
    pub fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        let i = self.column_index(column)?;
        if !self.on_row {
            return Err(Error::new(codes::MISUSE, "the statement is not on a row"));
        }
        // The first reading of a text or a blob may allocate from the connection.
        let _held = self.conn.hold();
        // SAFETY: the index was checked and there is a row. Each value is read as the type that it has; the pointers stay
        // valid until the statement is stepped, reset or finalized, all of which need `&mut self`, or until the value is
        // converted to another type, which nothing here does twice.
        unsafe {
            let value = ffi::sqlite3_column_value(self.raw, i);
            let bytes = |p: *const u8| {
                if p.is_null() {
                    return &[][..];
                }
                slice::from_raw_parts(p, ffi::sqlite3_value_bytes(value).max(0) as usize)
            };
            Ok(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_column_text(self.raw, i))),
                ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_column_blob(self.raw, i).cast())),
                _ => ValueRef::Null,
            })
        }
    }

    /// Number of parameters: the largest index.
    pub fn parameter_count(&self) -> usize {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_bind_parameter_count(self.raw) as usize }
    }

    /// Name of parameter `index` (from 1) with its prefix; `None` for a plain `?` and for an index out of range.
    pub fn parameter_name(&self, index: usize) -> Option<String> {
        let i = c_int::try_from(index).ok()?;
        // SAFETY: SQLite answers null for an index it does not have; the text is copied.
        unsafe { self.text(ffi::sqlite3_bind_parameter_name(self.raw, i)) }
    }

    /// Index of the parameter called `name`, with its prefix.
    pub fn parameter_index(&self, name: &str) -> Option<usize> {
        let name = CString::new(name).ok()?;
        // SAFETY: the statement is live and the name NUL-terminated.
        let i = unsafe { ffi::sqlite3_bind_parameter_index(self.raw, name.as_ptr()) };
        usize::try_from(i).ok().filter(|&i| i > 0)
    }

    /// True when the statement itself changes nothing in any database (`BEGIN`, `COMMIT` and most pragmas count as such).
    pub fn readonly(&self) -> bool {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_stmt_readonly(self.raw) != 0 }
    }

    /// True for EXPLAIN and EXPLAIN QUERY PLAN.
    pub fn is_explain(&self) -> bool {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_stmt_isexplain(self.raw) != 0 }
    }

    /// How often SQLite compiled this statement again because the schema had changed.
    pub fn reprepares(&self) -> i32 {
        // SAFETY: the statement is live; the counter is read and not reset.
        unsafe { ffi::sqlite3_stmt_status(self.raw, ffi::SQLITE_STMTSTATUS_REPREPARE, 0) }
    }

    /// True between the first step and the end or a reset.
    pub fn is_busy(&self) -> bool {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_stmt_busy(self.raw) != 0 }
    }

    /// The SQL text this was prepared from.
    pub fn sql(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.sql_bytes())
    }

    /// The same as bytes; they were UTF-8 when they were prepared.
    pub fn sql_bytes(&self) -> &[u8] {
        // SAFETY: the statement is live.
        let text = unsafe { ffi::sqlite3_sql(self.raw) };
        if text.is_null() {
            return &[];
        }
        // SAFETY: SQLite keeps the text, which ends with NUL, until it compiles it again, which needs `&mut self`.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    }

    /// The SQL text with bound values in place of the parameters; `None` when that would be longer than SQLite allows.
    pub fn expanded_sql(&self) -> Option<String> {
        let _held = self.conn.hold();
        // SAFETY: the statement is live, and its connection held.
        unsafe { context::expanded_sql(self.raw) }
    }

    fn column_index(&self, column: usize) -> Result<c_int> {
        let count = self.column_count();
        if column < count {
            return Ok(column as c_int);
        }
        Err(Error::new(
            codes::RANGE,
            format!("there is no column {column}: the statement has {count}"),
        ))
    }

    /// # Safety
    /// `text` must be null or NUL-terminated and live for the length of this call.
    unsafe fn text(&self, text: *const c_char) -> Option<String> {
        // SAFETY: the caller's promise.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}
