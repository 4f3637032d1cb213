//! What a connection is below Python: the engine's connection, its statements, and the lock under which threads take
//! turns.
//!
//! Two rules keep threads from waiting for each other forever. Nobody waits for the lock with the GIL. And nothing that
//! may wait or do I/O (preparing, stepping and resetting statements, committing, closing) is called with the GIL: a wait
//! of the engine looks for signals, which needs it.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use partial_sync::{CancelHandle, Connection as EngineConnection, Database, Error as EngineError};
use partial_sync_vfs::sqlite::{InterruptHandle, codes};
use pyo3::prelude::*;
use std::sync::Arc;

use crate::{
    cache::{Cache, Prepared},
    columns::Columns,
    errors::{self, ProgrammingError},
    rows::Rows,
    signals, sql_text,
};

/// How often a thread that waits for its turn looks for signals.
const SIGNAL_POLL: Duration = Duration::from_millis(20);
/// How long closing a replica lets pages arrive that are on their way.
const SETTLE: Duration = Duration::from_millis(200);
/// Bytes that are read ahead at most before the GIL is taken to make Python objects of them.
const AHEAD_BYTES: usize = 256 << 10;

/// How often this process was forked, seen from the newest child.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Of which of these processes the threads are that the engine makes requests with; -1: there are none yet.
static ENGINE: AtomicI64 = AtomicI64::new(-1);

/// Called in a child process after a fork.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Fails in a process that was forked from one that had replicas: it has the sockets of the engine's threads, but not the
/// threads, and using them would disturb the parent.
pub(crate) fn check_engine_is_of_this_process() -> PyResult<()> {
    let here = i64::from(FORKS.load(Ordering::Relaxed));
    match ENGINE.compare_exchange(-1, here, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(there) if there == here => Ok(()),
        Err(_) => Err(ProgrammingError::new_err(
            "replicas were used before os.fork(), so this child process cannot: start it with multiprocessing's \"spawn\" \
             or \"forkserver\", or open replicas after the fork only",
        )),
    }
}

/// A connection, shared by the Python object and its cursors.
pub(crate) struct Core {
    /// `None` once closed.
    state: Mutex<Option<State>>,
    /// The thread that holds the lock.
    owner: AtomicUsize,
    /// Of which process it is.
    forks: u32,
    /// Runs whose cursors went away while another thread held the lock.
    abandoned: Mutex<Vec<RunId>>,
    any_abandoned: AtomicBool,
    pub(crate) interrupt: InterruptHandle,
    pub(crate) cancel: Option<CancelHandle>,
    pub(crate) database: Mutex<Option<Database>>,
}

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

impl Core {
    pub(crate) fn new(database: Database, connection: EngineConnection, statements: usize) -> Self {
        Self {
            owner: AtomicUsize::new(0),
            forks: FORKS.load(Ordering::Relaxed),
            abandoned: Mutex::default(),
            any_abandoned: AtomicBool::new(false),
            interrupt: connection.interrupt_handle(),
            cancel: database.cancel_handle().ok(),
            state: Mutex::new(Some(State {
                runs: Vec::new(),
                cache: Cache::new(statements),
                connection,
                query_timeout: None,
                ahead: Rows::default(),
            })),
            database: Mutex::new(Some(database)),
        }
    }

    /// Fails in a process that was forked from the one that opened the connection.
    pub(crate) fn check_process(&self) -> PyResult<()> {
        if self.forks == FORKS.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(ProgrammingError::new_err(
            "this connection was opened before os.fork(): a child process cannot use it, open another one there",
        ))
    }

    /// Waits for this thread's turn.
    pub(crate) fn lock(&self, py: Python<'_>) -> PyResult<Locked<'_>> {
        self.check_process()?;
        signals::watch_on_this_thread(py)?;
        let state = match self.state.try_lock() {
            Some(state) => state,
            None => self.lock_contended(py)?,
        };
        if state.is_none() {
            return Err(closed());
        }
        self.owner.store(this_thread(), Ordering::Relaxed);
        let mut locked = Locked { core: self, state };
        if self.any_abandoned.swap(false, Ordering::Relaxed) {
            let abandoned = std::mem::take(&mut *self.abandoned.lock());
            let state = &mut *locked;
            py.detach(|| abandoned.into_iter().for_each(|run| state.end(run)));
        }
        Ok(locked)
    }

    #[cold]
    fn lock_contended(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Option<State>>> {
        if self.owner.load(Ordering::Relaxed) == this_thread() {
            return Err(ProgrammingError::new_err(
                "Recursive use of cursors not allowed: the connection is in the middle of a call of this thread",
            ));
        }
        loop {
            // The guard may not cross the border of `detach`; who waited tries again with the GIL.
            py.detach(|| drop(self.state.try_lock_for(SIGNAL_POLL)));
            if let Some(state) = self.state.try_lock() {
                return Ok(state);
            }
            py.check_signals()?;
        }
    }

    /// Fails when it is closed. Does not wait: a connection that somebody uses is open.
    pub(crate) fn check_open(&self) -> PyResult<()> {
        self.check_process()?;
        match self.state.try_lock() {
            Some(state) if state.is_none() => Err(closed()),
            _ => Ok(()),
        }
    }

    /// The database, for pulls and the like, which wait for no statement of this connection.
    pub(crate) fn database(&self) -> PyResult<Database> {
        self.check_process()?;
        self.database.lock().clone().ok_or_else(closed)
    }

    /// A cursor no longer wants its rows.
    pub(crate) fn end(&self, py: Python<'_>, run: RunId) {
        if self.check_process().is_err() {
            return;
        }
        match self.state.try_lock() {
            Some(mut state) => {
                if let Some(state) = &mut *state {
                    py.detach(|| state.end(run));
                }
            }
            None => {
                self.abandoned.lock().push(run);
                self.any_abandoned.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Closes the connection; a transaction that is open is rolled back.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        let mut state = match self.state.try_lock() {
            Some(state) => state,
            None => self.lock_contended(py)?,
        };
        let state = state.take();
        let database = self.database.lock().take();
        py.detach(|| dispose(state, database));
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let (state, database) = (self.state.get_mut().take(), self.database.get_mut().take());
        if self.check_process().is_err() {
            // The files, their locks and the engine's threads are the parent's; closing would take them from it.
            std::mem::forget((state, database));
        } else if state.is_some() {
            Python::attach(|py| py.detach(|| dispose(state, database)));
        }
    }
}

fn dispose(state: Option<State>, database: Option<Database>) {
    drop(state);
    if let Some(database) = database {
        database.settle(SETTLE);
    }
}

/// An address that no other thread has.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

fn closed() -> PyErr {
    ProgrammingError::new_err("Cannot operate on a closed database.")
}

/// This thread's turn.
pub(crate) struct Locked<'c> {
    core: &'c Core,
    state: MutexGuard<'c, Option<State>>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
            .as_ref()
            .expect("`Core::lock` has seen that it is open, and closing needs the lock")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state
            .as_mut()
            .expect("`Core::lock` has seen that it is open, and closing needs the lock")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.core.owner.store(0, Ordering::Relaxed);
    }
}

impl State {
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
