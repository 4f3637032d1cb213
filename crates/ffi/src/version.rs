//! Which library this is. Needs no handle and cannot fail.

use std::ffi::{CStr, c_char};

/// The version of this library, `"0.8.0"`. Static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn partial_sync_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the package's version holds no NUL"),
        };
    VERSION.as_ptr()
}

/// The version of the SQLite inside, `"3.51.0"`. Static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn partial_sync_sqlite_version() -> *const c_char {
    rusqlite::ffi::SQLITE_VERSION.as_ptr().cast()
}
