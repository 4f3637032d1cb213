//! Runs local changes again on top of a new remote state: the same statements as a push. Used twice by a pull, first on a
//! rehearsal of the new state, then for good.

use std::collections::HashMap;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{Conn, Step, Stmt, ValueRef};

use crate::{
    change::{
        Change, Value, is_advice,
        migration::Migration,
        push::subject,
        sql::{SqlStatement, is_duplicate_column},
        transform::{TransformFn, statements},
    },
    error::{Error, Result},
    log::{Chunk, is_no_such_table},
};

/// Prepared statements kept at once; a log speaks of few tables.
const KEPT: usize = 64;

/// Runs every change of the chunks, in order, in the transaction that is open on `conn`.
pub(crate) fn run(conn: &Conn, chunks: &[Chunk], transform: Option<&TransformFn>) -> Result<()> {
    let mut kept = HashMap::new();
    for chunk in chunks {
        for change in chunk.changes()? {
            if is_advice(&change) {
                continue;
            }
            let written = statements(&change, transform).map_err(|e| conflict(&change, e.to_string()))?;
            for statement in &written {
                if statement.sql.is_empty() {
                    continue;
                }
                match execute(conn, &mut kept, statement) {
                    Err(e) if statement.skip_if_duplicate_column && is_duplicate_column(&e.message) => {}
                    // A page that could not be had is no conflict; it is what it is.
                    Err(e) if e.source.is_some() || !is_refusal(e.code) => return Err(e.into()),
                    Err(e) if is_made(conn, &change, &e.message)? => {}
                    Err(e) => return Err(conflict(&change, e.message)),
                    Ok(()) => {}
                }
            }
        }
    }
    Ok(())
}

/// Whether the new state has this `ALTER TABLE` already, which is why it was refused.
fn is_made(conn: &Conn, change: &Change, message: &str) -> Result<bool> {
    let Some(migration) = Migration::of_change(change).filter(|m| m.may_explain(message)) else {
        return Ok(false);
    };
    let mut columns = Vec::new();
    for table in migration.tables() {
        let mut stmt = conn.prepare_one(&Migration::question(table))?;
        let mut names = Vec::new();
        while stmt.step()? == Step::Row {
            if let ValueRef::Text(name) = stmt.value(1)? {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        columns.push(names);
    }
    Ok(migration.is_made(&columns))
}

/// Whether SQLite refuses the statement itself: an error in it, or a constraint.
fn is_refusal(code: i32) -> bool {
    const ERROR: i32 = 1;
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    matches!(code, ERROR | TOO_BIG | CONSTRAINT | MISMATCH)
}

fn execute(
    conn: &Conn,
    kept: &mut HashMap<String, Stmt>,
    statement: &SqlStatement,
) -> partial_sync_vfs::sqlite::Result<()> {
    if kept.len() >= KEPT && !kept.contains_key(&statement.sql) {
        kept.clear();
    }
    let stmt = match kept.entry(statement.sql.clone()) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(conn.prepare_one(&statement.sql)?),
    };
    for (index, value) in statement.args.iter().enumerate() {
        stmt.bind(index + 1, value.into())?;
    }
    stmt.execute()
}

fn conflict(change: &Change, message: String) -> Error {
    let (table, key) = subject(change);
    let what = match table {
        None => "the schema".to_owned(),
        Some(table) if key.is_empty() => format!("table {table:?}"),
        Some(table) => {
            let row: Vec<String> = key
                .iter()
                .map(|(name, value)| format!("{name} = {}", shown(value)))
                .collect();
            format!("the row of table {table:?} with {}", row.join(", "))
        }
    };
    Error::PullConflict {
        change: change.id,
        what,
        message,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => value.to_string(),
        Value::Real(value) => format!("{value:?}"),
        Value::Text(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        Value::RawText(bytes) => format!("{} bytes of text", bytes.len()),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// How far the changes of `client_id` have come in the state that `conn` shows.
pub(crate) fn position(conn: &Conn, client_id: &str) -> Result<Option<ChangeId>> {
    let sql = "SELECT change_id FROM main.turso_sync_last_change_id WHERE client_id = ?";
    let mut stmt = match conn.prepare_one(sql) {
        Ok(stmt) => stmt,
        Err(e) if is_no_such_table(&e) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    stmt.bind(1, ValueRef::Text(client_id.as_bytes()))?;
    Ok(match stmt.step()? {
        Step::Row => match stmt.value(0)? {
            ValueRef::Integer(id) => Some(ChangeId(id)),
            _ => None,
        },
        Step::Done => None,
    })
}
