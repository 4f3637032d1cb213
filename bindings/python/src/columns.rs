//! The columns of a result: their names, and the DB-API's description of them.

use partial_sync::{Error, Statement};
use pyo3::{prelude::*, sync::PyOnceLock, types::PyTuple};

/// The columns of one statement.
pub(crate) struct Columns {
    pub names: Vec<String>,
    /// Declared types, for converters.
    pub types: Vec<Option<String>>,
    description: PyOnceLock<Py<PyTuple>>,
    short_description: PyOnceLock<Py<PyTuple>>,
}

impl Columns {
    pub(crate) fn of(statement: &Statement) -> Result<Self, Error> {
        let names = statement.column_names()?;
        let types = (0..names.len())
            .map(|i| statement.column_decltype(i))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            names,
            types,
            description: PyOnceLock::new(),
            short_description: PyOnceLock::new(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Seven values for each column, of which only the first, the name, means something. With `short_names` what follows
    /// a `[` belongs to the converter and not to the name.
    pub(crate) fn description<'py>(
        &self,
        py: Python<'py>,
        short_names: bool,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let kept = if short_names {
            &self.short_description
        } else {
            &self.description
        };
        let description = kept.get_or_try_init(py, || {
            let none = || py.None();
            let columns = self
                .names
                .iter()
                .map(|name| if short_names { short(name) } else { name })
                .map(|name| (name, none(), none(), none(), none(), none(), none()).into_pyobject(py))
                .collect::<PyResult<Vec<_>>>()?;
            PyTuple::new(py, columns).map(Bound::unbind)
        })?;
        Ok(Some(description.bind(py).clone()))
    }

    /// The index of a column by its name, letters of either case being the same.
    pub(crate) fn index_of(&self, name: &str, short_names: bool) -> Option<usize> {
        self.names
            .iter()
            .map(|known| if short_names { short(known) } else { known })
            .position(|known| known.eq_ignore_ascii_case(name))
    }
}

/// `x` of `x [date]`.
pub(crate) fn short(name: &str) -> &str {
    match name.split_once('[') {
        Some((before, _)) => before.trim_end_matches(' '),
        None => name,
    }
}
