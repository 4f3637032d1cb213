//! Writes waiting changes to the log table, inside the transaction that made them and unseen by the user.

use std::sync::atomic::Ordering;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::{self, ValueRef};
use rusqlite::config::DbConfig;

use super::{classify::internal, run::Recording};
use crate::{
    change::{Change, ChangeKind, Mode, Value, codec},
    error::Result,
    log,
};

/// A chunk of the log is closed when the changes in it hold this many bytes.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

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
        if self.state.waiting.is_empty() {
            return Ok(());
        }
        let counters = &self.shared.counters;
        let (seen, rowid) = (counters.changes(self.conn), self.conn.last_insert_rowid());
        let before = self.conn.total_changes();
        let written = internal(|| self.write_waiting());
        self.conn.set_last_insert_rowid(rowid);
        let after = self.conn.total_changes();
        counters.hidden.fetch_add(after - before, Ordering::Relaxed);
        counters.changes.store(seen, Ordering::Relaxed);
        counters.total_after.store(after, Ordering::Relaxed);
        counters
            .changes_after
            .store(self.conn.changes(), Ordering::Relaxed);
        written
    }

    fn write_waiting(&mut self) -> Result<()> {
        self.look_at_log()?;
        let mut waiting = std::mem::take(&mut self.state.waiting);
        let mut written = 0;
        let mut outcome = Ok(());
        while written < waiting.len() && outcome.is_ok() {
            let mut bytes = 0;
            let count = waiting[written..]
                .iter()
                .take_while(|change| {
                    let more = bytes < CHUNK_BYTES;
                    bytes += size(&change.kind);
                    more
                })
                .count();
            outcome = self.write_chunk(&mut waiting[written..written + count]);
            if outcome.is_ok() {
                written += count;
            }
        }
        // After a failure the rest waits on, in case the transaction is still there to be committed.
        waiting.drain(..written);
        self.state.waiting_bytes = waiting.iter().map(|change| size(&change.kind)).sum();
        self.state.waiting = waiting;
        outcome
    }

    /// Whether foreign keys are enforced cannot change within a transaction.
    fn mode(&self) -> Result<Mode> {
        let enforced = DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY;
        Ok(match self.conn.with_rusqlite(|c| c.db_config(enforced))? {
            true => Mode::Enforced,
            false => Mode::Rows,
        })
    }

    fn write_chunk(&mut self, changes: &mut [Change]) -> Result<()> {
        let first = self.look_at_log()?;
        let mut next = first;
        for change in &mut *changes {
            change.id = ChangeId(next);
            next += 1;
        }
        let chunk = log::Chunk {
            first: ChangeId(first),
            last: ChangeId(next - 1),
            txn: ChangeId(*self.state.txn.get_or_insert(first)),
            time: changes.first().map_or(0, |change| change.time),
            count: changes.len() as u64,
            body: codec::encode_in(self.mode()?, changes).map_err(log::LogError::from)?,
        };
        let insert = match &mut self.state.insert {
            Some(insert) => insert,
            none => none.insert(self.conn.prepare_one(log::INSERT)?),
        };
        chunk.bind(insert)?;
        let inserted = insert.execute();
        insert.clear_bindings();
        inserted?;
        self.state.next_id = Some(next);
        Ok(())
    }
}

/// How much memory and log a change takes, about.
pub(super) fn size(kind: &ChangeKind) -> usize {
    let values = |values: &[Value]| values.iter().map(Value::size).sum::<usize>();
    16 + match kind {
        ChangeKind::Row { op, .. } => {
            let (before, after) = op.images();
            before.into_iter().chain(after).map(|row| values(row)).sum()
        }
        ChangeKind::Statement(statement) => {
            statement.sql.len()
                + values(&statement.args)
                + statement
                    .named
                    .iter()
                    .map(|(name, value)| name.len() + value.size())
                    .sum::<usize>()
        }
    }
}
