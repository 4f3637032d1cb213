//! `turso.Cursor`: runs statements and hands out their rows.

mod fetch;
mod made;
mod run;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    prelude::*,
    types::{PyDict, PyList, PyString, PyTuple, PyType},
};

use crate::{
    columns::Columns,
    connection::{Connection, PARSE_COLNAMES},
    errors::ProgrammingError,
    reader::Converters,
    row_factory::RowFactory,
    state::RunId,
};

/// Runs statements on a connection and hands out their rows.
#[pyclass(frozen, subclass, weakref, module = "turso")]
pub(crate) struct Cursor {
    connection: Py<Connection>,
    state: Mutex<Outcome>,
    closed: AtomicBool,
}

/// What the last execution left, and how its rows are to be handed out.
struct Outcome {
    run: Option<RunId>,
    columns: Option<Arc<Columns>>,
    converters: Option<Converters>,
    changed: i64,
    last_rowid: Option<i64>,
    array_size: usize,
    factory: RowFactory,
}

impl Cursor {
    pub(crate) fn new(connection: Py<Connection>, factory: RowFactory) -> Self {
        Self {
            connection,
            state: Mutex::new(Outcome {
                run: None,
                columns: None,
                converters: None,
                changed: -1,
                last_rowid: None,
                array_size: 1,
                factory,
            }),
            closed: AtomicBool::new(false),
        }
    }

    fn owner(&self) -> &Connection {
        self.connection.get()
    }

    /// Fails when the cursor or its connection is closed or belongs to another thread.
    fn check(&self) -> PyResult<()> {
        self.owner().check_thread()?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(ProgrammingError::new_err("Cannot operate on a closed cursor."));
        }
        Ok(())
    }

    /// The columns of the last result, and whether their names end where a `[` begins.
    pub(crate) fn columns(&self, _py: Python<'_>) -> (Option<Arc<Columns>>, bool) {
        (self.state.lock().columns.clone(), self.short_names())
    }

    fn short_names(&self) -> bool {
        self.owner().detect_types() & PARSE_COLNAMES != 0
    }
}

#[pymethods]
impl Cursor {
    #[new]
    #[pyo3(signature = (connection, /, *_args, **_kwargs))]
    fn py_new(
        connection: &Bound<'_, Connection>,
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> Self {
        let factory = connection.get().row_factory_for_cursors(connection.py());
        Self::new(connection.clone().unbind(), factory)
    }

    /// Subclasses may pass on what they were given.
    #[pyo3(signature = (*_args, **_kwargs))]
    fn __init__(&self, _args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) {}

    /// Runs one statement. Parameters: a sequence for `?`, a mapping for `:name`, `@name` and `$name`.
    #[pyo3(signature = (sql, parameters=None))]
    fn execute<'py>(
        slf: Bound<'py, Self>,
        sql: &Bound<'py, PyString>,
        parameters: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        slf.get().run(slf.py(), sql, parameters)?;
        Ok(slf)
    }

    /// Runs a statement that changes something once for each of the parameters.
    #[pyo3(signature = (sql, seq_of_parameters))]
    fn executemany<'py>(
        slf: Bound<'py, Self>,
        sql: &Bound<'py, PyString>,
        seq_of_parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, Self>> {
        slf.get().run_many(slf.py(), sql, seq_of_parameters)?;
        Ok(slf)
    }

    /// Commits the transaction that is open, and runs all statements of a script.
    #[pyo3(signature = (sql_script))]
    fn executescript<'py>(
        slf: Bound<'py, Self>,
        sql_script: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, Self>> {
        slf.get().run_script(slf.py(), sql_script.to_str()?)?;
        Ok(slf)
    }

    /// The next row; None at the end.
    fn fetchone<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match slf.get().next_tuple(slf.py())? {
            Some(tuple) => Self::row(slf, tuple).map(Some),
            None => Ok(None),
        }
    }

    /// The next rows, at most `size` (default: `arraysize`).
    #[pyo3(signature = (size=None))]
    fn fetchmany<'py>(slf: &Bound<'py, Self>, size: Option<i64>) -> PyResult<Bound<'py, PyList>> {
        let size = match size {
            Some(size) => usize::try_from(size).unwrap_or(usize::MAX),
            None => slf.get().state.lock().array_size,
        };
        // Nothing to fetch is not a reason to use a closed cursor.
        slf.get().check()?;
        Self::rows(slf, size)
    }

    /// All rows that are left.
    fn fetchall<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        Self::rows(slf, usize::MAX)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::fetchone(slf)
    }

    /// Ends the statement; the cursor cannot be used any more.
    fn close(&self) -> PyResult<()> {
        self.owner().check_thread()?;
        self.closed.store(true, Ordering::Relaxed);
        // What it tells of its last statement stays: programs ask for `rowcount` afterwards.
        if let Some(run) = self.forget_run() {
            self.owner().core()?.end(run);
        }
        Ok(())
    }

    /// Does nothing; for the DB-API.
    fn setinputsizes(&self, sizes: &Bound<'_, PyAny>) {
        let _ = sizes;
    }

    /// Does nothing; for the DB-API.
    #[pyo3(signature = (size, column=None))]
    fn setoutputsize(&self, size: &Bound<'_, PyAny>, column: Option<&Bound<'_, PyAny>>) {
        let _ = (size, column);
    }

    /// The connection.
    #[getter]
    fn connection(&self, py: Python<'_>) -> Py<Connection> {
        self.connection.clone_ref(py)
    }

    /// The columns of the result, seven values each, of which only the first, the name, is not None.
    #[getter]
    fn description<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let (columns, short_names) = self.columns(py);
        match columns {
            Some(columns) => columns.description(py, short_names),
            None => Ok(None),
        }
    }

    /// Rows that the last INSERT, UPDATE, DELETE or REPLACE changed; -1 after anything else.
    #[getter]
    fn rowcount(&self) -> i64 {
        self.state.lock().changed
    }

    /// Rowid of the last row that was inserted.
    #[getter]
    fn lastrowid(&self) -> Option<i64> {
        self.state.lock().last_rowid
    }

    /// How many rows `fetchmany` gives. Default: 1.
    #[getter]
    fn get_arraysize(&self) -> usize {
        self.state.lock().array_size
    }

    #[setter]
    fn set_arraysize(&self, size: usize) {
        self.state.lock().array_size = size;
    }

    /// Makes rows: called with the cursor and a tuple. None: tuples.
    #[getter]
    fn get_row_factory(&self, py: Python<'_>) -> Py<PyAny> {
        self.state.lock().factory.object(py)
    }

    #[setter]
    fn set_row_factory(&self, factory: &Bound<'_, PyAny>) {
        let before = std::mem::replace(&mut self.state.lock().factory, RowFactory::of(factory));
        drop(before);
    }

    #[classmethod]
    fn __class_getitem__(cls: &Bound<'_, PyType>, _item: &Bound<'_, PyAny>) -> Py<PyType> {
        cls.clone().unbind()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.connection)?;
        match self.state.try_lock() {
            Some(state) => state.factory.visit(&visit),
            None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let mut factory = RowFactory::Tuple;
        if let Some(mut state) = self.state.try_lock() {
            std::mem::swap(&mut factory, &mut state.factory);
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(run) = self.state.get_mut().run.take()
            && let Ok(core) = self.connection.get().core()
        {
            core.end(run);
        }
    }
}
