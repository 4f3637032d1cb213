//! What this thread is executing, for code that SQLite calls in the middle of it.
//!
//! Every prepare, step, reset and close of [`Conn`](super::Conn) and [`Stmt`](super::Stmt) enters a frame here and leaves
//! it when it returns or unwinds; frames nest, as a SQL function may run statements of its own. A VFS callback on the
//! same thread can then ask which statement needs a page, whether somebody interrupted it, and leave an error that is
//! richer than the integer that SQLite passes on.
//!
//! A thread may also say, with [`without_waiting`], that what it executes must give up rather than wait.
//!
//! This module must never call into SQLite on its own account: it answers only from inside a call that is under way, when
//! the pointers it holds are alive and this thread holds the connection's mutex.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    ffi::CStr,
    ptr,
    sync::Arc,
};

use libsqlite3_sys as ffi;

use super::deadline::Deadline;

/// The error a VFS leaves behind for the SQL caller.
pub type SharedError = Arc<dyn Error + Send + Sync>;

/// Bytes of the text and the values of a statement that is written out, at most.
pub(super) const LONGEST_STATEMENT: usize = 64 << 10;

/// What a call into SQLite runs.
#[derive(Clone, Copy)]
pub(super) struct Running {
    pub(super) stmt: *mut ffi::sqlite3_stmt,
    /// Of its text and of the values that are bound to it.
    pub(super) bytes: usize,
}

impl Running {
    /// It prepares or closes something: there is no statement that could be named.
    pub(super) const NOTHING: Self = Self {
        stmt: ptr::null_mut(),
        bytes: 0,
    };
}

#[derive(Clone, Copy)]
struct Frame {
    db: *mut ffi::sqlite3,
    running: Running,
    /// Until when the connection runs; null when `db` is.
    deadline: *const Deadline,
}

const IDLE: Frame = Frame {
    db: ptr::null_mut(),
    running: Running::NOTHING,
    deadline: ptr::null(),
};

/// How a thread that must not wait is getting on.
#[derive(Clone, Copy)]
struct Haste {
    /// Steps of SQLite's virtual machine that are left.
    steps: u32,
    /// Whether something gave up.
    gave_up: bool,
}

thread_local! {
    static FRAME: Cell<Frame> = const { Cell::new(IDLE) };
    static LAST_ERROR: RefCell<Option<SharedError>> = const { RefCell::new(None) };
    static HASTE: Cell<Option<Haste>> = const { Cell::new(None) };
    static WATCH: Cell<Option<fn() -> bool>> = const { Cell::new(None) };
}

/// Restores the frame around it when dropped, also when a panic unwinds through it.
pub(super) struct Entered {
    outer: Frame,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // A thread that is being torn down has no frame to restore.
        let _ = FRAME.try_with(|frame| frame.set(self.outer));
    }
}

/// Says what this thread now runs on `db`, until the guard is dropped.
///
/// # Safety
/// All pointers must stay valid until the guard is dropped, and the guard must not outlive the call it describes.
pub(super) unsafe fn enter(db: *mut ffi::sqlite3, running: Running, deadline: *const Deadline) -> Entered {
    let entered = Frame {
        db,
        running,
        deadline,
    };
    let outer = FRAME.try_with(|frame| frame.replace(entered)).unwrap_or(IDLE);
    if outer.db.is_null() {
        // What an earlier call left behind and nobody took is not this call's error.
        let _ = take_last_error();
    }
    Entered { outer }
}

/// The SQL, with its bound values written out, of the statement that this thread is executing; `None` while it is
/// preparing one, when it is executing nothing, and where text and values are long: values of many megabytes take seconds and
/// twice their memory to write out. Costs a pass over the SQL text: ask only when the answer is needed.
pub fn current_statement_sql() -> Option<String> {
    let running = FRAME.try_with(Cell::get).ok()?.running;
    if running.stmt.is_null() || running.bytes > LONGEST_STATEMENT {
        return None;
    }
    // SAFETY: `enter` promises that the statement outlives its frame, and the frame is the innermost call of this very
    // thread, which therefore holds the (recursive) connection mutex that sqlite3_expanded_sql takes.
    unsafe { expanded_sql(running.stmt) }
}

/// Whether this thread is in the middle of a statement: a database file that is opened now is attached by it.
pub(crate) fn runs_statement() -> bool {
    FRAME
        .try_with(|frame| !frame.get().running.stmt.is_null())
        .unwrap_or(false)
}

/// Whether `sqlite3_interrupt` was called on the connection that this thread is executing on, its deadline has passed, or
/// this thread's [watch](set_watch) wants it to stop. Code that waits inside a VFS callback asks this now and then.
pub fn is_interrupted() -> bool {
    let interrupted = FRAME.try_with(Cell::get).is_ok_and(|frame| {
        // SAFETY: `enter` promises that the connection and its deadline outlive its frame.
        !frame.db.is_null()
            && unsafe { ffi::sqlite3_is_interrupted(frame.db) != 0 || (*frame.deadline).has_passed() }
    });
    interrupted || is_stopped()
}

/// From now on a wait on this thread asks `watch` too, every few milliseconds, whether it should stop: for a language
/// whose signal handlers run on one certain thread. No lock of this crate is held then, but the connection is in the middle
/// of a call.
pub fn set_watch(watch: Option<fn() -> bool>) {
    let _ = WATCH.try_with(|current| current.set(watch));
}

/// Whether this thread's [watch](set_watch) wants what runs to stop.
pub fn is_stopped() -> bool {
    WATCH
        .try_with(Cell::get)
        .is_ok_and(|watch| watch.is_some_and(|asks| asks()))
}

/// Runs `work` on this thread; whatever in it would wait for a page, a lock or a pull, or takes more than `steps` of
/// SQLite's virtual machine (counted roughly, and only on connections that watch their limits), fails at once. Gives what
/// `work` gave and whether something failed for that reason.
pub(super) fn without_waiting<T>(steps: u32, work: impl FnOnce() -> T) -> (T, bool) {
    struct Restore(Option<Haste>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = HASTE.try_with(|haste| haste.set(self.0));
        }
    }
    let _restore = Restore(HASTE.replace(Some(Haste {
        steps,
        gave_up: false,
    })));
    let result = work();
    (result, HASTE.get().is_some_and(|haste| haste.gave_up))
}

/// Whether this thread must not wait, and what asks is therefore to fail now. Ask right before waiting: the answer "yes"
/// is taken down as a reason for the failure that follows.
pub fn must_not_wait() -> bool {
    HASTE
        .try_with(|haste| {
            let Some(mut now) = haste.get() else { return false };
            now.gave_up = true;
            haste.set(Some(now));
            true
        })
        .unwrap_or(false)
}

/// Whether this thread must not wait; asking changes nothing.
pub(super) fn is_in_haste() -> bool {
    HASTE.try_with(|haste| haste.get().is_some()).unwrap_or(false)
}

/// Counts steps of the virtual machine; true when this thread has none left.
pub(super) fn spend(steps: u32) -> bool {
    HASTE
        .try_with(|haste| {
            let Some(mut now) = haste.get() else { return false };
            if let Some(left) = now.steps.checked_sub(steps) {
                now.steps = left;
            } else {
                now.gave_up = true;
            }
            haste.set(Some(now));
            now.gave_up
        })
        .unwrap_or(false)
}

/// Whether this thread is inside a call of a [`Conn`](super::Conn) or [`Stmt`](super::Stmt).
pub fn is_executing() -> bool {
    FRAME.try_with(|frame| !frame.get().db.is_null()).unwrap_or(false)
}

/// Leaves the error that makes the current VFS callback fail; the SQL caller gets it as the source of its
/// [`Error`](super::Error). A later error replaces an earlier one.
pub fn set_last_error(error: SharedError) {
    let _ = LAST_ERROR.try_with(|last| last.replace(Some(error)));
}

/// Takes what [`set_last_error`] left on this thread.
pub fn take_last_error() -> Option<SharedError> {
    LAST_ERROR
        .try_with(|last| last.borrow_mut().take())
        .ok()
        .flatten()
}

/// # Safety
/// `stmt` must be a live statement.
pub(super) unsafe fn expanded_sql(stmt: *mut ffi::sqlite3_stmt) -> Option<String> {
    // SAFETY: the caller says the statement is live; the result is null or a NUL-terminated string that is ours to free.
    unsafe {
        let text = ffi::sqlite3_expanded_sql(stmt);
        if text.is_null() {
            return None;
        }
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        ffi::sqlite3_free(text.cast());
        Some(owned)
    }
}
