//! Ctrl-C while something waits: code that waits asks here, on the thread that called, whether a signal handler raised.

use std::{
    cell::{Cell, RefCell},
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use partial_sync::{CancelHandle, Error as EngineError};
use partial_sync_vfs::sqlite::context;
use pyo3::{prelude::*, sync::PyOnceLock};

use crate::errors;

thread_local! {
    /// Whether this thread knows what it has to do about signals.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
    /// What a signal handler raised in the middle of a call that waits.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Sees to it that waits on this thread look for signals, if Python runs signal handlers on it.
pub(crate) fn watch_on_this_thread(py: Python<'_>) -> PyResult<()> {
    if !KNOWN.get() {
        KNOWN.set(true);
        if is_main_thread(py)? {
            context::set_watch(Some(has_raised));
        }
    }
    Ok(())
}

/// Whether Python runs signal handlers on this thread.
pub(crate) fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    static THREADING: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let threading = THREADING
        .get_or_try_init(py, || PyModule::import(py, "threading").map(Bound::unbind))?
        .bind(py);
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    main.eq(threading.call_method0("get_ident")?)
}

/// Runs the handlers of signals that came. True: one of them raised.
fn has_raised() -> bool {
    RAISED.with_borrow(Option::is_some)
        || Python::attach(|py| match py.check_signals() {
            Ok(()) => false,
            Err(error) => {
                RAISED.set(Some(error));
                true
            }
        })
}

/// What a signal handler raised while the call that just failed was waiting.
pub(crate) fn take_raised() -> Option<PyErr> {
    RAISED.take()
}

/// Does without the GIL what may wait. What a signal handler raised meanwhile goes before what the work gave.
pub(crate) fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, EngineError> + Send,
) -> PyResult<T> {
    let result = py.detach(work);
    match take_raised() {
        Some(raised) => Err(raised),
        None => result.map_err(|error| errors::raise(py, error)),
    }
}

/// How often a call that another thread does is looked after.
const POLL: Duration = Duration::from_millis(20);

/// Does work of the network without the GIL. On the thread that gets signals, another thread does the work, so that a
/// signal can break it.
pub(crate) fn breakable<T: Send>(
    py: Python<'_>,
    cancel: &CancelHandle,
    work: impl FnOnce() -> T + Send,
) -> PyResult<T> {
    if !is_main_thread(py)? {
        return Ok(py.detach(work));
    }
    let (result, raised) = py.detach(|| {
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The receiver waits for it below.
                let _ = sender.send(work());
            });
            let mut raised = None;
            loop {
                match receiver.recv_timeout(POLL) {
                    Ok(result) => return (Some(result), raised),
                    Err(RecvTimeoutError::Disconnected) => return (None, raised),
                    Err(RecvTimeoutError::Timeout) => {
                        if raised.is_none() {
                            raised = Python::attach(|py| py.check_signals().err());
                        }
                        // Again and again: what begins to wait after a cancel is not touched by it.
                        if raised.is_some() {
                            cancel.cancel();
                        }
                    }
                }
            }
        })
    });
    match (result, raised) {
        (_, Some(raised)) => Err(raised),
        (Some(result), None) => Ok(result),
        (None, None) => unreachable!("a panic of the work goes through the scope"),
    }
}
