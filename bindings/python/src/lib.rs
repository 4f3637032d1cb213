//! The native part of the Python package `turso`: connections, cursors and rows over the engine.
//!
//! `bindings/python/python/turso` is what people import; it checks options and adds what needs no speed.
#![forbid(unsafe_code)]

mod cache;
mod callbacks;
mod columns;
mod connection;
mod converters;
mod core;
mod cursor;
mod errors;
mod fork;
mod functions;
mod log;
mod open;
mod options;
mod program;
mod program_code;
mod reader;
mod row;
mod row_factory;
mod rows;
mod signals;
mod state;
mod turns;
mod values;
mod waits;

use pyo3::prelude::*;

/// Called in a child process after a fork.
#[pyfunction]
fn _after_fork_in_child() {
    fork::forked();
}

/// Turns an object into something else by a protocol; `None`: it cannot.
#[pyfunction]
#[pyo3(name = "_adapt")]
fn adapt<'py>(
    value: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    values::adapt(value, protocol)
}

/// A type that SQLite has was given an adapter.
#[pyfunction]
fn _adapt_basic_types() {
    values::adapt_basic_types();
}

/// Whether a statement is one whose `lastrowid` means something.
#[pyfunction]
fn _is_insert(sql: &str) -> bool {
    cache::begins_with(sql, &["INSERT", "REPLACE"])
}

#[pymodule]
fn _turso(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    errors::register(module)?;
    options::register(module)?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<cursor::Cursor>()?;
    module.add_class::<row::Row>()?;
    module.add_class::<values::PrepareProtocol>()?;
    module.add_function(wrap_pyfunction!(_after_fork_in_child, module)?)?;
    module.add_function(wrap_pyfunction!(_is_insert, module)?)?;
    module.add_function(wrap_pyfunction!(adapt, module)?)?;
    module.add_function(wrap_pyfunction!(_adapt_basic_types, module)?)?;
    module.add_function(wrap_pyfunction!(log::set_logger, module)?)?;
    let registry = values::registry(py)?;
    module.add("adapters", &registry.adapters)?;
    module.add("converters", &registry.converters)?;
    module.add("PARSE_DECLTYPES", connection::PARSE_DECLTYPES)?;
    module.add("PARSE_COLNAMES", connection::PARSE_COLNAMES)?;
    module.add("sqlite_version", rusqlite::version())?;
    module.add(
        "error_codes",
        partial_sync_vfs::sqlite::code_names::CODES
            .map(|(code, name)| (name, code))
            .to_vec(),
    )
}
