//! What a database says of its keys: which columns refer to which, and how high they are.

use std::collections::{BTreeSet, HashMap};

use partial_sync_vfs::sqlite::{Conn, Step, Stmt, ValueRef};

use crate::{
    capture::given::{self, ColumnRef},
    change::{keys::References, sql::quoted, tokens::tokens},
    error::Result,
    log::is_no_such_table,
};

/// A table's column, both in lower case.
type ColumnName = (String, String);

/// Which columns refer to a table's integer key: by a declared foreign key, or because a trigger of that table copies the
/// key there, and nothing else does. What refers to a column that itself refers to a key (`badge -> employee -> person`, where
/// an employee's key is the person's) refers to that key.
pub(crate) fn references(conn: &Conn) -> Result<References> {
    let mut links: HashMap<ColumnName, BTreeSet<ColumnName>> = HashMap::new();
    let mut keys = HashMap::new();
    let mut select = conn.prepare_one(
        "SELECT lower(f.\"table\"), lower(m.name), lower(f.\"from\"), lower(coalesce(f.\"to\", \
         (SELECT name FROM pragma_table_info(f.\"table\", 'main') WHERE pk = f.seq + 1))) \
         FROM main.sqlite_schema m JOIN pragma_foreign_key_list(m.name, 'main') f WHERE m.type = 'table'",
    )?;
    while select.step()? == Step::Row {
        let column = (text(&select, 1), text(&select, 2));
        let to = (text(&select, 0), text(&select, 3));
        links.entry(column).or_default().insert(to);
    }
    let mut select =
        conn.prepare_one("SELECT lower(tbl_name), sql FROM main.sqlite_schema WHERE type = 'trigger'")?;
    let mut copied: HashMap<ColumnName, BTreeSet<ColumnName>> = HashMap::new();
    while select.step()? == Step::Row {
        let (table, sql) = (text(&select, 0), text(&select, 1));
        let key = key_of(conn, &mut keys, &table)?;
        for (child, place) in given::copies_of_key(&tokens(&sql), &key) {
            let child = child.to_ascii_lowercase();
            let copy = match place {
                ColumnRef::Name(name) => Some(name.to_ascii_lowercase()),
                ColumnRef::Number(n) => column(conn, &child, "hidden = 0", n)?,
            };
            if let Some(copy) = copy {
                let from = (table.clone(), key.clone());
                copied.entry((child, copy)).or_default().insert(from);
            }
        }
    }
    for (column, from) in copied {
        if from.len() == 1 {
            links.entry(column).or_insert(from);
        }
    }
    let mut references = References::new();
    for (column, to) in &links {
        let (mut ends, mut direct) = (BTreeSet::new(), BTreeSet::new());
        let mut seen: BTreeSet<&ColumnName> = to.iter().collect();
        let mut left: Vec<&ColumnName> = to.iter().collect();
        while let Some(place) = left.pop() {
            let is_key = place.1 == key_of(conn, &mut keys, &place.0)?;
            if is_key && to.contains(place) {
                direct.insert(place.0.clone());
            }
            match links.get(place) {
                Some(further) => left.extend(further.iter().filter(|place| seen.insert(place))),
                None if is_key => {
                    ends.insert(place.0.clone());
                }
                None => {}
            }
        }
        // Of keys that refer to each other none gave the other.
        for parent in if ends.is_empty() { direct } else { ends } {
            references.entry(parent).or_default().push(column.clone());
        }
    }
    Ok(references)
}

/// The first column of a table's key, in lower case.
fn key_of(conn: &Conn, known: &mut HashMap<String, String>, table: &str) -> Result<String> {
    if let Some(key) = known.get(table) {
        return Ok(key.clone());
    }
    let key = column(conn, table, "pk = 1", 0)?.unwrap_or_default();
    known.insert(table.to_owned(), key.clone());
    Ok(key)
}

/// The name, in lower case, of a table's column: number `n` of those that `which` selects.
fn column(conn: &Conn, table: &str, which: &str, n: usize) -> Result<Option<String>> {
    let sql = format!(
        "SELECT lower(name) FROM pragma_table_xinfo(?1, 'main') WHERE {which} ORDER BY cid LIMIT 1 OFFSET ?2"
    );
    let mut select = conn.prepare_one(&sql)?;
    select.bind(1, ValueRef::Text(table.as_bytes()))?;
    select.bind(2, ValueRef::Integer(n as i64))?;
    Ok((select.step()? == Step::Row).then(|| text(&select, 0)))
}

fn text(select: &Stmt, column: usize) -> String {
    match select.value(column) {
        Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    }
}

/// The counter that AUTOINCREMENT has for a table; a key up to it may have been used.
pub(crate) const COUNTER: &str = "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1 COLLATE NOCASE";

/// The highest integer key that a table has, or has had if it is to know.
pub(crate) fn highest(conn: &Conn, table: &str, key: &str) -> Result<i64> {
    let mut select = conn.prepare_one(&format!("SELECT max({}) FROM {}", quoted(key), quoted(table)))?;
    select.step()?;
    let highest = match select.value(0)? {
        ValueRef::Integer(highest) => highest,
        _ => 0,
    };
    let mut select = match conn.prepare_one(COUNTER) {
        Ok(select) => select,
        Err(e) if is_no_such_table(&e) => return Ok(highest),
        Err(e) => return Err(e.into()),
    };
    select.bind(1, ValueRef::Text(table.as_bytes()))?;
    select.step()?;
    Ok(match select.value(0)? {
        ValueRef::Integer(counter) => highest.max(counter),
        _ => highest,
    })
}
