//! Writes waiting changes to the log table, inside the transaction that made them and unseen by the user.

use std::sync::{Arc, atomic::Ordering};

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{self, ValueRef};
use rusqlite::config::DbConfig;

use super::{classify::internal, run::Recording};
use crate::{
    change::{Cause, Change, ChangeKind, Mode, Table, codec::Head},
    error::Result,
    log,
};

/// A chunk of the log is closed when the changes in it hold this many bytes.
const CHUNK_BYTES: usize = 1 << 20;

impl Recording<'_> {
    /// Makes sure, with the write lock held, that the log exists, that the next id is known, and that what is known of
    /// the schema is true.
    pub(super) fn look_at_log(&mut self) -> Result<i64> {
        if let Some(next) = self.state.next_id {
            return Ok(next);
        }
        let max = match internal(|| self.max_id()) {
            Err(e) if log::is_no_such_table(&e) => {
                self.state.max_id = None;
                self.state.insert = None;
                (self.shared.options.before_log)()?;
                self.batch(log::CREATE_CHANGES)?;
                internal(|| self.max_id())?
            }
            max => max?,
        };
        let next = max.max(self.shared.options.highest_used_id.load(Ordering::SeqCst)) + 1;
        self.state.next_id = Some(next);
        Ok(next)
    }

    fn max_id(&mut self) -> sqlite::Result<i64> {
        let fresh = self.state.max_id.is_none();
        let stmt = match &mut self.state.max_id {
            Some(stmt) => stmt,
            none => none.insert(self.conn.prepare_one(log::MAX_ID)?),
        };
        stmt.step()?;
        let max = match stmt.value(0)? {
            ValueRef::Integer(max) => max,
            _ => 0,
        };
        stmt.reset()?;
        // SQLite compiles it again exactly when the schema is not the one it was compiled for.
        let compiled = stmt.reprepares();
        if fresh || compiled != self.state.compiled {
            self.state.compiled = compiled;
            self.state.schema.clear();
        }
        Ok(max)
    }

    /// Writes what waits to the log, hidden from `changes()`, `total_changes()` and `last_insert_rowid()`.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.state.waiting.count() == 0 {
            return Ok(());
        }
        let counters = &self.shared.counters;
        let (seen, rowid) = (counters.changes(self.conn), self.conn.last_insert_rowid());
        let before = self.conn.total_changes();
        let written = internal(|| self.write_chunk());
        self.conn.set_last_insert_rowid(rowid);
        let written_rows = self.conn.total_changes() - before;
        counters.hidden.fetch_add(written_rows, Ordering::Relaxed);
        counters.keep(self.conn, seen);
        written
    }

    /// Whether foreign keys are enforced cannot change within a transaction.
    fn mode(&self) -> Result<Mode> {
        let enforced = DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY;
        Ok(match self.conn.with_rusqlite(|c| c.db_config(enforced))? {
            true => Mode::Enforced,
            false => Mode::Rows,
        })
    }

    /// After a failure what waits waits on, in case the transaction is still there to be committed.
    fn write_chunk(&mut self) -> Result<()> {
        let next = self.look_at_log()?;
        let waiting = &self.state.waiting;
        let first = next - waiting.count() as i64;
        let chunk = log::Chunk {
            first: ChangeId(first),
            last: ChangeId(next - 1),
            txn: ChangeId(*self.state.txn.get_or_insert(first)),
            time: self.state.waiting_since,
            count: waiting.count(),
            body: waiting.chunk(self.mode()?).map_err(log::LogError::from)?,
        };
        let insert = match &mut self.state.insert {
            Some(insert) => insert,
            none => none.insert(self.conn.prepare_one(log::INSERT)?),
        };
        chunk.bind(insert)?;
        let inserted = insert.execute();
        insert.clear_bindings();
        inserted?;
        self.state.waiting.clear();
        Ok(())
    }

    /// Adds a change to those that wait.
    pub(super) fn wait(&mut self, kind: ChangeKind, back: u32) -> Result<()> {
        let Head { id, time, back } = self.head((self.now(), back))?;
        let change = Change { id, time, back, kind };
        self.state.waiting.add(&change).map_err(log::LogError::from)?;
        self.waits()
    }

    /// Adds the change of a row whose operation is in bytes, made at this time, so far behind the first of its unit.
    pub(super) fn wait_row(
        &mut self,
        table: &Arc<Table>,
        number: u8,
        op: &[u8],
        cause: Cause,
        when: (i64, u32),
    ) -> Result<()> {
        let head = self.head(when)?;
        self.state.waiting.add_row(head, table, number, op, cause);
        self.waits()
    }

    /// In seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        (self.shared.options.clock)()
    }

    fn head(&mut self, (time, back): (i64, u32)) -> Result<Head> {
        let id = self.look_at_log()?;
        if self.state.waiting.count() == 0 {
            self.state.waiting_since = time;
        }
        Ok(Head {
            id: ChangeId(id),
            time,
            back,
        })
    }

    /// One change more waits: what is rolled back before it is written has used no number, for the next one is asked for again.
    fn waits(&mut self) -> Result<()> {
        self.state.next_id = self.state.next_id.map(|next| next + 1);
        match self.state.waiting.bytes() < CHUNK_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }
}
