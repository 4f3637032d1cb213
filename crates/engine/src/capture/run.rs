//! Runs one statement so that what it changes and the record of it commit or vanish together.

use std::{
    cell::RefCell,
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use partial_sync_vfs::sqlite::{self, Conn, Stmt, TxnState, codes};

use super::{
    arguments::Arguments,
    classify::{self, Ddl, Target, WriteOp, internal},
    failed,
    hook::Seen,
    state::{RecorderState, Shared},
};
use crate::{
    change::Table,
    error::{Error, Result},
    sql::kept::Kept,
};

/// Changes wait in memory, inside an explicit transaction, until they hold this many bytes.
const WAITING_BYTES: usize = 64 << 10;

/// The statement whose rows are recorded.
pub(super) struct RecordedStatement<'s> {
    pub sql: &'s str,
    pub targets: &'s [Target],
    pub arguments: &'s Arguments,
    /// 1 for a statement on a view.
    pub base: u32,
    /// It failed, and what it did before stays.
    pub failed: bool,
    pub keys: KeysGiven,
}

/// Of which tables it is known whether SQLite gave the rows that a statement added their keys. It is the same for all of them.
#[derive(Default)]
pub(super) struct KeysGiven(RefCell<Vec<(Arc<Table>, bool, bool)>>);

impl KeysGiven {
    /// Of the rows that the statement `itself` added, or others.
    pub(super) fn get(&self, table: &Arc<Table>, itself: bool) -> Option<bool> {
        let known = self.0.borrow();
        let is_it = |(of, by_itself, _): &&(_, bool, _)| Arc::ptr_eq(of, table) && *by_itself == itself;
        known.iter().find(is_it).map(|(_, _, given)| *given)
    }

    pub(super) fn note(&self, table: &Arc<Table>, itself: bool, given: bool) {
        self.0.borrow_mut().push((table.clone(), itself, given));
    }
}

impl RecordedStatement<'_> {
    /// Whether the statement itself, not a trigger, inserts into `table`.
    pub(super) fn inserts_itself(&self, table: &str) -> bool {
        self.targets.iter().any(|t| {
            t.main && t.trigger.is_none() && t.op == WriteOp::Insert && t.table.eq_ignore_ascii_case(table)
        })
    }

    /// Whether the statement itself sets this column.
    pub(super) fn updates(&self, table: &str, column: &str) -> bool {
        self.targets.iter().any(|t| {
            t.trigger.is_none()
                && t.table.eq_ignore_ascii_case(table)
                && t.column
                    .as_deref()
                    .is_some_and(|c| c.eq_ignore_ascii_case(column))
        })
    }

    /// The triggers whose programs may have run.
    pub(super) fn triggers(&self) -> HashSet<&str> {
        self.targets.iter().filter_map(|t| t.trigger.as_deref()).collect()
    }
}

/// One recorded run, with everything at hand.
pub(super) struct Recording<'r> {
    pub conn: &'r Conn,
    pub shared: &'r Shared,
    pub state: &'r mut RecorderState,
}

impl Recording<'_> {
    /// Forgets what belongs to the transaction, which is over.
    pub(super) fn forget(&mut self) {
        self.forget_waiting();
        self.state.txn = None;
    }

    /// Forgets what is not in the log yet, and what was known of the log: part of it may have been rolled back.
    pub(super) fn forget_waiting(&mut self) {
        self.state.waiting.clear();
        self.state.next_id = None;
    }

    pub(super) fn write(
        &mut self,
        stmt: &mut Stmt,
        targets: &mut Vec<Target>,
        ddl: Option<&Ddl>,
        arguments: &Arguments,
    ) -> Result<Kept> {
        let ours = self.conn.is_autocommit();
        let counters = &self.shared.counters;
        if ours {
            internal(|| self.state.begin.execute()).inspect_err(|_| counters.keep(self.conn, 0))?;
        }
        // So that nothing is left of a statement of which it is not known whether SQLite undid it.
        let has_triggers = |targets: &[Target]| targets.iter().any(|t| t.trigger.is_some());
        let guarded = !ours && has_triggers(targets);
        if guarded {
            self.batch("SAVEPOINT partial_sync_statement")?;
        }
        let before = match ddl {
            // Asking takes a snapshot, which must not be older than the write lock.
            Some(ddl) if self.conn.txn_state() == TxnState::Write => {
                let asked = self.number(ddl);
                if ours && asked.is_err() {
                    self.undo_transaction();
                }
                Some(asked?)
            }
            _ => None,
        };
        self.shared.buffer.lock().start();
        let compiled = stmt.reprepares();
        let (outcome, observed) = classify::observe(|| Kept::drain(stmt));
        if compiled != stmt.reprepares() {
            // What it writes now, and when it is run again: triggers may have come, or gone.
            *targets = observed.into_targets();
        }
        let changed = self.conn.changes();
        let total = counters.total_changes(self.conn);
        let (shown, counted) = match ddl {
            Some(_) => (counters.changes(self.conn), 0),
            None => (changed, changed),
        };
        let mut seen = self.shared.buffer.lock().finish();
        let nothing_seen = seen.as_ref().map_or(true, Seen::is_empty);
        if self.conn.is_autocommit() {
            // The transaction is gone: OR ROLLBACK, a full disk, an interrupt.
            return outcome.and_then(|_| Err(lost_transaction()));
        }
        let left = match &outcome {
            Ok(_) => Some(true),
            Err(_) if nothing_seen || ddl.is_some() => Some(false),
            // SQLite answers 0 unless it keeps what the statement itself did.
            Err(_) if changed > 0 => Some(true),
            Err(error) if self.is_undone(error, ours, guarded) => Some(false),
            Err(_) => match &mut seen {
                Ok(seen) => failed::left_behind(self.conn, seen, has_triggers(targets)).unwrap_or(None),
                Err(_) => None,
            },
        };
        let kept = left == Some(true);
        if left.is_none() && !ours && !guarded {
            self.undo_transaction();
            return outcome;
        }
        let recorded = match &mut seen {
            Ok(seen) if kept && ddl.is_none() => match self.record_by_plan(stmt, seen, targets, arguments) {
                Ok(true) => Ok(()),
                Ok(false) => self.record_write(stmt, seen, targets, arguments, outcome.is_err()),
                Err(error) => Err(error),
            },
            Ok(seen) if kept => match ddl {
                Some(ddl) => self.record_ddl(stmt, seen, ddl, before),
                None => Ok(()),
            },
            _ => Ok(()),
        };
        let recorded = seen.and_then(|seen| {
            self.shared.buffer.lock().reuse(seen);
            recorded
        });
        if let Err(error) = recorded {
            // What cannot be recorded must not commit.
            self.undo_transaction();
            return Err(error);
        }
        if guarded {
            let undone = match kept {
                true => Ok(()),
                false => self.batch("ROLLBACK TO partial_sync_statement"),
            };
            if let Err(error) = undone.and_then(|()| self.batch("RELEASE partial_sync_statement")) {
                self.undo_transaction();
                return Err(error);
            }
        }
        let finished = if ours && kept {
            self.flush()
                .and_then(|()| Ok(internal(|| self.state.commit.execute())?))
        } else if self.state.waiting.bytes() > WAITING_BYTES {
            self.flush()
        } else {
            Ok(())
        };
        if finished.is_err() || ours && !kept {
            self.undo_transaction();
        }
        match &finished {
            Err(_) if ours => counters.undone(self.conn, total.saturating_sub(counted)),
            // Virtual tables write more when they are read, and at a commit.
            _ => counters.keep(self.conn, shown),
        }
        finished.and(outcome)
    }

    /// Whether nothing may stay of a statement that failed with this and of whose own changes SQLite counts none. Outside of a
    /// transaction only what fails with FAIL leaves something. In one, what SQLite has done stays also where it did not foresee
    /// that the statement may fail, unless there is a savepoint to go back to.
    fn is_undone(&self, error: &Error, ours: bool, guarded: bool) -> bool {
        match error {
            Error::Sqlite(e) if e.code() == codes::CONSTRAINT => {
                ours && e.extended_code() == codes::CONSTRAINT_DATATYPE
            }
            _ => ours || guarded,
        }
    }

    /// Rolls back the transaction, whatever state it is in.
    fn undo_transaction(&mut self) {
        if !self.conn.is_autocommit() {
            let _ = internal(|| self.state.rollback.execute());
        }
        if !self.conn.is_autocommit() {
            // It was interrupted. When a statement that writes is, SQLite rolls back by itself; this one is compiled.
            let _ = internal(|| self.state.begin.execute());
        }
        let is_left = !self.conn.is_autocommit();
        self.shared.is_left.store(is_left, Ordering::Relaxed);
        self.forget();
    }

    pub(super) fn batch(&self, sql: &str) -> Result<()> {
        Ok(internal(|| self.conn.execute_batch(sql))?)
    }
}

pub(super) fn lost_transaction() -> Error {
    sqlite::Error::new(codes::ABORT, "the transaction was rolled back").into()
}
