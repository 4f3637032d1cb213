//! The native base of `turso.Connection`.

mod inner;

use std::{
    sync::{Arc, OnceLock},
    thread::ThreadId,
    time::Duration,
};

use parking_lot::Mutex;
use partial_sync::{CancelHandle, HydrateProgress};
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::{PyBool, PyDict, PyInt, PyString, PyTuple},
};

use crate::{
    callbacks::Callbacks,
    core::Core,
    errors::ProgrammingError,
    functions,
    open::{Local, Remote},
    program_code,
    reader::TextFactory,
    row_factory::RowFactory,
};

/// Flags of `detect_types`.
pub(crate) const PARSE_DECLTYPES: i32 = 1;
pub(crate) const PARSE_COLNAMES: i32 = 2;

/// When transactions begin and end on their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Autocommit {
    /// `isolation_level` says.
    Legacy,
    /// Never: every statement is a transaction unless the program begins one.
    On,
    /// There is always one open.
    Off,
}

/// Attributes that a program can change.
struct Settings {
    /// What an implicit transaction is begun with; `None`: there are none.
    begin: Option<&'static str>,
    autocommit: Autocommit,
    row_factory: RowFactory,
    text_factory: TextFactory,
    /// Is told the statements that run.
    trace: Option<Py<PyAny>>,
}

/// The native base of connections.
#[pyclass(frozen, subclass, weakref, module = "turso._turso")]
pub(crate) struct Connection {
    opened: OnceLock<Opened>,
    /// Breaks the opening, which may be of a remote.
    opening: OnceLock<CancelHandle>,
    settings: Mutex<Settings>,
}

/// What stays as it is once the connection is open.
struct Opened {
    core: Core,
    callbacks: Arc<Callbacks>,
    detect_types: i32,
    /// The only thread that may use the connection.
    thread: Option<ThreadId>,
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            opened: OnceLock::new(),
            opening: OnceLock::new(),
            settings: Mutex::new(Settings {
                begin: Some("BEGIN DEFERRED"),
                autocommit: Autocommit::Legacy,
                row_factory: RowFactory::Tuple,
                text_factory: TextFactory::Str,
                trace: None,
            }),
        }
    }

    /// Opens the database. What is given here has been checked.
    fn _open(&self, py: Python<'_>, local: Local, remote: Option<Remote>) -> PyResult<()> {
        if self.opened.get().is_some() {
            return Err(ProgrammingError::new_err("the connection is open already"));
        }
        let callbacks = Arc::new(Callbacks::new(&local.path));
        callbacks.check_not_waited_for()?;
        let cancel = self.opening.get_or_init(CancelHandle::new);
        let (database, connection) =
            crate::open::open(py, local.path, local.timeout, remote, cancel, &callbacks).map_err(
                |error| match callbacks.take_raised() {
                    Some(cause) => {
                        error.set_cause(py, Some(cause));
                        error
                    }
                    None => error,
                },
            )?;
        let opened = Opened {
            core: Core::new(database, connection, local.cached_statements, callbacks.clone()),
            callbacks,
            detect_types: local.detect_types,
            thread: local.check_same_thread.then(|| std::thread::current().id()),
        };
        self.opened
            .set(opened)
            .map_err(|_| ProgrammingError::new_err("the connection is open already"))
    }

    /// Makes the changes of the open transaction permanent.
    pub(crate) fn commit(&self, py: Python<'_>) -> PyResult<()> {
        self.end_transaction(py, "COMMIT")
    }

    /// Undoes the changes of the open transaction.
    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.end_transaction(py, "ROLLBACK")
    }

    /// Undoes them for somebody who has another error to raise; where it is interrupted, before the next statement.
    fn _undo(&self, py: Python<'_>) -> PyResult<()> {
        self.locked(py, |state| {
            state.connection.undo_transaction();
            Ok(())
        })
    }

    /// Closes the connection; a transaction that is open is rolled back.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check_thread()?;
        let Some(opened) = self.opened.get() else {
            return Ok(());
        };
        opened.core.close(py)?;
        opened.callbacks.forget_unused();
        Ok(())
    }

    /// Breaks what runs on this connection now, network waits included; also its opening. May be called from any thread.
    fn interrupt(&self) -> PyResult<()> {
        if let (None, Some(opening)) = (self.opened.get(), self.opening.get()) {
            opening.cancel();
            return Ok(());
        }
        let core = self.core()?;
        core.check_open()?;
        core.interrupt();
        Ok(())
    }

    /// How long a statement may run, in milliseconds; 0: as long as it takes.
    fn get_query_timeout(&self, py: Python<'_>) -> PyResult<u64> {
        self.locked(py, |state| {
            let timeout = state.query_timeout.unwrap_or_default();
            Ok(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
        })
    }

    fn _set_query_timeout(&self, py: Python<'_>, milliseconds: u64) -> PyResult<()> {
        self.locked(py, |state| {
            state.query_timeout = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
            Ok(())
        })
    }

    /// True while a transaction is open.
    #[getter]
    fn in_transaction(&self, py: Python<'_>) -> PyResult<bool> {
        self.locked(py, |state| Ok(!state.connection.is_autocommit()))
    }

    /// Rows changed since the connection was opened.
    #[getter]
    fn total_changes(&self, py: Python<'_>) -> PyResult<u64> {
        self.locked(py, |state| Ok(state.connection.total_changes()))
    }

    /// How an implicit transaction is begun: "DEFERRED", "IMMEDIATE" or "EXCLUSIVE"; None: there are none.
    #[getter]
    fn get_isolation_level(&self) -> Option<&'static str> {
        self.settings
            .lock()
            .begin
            .map(|begin| begin["BEGIN".len()..].trim_start())
    }

    #[setter]
    fn set_isolation_level(&self, py: Python<'_>, level: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let begin = match level {
            None => None,
            Some(level) => {
                let name = level
                    .cast::<PyString>()
                    .map_err(|_| PyTypeError::new_err("isolation_level must be str or None"))?;
                Some(match name.to_str()?.to_ascii_uppercase().as_str() {
                    "" => "BEGIN",
                    "DEFERRED" => "BEGIN DEFERRED",
                    "IMMEDIATE" => "BEGIN IMMEDIATE",
                    "EXCLUSIVE" => "BEGIN EXCLUSIVE",
                    _ => {
                        return Err(PyValueError::new_err(format!(
                            "isolation_level = {} is not one of '', 'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE' and None",
                            level.repr()?
                        )));
                    }
                })
            }
        };
        self.settings.lock().begin = begin;
        // An error leaves the transaction open, and what comes later begins none, as in the standard library.
        if begin.is_none() && self.opened.get().is_some() && self.is_legacy() {
            self.commit(py)?;
        }
        Ok(())
    }

    /// True: there are no implicit transactions. False: one is always open. "LEGACY" (the default): as `isolation_level`
    /// says.
    #[getter]
    fn get_autocommit(&self, py: Python<'_>) -> Py<PyAny> {
        match self.settings.lock().autocommit {
            Autocommit::Legacy => PyString::intern(py, "LEGACY").into_any().unbind(),
            Autocommit::On => PyBool::new(py, true).to_owned().into_any().unbind(),
            Autocommit::Off => PyBool::new(py, false).to_owned().into_any().unbind(),
        }
    }

    #[setter]
    fn set_autocommit(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let wanted = if let Ok(value) = value.cast::<PyBool>() {
            if value.is_true() {
                Autocommit::On
            } else {
                Autocommit::Off
            }
        } else if value.is_instance_of::<PyInt>() && value.eq(-1)? || value.eq("LEGACY")? {
            Autocommit::Legacy
        } else {
            return Err(ProgrammingError::new_err(format!(
                "autocommit = {} is not one of True, False and turso.LEGACY_TRANSACTION_CONTROL",
                value.repr()?
            )));
        };
        self.locked(py, |state| match (wanted, state.connection.is_autocommit()) {
            (Autocommit::On, false) => state.run("COMMIT"),
            (Autocommit::Off, true) => state.run("BEGIN"),
            _ => Ok(()),
        })?;
        self.settings.lock().autocommit = wanted;
        Ok(())
    }

    /// Makes the rows of cursors made from now on: called with the cursor and a tuple. None: tuples.
    #[getter]
    fn get_row_factory(&self, py: Python<'_>) -> Py<PyAny> {
        self.settings.lock().row_factory.object(py)
    }

    #[setter]
    fn set_row_factory(&self, factory: &Bound<'_, PyAny>) {
        let before = std::mem::replace(&mut self.settings.lock().row_factory, RowFactory::of(factory));
        drop(before);
    }

    /// Makes TEXT into something: `str` (the default), `bytes`, `bytearray`, or a function of bytes.
    #[getter]
    fn get_text_factory(&self, py: Python<'_>) -> Py<PyAny> {
        self.settings.lock().text_factory.object(py)
    }

    #[setter]
    fn set_text_factory(&self, factory: &Bound<'_, PyAny>) {
        let before = std::mem::replace(&mut self.settings.lock().text_factory, TextFactory::of(factory));
        drop(before);
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().core()?.check_open()?;
        Ok(slf.clone())
    }

    /// Commits, or rolls back after an exception. Does not close the connection.
    #[pyo3(signature = (exc_type, exc_value, traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let _ = (exc_value, traceback);
        if !exc_type.is_none() {
            self.rollback(py)?;
        } else if let Err(error) = self.commit(py) {
            // What could not be committed must not stay half done; the error of the commit is the one that counts.
            let _ = self.rollback(py);
            return Err(error);
        }
        Ok(false)
    }

    /// Has a function called with each statement, its values written out, before it runs; None: no longer.
    #[pyo3(signature = (trace_callback))]
    fn set_trace_callback(&self, trace_callback: Option<Py<PyAny>>) -> PyResult<()> {
        self.check_thread()?;
        self.core()?.check_open()?;
        let before = std::mem::replace(&mut self.settings.lock().trace, trace_callback);
        drop(before);
        Ok(())
    }

    /// Adds a SQL function; `func` None removes it. `narg` -1: any number of arguments.
    #[pyo3(signature = (name, narg, func, *, deterministic=false))]
    fn create_function(
        &self,
        py: Python<'_>,
        name: String,
        narg: i32,
        func: Option<Py<PyAny>>,
        deterministic: bool,
    ) -> PyResult<()> {
        let function = self.function(func, Callbacks::function)?;
        self.install(py, move |state| match function {
            Some(function) => state.connection.create_scalar_function(
                &name,
                narg,
                functions::flags(deterministic),
                move |context| function.call(context),
            ),
            None => state.connection.remove_function(&name, narg),
        })
    }

    /// Adds a SQL aggregate function: a class with `step` and `finalize`; None removes it.
    #[pyo3(signature = (name, n_arg, aggregate_class))]
    fn create_aggregate(
        &self,
        py: Python<'_>,
        name: String,
        n_arg: i32,
        aggregate_class: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let function = self.function(aggregate_class, Callbacks::function)?;
        self.install(py, move |state| match function {
            Some(function) => {
                state
                    .connection
                    .create_aggregate_function(&name, n_arg, functions::flags(false), function)
            }
            None => state.connection.remove_function(&name, n_arg),
        })
    }

    /// Adds a SQL window function: a class with `step`, `inverse`, `value` and `finalize`; None removes it.
    #[pyo3(signature = (name, num_params, aggregate_class, /))]
    fn create_window_function(
        &self,
        py: Python<'_>,
        name: String,
        num_params: i32,
        aggregate_class: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let function = self.function(aggregate_class, Callbacks::function)?;
        self.install(py, move |state| match function {
            Some(function) => {
                state
                    .connection
                    .create_window_function(&name, num_params, functions::flags(false), function)
            }
            None => state.connection.remove_function(&name, num_params),
        })
    }

    /// Adds a collation: a function of two texts that gives a negative number, 0 or a positive one; None removes it.
    #[pyo3(signature = (name, callable, /))]
    fn create_collation(&self, py: Python<'_>, name: String, callable: Option<Py<PyAny>>) -> PyResult<()> {
        if let Some(callable) = &callable
            && !callable.bind(py).is_callable()
        {
            return Err(PyTypeError::new_err("parameter must be callable"));
        }
        let function = self.function(callable, Callbacks::collation)?;
        self.install(py, move |state| match function {
            Some(function) => state
                .connection
                .create_collation(&name, move |a, b| function.compare(a, b)),
            None => state.connection.remove_collation(&name),
        })
    }

    fn _pull(&self, py: Python<'_>) -> PyResult<bool> {
        self.sync(py, |database| database.pull())
    }

    fn _push(&self, py: Python<'_>) -> PyResult<()> {
        self.sync(py, |database| database.push())
    }

    fn _discard_change(&self, py: Python<'_>, change: i64, with_dependents: bool) -> PyResult<usize> {
        let change = partial_sync::ChangeId(change);
        self.sync(py, move |database| match with_dependents {
            true => Ok(database.discard_change_with_dependents(change)?.len()),
            false => Ok(usize::from(database.discard_change(change)?)),
        })
    }

    fn _hydrate(
        &self,
        py: Python<'_>,
        query: Option<&str>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(u32, u32)> {
        let core = self.core()?;
        let cancel = core.cancel.clone().unwrap_or_default();
        let callbacks = self.opened.get().map(|opened| opened.callbacks.clone());
        let raised = Mutex::new(None);
        let tell = |at: HydrateProgress| {
            let Some((progress, callbacks)) = progress.as_ref().zip(callbacks.as_ref()) else {
                return;
            };
            let told = callbacks.answer(|py| {
                if let Err(error) = program_code::call(progress.bind(py), (at.fetched, at.total)) {
                    raised.lock().get_or_insert(error);
                    cancel.cancel();
                }
                Ok(())
            });
            if told.is_err() {
                cancel.cancel();
            }
        };
        let done = self.sync(py, |database| match query {
            None => database.hydrate(tell),
            Some(query) => database.hydrate_query(query, tell),
        });
        match raised.into_inner() {
            Some(error) => Err(error),
            None => done.map(|done| (done.fetched, done.absent)),
        }
    }

    fn _checkpoint(&self, py: Python<'_>) -> PyResult<()> {
        self.sync(py, |database| database.checkpoint())
    }

    /// The counters as JSON.
    fn _stats(&self, py: Python<'_>) -> PyResult<String> {
        let stats = self.sync(py, |database| database.stats())?;
        Ok(serde_json::to_string(&stats).unwrap_or_default())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(settings) = self.settings.try_lock() {
            settings.row_factory.visit(&visit)?;
            if let TextFactory::Call(callable) = &settings.text_factory {
                visit.call(callable)?;
            }
            visit.call(&settings.trace)?;
        }
        match self.opened.get() {
            Some(opened) => opened.callbacks.visit(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let (mut rows, mut text, mut trace) = (RowFactory::Tuple, TextFactory::Str, None);
        if let Some(mut settings) = self.settings.try_lock() {
            std::mem::swap(&mut rows, &mut settings.row_factory);
            std::mem::swap(&mut text, &mut settings.text_factory);
            std::mem::swap(&mut trace, &mut settings.trace);
        }
        if let Some(opened) = self.opened.get() {
            opened.callbacks.clear();
        }
    }
}
