//! A [`Value`] in and out of rusqlite, without losing a bit: text that is not UTF-8 stays text.
//!
//! SQLite turns a NaN that is bound into NULL; [`super::sql`] refuses NaN before it comes that far.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::Value;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::RawText(bytes) => ValueRef::Text(bytes),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Integer(value),
            ValueRef::Real(value) => Self::Real(value),
            ValueRef::Text(bytes) => Self::text(bytes),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}
