//! What a change becomes: SQL with arguments, how a value is written in it, and why a change has none.

use std::borrow::Cow;

use super::Value;

/// One SQL statement without a semicolon at its end, with the values of its positional parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlStatement {
    /// The text; every parameter in it is a plain `?`.
    pub sql: String,
    /// A value for each `?`. Never text with a NUL or that is not UTF-8, never an infinite float.
    pub args: Vec<Value>,
    /// It adds a column. When it fails because the column is there already (see [`is_duplicate_column`](super::sql::is_duplicate_column)), it is done.
    pub skip_if_duplicate_column: bool,
    /// It changes a row without a key, and fails when that is not there; see [`is_made_to_fail`](super::sql::is_made_to_fail).
    pub must_find: bool,
}

/// A change that has no SQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// An image does not fit its table.
    #[error(
        "a recorded row of table {table:?} has {found} values for {expected} columns: the change log is damaged, discard the change"
    )]
    Image {
        /// The table.
        table: String,
        /// Columns it has.
        expected: usize,
        /// Values there are.
        found: usize,
    },
    /// A NaN, which SQLite cannot store.
    #[error("{place} is NaN, which SQLite cannot store: discard or rewrite the change")]
    NotANumber {
        /// Column or parameter.
        place: String,
    },
    /// An argument that should have been written into the text.
    #[error(
        "{0} cannot be an argument in JSON and was not written into the SQL: this is a defect, please report it"
    )]
    NotInJson(&'static str),
    /// No single row can be named.
    #[error(
        "a row of table {table:?} cannot be told from another: the table has no primary key and its columns hide rowid, _rowid_ and oid. Give it a primary key, or discard the change"
    )]
    NoRowIdentity {
        /// The table.
        table: String,
    },
    /// More parameters than SQLite takes.
    #[error(
        "a change of table {table:?} needs {count} parameters, SQLite takes {MAX_PARAMETERS}: give the table a primary key or fewer columns, or rewrite the change"
    )]
    TooManyParameters {
        /// The table.
        table: String,
        /// Parameters needed.
        count: usize,
    },
    /// A remote whose triggers fire would make something else of it.
    #[error(
        "table {table:?} was changed by a trigger or a foreign key in a statement that the remote's own triggers would not repeat (a conflict clause, an update that changed nothing, recursion, RAISE(IGNORE), a cascade below a trigger), and this remote does not take rows as they came out. Push to a server that offers that, or discard the change"
    )]
    Unrepeatable {
        /// The table.
        table: String,
    },
    /// A text that is not what it was recorded as.
    #[error("expected {expected} in the change log, found: {sql}")]
    NotAStatement {
        /// What it should be.
        expected: &'static str,
        /// The beginning of the text.
        sql: String,
    },
    /// A text that holds several statements.
    #[error("one statement is wanted, not several: {sql}")]
    SeveralStatements {
        /// The beginning of the text.
        sql: String,
    },
    /// The transform callback failed.
    #[error("the transform callback failed on a change of table {table:?}: {message}")]
    Transform {
        /// The table.
        table: String,
        /// What it said.
        message: String,
    },
}

/// SQLite's default `SQLITE_MAX_VARIABLE_NUMBER`.
pub const MAX_PARAMETERS: usize = 32766;

/// The beginning of a statement, for messages.
pub(super) fn excerpt(sql: &str) -> String {
    const LONGEST: usize = 200;
    match sql.trim().char_indices().nth(LONGEST) {
        None => sql.trim().to_owned(),
        Some((end, _)) => format!("{}...", &sql.trim()[..end]),
    }
}

/// How a value is written: SQL text, and the argument for the one `?` in it, if it has one. `None` for NaN.
pub(super) fn written(value: &Value) -> Option<(Cow<'static, str>, Option<Value>)> {
    Some(match value {
        Value::Real(real) if real.is_nan() => return None,
        Value::Real(real) if real.is_infinite() => {
            let literal = if *real > 0.0 { "9e999" } else { "-9e999" };
            (literal.into(), None)
        }
        Value::RawText(bytes) => ("CAST(? AS TEXT)".into(), Some(Value::Blob(bytes.clone()))),
        Value::Text(text) if text.contains('\0') => {
            // A character that the text does not have; no text has them all.
            let unused = ('\u{1}'..=char::MAX).find(|&c| !text.contains(c))?;
            let sent = text.replace('\0', unused.encode_utf8(&mut [0; 4]));
            let sql = format!("replace(?, char({}), char(0))", u32::from(unused));
            (sql.into(), Some(Value::Text(sent)))
        }
        plain => ("?".into(), Some(plain.clone())),
    })
}
