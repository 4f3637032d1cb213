//! The native part of the Python package `turso`: connections, cursors and rows over the engine.
//!
//! `bindings/python/python/turso` is what people import; it checks options and adds what needs no speed.
#![forbid(unsafe_code)]

mod cache;
mod columns;
mod connection;
mod converters;
mod core;
mod cursor;
mod error_codes;
mod errors;
mod log;
mod open;
mod row;
mod rows;
mod signals;
mod sql_text;
mod values;

use pyo3::prelude::*;

/// Called in a child process after a fork.
#[pyfunction]
fn _after_fork_in_child() {
    core::forked();
}

/// Turns an object into one of SQLite's types, by its adapter or its `__conform__`.
#[pyfunction]
#[pyo3(name = "_adapt")]
fn adapt<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    values::adapt(value)
}

#[pymodule]
fn _turso(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    errors::register(module)?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<cursor::Cursor>()?;
    module.add_class::<row::Row>()?;
    module.add_class::<values::PrepareProtocol>()?;
    module.add_function(wrap_pyfunction!(_after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(adapt, module)?)?;
    module.add_function(wrap_pyfunction!(log::set_logger, module)?)?;
    let registry = values::registry(py)?;
    module.add("adapters", &registry.adapters)?;
    module.add("converters", &registry.converters)?;
    module.add("PARSE_DECLTYPES", connection::PARSE_DECLTYPES)?;
    module.add("PARSE_COLNAMES", connection::PARSE_COLNAMES)?;
    module.add("sqlite_version", rusqlite::version())?;
    module.add(
        "error_codes",
        error_codes::CODES.map(|(code, name)| (name, code)).to_vec(),
    )
}
