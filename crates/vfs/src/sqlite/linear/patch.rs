//! `json_patch`, which looks for each key of the patch among all of the target's: refused where both are large. Everything else is
//! SQLite's own, called on a connection on which it was not replaced.

use parking_lot::Mutex;
use rusqlite::{
    Connection, Error,
    functions::{Context, FunctionFlags, SubType},
    types::{ToSqlOutput, Value, ValueRef},
};

/// The largest product of the two sizes, in bytes: seconds.
const LARGEST_PRODUCT: usize = 1 << 32;
const TOO_LARGE: &str = "json_patch of two values this large takes too long here: patch smaller ones";
/// How SQLite marks a text that is JSON.
const JSON: SubType = Some(b'J' as _);

/// Limits `json_patch` and `jsonb_patch` on this connection.
pub(super) fn install(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS
        | FunctionFlags::SQLITE_RESULT_SUBTYPE;
    for (name, sql) in [
        ("json_patch", "SELECT json_patch(?1, ?2)"),
        ("jsonb_patch", "SELECT jsonb_patch(?1, ?2)"),
    ] {
        // Opened when it is first needed.
        let plain = Mutex::new(None);
        conn.create_scalar_function(name, 2, flags, move |call| patch(call, sql, &plain))?;
    }
    Ok(())
}

fn patch(
    call: &Context<'_>,
    sql: &str,
    plain: &Mutex<Option<Connection>>,
) -> rusqlite::Result<(Value, SubType)> {
    let size = |value| match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 1,
    };
    let (target, patch) = (call.get_raw(0), call.get_raw(1));
    if size(target).saturating_mul(size(patch)) > LARGEST_PRODUCT {
        return Err(Error::UserFunctionError(TOO_LARGE.into()));
    }
    let mut plain = plain.lock();
    let conn = match plain.take() {
        Some(conn) => conn,
        None => Connection::open_in_memory()?,
    };
    let conn = plain.insert(conn);
    let arguments = [ToSqlOutput::Borrowed(target), ToSqlOutput::Borrowed(patch)];
    let patched: Value = conn
        .prepare_cached(sql)?
        .query_row(arguments, |row| row.get(0))
        .map_err(|error| match error {
            Error::SqliteFailure(_, Some(text)) => Error::UserFunctionError(text.into()),
            error => error,
        })?;
    let subtype = if matches!(patched, Value::Text(_)) {
        JSON
    } else {
        None
    };
    Ok((patched, subtype))
}
