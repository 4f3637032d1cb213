//! Calls that may wait: they run without the GIL, and a signal handler that raises ends them.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use partial_sync::{CancelHandle, Error as EngineError};
use pyo3::prelude::*;

use crate::{
    errors,
    signals::{is_main_thread, take_raised},
};

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
