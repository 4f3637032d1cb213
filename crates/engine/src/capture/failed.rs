//! What a statement that failed has left: everything it did before (`OR FAIL`, `RAISE(FAIL)`) or nothing.
//!
//! SQLite tells by `changes()` as long as the statement itself had changed a row; of what only triggers did, it tells
//! nothing. Then one of the rows that they changed is looked at: it is as the hook last saw it, or it is not.

use std::collections::HashMap;

use partial_sync_vfs::sqlite::{self, Conn, Step};

use super::{
    classify::internal,
    hook::{self, Nested, Seen},
    schema::{Known, SchemaCache},
};
use crate::{
    change::{RowOp, Table, Value, sql::quoted},
    error::Result,
};

/// What identifies a row in its table, and how it was first and is last known.
struct RowHistory<'n> {
    key: Vec<Value>,
    first: Option<&'n [Value]>,
    last: Option<&'n [Value]>,
}

/// Whether what the hook saw is there; `None` where that cannot be told.
pub(super) fn left_behind(conn: &Conn, seen: &mut Seen) -> Result<Option<bool>> {
    let nested = seen.decode()?;
    seen.rewind();
    Ok(internal(|| is_left_behind(conn, &nested))?)
}

fn is_left_behind(conn: &Conn, nested: &[Nested]) -> sqlite::Result<Option<bool>> {
    // Asked while nothing was recorded yet: what the recorder knows of the schema may be old.
    let mut schema = SchemaCache::default();
    let mut tables: HashMap<&str, Vec<&Nested>> = HashMap::new();
    for change in nested {
        tables.entry(&change.table).or_default().push(change);
    }
    let mut told = Some(false);
    for (name, changes) in tables {
        let Known::Ordinary(table) = schema.table(conn, name)? else {
            told = None;
            continue;
        };
        let Some(key) = key_columns(&table) else {
            told = None;
            continue;
        };
        for row in rows(&table, &changes) {
            let differs = row.first.is_some() != row.last.is_some()
                || row.first.zip(row.last).is_some_and(|(a, b)| !same(&table, a, b));
            if differs {
                return is_as_last_seen(conn, &table, &key, &row).map(Some);
            }
        }
    }
    Ok(told)
}

/// SQL of what identifies a row: a name of its rowid, or its primary key.
fn key_columns(table: &Table) -> Option<Vec<String>> {
    if table.without_rowid {
        let key = table.key().into_iter();
        return Some(key.map(|i| quoted(&table.columns[i].name)).collect());
    }
    let hidden = |name: &str| table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !hidden(name))
        .map(|name| vec![name.to_owned()])
}

/// What became of each row, in the order in which they were first touched.
fn rows<'n>(table: &Table, changes: &[&'n Nested]) -> Vec<RowHistory<'n>> {
    let key = |rowid: i64, image: &[Value]| match table.without_rowid {
        true => table
            .key()
            .iter()
            .filter_map(|&i| image.get(i).cloned())
            .collect(),
        false => vec![Value::Integer(rowid)],
    };
    let mut rows: Vec<RowHistory<'n>> = Vec::new();
    let mut places: HashMap<Vec<Value>, usize> = HashMap::new();
    let mut note = |key: Vec<Value>, was: Option<&'n [Value]>, is: Option<&'n [Value]>| {
        let place = *places.entry(key.clone()).or_insert_with(|| {
            rows.push(RowHistory {
                key,
                first: was,
                last: None,
            });
            rows.len() - 1
        });
        rows[place].last = is;
    };
    for change in changes {
        let (old, new) = change.rowids;
        match &change.op {
            RowOp::Insert { after } | RowOp::Add { after } => note(key(new, after), None, Some(after)),
            RowOp::Delete { before } => note(key(old, before), Some(before), None),
            RowOp::Update { before, after } => {
                let (from, to) = (key(old, before), key(new, after));
                match from == to {
                    true => note(from, Some(before), Some(after)),
                    false => {
                        note(from, Some(before), None);
                        note(to, None, Some(after));
                    }
                }
            }
        }
    }
    rows
}

fn is_as_last_seen(conn: &Conn, table: &Table, key: &[String], row: &RowHistory<'_>) -> sqlite::Result<bool> {
    let columns: Vec<String> = table.columns.iter().map(|c| quoted(&c.name)).collect();
    let terms: Vec<String> = key.iter().map(|c| format!("{c} COLLATE BINARY IS ?")).collect();
    let mut select = conn.prepare_one(&format!(
        "SELECT {} FROM main.{} WHERE {}",
        columns.join(", "),
        quoted(&table.name),
        terms.join(" AND ")
    ))?;
    for (index, value) in row.key.iter().enumerate() {
        select.bind(index + 1, value.into())?;
    }
    if select.step()? != Step::Row {
        return Ok(row.last.is_none());
    }
    let image: sqlite::Result<Vec<Value>> = (0..columns.len()).map(|i| Ok(select.value(i)?.into())).collect();
    let image = image?;
    Ok(row.last.is_some_and(|last| same(table, last, &image)))
}

/// Whether two images are the same, as far as they are recorded.
fn same(table: &Table, a: &[Value], b: &[Value]) -> bool {
    let recorded = |image: &[Value]| {
        let mut op = RowOp::Delete {
            before: image.to_vec(),
        };
        hook::fit(table, &mut op).is_ok().then_some(op)
    };
    recorded(a) == recorded(b)
}
