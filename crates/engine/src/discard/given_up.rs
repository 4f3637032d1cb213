//! What will not be there, or otherwise than the log takes it for, when changes are given up; and which later changes
//! cannot stay then.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use partial_sync_vfs::sqlite::Conn;

use super::{
    rows::{Image, MadeRows, RowKey, refers, row, unique_values},
    text::{Writes, objects, writes},
};
use crate::{
    capture::{
        schema::{Known, SchemaCache},
        virtual_tables::Kind,
    },
    change::{
        Cause, Change, ChangeKind, StatementChange, StatementKind, Table, Value, sql::key_of, tokens::tokens,
    },
    error::Result,
};

/// How the state will differ from what the log speaks of, without the changes that are given up.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Rows that will not be what the log takes them for, and whether they will be there at all.
    rows: HashMap<RowKey, bool>,
    /// What refers to one of these cannot stay, unless it would have referred to the row as it was before.
    made: MadeRows,
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
    pub(super) fn add(&mut self, conn: &Conn, change: &Change) -> Result<()> {
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
    pub(super) fn add_objects(&mut self, change: &Change) {
        if let ChangeKind::Statement(statement) = &change.kind {
            let (tables, others) = objects(statement);
            self.tables.extend(tables);
            self.others.extend(others);
        }
    }

    /// The change stays: what it makes is there again, under the name that it gives.
    pub(super) fn keep(&mut self, change: &Change) {
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
    pub(super) fn dropped(&mut self, name: &str) {
        self.rows
            .retain(|(table, _), _| !table.eq_ignore_ascii_case(name));
    }

    /// Whether a foreign-key action would have had nothing to do here, for the row will not be there.
    pub(super) fn is_idle(&self, change: &Change) -> bool {
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

    pub(super) fn is_needed_by(&mut self, conn: &Conn, change: &Change) -> Result<bool> {
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
    pub(super) fn names(&self, change: &Change) -> bool {
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
