//! The DB-API's exception classes, and which of them an error of the engine is.
//!
//! Messages are the engine's. Like the standard library's, an exception carries `sqlite_errorcode` and
//! `sqlite_errorname`.

use partial_sync::Error as EngineError;
use partial_sync_transport::RemoteErrorKind;
use partial_sync_vfs::{
    ReadError,
    sqlite::{code_names::name_of, codes},
};
use pyo3::{
    create_exception,
    exceptions::{PyException, PyMemoryError},
    prelude::*,
};

use crate::signals;

create_exception!(turso, Warning, PyException, "Not raised; for the DB-API.");
create_exception!(
    turso,
    Error,
    PyException,
    "The base class of this module's errors."
);
create_exception!(
    turso,
    InterfaceError,
    Error,
    "An error of the interface rather than of the database."
);
create_exception!(
    turso,
    DatabaseError,
    Error,
    "An error that has to do with the database."
);
create_exception!(turso, DataError, DatabaseError, "A value that is too big.");
create_exception!(
    turso,
    OperationalError,
    DatabaseError,
    "Something that the program may not be able to help: the network, a lock, the disk, SQL that does not fit the schema."
);
create_exception!(
    turso,
    IntegrityError,
    DatabaseError,
    "A constraint failed, here or on the remote."
);
create_exception!(
    turso,
    InternalError,
    DatabaseError,
    "SQLite met a state that should not be."
);
create_exception!(
    turso,
    ProgrammingError,
    DatabaseError,
    "The program uses this module wrongly: a closed connection, a wrong number of parameters, an option that cannot be."
);
create_exception!(
    turso,
    NotSupportedError,
    DatabaseError,
    "Something that this database cannot do."
);

enum Class {
    Database,
    Data,
    Operational,
    Integrity,
    Internal,
    Programming,
    NotSupported,
    Memory,
}

/// The Python exception for an error of the engine; what a signal handler raised goes before it.
pub(crate) fn raise(py: Python<'_>, error: EngineError) -> PyErr {
    if let Some(raised) = signals::take_raised() {
        return raised;
    }
    let (class, code) = class_of(&error);
    let message = match error {
        // The engine's word is for those who can run it again elsewhere.
        EngineError::WouldWait => "this function is called in the middle of a request of the same database, so what it runs \
                                   there cannot wait for a page, a lock or a pull: it may use what is here, or another \
                                   database"
            .to_owned(),
        _ => error.to_string(),
    };
    let raised = with_code(py, new(class, message), code);
    if let Some(change) = error.change() {
        // As with the code.
        let _ = raised.value(py).setattr("change", change.0);
    }
    raised
}

fn new(class: Class, message: String) -> PyErr {
    match class {
        Class::Database => DatabaseError::new_err(message),
        Class::Data => DataError::new_err(message),
        Class::Operational => OperationalError::new_err(message),
        Class::Integrity => IntegrityError::new_err(message),
        Class::Internal => InternalError::new_err(message),
        Class::Programming => ProgrammingError::new_err(message),
        Class::NotSupported => NotSupportedError::new_err(message),
        Class::Memory => PyMemoryError::new_err(message),
    }
}

fn with_code(py: Python<'_>, error: PyErr, code: Option<i32>) -> PyErr {
    let Some(code) = code else { return error };
    let value = error.value(py);
    // An exception has room for attributes; should that ever fail, the error itself is what matters.
    let _ = value.setattr("sqlite_errorcode", code);
    let _ = value.setattr("sqlite_errorname", name_of(code));
    error
}

fn class_of(error: &EngineError) -> (Class, Option<i32>) {
    if error.is_interrupted() {
        return (Class::Operational, Some(codes::INTERRUPT));
    }
    if let Some(remote) = error.remote() {
        return match remote.kind {
            RemoteErrorKind::InvalidUrl => (Class::Programming, None),
            _ => (Class::Operational, sqlite_code(error)),
        };
    }
    match error {
        EngineError::Sqlite(e) => {
            let busy = e
                .cause()
                .and_then(|cause| cause.downcast_ref::<ReadError>())
                .is_some_and(|cause| matches!(cause, ReadError::PullUnderWay { .. }));
            if busy {
                return (Class::Operational, Some(codes::BUSY));
            }
            (class_of_sqlite(e.code()), Some(e.extended_code()))
        }
        EngineError::Read(_) => (Class::Operational, Some(codes::IOERR)),
        EngineError::NoRemote { .. }
        | EngineError::OtherRemote { .. }
        | EngineError::OpenedOtherwise { .. }
        | EngineError::SegmentSize(_)
        | EngineError::BootstrapQuery { .. } => (Class::Programming, None),
        EngineError::NotAReplica { .. } | EngineError::ChangedElsewhere { .. } => {
            (Class::Database, Some(codes::NOTADB))
        }
        EngineError::InUse { .. } | EngineError::LeftOpen { .. } | EngineError::SyncBusy { .. } => {
            (Class::Operational, Some(codes::BUSY))
        }
        EngineError::Storage { source, .. } => {
            let code = match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => codes::FULL,
                std::io::ErrorKind::ReadOnlyFilesystem => codes::READONLY,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::NotFound => codes::CANTOPEN,
                _ => codes::IOERR,
            };
            (Class::Operational, Some(code))
        }
        EngineError::PushRefused(refused) => {
            let constraint = refused
                .code
                .as_deref()
                .is_some_and(|code| code.starts_with("SQLITE_CONSTRAINT"));
            if constraint || refused.message.contains("constraint failed") {
                (Class::Integrity, Some(codes::CONSTRAINT))
            } else {
                (Class::Operational, None)
            }
        }
        EngineError::PullConflict { .. } => (Class::Integrity, Some(codes::CONSTRAINT)),
        EngineError::Damaged { .. } => (Class::Database, Some(codes::CORRUPT)),
        EngineError::UnusableDatabase { .. } | EngineError::Unsupported { .. } => (Class::NotSupported, None),
        EngineError::Conversion(_) => (Class::Programming, Some(codes::MISUSE)),
        _ => (Class::Operational, None),
    }
}

fn sqlite_code(error: &EngineError) -> Option<i32> {
    match error {
        EngineError::Sqlite(e) => Some(e.extended_code()),
        _ => None,
    }
}

/// As the standard library has it, but that misuse is a programming error.
fn class_of_sqlite(code: i32) -> Class {
    match code {
        codes::INTERNAL | 12 => Class::Internal,
        codes::NOMEM => Class::Memory,
        codes::CORRUPT | codes::NOTADB => Class::Database,
        codes::TOOBIG => Class::Data,
        codes::CONSTRAINT | codes::MISMATCH => Class::Integrity,
        codes::MISUSE | codes::RANGE => Class::Programming,
        1..=17 => Class::Operational,
        _ => Class::Database,
    }
}

/// Adds the classes to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("Warning", py.get_type::<Warning>())?;
    module.add("Error", py.get_type::<Error>())?;
    module.add("InterfaceError", py.get_type::<InterfaceError>())?;
    module.add("DatabaseError", py.get_type::<DatabaseError>())?;
    module.add("DataError", py.get_type::<DataError>())?;
    module.add("OperationalError", py.get_type::<OperationalError>())?;
    module.add("IntegrityError", py.get_type::<IntegrityError>())?;
    module.add("InternalError", py.get_type::<InternalError>())?;
    module.add("ProgrammingError", py.get_type::<ProgrammingError>())?;
    module.add("NotSupportedError", py.get_type::<NotSupportedError>())
}
