//! The native part of the Python package `turso`.

use pyo3::prelude::*;

#[pymodule]
fn _turso(_: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
