//! How a function ends: errors and panics become a code and an error object.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crate::{
    boundary::Result,
    error::{PartialSyncCode, PartialSyncError},
    pipe,
};

/// Runs the body of a function: its error goes to `error` (null: only the code is told), and so does a panic.
///
/// `error` is set to null first, so that a caller need not do so between calls. An error object that it still owned is
/// not released: the pointer may just as well be uninitialised.
///
/// # Safety
/// `error` is null or writable.
pub(crate) unsafe fn call(
    error: *mut *mut PartialSyncError,
    body: impl FnOnce() -> Result<()>,
) -> PartialSyncCode {
    // What the body can leave half done is behind locks of the engine that know no poison, and its own state is
    // transactional: looking at it after a panic shows nothing that is not valid.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(PartialSyncError::new(failure)),
        Err(panic) => Some(PartialSyncError::panicked(&*panic)),
    };
    let code = failed.as_ref().map_or(PartialSyncCode::Ok, |e| e.code);
    if !error.is_null() {
        let owned = failed.map_or(ptr::null_mut(), |e| Box::into_raw(Box::new(e)));
        // SAFETY: not null, and the caller says that it is writable.
        unsafe { error.write(owned) };
    }
    code
}

/// The same for what may use the network on the caller's own thread (a statement does not: the engine's threads fetch).
///
/// # Safety
/// As for [`call`].
pub(crate) unsafe fn call_network(
    error: *mut *mut PartialSyncError,
    body: impl FnOnce() -> Result<()>,
) -> PartialSyncCode {
    // SAFETY: the caller says so.
    pipe::blocked(|| unsafe { call(error, body) })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::error::{partial_sync_error_code, partial_sync_error_free, partial_sync_error_message};

    #[test]
    fn a_panic_becomes_an_error_and_does_not_cross_the_boundary() {
        let mut error = ptr::dangling_mut();
        // SAFETY: `error` is a variable of this test; what it held is not looked at.
        let code = unsafe { call(&mut error, || panic!("page {} is on fire", 7)) };
        assert_eq!(code, PartialSyncCode::Internal);
        // SAFETY: the error was made by the call above and is released once.
        unsafe {
            assert_eq!(partial_sync_error_code(error), PartialSyncCode::Internal);
            let message = CStr::from_ptr(partial_sync_error_message(error));
            assert!(message.to_str().unwrap().ends_with("page 7 is on fire"));
            partial_sync_error_free(&mut error);
        }
        assert!(error.is_null());
    }

    #[test]
    fn success_sets_the_error_to_null() {
        let mut error = ptr::dangling_mut();
        // SAFETY: `error` is a variable of this test; what it held is not looked at.
        let code = unsafe { call(&mut error, || Ok(())) };
        assert_eq!(code, PartialSyncCode::Ok);
        assert!(error.is_null());
    }
}
