//! What a statement that failed has left: everything it did before (`OR FAIL`, `RAISE(FAIL)`) or nothing.
//!
//! SQLite tells by `changes()` where it fails with FAIL and the statement itself had changed a row. It tells nothing of what only
//! triggers did, nor where it could not undo a statement of a transaction, because it had not foreseen that the statement may fail:
//! a key that is not an integer in an UPDATE, a sum that is too large, a value that a STRICT table does not take. Then one of the
//! last rows that changed is looked at: it is as the hook last saw it, or it is not.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

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

/// How many of the rows that changed last are looked at first. It takes memory for each, and one that came to something tells.
const LAST: usize = 64;

/// A row as it was, or is; `None` where there is none.
type Image<'n> = Option<&'n [Value]>;

/// What identifies a row: its table, and its key there.
type RowKey = (Arc<str>, Vec<Value>);

/// How a row was first and is last known.
#[derive(Default)]
struct RowHistory {
    first: Option<Vec<Value>>,
    last: Option<Vec<Value>>,
}

/// A table with rows that changed.
enum Looked {
    Table(LookedTable),
    /// It holds rows of a virtual table.
    Shadow,
    /// Its rows cannot be found again.
    Unknown,
}

/// A table in which rows can be found again.
struct LookedTable {
    table: Arc<Table>,
    key: Vec<String>,
    /// See [`SchemaCache::reals`].
    reals: Arc<[usize]>,
}

/// The tables, by their names as the hook has them.
#[derive(Default)]
struct Tables {
    // Asked while nothing was recorded yet: what the recorder knows of the schema may be old.
    schema: SchemaCache,
    known: HashMap<Arc<str>, Looked>,
}

/// Whether what the hook saw is there; `None` where that cannot be told. Rows of shadow tables tell nothing. Without triggers they
/// do not have to: SQLite always foresees that a statement on a virtual table may fail.
pub(super) fn left_behind(conn: &Conn, seen: &mut Seen, has_triggers: bool) -> Result<Option<bool>> {
    match among_the_last(LAST, conn, seen, has_triggers)? {
        (None, true) => Ok(among_the_last(usize::MAX, conn, seen, has_triggers)?.0),
        (told, _) => Ok(told),
    }
}

/// The same, told from at most so many of the rows that changed last, and whether there are more.
fn among_the_last(
    most: usize,
    conn: &Conn,
    seen: &mut Seen,
    has_triggers: bool,
) -> Result<(Option<bool>, bool)> {
    let mut tables = Tables::default();
    let (mut last, mut all, mut more) = (VecDeque::new(), true, false);
    seen.rewind();
    while let Some(row) = seen.next_nested()? {
        let looked = match internal(|| tables.get(conn, &row.table))? {
            Looked::Table(looked) => looked,
            unknown => {
                all &= matches!(unknown, Looked::Shadow) && !has_triggers;
                continue;
            }
        };
        for (key, ..) in images(&looked.table, &row) {
            if last.len() == most {
                last.pop_front();
                more = true;
            }
            last.push_back((row.table.clone(), key));
        }
    }
    let mut rows: HashMap<RowKey, RowHistory> = HashMap::new();
    let keys: HashSet<RowKey> = last.iter().cloned().collect();
    seen.rewind();
    while let Some(row) = seen.next_nested()? {
        let Looked::Table(looked) = internal(|| tables.get(conn, &row.table))? else {
            continue;
        };
        for (key, was, is) in images(&looked.table, &row) {
            let of = (row.table.clone(), key);
            if !keys.contains(&of) {
                continue;
            }
            let history = rows.entry(of).or_insert_with(|| RowHistory {
                first: was.map(<[Value]>::to_vec),
                last: None,
            });
            history.last = is.map(<[Value]>::to_vec);
        }
    }
    seen.rewind();
    for (name, key) in &last {
        let (Looked::Table(looked), Some(row)) = (
            internal(|| tables.get(conn, name))?,
            rows.get(&(name.clone(), key.clone())),
        ) else {
            continue;
        };
        let differs = match (&row.first, &row.last) {
            (Some(first), Some(last)) => !same(looked, first, last),
            (first, last) => first.is_some() != last.is_some(),
        };
        if differs {
            let is_there = internal(|| is_as_last_seen(conn, looked, key, row))?;
            return Ok((Some(is_there), more));
        }
    }
    Ok(((all && !more).then_some(false), more))
}

impl Tables {
    fn get(&mut self, conn: &Conn, name: &Arc<str>) -> sqlite::Result<&Looked> {
        if !self.known.contains_key(name) {
            let looked = match self.schema.table(conn, name)? {
                Known::Ordinary(table) => match key_columns(&table) {
                    Some(key) => {
                        let reals = self.schema.reals(conn, &table)?;
                        Looked::Table(LookedTable { table, key, reals })
                    }
                    None => Looked::Unknown,
                },
                Known::Shadow(..) => Looked::Shadow,
                _ => Looked::Unknown,
            };
            self.known.insert(name.clone(), looked);
        }
        Ok(self.known.get(name).unwrap_or(&Looked::Unknown))
    }
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

/// The key of each row that a change is about, and what the row was and is.
fn images<'n>(table: &Table, change: &'n Nested) -> Vec<(Vec<Value>, Image<'n>, Image<'n>)> {
    let key = |rowid: i64, image: &[Value]| match table.without_rowid {
        true => table
            .key()
            .iter()
            .filter_map(|&i| image.get(i).cloned())
            .collect(),
        false => vec![Value::Integer(rowid)],
    };
    let (old, new) = change.rowids;
    match &change.op {
        RowOp::Insert { after } | RowOp::Add { after } => vec![(key(new, after), None, Some(&after[..]))],
        RowOp::Delete { before } => vec![(key(old, before), Some(&before[..]), None)],
        RowOp::Update { before, after } => {
            let (from, to) = (key(old, before), key(new, after));
            match from == to {
                true => vec![(from, Some(&before[..]), Some(&after[..]))],
                false => vec![(from, Some(&before[..]), None), (to, None, Some(&after[..]))],
            }
        }
    }
}

fn is_as_last_seen(
    conn: &Conn,
    looked: &LookedTable,
    key: &[Value],
    row: &RowHistory,
) -> sqlite::Result<bool> {
    let table = &looked.table;
    let columns: Vec<String> = table.columns.iter().map(|c| quoted(&c.name)).collect();
    let terms: Vec<String> = looked
        .key
        .iter()
        .map(|c| format!("{c} COLLATE BINARY IS ?"))
        .collect();
    let mut select = conn.prepare_one(&format!(
        "SELECT {} FROM main.{} WHERE {}",
        columns.join(", "),
        quoted(&table.name),
        terms.join(" AND ")
    ))?;
    for (index, value) in key.iter().enumerate() {
        select.bind(index + 1, value.into())?;
    }
    if select.step()? != Step::Row {
        return Ok(row.last.is_none());
    }
    let image: sqlite::Result<Vec<Value>> = (0..columns.len()).map(|i| Ok(select.value(i)?.into())).collect();
    let image = image?;
    Ok(row.last.as_ref().is_some_and(|last| same(looked, last, &image)))
}

/// Whether two images are the same, as far as they are recorded.
fn same(looked: &LookedTable, a: &[Value], b: &[Value]) -> bool {
    let recorded = |image: &[Value]| {
        let mut op = RowOp::Delete {
            before: image.to_vec(),
        };
        hook::fit(&looked.table, &looked.reals, &mut op)
            .is_ok()
            .then_some(op)
    };
    recorded(a) == recorded(b)
}
