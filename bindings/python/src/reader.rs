//! Rows from SQLite to Python, without a stop in between.

use std::sync::Arc;

use partial_sync::Statement;
use pyo3::{
    exceptions::PyUnicodeDecodeError,
    prelude::*,
    types::{PyByteArray, PyBytes, PyFloat, PyString, PyTuple},
};
use rusqlite::types::ValueRef;

use crate::{
    columns::Columns,
    errors::{self, OperationalError},
    program_code,
    rows::Rows,
};

/// What TEXT becomes.
pub(crate) enum TextFactory {
    Str,
    Bytes,
    ByteArray,
    Call(Py<PyAny>),
}

impl TextFactory {
    pub(crate) fn of(value: &Bound<'_, PyAny>) -> Self {
        let py = value.py();
        if value.is(py.get_type::<PyString>()) {
            Self::Str
        } else if value.is(py.get_type::<PyBytes>()) {
            Self::Bytes
        } else if value.is(py.get_type::<PyByteArray>()) {
            Self::ByteArray
        } else {
            Self::Call(value.clone().unbind())
        }
    }

    pub(crate) fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Str => py.get_type::<PyString>().into_any().unbind(),
            Self::Bytes => py.get_type::<PyBytes>().into_any().unbind(),
            Self::ByteArray => py.get_type::<PyByteArray>().into_any().unbind(),
            Self::Call(callable) => callable.clone_ref(py),
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Str => Self::Str,
            Self::Bytes => Self::Bytes,
            Self::ByteArray => Self::ByteArray,
            Self::Call(callable) => Self::Call(callable.clone_ref(py)),
        }
    }
}

/// Functions of the columns that have a converter.
pub(crate) type Converters = Arc<[Option<Py<PyAny>>]>;

/// How the values of a result become Python objects.
pub(crate) struct Reader<'r> {
    pub columns: &'r Columns,
    pub text: &'r TextFactory,
    pub converters: Option<&'r Converters>,
}

/// Something that stands on a row.
pub(crate) trait Source {
    /// A value of the row.
    fn value(&self, column: usize) -> Result<ValueRef<'_>, partial_sync::Error>;
}

impl Source for Statement {
    fn value(&self, column: usize) -> Result<ValueRef<'_>, partial_sync::Error> {
        Statement::value(self, column)
    }
}

impl Source for Rows {
    fn value(&self, column: usize) -> Result<ValueRef<'_>, partial_sync::Error> {
        Ok(Rows::value(self, column))
    }
}

impl Reader<'_> {
    /// The row as a tuple.
    pub(crate) fn tuple<'py>(&self, py: Python<'py>, row: &impl Source) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(
            py,
            (0..self.columns.len()).map(|column| Cell {
                reader: self,
                row,
                column,
            }),
        )
    }

    fn object<'py>(
        &self,
        py: Python<'py>,
        column: usize,
        value: ValueRef<'_>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(Some(converter)) = self.converters.map(|c| &c[column]) {
            return match as_bytes(value) {
                Some(bytes) => program_code::call(converter.bind(py), (PyBytes::new(py, &bytes),)),
                None => Ok(py.None().into_bound(py)),
            };
        }
        Ok(match value {
            ValueRef::Null => py.None().into_bound(py),
            ValueRef::Integer(value) => value.into_pyobject(py)?.into_any(),
            ValueRef::Real(value) => PyFloat::new(py, value).into_any(),
            ValueRef::Blob(bytes) => PyBytes::new(py, bytes).into_any(),
            ValueRef::Text(bytes) => match self.text {
                TextFactory::Str => match PyString::from_bytes(py, bytes) {
                    Ok(text) => text.into_any(),
                    Err(error) => return Err(self.undecodable(py, column, bytes, error)),
                },
                TextFactory::Bytes => PyBytes::new(py, bytes).into_any(),
                TextFactory::ByteArray => PyByteArray::new(py, bytes).into_any(),
                TextFactory::Call(callable) => {
                    program_code::call(callable.bind(py), (PyBytes::new(py, bytes),))?
                }
            },
        })
    }

    #[cold]
    fn undecodable(&self, py: Python<'_>, column: usize, bytes: &[u8], error: PyErr) -> PyErr {
        if !error.is_instance_of::<PyUnicodeDecodeError>(py) {
            return error;
        }
        let name = self.columns.names.get(column).map_or("", String::as_str);
        OperationalError::new_err(format!(
            "Could not decode to UTF-8 column '{name}' with text '{}'",
            String::from_utf8_lossy(bytes)
        ))
    }
}

/// What a converter is given: the value as SQLite would write it. Like NULL, nothing at all is not converted.
fn as_bytes(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null | ValueRef::Text([]) | ValueRef::Blob([]) => None,
        ValueRef::Integer(value) => Some(value.to_string().into_bytes()),
        ValueRef::Real(value) => Some(format!("{value:?}").into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

/// One value of a row, about to become an object.
struct Cell<'r, S> {
    reader: &'r Reader<'r>,
    row: &'r S,
    column: usize,
}

impl<'py, S: Source> IntoPyObject<'py> for Cell<'_, S> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = self
            .row
            .value(self.column)
            .map_err(|error| errors::raise(py, error))?;
        self.reader.object(py, self.column, value)
    }
}
