//! Which databases wait for a function of the caller that this thread is running, and what such a function must not do.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use partial_sync::Database;

use crate::boundary::{Result, misuse, quietly, taken};

thread_local! {
    /// The databases whose functions this thread is running.
    static ASKED: RefCell<Vec<Arc<Path>>> = const { RefCell::new(Vec::new()) };
}

/// Runs a function of a database. A thread that is about to end may have nowhere left to note it; the function runs all the same.
pub(crate) fn ask(database: &Arc<Path>, function: impl FnOnce()) {
    let is_noted = ASKED
        .try_with(|asked| asked.borrow_mut().push(database.clone()))
        .is_ok();
    function();
    if is_noted {
        let _ = ASKED.try_with(|asked| asked.borrow_mut().pop());
    }
}

/// Whether this thread runs a function of this database: the database waits for the function, and a call of the function
/// could wait for that.
pub(crate) fn is_asked(database: &Path) -> bool {
    ASKED
        .try_with(|asked| asked.borrow().iter().any(|asked| **asked == *database))
        .unwrap_or(false)
}

/// Fails when this thread runs a function of this database.
pub(crate) fn refuse_when_asked(database: &Path) -> Result<()> {
    match is_asked(database) {
        true => misuse(
            "a url, token, transform, progress or release function has called its own database, which is waiting for the \
             function: use another database there, or get what is needed before",
        ),
        false => Ok(()),
    }
}

/// What a database is known by here: its path, or for `:memory:`, of which each is another one, a name of its own.
pub(crate) fn name_of(path: &str) -> Arc<Path> {
    if path == ":memory:" {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        return PathBuf::from(format!(":memory:{number}")).into();
    }
    // Where the folder is not there, opening it fails.
    Database::full_path(path).unwrap_or_else(|_| path.into()).into()
}

/// Releases, like [`release`](crate::boundary::release), what is a part of a database. A function of that database only begins it: the database is in the middle of
/// something, and closing what it uses could wait for that. Another thread does it as soon as it can be done.
///
/// # Safety
/// As for [`release`](crate::boundary::release).
pub(crate) unsafe fn release_of<T: Send + 'static>(variable: *mut *mut T, database: impl Fn(&T) -> &Path) {
    // SAFETY: the caller says so.
    let owned = unsafe { taken(variable) };
    quietly((), || match owned {
        Some(owned) if is_asked(database(&owned)) => {
            let later = std::thread::Builder::new().name("partial-sync-release".to_owned());
            // Where there can be no thread, it is dropped here.
            let _ = later.spawn(move || quietly((), || drop(owned)));
        }
        owned => drop(owned),
    });
}
