//! The preupdate hook of a capturing connection: copies rows, decides nothing.
//!
//! It runs in the middle of a statement and must not use the connection. What it cannot read makes the statement fail
//! when it has ended, rather than a change go unrecorded. A row is kept as the bytes that the log will have of it, beyond some
//! megabytes in a temporary file, so that a statement that changes millions of rows needs no memory for each.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, PreUpdate, PreUpdateHook, RowChange, ValueRef, codes};
use serde::Deserialize;

use crate::{
    change::{RowOp, Table, Value, row_bytes},
    error::Error,
    log::OWN_PREFIX,
    sql::records::Records,
};

/// SQLite's table of the counters of AUTOINCREMENT. The hook hears of it only when a statement names it.
pub(super) const SEQUENCE: &str = "sqlite_sequence";

/// One changed row, and how deep in triggers and foreign-key actions it was changed.
pub(super) struct Nested {
    pub table: Arc<str>,
    pub op: RowOp,
    pub depth: u32,
    /// Before and after, where the table has rowids.
    pub rowids: (i64, i64),
}

/// The same as bytes.
pub(super) struct SeenRow<'s> {
    /// In [`Seen::known`].
    pub table: usize,
    depth: u32,
    rowids: (i64, i64),
    /// A [`RowOp`], as postcard writes it.
    pub op: &'s [u8],
}

/// The rows that a statement changed, in the order in which it changed them.
#[derive(Default)]
pub(super) struct Seen {
    /// The tables that they are in, and some that the statements before wrote to.
    known: Vec<SeenTable>,
    /// A trigger or a foreign-key action changed one of them.
    pub deep: bool,
    /// There is text in them that is not Unicode.
    pub raw_text: bool,
    /// A row that was there changed.
    pub old: bool,
    rows: Records,
}

/// A table with rows that a statement changed.
pub(super) struct SeenTable {
    pub name: Arc<str>,
    /// How many columns a row has.
    pub columns: usize,
    /// The statement itself changed one of its rows.
    pub own: bool,
    /// There are rows of it.
    used: bool,
}

/// Tables whose names are kept for the next statement.
const KNOWN: usize = 16;

impl Seen {
    pub(super) fn is_empty(&self) -> bool {
        self.tables().next().is_none()
    }

    /// The tables that the rows are in.
    pub(super) fn tables(&self) -> impl Iterator<Item = &SeenTable> {
        self.known.iter().filter(|table| table.used)
    }

    /// What `of` gives for each table, by the number of the table; `None` also for those without rows.
    pub(super) fn by_table<T>(&self, of: impl Fn(&SeenTable) -> Option<T>) -> Vec<Option<T>> {
        let used = |table: &SeenTable| table.used.then(|| of(table)).flatten();
        self.known.iter().map(used).collect()
    }

    /// The next row; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<SeenRow<'_>>, Error> {
        let failed = |error| Error::storage("read changed rows back from", &std::env::temp_dir(), error);
        let Some(bytes) = self.rows.next().map_err(failed)? else {
            return Ok(None);
        };
        #[derive(Deserialize)]
        struct Head(u32, u32, i64, i64);
        let (Head(table, depth, old, new), op) = postcard::take_from_bytes(bytes)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok(Some(SeenRow {
            table: table as usize,
            depth,
            rowids: (old, new),
            op,
        }))
    }

    /// The first row is the next one.
    pub(super) fn rewind(&mut self) {
        self.rows.rewind();
    }

    /// The next row, taken apart; `None` at the end.
    pub(super) fn next_nested(&mut self) -> Result<Option<Nested>, Error> {
        let Some(row) = self.next()? else {
            return Ok(None);
        };
        let op = postcard::from_bytes(row.op).map_err(|error| {
            sqlite::Error::new(
                codes::INTERNAL,
                format!("a row that was seen cannot be read: {error}"),
            )
        })?;
        let (table, depth, rowids) = (row.table, row.depth, row.rowids);
        Ok(Some(Nested {
            table: self.known[table].name.clone(),
            op,
            depth,
            rowids,
        }))
    }

    /// The number of a table, whose rows have as many columns as those before.
    fn table(&mut self, name: &[u8], columns: usize, depth: u32) -> sqlite::Result<usize> {
        let known = self.known.iter().position(|table| table.name.as_bytes() == name);
        let number = match known {
            Some(known) => known,
            None => {
                let name = std::str::from_utf8(name)
                    .map_err(|_| sqlite::Error::new(codes::MISUSE, "the table's name is not UTF-8"))?;
                self.known.push(SeenTable {
                    name: name.into(),
                    columns,
                    own: false,
                    used: false,
                });
                self.known.len() - 1
            }
        };
        let table = &mut self.known[number];
        if table.used && table.columns != columns {
            return Err(changed_columns(&table.name));
        }
        (table.used, table.columns) = (true, columns);
        table.own |= depth == 0;
        Ok(number)
    }

    fn see(&mut self, change: &PreUpdate<'_>) -> sqlite::Result<()> {
        let name = change.table();
        let is_sqlites = name.starts_with(b"sqlite_") && name != SEQUENCE.as_bytes();
        if is_sqlites || name.starts_with(OWN_PREFIX.as_bytes()) {
            return Ok(());
        }
        if change.blob_write().is_some() {
            return Err(sqlite::Error::new(
                codes::MISUSE,
                "incremental blob writes are not supported",
            ));
        }
        let (columns, depth) = (change.column_count(), change.depth());
        let table = self.table(name, columns, depth)?;
        self.deep |= depth > 0;
        let (raw_text, old) = (&mut self.raw_text, &mut self.old);
        self.rows.push(|bytes| {
            row_bytes::add_number(bytes, table as u64);
            row_bytes::add_number(bytes, depth.into());
            row_bytes::add_signed(bytes, change.old_rowid());
            row_bytes::add_signed(bytes, change.new_rowid());
            let (number, before, after) = match change.op() {
                RowChange::Insert => (row_bytes::INSERT, false, true),
                RowChange::Update => (row_bytes::UPDATE, true, true),
                RowChange::Delete => (row_bytes::DELETE, true, false),
            };
            bytes.push(number);
            *old |= before;
            if before {
                *raw_text |= row_bytes::add_image(bytes, columns, |column| stored(change.before(column)))?;
            }
            if after {
                *raw_text |= row_bytes::add_image(bytes, columns, |column| stored(change.after(column)))?;
            }
            Ok(())
        })
    }

    fn clear(&mut self) {
        self.known.truncate(KNOWN);
        for table in &mut self.known {
            (table.used, table.own) = (false, false);
        }
        self.rows.clear();
        (self.deep, self.raw_text, self.old) = (false, false, false);
    }
}

/// Virtual generated columns are not stored.
fn stored(value: sqlite::Result<ValueRef<'_>>) -> sqlite::Result<ValueRef<'_>> {
    match value {
        Err(error) if error.code == codes::RANGE => Ok(ValueRef::Null),
        value => value,
    }
}

/// What the hook has seen of the statement that runs.
#[derive(Default)]
pub(super) struct Buffer {
    seen: Seen,
    /// Set while the hook runs, so that a panic in it is noticed, and for good when it fails.
    broken: Option<sqlite::Error>,
}

impl Buffer {
    /// A statement begins.
    pub(super) fn start(&mut self) {
        self.seen.clear();
        self.broken = None;
    }

    /// The statement has ended.
    pub(super) fn finish(&mut self) -> Result<Seen, Error> {
        let seen = std::mem::take(&mut self.seen);
        match self.broken.take() {
            Some(reason) => {
                let what = "this change cannot be recorded and was rolled back";
                let message = match &reason.source {
                    Some(_) => what.to_owned(),
                    None => format!("{what}: {reason}"),
                };
                // A page that could not be had is told as such: the same statement may work later.
                Err(sqlite::Error {
                    source: reason.source,
                    ..sqlite::Error::new(codes::ABORT, message)
                }
                .into())
            }
            None => Ok(seen),
        }
    }

    /// Has a little of its memory back for the next statement; nothing else of what was seen stays, in memory or on the disk.
    pub(super) fn reuse(&mut self, mut seen: Seen) {
        seen.clear();
        self.seen = seen;
    }
}

/// The hook that fills `buffer`.
pub(super) fn hook(buffer: Arc<Mutex<Buffer>>) -> PreUpdateHook {
    Box::new(move |change| {
        if change.db_name() != b"main" {
            return;
        }
        let mut buffer = buffer.lock();
        if buffer.broken.is_some() {
            return;
        }
        buffer.broken = Some(sqlite::Error::new(
            codes::INTERNAL,
            "the recorder panicked; please report this",
        ));
        buffer.broken = buffer.seen.see(&change).err();
    })
}

/// Makes images as the change log wants them: a value per column, none for generated ones. `reals` are the columns of which a row that is
/// older than they are was seen with an integer in the place of the REAL that it has.
pub(super) fn fit(table: &Table, reals: &[usize], op: &mut RowOp) -> Result<(), Error> {
    for image in op.images_mut() {
        if image.len() != table.columns.len() {
            return Err(changed_columns(&table.name).into());
        }
        for (value, column) in image.iter_mut().zip(&table.columns) {
            if column.generated {
                *value = Value::Null;
            }
        }
        for &column in reals {
            if let Value::Integer(number) = image[column] {
                image[column] = Value::Real(number as f64);
            }
        }
    }
    Ok(())
}

fn changed_columns(table: &str) -> sqlite::Error {
    let message = format!("table {table} changed its columns while it was written to");
    sqlite::Error::new(codes::SCHEMA, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Was red: the temporary file of a large statement stayed on the disk until its connection ran another one.
    #[test]
    fn what_was_seen_is_gone_when_it_is_recorded() {
        let mut seen = Seen::default();
        seen.table(b"t", 1, 0).unwrap();
        let large = |bytes: &mut Vec<u8>| -> sqlite::Result<()> {
            bytes.resize(bytes.len() + crate::sql::records::MEMORY + 1, 0);
            Ok(())
        };
        seen.rows.push(large).unwrap();
        assert!(seen.rows.has_file());
        let mut buffer = Buffer::default();
        buffer.reuse(seen);
        assert!(buffer.seen.is_empty() && !buffer.seen.rows.has_file());
    }
}
