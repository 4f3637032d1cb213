//! Atomics: the standard library's, or, with the feature `shuttle`, those of a scheduler that tries interleavings. Anyone who
//! shares memory between threads in this crate takes them from here.

#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
