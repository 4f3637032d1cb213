//! The engine's table of options (docs/options.md) for `turso._options`: it says what is possible, and what to tell about the
//! rest.

use partial_sync::{
    Error as EngineError,
    options::{Given, Language, OptionError, OptionSpec},
};
use pyo3::{
    prelude::*,
    types::{PyBool, PyFloat, PyString},
};

use crate::errors;

/// Raises unless the value is possible. The option is found, and called, as Python spells it.
#[pyfunction]
fn _check_option(py: Python<'_>, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(option) = OptionSpec::find(Language::Python, name) else {
        return Ok(());
    };
    let text;
    let given = if let Ok(flag) = value.cast::<PyBool>() {
        Given::Flag(flag.is_true())
    } else if let Ok(string) = value.cast::<PyString>() {
        text = string.to_string_lossy();
        Given::Text(&text)
    } else if let Ok(number) = value.cast::<PyFloat>() {
        match Language::Python.is_in_seconds(name) {
            true => Given::Number(number.value()),
            false => Given::Other,
        }
    } else if value.hasattr("__index__")? {
        Given::Whole(whole(value)?)
    } else if value.is_callable() {
        Given::Function
    } else {
        Given::Other
    };
    match option.check(Language::Python, name, given, "") {
        Ok(()) => Ok(()),
        // Only now is it worth while to show it.
        Err(_) => {
            let shown = shown(value)?;
            (option.check(Language::Python, name, given, shown)).map_err(|error| raise(py, error))
        }
    }
}

/// An `int` that has no such number is beyond every range.
fn whole(value: &Bound<'_, PyAny>) -> PyResult<i128> {
    let number = value.call_method0("__index__")?;
    match number.extract() {
        Ok(number) => Ok(number),
        Err(_) if number.lt(0)? => Ok(i128::MIN),
        Err(_) => Ok(i128::MAX),
    }
}

fn shown(value: &Bound<'_, PyAny>) -> PyResult<String> {
    const MOST: usize = 100;
    let mut shown = value.repr()?.to_string_lossy().into_owned();
    if let Some((end, _)) = shown.char_indices().nth(MOST) {
        shown.truncate(end);
        shown.push_str("...");
    }
    Ok(shown)
}

fn raise(py: Python<'_>, error: OptionError) -> PyErr {
    errors::raise(py, EngineError::Option(error))
}

/// The exception for a value that only Python can tell is not possible.
#[pyfunction]
fn _wrong_option(py: Python<'_>, name: String, value: &Bound<'_, PyAny>, allowed: String) -> PyResult<PyErr> {
    let shown = shown(value)?;
    Ok(raise(py, OptionError::Type { name, shown, allowed }))
}

/// The exception for an option that was given twice, with different values.
#[pyfunction]
fn _same_option(py: Python<'_>, first: String, second: String) -> PyErr {
    raise(py, OptionError::Twice { first, second })
}

/// The text about an option that is not known.
#[pyfunction]
fn _unknown_option(name: &str, known: Vec<String>) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    OptionError::unknown(name, "", &known).to_string()
}

/// How a client that has no name of its own is called.
const CLIENT_NAME: &str = Language::Python.client_name();

/// Adds the functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_check_option, module)?)?;
    module.add_function(wrap_pyfunction!(_wrong_option, module)?)?;
    module.add_function(wrap_pyfunction!(_same_option, module)?)?;
    module.add_function(wrap_pyfunction!(_unknown_option, module)?)?;
    module.add("_client_name", CLIENT_NAME)
}
