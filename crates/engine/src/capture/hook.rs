//! The preupdate hook of a capturing connection: copies rows, decides nothing.
//!
//! It runs in the middle of a statement and must not use the connection. What it cannot read makes the statement fail
//! when it has ended, rather than a change go unrecorded.

use std::sync::Arc;

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, PreUpdate, PreUpdateHook, RowChange, codes};

use crate::{
    change::{RowOp, Table, Value},
    error::Error,
    log::OWN_PREFIX,
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

/// What the hook has seen of the statement that runs.
#[derive(Default)]
pub(super) struct Buffer {
    rows: Vec<Nested>,
    /// Set while the hook runs, so that a panic in it is noticed, and for good when it fails.
    broken: Option<sqlite::Error>,
    /// The last table name: most statements change one table.
    last: Option<Arc<str>>,
}

impl Buffer {
    /// A statement begins.
    pub(super) fn start(&mut self) {
        self.rows.clear();
        self.broken = None;
    }

    /// The statement has ended.
    pub(super) fn finish(&mut self) -> Result<Vec<Nested>, Error> {
        let rows = std::mem::take(&mut self.rows);
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
            None => Ok(rows),
        }
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
        let table = match &self.last {
            Some(last) if last.as_bytes() == name => last.clone(),
            _ => {
                let name = std::str::from_utf8(name)
                    .map_err(|_| sqlite::Error::new(codes::MISUSE, "the table's name is not UTF-8"))?;
                self.last.insert(name.into()).clone()
            }
        };
        let image = |get: &dyn Fn(usize) -> sqlite::Result<Value>| {
            (0..change.column_count())
                .map(|column| match get(column) {
                    // Virtual generated columns are not stored.
                    Err(e) if e.code == codes::RANGE => Ok(Value::Null),
                    value => value,
                })
                .collect::<sqlite::Result<Vec<Value>>>()
        };
        let before = || image(&|column| Ok(Value::from(change.before(column)?)));
        let after = || image(&|column| Ok(Value::from(change.after(column)?)));
        let op = match change.op() {
            RowChange::Insert => RowOp::Insert { after: after()? },
            RowChange::Update => RowOp::Update {
                before: before()?,
                after: after()?,
            },
            RowChange::Delete => RowOp::Delete { before: before()? },
        };
        self.rows.push(Nested {
            table,
            op,
            depth: change.depth(),
            rowids: (change.old_rowid(), change.new_rowid()),
        });
        Ok(())
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
        buffer.broken = buffer.see(&change).err();
    })
}

/// Makes an image as the change log wants it: a value per column, none for generated ones.
pub(super) fn fit(table: &Table, op: &mut RowOp) -> Result<(), Error> {
    for image in op.images_mut() {
        if image.len() != table.columns.len() {
            let message = format!("table {} changed its columns while it was written to", table.name);
            return Err(sqlite::Error::new(codes::SCHEMA, message).into());
        }
        for (value, column) in image.iter_mut().zip(&table.columns) {
            if column.generated {
                *value = Value::Null;
            }
        }
    }
    Ok(())
}
