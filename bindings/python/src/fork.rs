//! What a process knows of the forks that made it: which connections are its parent's, and whether the engine's threads are.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use pyo3::prelude::*;

use crate::errors::ProgrammingError;

/// How often this process was forked, seen from the newest child.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Of which of these processes the threads are that the engine makes requests with; -1: there are none yet.
static ENGINE: AtomicI64 = AtomicI64::new(-1);

/// Called in a child process after a fork.
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How often it was forked: something made at another count is not of this process.
pub(crate) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Fails in a process that was forked from one that had replicas: it has the sockets of the engine's threads, but not the
/// threads, and using them would disturb the parent.
pub(crate) fn check_engine_is_of_this_process() -> PyResult<()> {
    let here = i64::from(FORKS.load(Ordering::Relaxed));
    match ENGINE.compare_exchange(-1, here, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Ok(()),
        Err(there) if there == here => Ok(()),
        Err(_) => Err(ProgrammingError::new_err(
            "replicas were used before os.fork(), so this child process cannot: start it with multiprocessing's \"spawn\" \
             or \"forkserver\", or open replicas after the fork only",
        )),
    }
}
