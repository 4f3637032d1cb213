//! The boundary itself: pointers become references and texts. The only place that reads a caller's pointer, apart from the
//! fields of a struct that it gave.
//!
//! # What every function asks of its caller
//!
//! - A pointer is null, or it points to what its type says, aligned, and valid until the call returns.
//! - A handle came from this library and was not released. Releasing takes the address of the caller's variable and sets
//!   that to null, and null is accepted wherever a handle is: releasing twice through one variable does nothing.
//! - A text is UTF-8 (checked) and ends with NUL, or with the length given beside it.
//!
//! Null where something is needed is [`PartialSyncCode::Misuse`](crate::error::PartialSyncCode::Misuse), never a crash.

use std::{
    ffi::{CStr, c_char},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use partial_sync::options::OptionError;

/// Why a call failed, on its way to the caller.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(partial_sync::Error),
    /// What the caller did wrong.
    Misuse(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Misuse(what) => f.write_str(what),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<partial_sync::Error> for Failure {
    fn from(error: partial_sync::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<OptionError> for Failure {
    fn from(error: OptionError) -> Self {
        Self::Engine(error.into())
    }
}

pub(crate) fn misuse<T>(what: impl Into<String>) -> Result<T> {
    Err(Failure::Misuse(what.into()))
}

/// Runs the body of a function that cannot tell of an error; a panic gives `otherwise`.
pub(crate) fn quietly<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// What a handle points to.
///
/// # Safety
/// `handle` is null or a live handle of this type, and stays so until the reference is no longer used.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the caller says so.
    match unsafe { handle.as_ref() } {
        Some(handle) => Ok(handle),
        None => misuse(format!("the {what} is NULL")),
    }
}

/// Releases what a variable of the caller owns and sets it to null.
///
/// # Safety
/// `variable` is null, or holds null or a handle that [`give`] made and that nobody uses any more.
pub(crate) unsafe fn release<T>(variable: *mut *mut T) {
    // SAFETY: the caller says so.
    let owned = unsafe { taken(variable) };
    quietly((), || drop(owned));
}

/// # Safety
/// As for [`release`].
pub(crate) unsafe fn taken<T>(variable: *mut *mut T) -> Option<Box<T>> {
    if variable.is_null() {
        return None;
    }
    // SAFETY: not null; what it holds was made by Box::into_raw and is taken out here, so that it is dropped once.
    unsafe {
        let raw = variable.replace(ptr::null_mut());
        (!raw.is_null()).then(|| Box::from_raw(raw))
    }
}

/// Makes a place for an answer null (or zero) before anything can fail.
///
/// # Safety
/// `out` is null or writable.
pub(crate) unsafe fn answer<'a, T>(out: *mut T, empty: T, what: &str) -> Result<&'a mut T> {
    if out.is_null() {
        return misuse(format!("{what} is NULL: there is nowhere to put the answer"));
    }
    // SAFETY: not null, writable, and initialised by the write before the reference is made.
    unsafe {
        out.write(empty);
        Ok(&mut *out)
    }
}

/// Writes an answer that the caller may not want.
///
/// # Safety
/// `out` is null or writable.
pub(crate) unsafe fn tell<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: not null and writable.
        unsafe { out.write(value) };
    }
}

/// Moves a value to the heap, for the caller to own.
pub(crate) fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// A text that may be null.
///
/// # Safety
/// `text` is null or ends with NUL, and is not changed while the answer is used.
pub(crate) unsafe fn optional_text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and the caller says that it ends with NUL.
    let text = unsafe { CStr::from_ptr(text) };
    utf8(text.to_bytes(), what).map(Some)
}

/// A text that must be there.
///
/// # Safety
/// As for [`optional_text`].
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    // SAFETY: the caller says so.
    match unsafe { optional_text(text, what) }? {
        Some(text) => Ok(text),
        None => misuse(format!("{what} is NULL")),
    }
}

/// A text of this many bytes, or up to NUL where the number is negative.
///
/// # Safety
/// `start` is null, or points to so many bytes, or to a text that ends with NUL.
pub(crate) unsafe fn sized_text<'a>(start: *const c_char, length: i64, what: &str) -> Result<&'a str> {
    match usize::try_from(length) {
        // SAFETY: the caller says so.
        Err(_) => unsafe { text(start, what) },
        // SAFETY: the caller says so.
        Ok(length) => utf8(unsafe { bytes(start.cast(), length, what) }?, what),
    }
}

/// This many bytes. Null is good for none.
///
/// # Safety
/// `start` is null or points to so many bytes.
pub(crate) unsafe fn bytes<'a>(start: *const u8, length: usize, what: &str) -> Result<&'a [u8]> {
    match (start.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => misuse(format!("{what} is NULL, but its length is {length}")),
        (false, _) if isize::try_from(length).is_err() => {
            misuse(format!("{what} cannot have {length} bytes"))
        }
        // SAFETY: not null, of a length that memory can have, and the caller says that they are there.
        (false, _) => Ok(unsafe { slice::from_raw_parts(start, length) }),
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).or_else(|e| {
        misuse(format!(
            "{what} is not UTF-8: byte {} of it begins no character",
            e.valid_up_to()
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::ptr::NonNull;

    use super::*;

    #[test]
    fn a_panic_while_something_is_released_stays_inside() {
        struct Loud;
        impl Drop for Loud {
            fn drop(&mut self) {
                panic!("cannot be released");
            }
        }
        let mut loud = give(Loud);
        // SAFETY: made by `give` and released once; the second time there is nothing left.
        unsafe {
            release(&mut loud);
            assert!(loud.is_null());
            release(&mut loud);
            release(ptr::null_mut::<*mut Loud>());
        }
        assert_eq!(quietly(5, || panic!("again")), 5);
    }

    #[test]
    fn a_length_that_no_memory_has_is_refused_before_it_is_read() {
        let start = NonNull::<u8>::dangling().as_ptr();
        // SAFETY: the length is refused, so nothing is read.
        assert!(unsafe { bytes(start, usize::MAX, "the blob") }.is_err());
        // SAFETY: nothing is read of no bytes.
        assert_eq!(unsafe { bytes(start, 0, "the blob") }.unwrap(), b"");
    }
}
