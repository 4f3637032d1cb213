//! What a connection makes cursors with, and what makes a row of a cursor's tuple: methods of Python classes that cursors
//! are built on, so they are here, above both.

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyString, PyTuple},
};

use super::Cursor;
use crate::{connection::Connection, row::Row, row_factory::RowFactory};

#[pymethods]
impl Connection {
    /// A new cursor; `factory` makes it, given the connection.
    #[pyo3(signature = (factory=None))]
    fn cursor<'py>(
        slf: &Bound<'py, Self>,
        factory: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get().check_thread()?;
        slf.get().core()?.check_open()?;
        make(slf, factory)
    }

    /// Runs one statement on a new cursor and gives the cursor.
    #[pyo3(signature = (sql, parameters=None))]
    fn execute<'py>(
        slf: &Bound<'py, Self>,
        sql: &Bound<'py, PyString>,
        parameters: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let factory = slf.get().row_factory_for_cursors(py);
        let cursor = Bound::new(py, Cursor::new(slf.clone().unbind(), factory))?;
        cursor.get().run(py, sql, parameters)?;
        Ok(cursor.into_any())
    }

    /// Runs a statement once for each of the parameters, on a new cursor.
    #[pyo3(signature = (sql, parameters))]
    fn executemany<'py>(
        slf: &Bound<'py, Self>,
        sql: &Bound<'py, PyString>,
        parameters: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        make(slf, None)?.call_method1("executemany", (sql, parameters))
    }

    /// Commits the transaction that is open, and runs all statements of a script.
    #[pyo3(signature = (sql_script))]
    fn executescript<'py>(
        slf: &Bound<'py, Self>,
        sql_script: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        make(slf, None)?.call_method1("executescript", (sql_script,))
    }
}

#[pymethods]
impl Row {
    #[new]
    #[pyo3(signature = (cursor, data, /))]
    fn new(cursor: &Bound<'_, Cursor>, data: &Bound<'_, PyTuple>) -> Self {
        let (columns, short_names) = cursor.get().columns(cursor.py());
        Self::of(data.clone().unbind(), columns, short_names)
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
        let before = std::mem::replace(&mut made.get().state.lock().factory, row_factory);
        drop(before);
    }
    Ok(cursor)
}
