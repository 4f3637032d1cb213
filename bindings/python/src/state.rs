//! The statements of a connection: those that are kept compiled, and those whose rows are being read.
//!
//! All of it is behind the lock of [`Core`](crate::core::Core), and what may wait or do I/O is called without the GIL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync::{Connection as EngineConnection, Error as EngineError};
use partial_sync_vfs::sqlite::codes;
use pyo3::prelude::*;

use crate::{
    cache::{Cache, Prepared},
    columns::Columns,
    errors::{self, ProgrammingError},
    rows::Rows,
    sql_text,
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
}

/// Names a [`Run`] of a connection.
pub(crate) type RunId = usize;

/// An execution whose rows are still being read.
struct Run {
    prepared: Prepared,
    /// The statement stands on a row that was not handed out.
    on_row: bool,
    /// The rows that are left, once nothing is left to step: of a statement that writes, which is run to its end at once,
    /// and none of one that has ended.
    kept: Option<Rows>,
    /// What looking for another row failed with.
    failed: Option<EngineError>,
}

impl Run {
    /// Stands on the next row, if there is one.
    fn step(&mut self) -> Result<bool, EngineError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.kept.is_some() {
            return Ok(false);
        }
        if !self.on_row {
            // After an error as after the end: another step would begin anew.
            let stepped = self.prepared.statement.step();
            self.on_row = *stepped.as_ref().unwrap_or(&false);
            if !self.on_row {
                self.prepared.statement.reset();
                self.kept = Some(Rows::default());
            }
            stepped?;
        }
        Ok(self.on_row)
    }
}

/// What an execution gave.
pub(crate) struct Executed {
    pub run: Option<RunId>,
    pub columns: Arc<Columns>,
    /// Rows changed; -1 when it is no INSERT, UPDATE, DELETE or REPLACE.
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
    pub(crate) fn new(connection: EngineConnection, statements: usize) -> Self {
        Self {
            runs: Vec::new(),
            cache: Cache::new(statements),
            connection,
            query_timeout: None,
            ahead: Rows::default(),
        }
    }

    /// The statement with this text; `None` for text without one.
    pub(crate) fn prepare(&mut self, py: Python<'_>, sql: &str) -> PyResult<Option<Prepared>> {
        if let Some(prepared) = self.cache.take(sql) {
            return Ok(Some(prepared));
        }
        let (statement, tail) = py
            .detach(|| self.connection.prepare_first(sql))
            .map_err(|error| errors::raise(py, error))?;
        if statement.is_some() && !sql_text::is_blank(&sql[tail..]) {
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

    /// Does something for which there is no more time than the query timeout.
    fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let Some(timeout) = self.query_timeout else {
            return work(self);
        };
        self.connection.set_deadline(Some(Instant::now() + timeout))?;
        let result = work(self);
        self.connection.set_deadline(None)?;
        result
    }

    /// Runs a statement: to its first row when it reads, else to its end. `begin`: first begins a transaction so.
    pub(crate) fn execute(
        &mut self,
        prepared: Prepared,
        begin: Option<&str>,
    ) -> Result<Executed, EngineError> {
        self.look_ahead();
        self.timed(|state| state.execute_now(prepared, begin))
    }

    fn execute_now(&mut self, mut prepared: Prepared, begin: Option<&str>) -> Result<Executed, EngineError> {
        if let Some(begin) = begin {
            self.run(begin)?;
        }
        if prepared.reads {
            let on_row = prepared.statement.step()?;
            let columns = prepared.columns()?;
            let last_rowid = self.connection.last_insert_rowid();
            let run = if on_row {
                Some(self.keep(Run {
                    prepared,
                    on_row,
                    kept: None,
                    failed: None,
                }))
            } else {
                prepared.statement.reset();
                self.cache.put(prepared);
                None
            };
            return Ok(Executed {
                run,
                columns,
                changed: -1,
                last_rowid,
            });
        }
        let before = self.connection.total_changes();
        let mut rows = Rows::default();
        rows.clear(prepared.statement.column_count());
        while prepared.statement.step()? {
            rows.push(&prepared.statement)?;
        }
        prepared.statement.reset();
        let changed = match (prepared.is_dml, self.connection.total_changes() != before) {
            (false, _) => -1,
            (true, false) => 0,
            (true, true) => i64::try_from(self.connection.changes()).unwrap_or(i64::MAX),
        };
        let columns = prepared.columns()?;
        let last_rowid = self.connection.last_insert_rowid();
        let run = if rows.remaining() > 0 {
            Some(self.keep(Run {
                prepared,
                on_row: false,
                kept: Some(rows),
                failed: None,
            }))
        } else {
            self.cache.put(prepared);
            None
        };
        Ok(Executed {
            run,
            columns,
            changed,
            last_rowid,
        })
    }

    /// Runs a statement without parameters and rows, such as `COMMIT`.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), EngineError> {
        let mut prepared = match self.cache.take(sql) {
            Some(prepared) => prepared,
            None => Prepared::new(self.connection.prepare(sql)?, sql),
        };
        while prepared.statement.step()? {}
        prepared.statement.reset();
        self.cache.put(prepared);
        Ok(())
    }

    /// A query of which one row was read may be at its end without knowing it, and would keep its snapshot. Before
    /// anything else happens on the connection such queries look whether there is another row.
    pub(crate) fn look_ahead(&mut self) {
        for run in self.runs.iter_mut().flatten() {
            if run.failed.is_none() {
                run.failed = run.step().err();
            }
        }
    }

    /// Steps to the next row of a run where that is needed to know whether there is one.
    pub(crate) fn step(&mut self, run: RunId) -> Result<(), EngineError> {
        self.timed(|state| match state.runs.get_mut(run).and_then(Option::as_mut) {
            Some(run) => run.step().map(drop),
            None => Ok(()),
        })
    }

    /// Whether the next row of a run, or that there is none, is known without a step.
    pub(crate) fn is_next_known(&self, run: RunId) -> bool {
        self.runs
            .get(run)
            .and_then(Option::as_ref)
            .is_none_or(|run| run.failed.is_none() && (run.on_row || run.kept.is_some()))
    }

    /// Where the next row of a run is; after [`Self::step`].
    pub(crate) fn next(&self, run: RunId) -> Next<'_> {
        match self.runs.get(run) {
            Some(Some(Run { kept: Some(kept), .. })) if kept.remaining() > 0 => Next::Kept(kept),
            Some(Some(run)) if run.on_row => Next::Here(&run.prepared.statement),
            _ => Next::None,
        }
    }

    /// The row that [`Self::next`] gave was read.
    pub(crate) fn advance(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(run).and_then(Option::as_mut) {
            run.on_row = false;
            if let Some(kept) = &mut run.kept {
                kept.advance();
            }
        }
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
        for _ in 0..most {
            if !run.step()? {
                break;
            }
            self.ahead.push(&run.prepared.statement)?;
            run.on_row = false;
            if self.ahead.byte_len() > AHEAD_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn keep(&mut self, run: Run) -> RunId {
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
            run.prepared.statement.reset();
            self.cache.put(run.prepared);
        }
    }

    /// Runs every statement of a script.
    pub(crate) fn script(&mut self, sql: &str) -> Result<(), EngineError> {
        self.look_ahead();
        self.timed(|state| state.connection.execute_batch(sql))
    }
}

/// Whether a statement has to be prepared again.
pub(crate) fn is_schema_error(error: &EngineError) -> bool {
    matches!(error, EngineError::Sqlite(e) if e.code() == codes::SCHEMA)
}
