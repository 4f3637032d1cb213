//! Atomics and locks: the standard library's atomics and `parking_lot`'s lock, or, with the feature `shuttle`, those of a
//! scheduler that tries interleavings. Anyone who shares memory between threads in this crate takes them from here.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(feature = "shuttle")]
pub(crate) use scheduled::{Mutex, MutexGuard};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The scheduler's lock in the form of `parking_lot`'s.
#[cfg(feature = "shuttle")]
mod scheduled {
    pub(crate) use shuttle::sync::MutexGuard;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}
