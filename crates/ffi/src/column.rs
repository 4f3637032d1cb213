//! Reading the current row. Values are read as the type that they have; nothing is converted behind the caller's back,
//! apart from numbers to numbers.

use std::{ffi::c_char, ptr};

use rusqlite::types::ValueRef;

use crate::{
    boundary::{misuse, quietly},
    error::{PartialSyncCode, PartialSyncError},
    statement::{About, Inner, PartialSyncStatement, peek, with},
};

/// The type of a value; the numbers are SQLite's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialSyncType {
    /// A 64-bit integer.
    Integer = 1,
    /// A floating-point number.
    Real = 2,
    /// Text. What another program stored need not be UTF-8.
    Text = 3,
    /// Bytes.
    Blob = 4,
    /// NULL. Also: no such column, no row.
    Null = 5,
}

/// A value of a row. Only what belongs to its type is set; the rest is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncValue {
    /// The type.
    pub r#type: PartialSyncType,
    /// Of an integer.
    pub integer: i64,
    /// Of a floating-point number.
    pub real: f64,
    /// Of a text or blob: the bytes, without NUL behind them; never NULL, also when there are none.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
}

/// What a pointer to no bytes points to; a NUL, so that it is an empty text as well.
static NOTHING: [u8; 1] = [0];

impl From<ValueRef<'_>> for PartialSyncValue {
    fn from(value: ValueRef<'_>) -> Self {
        let of = |r#type| Self {
            r#type,
            integer: 0,
            real: 0.0,
            bytes: ptr::null(),
            length: 0,
        };
        match value {
            ValueRef::Null => of(PartialSyncType::Null),
            ValueRef::Integer(integer) => Self {
                integer,
                ..of(PartialSyncType::Integer)
            },
            ValueRef::Real(real) => Self {
                real,
                ..of(PartialSyncType::Real)
            },
            ValueRef::Text(bytes) => Self {
                bytes: address(bytes),
                length: bytes.len(),
                ..of(PartialSyncType::Text)
            },
            ValueRef::Blob(bytes) => Self {
                bytes: address(bytes),
                length: bytes.len(),
                ..of(PartialSyncType::Blob)
            },
        }
    }
}

pub(crate) fn address(bytes: &[u8]) -> *const u8 {
    if bytes.is_empty() {
        NOTHING.as_ptr()
    } else {
        bytes.as_ptr()
    }
}

/// Reads one value; NULL where there is none.
///
/// # Safety
/// By the rules of the boundary.
unsafe fn read<T>(
    statement: *const PartialSyncStatement,
    column: usize,
    read: impl FnOnce(PartialSyncValue) -> T,
) -> T
where
    T: Copy,
{
    let none = PartialSyncValue::from(ValueRef::Null);
    let value = quietly(none, || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(none, |s| s.statement.value(column).map_or(none, Into::into))
    });
    read(value)
}

/// Number of columns; 0 for a statement that gives no rows, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_count(statement: *const PartialSyncStatement) -> usize {
    quietly(0, || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(0, |s| s.statement.column_count())
    })
}

/// Name of a column (from 0); NULL when there is none. Valid until the statement is stepped, reset or finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_name(
    statement: *const PartialSyncStatement,
    column: usize,
) -> *const c_char {
    quietly(ptr::null(), || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(ptr::null(), |mut s| {
            let name = s.statement.column_name(column).ok();
            s.keep(About::ColumnName(column), name)
        })
    })
}

/// Declared type of the table column behind a column (from 0); NULL for expressions. Valid until the statement is
/// stepped, reset or finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_decltype(
    statement: *const PartialSyncStatement,
    column: usize,
) -> *const c_char {
    quietly(ptr::null(), || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }.map_or(ptr::null(), |mut s| {
            let decltype = s.statement.column_decltype(column).ok().flatten();
            s.keep(About::ColumnType(column), decltype)
        })
    })
}

/// Type of a value of the current row (column from 0).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_type(
    statement: *const PartialSyncStatement,
    column: usize,
) -> PartialSyncType {
    // SAFETY: by the rules of the boundary.
    unsafe { read(statement, column, |value| value.r#type) }
}

/// A number of the current row as an integer: a floating-point one is cut towards zero, at most as large as fits. 0 for
/// other types: CAST in the query where text shall become a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_int64(
    statement: *const PartialSyncStatement,
    column: usize,
) -> i64 {
    let as_integer = |value: PartialSyncValue| match value.r#type {
        PartialSyncType::Real => value.real as i64,
        _ => value.integer,
    };
    // SAFETY: by the rules of the boundary.
    unsafe { read(statement, column, as_integer) }
}

/// A number of the current row as a floating-point one; 0 for other types.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_double(
    statement: *const PartialSyncStatement,
    column: usize,
) -> f64 {
    let as_real = |value: PartialSyncValue| match value.r#type {
        PartialSyncType::Integer => value.integer as f64,
        _ => value.real,
    };
    // SAFETY: by the rules of the boundary.
    unsafe { read(statement, column, as_real) }
}

/// A text of the current row, with NUL behind it; NULL for other types. `*length` (may be NULL) is its length in bytes:
/// it may hold NUL too. Valid until the statement is stepped, reset or finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_text(
    statement: *const PartialSyncStatement,
    column: usize,
    length: *mut usize,
) -> *const c_char {
    let (text, bytes) = quietly((ptr::null(), 0), || {
        // SAFETY: by the rules of the boundary.
        unsafe { peek(statement) }
            .and_then(|mut s| ended_text(&mut s, column))
            .unwrap_or((ptr::null(), 0))
    });
    // SAFETY: null or writable, by the rules of the boundary.
    unsafe { crate::boundary::tell(length, bytes) };
    text
}

/// SQLite's own text may be the recorder's copy, which ends without NUL: so a copy that does, until the row is left.
fn ended_text(s: &mut Inner, column: usize) -> Option<(*const c_char, usize)> {
    if !s.row.contains_key(&column) {
        let Ok(ValueRef::Text(text)) = s.statement.value(column) else {
            return None;
        };
        let mut copy = Vec::with_capacity(text.len() + 1);
        copy.extend_from_slice(text);
        copy.push(0);
        s.row.insert(column, copy.into_boxed_slice());
    }
    let kept = s.row.get(&column)?;
    Some((kept.as_ptr().cast(), kept.len() - 1))
}

/// The bytes of a blob or text of the current row, not copied; NULL for other types, never NULL for an empty one.
/// `*length` (may be NULL) tells how many. Valid until the statement is stepped, reset or finalized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_column_blob(
    statement: *const PartialSyncStatement,
    column: usize,
    length: *mut usize,
) -> *const u8 {
    // SAFETY: by the rules of the boundary.
    unsafe {
        let (bytes, count) = read(statement, column, |value| (value.bytes, value.length));
        crate::boundary::tell(length, count);
        bytes
    }
}

/// The current row at once: fills in `values[0]` to `values[count - 1]`, which must be the number of columns. Pointers
/// in them are valid until the statement is stepped, reset or finalized. For callers to whom a call is expensive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_row(
    statement: *const PartialSyncStatement,
    values: *mut PartialSyncValue,
    count: usize,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    // SAFETY: by the rules of the boundary; `values` has room for `count` of them.
    unsafe {
        with(statement, error, |s| {
            let columns = s.statement.column_count();
            if count != columns || (values.is_null() && count != 0) {
                return misuse(format!(
                    "the row has {columns} columns: give room for so many values"
                ));
            }
            for column in 0..count {
                values.add(column).write(s.statement.value(column)?.into());
            }
            Ok(())
        })
    }
}
