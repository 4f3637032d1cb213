//! Many values in one call, for callers to whom each call is expensive: parameters and rows as one run of bytes.
//!
//! The format is described in the header, at `PartialSyncBatch`; [`codec`](crate::codec) writes and reads it.

use std::{
    ptr,
    time::{Duration, Instant},
};

use partial_sync::Statement;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::{
    boundary::{Result, answer, bytes, misuse},
    codec::{decode, encode},
    column::address,
    error::{PartialSyncCode, PartialSyncError},
    statement::{Inner, PartialSyncStatement, with},
};

/// Rows that a statement gave, as one run of bytes.
///
/// The values of the first row from left to right, then those of the second, and so on, without anything between them. A
/// value is one byte that tells its type (the numbers of `PartialSyncType`), and behind it
///
/// - an integer: its 8 bytes, the lowest first;
/// - a floating-point number: the 8 bytes of the IEEE 754 double, the lowest first;
/// - a text or blob: its length in bytes as 4 bytes, the lowest first, and its bytes, without NUL behind them;
/// - NULL: nothing.
///
/// Parameters (see `partial_sync_run`) have the same format.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncBatch {
    /// The values; never NULL where `length` is not 0. They belong to the statement and are valid until a call other
    /// than `partial_sync_describe` takes it.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
    /// How many rows.
    pub rows: usize,
    /// How many values a row has.
    pub columns: usize,
    /// Whether these were the last rows; the statement is then reset.
    pub done: bool,
    /// How often the statement was compiled again because the schema had changed. When it differs from what
    /// `partial_sync_describe` said, names and types of columns may be others now.
    pub compiled: i32,
    /// When `done`: rows that the statement changed; 0 for one that changes none.
    pub changes: u64,
    /// When `done`: rowid of the last row inserted on the connection.
    pub last_insert_rowid: i64,
}

/// What a statement looks like.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncDescription {
    /// In the format of `PartialSyncBatch`: for each column its name and its declared type (NULL for expressions), then
    /// for each parameter its name with the prefix (NULL for a plain `?`). Valid until a call takes the statement.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
    /// Number of columns; 0 for a statement that gives no rows.
    pub columns: usize,
    /// Number of parameters: the largest index.
    pub parameters: usize,
    /// How often the statement was compiled again because the schema had changed.
    pub compiled: i32,
    /// Whether the statement itself changes nothing in any database.
    pub readonly: bool,
}

/// A batch ends early when its rows took so long: the caller can begin with those that are there.
const LONG: Duration = Duration::from_millis(2);
/// The clock is looked at once for so many rows.
const ROWS_PER_LOOK: usize = 16;
/// Binds all parameters and runs the statement from its beginning: fills in `*batch` with at most `rows` rows. With 0 rows
/// it runs to its end and throws rows away. One call is a whole execution, or the first part of one that
/// `partial_sync_fetch` continues with.
///
/// `parameters` are `length` bytes in the format of `PartialSyncBatch`: one value for each parameter, in the order of
/// their indexes. Bytes of texts are bound as they are, also where they are not UTF-8.
///
/// A statement that writes runs to its end before its first row (of `RETURNING`) is handed out, and outside of a
/// transaction is committed then.
///
/// The batch has at least one row unless the statement is done. It ends early when it holds `bytes` bytes or more (0:
/// 64 KiB), or when the rows take long to come.
///
/// After an error the statement is reset, and may be run again. An error behind rows of a batch comes from the next fetch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_run(
    statement: *const PartialSyncStatement,
    parameters: *const u8,
    length: usize,
    rows: usize,
    bytes: usize,
    batch: *mut PartialSyncBatch,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe {
        with(statement, error, |s| {
            let batch = answer(batch, EMPTY, "batch")?;
            let parameters = self::bytes(parameters, length, "the parameters")?;
            s.leave();
            let connection = s.connection.clone();
            let _held = connection.hold();
            s.statement.reset()?;
            bind(&mut s.statement, parameters)?;
            s.execution.changes_before = s.connection.total_changes();
            s.execution.running = true;
            *batch = s.timed(|s| s.next_batch(rows, bytes))?;
            Ok(())
        })
    }
}

/// Goes on with what `partial_sync_run` began: fills in `*batch` with at most `rows` more rows (0: as many as fit), as
/// described there. When the statement was done already, the batch has no row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_fetch(
    statement: *const PartialSyncStatement,
    rows: usize,
    bytes: usize,
    batch: *mut PartialSyncBatch,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary.
    unsafe {
        with(statement, error, |s| {
            let batch = answer(batch, EMPTY, "batch")?;
            let rows = if rows == 0 { usize::MAX } else { rows };
            *batch = s.timed(|s| s.next_batch(rows, bytes))?;
            Ok(())
        })
    }
}

/// Fills in `*description`: names and declared types of the columns, names of the parameters.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_describe(
    statement: *const PartialSyncStatement,
    description: *mut PartialSyncDescription,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    const NOTHING: PartialSyncDescription = PartialSyncDescription {
        bytes: ptr::null(),
        length: 0,
        columns: 0,
        parameters: 0,
        compiled: 0,
        readonly: false,
    };
    // SAFETY: by the rules of the boundary.
    unsafe {
        with(statement, error, |s| {
            let description = answer(description, NOTHING, "description")?;
            *description = s.describe()?;
            Ok(())
        })
    }
}

const EMPTY: PartialSyncBatch = PartialSyncBatch {
    bytes: ptr::null(),
    length: 0,
    rows: 0,
    columns: 0,
    done: false,
    compiled: 0,
    changes: 0,
    last_insert_rowid: 0,
};

impl Inner {
    /// `most` 0: to the end, without rows.
    fn next_batch(&mut self, most: usize, most_bytes: usize) -> Result<PartialSyncBatch> {
        let Self {
            statement,
            connection,
            execution,
            ..
        } = self;
        if let Some(error) = execution.failed.take() {
            execution.end();
            return Err(error.into());
        }
        execution.encoded.clear();
        let most_bytes = if most_bytes == 0 { 64 * 1024 } else { most_bytes };
        // Each value would take the connection's lock, which costs more than the value.
        let _held = connection.hold();
        let mut columns = statement.column_count();
        let mut rows = 0;
        let mut began = None;
        let mut done = !execution.running;
        while !done {
            match statement.step() {
                Ok(false) => done = true,
                Ok(true) if most == 0 => {}
                Ok(true) => {
                    if rows == 0 {
                        // The first step may have compiled the statement again.
                        columns = statement.column_count();
                    }
                    for column in 0..columns {
                        encode(statement.value(column)?, &mut execution.encoded);
                    }
                    rows += 1;
                    if rows >= most || execution.encoded.len() >= most_bytes {
                        break;
                    }
                    if rows % ROWS_PER_LOOK == 1 {
                        let now = Instant::now();
                        if now - *began.get_or_insert(now) > LONG {
                            break;
                        }
                    }
                }
                Err(error) if rows == 0 => {
                    execution.end();
                    return Err(error.into());
                }
                Err(error) => {
                    execution.failed = Some(error);
                    break;
                }
            }
        }
        let mut batch = PartialSyncBatch {
            bytes: address(&execution.encoded),
            length: execution.encoded.len(),
            rows,
            columns,
            done,
            compiled: statement.reprepares(),
            ..EMPTY
        };
        if std::mem::replace(&mut execution.running, !done) && done {
            statement.reset()?;
            if connection.total_changes() != execution.changes_before {
                batch.changes = connection.changes();
            }
            batch.last_insert_rowid = connection.last_insert_rowid();
        }
        Ok(batch)
    }

    fn describe(&mut self) -> Result<PartialSyncDescription> {
        let statement = &self.statement;
        let described = &mut self.described;
        described.clear();
        let mut put = |text: Option<String>| match text {
            Some(text) => encode(ValueRef::Text(text.as_bytes()), described),
            None => encode(ValueRef::Null, described),
        };
        let (columns, parameters) = (statement.column_count(), statement.parameter_count());
        for column in 0..columns {
            put(Some(statement.column_name(column)?));
            put(statement.column_decltype(column)?);
        }
        for parameter in 1..=parameters {
            put(statement.parameter_name(parameter));
        }
        Ok(PartialSyncDescription {
            bytes: address(described),
            length: described.len(),
            columns,
            parameters,
            compiled: statement.reprepares(),
            readonly: statement.readonly(),
        })
    }
}

fn bind(statement: &mut Statement, mut parameters: &[u8]) -> Result<()> {
    let wanted = statement.parameter_count();
    for index in 1..=wanted {
        if parameters.is_empty() {
            return misuse(format!(
                "the statement has {wanted} parameters, {} values were given",
                index - 1
            ));
        }
        match decode(&mut parameters) {
            Some(value) => statement.bind(index, ToSqlOutput::Borrowed(value))?,
            None => return misuse(format!("the bytes of parameter {index} are not a value")),
        }
    }
    if parameters.is_empty() {
        Ok(())
    } else {
        misuse(format!(
            "the statement has {wanted} parameters, more values were given"
        ))
    }
}
