//! The `tracing` option: what the engine logs goes to standard error.

use napi_derive::napi;
use tracing_subscriber::filter::LevelFilter;

/// Begins to log at this level (`error` to `trace`). The first call in a process decides.
#[napi]
pub fn log_to_stderr(level: String) -> bool {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .try_init()
        .is_ok()
}
