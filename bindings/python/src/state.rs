//! The statements of a connection: those that are kept compiled, and those whose rows are being read.
//!
//! All of it is used by who has the turn of [`Core`](crate::core::Core), and what may wait or do I/O is called without the
//! GIL.
//!
//! A query is stepped to the row after the one that is handed out where that costs no request: on a local database as the
//! standard library does it, and on a replica where nothing is left to read. So a query whose rows have all been handed out
//! has ended, and holds no snapshot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use partial_sync::{Connection as EngineConnection, Error as EngineError};
use partial_sync_vfs::sqlite::{self, codes};
use pyo3::prelude::*;

use crate::{
    cache::{Cache, Prepared},
    callbacks::Callbacks,
    columns::Columns,
    errors::ProgrammingError,
    rows::Rows,
    waits,
};

/// Bytes that are read ahead at most before the GIL is taken to make Python objects of them.
const AHEAD_BYTES: usize = 256 << 10;

/// What is behind the lock.
pub(crate) struct State {
    // Statements go before the connection.
    runs: Vec<Option<Run>>,
    cache: Cache,
    pub(crate) connection: EngineConnection,
    /// How long a statement, or the reading of its next rows, may take.
    pub(crate) query_timeout: Option<Duration>,
    /// Rows read ahead by the call that is under way.
    pub(crate) ahead: Rows,
    /// The row after the one that is handed out is computed along with it: nothing needs the network.
    is_local: bool,
    callbacks: Arc<Callbacks>,
    interrupts: Arc<AtomicU64>,
    /// A transaction was begun for the statement that comes next.
    has_begun: bool,
    /// How often the connection had been interrupted when the call that is under way began.
    pub(crate) interrupts_before: u64,
}

/// Names a [`Run`] of a connection.
pub(crate) type RunId = usize;

/// An execution whose rows are still being read.
struct Run {
    prepared: Prepared,
    left: Left,
}

/// What is left to read.
struct Left {
    /// The statement stands on a row that was not handed out.
    on_row: bool,
    /// Rows to hand out before that one: those of a statement that writes, which is run to its end at once, and those that
    /// were read ahead and could not be made objects of.
    kept: Rows,
    /// Nothing is left to step.
    ended: bool,
    /// Computing the next row along with this one costs no request.
    looks_ahead: bool,
}

impl Run {
    /// Stands on the next row, if there is one.
    fn step(&mut self, callbacks: &Callbacks) -> Result<bool, EngineError> {
        if self.left.ended {
            return Ok(false);
        }
        if !self.left.on_row {
            // After an error as after the end: another step would start over.
            let stepped = self.prepared.step(callbacks);
            self.left.on_row = *stepped.as_ref().unwrap_or(&false);
            if !self.left.on_row {
                let _ = self.prepared.statement.reset();
                self.left.ended = true;
            }
            stepped?;
        }
        Ok(self.left.on_row)
    }
}

impl Prepared {
    /// Steps; a row that was found by a collation that raised is none.
    fn step(&mut self, callbacks: &Callbacks) -> Result<bool, EngineError> {
        let stepped = self.statement.step()?;
        match callbacks.is_disordered() {
            true => Err(disordered()),
            false => Ok(stepped),
        }
    }
}

fn disordered() -> EngineError {
    sqlite::Error::new(codes::ERROR, "user-defined collation raised exception").into()
}

/// What an execution gave.
pub(crate) struct Executed {
    pub run: Option<RunId>,
    pub columns: Arc<Columns>,
    /// Rows changed; -1 when it is not an INSERT, UPDATE, DELETE or REPLACE.
    pub changed: i64,
    pub last_rowid: i64,
}

/// Where the next row is.
pub(crate) enum Next<'s> {
    /// The statement stands on it.
    Here(&'s partial_sync::Statement),
    /// It was kept.
    Kept(&'s Rows),
    /// The end.
    None,
}

impl State {
    pub(crate) fn new(
        connection: EngineConnection,
        statements: usize,
        is_local: bool,
        callbacks: Arc<Callbacks>,
        interrupts: Arc<AtomicU64>,
    ) -> Self {
        Self {
            is_local,
            callbacks,
            interrupts_before: 0,
            has_begun: false,
            interrupts,
            runs: Vec::new(),
            cache: Cache::new(statements),
            connection,
            query_timeout: None,
            ahead: Rows::default(),
        }
    }

    /// A call begins: what earlier ones left behind is not its own.
    pub(crate) fn begin_call(&mut self) {
        self.interrupts_before = self.interrupts.load(Ordering::Relaxed);
        if self.callbacks.take_disordered() {
            drop(self.callbacks.take_raised());
        }
    }

    /// Fails when the connection was interrupted since the call began: SQLite forgets that between two statements.
    pub(crate) fn check_interrupted(&self) -> Result<(), EngineError> {
        match self.interrupts.load(Ordering::Relaxed) == self.interrupts_before {
            true => Ok(()),
            false => Err(sqlite::Error::new(codes::INTERRUPT, "interrupted").into()),
        }
    }

    /// The statement with this text; `None` for text without one.
    pub(crate) fn prepare(&mut self, py: Python<'_>, sql: &str) -> PyResult<Option<Prepared>> {
        if let Some(prepared) = self.cache.take(sql) {
            return Ok(Some(prepared));
        }
        let (statement, tail) =
            waits::detached(py, || self.timed(|state| state.connection.prepare_first(sql)))?;
        if statement.is_some() && tail < sql.len() {
            return Err(ProgrammingError::new_err(
                "You can only execute one statement at a time.",
            ));
        }
        Ok(statement.map(|statement| Prepared::new(statement, sql)))
    }

    /// Takes a statement back that was not executed.
    pub(crate) fn give_back(&mut self, prepared: Prepared) {
        self.cache.put(prepared);
    }

    /// Does something for which there is no more time than the query timeout, and in the middle of a request of the same
    /// database none to wait at all.
    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, EngineError>) -> Result<T, EngineError> {
        if self.callbacks.is_waited_for() {
            let connection = self.connection.clone();
            return connection.without_waiting(u32::MAX, || work(self));
        }
        let connection = self.connection.clone();
        connection.within(self.query_timeout, || work(self))
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self, begin: &str) -> Result<(), EngineError> {
        self.timed(|state| state.run(begin))?;
        self.has_begun = true;
        Ok(())
    }

    /// Runs a statement: to its first row when it reads, else to its end. It stays compiled, also when it fails.
    pub(crate) fn execute(&mut self, mut prepared: Prepared) -> Result<Executed, EngineError> {
        let is_first = std::mem::take(&mut self.has_begun);
        let executed = self.timed(|state| {
            state.check_interrupted()?;
            state.execute_now(&mut prepared)
        });
        let executed = match executed {
            Ok((executed, Some(left))) => Ok(Executed {
                run: Some(self.keep(prepared, left)),
                ..executed
            }),
            Ok((executed, None)) => {
                self.cache.put(prepared);
                Ok(executed)
            }
            Err(error) => {
                // Says once more what it failed with.
                let _ = prepared.statement.reset();
                if !is_schema_error(&error) {
                    self.cache.put(prepared);
                }
                Err(error)
            }
        };
        // Of a transaction that was begun for this statement the error says all.
        if is_first && executed.is_err() {
            self.connection.end_lost_transaction();
        }
        self.end_rolled_back(executed)
    }

    /// A conflict clause that says ROLLBACK ends the transaction, as it does in the standard library.
    fn end_rolled_back<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        if matches!(&result, Err(EngineError::Sqlite(e)) if e.code() == codes::CONSTRAINT) {
            self.connection.end_lost_transaction();
        }
        result
    }

    /// What a statement did, and what is left of it to read.
    fn execute_now(&mut self, prepared: &mut Prepared) -> Result<(Executed, Option<Left>), EngineError> {
        let (left, changed) = if prepared.reads {
            let left = if prepared.step(&self.callbacks)? {
                Some(Left {
                    on_row: true,
                    kept: Rows::default(),
                    ended: false,
                    looks_ahead: self.is_local || prepared.ends_after_a_row(&self.connection)?,
                })
            } else {
                prepared.statement.reset()?;
                None
            };
            (left, -1)
        } else {
            let before = self.connection.total_changes();
            let rows = self.in_order(prepared)?;
            let changed = match (prepared.is_dml, self.connection.total_changes() != before) {
                (false, _) => -1,
                (true, false) => 0,
                (true, true) => i64::try_from(self.connection.changes()).unwrap_or(i64::MAX),
            };
            let left = (rows.remaining() > 0).then_some(Left {
                on_row: false,
                kept: rows,
                ended: true,
                looks_ahead: false,
            });
            (left, changed)
        };
        let executed = Executed {
            run: None,
            columns: prepared.columns()?,
            changed,
            last_rowid: self.connection.last_insert_rowid(),
        };
        Ok((executed, left))
    }

    /// Runs a statement without parameters and rows, such as `COMMIT`.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), EngineError> {
        let mut prepared = match self.cache.take(sql) {
            Some(prepared) => prepared,
            None => Prepared::new(self.connection.prepare(sql)?, sql),
        };
        while prepared.statement.step()? {}
        prepared.statement.reset()?;
        self.cache.put(prepared);
        Ok(())
    }

    /// Runs a statement that writes to its end. What it did is undone where a collation has raised meanwhile: it would be in
    /// no order.
    fn in_order(&mut self, prepared: &mut Prepared) -> Result<Rows, EngineError> {
        const SAVEPOINT: &str = "SAVEPOINT turso_in_order";
        const RELEASE: &str = "RELEASE turso_in_order";
        const NAME: &str = "turso_in_order";
        if !self.callbacks.has_collations() || !prepared.can_be_undone {
            return self.drain(prepared);
        }
        let commits = self.connection.is_autocommit();
        let changes = self.connection.total_changes();
        self.run(SAVEPOINT)?;
        let rows = self.drain(prepared);
        let disorder = self.callbacks.is_disordered();
        // Only a conflict clause that says FAIL leaves something behind.
        let is_undone = rows.is_err() && self.connection.total_changes() == changes;
        let ended = if self.connection.is_autocommit() || commits && (is_undone || disorder) {
            // The statement has rolled all back, or all is rolled back below.
            Ok(())
        } else if disorder {
            self.connection.undo_after(NAME);
            Ok(())
        } else {
            // What has failed is not there.
            let released = self.run(RELEASE);
            if released.is_err() && !commits {
                self.connection.undo_after(NAME);
            }
            released
        };
        if commits {
            self.connection.undo_transaction();
        }
        if disorder {
            return Err(disordered());
        }
        match commits {
            // What FAIL leaves behind is gone where it could not be committed, which is the error then.
            true => ended.and(rows),
            false => rows.and_then(|rows| ended.map(|()| rows)),
        }
    }

    fn drain(&mut self, prepared: &mut Prepared) -> Result<Rows, EngineError> {
        let mut rows = Rows::default();
        rows.clear(prepared.statement.column_count());
        while prepared.statement.step()? {
            rows.push(&prepared.statement)?;
        }
        prepared.statement.reset()?;
        Ok(rows)
    }

    /// Steps to the next row of a run where that is needed to know whether there is one.
    pub(crate) fn step(&mut self, run: RunId) -> Result<(), EngineError> {
        self.timed(|state| match state.runs.get_mut(run).and_then(Option::as_mut) {
            Some(run) => run.step(&state.callbacks).map(drop),
            None => Ok(()),
        })
    }

    /// Whether the next row of a run, or that there is none, is known without a step.
    pub(crate) fn is_next_known(&self, run: RunId) -> bool {
        self.runs
            .get(run)
            .and_then(Option::as_ref)
            .is_none_or(|Run { left, .. }| left.on_row || left.ended || left.kept.remaining() > 0)
    }

    /// Where the next row of a run is; after [`Self::step`].
    pub(crate) fn next(&self, run: RunId) -> Next<'_> {
        match self.runs.get(run) {
            Some(Some(Run { left, .. })) if left.kept.remaining() > 0 => Next::Kept(&left.kept),
            Some(Some(Run { prepared, left })) if left.on_row => Next::Here(&prepared.statement),
            _ => Next::None,
        }
    }

    /// The row that [`Self::next`] gave was read. True: the next one is to be computed along with it.
    pub(crate) fn advance(&mut self, run: RunId) -> bool {
        let Some(run) = self.runs.get_mut(run).and_then(Option::as_mut) else {
            return false;
        };
        if run.left.kept.remaining() > 0 {
            run.left.kept.advance();
        } else {
            run.left.on_row = false;
        }
        run.left.looks_ahead
    }

    /// Copies the next rows, at most `most`, into [`Self::ahead`].
    pub(crate) fn read_ahead(&mut self, run: RunId, most: usize) -> Result<(), EngineError> {
        self.timed(|state| state.read_ahead_now(run, most))
    }

    fn read_ahead_now(&mut self, run: RunId, most: usize) -> Result<(), EngineError> {
        let Some(run) = self.runs.get_mut(run).and_then(Option::as_mut) else {
            return Ok(());
        };
        let _held = self.connection.hold();
        self.ahead.clear(run.prepared.statement.column_count());
        if run.left.kept.remaining() > 0 {
            // These go before, one by one.
            return Ok(());
        }
        for _ in 0..most {
            if !run.step(&self.callbacks)? {
                break;
            }
            self.ahead.push(&run.prepared.statement)?;
            run.left.on_row = false;
            if self.ahead.byte_len() > AHEAD_BYTES {
                break;
            }
        }
        if run.left.looks_ahead {
            run.step(&self.callbacks)?;
        }
        Ok(())
    }

    /// Rows that [`Self::read_ahead`] gave could not be handed out.
    pub(crate) fn put_back(&mut self, run: RunId, rows: Rows) {
        if let Some(run) = self.runs.get_mut(run).and_then(Option::as_mut) {
            run.left.kept = rows;
        }
    }

    fn keep(&mut self, prepared: Prepared, left: Left) -> RunId {
        let run = Run { prepared, left };
        match self.runs.iter().position(Option::is_none) {
            Some(free) => {
                self.runs[free] = Some(run);
                free
            }
            None => {
                self.runs.push(Some(run));
                self.runs.len() - 1
            }
        }
    }

    /// Ends a run and gives its statement back.
    pub(crate) fn end(&mut self, run: RunId) {
        if let Some(mut run) = self.runs.get_mut(run).and_then(Option::take) {
            // What a statement has written is committed, or has failed, before its first row.
            let _ = run.prepared.statement.reset();
            self.cache.put(run.prepared);
        }
    }

    /// Runs every statement of a script.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), EngineError> {
        self.timed(|state| {
            let mut rest = sql;
            // An empty script, too, is told of an interrupt that lasts.
            loop {
                let (statement, tail) = state.prepare_next_now(rest)?;
                if let Some(prepared) = statement {
                    state.run_next_now(prepared)?;
                }
                rest = &rest[tail..];
                if rest.is_empty() {
                    return Ok(());
                }
            }
        })
    }

    /// The next statement of a script, and where the rest begins.
    pub(crate) fn prepare_next(&mut self, rest: &str) -> Result<(Option<Prepared>, usize), EngineError> {
        self.timed(|state| state.prepare_next_now(rest))
    }

    /// Runs a statement of a script.
    pub(crate) fn run_next(&mut self, prepared: Prepared) -> Result<(), EngineError> {
        self.timed(|state| state.run_next_now(prepared))
    }

    fn prepare_next_now(&mut self, rest: &str) -> Result<(Option<Prepared>, usize), EngineError> {
        self.check_interrupted()?;
        let (statement, tail) = self.connection.prepare_first(rest)?;
        Ok((
            statement.map(|statement| Prepared::new(statement, &rest[..tail])),
            tail,
        ))
    }

    fn run_next_now(&mut self, mut prepared: Prepared) -> Result<(), EngineError> {
        if prepared.reads {
            while prepared.step(&self.callbacks)? {}
            return Ok(());
        }
        let done = self.in_order(&mut prepared).map(drop);
        self.end_rolled_back(done)
    }
}

/// Whether a statement has to be prepared again.
pub(crate) fn is_schema_error(error: &EngineError) -> bool {
    matches!(error, EngineError::Sqlite(e) if e.code() == codes::SCHEMA)
}
