//! SQL functions and collations that are written in Python.
//!
//! They run in the middle of a statement, which has released the GIL, and take it again. What they raise becomes the
//! cause of the error that the statement fails with.

use std::{cmp::Ordering, panic::AssertUnwindSafe, sync::Arc};

use partial_sync::change::Value;
use partial_sync_vfs::sqlite::codes;
use pyo3::{
    exceptions::{PyMemoryError, PyOverflowError},
    prelude::*,
    types::PyTuple,
};
use rusqlite::{
    Error, ffi,
    functions::{Aggregate, Context, FunctionFlags, WindowAggregate},
    types::{ToSql, ToSqlOutput},
};

use crate::{
    callbacks::{Callbacks, Slot},
    program_code,
    values::{from_object, to_object},
};

/// A value that a function gives.
pub(crate) struct Given(Value);

impl ToSql for Given {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

/// Flags of a function.
pub(crate) fn flags(deterministic: bool) -> FunctionFlags {
    match deterministic {
        true => FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC,
        false => FunctionFlags::SQLITE_UTF8,
    }
}

/// Something that calls Python in the middle of a statement.
pub(crate) struct Function {
    pub callable: Arc<Slot>,
    pub callbacks: Arc<Callbacks>,
}

impl Function {
    /// Calls a function with the arguments of SQL.
    pub(crate) fn call(&self, context: &Context<'_>) -> rusqlite::Result<Given> {
        self.attached("user-defined function raised exception", |py| {
            let given = program_code::call(&self.callable.get(py)?, arguments(py, context)?)?;
            from_object(&given).map(Given)
        })
    }

    /// Which of two texts comes first. SQLite has no way to be told that this failed: anyone who stepped the statement asks
    /// [`Callbacks::is_disordered`].
    pub(crate) fn compare(&self, a: &str, b: &str) -> Ordering {
        if self.callbacks.is_disordered() {
            return Ordering::Equal;
        }
        Python::attach(|py| {
            let order = program_code::call(&self.callable.get(py)?, (a, b))?;
            if order.lt(0)? {
                Ok(Ordering::Less)
            } else if order.gt(0)? {
                Ok(Ordering::Greater)
            } else {
                Ok(Ordering::Equal)
            }
        })
        .unwrap_or_else(|error| {
            self.callbacks.disorder(error);
            Ordering::Equal
        })
    }

    fn attached<T>(&self, failed: &str, work: impl FnOnce(Python<'_>) -> PyResult<T>) -> rusqlite::Result<T> {
        Python::attach(|py| {
            work(py).map_err(|error| {
                // As the standard library has it.
                let code = if error.is_instance_of::<PyOverflowError>(py) {
                    Some(codes::TOOBIG)
                } else if error.is_instance_of::<PyMemoryError>(py) {
                    Some(codes::NOMEM)
                } else {
                    None
                };
                self.callbacks.raised(error);
                match code {
                    Some(code) => Error::SqliteFailure(ffi::Error::new(code), None),
                    None => Error::UserFunctionError(failed.into()),
                }
            })
        })
    }

    fn method(&self, object: &Py<PyAny>, name: &str) -> rusqlite::Result<Given> {
        self.attached(&raised(name), |py| {
            from_object(&program_code::call_method(object.bind(py), name, ())?).map(Given)
        })
    }

    fn method_with(&self, object: &Py<PyAny>, name: &str, context: &Context<'_>) -> rusqlite::Result<()> {
        self.attached(&raised(name), |py| {
            program_code::call_method(object.bind(py), name, arguments(py, context)?).map(drop)
        })
    }
}

fn raised(method: &str) -> String {
    format!("user-defined aggregate's '{method}' method raised error")
}

fn arguments<'py>(py: Python<'py>, context: &Context<'_>) -> PyResult<Bound<'py, PyTuple>> {
    let arguments = (0..context.len())
        .map(|i| to_object(py, &context.get_raw(i).into()))
        .collect::<PyResult<Vec<_>>>()?;
    PyTuple::new(py, arguments)
}

type Instance = AssertUnwindSafe<Py<PyAny>>;

impl Aggregate<Instance, Given> for Function {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Instance> {
        self.attached(&raised("__init__"), |py| {
            let instance = program_code::call(&self.callable.get(py)?, ())?;
            Ok(AssertUnwindSafe(instance.unbind()))
        })
    }

    fn step(&self, context: &mut Context<'_>, instance: &mut Instance) -> rusqlite::Result<()> {
        self.method_with(instance, "step", context)
    }

    fn finalize(&self, _: &mut Context<'_>, instance: Option<Instance>) -> rusqlite::Result<Given> {
        match instance {
            Some(instance) => self.method(&instance, "finalize"),
            None => Ok(Given(Value::Null)),
        }
    }
}

impl WindowAggregate<Instance, Given> for Function {
    fn value(&self, instance: Option<&mut Instance>) -> rusqlite::Result<Given> {
        match instance {
            Some(instance) => self.method(instance, "value"),
            None => Ok(Given(Value::Null)),
        }
    }

    fn inverse(&self, context: &mut Context<'_>, instance: &mut Instance) -> rusqlite::Result<()> {
        self.method_with(instance, "inverse", context)
    }
}
