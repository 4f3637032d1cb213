//! SQLite's memory, which is one number for the whole process, and what becomes of memory that is not needed any more.

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

/// From here on blocks of 1 MiB and more go back to the system when they are freed. glibc takes the size of the largest block
/// that was freed, up to 32 MiB, for one to be kept, and keeps it on each thread: a server of large values held six times
/// what it used. Other allocators have no such thing.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any thread; what it cannot set stays as it is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse::<usize>()
            .unwrap()
            << 10
    }

    #[test]
    fn v2_large_blocks_go_back_to_the_system_when_they_are_freed() {
        give_back_large_blocks();
        // What glibc would keep blocks of this size after.
        drop(vec![1_u8; 30 << 20]);
        let mut pinned = Vec::new();
        let large: Vec<_> = (0..20)
            .map(|_| {
                let large = vec![1_u8; 20 << 20];
                pinned.push(vec![1_u8; 64 << 10]);
                large
            })
            .collect();
        let held = resident();
        drop(large);
        let kept = resident();
        assert!(
            held.saturating_sub(kept) > 300 << 20,
            "{kept} of {held} bytes are kept"
        );
    }
}
