//! SQLite's memory, which is one number for the whole process, and what becomes of memory that is not needed any more.

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    marker::PhantomData,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rusqlite::ffi;

/// SQLite takes at most so many bytes of memory from here on: what would need more fails with `SQLITE_NOMEM`. From an eighth of
/// it on page caches do not grow, and guests get nothing large when five sixteenths of it are taken (see [`as_guest`]; only if this is
/// called before anything else is done with SQLite).
pub fn set_limit(bytes: u64) {
    meter();
    GUESTS_END_AT.store(usize::try_from(bytes / 16 * 5).unwrap_or(usize::MAX), Relaxed);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // SAFETY: both may be called at any time, from any thread.
    unsafe {
        ffi::sqlite3_hard_heap_limit64(bytes);
        ffi::sqlite3_soft_heap_limit64(bytes / 8);
    }
}

/// Until what is returned is dropped, this thread works for somebody who may use what memory is left over, and no more: a single
/// value would otherwise take what the next commit or the page history needs.
pub fn as_guest() -> Guest {
    IS_GUEST.set(true);
    Guest(PhantomData)
}

/// See [`as_guest`]. Stays on its thread.
pub struct Guest(PhantomData<*const ()>);

impl Drop for Guest {
    fn drop(&mut self) {
        IS_GUEST.set(false);
    }
}

/// What a guest may always have: what undoes a statement is smaller.
const SMALL: usize = 16 << 10;

thread_local! {
    static IS_GUEST: Cell<bool> = const { Cell::new(false) };
}
static GUESTS_END_AT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// What SQLite has, since it is metered.
static USED: AtomicUsize = AtomicUsize::new(0);
/// SQLite's own functions, all of which are there.
static SQLITES: OnceLock<Methods> = OnceLock::new();

struct Methods {
    allocate: unsafe extern "C" fn(c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    resize: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

impl Methods {
    fn size(&self, block: *mut c_void) -> usize {
        if block.is_null() {
            return 0;
        }
        // SAFETY: it was allocated by the others of these functions.
        let size = unsafe { (self.size)(block) };
        usize::try_from(size).unwrap_or(0)
    }
}

/// Puts itself between SQLite and its allocator, unless SQLite is in use already.
fn meter() {
    // SAFETY: a null pointer for each function is a valid value of its type, `Option`.
    let mut methods: ffi::sqlite3_mem_methods = unsafe { std::mem::zeroed() };
    // SAFETY: it writes its functions to a struct of the type that it expects.
    let known = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut methods) };
    if known != ffi::SQLITE_OK {
        return;
    }
    let (Some(its_allocate), Some(its_free), Some(its_resize), Some(its_size)) =
        (methods.xMalloc, methods.xFree, methods.xRealloc, methods.xSize)
    else {
        return;
    };
    let sqlites = Methods {
        allocate: its_allocate,
        free: its_free,
        resize: its_resize,
        size: its_size,
    };
    if SQLITES.set(sqlites).is_err() {
        return;
    }
    methods.xMalloc = Some(allocate);
    methods.xFree = Some(free);
    methods.xRealloc = Some(resize);
    // SAFETY: SQLite copies the struct, whose functions keep the promises of those that they call. While SQLite is in use it
    // refuses, and nothing changes.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw mut methods) };
}

fn may_have(more: usize) -> bool {
    let is_guest = IS_GUEST.try_with(Cell::get).unwrap_or(false);
    more <= SMALL || !is_guest || USED.load(Relaxed).saturating_add(more) <= GUESTS_END_AT.load(Relaxed)
}

unsafe extern "C" fn allocate(bytes: c_int) -> *mut c_void {
    let Some(sqlites) = SQLITES
        .get()
        .filter(|_| may_have(usize::try_from(bytes).unwrap_or(0)))
    else {
        return ptr::null_mut();
    };
    // SAFETY: as SQLite calls this, it would call that.
    let block = unsafe { (sqlites.allocate)(bytes) };
    USED.fetch_add(sqlites.size(block), Relaxed);
    block
}

unsafe extern "C" fn free(block: *mut c_void) {
    let Some(sqlites) = SQLITES.get() else { return };
    USED.fetch_sub(sqlites.size(block), Relaxed);
    // SAFETY: as SQLite calls this, it would call that.
    unsafe { (sqlites.free)(block) };
}

unsafe extern "C" fn resize(block: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(sqlites) = SQLITES.get() else {
        return ptr::null_mut();
    };
    let before = sqlites.size(block);
    if !may_have(usize::try_from(bytes).unwrap_or(0).saturating_sub(before)) {
        return ptr::null_mut();
    }
    // SAFETY: as SQLite calls this, it would call that.
    let resized = unsafe { (sqlites.resize)(block, bytes) };
    if !resized.is_null() {
        USED.fetch_add(sqlites.size(resized), Relaxed);
        USED.fetch_sub(before, Relaxed);
    }
    resized
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
/// what it used. It also has eight heaps for each processor, each of which keeps what it once had; here one each is enough, as
/// SQLite allocates under a lock of its own. Other allocators have no such thing.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let heaps = c_int::try_from(processors.max(2)).unwrap_or(c_int::MAX);
        // SAFETY: it may be called at any time, from any thread; what it cannot set stays as it is.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
            libc::mallopt(libc::M_ARENA_MAX, heaps);
        }
    }
}

/// Gives back what is free now in between of what is used: many small blocks leave it behind, and the allocator keeps it. For
/// programs, now and then; it takes milliseconds.
pub fn give_back_free_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod guests {
    use super::*;

    const CHILD: &str = "PARTIAL_SYNC_TEST_GUEST";

    /// Its process is its own, in which nothing has used SQLite before.
    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        set_limit(64 << 20);
        let sqlite = rusqlite::Connection::open_in_memory().unwrap();
        let large = |bytes: u32| -> rusqlite::Result<bool> {
            sqlite.query_row(&format!("SELECT randomblob({bytes}) IS NULL"), (), |row| {
                row.get(0)
            })
        };
        let guest = as_guest();
        assert!(!large(16 << 20).unwrap());
        let refused = large(24 << 20).unwrap_err();
        assert_eq!(
            refused.sqlite_error_code(),
            Some(rusqlite::ErrorCode::OutOfMemory)
        );
        assert!(!large(16 << 20).unwrap(), "what it had is free again");
        sqlite
            .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
            .unwrap();
        drop(guest);
        assert!(!large(30 << 20).unwrap());
        drop(sqlite);
        assert!(USED.load(Relaxed) < 1 << 20, "{USED:?}");
    }

    /// Was red: they had all of it, and the page history of an honest client found none.
    #[test]
    fn v3_guests_leave_memory_to_others() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::memory::guests::child"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && out.contains("1 passed"), "{out}");
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
    fn v2_small_blocks_go_back_to_the_system_when_it_is_asked_for() {
        let blocks: Vec<_> = (0..100_000).map(|n| (n % 100 == 0, vec![1_u8; 2000])).collect();
        let held = resident();
        let few: Vec<_> = blocks.into_iter().filter(|(stays, _)| *stays).collect();
        give_back_free_blocks();
        let kept = resident();
        assert!(
            held.saturating_sub(kept) > 50 << 20,
            "{kept} of {held} bytes are kept"
        );
        drop(few);
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
