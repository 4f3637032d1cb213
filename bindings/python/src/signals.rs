//! Ctrl-C while something waits: code that waits asks here, on the thread that called, whether a signal handler raised.

use std::cell::{Cell, RefCell};

use partial_sync_vfs::sqlite::context;
use pyo3::{prelude::*, sync::PyOnceLock};

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
