//! What a connection does for its own methods and for its cursors.

use std::sync::Arc;

use partial_sync::{Database, Error as EngineError};
use pyo3::{exceptions::PyException, prelude::*};

use super::{Autocommit, Connection};
use crate::{
    cache::Prepared,
    callbacks::{Callbacks, Slot},
    core::Core,
    errors::{self, ProgrammingError},
    functions::Function,
    program_code,
    reader::TextFactory,
    row_factory::RowFactory,
    state::State,
    waits,
};

impl Connection {
    pub(crate) fn core(&self) -> PyResult<&Core> {
        self.opened
            .get()
            .map(|opened| &opened.core)
            .ok_or_else(|| ProgrammingError::new_err("Base Connection.__init__ not called."))
    }

    pub(crate) fn check_thread(&self) -> PyResult<()> {
        let thread = self.opened.get().and_then(|opened| opened.thread);
        if thread.is_none_or(|thread| thread == std::thread::current().id()) {
            return Ok(());
        }
        Err(ProgrammingError::new_err(
            "the connection was opened with check_same_thread=True in another thread",
        ))
    }

    pub(crate) fn detect_types(&self) -> i32 {
        self.opened.get().map_or(0, |opened| opened.detect_types)
    }

    pub(crate) fn text_factory(&self, py: Python<'_>) -> TextFactory {
        self.settings.lock().text_factory.clone_ref(py)
    }

    pub(crate) fn row_factory_for_cursors(&self, py: Python<'_>) -> RowFactory {
        self.settings.lock().row_factory.clone_ref(py)
    }

    pub(crate) fn is_legacy(&self) -> bool {
        self.settings.lock().autocommit == Autocommit::Legacy
    }

    /// What is told the statements that run.
    pub(crate) fn tracer(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.settings
            .lock()
            .trace
            .as_ref()
            .map(|trace| trace.clone_ref(py))
    }

    /// Tells it a statement. Errors that it raises stop nothing; Ctrl-C and the like do.
    pub(crate) fn trace(py: Python<'_>, tracer: &Py<PyAny>, sql: &str) -> PyResult<()> {
        match program_code::call(tracer.bind(py), (sql,)) {
            Err(error) if error.is_instance_of::<PyException>(py) => {
                error.write_unraisable(py, Some(tracer.bind(py)));
                Ok(())
            }
            traced => traced.map(drop),
        }
    }

    /// Begins the transaction that the statement is to be part of, before its parameters are looked at.
    pub(crate) fn begin(&self, py: Python<'_>, state: &mut State, prepared: &Prepared) -> PyResult<()> {
        let Some(begin) = self.begin_for(prepared, state) else {
            return Ok(());
        };
        if let Some(tracer) = self.tracer(py) {
            Self::trace(py, &tracer, begin)?;
        }
        self.wait(py, || state.begin(begin))
    }

    /// What has to be run before the statement so that it is part of a transaction.
    fn begin_for(&self, prepared: &Prepared, state: &State) -> Option<&'static str> {
        if !prepared.is_dml || !state.connection.is_autocommit() {
            return None;
        }
        let settings = self.settings.lock();
        settings
            .begin
            .filter(|_| settings.autocommit == Autocommit::Legacy)
    }

    /// The exception for an error; what a callback raised on the way is its cause.
    pub(crate) fn raise(&self, py: Python<'_>, error: EngineError) -> PyErr {
        self.explain(py, errors::raise(py, error))
    }

    /// An error that a callback raised becomes the cause; anything else that it raised, such as Ctrl-C, goes before.
    pub(crate) fn explain(&self, py: Python<'_>, error: PyErr) -> PyErr {
        match self
            .opened
            .get()
            .and_then(|opened| opened.callbacks.take_raised())
        {
            Some(cause) if !cause.is_instance_of::<PyException>(py) => return cause,
            cause @ Some(_) => error.set_cause(py, cause),
            None => {}
        }
        error
    }

    /// Something that SQL calls, kept by `keep`.
    pub(super) fn function(
        &self,
        callable: Option<Py<PyAny>>,
        keep: impl FnOnce(&Callbacks, Py<PyAny>) -> Arc<Slot>,
    ) -> PyResult<Option<Function>> {
        self.core()?.check_open()?;
        let opened = self.opened.get().zip(callable);
        Ok(opened.map(|(opened, callable)| Function {
            callable: keep(&opened.callbacks, callable),
            callbacks: opened.callbacks.clone(),
        }))
    }

    /// Gives SQL a function, or takes one away.
    pub(super) fn install(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> Result<(), EngineError> + Send,
    ) -> PyResult<()> {
        self.locked(py, work)?;
        if let Some(opened) = self.opened.get() {
            opened.callbacks.forget_unused();
        }
        Ok(())
    }

    /// Does without the GIL what may wait.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce() -> Result<T, EngineError> + Send,
    ) -> PyResult<T> {
        waits::detached(py, work).map_err(|error| self.explain(py, error))
    }

    /// Runs statements in this thread's turn, without the GIL.
    pub(super) fn locked<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> Result<T, EngineError> + Send,
    ) -> PyResult<T> {
        self.check_thread()?;
        let mut state = self.core()?.lock(py)?;
        let state: &mut State = &mut state;
        self.wait(py, || work(state))
    }

    /// Ends the transaction that is open, if one is.
    pub(super) fn end_transaction(&self, py: Python<'_>, how: &str) -> PyResult<()> {
        let autocommit = self.settings.lock().autocommit;
        if let Some(tracer) = self.tracer(py)
            && autocommit != Autocommit::On
            && self.in_transaction(py)?
        {
            Self::trace(py, &tracer, how)?;
        }
        self.locked(py, |state| {
            if autocommit == Autocommit::On || state.connection.is_autocommit() {
                return Ok(());
            }
            state.run(how)?;
            match autocommit {
                Autocommit::Off => state.run("BEGIN"),
                _ => Ok(()),
            }
        })
    }

    /// Does something with the database that goes over the network.
    pub(super) fn sync<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Database) -> Result<T, EngineError> + Send,
    ) -> PyResult<T> {
        self.check_thread()?;
        let core = self.core()?;
        let database = core.database()?;
        let cancel = core.cancel.clone().unwrap_or_default();
        core.check_open()?;
        waits::breakable(py, &cancel, move || work(&database))?.map_err(|error| self.raise(py, error))
    }
}
