//! What a local transaction changed, as data: the contents of the change log, what a push sends, what a put-back runs.
//!
//! [`codec`] turns chunks of changes into bytes and back, [`sql`] is the one place that turns a change into SQL, and
//! [`push`] builds the batches that carry them to the remote. Everything here is pure: it never opens a database, never
//! names SQLite's C API, and never looks at the schema as it is now. A change carries the schema it was made under.

mod batch;
mod bind;
pub mod codec;
pub mod keys;
pub(crate) mod migration;
mod outcome;
pub mod position;
pub mod push;
pub(crate) mod refused;
pub(crate) mod row_bytes;
pub mod sql;
mod statement;
pub mod transform;
mod written;

#[cfg(test)]
mod tests;

use std::{hash, sync::Arc};

use partial_sync_core::ChangeId;
pub(crate) use partial_sync_transport::tokens;
use serde::{Deserialize, Serialize};

/// A SQL value as SQLite stores it.
///
/// Two values are equal when SQLite would store the same bytes for them: `1`, `1.0` and `'1'` differ, and so do `0.0`
/// and `-0.0`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// NULL
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A float, with its exact bits. SQLite stores infinities but no NaN.
    Real(f64),
    /// Text.
    Text(String),
    /// TEXT whose bytes are not UTF-8. SQLite does not check text, so such values exist and must survive.
    RawText(#[serde(with = "codec::bytes")] Vec<u8>),
    /// Bytes.
    Blob(#[serde(with = "codec::bytes")] Vec<u8>),
}

impl Value {
    /// TEXT of these bytes: [`Value::Text`] when they are UTF-8, [`Value::RawText`] otherwise.
    pub fn text(bytes: impl Into<Vec<u8>>) -> Self {
        match String::from_utf8(bytes.into()) {
            Ok(text) => Self::Text(text),
            Err(not_utf8) => Self::RawText(not_utf8.into_bytes()),
        }
    }

    /// Whether the value is NULL.
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// How many bytes of content the value holds; what limits on memory and requests count.
    pub fn size(&self) -> usize {
        match self {
            Self::Null => 1,
            Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::RawText(bytes) | Self::Blob(bytes) => bytes.len(),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::RawText(a), Self::RawText(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl hash::Hash for Value {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Null => {}
            Self::Integer(value) => value.hash(state),
            Self::Real(value) => value.to_bits().hash(state),
            Self::Text(text) => text.hash(state),
            Self::RawText(bytes) | Self::Blob(bytes) => bytes.hash(state),
        }
    }
}

/// A table as it was when a change was made to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// Its name, unquoted, without a schema: changes are those of `main`.
    pub name: String,
    /// Every column in the order of `PRAGMA table_xinfo`, generated ones included.
    pub columns: Vec<Column>,
    /// Whether it was declared `WITHOUT ROWID`.
    pub without_rowid: bool,
    /// Whether it is a virtual table (FTS5, R*Tree): its first column is then its rowid, and its key.
    pub is_virtual: bool,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unquoted.
    pub name: String,
    /// 1-based position in the PRIMARY KEY; 0 = not in it.
    pub key: u16,
    /// Whether its value is computed (`GENERATED ALWAYS AS`, virtual or stored) and so can never be written.
    pub generated: bool,
}

impl Table {
    /// Indexes into [`Table::columns`] of the primary key, in key order; empty when the table has none.
    pub fn key(&self) -> Vec<usize> {
        let mut key: Vec<usize> = (0..self.columns.len())
            .filter(|&i| self.columns[i].key > 0)
            .collect();
        key.sort_by_key(|&i| self.columns[i].key);
        key
    }
}

/// What happened to one row.
///
/// An image has exactly one value for each entry of [`Table::columns`], in that order. The places of generated columns
/// are kept so that indexes agree, but their values are never read: write [`Value::Null`] there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RowOp {
    /// A new row.
    Insert {
        /// The row.
        after: Vec<Value>,
    },
    /// A row changed, its key perhaps included.
    Update {
        /// The row before.
        before: Vec<Value>,
        /// The row after.
        after: Vec<Value>,
    },
    /// A row is gone; also one that an `INSERT OR REPLACE` displaced.
    Delete {
        /// The row as it was.
        before: Vec<Value>,
    },
    /// A new row whose integer key nobody chose: SQLite gave it. Another client may have been given the same one for
    /// another row, so it never takes the place of a row: see [`keys`].
    Add {
        /// The row.
        after: Vec<Value>,
    },
}

impl RowOp {
    /// The images before and after, those that there are.
    pub fn images(&self) -> (Option<&Vec<Value>>, Option<&Vec<Value>>) {
        match self {
            Self::Insert { after } | Self::Add { after } => (None, Some(after)),
            Self::Update { before, after } => (Some(before), Some(after)),
            Self::Delete { before } => (Some(before), None),
        }
    }

    /// The same, to be changed.
    pub fn images_mut(&mut self) -> impl Iterator<Item = &mut Vec<Value>> {
        let (before, after) = match self {
            Self::Insert { after } | Self::Add { after } => (None, Some(after)),
            Self::Update { before, after } => (Some(before), Some(after)),
            Self::Delete { before } => (Some(before), None),
        };
        before.into_iter().chain(after)
    }
}

/// What happens on a database when a change is run there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Exactly what was recorded: its triggers and foreign-key actions are off, and every row that changed is written,
    /// whatever changed it.
    #[default]
    Rows,
    /// Its triggers fire, so what triggers did is not written. So do remotes that do not offer the other way, and so are
    /// changes run that release 0.1 recorded.
    Triggers,
    /// As [`Mode::Rows`], and foreign keys were enforced where it was recorded: a remote refuses what would violate one there.
    Enforced,
}

impl Mode {
    /// Whether every row is written as it came out.
    pub const fn is_rows(self) -> bool {
        matches!(self, Self::Rows | Self::Enforced)
    }
}

/// What made SQLite change a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The statement itself; also a trigger that the remote cannot have (`CREATE TEMP TRIGGER`).
    Statement,
    /// A trigger program, at any depth. With [`Mode::Triggers`] the remote's own trigger does it there.
    Trigger,
    /// A foreign-key action (`CASCADE`, `SET NULL`, `SET DEFAULT`), wherever it ran. Its SQL does nothing on a remote
    /// whose own foreign keys did it already, so naming an action of a trigger program so is safe.
    ForeignKey,
    /// A trigger program, or what happened below one, in a statement from whose rows alone the remote's triggers would
    /// not come to the same: it can be sent with [`Mode::Rows`] only.
    Unrepeatable,
    /// As [`Cause::Statement`], of a row that a trigger may have made, which left its key to SQLite. With [`Mode::Triggers`]
    /// the remote's trigger made that row, perhaps with another key, and the key is perhaps another client's row: so it is
    /// found by all of its values, or refused.
    StatementByValues,
    /// The same of [`Cause::ForeignKey`]; where it is not found, there is nothing to do.
    ForeignKeyByValues,
}

/// What a statement that is recorded as text does; it says how the text is made safe to run again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StatementKind {
    /// `CREATE TABLE`, virtual ones included.
    CreateTable,
    /// `CREATE INDEX`, unique ones included.
    CreateIndex,
    /// `CREATE TRIGGER`
    CreateTrigger,
    /// `CREATE VIEW`
    CreateView,
    /// `DROP TABLE`, virtual ones included.
    DropTable,
    /// `DROP INDEX`
    DropIndex,
    /// `DROP TRIGGER`
    DropTrigger,
    /// `DROP VIEW`
    DropView,
    /// `ALTER TABLE table ADD COLUMN column`: skipped where the column is there already.
    AlterAddColumn {
        /// The table, unquoted.
        table: String,
        /// The new column, unquoted.
        column: String,
    },
    /// Any other `ALTER TABLE`: run as it was written.
    AlterOther,
    /// An `INSERT`, `UPDATE` or `DELETE` on a virtual table.
    VirtualTableWrite {
        /// The virtual table, unquoted.
        table: String,
    },
    /// `PRAGMA user_version = N` or `PRAGMA application_id = N`.
    Pragma,
    /// `ANALYZE`: gathered again on the remote, where that can. A pull brings the remote's statistics, so it is not put back.
    Analyze,
    /// An `ALTER TABLE` that was run with `PRAGMA legacy_alter_table` on, and is run so again.
    AlterLegacy,
    /// The counter of an AUTOINCREMENT table was written: [`StatementChange::args`] are the table's name and, unless the
    /// counter was deleted, its value.
    Sequence,
    /// One row of a full-text table that keeps no content itself is taken out of the index or put into it: as the content
    /// table has it, or with values. The first value is its rowid.
    Reindex {
        /// The virtual table, unquoted.
        table: String,
        /// Its content table, unquoted; empty where there is none.
        content: String,
        /// Whether a trigger did it.
        by_trigger: bool,
    },
}

/// A statement recorded as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementChange {
    /// The text as it was prepared: one statement, with or without a semicolon and comments around it.
    pub sql: String,
    /// Values of the positional parameters: `args[0]` is that of `?1`.
    pub args: Vec<Value>,
    /// Values of the named parameters, each name with its prefix (`:a`, `@a`, `$a`).
    pub named: Vec<(String, Value)>,
    /// What it does.
    pub kind: StatementKind,
}

/// Whether a change is only a service to the remote: it may be left out, and a pull has nothing to put back.
pub(crate) fn is_advice(change: &Change) -> bool {
    matches!(&change.kind, ChangeKind::Statement(s) if s.kind == StatementKind::Analyze)
}

/// What a [`Change`] changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// A row of an ordinary table.
    Row {
        /// The table; changes to the same table share it.
        table: Arc<Table>,
        /// What happened.
        op: RowOp,
        /// Why.
        cause: Cause,
    },
    /// The schema, or a virtual table.
    Statement(StatementChange),
}

/// One entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number; numbers only go up.
    pub id: ChangeId,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// How much lower the number of the first change of its [unit](Self::unit) is.
    pub back: u32,
    /// What it changed.
    pub kind: ChangeKind,
}

impl Change {
    /// The first change of its unit: a row that a statement changed, and what followed from that (rows that triggers and
    /// foreign-key actions wrote, rows that a conflict clause displaced, entries of full-text indexes). A unit is given up
    /// whole. Where SQLite does not tell which row something followed from, all of a statement is one unit.
    pub fn unit(&self) -> ChangeId {
        ChangeId(self.id.0.saturating_sub(self.back.into()))
    }
}
