//! Functions of the program that the engine or SQLite calls: where they are kept, what they raised, and what they may do.
//!
//! Each is owned by its connection alone, in a [`Slot`] that the garbage collector can look into and empty: a method of an
//! object that has the connection is a cycle through the engine, which it could not see otherwise.
//!
//! The engine asks for a token, a url or a transformed change in the middle of something that waits for the answer. A thread
//! that answers must not wait for the same database, or both would wait for ever.

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use partial_sync::Database;
use pyo3::{PyTraverseError, PyVisit, exceptions::PyReferenceError, prelude::*};

use crate::errors::ProgrammingError;

/// A function of the program.
pub(crate) struct Slot {
    callable: Mutex<Option<Py<PyAny>>>,
}

impl Slot {
    /// The function, unless the garbage collector has taken it.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let callable = self
            .callable
            .lock()
            .as_ref()
            .map(|callable| callable.clone_ref(py));
        callable.map(|callable| callable.into_bound(py)).ok_or_else(|| {
            PyReferenceError::new_err("the connection that this function was given to is gone")
        })
    }
}

/// The functions of a connection, and what they raised.
pub(crate) struct Callbacks {
    /// Where the database is; `None`: nowhere that another connection could be at.
    path: Option<PathBuf>,
    /// Called by SQL.
    functions: Mutex<Vec<Arc<Slot>>>,
    /// Called by the engine, for all who have the database open.
    sources: Mutex<Vec<Arc<Slot>>>,
    raised: Mutex<Option<PyErr>>,
    any_raised: AtomicBool,
    /// SQL has collations of the program's.
    collations: AtomicBool,
    /// A collation raised: rows are in no order since, and the statement must fail.
    disordered: AtomicBool,
}

/// How many connections there are to each path.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, usize>>> = LazyLock::new(Mutex::default);

thread_local! {
    /// For whom this thread answers a question of the engine.
    static ANSWERS: RefCell<Option<Arc<Callbacks>>> = const { RefCell::new(None) };
}

impl Callbacks {
    /// Of a connection to this path that is about to be opened.
    pub(crate) fn new(path: &Path) -> Self {
        let path = match path.to_str() {
            Some(":memory:") => None,
            // One file may be spelled in several ways. Where its folder is not there, opening it fails.
            _ => Database::full_path(path).ok(),
        };
        if let Some(path) = &path {
            *OPEN.lock().entry(path.clone()).or_default() += 1;
        }
        Self {
            path,
            functions: Mutex::default(),
            sources: Mutex::default(),
            raised: Mutex::default(),
            any_raised: AtomicBool::new(false),
            collations: AtomicBool::new(false),
            disordered: AtomicBool::new(false),
        }
    }

    /// Whether no other connection of this process uses what the engine has for the path.
    pub(crate) fn is_alone(&self) -> bool {
        let Some(path) = &self.path else { return true };
        OPEN.try_lock()
            .is_some_and(|open| open.get(path).is_none_or(|&count| count < 2))
    }

    /// Keeps a function that SQL calls.
    pub(crate) fn function(&self, callable: Py<PyAny>) -> Arc<Slot> {
        keep(&self.functions, callable)
    }

    /// Keeps a function that orders texts.
    pub(crate) fn collation(&self, callable: Py<PyAny>) -> Arc<Slot> {
        self.collations.store(true, Ordering::Relaxed);
        self.function(callable)
    }

    /// Whether SQL has ever had a collation of the program's.
    pub(crate) fn has_collations(&self) -> bool {
        self.collations.load(Ordering::Relaxed)
    }

    /// Keeps a function that the engine calls.
    pub(crate) fn source(&self, callable: Py<PyAny>) -> Arc<Slot> {
        keep(&self.sources, callable)
    }

    /// Forgets the functions that SQL no longer has.
    pub(crate) fn forget_unused(&self) {
        let mut unused = Vec::new();
        self.functions.lock().retain(|slot| {
            let used = Arc::strong_count(slot) > 1;
            if !used {
                unused.push(slot.clone());
            }
            used
        });
    }

    /// For the garbage collector. What the engine calls for other connections too is not this connection's alone.
    pub(crate) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let kept = [Some(&self.functions), self.is_alone().then_some(&self.sources)];
        for slots in kept.into_iter().flatten().filter_map(|slots| slots.try_lock()) {
            for callable in slots.iter().filter_map(|slot| slot.callable.try_lock()) {
                visit.call(&*callable)?;
            }
        }
        Ok(())
    }

    /// For the garbage collector: lets go of the functions.
    pub(crate) fn clear(&self) {
        let kept = [Some(&self.functions), self.is_alone().then_some(&self.sources)];
        let mut callables = Vec::new();
        for slots in kept.into_iter().flatten() {
            let slots: Vec<_> = slots.lock().clone();
            callables.extend(slots.iter().map(|slot| slot.callable.lock().take()));
        }
    }

    pub(crate) fn take_raised(&self) -> Option<PyErr> {
        if !self.any_raised.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.raised.lock().take()
    }

    /// Remembers what was raised; gives its text.
    pub(crate) fn raised(&self, error: PyErr) -> String {
        let message = error.to_string();
        let before = self.raised.lock().replace(error);
        self.any_raised.store(true, Ordering::Relaxed);
        drop(before);
        message
    }

    /// A collation raised.
    pub(crate) fn disorder(&self, error: PyErr) {
        self.raised(error);
        self.disordered.store(true, Ordering::Relaxed);
    }

    /// Whether a collation has raised since somebody last took this down.
    pub(crate) fn is_disordered(&self) -> bool {
        self.disordered.load(Ordering::Relaxed)
    }

    /// The same, and takes it down.
    pub(crate) fn take_disordered(&self) -> bool {
        self.is_disordered() && self.disordered.swap(false, Ordering::Relaxed)
    }

    /// Calls Python from a thread of the engine, which waits for the answer; the program may be ending.
    pub(crate) fn answer<T>(
        self: &Arc<Self>,
        work: impl FnOnce(Python<'_>) -> PyResult<T>,
    ) -> Result<T, String> {
        let answered = Python::try_attach(|py| {
            let before = ANSWERS.replace(Some(self.clone()));
            let answer = work(py).map_err(|error| self.raised(error));
            ANSWERS.set(before);
            answer
        });
        answered.unwrap_or_else(|| Err("Python is shutting down".into()))
    }

    /// Whether this thread is asked something by the engine that this database may be waiting for.
    pub(crate) fn is_waited_for(&self) -> bool {
        ANSWERS.with_borrow(|answers| {
            answers.as_ref().is_some_and(|asked| {
                std::ptr::eq(&**asked, self) || asked.path.is_some() && asked.path == self.path
            })
        })
    }

    /// Fails where this thread is asked something by the engine that this database may be waiting for.
    pub(crate) fn check_not_waited_for(&self) -> PyResult<()> {
        match self.is_waited_for() {
            true => Err(ProgrammingError::new_err(
                "this function is called in the middle of a request of the same database: it cannot open it, pull, push or the like",
            )),
            false => Ok(()),
        }
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        let mut open = OPEN.lock();
        if let Some(count) = open.get_mut(path) {
            *count -= 1;
            if *count == 0 {
                open.remove(path);
            }
        }
    }
}

fn keep(slots: &Mutex<Vec<Arc<Slot>>>, callable: Py<PyAny>) -> Arc<Slot> {
    let slot = Arc::new(Slot {
        callable: Mutex::new(Some(callable)),
    });
    slots.lock().push(slot.clone());
    slot
}
