//! Locks of a replica: those of `parking_lot`, or, with the feature `shuttle`, those of a scheduler that tries interleavings.
//! Only what belongs to one replica takes them from here; what is static cannot be the scheduler's.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

#[cfg(feature = "shuttle")]
pub(crate) use scheduled::{Condvar, Mutex, MutexGuard, RwLock};

/// The scheduler's locks in the form of `parking_lot`'s. Time does not pass there: a wait with a deadline ends when it is
/// notified or never, so that a notification that is missing shows as a deadlock.
#[cfg(feature = "shuttle")]
mod scheduled {
    use std::{
        ops::{Deref, DerefMut},
        time::{Duration, Instant},
    };

    use shuttle::sync;

    fn held<G>(result: Result<G, std::sync::PoisonError<G>>) -> G {
        result.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    /// Empty only while its condition variable is waited for.
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(held(self.0.lock())))
        }
    }

    const WAITING: &str = "a guard is only empty inside of a wait";

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect(WAITING)
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect(WAITING)
        }
    }

    #[derive(Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            held(self.0.read())
        }

        /// The scheduler knows no recursion, and says so.
        #[allow(dead_code, reason = "not everywhere in use")]
        pub(crate) fn read_recursive(&self) -> sync::RwLockReadGuard<'_, T> {
            self.read()
        }

        pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            held(self.0.write())
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar(sync::Condvar);

    pub(crate) struct Waited;

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> Waited {
            let inner = guard.0.take().expect(WAITING);
            guard.0 = Some(held(self.0.wait(inner)));
            Waited
        }

        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _time: Duration) -> Waited {
            self.wait_until(guard, Instant::now())
        }
    }
}
