//! Keys that nobody chose: SQLite gave a new row the next integer, and so it did for another client's row elsewhere.
//!
//! The row keeps its key where that is free, and gets the next one where it is not; nobody's row is overwritten. What the
//! log says of it afterwards, and of rows that refer to it by a declared foreign key, follows. On the remote that is noted
//! in `partial_sync_keys`, because later changes of this client speak of the key that it knows until its next pull, whose
//! put-back rewrites the log.
//!
//! This module decides and rewrites; it runs no SQL.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use partial_sync_core::ChangeId;

use super::{
    Change, ChangeKind, Column, RowOp, StatementKind, Table, Value,
    migration::Migration,
    tokens::{TokenKind, tokens},
};

/// Columns that refer to a table's integer key: (child table, column) by parent table; all in lower case.
pub type References = HashMap<String, Vec<(String, String)>>;

/// Which of this client's rows have other keys where its changes go. Tables are known by their names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// By table and key in the log: what became of the rows that had it, one after the other.
    moved: HashMap<String, HashMap<i64, Vec<Moved>>>,
    /// By table and key that a row got: its key in the log.
    taken: HashMap<String, BTreeMap<i64, i64>>,
    references: References,
    /// By table and key in the log: which change last took the row away that had it.
    gone: HashMap<(String, i64), Gone>,
    /// The transaction that is followed, and the keys of rows in it whose keys did not move; of ordinary tables.
    transaction: Option<ChangeId>,
    stayed: HashSet<i64>,
}

/// Where a row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The change that made the row: earlier ones meant another row.
    pub since: ChangeId,
    /// Its key there.
    pub to: i64,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    at: ChangeId,
    /// It was deleted; else it was given another key.
    deleted: bool,
}

/// An entry of an index under the key of a row that has another one there, of which nobody can tell whether it is that
/// row's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it writes to virtual table {table:?} under key {key}, which a new row of table {owner:?} had locally and which is {to} on \
     the remote. What is written in one transaction with its row goes with it; of this it is not known whether it is that \
     row's. Nothing is lost: discard the change, pull, and write it again"
)]
pub struct Stray {
    /// The virtual table.
    pub table: String,
    /// The key in the log.
    pub key: i64,
    /// The table whose row had it.
    pub owner: String,
    /// That row's key there.
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
        if to != from {
            self.taken.entry(table.clone()).or_default().insert(to, from);
        }
        let rows = self.moved.entry(table).or_default().entry(from).or_default();
        let moved = Moved { since, to };
        match rows.binary_search_by_key(&since, |m| m.since) {
            Ok(i) => rows[i] = moved,
            Err(i) => rows.insert(i, moved),
        }
    }

    /// The table has another name from here on.
    pub fn renamed(&mut self, from: &str, to: &str) {
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        if let Some(moved) = self.moved.remove(&from) {
            self.moved.insert(to.clone(), moved);
        }
        if let Some(taken) = self.taken.remove(&from) {
            self.taken.insert(to, taken);
        }
    }

    /// The highest key that a row of `table` got.
    pub fn highest(&self, table: &str) -> i64 {
        let taken = self.taken.get(&table.to_ascii_lowercase());
        taken
            .and_then(|taken| taken.last_key_value())
            .map_or(0, |(to, _)| *to)
    }

    /// Whether this change, as the log has it, chooses a key for a row, and another of this client's rows has got that key
    /// there. It was followed before.
    pub fn meets_own(&self, change: &Change) -> bool {
        if self.moved.is_empty() {
            return false;
        }
        chosen(change).is_some_and(|(table, _, key)| {
            let name = table.name.to_ascii_lowercase();
            let means = |key| self.newest(&name, key, change.id);
            let Some(&from) = self.taken.get(&name).and_then(|taken| taken.get(&key)) else {
                return false;
            };
            // It may have gone, or got yet another key.
            let gone = self.gone.get(&(name.clone(), from));
            let is_there = means(from)
                .is_some_and(|moved| moved.to == key && gone.is_none_or(|gone| gone.at < moved.since));
            is_there && means(key).is_none_or(|moved| moved.to == key)
        })
    }

    /// The columns that refer to tables whose rows moved.
    pub fn refer(&mut self, references: References) {
        self.references = references;
    }

    /// All that moved: table, key in the log, where it went.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64, Moved)> {
        self.moved.iter().flat_map(|(table, keys)| {
            let of = move |(from, rows)| (table.as_str(), from, rows);
            keys.iter()
                .map(of)
                .flat_map(|(table, from, rows): (_, &i64, &Vec<Moved>)| {
                    rows.iter().map(move |moved| (table, *from, *moved))
                })
        })
    }

    /// What became of the row that had this key when change `at` was made.
    fn newest(&self, table: &str, key: i64, at: ChangeId) -> Option<Moved> {
        let rows = self.moved.get(table)?.get(&key)?;
        rows.iter().rev().find(|moved| moved.since <= at).copied()
    }

    fn find(&self, table: &str, value: &Value, at: ChangeId) -> Option<i64> {
        let key = as_integer(value)?;
        Some(self.newest(table, key, at)?.to)
    }

    /// The log is about to be followed from an earlier change on than the last.
    pub fn rewind(&mut self) {
        self.gone.clear();
        self.transaction = None;
    }

    /// Takes in the next change of the log, as it is there; `transaction` is the first change of its transaction. A key may
    /// mean another row after it.
    pub fn follow(&mut self, change: &Change, transaction: ChangeId) -> Result<(), Stray> {
        if self.moved.is_empty() {
            return Ok(());
        }
        if self.transaction != Some(transaction) {
            self.transaction = Some(transaction);
            self.stayed.clear();
        }
        let at = change.id;
        if let ChangeKind::Statement(statement) = &change.kind {
            return match &statement.kind {
                StatementKind::Reindex { table, content, .. } if content.is_empty() => {
                    match statement.args.first().and_then(as_integer) {
                        Some(key) if is_command(&statement.sql, table) => {
                            let gone = Gone { at, deleted: true };
                            self.gone.insert((table.to_ascii_lowercase(), key), gone);
                            Ok(())
                        }
                        Some(key) => self
                            .entry(&table.to_ascii_lowercase(), key, at, transaction)
                            .map(drop),
                        None => Ok(()),
                    }
                }
                StatementKind::VirtualTableWrite { table } => self.text(table, statement, at),
                _ => Ok(()),
            };
        }
        if let ChangeKind::Row { table, op, .. } = &change.kind
            && let [key] = table.key()[..]
        {
            let (before, after) = op.images();
            let [before, after] = [before, after].map(|image| image.and_then(|i| as_integer(i.get(key)?)));
            let name = table.name.to_ascii_lowercase();
            let stays = |key: &i64| !table.is_virtual && self.newest(&name, *key, at).is_none();
            self.stayed.extend(after.filter(stays));
            let matters = table.is_virtual || self.moved.contains_key(&name);
            if let Some(before) = before.filter(|_| before != after && matters) {
                let deleted = matches!(op, RowOp::Delete { .. });
                self.gone.insert((name, before), Gone { at, deleted });
            }
        }
        let Some((table, column, key)) = made(change) else {
            return Ok(());
        };
        let name = table.name.to_ascii_lowercase();
        let is_chosen = added(change).is_none();
        if is_chosen
            && table.is_virtual
            && !self.is_reference(&name, &table.columns[column].name)
            && self.entry(&name, key, at, transaction)?
        {
            return Ok(());
        }
        let before = self.newest(&name, key, at);
        if let Some(moved) = before.filter(|moved| moved.since < at && moved.to != key) {
            // A row that is deleted and made again in one transaction is the same row, as REPLACE does it.
            let follows = !is_chosen || self.is_replaced(&name, key, transaction);
            self.moved(&name, key, at, if follows { moved.to } else { key });
        }
        Ok(())
    }

    fn is_replaced(&self, table: &str, key: i64, transaction: ChangeId) -> bool {
        let gone = self.gone.get(&(table.to_owned(), key));
        gone.is_some_and(|gone| gone.deleted && gone.at >= transaction)
    }

    /// An entry of an index is written under a key that was chosen. Whether it goes with a row that moved: one that was made
    /// in the same transaction, or that the entry went with before.
    fn entry(&mut self, index: &str, key: i64, at: ChangeId, transaction: ChangeId) -> Result<bool, Stray> {
        let rows = self.rows_under(key, at, index);
        let own = self.newest(index, key, at);
        let Some((owner, moved)) = rows.first() else {
            return Ok(false);
        };
        let with = rows.iter().filter(|(_, moved)| moved.since >= transaction);
        let with: BTreeSet<i64> = with.map(|(_, moved)| moved.to).collect();
        let to = match (with.first(), own) {
            (Some(to), _) if with.len() == 1 => *to,
            // As it did before.
            (None, Some(own)) if rows.iter().any(|(_, moved)| moved.to == own.to) => own.to,
            // The entry was there before, or is one of a row that the transaction changed too.
            _ if self.gone.contains_key(&(index.to_owned(), key)) || self.stayed.contains(&key) => {
                return Ok(false);
            }
            _ => {
                return Err(Stray {
                    table: index.to_owned(),
                    key,
                    owner: owner.clone(),
                    to: moved.to,
                });
            }
        };
        self.moved(index, key, at, to);
        Ok(true)
    }

    /// A statement on a virtual table that is sent as it was written must not speak of a row that moved.
    fn text(&self, table: &str, statement: &super::StatementChange, at: ChangeId) -> Result<(), Stray> {
        let all = tokens(&statement.sql);
        if is_command(&statement.sql, table) && !all.iter().any(|t| t.is("rowid") || t.is("docid")) {
            return Ok(());
        }
        let literals = all
            .iter()
            .filter(|t| matches!(t.kind, TokenKind::Other | TokenKind::Quoted))
            .filter_map(|t| as_integer(&Value::Text(t.text.trim_matches('\'').to_owned())));
        let values = statement
            .args
            .iter()
            .chain(statement.named.iter().map(|(_, value)| value));
        for key in literals.chain(values.filter_map(as_integer)) {
            if let Some((owner, moved)) = self.rows_under(key, at, "").into_iter().next() {
                return Err(Stray {
                    table: table.to_owned(),
                    key,
                    owner,
                    to: moved.to,
                });
            }
        }
        Ok(())
    }

    /// The rows of other tables than `except` that have this key in the log, as far as they have another one there.
    fn rows_under(&self, key: i64, at: ChangeId, except: &str) -> Vec<(String, Moved)> {
        let there = |table: &String, moved: &Moved| {
            let gone = self.gone.get(&(table.clone(), key));
            moved.to != key && gone.is_none_or(|gone| gone.at < moved.since)
        };
        let others = self.moved.keys().filter(|table| *table != except);
        let rows = others.filter_map(|table| Some((table.clone(), self.newest(table, key, at)?)));
        rows.filter(|(table, moved)| there(table, moved)).collect()
    }

    /// Whether the column is known to refer to a table's key.
    fn is_reference(&self, table: &str, column: &str) -> bool {
        let is = |(of, name): &(String, String)| of == table && name.eq_ignore_ascii_case(column);
        self.references.values().flatten().any(is)
    }

    /// Makes the change speak of the keys that rows have there. True when that changed it.
    pub fn rewrite(&self, change: &mut Change) -> bool {
        if self.moved.is_empty() {
            return false;
        }
        let at = change.id;
        let mut rewritten = false;
        let mut write = |value: &mut Value, owner: &str| {
            if let Some(to) = self.find(owner, value, at)
                && as_integer(value) != Some(to)
            {
                *value = stored_as(value, to);
                rewritten = true;
            }
        };
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
                        if let Some(value) = image.get_mut(i) {
                            write(value, owner);
                        }
                    }
                }
            }
            ChangeKind::Statement(statement) => {
                if let StatementKind::Reindex { table, content, .. } = &statement.kind
                    && let [key, ..] = &mut statement.args[..]
                {
                    let owner = if content.is_empty() { table } else { content };
                    write(key, &owner.to_ascii_lowercase());
                }
            }
        }
        rewritten
    }
}

/// The integer that SQLite takes a value for where it compares it with an integer key.
pub fn as_integer(value: &Value) -> Option<i64> {
    let exactly = |real: f64| {
        let integer = real as i64;
        (integer as f64 == real && integer > i64::MIN && integer < i64::MAX).then_some(integer)
    };
    match value {
        Value::Integer(integer) => Some(*integer),
        Value::Real(real) => exactly(*real),
        Value::Text(text) => {
            let text = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
            let number = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            match text.parse() {
                Ok(integer) => Some(integer),
                Err(_) if text.chars().all(number) => exactly(text.parse().ok()?),
                Err(_) => None,
            }
        }
        Value::Null | Value::RawText(_) | Value::Blob(_) => None,
    }
}

/// The key as a value of the type that was stored.
fn stored_as(value: &Value, key: i64) -> Value {
    match value {
        Value::Text(_) => Value::Text(key.to_string()),
        Value::Real(_) if as_integer(&Value::Real(key as f64)) == Some(key) => Value::Real(key as f64),
        _ => Value::Integer(key),
    }
}

/// Whether an `INSERT` into a full-text table names the hidden column that is called like the table.
fn is_command(sql: &str, table: &str) -> bool {
    let named = |name: String| name.eq_ignore_ascii_case(table);
    let all = tokens(sql);
    let end = all.iter().position(|t| t.is("VALUES")).unwrap_or(all.len());
    all[..end]
        .iter()
        .filter_map(|t| t.name())
        .filter(|name| named(name.clone()))
        .count()
        > 1
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

/// The same of a row that got its key from the application.
fn chosen(change: &Change) -> Option<(&Table, usize, i64)> {
    match added(change) {
        None => made(change),
        Some(_) => None,
    }
}

/// The same of any row that has this key only since this change.
pub fn made(change: &Change) -> Option<(&Table, usize, i64)> {
    let ChangeKind::Row { table, op, .. } = &change.kind else {
        return None;
    };
    let [key] = table.key()[..] else {
        return None;
    };
    let (before, after) = op.images();
    match (before.and_then(|image| image.get(key)), after?.get(key)) {
        (before, Some(after)) if before == Some(after) => None,
        (_, Some(Value::Integer(value))) => Some((table, key, *value)),
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
