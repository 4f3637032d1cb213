//! The engine's messages as records of a Python logger.
//!
//! A message may come from any thread, with locks of the engine held. So what runs for it, also a destructor that happens to,
//! cannot use a connection: it would wait for those.

use std::{
    cell::Cell,
    fmt::{self, Write},
    sync::atomic::{AtomicU8, Ordering},
};

use parking_lot::Mutex;
use pyo3::prelude::*;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::program_code;

static LOGGER: Mutex<Option<Py<PyAny>>> = Mutex::new(None);
/// The least important level that is passed on, as Python has it.
static LEAST: AtomicU8 = AtomicU8::new(u8::MAX);

thread_local! {
    static LOGS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs something for a message.
pub(crate) fn is_logging() -> bool {
    LOGS.get()
}

/// Passes messages of `level` and above on to a logger.
#[pyfunction]
#[pyo3(name = "_set_logger")]
pub(crate) fn set_logger(logger: Py<PyAny>, level: u8) {
    let before = LOGGER.lock().replace(logger);
    drop(before);
    LEAST.store(level, Ordering::Relaxed);
    // It stays for ever once it is there; a second call has only changed what it passes on.
    let _ = tracing::subscriber::set_global_default(ToPython);
    tracing::callsite::rebuild_interest_cache();
}

fn level_of(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

struct ToPython;

impl Subscriber for ToPython {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("partial_sync")
            && level_of(metadata.level()) >= LEAST.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let before = LOGS.replace(true);
        // None: the interpreter is shutting down.
        Python::try_attach(|py| {
            let logger = LOGGER.lock().as_ref().map(|logger| logger.clone_ref(py));
            if let Some(logger) = logger {
                let message = text.message + &text.fields;
                let level = level_of(event.metadata().level());
                let logged = program_code::call_method(logger.bind(py), "log", (level, "%s", message));
                if let Err(error) = logged {
                    error.write_unraisable(py, Some(logger.bind(py)));
                }
            }
        });
        LOGS.set(before);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A message and its fields, written out.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
