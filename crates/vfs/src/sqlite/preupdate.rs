//! SQLite's preupdate hook with a safe callback, and the check that this SQLite was built with what the project needs.
//!
//! The callback runs in the middle of a statement, with the old and the new row at hand. It must never use the
//! connection; it should copy what it wants and return. A panic in it never unwinds into SQLite.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use libsqlite3_sys as ffi;
use parking_lot::Mutex;
use rusqlite::types::ValueRef;

use super::error::{Error, Result, codes};

/// Checks that the SQLite in this program has the features that the project stands on. They are set by
/// `LIBSQLITE3_FLAGS` in `.cargo/config.toml`, which a program that depends on this crate must repeat.
pub fn check_build() -> Result<()> {
    for (option, name) in [
        (c"ENABLE_DBPAGE_VTAB", "DBPAGE_VTAB"),
        (c"ENABLE_PREUPDATE_HOOK", "PREUPDATE_HOOK"),
    ] {
        // SAFETY: the name is NUL-terminated.
        if unsafe { ffi::sqlite3_compileoption_used(option.as_ptr()) } == 0 {
            return Err(Error::new(
                codes::MISUSE,
                format!(
                    "this SQLite was built without {name}: build with the environment variable LIBSQLITE3_FLAGS=\
                     \"-DSQLITE_ENABLE_DBPAGE_VTAB -DSQLITE_ENABLE_PREUPDATE_HOOK\" (for example in .cargo/config.toml)"
                ),
            ));
        }
    }
    Ok(())
}

/// What is about to happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It appears.
    Insert,
    /// Some of its columns change, possibly its key.
    Update,
    /// It disappears.
    Delete,
}

/// One row that is about to change, as the hook sees it.
pub struct PreUpdate<'a> {
    db: *mut ffi::sqlite3,
    op: RowChange,
    db_name: &'a CStr,
    table: &'a CStr,
    old_rowid: i64,
    new_rowid: i64,
    columns: usize,
    in_hook: PhantomData<&'a ()>,
}

impl PreUpdate<'_> {
    /// What happens to the row.
    pub fn op(&self) -> RowChange {
        self.op
    }

    /// `main`, `temp`, or the name of an attached database.
    pub fn db_name(&self) -> &[u8] {
        self.db_name.to_bytes()
    }

    /// The table.
    pub fn table(&self) -> &[u8] {
        self.table.to_bytes()
    }

    /// The row's rowid before; without meaning for inserts and WITHOUT ROWID tables.
    pub fn old_rowid(&self) -> i64 {
        self.old_rowid
    }

    /// The row's rowid after; without meaning for deletes and WITHOUT ROWID tables.
    pub fn new_rowid(&self) -> i64 {
        self.new_rowid
    }

    /// 0 when the statement itself changes the row, more inside triggers and foreign-key actions.
    pub fn depth(&self) -> u32 {
        // SAFETY: `self` exists only inside the hook, where this may be called.
        unsafe { ffi::sqlite3_preupdate_depth(self.db).max(0) as u32 }
    }

    /// The column that incremental blob I/O (`sqlite3_blob_write`) is writing; such a write is reported as a delete
    /// without the new values.
    pub fn blob_write(&self) -> Option<usize> {
        // SAFETY: as in `depth`.
        usize::try_from(unsafe { ffi::sqlite3_preupdate_blobwrite(self.db) }).ok()
    }

    /// Number of columns of the table, generated ones included.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Value of a column (from 0, in table order) before the change; an error for inserts.
    pub fn before(&self, column: usize) -> Result<ValueRef<'_>> {
        self.read(column, ffi::sqlite3_preupdate_old)
    }

    /// Value of a column (from 0, in table order) after the change; an error for deletes.
    pub fn after(&self, column: usize) -> Result<ValueRef<'_>> {
        self.read(column, ffi::sqlite3_preupdate_new)
    }

    fn read(
        &self,
        column: usize,
        get: unsafe extern "C" fn(*mut ffi::sqlite3, c_int, *mut *mut ffi::sqlite3_value) -> c_int,
    ) -> Result<ValueRef<'_>> {
        if column >= self.columns {
            return Err(Error::new(codes::RANGE, format!("there is no column {column}")));
        }
        let mut value = ptr::null_mut();
        // SAFETY: inside the hook, with a column that exists; `value` is an out parameter.
        let rc = unsafe { get(self.db, column as c_int, &mut value) };
        if rc != ffi::SQLITE_OK || value.is_null() {
            let rc = if rc == ffi::SQLITE_OK { codes::NOMEM } else { rc };
            // SAFETY: the connection is live inside its own hook.
            return Err(unsafe { Error::last(self.db, rc) });
        }
        // SAFETY: SQLite keeps the value until the hook returns, which `&self` does not outlive. It is read as the type
        // that it has; text is converted to UTF-8 at most once, before its pointer is taken. Text that is UTF-8 is read as bytes:
        // as text SQLite would copy it, for a NUL at its end.
        unsafe {
            let bytes = |p: *const u8| match ffi::sqlite3_value_bytes(value) {
                n if n <= 0 => Ok(&[][..]),
                // Zeros are written out when they are read, and there may be no memory for that.
                _ if p.is_null() => Err(Error::new(codes::NOMEM, "out of memory")),
                n => Ok(slice::from_raw_parts(p, n as usize)),
            };
            Ok(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT if ffi::sqlite3_value_encoding(value) == ffi::SQLITE_UTF8 => {
                    ValueRef::Text(bytes(ffi::sqlite3_value_blob(value).cast())?)
                }
                ffi::SQLITE_TEXT => ValueRef::Text(bytes(ffi::sqlite3_value_text(value))?),
                ffi::SQLITE_BLOB => ValueRef::Blob(bytes(ffi::sqlite3_value_blob(value).cast())?),
                _ => ValueRef::Null,
            })
        }
    }
}

/// What [`Conn::set_preupdate_hook`](super::Conn::set_preupdate_hook) takes.
pub type PreUpdateHook = Box<dyn FnMut(PreUpdate<'_>) + Send>;

/// What SQLite's user pointer points to.
struct InstalledHook {
    callback: Mutex<PreUpdateHook>,
    panicked: Arc<AtomicBool>,
}

/// Where a connection keeps its hook.
#[derive(Default)]
pub(super) struct HookSlot {
    current: Mutex<Option<Arc<InstalledHook>>>,
    panicked: Arc<AtomicBool>,
}

impl HookSlot {
    /// Installs or removes the hook.
    ///
    /// # Safety
    /// `db` must be live, and held by the caller or nobody else's; the hook must be removed (by passing `None`) before `db` is
    /// closed or `self` dropped.
    pub(super) unsafe fn replace(&self, db: *mut ffi::sqlite3, callback: Option<PreUpdateHook>) {
        let new = callback.map(|callback| {
            Arc::new(InstalledHook {
                callback: Mutex::new(callback),
                panicked: self.panicked.clone(),
            })
        });
        let mut current = self.current.lock();
        let (function, argument): (Option<unsafe extern "C" fn(_, _, _, _, _, _, _)>, _) = match &new {
            Some(new) => (Some(trampoline), Arc::as_ptr(new) as *mut c_void),
            None => (None, ptr::null_mut()),
        };
        // SAFETY: the pointer stays valid while `current` holds the Arc. No other thread is inside the old hook, by the caller's
        // promise, so the old Arc can go; on this thread, inside the old hook, `trampoline` holds a second count.
        unsafe { ffi::sqlite3_preupdate_hook(db, function, argument) };
        *current = new;
    }

    pub(super) fn take_panic(&self) -> bool {
        self.panicked.load(Ordering::Relaxed) && self.panicked.swap(false, Ordering::Relaxed)
    }
}

unsafe extern "C" fn trampoline(
    argument: *mut c_void,
    db: *mut ffi::sqlite3,
    op: c_int,
    db_name: *const c_char,
    table: *const c_char,
    old_rowid: i64,
    new_rowid: i64,
) {
    // SAFETY: `argument` is the pointer of an Arc that `HookSlot` holds while the hook is installed; this count keeps it
    // alive even if the callback replaces the hook.
    let registered = unsafe {
        let raw: *const InstalledHook = argument.cast();
        Arc::increment_strong_count(raw);
        Arc::from_raw(raw)
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let op = match op {
            ffi::SQLITE_INSERT => RowChange::Insert,
            ffi::SQLITE_UPDATE => RowChange::Update,
            _ => RowChange::Delete,
        };
        // SAFETY: SQLite passes NUL-terminated names that live until the hook returns.
        let (db_name, table) = unsafe { (CStr::from_ptr(db_name), CStr::from_ptr(table)) };
        // SAFETY: inside the hook.
        let columns = unsafe { ffi::sqlite3_preupdate_count(db).max(0) as usize };
        let change = PreUpdate {
            db,
            op,
            db_name,
            table,
            old_rowid,
            new_rowid,
            columns,
            in_hook: PhantomData,
        };
        // A hook that changes rows would come back here; that is a bug of the hook, and is treated as its panic.
        let mut callback = registered
            .callback
            .try_lock()
            .expect("the preupdate hook does not change rows itself");
        callback(change);
    }));
    if outcome.is_err() {
        registered.panicked.store(true, Ordering::Relaxed);
        // SAFETY: the connection is live inside its own hook; interrupting it from here is allowed.
        unsafe { ffi::sqlite3_interrupt(db) };
    }
}
