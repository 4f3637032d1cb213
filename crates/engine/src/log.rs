//! The change log of a replica: a local-only table that holds, chunk by chunk, what local transactions changed.
//!
//! ```sql
//! CREATE TABLE partial_sync_changes(
//!   id INTEGER PRIMARY KEY,  -- last change id of the chunk
//!   first INTEGER,           -- first change id of the chunk
//!   txn INTEGER,             -- first change id of the transaction; every chunk of a transaction has the same
//!   time INTEGER,            -- seconds since 1970
//!   count INTEGER,           -- changes in the chunk
//!   body BLOB)               -- the changes, as change::codec writes them
//! CREATE TABLE partial_sync_state(key TEXT PRIMARY KEY, value)
//! ```
//!
//! A replica without local changes has neither table. [`Log`] works on a connection without capture and never opens a
//! transaction itself: what must happen together is the caller's transaction.

use std::collections::BTreeSet;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{self, Conn, Step, Stmt, ValueRef, codes};

use crate::change::{Change, Mode, Value, codec, keys::Summary};

/// Every table whose name starts like this is the project's own: never captured, never written by users.
pub use partial_sync_transport::bookkeeping::OWN_PREFIX;

pub(crate) const CREATE_CHANGES: &str = "CREATE TABLE IF NOT EXISTS main.partial_sync_changes(id INTEGER PRIMARY KEY, \
     first INTEGER, txn INTEGER, time INTEGER, count INTEGER, body BLOB)";
const CREATE_STATE: &str = "CREATE TABLE IF NOT EXISTS main.partial_sync_state(key TEXT PRIMARY KEY, value)";
pub(crate) const INSERT: &str = "INSERT INTO main.partial_sync_changes(id, first, txn, time, count, body) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
pub(crate) const MAX_ID: &str = "SELECT max(id) FROM main.partial_sync_changes";

/// Why the log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// SQLite failed.
    #[error("the change log cannot be used: {0}")]
    Sqlite(#[from] sqlite::Error),
    /// A chunk does not decode.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
}

/// One row of the log: some changes of one transaction, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first change in it.
    pub first: ChangeId,
    /// The last change in it.
    pub last: ChangeId,
    /// The first change of the transaction it belongs to.
    pub txn: ChangeId,
    /// When it was written, in seconds since 1970.
    pub time: i64,
    /// How many changes it holds.
    pub count: u64,
    /// The changes, encoded.
    pub body: Vec<u8>,
}

impl Chunk {
    /// The changes.
    pub fn changes(&self) -> Result<Vec<Change>, LogError> {
        Ok(codec::decode(&self.body)?)
    }

    /// How the changes are to be run.
    pub fn mode(&self) -> Mode {
        codec::mode(&self.body)
    }

    /// What is in it after the change `id`; `None` when that is nothing. Release 0.1 left a chunk its number when its last
    /// change was discarded, so the number does not tell.
    pub(crate) fn after(mut self, id: ChangeId) -> Result<Option<Self>, LogError> {
        if self.first > id {
            return Ok(Some(self));
        }
        let mut changes = self.changes()?;
        changes.retain(|change| change.id > id);
        let Some(first) = changes.first() else {
            return Ok(None);
        };
        self.first = first.id;
        self.count = changes.len() as u64;
        self.body = codec::encode_in(self.mode(), &changes)?;
        Ok(Some(self))
    }

    pub(crate) fn bind(&self, insert: &mut Stmt) -> sqlite::Result<()> {
        insert.bind(1, ValueRef::Integer(self.last.0))?;
        insert.bind(2, ValueRef::Integer(self.first.0))?;
        insert.bind(3, ValueRef::Integer(self.txn.0))?;
        insert.bind(4, ValueRef::Integer(self.time))?;
        insert.bind(5, ValueRef::Integer(self.count as i64))?;
        insert.bind(6, ValueRef::Blob(&self.body))
    }
}

/// The change log behind a connection that has no capture.
#[derive(Clone, Debug)]
pub struct Log {
    conn: Conn,
}

impl Log {
    /// The log of the database that `conn` is open on.
    pub fn new(conn: &Conn) -> Self {
        Self { conn: conn.clone() }
    }

    /// The last change that the log holds; `None` when it is empty.
    pub fn last(&self) -> Result<Option<ChangeId>, LogError> {
        Ok(self.integer(MAX_ID)?.map(ChangeId))
    }

    /// How many changes the log holds.
    pub fn count(&self) -> Result<u64, LogError> {
        let sum = self.integer("SELECT sum(count) FROM main.partial_sync_changes")?;
        Ok(sum.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
    }

    /// The chunks that hold changes after `id`, in order, read one at a time.
    pub fn chunks_after(&self, id: ChangeId) -> Result<Chunks, LogError> {
        let mut select = self.statement(
            "SELECT first, id, txn, time, count, body FROM main.partial_sync_changes WHERE id > ?1 ORDER BY id",
        )?;
        if let Some(select) = &mut select {
            select.bind(1, ValueRef::Integer(id.0))?;
        }
        Ok(Chunks { select })
    }

    /// What the log has of keys after `id`.
    pub(crate) fn summary_after(&self, id: ChangeId) -> Result<Summary, LogError> {
        let mut summary = Summary::default();
        let mut chunks = self.chunks_after(id)?;
        while let Some(chunk) = chunks.next()? {
            let changes = chunk.changes()?;
            changes.iter().filter(|c| c.id > id).for_each(|c| summary.add(c));
        }
        Ok(summary)
    }

    /// Deletes the chunks that hold no change after `id`: what the remote has acknowledged. Raise the floor
    /// of change ids to `id` first, or the numbers would be used again.
    pub fn delete_through(&self, id: ChangeId) -> Result<u64, LogError> {
        let Some(mut delete) = self.statement("DELETE FROM main.partial_sync_changes WHERE id <= ?1")? else {
            return Ok(0);
        };
        // See [`Chunk::after`].
        let id = match self.chunks_after(id)?.next()? {
            Some(chunk) if chunk.first <= id => {
                let last = chunk.last;
                if chunk.after(id)?.is_none() { last } else { id }
            }
            _ => id,
        };
        delete.bind(1, ValueRef::Integer(id.0))?;
        match unless_gone(delete.execute())? {
            Some(()) => Ok(self.conn.changes()),
            None => Ok(0),
        }
    }

    /// Takes changes out of the log, for a user who gives them up. Gives those that were there. Raise the floor of change
    /// ids before that is committed: the newest number may be free now.
    pub fn discard(&self, ids: &BTreeSet<ChangeId>) -> Result<Vec<Change>, LogError> {
        let mut discarded = Vec::new();
        let mut left = ids.clone();
        while let Some(next) = left.pop_first() {
            let after = ChangeId(next.0.saturating_sub(1));
            let Some(mut chunk) = self.chunks_after(after)?.next()? else {
                break;
            };
            let (gone, kept): (Vec<_>, Vec<_>) = chunk
                .changes()?
                .into_iter()
                .partition(|change| ids.contains(&change.id));
            left = left.split_off(&ChangeId(chunk.last.0.saturating_add(1)));
            if gone.is_empty() {
                continue;
            }
            let mut delete = self
                .conn
                .prepare_one("DELETE FROM main.partial_sync_changes WHERE id = ?1")?;
            delete.bind(1, ValueRef::Integer(chunk.last.0))?;
            delete.execute()?;
            if let Some(last) = kept.last() {
                chunk.last = last.id;
                chunk.body = codec::encode_in(chunk.mode(), &kept)?;
                chunk.count = kept.len() as u64;
                let mut insert = self.conn.prepare_one(INSERT)?;
                chunk.bind(&mut insert)?;
                insert.execute()?;
            }
            discarded.extend(gone);
        }
        Ok(discarded)
    }

    /// The marker called `key`.
    pub fn marker(&self, key: &str) -> Result<Option<Value>, LogError> {
        let Some(mut select) = self.statement("SELECT value FROM main.partial_sync_state WHERE key = ?1")?
        else {
            return Ok(None);
        };
        select.bind(1, ValueRef::Text(key.as_bytes()))?;
        Ok(match unless_gone(select.step())? {
            Some(Step::Row) => Some(Value::from(select.value(0)?)),
            Some(Step::Done) | None => None,
        })
    }

    /// Sets the marker called `key`; `None` removes it.
    pub fn set_marker(&self, key: &str, value: Option<ValueRef<'_>>) -> Result<(), LogError> {
        let Some(value) = value else {
            if let Some(mut delete) = self.statement("DELETE FROM main.partial_sync_state WHERE key = ?1")? {
                delete.bind(1, ValueRef::Text(key.as_bytes()))?;
                delete.execute()?;
            }
            return Ok(());
        };
        self.conn.execute_batch(CREATE_STATE)?;
        let mut set = self
            .conn
            .prepare_one("REPLACE INTO main.partial_sync_state(key, value) VALUES (?1, ?2)")?;
        set.bind(1, ValueRef::Text(key.as_bytes()))?;
        set.bind(2, value)?;
        Ok(set.execute()?)
    }

    /// Prepares a statement on a table that may not exist; `None` when it does not.
    fn statement(&self, sql: &str) -> Result<Option<Stmt>, LogError> {
        match self.conn.prepare_one(sql) {
            Ok(stmt) => Ok(Some(stmt)),
            Err(e) if is_no_such_table(&e) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn integer(&self, sql: &str) -> Result<Option<i64>, LogError> {
        let Some(mut stmt) = self.statement(sql)? else {
            return Ok(None);
        };
        Ok(match unless_gone(stmt.step())? {
            Some(Step::Row) => match stmt.value(0)? {
                ValueRef::Integer(n) => Some(n),
                _ => None,
            },
            Some(Step::Done) | None => None,
        })
    }
}

/// A statement is prepared with the schema that its connection knows. When a pull has taken the table away since, that
/// comes out at the first step.
fn unless_gone<T>(result: sqlite::Result<T>) -> sqlite::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if is_no_such_table(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn is_no_such_table(error: &sqlite::Error) -> bool {
    error.code == codes::ERROR && error.message.starts_with("no such table")
}

/// Reads chunks one at a time. See [`Log::chunks_after`].
#[derive(Debug)]
pub struct Chunks {
    select: Option<Stmt>,
}

impl Chunks {
    /// The next chunk; `None` at the end.
    #[allow(clippy::should_implement_trait)] // fallible, like rusqlite's `Rows::next`
    pub fn next(&mut self) -> Result<Option<Chunk>, LogError> {
        let Some(select) = &mut self.select else {
            return Ok(None);
        };
        if matches!(unless_gone(select.step())?, Some(Step::Done) | None) {
            self.select = None;
            return Ok(None);
        }
        let integer = |column| match select.value(column)? {
            ValueRef::Integer(n) => Ok(n),
            other => Err(LogError::Codec(codec::CodecError::Damaged(format!(
                "{other:?} in column {column}"
            )))),
        };
        let body = match select.value(5)? {
            ValueRef::Blob(body) => body.to_vec(),
            other => return Err(codec::CodecError::Damaged(format!("{other:?} as a chunk")).into()),
        };
        Ok(Some(Chunk {
            first: ChangeId(integer(0)?),
            last: ChangeId(integer(1)?),
            txn: ChangeId(integer(2)?),
            time: integer(3)?,
            count: u64::try_from(integer(4)?).unwrap_or(0),
            body,
        }))
    }
}
