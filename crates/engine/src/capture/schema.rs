//! What the recorder needs to know about tables, read from SQLite once and kept until the schema changes.
//!
//! Only to be asked while the connection holds the write lock of `main`: asking takes a snapshot, which a deferred
//! transaction must not have before its first write.

use std::{collections::HashMap, sync::Arc};

use partial_sync_vfs::sqlite::{Conn, Result, Step, Stmt, ValueRef};

use super::{
    given,
    plan::Plans,
    virtual_tables::{self, Part, VirtualTable},
};
use crate::change::{Column, Table, tokens::tokens};

/// What a name in `main` is.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// A table whose rows are recorded.
    Ordinary(Arc<Table>),
    /// Its rows are seen in its shadow tables, or it is recorded by statement text.
    Virtual(Arc<VirtualTable>),
    /// Has INSTEAD OF triggers at best.
    View,
    /// A shadow table of a virtual table.
    Shadow(Arc<VirtualTable>, Part),
    /// Gone: not recorded.
    Ignored,
}

/// What a foreign key does to the child row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Nothing,
    Cascade,
    /// SET NULL or SET DEFAULT.
    Set,
}

/// A foreign key as its child table declares it.
#[derive(Clone, Debug)]
pub(crate) struct ForeignKey {
    pub parent: String,
    /// Columns of the child, and the parent's columns they refer to (`None`: the parent's primary key).
    pub columns: Vec<(usize, Option<String>)>,
    pub on_update: Action,
    pub on_delete: Action,
}

/// What the indexes of a table say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexes {
    /// The column that is its rowid: an `INTEGER PRIMARY KEY`, which has no index of its own.
    pub rowid_key: Option<usize>,
    /// Whether a row can be in the way of another one, but for the rowid.
    pub unique: bool,
}

#[derive(Default)]
pub(crate) struct SchemaCache {
    known: HashMap<Box<str>, Known>,
    foreign_keys: HashMap<Box<str>, Arc<[ForeignKey]>>,
    indexes: HashMap<Box<str>, Indexes>,
    unique: HashMap<Box<str>, Arc<[Vec<usize>]>>,
    reals: HashMap<Box<str>, Arc<[usize]>>,
    triggers: HashMap<Box<str>, Arc<str>>,
    trigger_keys: HashMap<Box<str>, bool>,
    /// Of statements, by their text.
    pub(super) plans: Plans,
    kind: Option<Stmt>,
    columns: Option<Stmt>,
    keys: Option<Stmt>,
}

fn text(stmt: &Stmt, column: usize) -> Result<Option<String>> {
    Ok(match stmt.value(column)? {
        ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    })
}

fn integer(stmt: &Stmt, column: usize) -> Result<i64> {
    Ok(match stmt.value(column)? {
        ValueRef::Integer(n) => n,
        _ => 0,
    })
}

fn ask<'s>(slot: &'s mut Option<Stmt>, conn: &Conn, sql: &str, name: &str) -> Result<&'s mut Stmt> {
    let stmt = match slot {
        Some(stmt) => stmt,
        none => none.insert(conn.prepare_one(sql)?),
    };
    stmt.reset()?;
    stmt.bind(1, ValueRef::Text(name.as_bytes()))?;
    Ok(stmt)
}

impl SchemaCache {
    /// Forgets everything: the schema changed.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.foreign_keys.clear();
        self.indexes.clear();
        self.unique.clear();
        self.reals.clear();
        self.triggers.clear();
        self.trigger_keys.clear();
        self.plans.clear();
    }

    /// What the indexes of a table say of it.
    pub(crate) fn indexes(&mut self, conn: &Conn, table: &Table) -> Result<Indexes> {
        if let Some(known) = self.indexes.get(table.name.as_str()) {
            return Ok(*known);
        }
        let sql = "SELECT count(*) FILTER (WHERE origin = 'pk'), count(*) FILTER (WHERE \"unique\") \
                   FROM pragma_index_list(?1, 'main')";
        let mut select = conn.prepare_one(sql)?;
        select.bind(1, ValueRef::Text(table.name.as_bytes()))?;
        select.step()?;
        let indexes = Indexes {
            rowid_key: match table.key()[..] {
                [key] if !table.without_rowid && integer(&select, 0)? == 0 => Some(key),
                _ => None,
            },
            unique: integer(&select, 1)? > 0,
        };
        self.indexes.insert(table.name.as_str().into(), indexes);
        Ok(indexes)
    }

    /// The columns of each unique index of a table, but for those over expressions.
    pub(crate) fn unique(&mut self, conn: &Conn, table: &Table) -> Result<Arc<[Vec<usize>]>> {
        if let Some(known) = self.unique.get(table.name.as_str()) {
            return Ok(known.clone());
        }
        let mut select = conn.prepare_one(
            "SELECT l.seq, i.name FROM pragma_index_list(?1, 'main') l JOIN pragma_index_info(l.name, 'main') i \
             WHERE l.\"unique\" ORDER BY l.seq, i.seqno",
        )?;
        select.bind(1, ValueRef::Text(table.name.as_bytes()))?;
        let mut indexes: Vec<(i64, Option<Vec<usize>>)> = Vec::new();
        while select.step()? == Step::Row {
            let (index, name) = (integer(&select, 0)?, text(&select, 1)?);
            let column = name.and_then(|name| table.columns.iter().position(|c| c.name == name));
            match indexes.last_mut() {
                Some((last, columns)) if *last == index => {
                    *columns = columns.take().zip(column).map(|(mut columns, column)| {
                        columns.push(column);
                        columns
                    });
                }
                _ => indexes.push((index, column.map(|column| vec![column]))),
            }
        }
        let unique: Arc<[Vec<usize>]> = indexes.into_iter().filter_map(|(_, columns)| columns).collect();
        self.unique.insert(table.name.as_str().into(), unique.clone());
        Ok(unique)
    }

    /// The REAL columns of a table that have a default. Of a row that was written before such a column was added SQLite's hook gives
    /// the default as it is written, an integer perhaps, where every read gives a REAL.
    pub(crate) fn reals(&mut self, conn: &Conn, table: &Table) -> Result<Arc<[usize]>> {
        if let Some(known) = self.reals.get(table.name.as_str()) {
            return Ok(known.clone());
        }
        // How a declared type gives a column its affinity: https://sqlite.org/datatype3.html#determination_of_column_affinity
        let mut select = conn.prepare_one(
            "SELECT cid FROM pragma_table_xinfo(?1, 'main') WHERE dflt_value IS NOT NULL AND type NOT LIKE '%INT%' \
             AND type NOT LIKE '%CHAR%' AND type NOT LIKE '%CLOB%' AND type NOT LIKE '%TEXT%' AND type NOT LIKE '%BLOB%' \
             AND (type LIKE '%REAL%' OR type LIKE '%FLOA%' OR type LIKE '%DOUB%')",
        )?;
        select.bind(1, ValueRef::Text(table.name.as_bytes()))?;
        let mut reals = Vec::new();
        while select.step()? == Step::Row {
            let column = usize::try_from(integer(&select, 0)?).ok();
            reals.extend(column.filter(|column| *column < table.columns.len()));
        }
        let reals: Arc<[usize]> = reals.into();
        self.reals.insert(table.name.as_str().into(), reals.clone());
        Ok(reals)
    }

    /// The text of a trigger; empty when there is none.
    pub(crate) fn trigger(&mut self, conn: &Conn, name: &str) -> Result<Arc<str>> {
        let name = name.to_ascii_lowercase();
        if let Some(sql) = self.triggers.get(name.as_str()) {
            return Ok(sql.clone());
        }
        for (schema, kept) in [("main", true), ("temp", false)] {
            let sql =
                format!("SELECT sql FROM {schema}.sqlite_schema WHERE type = 'trigger' AND lower(name) = ?1");
            let mut select = conn.prepare_one(&sql)?;
            select.bind(1, ValueRef::Text(name.as_bytes()))?;
            if select.step()? == Step::Row {
                let sql: Arc<str> = text(&select, 0)?.unwrap_or_default().into();
                // A TEMP trigger changes without the schema of `main`.
                if kept {
                    self.triggers.insert(name.into(), sql.clone());
                }
                return Ok(sql);
            }
        }
        Ok("".into())
    }

    /// Whether a trigger adds rows to the table and leaves their key to SQLite.
    pub(crate) fn has_keys_of_triggers(&mut self, conn: &Conn, table: &Table) -> Result<bool> {
        if let Some(known) = self.trigger_keys.get(table.name.as_str()) {
            return Ok(*known);
        }
        let mut found = false;
        if let Some(key) = self.indexes(conn, table)?.rowid_key {
            let mut select = conn.prepare_one("SELECT sql FROM main.sqlite_schema WHERE type = 'trigger'")?;
            while !found && select.step()? == Step::Row {
                let sql = text(&select, 0)?.unwrap_or_default();
                found = given::by_trigger(&tokens(&sql), table, key) == Some(true);
            }
        }
        self.trigger_keys.insert(table.name.as_str().into(), found);
        Ok(found)
    }

    /// What `name` is in `main`.
    pub(crate) fn table(&mut self, conn: &Conn, name: &str) -> Result<Known> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let known = self.read(conn, name)?;
        self.known.insert(name.into(), known.clone());
        Ok(known)
    }

    fn read(&mut self, conn: &Conn, name: &str) -> Result<Known> {
        let stmt = ask(
            &mut self.kind,
            conn,
            "SELECT type, wr, name FROM pragma_table_list(?1) WHERE schema = 'main'",
            name,
        )?;
        if stmt.step()? == Step::Done {
            return Ok(Known::Ignored);
        }
        let kind = text(stmt, 0)?.unwrap_or_default();
        let without_rowid = integer(stmt, 1)? != 0;
        let name = text(stmt, 2)?.unwrap_or_default();
        stmt.reset()?;
        match kind.as_str() {
            "table" => {}
            "virtual" => return Ok(Known::Virtual(Arc::new(virtual_tables::read(conn, &name)?))),
            "view" => return Ok(Known::View),
            "shadow" => {
                for (owner, part) in virtual_tables::owner(&name) {
                    if let Known::Virtual(table) = self.table(conn, owner)? {
                        return Ok(Known::Shadow(table, part));
                    }
                }
                return Ok(Known::Ignored);
            }
            _ => return Ok(Known::Ignored),
        }
        let stmt = ask(
            &mut self.columns,
            conn,
            "SELECT name, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid",
            &name,
        )?;
        let mut columns = Vec::new();
        while stmt.step()? == Step::Row {
            columns.push(Column {
                name: text(stmt, 0)?.unwrap_or_default(),
                key: integer(stmt, 1)?.try_into().unwrap_or(0),
                generated: matches!(integer(stmt, 2)?, 2 | 3),
            });
        }
        stmt.reset()?;
        Ok(Known::Ordinary(Arc::new(Table {
            name,
            columns,
            without_rowid,
            is_virtual: false,
        })))
    }

    /// The foreign keys that `child` declares.
    pub(crate) fn foreign_keys(&mut self, conn: &Conn, child: &Table) -> Result<Arc<[ForeignKey]>> {
        if let Some(keys) = self.foreign_keys.get(child.name.as_str()) {
            return Ok(keys.clone());
        }
        let stmt = ask(
            &mut self.keys,
            conn,
            "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete \
             FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq",
            &child.name,
        )?;
        let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
        while stmt.step()? == Step::Row {
            let id = integer(stmt, 0)?;
            let from = text(stmt, 2)?.unwrap_or_default();
            let Some(from) = child
                .columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(&from))
            else {
                continue;
            };
            let column = (from, text(stmt, 3)?);
            match keys.last_mut() {
                Some((last, key)) if *last == id => key.columns.push(column),
                _ => keys.push((
                    id,
                    ForeignKey {
                        parent: text(stmt, 1)?.unwrap_or_default(),
                        columns: vec![column],
                        on_update: action(text(stmt, 4)?),
                        on_delete: action(text(stmt, 5)?),
                    },
                )),
            }
        }
        stmt.reset()?;
        let keys: Arc<[ForeignKey]> = keys.into_iter().map(|(_, key)| key).collect();
        self.foreign_keys.insert(child.name.as_str().into(), keys.clone());
        Ok(keys)
    }
}

fn action(text: Option<String>) -> Action {
    match text.as_deref() {
        Some("CASCADE") => Action::Cascade,
        Some("SET NULL" | "SET DEFAULT") => Action::Set,
        _ => Action::Nothing,
    }
}
