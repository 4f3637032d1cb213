//! Calls of the program's own code.
//!
//! Up to Python 3.13 a daemon thread that wants the GIL back when the interpreter has ended is ended by unwinding its stack,
//! which frames of Rust do not survive: they free objects, give the GIL back and catch what must not be caught. Such a thread
//! stops where it is instead, as it does in Python 3.14, and in PyO3's own waits for the GIL.
//!
//! The compiler takes it that Python's functions do not unwind, and a frame that calls one and has something to clean up ends the
//! process when they do. So each is called from a function that has nothing to clean up, and that function through a pointer of
//! which the compiler does not know what it points to: the frame that stops the thread has nothing inlined into it.

use std::hint::black_box;

use pyo3::{
    prelude::*,
    types::{PyIterator, PyTuple},
};

/// Calls a function of the program.
pub(crate) fn call<'py, A>(function: &Bound<'py, PyAny>, arguments: A) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error: Into<PyErr>>,
{
    fn work<'py>(
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        function.call1(arguments)
    }
    let arguments = arguments.into_pyobject(function.py()).map_err(Into::into)?;
    run(work, function, &arguments)
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

/// An element of a sequence or mapping of the program.
pub(crate) fn item<'py>(of: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    fn work<'py>(of: &Bound<'py, PyAny>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        of.get_item(key)
    }
    run(work, of, key)
}

/// What an iterator of the program gives next.
pub(crate) fn next<'py>(of: &mut Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    fn work<'py>(of: &mut Bound<'py, PyIterator>, (): ()) -> Option<PyResult<Bound<'py, PyAny>>> {
        of.next()
    }
    run(work, of, ())
}

/// Does what may run code of the program.
fn run<A, B, T>(work: fn(A, B) -> T, a: A, b: B) -> T {
    let stop = StopsHere;
    let result = black_box(work)(a, b);
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
