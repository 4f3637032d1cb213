//! Calls of the program's own code.
//!
//! Up to Python 3.13 a daemon thread that wants the GIL back when the interpreter has ended is ended by unwinding its stack,
//! which frames of Rust do not survive: they free objects, give the GIL back and catch what must not be caught. Such a thread
//! stops where it is instead, as it does in Python 3.14, and in PyO3's own waits for the GIL.

use pyo3::{prelude::*, types::PyTuple};

/// Calls a function of the program.
pub(crate) fn call<'py, A>(function: &Bound<'py, PyAny>, arguments: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
{
    let arguments = arguments.into_pyobject(function.py()).map_err(Into::into)?;
    run(|| function.call1(&arguments))
}

/// Calls a method of an object of the program.
pub(crate) fn call_method<'py, A>(
    object: &Bound<'py, PyAny>,
    name: &str,
    arguments: A,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
{
    call(&object.getattr(name)?, arguments)
}

/// Does what may run code of the program and frees no object on the way.
pub(crate) fn run<T>(work: impl FnOnce() -> T) -> T {
    let stop = StopsHere;
    let result = work();
    std::mem::forget(stop);
    result
}

struct StopsHere;

impl Drop for StopsHere {
    fn drop(&mut self) {
        // A panic is not the end of the thread.
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}
