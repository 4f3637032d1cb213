//! What a connection does for its own methods and for its cursors.

use partial_sync::{Database, Error as EngineError};
use pyo3::prelude::*;

use super::{Autocommit, Connection};
use crate::{
    cache::Prepared,
    core::Core,
    errors::{self, ProgrammingError},
    functions::Function,
    reader::TextFactory,
    row_factory::RowFactory,
    signals,
    state::State,
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

    /// Tells it a statement. What it raises is nobody's to catch.
    pub(crate) fn trace(py: Python<'_>, tracer: &Py<PyAny>, sql: &str) {
        if let Err(error) = tracer.call1(py, (sql,)) {
            error.write_unraisable(py, Some(tracer.bind(py)));
        }
    }

    /// What has to be run before the statement so that it is part of a transaction.
    pub(crate) fn begin_for(&self, prepared: &Prepared, state: &State) -> Option<&'static str> {
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

    pub(crate) fn explain(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if let Some(cause) = self
            .opened
            .get()
            .and_then(|opened| opened.callbacks.take_raised())
        {
            error.set_cause(py, Some(cause));
        }
        error
    }

    /// Something that SQL calls.
    pub(super) fn function(&self, callable: Option<Py<PyAny>>) -> PyResult<Option<Function>> {
        self.core()?.check_open()?;
        let callbacks = self
            .opened
            .get()
            .map(|opened| opened.callbacks.clone())
            .unwrap_or_default();
        Ok(callable.map(|callable| Function { callable, callbacks }))
    }

    /// Runs statements under the lock, without the GIL.
    pub(super) fn locked<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> Result<T, EngineError> + Send,
    ) -> PyResult<T> {
        self.check_thread()?;
        let mut state = self.core()?.lock(py)?;
        let state: &mut State = &mut state;
        py.detach(|| work(state)).map_err(|error| self.raise(py, error))
    }

    /// Ends the transaction that is open, if one is.
    pub(super) fn end_transaction(&self, py: Python<'_>, how: &str) -> PyResult<()> {
        let autocommit = self.settings.lock().autocommit;
        if let Some(tracer) = self.tracer(py)
            && autocommit != Autocommit::On
            && self.in_transaction(py)?
        {
            Self::trace(py, &tracer, how);
        }
        self.locked(py, |state| {
            state.look_ahead();
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
        {
            // A query of which one row was read must not keep the connection at the state before a pull.
            let mut state = core.lock(py)?;
            let state: &mut State = &mut state;
            py.detach(|| state.look_ahead());
        }
        let cancel = core.cancel.clone().unwrap_or_default();
        signals::breakable(py, &cancel, move || work(&database))?.map_err(|error| self.raise(py, error))
    }
}
