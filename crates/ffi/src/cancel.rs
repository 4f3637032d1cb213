//! The handle that stops network calls from elsewhere, made before there is a database: it reaches the first connect too.

use partial_sync::CancelHandle;

use crate::{
    boundary::{self, answer, give, quietly},
    call::call,
    error::{PartialSyncCode, PartialSyncError},
};

/// Stops the network calls of the database that is opened with it (`config.cancel`), `partial_sync_open` included, from
/// any thread at any time. It keeps nothing open, may outlive the database, and may be released before it.
#[derive(Debug)]
pub struct PartialSyncCancel {
    pub(crate) handle: CancelHandle,
}

const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<PartialSyncCancel>();
};

/// Puts a new one in `*cancel`. Release it with `partial_sync_cancel_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_cancel_new(
    cancel: *mut *mut PartialSyncCancel,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        unsafe {
            *answer(cancel, std::ptr::null_mut(), "cancel")? = give(PartialSyncCancel {
                handle: CancelHandle::new(),
            });
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Breaks the network waits of what runs now: opening, a pull, push, hydration or verification; that call fails with
/// `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched: where the call may be about to begin, repeat this
/// until it returns. Statements are broken with `partial_sync_interrupt`. Does nothing for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_cancel_now(cancel: *const PartialSyncCancel) {
    // SAFETY: null or live, by the rules of the boundary.
    let cancel = unsafe { cancel.as_ref() };
    quietly((), || {
        if let Some(cancel) = cancel {
            cancel.handle.cancel();
        }
    });
}

/// Releases what is in `*cancel` and sets `*cancel` to NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_cancel_free(cancel: *mut *mut PartialSyncCancel) {
    // SAFETY: by the rules of the boundary.
    quietly((), || unsafe { boundary::release(cancel) });
}
