//! What a row becomes when it is handed out.

use pyo3::{PyTraverseError, PyVisit, prelude::*};

use crate::row::Row;

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
