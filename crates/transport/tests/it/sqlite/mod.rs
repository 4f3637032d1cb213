//! A `MemoryRemote` whose SQL is run by a real SQLite: each commit becomes a revision.

#![allow(dead_code)]

use std::sync::Mutex;

use bytes::Bytes;
use partial_sync_transport::{
    MemoryRemote, Remote,
    conformance::Subject,
    hrana::{Batch, BatchResult, Col, Condition, Error, Stmt, StmtResult, Value},
};
use rusqlite::{Connection, types::ValueRef};

pub(crate) struct Memory {
    pub remote: MemoryRemote,
    _folder: tempfile::TempDir,
}

impl Subject for Memory {
    fn remote(&self) -> &dyn Remote {
        &self.remote
    }

    fn query(&self) -> Option<String> {
        Some("SELECT * FROM t".into())
    }
}

pub(crate) fn database() -> Memory {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("remote.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 512; CREATE TABLE t (k INTEGER PRIMARY KEY, v);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO t SELECT i, 'row ' || i FROM n;",
        )
        .unwrap();
    let pages = move || -> Vec<Bytes> {
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        (0..bytes.len())
            .step_by(512)
            .map(|at| bytes.slice(at..at + 512))
            .collect()
    };
    let remote = MemoryRemote::new();
    remote.push_revision(pages());
    remote.on_query(|_, pages| Ok((1..pages.len() as u32 / 2).collect()));
    let connection = Mutex::new(connection);
    remote.on_execute(move |remote, batch| {
        let result = run(&connection.lock().unwrap(), &batch);
        let now = pages();
        if remote.latest().is_some_and(|(_, before)| before[..] != now[..]) {
            remote.push_revision(now);
        }
        Ok(result)
    });
    Memory {
        remote,
        _folder: folder,
    }
}

fn run(connection: &Connection, batch: &Batch) -> BatchResult {
    let mut done = BatchResult::default();
    for step in &batch.steps {
        let wanted = step
            .condition
            .as_ref()
            .is_none_or(|c| holds(c, &done, connection));
        let outcome = wanted.then(|| run_one(connection, &step.stmt));
        let (result, error) = match outcome {
            None => (None, None),
            Some(Ok(result)) => (Some(result), None),
            Some(Err(error)) => (None, Some(error)),
        };
        done.step_results.push(result);
        done.step_errors.push(error.map(|e| Error {
            message: e.to_string(),
            code: None,
            extended_code: None,
        }));
    }
    done
}

fn holds(condition: &Condition, done: &BatchResult, connection: &Connection) -> bool {
    match condition {
        Condition::Ok { step } => done.step_results[*step as usize].is_some(),
        Condition::Error { step } => done.step_errors[*step as usize].is_some(),
        Condition::Not { cond } => !holds(cond, done, connection),
        Condition::And { conds } => conds.iter().all(|c| holds(c, done, connection)),
        Condition::Or { conds } => conds.iter().any(|c| holds(c, done, connection)),
        Condition::IsAutocommit {} => connection.is_autocommit(),
    }
}

fn run_one(connection: &Connection, stmt: &Stmt) -> rusqlite::Result<StmtResult> {
    let mut prepared = connection.prepare(stmt.sql.as_deref().unwrap_or_default())?;
    let args = stmt.args.iter().map(|value| -> rusqlite::types::Value {
        match value.clone() {
            Value::Null => rusqlite::types::Value::Null,
            Value::Integer { value } => value.into(),
            Value::Float { value } => value.into(),
            Value::Text { value } => value.into(),
            Value::Blob { base64 } => base64.into(),
        }
    });
    let cols: Vec<_> = prepared
        .column_names()
        .map(|name| Col {
            name: Some(name.to_owned()),
            decltype: None,
        })
        .collect();
    let before = connection.total_changes();
    let mut rows = prepared.query(rusqlite::params_from_iter(args))?;
    let mut read = Vec::new();
    while let Some(row) = rows.next()? {
        let value = |n| -> rusqlite::Result<Value> {
            Ok(match row.get_ref(n)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(value) => Value::Integer { value },
                ValueRef::Real(value) => Value::Float { value },
                ValueRef::Text(text) => Value::Text {
                    value: String::from_utf8_lossy(text).into_owned(),
                },
                ValueRef::Blob(bytes) => Value::Blob {
                    base64: bytes.to_vec(),
                },
            })
        };
        read.push((0..cols.len()).map(value).collect::<Result<_, _>>()?);
    }
    Ok(StmtResult {
        cols,
        rows: read,
        affected_row_count: connection.total_changes() - before,
        last_insert_rowid: Some(connection.last_insert_rowid()),
    })
}
