//! What a connection is below Python: the engine's connection, its statements, and the lock under which threads take
//! turns.
//!
//! Two rules keep threads from waiting for each other forever. Nobody waits for the lock with the GIL. And nothing that
//! may wait or do I/O (preparing, stepping and resetting statements, committing, closing) is called with the GIL: a wait
//! of the engine looks for signals, which needs it.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use partial_sync::{CancelHandle, Connection as EngineConnection, Database};
use partial_sync_vfs::sqlite::InterruptHandle;
use pyo3::prelude::*;

use crate::{
    errors::ProgrammingError,
    fork, signals,
    state::{RunId, State},
};

/// How often a thread that waits for its turn looks for signals.
const SIGNAL_POLL: Duration = Duration::from_millis(20);
/// How long closing a replica lets pages arrive that are on their way.
const SETTLE: Duration = Duration::from_millis(200);

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

impl Core {
    pub(crate) fn new(database: Database, connection: EngineConnection, statements: usize) -> Self {
        Self {
            owner: AtomicUsize::new(0),
            forks: fork::count(),
            abandoned: Mutex::default(),
            any_abandoned: AtomicBool::new(false),
            interrupt: connection.interrupt_handle(),
            cancel: database.cancel_handle().ok(),
            state: Mutex::new(Some(State::new(connection, statements))),
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
