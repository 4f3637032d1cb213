//! SQLite's memory, which is one number for the whole process.

use rusqlite::ffi;

/// SQLite takes at most so many bytes of memory from here on: what would need more fails with `SQLITE_NOMEM`. From half of it on
/// page caches do not grow.
pub fn set_limit(bytes: u64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // SAFETY: both may be called at any time, from any thread.
    unsafe {
        ffi::sqlite3_hard_heap_limit64(bytes);
        ffi::sqlite3_soft_heap_limit64(bytes / 2);
    }
}

/// The limit; `None` without one.
pub fn limit() -> Option<u64> {
    // SAFETY: as above; a negative number only asks.
    let bytes = unsafe { ffi::sqlite3_hard_heap_limit64(-1) };
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// What statements have: all memory but that of page caches, which is given up when it is needed.
pub fn in_statements() -> u64 {
    let status = |which| {
        let (mut now, mut most) = (0, 0);
        // SAFETY: may be called at any time, from any thread; both pointers are to numbers that outlive the call.
        let code = unsafe { ffi::sqlite3_status64(which, &raw mut now, &raw mut most, 0) };
        if code == ffi::SQLITE_OK { now } else { 0 }
    };
    let bytes = status(ffi::SQLITE_STATUS_MEMORY_USED) - status(ffi::SQLITE_STATUS_PAGECACHE_OVERFLOW);
    u64::try_from(bytes).unwrap_or(0)
}
