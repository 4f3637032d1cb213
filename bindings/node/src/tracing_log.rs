//! The `tracing` option: what the engine logs goes to standard error.

use std::io::{IsTerminal, stderr};

use napi_derive::napi;
use tracing_subscriber::EnvFilter;

/// Begins to log at this level (`error` to `trace`). The first call in a process decides.
#[napi]
pub(crate) fn log_to_stderr(level: String) -> bool {
    // The names of this project's crates begin so; what libraries underneath say is left out.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(format!("partial_sync={level}")))
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .try_init()
        .is_ok()
}
