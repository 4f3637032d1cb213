//! The recorder on plain SQLite files in WAL mode: what lands in the log, in which order, and what the user sees of it.

mod counters;
mod guard;
mod plan;
mod replay;
mod rows;
mod schema;
mod stale;
mod transactions;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::Conn;
use tempfile::TempDir;

use crate::{
    capture::CaptureOptions,
    change::{Cause, ChangeKind, RowOp, Value},
    log::{Chunk, Log},
    sql::{connection::Connection, shared_connection::ConnectionOptions},
};

/// A database file with a schema, whose changes are recorded.
struct TestDb {
    folder: TempDir,
    highest_used_id: Arc<AtomicI64>,
}

impl TestDb {
    fn new(schema: &str) -> Self {
        let recorded = Self {
            folder: tempfile::tempdir().unwrap(),
            highest_used_id: Arc::default(),
        };
        let conn = recorded.plain();
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = OFF")
            .unwrap();
        conn.execute_batch(schema).unwrap();
        recorded
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A connection that records.
    fn connection(&self) -> Connection {
        self.open(Some(CaptureOptions {
            highest_used_id: self.highest_used_id.clone(),
            ..CaptureOptions::default()
        }))
    }

    fn open(&self, capture: Option<CaptureOptions>) -> Connection {
        Connection::open(ConnectionOptions {
            path: self.path(),
            vfs: None,
            capture,
            busy_timeout: Duration::from_secs(5),
            keep_alive: None,
        })
        .unwrap()
    }

    /// A connection that does not.
    fn plain(&self) -> Conn {
        Conn::open(self.path(), &Default::default()).unwrap()
    }

    fn log(&self) -> Log {
        Log::new(&self.plain())
    }

    fn chunks(&self) -> Vec<Chunk> {
        let log = self.log();
        let mut chunks = log.chunks_after(ChangeId(0)).unwrap();
        std::iter::from_fn(|| chunks.next().unwrap()).collect()
    }

    /// What the log holds, a line per change, and empties it.
    fn take(&self) -> Vec<String> {
        let chunks = self.chunks();
        let mut lines = Vec::new();
        let mut next = None;
        for chunk in &chunks {
            let changes = chunk.changes().unwrap();
            assert_eq!(chunk.count, changes.len() as u64);
            assert_eq!(
                (chunk.first, chunk.last),
                (changes[0].id, changes[changes.len() - 1].id)
            );
            for change in changes {
                assert!(next.is_none_or(|next| change.id >= next), "ids go up");
                next = Some(ChangeId(change.id.0 + 1));
                lines.push(line(&change.kind));
            }
        }
        if let Some(last) = chunks.last() {
            self.highest_used_id.fetch_max(last.last.0, Ordering::SeqCst);
            self.log().delete_through(last.last).unwrap();
        }
        lines
    }
}

fn line(kind: &ChangeKind) -> String {
    let image = |values: &[Value]| values.iter().map(value).collect::<Vec<_>>().join(",");
    match kind {
        ChangeKind::Statement(s) => {
            let args: Vec<_> = s
                .args
                .iter()
                .map(value)
                .chain(s.named.iter().map(|(n, v)| format!("{n}={}", value(v))))
                .collect();
            if args.is_empty() {
                s.sql.clone()
            } else {
                format!("{} [{}]", s.sql, args.join(","))
            }
        }
        ChangeKind::Row { table, op, cause } => {
            let what = match op {
                RowOp::Insert { after } => format!("+{}({})", table.name, image(after)),
                RowOp::Add { after } => format!("*{}({})", table.name, image(after)),
                RowOp::Update { before, after } => {
                    format!("~{}({})->({})", table.name, image(before), image(after))
                }
                RowOp::Delete { before } => format!("-{}({})", table.name, image(before)),
            };
            match cause {
                Cause::Statement => what,
                Cause::Trigger => format!("{what} by trigger"),
                Cause::ForeignKey => format!("{what} by key"),
                Cause::Unrepeatable => format!("{what} unrepeatable"),
                Cause::StatementByValues => format!("{what} by values"),
                Cause::ForeignKeyByValues => format!("{what} by key and values"),
            }
        }
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Integer(n) => n.to_string(),
        Value::Real(n) => format!("{n:?}"),
        Value::Text(t) => t.clone(),
        Value::RawText(b) => format!("raw{b:?}"),
        Value::Blob(b) => format!("x{b:?}"),
    }
}

/// What `sql` records on a database with `schema`.
#[track_caller]
fn records(schema: &str, sql: &str, expected: &[&str]) {
    let db = TestDb::new(schema);
    db.connection().execute_batch(sql).unwrap();
    assert_eq!(db.take(), expected, "{sql}");
}
