//! SIGPIPE. Writing to a connection that the remote has closed sends it, and it ends a program that does nothing about
//! it. A Rust program ignores it from the start; a C program does not, and this library must not end it.
//!
//! So it is blocked on the threads that write: on the caller's during a call that may, and on the engine's own, which
//! inherit that from the thread that opens the first replica. The process' handler and mask are left as they are. Other
//! systems than Linux need nothing: there each connection is told not to send it.

/// Runs `call` with SIGPIPE blocked on this thread; one that came is thrown away.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn blocked<T>(call: impl FnOnce() -> T) -> T {
    call()
}

/// Runs `call` with SIGPIPE blocked on this thread; one that came is thrown away.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn blocked<T>(call: impl FnOnce() -> T) -> T {
    let _blocked = linux::Blocked::new();
    call()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::{mem::MaybeUninit, ptr};

    /// Blocks SIGPIPE on this thread until it is dropped; `None`: it was blocked already, and stays so.
    pub(super) struct Blocked(Option<libc::sigset_t>);

    fn sigpipe() -> libc::sigset_t {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set, and both get a valid pointer to it.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            set.assume_init()
        }
    }

    impl Blocked {
        pub(super) fn new() -> Self {
            let mut before = MaybeUninit::uninit();
            // SAFETY: both sets are valid; `before` is initialised where the call succeeds, and read only then.
            unsafe {
                if libc::pthread_sigmask(libc::SIG_BLOCK, &sigpipe(), before.as_mut_ptr()) != 0 {
                    return Self(None);
                }
                let before = before.assume_init();
                Self((libc::sigismember(&before, libc::SIGPIPE) == 0).then_some(before))
            }
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            let Some(before) = &self.0 else { return };
            let none = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: the sets and the time are valid. SIGPIPE was not blocked before, so one that waits now came
            // meanwhile; it is taken before the mask is put back.
            unsafe {
                while libc::sigtimedwait(&sigpipe(), ptr::null_mut(), &none) == libc::SIGPIPE {}
                libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut());
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn is_blocked() -> bool {
            let mut now = MaybeUninit::uninit();
            // SAFETY: asks for the mask, which the call initialises.
            unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), now.as_mut_ptr());
                libc::sigismember(now.as_ptr(), libc::SIGPIPE) == 1
            }
        }

        #[test]
        fn a_sigpipe_during_the_call_is_thrown_away_and_the_mask_put_back() {
            // SAFETY: the default handler would end this test program, which is what the test is about; nothing else
            // in it writes to pipes, and a blocked signal is not delivered.
            unsafe {
                let handler = libc::signal(libc::SIGPIPE, libc::SIG_DFL);
                super::super::blocked(|| {
                    assert!(is_blocked());
                    super::super::blocked(|| libc::raise(libc::SIGPIPE));
                    assert!(is_blocked(), "the inner one leaves it as it was");
                });
                libc::signal(libc::SIGPIPE, handler);
            }
            assert!(!is_blocked());
        }
    }
}
