//! Keys that nobody chose: SQLite gave a new row the next integer, and so it did for another client's row elsewhere.
//!
//! The row keeps its key where that is free, and gets the next one where it is not; nobody's row is overwritten. What the
//! log says of it afterwards, and of rows that refer to it by a declared foreign key, follows. On the remote that is noted
//! in `partial_sync_keys`, because later changes of this client speak of the key that it knows until its next pull, whose
//! put-back rewrites the log.
//!
//! This module decides and rewrites; it runs no SQL.

use std::collections::HashMap;

use partial_sync_core::ChangeId;

use super::{Change, ChangeKind, Column, RowOp, StatementKind, Table, Value};

/// Columns that refer to a table's integer key: (child table, column) by parent table; all in lower case.
pub type References = HashMap<String, Vec<(String, String)>>;

/// Which of this client's rows have other keys where its changes go.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    moved: HashMap<(String, i64), Moved>,
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
        let key = (table.to_ascii_lowercase(), from);
        self.moved.insert(key, Moved { since, to });
    }

    /// The columns that refer to tables whose rows moved.
    pub fn refer(&mut self, references: References) {
        self.references = references;
    }

    /// All that moved: table (in lower case), key in the log, where it went.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64, Moved)> {
        self.moved
            .iter()
            .map(|((table, from), moved)| (table.as_str(), *from, *moved))
    }

    fn find(&self, table: &str, value: &Value, at: ChangeId) -> Option<i64> {
        let Value::Integer(from) = value else { return None };
        let moved = self.moved.get(&(table.to_owned(), *from))?;
        (moved.since <= at).then_some(moved.to)
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
    let ChangeKind::Row {
        table,
        op: RowOp::Add { after },
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

/// The highest integer that these changes have as a key of `table`.
pub fn highest<'c>(changes: impl IntoIterator<Item = &'c Change>, table: &str) -> i64 {
    let mut highest = 0;
    for change in changes {
        let ChangeKind::Row { table: of, op, .. } = &change.kind else {
            continue;
        };
        if let [key] = of.key()[..]
            && of.name.eq_ignore_ascii_case(table)
        {
            let (before, after) = op.images();
            for value in before.into_iter().chain(after).filter_map(|image| image.get(key)) {
                if let Value::Integer(value) = value {
                    highest = highest.max(*value);
                }
            }
        }
    }
    highest
}
