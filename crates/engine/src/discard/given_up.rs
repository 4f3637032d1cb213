//! What will not be there, or otherwise than the log takes it for, when changes are given up; and which later changes
//! cannot stay then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use partial_sync_vfs::sqlite::Conn;

use crate::{
    capture::{
        cause::same_key,
        given,
        schema::{ForeignKey, Known, SchemaCache},
        virtual_tables::Kind,
    },
    change::{
        Cause, Change, ChangeKind, StatementChange, StatementKind, Table, Value,
        keys::as_integer,
        migration::Migration,
        sql::key_of,
        tokens::{Token, tokens},
    },
    error::Result,
};

/// All values of a row.
type Image = Vec<Value>;
/// A row: its table, in lower case, and its key (all values where it has none).
type Row = (String, Vec<Value>);

/// How the state will differ from what the log speaks of, without the changes that are given up.
#[derive(Default)]
pub struct GivenUp {
    /// Rows that will not be what the log takes them for, and whether they will be there at all.
    rows: HashMap<Row, bool>,
    /// What refers to one of these cannot stay, unless it would have referred to the row as it was before.
    made: Made,
    /// Rows that refer to others, as they will still be, and how given-up changes would have made them.
    left: Vec<(Arc<Table>, Image, Option<Image>)>,
    /// Values of unique indexes that rows will still have: the index's table and columns, and the values.
    held: HashSet<(String, Vec<usize>, Vec<Value>)>,
    /// Rows that were written into virtual tables by the text of a statement.
    written: HashSet<(String, i64)>,
    /// Virtual tables any row of which may have been written so.
    overwritten: HashSet<String>,
    /// Tables and views, in lower case, as the changes that are given up called them.
    tables: HashSet<String>,
    /// Indexes and triggers, in lower case.
    others: HashSet<String>,
    schema: SchemaCache,
}

/// Every change is given as what it speaks of is called today ([`Names`](super::names::Names)).
impl GivenUp {
    pub fn add(&mut self, conn: &Conn, change: &Change) -> Result<()> {
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                let (before, after) = op.images();
                let old = before.map(|image| row(table, image));
                let new = after.map(|image| row(table, image));
                if let Some(new) = new.filter(|new| old.as_ref() != Some(new)) {
                    self.rows.entry(new).or_insert(false);
                }
                if let Some(after) = after {
                    self.made.push(table, before, after);
                }
                let (Some(before), Some(old)) = (before, old) else {
                    return Ok(());
                };
                if self.rows.get(&old) == Some(&false) {
                    return Ok(());
                }
                // Of rows without a key any equal one is as good.
                if after.is_some() || key_of(table, before).is_some() {
                    self.rows.insert(old, true);
                }
                let unique = self.schema.unique(conn, table)?;
                self.held.extend(unique_values(&unique, table, before));
                if !self.schema.foreign_keys(conn, table)?.is_empty() {
                    self.left.push((table.clone(), before.clone(), after.cloned()));
                }
            }
            ChangeKind::Statement(statement) => {
                if let Some((table, writes)) = writes(statement) {
                    match writes {
                        Writes::Rows(rows) => self
                            .written
                            .extend(rows.into_iter().map(|id| (table.clone(), id))),
                        Writes::Any | Writes::All => drop(self.overwritten.insert(table)),
                        Writes::None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// What a schema change speaks of, as it does.
    pub fn add_objects(&mut self, change: &Change) {
        if let ChangeKind::Statement(statement) = &change.kind {
            let (tables, others) = objects(statement);
            self.tables.extend(tables);
            self.others.extend(others);
        }
    }

    /// The change stays: what it makes is there again, under the name that it gives.
    pub fn keep(&mut self, change: &Change) {
        if self.rows.is_empty() {
            return;
        }
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                if let (_, Some(after)) = op.images()
                    && let made = row(table, after)
                    && self.rows.remove(&made).is_some()
                {
                    self.made.remove(&made);
                }
            }
            ChangeKind::Statement(_) => {}
        }
    }

    /// The same of what is dropped, as it is called today.
    pub fn dropped(&mut self, name: &str) {
        self.rows
            .retain(|(table, _), _| !table.eq_ignore_ascii_case(name));
    }

    /// Whether a foreign-key action would have had nothing to do here, for the row will not be there.
    pub fn is_idle(&self, change: &Change) -> bool {
        match &change.kind {
            ChangeKind::Row {
                table,
                op,
                cause: Cause::ForeignKey | Cause::ForeignKeyByValues,
            } => {
                let (before, _) = op.images();
                before.is_some_and(|before| self.rows.get(&row(table, before)) == Some(&false))
            }
            _ => false,
        }
    }

    pub fn is_needed_by(&mut self, conn: &Conn, change: &Change) -> Result<bool> {
        match &change.kind {
            ChangeKind::Row { table, op, .. } => {
                let (before, after) = op.images();
                let was = before.map(|before| row(table, before));
                if was.as_ref().is_some_and(|was| self.rows.contains_key(was)) {
                    return Ok(true);
                }
                if let Some(after) = after {
                    let is = row(table, after);
                    let moves = was.as_ref() != Some(&is);
                    let taken = moves && key_of(table, after).is_some() && self.rows.get(&is) == Some(&true);
                    let held = !self.held.is_empty() && {
                        let unique = self.schema.unique(conn, table)?;
                        let had: Vec<_> = before
                            .into_iter()
                            .flat_map(|before| unique_values(&unique, table, before))
                            .collect();
                        unique_values(&unique, table, after)
                            .any(|v| self.held.contains(&v) && !had.contains(&v))
                    };
                    if taken || held || self.has_no_parent(conn, table, after)? {
                        return Ok(true);
                    }
                }
                match before {
                    Some(before) => self.leaves_child(conn, table, before, after),
                    None => Ok(false),
                }
            }
            ChangeKind::Statement(statement) => self.is_needed_by_text(conn, statement),
        }
    }

    /// Whether a change is one of a table, or speaks of something, that is not what it takes it for, by the name it has then.
    pub fn names(&self, change: &Change) -> bool {
        if self.tables.is_empty() && self.others.is_empty() {
            return false;
        }
        let table = |name: &str| self.tables.contains(&name.to_ascii_lowercase());
        match &change.kind {
            ChangeKind::Row { table: of, .. } => table(&of.name),
            ChangeKind::Statement(statement) => match &statement.kind {
                StatementKind::VirtualTableWrite { table: of } => table(of),
                StatementKind::Reindex {
                    table: of, content, ..
                } => table(of) || table(content),
                StatementKind::Sequence => {
                    matches!(statement.args.first(), Some(Value::Text(name)) if table(name))
                }
                kind => {
                    let all = tokens(&statement.sql);
                    // The arguments of a virtual table name its content as a string.
                    let strings = *kind == StatementKind::CreateTable && all.iter().any(|t| t.is("VIRTUAL"));
                    all.iter()
                        .filter_map(|token| match token.name() {
                            None if strings => Some(token.text.trim_matches('\'').to_owned()),
                            name => name,
                        })
                        .any(|name| table(&name) || self.others.contains(&name.to_ascii_lowercase()))
                }
            },
        }
    }

    /// Whether a statement writes a row into a virtual table that a given-up one wrote, or whose content is given up.
    fn is_needed_by_text(&mut self, conn: &Conn, statement: &StatementChange) -> Result<bool> {
        // A trigger's does what is right for the row, whatever that is.
        if matches!(&statement.kind, StatementKind::Reindex { by_trigger: true, .. }) {
            return Ok(false);
        }
        let Some((table, writes)) = writes(statement) else {
            return Ok(false);
        };
        let content = match self.schema.table(conn, &table)? {
            Known::Virtual(known) => match &known.kind {
                Kind::External { content, .. } => Some(content.to_ascii_lowercase()),
                _ => None,
            },
            _ => None,
        };
        Ok(match writes {
            Writes::None | Writes::All => false,
            Writes::Any => {
                self.overwritten.contains(&table)
                    || self.written.iter().any(|(of, _)| *of == table)
                    || self.rows.keys().any(|(of, _)| Some(of) == content.as_ref())
            }
            Writes::Rows(rows) => {
                self.overwritten.contains(&table)
                    || rows.into_iter().any(|id| {
                        self.written.contains(&(table.clone(), id))
                            || content.as_ref().is_some_and(|content| {
                                self.rows
                                    .contains_key(&(content.clone(), vec![Value::Integer(id)]))
                            })
                    })
            }
        })
    }

    /// Whether a row refers, by a foreign key that its table has now, to one that is given up.
    fn has_no_parent(&mut self, conn: &Conn, table: &Table, after: &[Value]) -> Result<bool> {
        if self.made.rows.is_empty() {
            return Ok(false);
        }
        let keys = self.schema.foreign_keys(conn, table)?;
        Ok(keys.iter().any(|key| self.made.has(key, after)))
    }

    /// Whether a row that is deleted, or gets another key, is one that a row refers to whose change is given up.
    fn leaves_child(
        &mut self,
        conn: &Conn,
        parent: &Table,
        before: &[Value],
        after: Option<&Vec<Value>>,
    ) -> Result<bool> {
        for (child, is, would_be) in &self.left {
            let keys = self.schema.foreign_keys(conn, child)?;
            let to = |child: &[Value], image: &[Value]| refers(&keys, child, parent, image);
            let follows = would_be.as_ref().is_some_and(|would_be| to(would_be, before));
            if to(is, before) && !follows && !after.is_some_and(|after| to(is, after)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Rows as given-up changes would have made them, and were before. A log may have many, and many rows that refer to others.
#[derive(Default)]
struct Made {
    rows: Vec<(Arc<Table>, Option<Image>, Image)>,
    /// By parent table and columns that a foreign key names: what these rows would have there, and would not have had.
    by_key: HashMap<Referred, HashSet<Vec<Value>>>,
}

/// A table, in lower case, and its columns as a foreign key names them.
type Referred = (String, Vec<Option<String>>);

impl Made {
    fn push(&mut self, table: &Arc<Table>, before: Option<&Image>, after: &Image) {
        for (referred, values) in &mut self.by_key {
            values.extend(made_values(referred, table, before, after));
        }
        self.rows.push((table.clone(), before.cloned(), after.clone()));
    }

    fn remove(&mut self, made: &Row) {
        self.rows.retain(|(of, _, image)| row(of, image) != *made);
        self.by_key.clear();
    }

    /// Whether a row's key refers to one of them.
    fn has(&mut self, key: &ForeignKey, child: &[Value]) -> bool {
        let values: Option<Vec<Value>> = key
            .columns
            .iter()
            .map(|(column, _)| child.get(*column).filter(|value| !value.is_null()).map(loose))
            .collect();
        let Some(values) = values else { return false };
        let columns = key.columns.iter().map(|(_, to)| to.clone()).collect();
        let referred = (key.parent.to_ascii_lowercase(), columns);
        let rows = &self.rows;
        let known = self.by_key.entry(referred).or_insert_with_key(|referred| {
            rows.iter()
                .filter_map(|(table, before, after)| made_values(referred, table, before.as_ref(), after))
                .collect()
        });
        known.contains(&values)
    }
}

fn made_values(
    (parent, columns): &Referred,
    table: &Table,
    before: Option<&Image>,
    after: &Image,
) -> Option<Vec<Value>> {
    if !table.name.eq_ignore_ascii_case(parent) {
        return None;
    }
    let primary = table.key();
    let places: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, to)| referred_column(table, &primary, i, to.as_deref()))
        .collect::<Option<_>>()?;
    let values = |image: &Image| -> Option<Vec<Value>> {
        places.iter().map(|&place| image.get(place).map(loose)).collect()
    };
    let after = values(after);
    if before.is_some_and(|before| values(before) == after) {
        return None;
    }
    after
}

/// Where the column is that a foreign key refers to in its place `i`.
fn referred_column(parent: &Table, primary: &[usize], i: usize, to: Option<&str>) -> Option<usize> {
    match to {
        Some(to) => parent
            .columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(to)),
        None => primary.get(i).copied(),
    }
}

/// The same for all values that SQLite could take for the same key, under whatever affinity and collation.
fn loose(value: &Value) -> Value {
    let number = |number: f64| Value::Real(number + 0.0);
    match value {
        Value::Integer(n) => number(*n as f64),
        Value::Real(n) => number(*n),
        Value::Text(text) => match text.trim().parse() {
            Ok(n) => number(n),
            Err(_) => Value::Text(text.trim_end().to_ascii_lowercase()),
        },
        other => other.clone(),
    }
}

/// What a row has in each unique index, so that values which any collation takes for equal are so.
fn unique_values<'a>(
    indexes: &'a [Vec<usize>],
    table: &'a Table,
    image: &'a [Value],
) -> impl Iterator<Item = (String, Vec<usize>, Vec<Value>)> + 'a {
    indexes.iter().filter_map(|columns| {
        let values: Option<Vec<Value>> = columns
            .iter()
            .map(|&i| match image.get(i)? {
                Value::Null => None,
                Value::Text(text) => Some(Value::Text(text.trim_end().to_lowercase())),
                other => Some(number(other)),
            })
            .collect();
        Some((table.name.to_ascii_lowercase(), columns.clone(), values?))
    })
}

/// Whether one of a child's foreign keys refers to this row.
fn refers(keys: &[ForeignKey], child: &[Value], parent: &Table, image: &[Value]) -> bool {
    keys.iter().any(|key| {
        let primary = parent.key();
        parent.name.eq_ignore_ascii_case(&key.parent)
            && key.columns.iter().enumerate().all(|(i, (child_column, to))| {
                let place = referred_column(parent, &primary, i, to.as_deref());
                let (child, parent) = (child.get(*child_column), place.and_then(|place| image.get(place)));
                child
                    .zip(parent)
                    .is_some_and(|(child, parent)| same_key(child, parent))
            })
    })
}

fn row(table: &Table, image: &[Value]) -> Row {
    let values = match key_of(table, image) {
        None => image.to_vec(),
        Some(key) => key.into_iter().map(|i| number(&image[i])).collect(),
    };
    (table.name.to_ascii_lowercase(), values)
}

/// The same number is the same value.
fn number(value: &Value) -> Value {
    match (value, as_integer(value)) {
        (Value::Real(_), Some(integer)) => Value::Integer(integer),
        _ => value.clone(),
    }
}

/// What a statement that is recorded as text writes in its virtual table.
enum Writes {
    Rows(Vec<i64>),
    /// It cannot be told which rows.
    Any,
    /// Whatever there is, so that it does not matter what is there before.
    All,
    /// How the table is kept.
    None,
}

fn writes(statement: &StatementChange) -> Option<(String, Writes)> {
    let (table, writes) = match &statement.kind {
        // Those of a trigger follow the rows of the content.
        StatementKind::Reindex { by_trigger: true, .. } => return None,
        StatementKind::Reindex { table, .. } => {
            let row = statement.args.first().and_then(as_integer);
            (table, row.map_or(Writes::Any, |row| Writes::Rows(vec![row])))
        }
        StatementKind::VirtualTableWrite { table } => {
            let all = tokens(&statement.sql);
            let rows = given::written_rows(&all, statement);
            let says = |word: &str| {
                let bound = statement
                    .args
                    .iter()
                    .chain(statement.named.iter().map(|(_, value)| value));
                all.iter()
                    .any(|token| token.text.trim_matches('\'').eq_ignore_ascii_case(word))
                    || bound
                        .into_iter()
                        .any(|value| matches!(value, Value::Text(text) if text.eq_ignore_ascii_case(word)))
            };
            let writes = match given::is_command(&all, table) {
                _ if !rows.is_empty() => Writes::Rows(rows),
                false => row_of_where(&all, statement).map_or(Writes::Any, |row| Writes::Rows(vec![row])),
                true if says("rebuild") || says("delete-all") => Writes::All,
                true => Writes::None,
            };
            (table, writes)
        }
        _ => return None,
    };
    Some((table.to_ascii_lowercase(), writes))
}

/// The row of a `DELETE` whose only condition is its number.
fn row_of_where(all: &[Token<'_>], statement: &StatementChange) -> Option<i64> {
    let at = all.iter().position(|token| token.is("WHERE"))?;
    let end = all.len() - all.iter().rev().take_while(|token| token.text == ";").count();
    let [name, equals, value] = all.get(at + 1..end)? else {
        return None;
    };
    let name = name.name()?.to_ascii_lowercase();
    let is_row = ["rowid", "docid", "oid", "_rowid_"].contains(&&*name) && equals.text == "=";
    if !is_row || !all[0].is("DELETE") {
        return None;
    }
    match (&statement.args[..], &statement.named[..]) {
        ([], []) => value.text.parse().ok(),
        ([value], []) | ([], [(_, value)]) => as_integer(value),
        _ => None,
    }
}

/// What a schema change makes, alters or drops: tables and views, and indexes and triggers.
pub fn objects(statement: &StatementChange) -> (Vec<String>, Vec<String>) {
    use StatementKind::*;
    let all = tokens(&statement.sql);
    let renamed = match Migration::of(&all) {
        Some(Migration::RenameTable { to, .. }) => Some(to.to_ascii_lowercase()),
        _ => None,
    };
    const BEFORE: [&str; 13] = [
        "CREATE",
        "DROP",
        "ALTER",
        "TEMP",
        "TEMPORARY",
        "UNIQUE",
        "VIRTUAL",
        "TABLE",
        "INDEX",
        "TRIGGER",
        "VIEW",
        "IF",
        "NOT",
    ];
    let start = all
        .iter()
        .position(|t| !BEFORE.iter().any(|word| t.is(word)) && !t.is("EXISTS"))
        .unwrap_or(all.len());
    let name = match &all[start..] {
        [_, dot, name, ..] if dot.text == "." => name.name(),
        [name, ..] => name.name(),
        [] => None,
    };
    let named = name.map(|name| name.to_ascii_lowercase()).into_iter();
    match &statement.kind {
        CreateTable
        | CreateView
        | DropTable
        | DropView
        | AlterOther
        | AlterLegacy
        | AlterAddColumn { .. } => (named.chain(renamed).collect(), vec![]),
        CreateIndex | CreateTrigger | DropIndex | DropTrigger => (vec![], named.collect()),
        _ => (vec![], vec![]),
    }
}
