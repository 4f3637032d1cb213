//! The DB-API's exception classes, and which of them an error of the engine is.
//!
//! Messages are the engine's. Like the standard library's, an exception carries `sqlite_errorcode` and
//! `sqlite_errorname`; and `kind`, which is the same in every language.

use partial_sync::{Error as EngineError, ErrorKind};
use partial_sync_vfs::sqlite::{code_names::name_of, codes};
use pyo3::{
    create_exception,
    exceptions::{PyException, PyMemoryError},
    prelude::*,
    types::PyType,
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
    "The program uses this module wrongly: a closed connection, a wrong number of parameters, an invalid option."
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
    let (kind, code) = (error.kind(), error.sqlite_code());
    let message = match error {
        // The engine's word is for those who can run it again elsewhere.
        EngineError::WouldWait => "this function is called in the middle of a request of the same database, so what it runs \
                                   there cannot wait for a page, a lock or a pull: it may use what is here, or another \
                                   database"
            .to_owned(),
        _ => error.to_string(),
    };
    let raised = new(class_of(kind, code), message);
    let value = raised.value(py);
    // An exception has room for attributes; should that ever fail, the error itself is what matters.
    let _ = value.setattr("kind", kind.name());
    let _ = value.setattr("sqlite_errorcode", code);
    let _ = value.setattr("sqlite_errorname", name_of(code));
    if let Some(change) = error.change() {
        let _ = value.setattr("change", change.0);
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

/// The class of a kind; `code` tells apart what SQL alone can be.
fn class_of(kind: ErrorKind, code: i32) -> Class {
    use ErrorKind as Kind;
    match kind {
        Kind::Sql => class_of_sqlite(code),
        Kind::Constraint | Kind::PushConstraint | Kind::PullConflict => Class::Integrity,
        Kind::Corrupt | Kind::NotADatabase => Class::Database,
        Kind::NoMemory => Class::Memory,
        Kind::TooBig => Class::Data,
        Kind::Conversion | Kind::Misuse | Kind::NoRemote | Kind::OtherRemote | Kind::RemoteRefused => {
            Class::Programming
        }
        Kind::Unsupported => Class::NotSupported,
        Kind::Internal => Class::Internal,
        Kind::Busy
        | Kind::Interrupted
        | Kind::TransactionLost
        | Kind::ReadOnly
        | Kind::Full
        | Kind::Io
        | Kind::CannotOpen
        | Kind::Network
        | Kind::Timeout
        | Kind::Unauthorized
        | Kind::NotFound
        | Kind::Protocol
        | Kind::RevisionExpired
        | Kind::PushRefused
        | Kind::Diverged
        | Kind::NotPulledYet
        | Kind::Unsendable
        | Kind::Callback => Class::Operational,
    }
}

/// What SQLite refuses for reasons that have no kind of their own, as the standard library has it.
fn class_of_sqlite(code: i32) -> Class {
    match code & 0xff {
        codes::NOTFOUND => Class::Internal,
        codes::MISMATCH => Class::Integrity,
        1..=17 => Class::Operational,
        _ => Class::Database,
    }
}

/// Every kind of error: its name, its class and the code that it has where SQLite gave none. For the test of the table in
/// docs/errors.md.
#[pyfunction]
fn _kinds_of_errors(py: Python<'_>) -> Vec<(&'static str, Py<PyType>, i32)> {
    (ErrorKind::ALL.iter())
        .map(|kind| {
            let code = kind.sqlite_code();
            let class = new(class_of(*kind, code), String::new()).get_type(py).unbind();
            (kind.name(), class, code)
        })
        .collect()
}

/// Adds the classes to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_function(wrap_pyfunction!(_kinds_of_errors, module)?)?;
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
