//! What will not be there, or otherwise than the log takes it for, when changes are given up; and which later changes
//! cannot stay then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use partial_sync_vfs::sqlite::Conn;

use crate::{
    capture::{
        given,
        schema::{ForeignKey, Known, SchemaCache},
        virtual_tables::Kind,
    },
    change::{
        Cause, Change, ChangeKind, StatementChange, StatementKind, Table, Value,
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
    /// Rows as given-up changes would have made them, and were before: what refers to the one only cannot stay.
    made: Vec<(Arc<Table>, Option<Image>, Image)>,
    /// Rows that refer to others, as they will still be, and how given-up changes would have made them.
    left: Vec<(Arc<Table>, Image, Option<Image>)>,
    /// Values of unique indexes that rows will still have: the index's table and columns, and the values.
    held: HashSet<(String, Vec<usize>, Vec<Value>)>,
    /// Rows that were written into virtual tables by the text of a statement.
    written: HashSet<(String, i64)>,
    /// Tables and views, in lower case.
    tables: HashSet<String>,
    /// Indexes and triggers, in lower case.
    others: HashSet<String>,
    schema: SchemaCache,
}

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
                    self.made.push((table.clone(), before.cloned(), after.clone()));
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
                if let StatementKind::VirtualTableWrite { table } = &statement.kind {
                    let rows = given::written_rows(&tokens(&statement.sql), statement);
                    let table = table.to_ascii_lowercase();
                    self.written
                        .extend(rows.into_iter().map(|id| (table.clone(), id)));
                }
                let (tables, others) = objects(statement);
                self.tables.extend(tables);
                self.others.extend(others);
            }
        }
        Ok(())
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
                    self.made.retain(|(of, _, image)| row(of, image) != made);
                }
            }
            ChangeKind::Statement(statement) if statement.kind == StatementKind::DropTable => {
                let (tables, _) = objects(statement);
                self.rows.retain(|(table, _), _| !tables.contains(table));
            }
            ChangeKind::Statement(_) => {
                if let Some(Migration::RenameTable { from, to }) = Migration::of_change(change) {
                    let rows = std::mem::take(&mut self.rows).into_iter();
                    let renamed = |table: String| match table.eq_ignore_ascii_case(&from) {
                        true => to.to_ascii_lowercase(),
                        false => table,
                    };
                    self.rows = rows
                        .map(|((table, key), there)| ((renamed(table), key), there))
                        .collect();
                }
            }
        }
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
                if self.tables.contains(&table.name.to_ascii_lowercase()) {
                    return Ok(true);
                }
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
            ChangeKind::Statement(statement) => match &statement.kind {
                StatementKind::VirtualTableWrite { table } => self.is_needed_by_text(conn, table, statement),
                StatementKind::Reindex {
                    table,
                    content,
                    by_trigger,
                } => {
                    // A trigger's does what is right for the row, whatever that is.
                    let row = (content.to_ascii_lowercase(), statement.args.clone());
                    let of_row = !by_trigger && self.rows.contains_key(&row);
                    let tables = [table.to_ascii_lowercase(), content.to_ascii_lowercase()];
                    Ok(of_row || tables.iter().any(|table| self.tables.contains(table)))
                }
                StatementKind::Sequence => Ok(matches!(
                    statement.args.first(),
                    Some(Value::Text(name)) if self.tables.contains(&name.to_ascii_lowercase())
                )),
                _ => Ok(tokens(&statement.sql)
                    .iter()
                    .filter_map(Token::name)
                    .map(|name| name.to_ascii_lowercase())
                    .any(|name| self.tables.contains(&name) || self.others.contains(&name))),
            },
        }
    }

    /// Whether a statement writes a row into a virtual table that a given-up one wrote, or whose content is given up.
    fn is_needed_by_text(&mut self, conn: &Conn, table: &str, statement: &StatementChange) -> Result<bool> {
        let name = table.to_ascii_lowercase();
        if self.tables.contains(&name) {
            return Ok(true);
        }
        if self.rows.is_empty() && self.written.is_empty() {
            return Ok(false);
        }
        let content = match self.schema.table(conn, table)? {
            Known::Virtual(known) => match &known.kind {
                Kind::External { content, .. } => Some(content.to_ascii_lowercase()),
                _ => None,
            },
            _ => None,
        };
        let rows = given::written_rows(&tokens(&statement.sql), statement);
        Ok(rows.into_iter().any(|id| {
            let of_content = content.clone().map(|content| (content, vec![Value::Integer(id)]));
            self.written.contains(&(name.clone(), id))
                || of_content.is_some_and(|row| self.rows.contains_key(&row))
        }))
    }

    /// Whether a row refers, by a foreign key that its table has now, to one that is given up.
    fn has_no_parent(&mut self, conn: &Conn, table: &Table, after: &[Value]) -> Result<bool> {
        if self.made.is_empty() {
            return Ok(false);
        }
        let keys = self.schema.foreign_keys(conn, table)?;
        Ok(self.made.iter().any(|(parent, was, is)| {
            let to = |image: &[Value]| refers(&keys, after, parent, image);
            to(is) && !was.as_deref().is_some_and(to)
        }))
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
                other => Some(other.clone()),
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
                let place = match to {
                    Some(to) => parent
                        .columns
                        .iter()
                        .position(|c| c.name.eq_ignore_ascii_case(to)),
                    None => primary.get(i).copied(),
                };
                let (child, parent) = (child.get(*child_column), place.and_then(|place| image.get(place)));
                child.is_some_and(|child| !child.is_null()) && child == parent
            })
    })
}

fn row(table: &Table, image: &[Value]) -> Row {
    let values = match key_of(table, image) {
        None => image.to_vec(),
        Some(key) => key.into_iter().map(|i| image[i].clone()).collect(),
    };
    (table.name.to_ascii_lowercase(), values)
}

/// What a schema change makes, alters or drops: tables and views, and indexes and triggers.
fn objects(statement: &StatementChange) -> (Vec<String>, Vec<String>) {
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
