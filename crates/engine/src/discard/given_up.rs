//! How the state will differ from what the log takes it for when changes are given up. What that means for later changes is
//! asked in [`needs`](super::needs).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use partial_sync_vfs::sqlite::Conn;

use super::{
    rows::{Image, MadeRows, RowKey, row, unique_values},
    text::{Writes, objects, writes},
};
use crate::{
    capture::schema::SchemaCache,
    change::{Change, ChangeKind, Table, Value, sql::key_of},
    error::Result,
};

/// How the state will differ from what the log speaks of, without the changes that are given up.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Rows that will not be what the log takes them for, and whether they will be there at all.
    pub(super) rows: HashMap<RowKey, bool>,
    /// What refers to one of these cannot stay, unless it would have referred to the row as it was before.
    pub(super) made: MadeRows,
    /// Rows that refer to others, as they will still be, and how given-up changes would have made them.
    pub(super) left: Vec<(Arc<Table>, Image, Option<Image>)>,
    /// Values of unique indexes that rows will still have: the index's table and columns, and the values.
    pub(super) held: HashSet<(String, Vec<usize>, Vec<Value>)>,
    /// Rows that were written into virtual tables by the text of a statement.
    pub(super) written: HashSet<(String, i64)>,
    /// Virtual tables any row of which may have been written so.
    pub(super) overwritten: HashSet<String>,
    /// Tables and views, in lower case, as the changes that are given up called them.
    pub(super) tables: HashSet<String>,
    /// Indexes and triggers, in lower case.
    pub(super) others: HashSet<String>,
    pub(super) schema: SchemaCache,
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
}
