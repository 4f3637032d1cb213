//! Keys that nobody chose: SQLite gave a new row the next integer, and so it did for another client's row elsewhere.
//!
//! The row keeps its key where that is free, and gets the next one where it is not; nobody's row is overwritten. What the
//! log says of it afterwards, and of rows that refer to it by a declared foreign key, follows. On the remote that is noted
//! in `partial_sync_keys`, because later changes of this client speak of the key that it knows until its next pull, whose
//! put-back rewrites the log.
//!
//! This module decides and rewrites; it runs no SQL.

use std::collections::{BTreeSet, HashMap, HashSet};

use partial_sync_core::ChangeId;

use super::{Change, ChangeKind, Column, RowOp, StatementKind, Table, Value, migration::Migration};

/// Columns that refer to a table's integer key: (child table, column) by parent table; all in lower case.
pub type References = HashMap<String, Vec<(String, String)>>;

/// Which of this client's rows have other keys where its changes go.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// By table (in lower case) and key in the log: what became of the rows that had it, one after the other.
    moved: HashMap<(String, i64), Vec<Moved>>,
    /// The keys that rows got, by table.
    taken: HashSet<(String, i64)>,
    references: References,
}

/// Where a row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The change that made the row: earlier ones meant another row.
    pub since: ChangeId,
    /// Its key there.
    pub to: i64,
}

impl Keys {
    /// Whether nothing moved.
    pub fn is_empty(&self) -> bool {
        self.moved.is_empty()
    }

    /// Notes that the row that change `since` made in `table` has the key `to` instead of `from`.
    pub fn moved(&mut self, table: &str, from: i64, since: ChangeId, to: i64) {
        let table = table.to_ascii_lowercase();
        self.taken.insert((table.clone(), to));
        let rows = self.moved.entry((table, from)).or_default();
        let moved = Moved { since, to };
        match rows.binary_search_by_key(&since, |m| m.since) {
            Ok(i) => rows[i] = moved,
            Err(i) => rows.insert(i, moved),
        }
    }

    /// The table has another name from here on.
    pub fn renamed(&mut self, from: &str, to: &str) {
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        let name = |table: String| if table == from { to.clone() } else { table };
        let moved = std::mem::take(&mut self.moved).into_iter();
        self.moved = moved
            .map(|((table, key), rows)| ((name(table), key), rows))
            .collect();
        let taken = std::mem::take(&mut self.taken).into_iter();
        self.taken = taken.map(|(table, key)| (name(table), key)).collect();
    }

    /// The highest key that a row of `table` got.
    pub fn highest(&self, table: &str) -> i64 {
        let of = self.taken.iter().filter(|(of, _)| of.eq_ignore_ascii_case(table));
        of.map(|(_, to)| *to).max().unwrap_or(0)
    }

    /// Whether this change, as the log has it, makes a row whose key was chosen, and one of this client's rows has got that
    /// key there.
    pub fn meets_own(&self, change: &Change) -> bool {
        if self.moved.is_empty() {
            return false;
        }
        let ChangeKind::Row {
            op: RowOp::Insert { .. },
            ..
        } = &change.kind
        else {
            return false;
        };
        made(change).is_some_and(|(table, _, key)| {
            let name = table.name.to_ascii_lowercase();
            self.find(&name, &Value::Integer(key), change.id).is_none() && self.taken.contains(&(name, key))
        })
    }

    /// The columns that refer to tables whose rows moved.
    pub fn refer(&mut self, references: References) {
        self.references = references;
    }

    /// All that moved: table (in lower case), key in the log, where it went.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64, Moved)> {
        self.moved
            .iter()
            .flat_map(|((table, from), rows)| rows.iter().map(move |moved| (table.as_str(), *from, *moved)))
    }

    fn find(&self, table: &str, value: &Value, at: ChangeId) -> Option<i64> {
        let Value::Integer(from) = value else { return None };
        let rows = self.moved.get(&(table.to_owned(), *from))?;
        let newest = rows.iter().rev().find(|moved| moved.since <= at)?;
        Some(newest.to)
    }

    /// Makes the change speak of the keys that rows have there. True when that changed it.
    pub fn rewrite(&self, change: &mut Change) -> bool {
        if self.moved.is_empty() {
            return false;
        }
        let at = change.id;
        let mut rewritten = false;
        match &mut change.kind {
            ChangeKind::Row { table, op, .. } => {
                let name = table.name.to_ascii_lowercase();
                let position = |column: &str| {
                    let same = |c: &Column| c.name.eq_ignore_ascii_case(column);
                    table.columns.iter().position(same)
                };
                // A key that refers to another table's is that table's row's.
                let mut columns: Vec<(usize, &str)> = Vec::new();
                for (parent, children) in &self.references {
                    for (_, column) in children.iter().filter(|(child, _)| *child == name) {
                        columns.extend(position(column).map(|i| (i, parent.as_str())));
                    }
                }
                if let [key] = table.key()[..]
                    && columns.iter().all(|(i, _)| *i != key)
                {
                    columns.push((key, &name));
                }
                for image in op.images_mut() {
                    for &(i, owner) in &columns {
                        if let Some(to) = image.get(i).and_then(|value| self.find(owner, value, at)) {
                            image[i] = Value::Integer(to);
                            rewritten = true;
                        }
                    }
                }
            }
            ChangeKind::Statement(statement) => {
                if let StatementKind::Reindex { content, .. } = &statement.kind
                    && let [key] = &mut statement.args[..]
                    && let Some(to) = self.find(&content.to_ascii_lowercase(), key, at)
                {
                    *key = Value::Integer(to);
                    rewritten = true;
                }
            }
        }
        rewritten
    }
}

/// The table and the key of a row that got it from SQLite: its column and the value.
pub fn added(change: &Change) -> Option<(&Table, usize, i64)> {
    match &change.kind {
        ChangeKind::Row {
            op: RowOp::Add { .. },
            ..
        } => made(change),
        _ => None,
    }
}

/// The same of any new row.
pub fn made(change: &Change) -> Option<(&Table, usize, i64)> {
    let ChangeKind::Row {
        table,
        op: RowOp::Add { after } | RowOp::Insert { after },
        ..
    } = &change.kind
    else {
        return None;
    };
    match table.key()[..] {
        [key] => match after.get(key) {
            Some(Value::Integer(value)) => Some((table, key, *value)),
            _ => None,
        },
        _ => None,
    }
}

/// What a log says of keys.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    highest: HashMap<String, i64>,
    renamed: Vec<(String, String)>,
    reshaped: Option<ChangeId>,
}

impl Summary {
    /// Takes in the next change of the log.
    pub fn add(&mut self, change: &Change) {
        if reshapes(change) {
            self.reshaped.get_or_insert(change.id);
        }
        if let Some(Migration::RenameTable { from, to }) = Migration::of_change(change) {
            self.renamed
                .push((from.to_ascii_lowercase(), to.to_ascii_lowercase()));
        }
        let ChangeKind::Row { table, op, .. } = &change.kind else {
            return;
        };
        let [key] = table.key()[..] else {
            return;
        };
        let (before, after) = op.images();
        let values = before.into_iter().chain(after).filter_map(|image| image.get(key));
        for value in values {
            if let Value::Integer(value) = value {
                let highest = self.highest.entry(table.name.to_ascii_lowercase()).or_default();
                *highest = (*highest).max(*value);
            }
        }
    }

    /// The highest integer that the log has as a key of `table`, under whatever name.
    pub fn highest(&self, table: &str) -> i64 {
        let mut names = BTreeSet::from([table.to_ascii_lowercase()]);
        // A name may come up in any order, so as often as there can be something new.
        for _ in &self.renamed {
            for (from, to) in &self.renamed {
                if names.contains(from) || names.contains(to) {
                    names.extend([from.clone(), to.clone()]);
                }
            }
        }
        let of = names.iter().filter_map(|name| self.highest.get(name));
        of.copied().max().unwrap_or(0)
    }

    /// The first change after which tables, or what refers to them, are called otherwise than before.
    pub fn reshaped(&self) -> Option<ChangeId> {
        self.reshaped
    }
}

/// Whether tables, or what refers to them, are called otherwise after this change.
pub fn reshapes(change: &Change) -> bool {
    use StatementKind::{AlterLegacy, AlterOther, CreateTrigger, DropTable, DropTrigger};
    matches!(&change.kind, ChangeKind::Statement(s)
        if matches!(s.kind, AlterOther | AlterLegacy | DropTable | CreateTrigger | DropTrigger))
}

/// Whether there may be more that refers to tables after this change.
pub fn extends(change: &Change) -> bool {
    use StatementKind::{AlterAddColumn, CreateTable};
    matches!(&change.kind, ChangeKind::Statement(s) if matches!(s.kind, CreateTable | AlterAddColumn { .. }))
}
