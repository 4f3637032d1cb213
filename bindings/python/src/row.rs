//! `turso.Row`: a row that can be asked by index and by name.

use std::sync::Arc;

use pyo3::{
    basic::CompareOp,
    exceptions::{PyIndexError, PyTypeError},
    prelude::*,
    types::{PyIterator, PyList, PySlice, PyString, PyTuple},
};

use crate::columns::{Columns, short};

/// A row of a result: a sequence whose values can also be had by column name, in any case of letters. Set it as the
/// `row_factory` of a connection or cursor.
#[pyclass(frozen, sequence, subclass, weakref, module = "turso")]
pub(crate) struct Row {
    values: Py<PyTuple>,
    columns: Option<Arc<Columns>>,
    short_names: bool,
}

impl Row {
    pub(crate) fn of(values: Py<PyTuple>, columns: Option<Arc<Columns>>, short_names: bool) -> Self {
        Self {
            values,
            columns,
            short_names,
        }
    }

    fn names<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let names = self.columns.iter().flat_map(|columns| &columns.names);
        PyList::new(
            py,
            names
                .map(|name| if self.short_names { short(name) } else { name })
                .collect::<Vec<_>>(),
        )
    }
}

#[pymethods]
impl Row {
    /// The names of the columns.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.names(py)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.values.bind(py).len()
    }

    fn __getitem__<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let values = self.values.bind(key.py());
        if let Ok(name) = key.cast::<PyString>() {
            let name = name.to_str()?;
            let found = self
                .columns
                .as_ref()
                .and_then(|columns| columns.index_of(name, self.short_names))
                .and_then(|index| values.get_item(index).ok());
            return found.ok_or_else(|| PyIndexError::new_err("No item with that key"));
        }
        if key.is_instance_of::<PySlice>() || key.hasattr("__index__")? {
            return values.as_any().get_item(key);
        }
        Err(PyIndexError::new_err("Index must be int or string"))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.values.bind(py).try_iter()
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        let names = PyTuple::new(py, self.names(py)?.iter())?;
        Ok(names.hash()? ^ self.values.bind(py).hash()?)
    }

    fn __richcmp__<'py>(&self, other: &Bound<'py, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let (Ok(other), CompareOp::Eq | CompareOp::Ne) = (other.cast::<Row>(), op) else {
            return Ok(py.NotImplemented());
        };
        let other = other.get();
        let equal =
            self.names(py)?.eq(other.names(py)?)? && self.values.bind(py).eq(other.values.bind(py))?;
        Ok((equal == matches!(op, CompareOp::Eq))
            .into_pyobject(py)?
            .to_owned()
            .into_any()
            .unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<turso.Row {}>", self.values.bind(py).repr()?))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("cannot pickle 'turso.Row' object"))
    }
}
