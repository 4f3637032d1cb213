//! Errors of SQL over HTTP: SQLite's own text and the names of its result code and, where it says more, of its extended one, as
//! clients match on them.
//!
//! Never put a path, a token or an argument's value into a message.

use partial_sync_transport::hrana;
use partial_sync_vfs::sqlite::code_names::name_of;
use rusqlite::ffi;

use crate::access::{CommitListener, NotCommitted};

/// A code of this server, for what SQLite has no code for.
pub(super) mod code {
    pub(crate) const NO_STATEMENT: &str = "SQL_NO_STATEMENT";
    pub(crate) const MANY_STATEMENTS: &str = "SQL_MANY_STATEMENTS";
    pub(crate) const ARGS_INVALID: &str = "ARGS_INVALID";
    pub(crate) const RESPONSE_TOO_LARGE: &str = "RESPONSE_TOO_LARGE";
    pub(crate) const BATCH_TOO_LARGE: &str = "BATCH_TOO_LARGE";
    pub(crate) const TEXT_NOT_UTF8: &str = "TEXT_NOT_UTF8";
    pub(crate) const SQL_ID_INVALID: &str = "SQL_ID_INVALID";
    pub(crate) const STEP_INVALID: &str = "BATCH_STEP_INVALID";
    pub(crate) const STREAM_CLOSED: &str = "STREAM_CLOSED";
    pub(crate) const STREAM_EXPIRED: &str = "STREAM_EXPIRED";
    pub(crate) const STREAM_ACCESS: &str = "STREAM_ACCESS";
    pub(crate) const SNAPSHOT_TOO_OLD: &str = "SNAPSHOT_TOO_OLD";
    pub(crate) const TOO_MANY_STREAMS: &str = "TOO_MANY_STREAMS";
    pub(crate) const SERVER_BUSY: &str = "SERVER_BUSY";
    pub(crate) const DATABASE_REPLACED: &str = "DATABASE_REPLACED";
    pub(crate) const DATABASE_TAKEN_OVER: &str = "DATABASE_TAKEN_OVER";
    pub(crate) const NOT_REPLICATED: &str = "NOT_REPLICATED";
    pub(crate) const BAD_REQUEST: &str = "BAD_REQUEST";
    pub(crate) const NOT_FOUND: &str = "NOT_FOUND";
    pub(crate) const INTERNAL: &str = "INTERNAL_ERROR";
}

/// An error with one of this server's codes.
pub(super) fn error(code: &str, message: impl Into<String>) -> hrana::Error {
    hrana::Error {
        message: message.into(),
        code: Some(code.to_owned()),
        extended_code: None,
    }
}

/// An error with the code and the text of SQLite. `refusal` is what the guard said when it refused the statement: it
/// takes the place of SQLite's bare "not authorized", which for a function is not even an error of its own.
pub(super) fn from_sqlite(cause: rusqlite::Error, refusal: Option<String>) -> hrana::Error {
    if let Some(refusal) = refusal {
        return error(name_of(ffi::SQLITE_AUTH), refusal);
    }
    let (result, message) = match cause {
        rusqlite::Error::SqliteFailure(result, message) => (result, message),
        rusqlite::Error::SqlInputError { error, msg, .. } => (error, Some(msg)),
        rusqlite::Error::MultipleStatement => return many_statements(),
        other => return error("SQLITE_ERROR", other.to_string()),
    };
    let message = message.unwrap_or_else(|| ffi::code_to_str(result.extended_code).to_owned());
    let (code, extended) = (
        name_of(result.extended_code & 0xff),
        name_of(result.extended_code),
    );
    hrana::Error {
        extended_code: (extended != code).then(|| extended.to_owned()),
        ..error(code, message)
    }
}

/// The error of a read that was ended because it kept the log of commits from being emptied.
pub(super) fn read_ended(bytes: u64) -> hrana::Error {
    error(
        code::SNAPSHOT_TOO_OLD,
        format!(
            "what this transaction reads is too old: more than {bytes} bytes of commits were kept for it, and it was ended so that \
             they do not fill the disk. Read again, in parts or in shorter transactions"
        ),
    )
}

/// The error of a text with more than one statement where one is wanted.
pub(super) fn many_statements() -> hrana::Error {
    error(
        code::MANY_STATEMENTS,
        "the SQL text has more than one statement: send them as steps of a batch, or as a sequence",
    )
}

/// The error of a request whose database was taken away meanwhile.
fn replaced() -> hrana::Error {
    error(
        code::DATABASE_REPLACED,
        "the database was moved, removed or replaced while this request ran, and what it wrote is not in what is there \
         now: start again",
    )
}

/// Why nothing is answered from a database's file, if that is so.
pub(super) fn stands(listener: &dyn CommitListener) -> Result<(), hrana::Error> {
    match (listener.is_taken_over(), listener.is_in_place()) {
        (true, _) => Err(taken_over()),
        (_, false) => Err(replaced()),
        _ => Ok(()),
    }
}

fn taken_over() -> hrana::Error {
    error(
        code::DATABASE_TAKEN_OVER,
        "another server has taken this database over, and this one has no SQL for it any more: ask that one. What this request wrote \
         is not in the database",
    )
}

/// What is committed already does not get into the bucket.
pub(super) fn bucket_is_away() -> hrana::Error {
    error(
        code::NOT_REPLICATED,
        "the bucket that this database is replicated to takes nothing, and as much as may wait for it does: nothing was written; try again \
         when it is there",
    )
}

/// The error of a request whose commit may not be there for good.
pub(super) fn not_committed(why: &NotCommitted) -> hrana::Error {
    match why {
        NotCommitted::Disk(_) => error(
            "SQLITE_IOERR",
            "the server's disk failed while it took the commit: it may be lost with the next power cut; look whether it is there \
             before you send it again",
        ),
        NotCommitted::Bucket(_) => error(
            code::NOT_REPLICATED,
            "the commit is on the disk of the server and not known to be in the bucket that the database is replicated to: the server \
             continues trying; look whether it is there before you send it again",
        ),
        NotCommitted::TakenOver => taken_over(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extended_code_has_its_own_name_and_an_unknown_extension_that_of_its_primary_code() {
        assert_eq!(name_of(ffi::SQLITE_CONSTRAINT_UNIQUE), "SQLITE_CONSTRAINT_UNIQUE");
        assert_eq!(name_of(ffi::SQLITE_IOERR_FSYNC), "SQLITE_IOERR_FSYNC");
        assert_eq!(name_of(ffi::SQLITE_BUSY | (99 << 8)), "SQLITE_BUSY");
        assert_eq!(name_of(250), "SQLITE_ERROR");
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

    #[test]
    fn v21_the_code_is_the_primary_one_and_the_extended_one_is_beside_it() {
        let unique = ffi::Error::new(ffi::SQLITE_CONSTRAINT_UNIQUE);
        let given = from_sqlite(rusqlite::Error::SqliteFailure(unique, None), None);
        assert_eq!(given.code.as_deref(), Some("SQLITE_CONSTRAINT"));
        assert_eq!(given.best_code(), Some("SQLITE_CONSTRAINT_UNIQUE"));
    }
}
