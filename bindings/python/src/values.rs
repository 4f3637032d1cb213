//! Values from Python to SQLite, without a stop in between, and by the rules of the standard library's sqlite3.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::{
    exceptions::{PyOverflowError, PyTypeError},
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{
        PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyMemoryView, PyString, PyTuple,
        PyType,
    },
};
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::{
    cache::Prepared,
    errors::{self, ProgrammingError},
    program_code,
};

/// A value that is not kept bound to a statement in the cache.
const HEAVY: usize = 64 << 10;

/// `adapters` and `converters` of the module: dictionaries by type, and by name in upper case.
pub(crate) struct Registry {
    pub adapters: Py<PyDict>,
    pub converters: Py<PyDict>,
    protocol: Py<PyType>,
}

static REGISTRY: PyOnceLock<Registry> = PyOnceLock::new();

/// Names for what adapters and converters are kept under.
pub(crate) fn registry(py: Python<'_>) -> PyResult<&'static Registry> {
    REGISTRY.get_or_try_init(py, || {
        Ok(Registry {
            adapters: PyDict::new(py).unbind(),
            converters: PyDict::new(py).unbind(),
            protocol: py.get_type::<PrepareProtocol>().unbind(),
        })
    })
}

/// What `__conform__` of an object that is to be stored is called with.
#[pyclass(frozen, subclass, module = "turso")]
pub(crate) struct PrepareProtocol;

#[pymethods]
impl PrepareProtocol {
    #[new]
    fn new() -> Self {
        Self
    }
}

/// Whether a type that SQLite has was given an adapter.
static BASIC_TYPES_ARE_ADAPTED: AtomicBool = AtomicBool::new(false);

/// Also asks for adapters of types that SQLite has, from now on.
pub(crate) fn adapt_basic_types() {
    BASIC_TYPES_ARE_ADAPTED.store(true, Ordering::Relaxed);
}

/// Turns an object into something else by an adapter, by `__adapt__` of the protocol, or by its own `__conform__`.
pub(crate) fn adapt<'py>(
    value: &Bound<'py, PyAny>,
    protocol: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    let adapters = registry(py)?.adapters.bind(py);
    if let Some(adapter) = adapters.get_item((value.get_type(), protocol))? {
        return program_code::call(&adapter, (value,)).map(Some);
    }
    let not_adapted = |error: PyErr| match error.is_instance_of::<PyTypeError>(py) {
        true => Ok(py.None().into_bound(py)),
        false => Err(error),
    };
    if let Some(adapts) = protocol.getattr_opt(intern!(py, "__adapt__"))? {
        let adapted = program_code::call(&adapts, (value,)).or_else(not_adapted)?;
        if !adapted.is_none() {
            return Ok(Some(adapted));
        }
    }
    if let Some(conforms) = value.getattr_opt(intern!(py, "__conform__"))? {
        let adapted = program_code::call(&conforms, (protocol,)).or_else(not_adapted)?;
        if !adapted.is_none() {
            return Ok(Some(adapted));
        }
    }
    Ok(None)
}

/// What is stored for an object, by the protocol of storing.
fn adapted_for_storing<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    adapt(value, registry(py)?.protocol.bind(py).as_any())
}

/// Binds all parameters of a statement.
pub(crate) fn bind_all(prepared: &mut Prepared, given: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let wanted = prepared.parameters;
    let Some(given) = given else {
        return expect(wanted, 0);
    };
    if let Ok(tuple) = given.cast_exact::<PyTuple>() {
        expect(wanted, tuple.len())?;
        return tuple
            .iter_borrowed()
            .enumerate()
            .try_for_each(|(i, value)| bind(prepared, i + 1, &value));
    }
    if given.is_instance_of::<PyDict>() || !is_sequence(given)? && given.cast::<PyMapping>().is_ok() {
        return bind_named(prepared, given);
    }
    if !is_sequence(given)? {
        return Err(ProgrammingError::new_err("parameters are of unsupported type"));
    }
    expect(wanted, given.len()?)?;
    (0..wanted).try_for_each(|i| {
        let index = i.into_pyobject(given.py())?;
        bind(prepared, i + 1, &program_code::item(given, &index)?)
    })
}

fn is_sequence(given: &Bound<'_, PyAny>) -> PyResult<bool> {
    if given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>() {
        return Ok(true);
    }
    let py = given.py();
    Ok(!given.is_instance_of::<PyDict>()
        && given.hasattr(intern!(py, "__len__"))?
        && given.hasattr(intern!(py, "__getitem__"))?
        && !given.hasattr(intern!(py, "keys"))?)
}

fn expect(wanted: usize, given: usize) -> PyResult<()> {
    if wanted == given {
        return Ok(());
    }
    Err(ProgrammingError::new_err(format!(
        "Incorrect number of bindings supplied. The current statement uses {wanted}, and there are {given} supplied."
    )))
}

fn bind_named(prepared: &mut Prepared, given: &Bound<'_, PyAny>) -> PyResult<()> {
    for index in 1..=prepared.parameters {
        let Some(name) = prepared.statement.parameter_name(index) else {
            return Err(ProgrammingError::new_err(format!(
                "Binding {index} has no name, but you supplied a dictionary (which has only names)."
            )));
        };
        let missing = || {
            ProgrammingError::new_err(format!(
                "You did not supply a value for binding parameter {name}."
            ))
        };
        let key = PyString::new(given.py(), &name[1..]);
        let value = match given.cast_exact::<PyDict>() {
            Ok(dict) => dict.get_item(&key)?.ok_or_else(missing)?,
            Err(_) => match program_code::item(given, &key) {
                Ok(value) => value,
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyLookupError>(given.py()) => {
                    return Err(missing());
                }
                Err(error) => return Err(error),
            },
        };
        bind(prepared, index, &value)?;
    }
    Ok(())
}

fn bind(prepared: &mut Prepared, index: usize, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if !BASIC_TYPES_ARE_ADAPTED.load(Ordering::Relaxed) && bind_basic(prepared, index, value, true)? {
        return Ok(());
    }
    let adapted = adapted_for_storing(value)?;
    let value = adapted.as_ref().unwrap_or(value);
    if bind_basic(prepared, index, value, false)? {
        return Ok(());
    }
    let type_name = value.get_type().name()?;
    Err(ProgrammingError::new_err(format!(
        "Error binding parameter {index}: type '{type_name}' is not supported"
    )))
}

/// Binds a value of a type that SQLite has; false when it is none. `exactly`: subclasses are none, for they may have an
/// adapter.
fn bind_basic(
    prepared: &mut Prepared,
    index: usize,
    value: &Bound<'_, PyAny>,
    exactly: bool,
) -> PyResult<bool> {
    if value.is_none() {
        put(prepared, index, value, ValueRef::Null)?;
    } else if value.is_exact_instance_of::<PyInt>() || !exactly && value.is_instance_of::<PyInt>() {
        put(prepared, index, value, ValueRef::Integer(integer(value)?))?;
    } else if let Some(text) = as_type::<PyString>(value, exactly) {
        put(prepared, index, value, ValueRef::Text(text.to_str()?.as_bytes()))?;
    } else if let Some(float) = as_type::<PyFloat>(value, exactly) {
        put(prepared, index, value, ValueRef::Real(float.value()))?;
    } else if let Some(bytes) = as_type::<PyBytes>(value, exactly) {
        put(prepared, index, value, ValueRef::Blob(bytes.as_bytes()))?;
    } else if exactly {
        return Ok(false);
    } else if let Ok(bytes) = value.cast::<PyByteArray>() {
        put(prepared, index, value, ValueRef::Blob(&bytes.to_vec()))?;
    } else if value.hasattr(intern!(value.py(), "__index__"))? {
        let number = program_code::call_method(value, "__index__", ())?;
        put(prepared, index, value, ValueRef::Integer(integer(&number)?))?;
    } else if let Some(bytes) = buffer(value)? {
        put(prepared, index, value, ValueRef::Blob(bytes.as_bytes()))?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// The bytes of what can be looked at as memory; `None` also for one number of an array library: its bytes are not what
/// anybody wants to store.
fn buffer<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let Ok(view) = PyMemoryView::from(value) else {
        return Ok(None);
    };
    if view.getattr(intern!(value.py(), "ndim"))?.extract::<usize>()? == 0 {
        return Ok(None);
    }
    let bytes = view.call_method0(intern!(value.py(), "tobytes"))?;
    Ok(Some(bytes.cast_into::<PyBytes>()?))
}

fn as_type<'a, 'py, T: pyo3::PyTypeInfo + pyo3::PyTypeCheck>(
    value: &'a Bound<'py, PyAny>,
    exactly: bool,
) -> Option<&'a Bound<'py, T>> {
    if exactly {
        value.cast_exact::<T>().ok()
    } else {
        value.cast::<T>().ok()
    }
}

fn integer(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    value.extract::<i64>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyOverflowError::new_err("Python int too large to convert to SQLite INTEGER")
        } else {
            error
        }
    })
}

fn put(prepared: &mut Prepared, index: usize, value: &Bound<'_, PyAny>, sql: ValueRef<'_>) -> PyResult<()> {
    if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = sql {
        prepared.heavy |= bytes.len() > HEAVY;
    }
    prepared
        .statement
        .bind(index, ToSqlOutput::Borrowed(sql))
        .map_err(|error| errors::raise(value.py(), error))
}

/// A value of the engine as a Python object, for a `transform` function.
pub(crate) fn to_object<'py>(
    py: Python<'py>,
    value: &partial_sync::change::Value,
) -> PyResult<Bound<'py, PyAny>> {
    use partial_sync::change::Value;
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Integer(value) => value.into_pyobject(py)?.into_any(),
        Value::Real(value) => PyFloat::new(py, *value).into_any(),
        Value::Text(text) => PyString::new(py, text).into_any(),
        Value::RawText(bytes) | Value::Blob(bytes) => PyBytes::new(py, bytes).into_any(),
    })
}

/// A Python object as a value of the engine, for what a `transform` function gives.
pub(crate) fn from_object(value: &Bound<'_, PyAny>) -> PyResult<partial_sync::change::Value> {
    use partial_sync::change::Value;
    let adapted = adapted_for_storing(value)?;
    let value = adapted.as_ref().unwrap_or(value);
    if value.is_none() {
        Ok(Value::Null)
    } else if value.is_instance_of::<PyInt>() {
        Ok(Value::Integer(integer(value)?))
    } else if let Ok(float) = value.cast::<PyFloat>() {
        Ok(Value::Real(float.value()))
    } else if let Ok(text) = value.cast::<PyString>() {
        Ok(Value::Text(text.to_str()?.to_owned()))
    } else if let Some(bytes) = buffer(value)? {
        Ok(Value::Blob(bytes.as_bytes().to_vec()))
    } else {
        Err(PyTypeError::new_err(format!(
            "type '{}' is not supported",
            value.get_type().name()?
        )))
    }
}
