//! The C side of the VFS: translates SQLite's calls into those of [`Replica`], and nothing else.
//!
//! SQLite opens a registered replica by its path with the VFS [`VFS_NAME`]; that file, its WAL and its journal are ours.
//! Every other file (attached databases, and temporary ones unless they are counted by `temporary`) is opened by the default VFS
//! into the same memory, which then serves it without us. A panic never crosses into C: it becomes an I/O error.

use std::{
    any::Any,
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr,
    sync::{
        Arc, Once, OnceLock,
        atomic::{Ordering, fence},
    },
};

use libsqlite3_sys as ffi;
use parking_lot::Mutex;

use crate::{
    error::ReadError,
    locks::{FIRST_READ_SLOT, HeldSlots, Level, SLOTS, WRITE_SLOT, WalIndex},
    registry::{InUse, Side, is_replica, owner, registered},
    replica::{Absent, Replica},
    side_file::SideHandle,
    sqlite::context,
    temporary,
};

/// The name under which the VFS is registered with SQLite.
pub const VFS_NAME: &str = "partial-sync";
const VFS_NAME_C: &CStr = c"partial-sync";

// ---- files ----

/// What SQLite allocates for each open file; `szOsFile` is at least its size.
#[repr(C)]
struct RawFile {
    base: ffi::sqlite3_file,
    /// A `Box<Handle>` between open and close.
    handle: *mut Handle,
}

enum Handle {
    Main(MainHandle),
    Side(SideHandle),
}

struct MainHandle {
    replica: Arc<Replica>,
    level: Level,
    held: HeldSlots,
    absent: Absent,
    _in_use: InUse,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: Some(x_shm_map),
    xShmLock: Some(x_shm_lock),
    xShmBarrier: Some(x_shm_barrier),
    xShmUnmap: Some(x_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Runs `f` on a file's handle; a panic becomes an I/O error.
///
/// # Safety
/// `file` was opened by [`x_open`] as one of ours and is not closed. SQLite calls the methods of one file from one thread
/// at a time, which makes the `&mut` unique.
unsafe fn with_handle(file: *mut ffi::sqlite3_file, f: impl FnOnce(&mut Handle) -> c_int) -> c_int {
    // SAFETY: by the contract above the pointer is ours and `handle` is a live box.
    let handle = unsafe { &mut *(*file.cast::<RawFile>()).handle };
    no_panic(|| f(handle))
}

fn no_panic(f: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let what = panic_text(&panic);
        tracing::error!(what, "a panic in the VFS was turned into an I/O error");
        context::set_last_error(Arc::new(io::Error::other(format!("internal error: {what}"))));
        ffi::SQLITE_IOERR
    })
}

fn panic_text(panic: &Box<dyn Any + Send>) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "unknown panic".to_owned(),
    }
}

/// SQLite's code for an error, which is kept for the SQL caller.
fn fail(code: c_int, error: ReadError) -> c_int {
    let code = match &error {
        ReadError::Interrupted { .. } | ReadError::InterruptedByUser | ReadError::WouldWait { .. } => {
            ffi::SQLITE_INTERRUPT
        }
        ReadError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => ffi::SQLITE_FULL,
        _ => code,
    };
    context::set_last_error(Arc::new(error));
    code
}

fn done(code: c_int, result: Result<(), ReadError>) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => fail(code, error),
    }
}

unsafe extern "C" fn x_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, after x_open stored a box in it.
    let mut handle = unsafe { Box::from_raw((*file.cast::<RawFile>()).handle) };
    no_panic(|| {
        if let Handle::Main(main) = &mut *handle {
            main.replica.leave_wal_index(&mut main.held);
            main.replica.main_lock.lock().lower(&mut main.level, Level::None);
        }
        drop(handle);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn x_read(
    file: *mut ffi::sqlite3_file,
    buf: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes a writable buffer of `amount` bytes that nobody else uses during the call. It comes from C, so
    // whatever bytes are in it are its value to us; they are only written to, or cleared below.
    let buf = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), amount as usize) };
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            let read = match handle {
                Handle::Main(main) => main
                    .replica
                    .read(main.held.epoch, main.absent, buf, offset as u64),
                Handle::Side(side) => side.read(buf, offset as u64),
            };
            match read {
                Ok(n) if n == buf.len() => ffi::SQLITE_OK,
                Ok(n) => {
                    buf[n..].fill(0);
                    ffi::SQLITE_IOERR_SHORT_READ
                }
                Err(error) => fail(ffi::SQLITE_IOERR_READ, error),
            }
        })
    }
}

unsafe extern "C" fn x_write(
    file: *mut ffi::sqlite3_file,
    buf: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes `amount` readable bytes.
    let data = unsafe { std::slice::from_raw_parts(buf.cast::<u8>(), amount as usize) };
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            let written = match handle {
                Handle::Main(MainHandle { replica, .. }) => {
                    replica.writing(|| replica.write_main(data, offset as u64))
                }
                Handle::Side(side) => side.write(data, offset as u64),
            };
            done(ffi::SQLITE_IOERR_WRITE, written)
        })
    }
}

unsafe extern "C" fn x_truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            let cut = match handle {
                Handle::Main(MainHandle { replica, .. }) => {
                    replica.writing(|| replica.truncate_main(size as u64))
                }
                Handle::Side(side) => side.truncate(size as u64),
            };
            done(ffi::SQLITE_IOERR_TRUNCATE, cut)
        })
    }
}

unsafe extern "C" fn x_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            let synced = match handle {
                Handle::Main(MainHandle { replica, .. }) => replica.while_open(|| replica.sync_main()),
                Handle::Side(side) => side.sync(),
            };
            done(ffi::SQLITE_IOERR_FSYNC, synced)
        })
    }
}

unsafe extern "C" fn x_file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite's contract for file methods; `size` is writable.
    unsafe {
        with_handle(file, |handle| {
            let len = match handle {
                Handle::Main(main) => Ok(main.replica.file_size()),
                Handle::Side(side) => side.len(),
            };
            match len {
                Ok(len) => {
                    *size = len as i64;
                    ffi::SQLITE_OK
                }
                Err(error) => fail(ffi::SQLITE_IOERR_FSTAT, error),
            }
        })
    }
}

unsafe extern "C" fn x_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| match handle {
            Handle::Main(main) => {
                let raised = main
                    .replica
                    .main_lock
                    .lock()
                    .raise(&mut main.level, Level::from_raw(level));
                if raised { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
            }
            Handle::Side(_) => ffi::SQLITE_OK,
        })
    }
}

unsafe extern "C" fn x_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            if let Handle::Main(main) = handle {
                main.replica
                    .main_lock
                    .lock()
                    .lower(&mut main.level, Level::from_raw(level));
            }
            ffi::SQLITE_OK
        })
    }
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods; `out` is writable.
    unsafe {
        with_handle(file, |handle| {
            *out = match handle {
                Handle::Main(main) => c_int::from(main.replica.main_lock.lock().is_reserved()),
                Handle::Side(_) => 0,
            };
            ffi::SQLITE_OK
        })
    }
}

/// The file control of [`Conn::never_fetch`](crate::sqlite::Conn::never_fetch). SQLite's own numbers are small.
pub(crate) const NEVER_FETCH: c_int = 0x7073_0001;

unsafe extern "C" fn x_file_control(file: *mut ffi::sqlite3_file, op: c_int, _arg: *mut c_void) -> c_int {
    if op != NEVER_FETCH {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| match handle {
            Handle::Main(main) => {
                main.absent = Absent::Zeros;
                ffi::SQLITE_OK
            }
            Handle::Side { .. } => ffi::SQLITE_NOTFOUND,
        })
    }
}

unsafe extern "C" fn x_sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn x_device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // What SQLite's own unix VFS says of every file system.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn x_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite's contract for file methods; `out` is writable.
    unsafe {
        with_handle(file, |handle| {
            let Handle::Main(main) = handle else {
                return ffi::SQLITE_IOERR_SHMMAP;
            };
            let mapped =
                main.replica
                    .wal_index()
                    .map(&mut main.held, region as usize, size as usize, extend != 0);
            *out = mapped.map_or(ptr::null_mut(), <*mut u8>::cast);
            ffi::SQLITE_OK
        })
    }
}

unsafe extern "C" fn x_shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            let Handle::Main(MainHandle {
                replica,
                held,
                absent,
                ..
            }) = handle
            else {
                return ffi::SQLITE_IOERR_SHMLOCK;
            };
            let (first, count) = (first as usize, count as usize);
            if first + count > SLOTS {
                return ffi::SQLITE_IOERR_SHMLOCK;
            }
            let shared = flags & ffi::SQLITE_SHM_SHARED != 0;
            if flags & ffi::SQLITE_SHM_UNLOCK == 0 && replica.is_closed() {
                return fail(ffi::SQLITE_IOERR_SHMLOCK, ReadError::Closed);
            }
            let taken = if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
                if shared {
                    replica.end_snapshot(held, first);
                } else {
                    if first == WRITE_SLOT && *absent == Absent::Zeros && WalIndex::holds_write_lock(held) {
                        replica.forget_uncommitted();
                    }
                    replica.wal_index().unlock_exclusive(held, first, count);
                }
                true
            } else if !shared {
                replica.wal_index().lock_exclusive(held, first, count)
            } else if first >= FIRST_READ_SLOT {
                match replica.begin_snapshot(held, first) {
                    Ok(taken) => taken,
                    Err(error) => return fail(ffi::SQLITE_IOERR_SHMLOCK, error),
                }
            } else {
                let epoch = replica.epoch();
                replica.wal_index().lock_shared(held, first, epoch)
            };
            if taken { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
        })
    }
}

unsafe extern "C" fn x_shm_barrier(_file: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn x_shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite's contract for file methods.
    unsafe {
        with_handle(file, |handle| {
            if let Handle::Main(main) = handle {
                main.replica.leave_wal_index(&mut main.held);
            }
            ffi::SQLITE_OK
        })
    }
}

// ---- the VFS ----

/// The default VFS, which serves every file that is not ours.
struct DefaultVfs(*mut ffi::sqlite3_vfs);

// SAFETY: a registered VFS is used by SQLite from every thread; we only call its methods and never unregister it.
unsafe impl Send for DefaultVfs {}
// SAFETY: as above.
unsafe impl Sync for DefaultVfs {}

static DEFAULT: OnceLock<DefaultVfs> = OnceLock::new();

fn default_vfs() -> *mut ffi::sqlite3_vfs {
    DEFAULT
        .get()
        .expect("x_open and its like are only reached after register_vfs")
        .0
}

/// Makes SQLite know the VFS; the first replica does so too.
pub fn register_vfs() -> io::Result<()> {
    static ONCE: Once = Once::new();
    static RESULT: Mutex<c_int> = Mutex::new(ffi::SQLITE_OK);
    ONCE.call_once(|| {
        // SAFETY: SQLite is initialised by sqlite3_vfs_find; the copied structure keeps the default VFS's function
        // pointers for randomness, time and extensions, none of which look at the structure they are called with; it is
        // leaked because SQLite keeps it for ever.
        unsafe {
            let default = ffi::sqlite3_vfs_find(ptr::null());
            if default.is_null() {
                *RESULT.lock() = ffi::SQLITE_ERROR;
                return;
            }
            let _ = DEFAULT.set(DefaultVfs(default));
            let mut vfs = *default;
            vfs.zName = VFS_NAME_C.as_ptr();
            vfs.pNext = ptr::null_mut();
            vfs.szOsFile = temporary::file_size(vfs.szOsFile).max(size_of::<RawFile>() as c_int);
            vfs.xOpen = Some(x_open);
            vfs.xDelete = Some(x_delete);
            vfs.xAccess = Some(x_access);
            vfs.xFullPathname = Some(x_full_pathname);
            *RESULT.lock() = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0);
        }
    });
    match *RESULT.lock() {
        ffi::SQLITE_OK => Ok(()),
        code => Err(io::Error::other(format!(
            "SQLite did not take the VFS (code {code})"
        ))),
    }
}

/// # Safety
/// `name` is null or a C string that lives as long as the result is used.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by contract.
    let bytes = unsafe { CStr::from_ptr(name) };
    #[cfg(unix)]
    {
        Some(Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
            bytes.to_bytes(),
        )))
    }
    #[cfg(not(unix))]
    {
        bytes.to_str().ok().map(Path::new)
    }
}

unsafe extern "C" fn x_open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    if name.is_null() {
        // SAFETY: as SQLite calls this one; the memory behind `file` is as large as the VFS says.
        return unsafe { temporary::open(default_vfs(), file, flags, out_flags) };
    }
    // SAFETY: SQLite passes a C string.
    let database = unsafe { path_of(name) }.filter(|_| flags & ffi::SQLITE_OPEN_MAIN_DB != 0);
    if let Some(path) = database
        && context::runs_statement()
        && is_replica(path)
    {
        // SAFETY: the memory behind `file` is that of a file. Null methods tell SQLite not to close it.
        unsafe { (*file).pMethods = ptr::null() };
        let path = path.to_owned();
        return fail(ffi::SQLITE_CANTOPEN, ReadError::AttachesReplica { path });
    }
    // SAFETY: SQLite passes a C string or null.
    let owner =
        unsafe { path_of(name) }.and_then(|path| owner(path).map(|(replica, side)| (path, replica, side)));
    let Some((path, replica, side)) = owner else {
        // SAFETY: the memory behind `file` is at least as large as the default VFS asked for.
        return unsafe {
            let default = default_vfs();
            match (*default).xOpen {
                Some(open) => open(default, name, file, flags, out_flags),
                None => ffi::SQLITE_CANTOPEN,
            }
        };
    };
    let raw = file.cast::<RawFile>();
    // SAFETY: as above. Null methods tell SQLite not to close the file if we fail.
    unsafe { (*raw).base.pMethods = ptr::null() };
    no_panic(|| {
        let handle = match open(path, replica, side, flags & ffi::SQLITE_OPEN_CREATE != 0) {
            Ok(handle) => handle,
            Err(error) => return fail(ffi::SQLITE_CANTOPEN, error),
        };
        // SAFETY: as above; `out_flags` is null or writable.
        unsafe {
            (*raw).handle = Box::into_raw(Box::new(handle));
            (*raw).base.pMethods = &METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
        }
        ffi::SQLITE_OK
    })
}

fn open(path: &Path, replica: Arc<Replica>, side: Side, create: bool) -> Result<Handle, ReadError> {
    let in_use = InUse::of(&replica.instance)?;
    if side == Side::Main {
        return Ok(Handle::Main(MainHandle {
            absent: Absent::default(),
            held: HeldSlots::default(),
            level: Level::None,
            replica,
            _in_use: in_use,
        }));
    }
    SideHandle::open(path, replica, side, create, in_use).map(Handle::Side)
}

unsafe extern "C" fn x_delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { path_of(name) };
    if let Some((path, (replica, side))) = path.and_then(|p| Some((p, owner(p)?))) {
        return no_panic(|| {
            let path = &side.file(&replica, path);
            let removed = replica.while_open(|| {
                if side == Side::Wal {
                    replica.wal_has_no_name();
                    replica.before_wal_goes()?;
                }
                replica
                    .storage()
                    .remove(path)
                    .map_err(ReadError::io("remove", path))
            });
            done(ffi::SQLITE_IOERR_DELETE, removed)
        });
    }
    // SAFETY: the same call, to the VFS it was meant for.
    unsafe {
        let default = default_vfs();
        (*default).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| {
            delete(default, name, sync_folder)
        })
    }
}

unsafe extern "C" fn x_access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a C string.
    let path = unsafe { path_of(name) };
    if let Some((path, (replica, side))) = path.and_then(|p| Some((p, owner(p)?))) {
        return no_panic(|| {
            let path = &side.file(&replica, path);
            match replica.storage().exists(path) {
                Ok(there) => {
                    let there = there && (side != Side::Journal || replica.may_have_journal());
                    // SAFETY: `out` is writable.
                    unsafe { *out = c_int::from(there) };
                    ffi::SQLITE_OK
                }
                Err(error) => fail(ffi::SQLITE_IOERR_ACCESS, ReadError::io("look for", path)(error)),
            }
        });
    }
    // SAFETY: the same call, to the VFS it was meant for.
    unsafe {
        let default = default_vfs();
        (*default).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| {
            access(default, name, flags, out)
        })
    }
}

unsafe extern "C" fn x_full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    capacity: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a C string.
    if unsafe { path_of(name) }.is_some_and(|path| registered(path).is_some()) {
        // SAFETY: `name` is a C string, `out` has `capacity` bytes, and the length was checked.
        unsafe {
            let bytes = CStr::from_ptr(name).to_bytes_with_nul();
            if bytes.len() > capacity as usize {
                return ffi::SQLITE_CANTOPEN;
            }
            ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
        }
        return ffi::SQLITE_OK;
    }
    // SAFETY: the same call, to the VFS it was meant for.
    unsafe {
        let default = default_vfs();
        (*default)
            .xFullPathname
            .map_or(ffi::SQLITE_CANTOPEN, |full| full(default, name, capacity, out))
    }
}
