//! What a benchmark may fail with.

/// Anything that stops a benchmark: it is reported and that is all.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
