//! `turso.Cursor`: runs statements and hands out their rows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyTypeError,
    prelude::*,
    types::{PyDict, PyIterator, PyList, PyString, PyTuple, PyType},
};

use crate::{
    columns::Columns,
    connection::{Connection, PARSE_COLNAMES},
    core::{self, Executed, Next, RunId, State},
    errors::ProgrammingError,
    row::Row,
    values::{Converters, Reader, bind_all},
};

/// Rows that the first piece of a `fetchall` reads without the GIL; each next piece reads four times as many.
const FIRST_PIECE: usize = 16;
const LARGEST_PIECE: usize = 1024;

/// What a row becomes.
pub(crate) enum RowFactory {
    /// A tuple.
    Tuple,
    /// A [`Row`].
    Row,
    /// What this function makes of cursor and tuple.
    Call(Py<PyAny>),
}

impl RowFactory {
    pub(crate) fn of(value: &Bound<'_, PyAny>) -> Self {
        if value.is_none() {
            Self::Tuple
        } else if value.is(value.py().get_type::<Row>()) {
            Self::Row
        } else {
            Self::Call(value.clone().unbind())
        }
    }

    pub(crate) fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Tuple => py.None(),
            Self::Row => py.get_type::<Row>().into_any().unbind(),
            Self::Call(callable) => callable.clone_ref(py),
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Tuple => Self::Tuple,
            Self::Row => Self::Row,
            Self::Call(callable) => Self::Call(callable.clone_ref(py)),
        }
    }

    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Call(callable) => visit.call(callable),
            _ => Ok(()),
        }
    }
}

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

    /// Runs a statement with parameters, after what this cursor ran before has ended.
    pub(crate) fn run(
        &self,
        py: Python<'_>,
        sql: &Bound<'_, PyString>,
        given: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        let core = owner.core()?;
        let text = sql.to_str()?;
        let mut state = core.lock(py)?;
        if let Some(run) = self.forget() {
            let state: &mut State = &mut state;
            py.detach(|| state.end(run));
        }
        let executed = self.execute_on(py, &mut state, text, given)?;
        drop(state);
        self.take_over(py, executed)
    }

    fn execute_on(
        &self,
        py: Python<'_>,
        state: &mut State,
        sql: &str,
        given: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Executed>> {
        let owner = self.owner();
        let mut again = true;
        loop {
            let Some(mut prepared) = state.prepare(py, sql).map_err(|e| owner.explain(py, e))? else {
                return Ok(None);
            };
            if let Err(error) = bind_all(&mut prepared, given) {
                state.give_back(prepared);
                return Err(error);
            }
            let begin = owner.begin_for(&prepared, state);
            if let Some(tracer) = owner.tracer(py) {
                if let Some(begin) = begin {
                    Connection::trace(py, &tracer, begin);
                }
                let sql = prepared.statement.expanded_sql();
                Connection::trace(py, &tracer, sql.as_deref().unwrap_or(&prepared.sql));
            }
            match py.detach(|| state.execute(prepared, begin)) {
                Ok(executed) => return Ok(Some(executed)),
                // A statement from the cache may have been prepared for a schema that is no more.
                Err(error) if again && core::is_schema_error(&error) => again = false,
                Err(error) => return Err(owner.raise(py, error)),
            }
        }
    }

    /// Forgets the last result, and says what is to be ended.
    fn forget(&self) -> Option<RunId> {
        let mut state = self.state.lock();
        state.columns = None;
        state.converters = None;
        state.changed = -1;
        state.run.take()
    }

    fn take_over(&self, py: Python<'_>, executed: Option<Executed>) -> PyResult<()> {
        let Some(executed) = executed else { return Ok(()) };
        let converters = match self.owner().detect_types() {
            0 => None,
            detect => crate::converters::of(py, &executed.columns, detect)?,
        };
        let mut state = self.state.lock();
        state.run = executed.run;
        state.columns = Some(executed.columns);
        state.converters = converters;
        state.changed = executed.changed;
        state.last_rowid = Some(executed.last_rowid);
        Ok(())
    }

    /// The next row as a tuple.
    fn next_tuple<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.check()?;
        let core = self.owner().core()?;
        let (run, columns, converters) = {
            let state = self.state.lock();
            let (Some(run), Some(columns)) = (state.run, &state.columns) else {
                drop(state);
                core.check_open()?;
                return Ok(None);
            };
            (run, columns.clone(), state.converters.clone())
        };
        let text = self.owner().text_factory(py);
        let mut state = core.lock(py)?;
        if !state.is_next_known(run) {
            let state: &mut State = &mut state;
            if let Err(error) = py.detach(|| state.step(run)) {
                self.forget_run();
                state.end(run);
                return Err(self.owner().raise(py, error));
            }
        }
        let reader = Reader {
            columns: &columns,
            text: &text,
            converters: converters.as_ref(),
        };
        let held = state.connection.hold();
        let tuple = match state.next(run) {
            Next::Here(statement) => reader.tuple(py, statement)?,
            Next::Kept(rows) => reader.tuple(py, rows)?,
            Next::None => {
                drop(held);
                self.forget_run();
                state.end(run);
                return Ok(None);
            }
        };
        drop(held);
        state.advance(run);
        Ok(Some(tuple))
    }

    fn forget_run(&self) -> Option<RunId> {
        self.state.lock().run.take()
    }

    /// The next rows as tuples.
    fn next_tuples<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let mut tuples = Vec::new();
        let mut piece = FIRST_PIECE;
        while tuples.len() < most {
            // The row that the statement stands on, or that was kept.
            match self.next_tuple(py)? {
                Some(tuple) => tuples.push(tuple),
                None => break,
            }
            let wanted = piece.min(most - tuples.len());
            piece = (piece * 4).min(LARGEST_PIECE);
            self.read_piece(py, wanted, &mut tuples)?;
        }
        Ok(tuples)
    }

    /// Reads rows without the GIL and then makes tuples of them.
    fn read_piece<'py>(
        &self,
        py: Python<'py>,
        most: usize,
        tuples: &mut Vec<Bound<'py, PyTuple>>,
    ) -> PyResult<()> {
        let core = self.owner().core()?;
        let (run, columns, converters) = {
            let state = self.state.lock();
            let (Some(run), Some(columns)) = (state.run, &state.columns) else {
                return Ok(());
            };
            (run, columns.clone(), state.converters.clone())
        };
        let text = self.owner().text_factory(py);
        let mut state = core.lock(py)?;
        let state: &mut State = &mut state;
        if let Err(error) = py.detach(|| state.read_ahead(run, most)) {
            self.forget_run();
            state.end(run);
            return Err(self.owner().raise(py, error));
        }
        let reader = Reader {
            columns: &columns,
            text: &text,
            converters: converters.as_ref(),
        };
        let mut rows = std::mem::take(&mut state.ahead);
        while rows.remaining() > 0 {
            tuples.push(reader.tuple(py, &rows)?);
            rows.advance();
        }
        state.ahead = rows;
        Ok(())
    }

    /// What the row factory makes of a tuple.
    fn row<'py>(slf: &Bound<'py, Self>, tuple: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let state = this.state.lock();
        match &state.factory {
            RowFactory::Tuple => Ok(tuple.into_any()),
            RowFactory::Row => {
                let columns = state.columns.clone();
                drop(state);
                let Some(columns) = columns else {
                    return Ok(tuple.into_any());
                };
                Ok(Bound::new(py, Row::of(tuple.unbind(), columns, this.short_names()))?.into_any())
            }
            RowFactory::Call(callable) => {
                let callable = callable.clone_ref(py);
                drop(state);
                callable.bind(py).call1((slf, tuple))
            }
        }
    }

    fn rows<'py>(slf: &Bound<'py, Self>, most: usize) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let tuples = slf.get().next_tuples(py, most)?;
        if matches!(slf.get().state.lock().factory, RowFactory::Tuple) {
            return PyList::new(py, tuples);
        }
        let rows = tuples
            .into_iter()
            .map(|tuple| Self::row(slf, tuple))
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
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
        // Nothing to fetch is no reason to use a closed cursor.
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
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.owner().check_thread()?;
        self.closed.store(true, Ordering::Relaxed);
        // What it tells of its last statement stays: programs ask for `rowcount` afterwards.
        if let Some(run) = self.forget_run() {
            self.owner().core()?.end(py, run);
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

impl Cursor {
    fn run_many(&self, py: Python<'_>, sql: &Bound<'_, PyString>, all: &Bound<'_, PyAny>) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        let core = owner.core()?;
        let text = sql.to_str()?;
        if let Some(run) = self.forget() {
            core.end(py, run);
        }
        let all: Bound<'_, PyIterator> = all.try_iter()?;
        let is_dml = {
            let mut state = core.lock(py)?;
            let Some(prepared) = state.prepare(py, text).map_err(|e| owner.explain(py, e))? else {
                return Ok(());
            };
            let (is_dml, reads) = (prepared.is_dml, prepared.reads);
            state.give_back(prepared);
            if reads {
                return Err(ProgrammingError::new_err(
                    "executemany() can only execute DML statements.",
                ));
            }
            is_dml
        };
        let mut changed = 0;
        for given in all {
            // The iterator may use the connection, so it is not held while the iterator runs.
            let given = given?;
            let mut state = core.lock(py)?;
            let Some(executed) = self.execute_on(py, &mut state, text, Some(&given))? else {
                continue;
            };
            changed += executed.changed.max(0);
            if let Some(run) = executed.run {
                state.end(run);
            }
        }
        if is_dml {
            self.state.lock().changed = changed;
        }
        Ok(())
    }
}

impl Cursor {
    fn run_script(&self, py: Python<'_>, sql: &str) -> PyResult<()> {
        self.check()?;
        let owner = self.owner();
        if owner.is_legacy() {
            owner.commit(py)?;
        }
        let tracer = owner.tracer(py);
        let mut state = owner.core()?.lock(py)?;
        let state: &mut State = &mut state;
        let Some(tracer) = tracer else {
            return py
                .detach(|| state.script(sql))
                .map_err(|error| owner.raise(py, error));
        };
        let mut rest = sql;
        while !rest.is_empty() {
            let (statement, tail) = py
                .detach(|| state.connection.prepare_first(rest))
                .map_err(|error| owner.raise(py, error))?;
            if let Some(mut statement) = statement {
                Connection::trace(py, &tracer, &statement.expanded_sql().unwrap_or_default());
                py.detach(|| statement.execute(()))
                    .map_err(|error| owner.raise(py, error))?;
            }
            rest = &rest[tail..];
        }
        Ok(())
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(run) = self.state.get_mut().run.take()
            && let Ok(core) = self.connection.get().core()
        {
            Python::attach(|py| core.end(py, run));
        }
    }
}

/// The type of a cursor that is asked for: made by `factory`, or the usual one.
pub(crate) fn make<'py>(
    connection: &Bound<'py, Connection>,
    factory: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = connection.py();
    let row_factory = connection.get().row_factory_for_cursors(py);
    let Some(factory) = factory else {
        return Ok(Bound::new(py, Cursor::new(connection.clone().unbind(), row_factory))?.into_any());
    };
    let cursor = factory.call1((connection,))?;
    let Ok(made) = cursor.cast::<Cursor>() else {
        return Err(PyTypeError::new_err(format!(
            "factory must return a cursor, not {}",
            cursor.get_type().name()?
        )));
    };
    if !matches!(row_factory, RowFactory::Tuple) {
        made.get().state.lock().factory = row_factory;
    }
    Ok(cursor)
}
