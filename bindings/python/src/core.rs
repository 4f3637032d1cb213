//! What a connection is below Python: the engine's connection and its statements, used by one thread at a time.
//!
//! Nothing that may wait or do I/O (preparing, stepping and resetting statements, committing, closing) is called with the
//! GIL: a wait of the engine looks for signals, which needs it. And no lock of this package is held while Python code runs,
//! but for the turn: code that meets it in the middle of its own call fails at once.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use partial_sync::{CancelHandle, Connection as EngineConnection, Database};
use partial_sync_vfs::sqlite::InterruptHandle;
use pyo3::prelude::*;

use crate::{
    callbacks::Callbacks,
    errors::ProgrammingError,
    fork, log, signals,
    state::{RunId, State},
    turns::{Turn, Turns},
};

/// How often a thread that waits for its turn looks for signals.
const SIGNAL_POLL: Duration = Duration::from_millis(20);
/// How long closing a replica lets pages arrive that are on their way.
const SETTLE: Duration = Duration::from_millis(200);

/// A connection, shared by the Python object and its cursors.
pub(crate) struct Core {
    turns: Turns,
    /// Locked by who has the turn alone. `None` once closed.
    state: Mutex<Option<State>>,
    closed: AtomicBool,
    /// Of which process it is.
    forks: u32,
    /// Runs whose cursors went away when it was not their turn.
    abandoned: Mutex<Vec<RunId>>,
    any_abandoned: AtomicBool,
    callbacks: Arc<Callbacks>,
    interrupt: InterruptHandle,
    /// How often it was interrupted.
    interrupts: Arc<AtomicU64>,
    pub(crate) cancel: Option<CancelHandle>,
    database: Mutex<Option<Database>>,
}

impl Core {
    pub(crate) fn new(
        database: Database,
        connection: EngineConnection,
        statements: usize,
        callbacks: Arc<Callbacks>,
    ) -> Self {
        let interrupts = Arc::new(AtomicU64::new(0));
        let interrupt = connection.interrupt_handle();
        let state = State::new(
            connection,
            statements,
            !database.is_replica(),
            callbacks.clone(),
            interrupts.clone(),
        );
        Self {
            turns: Turns::default(),
            state: Mutex::new(Some(state)),
            closed: AtomicBool::new(false),
            forks: fork::count(),
            abandoned: Mutex::default(),
            any_abandoned: AtomicBool::new(false),
            callbacks,
            interrupt,
            interrupts,
            cancel: database.cancel_handle().ok(),
            database: Mutex::new(Some(database)),
        }
    }

    /// Fails in a process that was forked from the one that opened the connection.
    pub(crate) fn check_process(&self) -> PyResult<()> {
        if self.forks == fork::count() {
            return Ok(());
        }
        Err(ProgrammingError::new_err(
            "this connection was opened before os.fork(): a child process cannot use it, open another one there",
        ))
    }

    /// Fails where a wait could be one for this very thread.
    fn check_may_wait(&self) -> PyResult<()> {
        match log::is_logging() {
            true => Err(ProgrammingError::new_err(
                "a logging handler runs in the middle of a call of the engine and cannot use a connection",
            )),
            false => self.check_process(),
        }
    }

    /// Waits for this thread's turn.
    pub(crate) fn lock(&self, py: Python<'_>) -> PyResult<Locked<'_>> {
        let mut locked = self.take_turn(py)?;
        if locked.state.is_none() {
            return Err(closed());
        }
        locked.end_abandoned();
        locked.begin_call();
        Ok(locked)
    }

    fn take_turn(&self, py: Python<'_>) -> PyResult<Locked<'_>> {
        self.check_may_wait()?;
        signals::watch_on_this_thread(py)?;
        let turn = match self.turns.try_take() {
            Some(turn) => turn,
            None => self.wait_for_turn(py)?,
        };
        Ok(self.locked(turn))
    }

    #[cold]
    fn wait_for_turn(&self, py: Python<'_>) -> PyResult<Turn<'_>> {
        self.check_open()?;
        if self.turns.is_mine() {
            return Err(ProgrammingError::new_err(
                "Recursive use of cursors not allowed: the connection is in the middle of a call of this thread",
            ));
        }
        if self.callbacks.is_waited_for() {
            return Err(ProgrammingError::new_err(
                "the connection is in the middle of a call that may be waiting for this function: use another connection, \
                 to another database",
            ));
        }
        let mut place = self.turns.wait();
        loop {
            py.detach(|| place.wait_for(SIGNAL_POLL));
            if let Some(turn) = place.turn() {
                return Ok(turn);
            }
            py.check_signals()?;
            if PyModule::import(py, "sys")?
                .call_method0("is_finalizing")?
                .is_truthy()?
            {
                return Err(ProgrammingError::new_err(
                    "the program is over, and a thread that it has left behind is in the middle of a call of this connection",
                ));
            }
        }
    }

    /// Fails when it is closed.
    pub(crate) fn check_open(&self) -> PyResult<()> {
        self.check_process()?;
        match self.closed.load(Ordering::Acquire) {
            true => Err(closed()),
            false => Ok(()),
        }
    }

    /// The database, for pulls and the like, which wait for no statement of this connection.
    pub(crate) fn database(&self) -> PyResult<Database> {
        self.check_may_wait()?;
        self.callbacks.check_not_waited_for()?;
        self.database.lock().clone().ok_or_else(closed)
    }

    /// Breaks what runs now, network waits included.
    pub(crate) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.interrupt.interrupt();
        if let Some(cancel) = &self.cancel {
            cancel.cancel();
        }
    }

    /// How often it was interrupted.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// A cursor no longer wants its rows. Where it is another's turn, that one ends the run.
    pub(crate) fn end(&self, run: RunId) {
        if self.check_process().is_err() {
            return;
        }
        self.abandoned.lock().push(run);
        self.any_abandoned.store(true, Ordering::Release);
        if let Some(turn) = self.turns.try_take() {
            drop(self.locked(turn));
        }
    }

    fn locked<'c>(&'c self, turn: Turn<'c>) -> Locked<'c> {
        Locked {
            core: self,
            state: self.state.lock(),
            _turn: turn,
        }
    }

    /// Closes the connection; a transaction that is open is rolled back.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut locked = self.take_turn(py)?;
        self.closed.store(true, Ordering::Release);
        let state = locked.state.take();
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

fn closed() -> PyErr {
    ProgrammingError::new_err("Cannot operate on a closed database.")
}

/// This thread's turn.
pub(crate) struct Locked<'c> {
    core: &'c Core,
    // Before the turn.
    state: MutexGuard<'c, Option<State>>,
    _turn: Turn<'c>,
}

impl Locked<'_> {
    /// Ends the runs that nobody wants any more.
    fn end_abandoned(&mut self) {
        if !self.core.any_abandoned.swap(false, Ordering::Acquire) {
            return;
        }
        let abandoned = std::mem::take(&mut *self.core.abandoned.lock());
        if let Some(state) = &mut *self.state {
            Python::attach(|py| py.detach(|| abandoned.into_iter().for_each(|run| state.end(run))));
        }
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
            .as_ref()
            .expect("`Core::lock` has seen that it is open, and closing needs the turn")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state
            .as_mut()
            .expect("`Core::lock` has seen that it is open, and closing needs the turn")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.end_abandoned();
    }
}
