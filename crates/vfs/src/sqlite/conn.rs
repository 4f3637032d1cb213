//! An owned connection that can be shared between threads.
//!
//! A [`Conn`] has one recursive lock, which every call into SQLite takes that is more than reading a field: that is what makes
//! sharing it sound. SQLite's own serialized mode would do the same with a lock that costs several times more, taken by each of its
//! functions again; so the connection is opened without (`SQLITE_OPEN_NOMUTEX`). The `rusqlite::Connection` inside is not
//! shareable and is lent out for set-up work only (functions, authorizer, modules); statements go through
//! [`Stmt`](super::Stmt).

use std::{
    ffi::c_int,
    fmt,
    mem::ManuallyDrop,
    path::Path,
    ptr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use libsqlite3_sys as ffi;
use parking_lot::{Mutex, ReentrantMutex, ReentrantMutexGuard};

use super::{
    context::{self, Running},
    error::{Error, Result, codes},
    limits::Limits,
    preupdate::{HookSlot, PreUpdateHook},
    turns::Turns,
};

/// How to open a [`Conn`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Name of a registered VFS; `None` is SQLite's default one.
    pub vfs: Option<String>,
    /// Create the file when there is none.
    pub create: bool,
    /// Refuse every write.
    pub read_only: bool,
    /// How long a call waits for a lock that another connection holds.
    pub busy_timeout: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            vfs: None,
            create: true,
            read_only: false,
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// The longest value, in bytes, where a thread must not wait and its steps are counted.
const LONGEST_IN_HASTE: i32 = 1 << 20;

/// A SQLite connection that threads may share. Clones are the same connection; it closes when the last clone and the last
/// statement are gone.
#[derive(Clone)]
pub struct Conn(Arc<Inner>);

struct Inner {
    db: *mut ffi::sqlite3,
    /// Held in every call into SQLite; the exceptions say why they are none.
    lock: ReentrantMutex<()>,
    hook: HookSlot,
    limits: Arc<Limits>,
    /// Dropped by hand, so that closing, which can checkpoint, happens inside a frame of `context`.
    rusqlite: ManuallyDrop<Mutex<rusqlite::Connection>>,
}

// SAFETY: `db` is used by one thread at a time, the one that holds `lock`, in a build of SQLite whose connections may move between
// threads (`open` checks it). Without the lock it is only interrupted, or asked whether it is, which any thread may do. `hook` is
// `Sync`. The rusqlite connection is only lent out under its lock.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: `db` is live until `rusqlite` is dropped, which happens here, once, and last. The hook goes first, so
        // that closing cannot call it.
        unsafe {
            let _entered = context::enter(self.db, Running::NOTHING, &self.limits.deadline);
            self.hook.replace(self.db, None);
            ManuallyDrop::drop(&mut self.rusqlite);
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Conn").field(&self.0.db).finish()
    }
}

impl Conn {
    /// Opens `path` (`:memory:` is SQLite's private in-memory database).
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        use rusqlite::OpenFlags as F;
        // SAFETY: takes no arguments and only reads a compile-time constant.
        if unsafe { ffi::sqlite3_threadsafe() } == 0 {
            return Err(Error::new(
                codes::MISUSE,
                "this SQLite was built without threads (SQLITE_THREADSAFE=0)",
            ));
        }
        let mut flags = F::SQLITE_OPEN_NO_MUTEX | F::SQLITE_OPEN_EXRESCODE;
        flags |= if options.read_only {
            F::SQLITE_OPEN_READ_ONLY
        } else {
            F::SQLITE_OPEN_READ_WRITE
        };
        if options.create && !options.read_only {
            flags |= F::SQLITE_OPEN_CREATE;
        }
        let _ = context::take_last_error();
        // A SQL function may open a connection of its own: what is opened here is attached by no statement.
        // SAFETY: the frame names nothing.
        let _entered = unsafe { context::enter(ptr::null_mut(), Running::NOTHING, ptr::null()) };
        let turns = Turns::of(path.as_ref());
        let connection = match &options.vfs {
            Some(vfs) => rusqlite::Connection::open_with_flags_and_vfs(path, flags, vfs.as_str())?,
            None => rusqlite::Connection::open_with_flags(path, flags)?,
        };
        let limits = Arc::new(Limits::new(options.busy_timeout, turns));
        let mut connection = connection;
        Limits::wait_for_locks(&limits, &mut connection)?;
        // SAFETY: the handle is only used while `connection` lives, beside which it is stored, and is never closed by us.
        let db = unsafe { connection.handle() };
        Ok(Self(Arc::new(Inner {
            db,
            lock: ReentrantMutex::new(()),
            hook: HookSlot::default(),
            limits,
            rusqlite: ManuallyDrop::new(Mutex::new(connection)),
        })))
    }

    /// Lends out the rusqlite connection for set-up work: functions, authorizer, modules. `work` must not call
    /// `with_rusqlite` on the same connection again: it would wait for itself.
    pub fn with_rusqlite<T>(
        &self,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        // The connection's lock first, always: rusqlite reads the connection's error text after a call, and anyone who holds the
        // lock may come here.
        let _held = self.hold();
        let mut connection = self.0.rusqlite.lock();
        // SAFETY: `self` keeps the connection alive past the guard.
        let _entered = unsafe { context::enter(self.0.db, Running::NOTHING, &self.limits().deadline) };
        let done = work(&mut connection);
        self.limits().end_to_wait();
        Ok(done?)
    }

    /// Rows that the last finished INSERT, UPDATE or DELETE changed itself.
    pub fn changes(&self) -> u64 {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_changes64(self.0.db) as u64 }
    }

    /// Rows changed since the connection was opened, trigger and foreign-key effects included.
    pub fn total_changes(&self) -> u64 {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_total_changes64(self.0.db) as u64 }
    }

    /// Rowid of the last row inserted into a table with rowids.
    pub fn last_insert_rowid(&self) -> i64 {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_last_insert_rowid(self.0.db) }
    }

    /// Makes [`last_insert_rowid`](Self::last_insert_rowid) answer `rowid`, to hide inserts that the user did not make.
    pub fn set_last_insert_rowid(&self, rowid: i64) {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.0.db, rowid) }
    }

    /// True outside of explicit transactions.
    pub fn is_autocommit(&self) -> bool {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_get_autocommit(self.0.db) != 0 }
    }

    /// Sets how long a call waits for a lock that another connection holds.
    pub fn busy_timeout(&self, timeout: Duration) -> Result<()> {
        self.0.limits.set_busy_timeout(timeout);
        // `PRAGMA busy_timeout` may have put SQLite's own wait in the place of ours.
        self.with_rusqlite(|conn| Limits::wait_for_locks(&self.0.limits, conn))
    }

    /// Until when this connection may run: whatever runs on it then, waits included, fails with [`codes::INTERRUPT`], and
    /// so does what is begun later. `None`: for ever.
    pub fn set_deadline(&self, deadline: Option<Instant>) -> Result<()> {
        if deadline.is_some() {
            self.watch()?;
        }
        self.0.limits.deadline.set(deadline);
        Ok(())
    }

    /// Runs `work` on this thread; whatever in it would wait for a page, a lock or a pull, or takes more than about `steps`
    /// of SQLite's virtual machine, fails at once. Gives what `work` gave and whether something failed for that reason.
    ///
    /// Where steps are counted, a value of more than [`LONGEST_IN_HASTE`] bytes fails with [`codes::TOOBIG`]: one step
    /// could make one of a gigabyte.
    pub fn without_waiting<T>(&self, steps: u32, work: impl FnOnce() -> T) -> Result<(T, bool)> {
        struct Restore<'c>(&'c Conn, i32, #[allow(dead_code)] Held<'c>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.limit_length(self.1);
            }
        }
        self.watch()?;
        let _restore = (steps != u32::MAX).then(|| {
            let held = self.hold();
            Restore(self, self.limit_length(LONGEST_IN_HASTE), held)
        });
        Ok(context::without_waiting(steps, work))
    }

    /// Sets the most bytes of a value, and gives what it was. The caller holds the connection.
    fn limit_length(&self, bytes: i32) -> i32 {
        // SAFETY: `db` is live while `self` is, and held.
        unsafe { ffi::sqlite3_limit(self.0.db, ffi::SQLITE_LIMIT_LENGTH, bytes) }
    }

    fn watch(&self) -> Result<()> {
        if self.0.limits.is_watched() {
            return Ok(());
        }
        self.with_rusqlite(|conn| Limits::watch(&self.0.limits, conn))
    }

    /// Keeps other threads off this connection until the guard is dropped. Calls on this thread continue.
    pub fn hold(&self) -> Held<'_> {
        Held(self.0.lock.lock())
    }

    /// Makes whatever runs on this connection now fail with [`codes::INTERRUPT`].
    pub fn interrupt(&self) {
        // SAFETY: `db` is live while `self` is; sqlite3_interrupt may be called from any thread.
        unsafe { ffi::sqlite3_interrupt(self.0.db) }
    }

    /// Something that can interrupt this connection without keeping it open.
    pub fn interrupt_handle(&self) -> InterruptHandle {
        InterruptHandle(Arc::downgrade(&self.0))
    }

    /// Whether an interrupt is pending.
    pub fn is_interrupted(&self) -> bool {
        // SAFETY: `db` is live while `self` is.
        unsafe { ffi::sqlite3_is_interrupted(self.0.db) != 0 }
    }

    /// Calls `hook` before every change of a row of a real table, from now on; `None` removes it. Install it before
    /// preparing what it should see: SQLite compiles some statements differently when there is a hook.
    ///
    /// The hook must not use the connection. A panic in it is caught, interrupts the statement, and makes the step fail.
    pub fn set_preupdate_hook(&self, hook: Option<PreUpdateHook>) {
        // So that the hook's own lock is never taken before the connection's: a hook that runs has them the other way round.
        let _held = self.hold();
        // SAFETY: `db` is live and held, and `Inner::drop` removes the hook before the connection is closed.
        unsafe { self.0.hook.replace(self.0.db, hook) }
    }

    /// Reads absent pages of the replica that this connection is open on as zeros from now on, and takes a schema that
    /// cannot be read for an empty one: for a connection that overwrites pages through `sqlite_dbpage`, which reads a page
    /// before it writes it, or that reads pages which are here. It asks the network for nothing. A commit of it that fails
    /// leaves nothing in the WAL.
    pub fn never_fetch(&self) -> Result<()> {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held; the name is NUL-terminated, and this file control takes no argument.
        let rc = unsafe {
            ffi::sqlite3_file_control(
                self.0.db,
                c"main".as_ptr(),
                crate::shim::NEVER_FETCH,
                ptr::null_mut(),
            )
        };
        if rc != ffi::SQLITE_OK {
            return Err(Error::new(rc, "the connection is not open on a replica"));
        }
        // Also lets SQLite take what it could read of a damaged schema for the schema; the next statement after the one
        // that found it damaged compiles.
        self.execute_batch("PRAGMA writable_schema = ON")?;
        let _ = self.prepare("SELECT 1 FROM sqlite_schema LIMIT 0", false);
        Ok(())
    }

    /// Writes what a transaction has changed so far to the WAL, so that little is left to do for its COMMIT.
    pub fn flush(&self) -> Result<()> {
        self.with_rusqlite(|conn| conn.cache_flush())
    }

    /// Moves what is in the WAL into the database file, as far as readers allow; `empty` also waits for a moment without them
    /// and empties the WAL. False when such a moment did not come. Unlike the pragma, it does not need the schema.
    pub fn checkpoint(&self, empty: bool) -> Result<bool> {
        // A connection that has read nothing yet has not opened the WAL. This reads page 1.
        self.execute_batch("PRAGMA main.user_version")?;
        let mode = match empty {
            true => ffi::SQLITE_CHECKPOINT_TRUNCATE,
            false => ffi::SQLITE_CHECKPOINT_PASSIVE,
        };
        let (frames, moved) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `db` is live while `self` is; the name is NUL-terminated, and SQLite writes to no null pointer.
        let call =
            || unsafe { ffi::sqlite3_wal_checkpoint_v2(self.0.db, c"main".as_ptr(), mode, frames, moved) };
        match self.call(Running::NOTHING, call) {
            Ok(_) => Ok(true),
            Err(e) if e.code == codes::BUSY => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What the connection holds of `main` right now.
    pub fn txn_state(&self) -> TxnState {
        let _held = self.hold();
        // SAFETY: `db` is live while `self` is, and held; the name is NUL-terminated.
        match unsafe { ffi::sqlite3_txn_state(self.0.db, c"main".as_ptr()) } {
            ffi::SQLITE_TXN_WRITE => TxnState::Write,
            ffi::SQLITE_TXN_READ => TxnState::Read,
            _ => TxnState::None,
        }
    }

    /// This connection, for something that must not keep it open, such as a SQL function registered on it.
    pub fn downgrade(&self) -> WeakConn {
        WeakConn(Arc::downgrade(&self.0))
    }

    /// Whether `other` is this very connection.
    pub fn is_same(&self, other: &Conn) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn raw(&self) -> *mut ffi::sqlite3 {
        self.0.db
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The one way to make a call that answers with a result code: inside a frame of `context` that says what runs,
    /// and with the connection held until what it failed with has been read. Between the two another thread's call on
    /// this connection would replace the error, and free its text while it is being copied.
    ///
    /// `call` gives the result code of its last call into SQLite; pointers in it must be live.
    pub(super) fn call(&self, running: Running, call: impl FnOnce() -> c_int) -> Result<c_int> {
        let _held = self.hold();
        let stmt = running.stmt;
        // SAFETY: `db` is live while `self` is, and held.
        let is_in_transaction = || unsafe { ffi::sqlite3_get_autocommit(self.0.db) == 0 };
        let in_transaction = is_in_transaction();
        // SAFETY: null, or the caller's live statement. One without columns may be a BEGIN.
        let may_write = !stmt.is_null()
            && unsafe { ffi::sqlite3_stmt_readonly(stmt) == 0 || ffi::sqlite3_column_count(stmt) == 0 };
        if may_write && !in_transaction {
            self.limits().before_write();
        }
        let (rc, interrupted) = {
            // SAFETY: `self` keeps the connection alive past the frame; the caller's statement is.
            let _entered = unsafe { context::enter(self.0.db, running, &self.limits().deadline) };
            let rc = call();
            (rc, rc & 0xff == codes::BUSY && context::is_interrupted())
        };
        self.limits().end_to_wait();
        let has_ended = (may_write || in_transaction) && !is_in_transaction();
        if may_write && has_ended {
            self.limits().after_write();
        }
        if self.0.hook.take_panic() {
            return Err(Error::new(
                codes::ABORT,
                "recording the changes of this statement failed: a bug, please report it",
            ));
        }
        if matches!(rc, ffi::SQLITE_OK | ffi::SQLITE_ROW | ffi::SQLITE_DONE) {
            // `PRAGMA table_list` and the like look at every virtual table and pass over one that cannot be read, but the
            // transaction is rolled back all the same.
            return match in_transaction && has_ended {
                true => context::take_last_error().map_or(Ok(rc), |source| {
                    Err(Error {
                        source: Some(source),
                        ..Error::new(ffi::SQLITE_IOERR_READ, "disk I/O error")
                    })
                }),
                false => Ok(rc),
            };
        }
        // SAFETY: the connection is live, and held since before the call.
        let error = unsafe { Error::last(self.0.db, rc) };
        Err(match rc & 0xff {
            // The wait for a lock was what the interrupt ended.
            codes::BUSY if interrupted => self.interrupted("while another connection had the lock"),
            codes::INTERRUPT if error.source.is_none() && self.limits().deadline.has_passed() => {
                self.interrupted("while it ran")
            }
            _ => error,
        })
    }

    /// A call into SQLite that runs nothing: it reads no page and waits for nobody, and needs none of what [`call`](Self::call)
    /// does around it.
    pub(super) fn call_at_rest(&self, call: impl FnOnce() -> c_int) -> Result<()> {
        let _held = self.hold();
        match call() {
            ffi::SQLITE_OK => Ok(()),
            // SAFETY: the connection is live, and held since before the call.
            rc => Err(unsafe { Error::last(self.0.db, rc) }),
        }
    }

    fn interrupted(&self, when: &str) -> Error {
        let why = match self.limits().deadline.has_passed() {
            true => "interrupted by its deadline",
            false => "interrupted",
        };
        Error::new(codes::INTERRUPT, format!("{why} {when}"))
    }
}

/// See [`Conn::hold`].
#[must_use = "other threads are kept off until it is dropped"]
#[derive(Debug)]
pub struct Held<'c>(#[allow(dead_code)] ReentrantMutexGuard<'c, ()>);

/// Whether a connection is inside a transaction on `main`, as SQLite sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnState {
    /// No snapshot, no lock; also right after a deferred `BEGIN`.
    None,
    /// A snapshot.
    Read,
    /// The write lock.
    Write,
}

/// A [`Conn`] that does not keep the connection open.
#[derive(Clone)]
pub struct WeakConn(Weak<Inner>);

impl WeakConn {
    /// The connection, if it is still open.
    pub fn upgrade(&self) -> Option<Conn> {
        self.0.upgrade().map(Conn)
    }
}

impl fmt::Debug for WeakConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakConn")
    }
}

/// Interrupts a connection from any thread; does nothing when the connection is gone. See [`Conn::interrupt_handle`].
#[derive(Clone)]
pub struct InterruptHandle(Weak<Inner>);

impl InterruptHandle {
    /// Makes whatever runs on the connection now fail with [`codes::INTERRUPT`].
    pub fn interrupt(&self) {
        if let Some(inner) = self.0.upgrade() {
            Conn(inner).interrupt();
        }
    }
}

impl fmt::Debug for InterruptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InterruptHandle")
    }
}
