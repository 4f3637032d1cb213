//! Errors of SQL over HTTP: SQLite's own text and the name of its extended result code, as clients match on them.
//!
//! Never put a path, a token or an argument's value into a message.

use partial_sync_transport::hrana;
use rusqlite::ffi;

/// A code of this server, for what SQLite has no code for.
pub(super) mod code {
    pub const NO_STATEMENT: &str = "SQL_NO_STATEMENT";
    pub const MANY_STATEMENTS: &str = "SQL_MANY_STATEMENTS";
    pub const ARGS_INVALID: &str = "ARGS_INVALID";
    pub const RESPONSE_TOO_LARGE: &str = "RESPONSE_TOO_LARGE";
    pub const BATCH_TOO_LARGE: &str = "BATCH_TOO_LARGE";
    pub const FLOAT_NOT_FINITE: &str = "FLOAT_NOT_FINITE";
    pub const TEXT_NOT_UTF8: &str = "TEXT_NOT_UTF8";
    pub const SQL_ID_INVALID: &str = "SQL_ID_INVALID";
    pub const STEP_INVALID: &str = "BATCH_STEP_INVALID";
    pub const STREAM_CLOSED: &str = "STREAM_CLOSED";
    pub const STREAM_EXPIRED: &str = "STREAM_EXPIRED";
    pub const STREAM_ACCESS: &str = "STREAM_ACCESS";
    pub const TOO_MANY_STREAMS: &str = "TOO_MANY_STREAMS";
    pub const SERVER_BUSY: &str = "SERVER_BUSY";
    pub const BAD_REQUEST: &str = "BAD_REQUEST";
    pub const NOT_FOUND: &str = "NOT_FOUND";
    pub const INTERNAL: &str = "INTERNAL_ERROR";
}

/// An error with one of this server's codes.
pub(super) fn error(code: &str, message: impl Into<String>) -> hrana::Error {
    hrana::Error {
        message: message.into(),
        code: Some(code.to_owned()),
    }
}

/// An error with the code and the text of SQLite. `refusal` is what the guard said when it refused the statement: it
/// takes the place of SQLite's bare "not authorized", which for a function is not even an error of its own.
pub(super) fn from_sqlite(cause: rusqlite::Error, refusal: Option<String>) -> hrana::Error {
    if let Some(refusal) = refusal {
        return error(code_name(ffi::SQLITE_AUTH), refusal);
    }
    let (result, message) = match cause {
        rusqlite::Error::SqliteFailure(result, message) => (result, message),
        rusqlite::Error::SqlInputError { error, msg, .. } => (error, Some(msg)),
        rusqlite::Error::MultipleStatement => return many_statements(),
        other => return error("SQLITE_ERROR", other.to_string()),
    };
    let message = message.unwrap_or_else(|| ffi::code_to_str(result.extended_code).to_owned());
    error(code_name(result.extended_code), message)
}

/// The error of a text with more than one statement where one is wanted.
pub(super) fn many_statements() -> hrana::Error {
    error(
        code::MANY_STATEMENTS,
        "the SQL text has more than one statement: send them as steps of a batch, or as a sequence",
    )
}

/// The name of an extended result code; an unknown extension is named as its primary code is.
fn code_name(extended: i32) -> &'static str {
    macro_rules! names {
        ($($name:ident),* $(,)?) => { &[$((ffi::$name, stringify!($name))),*] };
    }
    const NAMES: &[(i32, &str)] = names![
        SQLITE_ABORT,
        SQLITE_ABORT_ROLLBACK,
        SQLITE_AUTH,
        SQLITE_BUSY,
        SQLITE_BUSY_RECOVERY,
        SQLITE_BUSY_SNAPSHOT,
        SQLITE_BUSY_TIMEOUT,
        SQLITE_CANTOPEN,
        SQLITE_CONSTRAINT,
        SQLITE_CONSTRAINT_CHECK,
        SQLITE_CONSTRAINT_COMMITHOOK,
        SQLITE_CONSTRAINT_DATATYPE,
        SQLITE_CONSTRAINT_FOREIGNKEY,
        SQLITE_CONSTRAINT_FUNCTION,
        SQLITE_CONSTRAINT_NOTNULL,
        SQLITE_CONSTRAINT_PINNED,
        SQLITE_CONSTRAINT_PRIMARYKEY,
        SQLITE_CONSTRAINT_ROWID,
        SQLITE_CONSTRAINT_TRIGGER,
        SQLITE_CONSTRAINT_UNIQUE,
        SQLITE_CONSTRAINT_VTAB,
        SQLITE_CORRUPT,
        SQLITE_CORRUPT_INDEX,
        SQLITE_CORRUPT_SEQUENCE,
        SQLITE_CORRUPT_VTAB,
        SQLITE_EMPTY,
        SQLITE_ERROR,
        SQLITE_ERROR_MISSING_COLLSEQ,
        SQLITE_ERROR_RETRY,
        SQLITE_ERROR_SNAPSHOT,
        SQLITE_FORMAT,
        SQLITE_FULL,
        SQLITE_INTERNAL,
        SQLITE_INTERRUPT,
        SQLITE_IOERR,
        SQLITE_LOCKED,
        SQLITE_LOCKED_SHAREDCACHE,
        SQLITE_LOCKED_VTAB,
        SQLITE_MISMATCH,
        SQLITE_MISUSE,
        SQLITE_NOLFS,
        SQLITE_NOMEM,
        SQLITE_NOTADB,
        SQLITE_NOTFOUND,
        SQLITE_PERM,
        SQLITE_PROTOCOL,
        SQLITE_RANGE,
        SQLITE_READONLY,
        SQLITE_READONLY_CANTINIT,
        SQLITE_READONLY_CANTLOCK,
        SQLITE_READONLY_DBMOVED,
        SQLITE_READONLY_DIRECTORY,
        SQLITE_READONLY_RECOVERY,
        SQLITE_READONLY_ROLLBACK,
        SQLITE_SCHEMA,
        SQLITE_TOOBIG,
    ];
    let find = |wanted| NAMES.iter().find(|(code, _)| *code == wanted);
    find(extended)
        .or_else(|| find(extended & 0xff))
        .map_or("SQLITE_ERROR", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_code_has_its_own_name_and_an_unknown_extension_that_of_its_primary_code() {
        assert_eq!(
            code_name(ffi::SQLITE_CONSTRAINT_UNIQUE),
            "SQLITE_CONSTRAINT_UNIQUE"
        );
        assert_eq!(code_name(ffi::SQLITE_IOERR_FSYNC), "SQLITE_IOERR");
        assert_eq!(code_name(ffi::SQLITE_BUSY | (99 << 8)), "SQLITE_BUSY");
        assert_eq!(code_name(250), "SQLITE_ERROR");
    }

    #[test]
    fn a_refusal_takes_the_place_of_the_text_of_sqlite() {
        let full = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some("full".into()));
        assert_eq!(
            from_sqlite(full(), Some("because".into())),
            error("SQLITE_AUTH", "because")
        );
        assert_eq!(from_sqlite(full(), None), error("SQLITE_FULL", "full"));
    }
}
