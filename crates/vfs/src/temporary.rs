//! A quota for the temporary files that statements make: what SQLite sorts, groups or keeps aside that does not fit into its
//! memory.
//!
//! A thread says with [`Quota::enter`] whose quota it runs under. A temporary file that a connection of our VFS opens then goes
//! through this file, which counts how far it was written; it belongs to that quota until it is closed. A write beyond the
//! quota is refused with `SQLITE_FULL`, and [`take_refusal`] tells why. Without a quota SQLite's own VFS serves the file.

use std::{
    cell::{Cell, RefCell},
    ffi::{c_int, c_void},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use libsqlite3_sys as ffi;

/// How many bytes temporary files may have.
#[derive(Clone, Debug)]
pub struct Quota {
    used: Arc<AtomicU64>,
    /// One file.
    file: u64,
    /// All files that count in the same number.
    all: u64,
}

impl Quota {
    /// A quota for `file` bytes in one file and for `all` together.
    pub fn new(file: u64, all: u64) -> Self {
        Self {
            used: Arc::default(),
            file,
            all,
        }
    }

    /// Another one that counts the same files, with other limits.
    pub fn with_limits(&self, file: u64, all: u64) -> Self {
        Self {
            used: Arc::clone(&self.used),
            file,
            all,
        }
    }

    /// Bytes of the files that are open.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Temporary files that this thread opens count in this quota until the guard goes.
    pub fn enter(&self) -> Entered {
        REFUSED.set(false);
        Entered {
            outer: CURRENT.replace(Some(self.clone())),
        }
    }

    fn grow(&self, from: u64, to: u64) -> bool {
        let more = to - from;
        let fits = |used: u64| used.checked_add(more).filter(|used| *used <= self.all);
        to <= self.file
            && self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
                .is_ok()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Quota>> = const { RefCell::new(None) };
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// See [`Quota::enter`].
#[derive(Debug)]
#[must_use = "the quota holds until it is dropped"]
pub struct Entered {
    outer: Option<Quota>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// Whether this thread was refused a write since it last entered a quota, or asked.
pub fn take_refusal() -> bool {
    REFUSED.take()
}

/// What SQLite allocates for a file of ours; the default VFS's own follows it at [`REAL`].
#[repr(C)]
struct Counted {
    base: ffi::sqlite3_file,
    /// A `Box<Count>` between open and close.
    count: *mut Count,
}

struct Count {
    quota: Quota,
    size: u64,
}

impl Drop for Count {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

const REAL: usize = size_of::<Counted>().next_multiple_of(16);

/// Bytes for a file, when the default VFS needs `default` for its own.
pub(crate) fn file_size(default: c_int) -> c_int {
    default + REAL as c_int
}

/// Opens a temporary file with the default VFS, counted if this thread is under a quota.
///
/// # Safety
/// The contract of `xOpen` for a file without a name, with `file_size` bytes at `file`.
pub(crate) unsafe fn open(
    default: *mut ffi::sqlite3_vfs,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let quota = CURRENT.with_borrow(Clone::clone);
    // SAFETY: by contract; the default VFS's file fits behind ours. Null methods tell SQLite not to close a file that could not
    // be opened.
    unsafe {
        let Some(open) = (*default).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let Some(quota) = quota else {
            return open(default, ptr::null(), file, flags, out_flags);
        };
        (*file).pMethods = ptr::null();
        let real = real(file);
        (*real).pMethods = ptr::null();
        let code = open(default, ptr::null(), real, flags, out_flags);
        if code == ffi::SQLITE_OK {
            (*file.cast::<Counted>()).count = Box::into_raw(Box::new(Count { quota, size: 0 }));
            (*file).pMethods = &METHODS;
        } else if let Some(close) = (*real).pMethods.as_ref().and_then(|methods| methods.xClose) {
            close(real);
        }
        code
    }
}

/// # Safety
/// `file` points to `file_size` bytes.
unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: by contract it is inside of them.
    unsafe { file.byte_add(REAL) }
}

/// The version without memory maps and shared memory, which no temporary file needs.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_lock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Passes a call to the file of the default VFS.
macro_rules! pass {
    ($file:expr, $method:ident($($argument:expr),*), else $otherwise:expr) => {
        // SAFETY: SQLite's contract for file methods: the file was opened by `open` above and is not closed, and the arguments
        // are those of the same call.
        unsafe {
            let real = real($file);
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => $otherwise,
            }
        }
    };
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = pass!(file, xClose(), else ffi::SQLITE_OK);
    // SAFETY: SQLite closes a file once, after `open` stored a box in it.
    drop(unsafe { Box::from_raw((*file.cast::<Counted>()).count) });
    code
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    pass!(file, xRead(to, amount, offset), else ffi::SQLITE_IOERR_READ)
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite's contract for file methods, which it calls from one thread at a time.
    let count = unsafe { &mut *(*file.cast::<Counted>()).count };
    let end = u64::try_from(offset.saturating_add(i64::from(amount))).unwrap_or(0);
    if end > count.size {
        if !count.quota.grow(count.size, end) {
            REFUSED.set(true);
            return ffi::SQLITE_FULL;
        }
        count.size = end;
    }
    pass!(file, xWrite(from, amount, offset), else ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let code = pass!(file, xTruncate(size), else ffi::SQLITE_IOERR_TRUNCATE);
    // SAFETY: as in `x_write`.
    let count = unsafe { &mut *(*file.cast::<Counted>()).count };
    let size = u64::try_from(size).unwrap_or(0);
    if code == ffi::SQLITE_OK && size < count.size {
        count.quota.used.fetch_sub(count.size - size, Ordering::Relaxed);
        count.size = size;
    }
    code
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    pass!(file, xSync(flags), else ffi::SQLITE_OK)
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    pass!(file, xFileSize(size), else ffi::SQLITE_IOERR_FSTAT)
}

/// Nobody else knows the file.
unsafe extern "C" fn x_lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods; `out` is writable.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// Hints of the size to come would take space that is not counted.
unsafe extern "C" fn x_file_control(_file: *mut ffi::sqlite3_file, _op: c_int, _arg: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xSectorSize(), else 4096)
}

unsafe extern "C" fn x_device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics(), else 0)
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, ErrorCode, OpenFlags};

    use super::*;
    use crate::shim::{VFS_NAME, register_vfs};

    const SORT: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 200000)
        SELECT count(*) FROM (SELECT x FROM c ORDER BY x * 7919 % 200000, printf('%0200d', x) LIMIT -1 OFFSET 1)";

    fn conn(folder: &tempfile::TempDir) -> Connection {
        register_vfs().unwrap();
        let conn =
            Connection::open_with_flags_and_vfs(folder.path().join("t.db"), OpenFlags::default(), VFS_NAME)
                .unwrap();
        conn.execute_batch("PRAGMA cache_size = 10").unwrap();
        conn
    }

    fn sort(conn: &Connection) -> rusqlite::Result<i64> {
        conn.query_row(SORT, [], |row| row.get(0))
    }

    #[test]
    fn what_a_statement_sorts_counts_and_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let conn = conn(&folder);
        let quota = Quota::new(1 << 20, 1 << 30);
        {
            let _entered = quota.enter();
            let failed = sort(&conn).unwrap_err();
            assert_eq!(failed.sqlite_error_code(), Some(ErrorCode::DiskFull));
            assert!(take_refusal() && !take_refusal());
            assert_eq!(quota.used(), 0, "the files are closed");
        }
        let all = quota.with_limits(1 << 30, 1 << 20);
        {
            let _entered = all.enter();
            sort(&conn).unwrap_err();
        }
        let enough = quota.with_limits(1 << 30, 1 << 30);
        let _entered = enough.enter();
        assert_eq!(sort(&conn).unwrap(), 199_999);
        conn.execute_batch(
            "CREATE TEMP TABLE t(x); PRAGMA temp.cache_size = 4; INSERT INTO t SELECT zeroblob(10000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9))",
        )
        .unwrap();
        assert!(!take_refusal());
        assert!(quota.used() > 0, "a temporary table is one");
        drop(conn);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn without_a_quota_nothing_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(sort(&conn(&folder)).unwrap(), 199_999);
    }
}
