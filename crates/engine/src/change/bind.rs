//! A [`Value`] in and out of rusqlite, without losing a bit: text that is not UTF-8 stays text.
//!
//! SQLite turns a NaN that is bound into NULL; [`super::sql`] refuses NaN before it comes that far.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use super::Value;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.into()))
    }
}

impl<'v> From<&'v Value> for ValueRef<'v> {
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(value) => Self::Integer(*value),
            Value::Real(value) => Self::Real(*value),
            Value::Text(text) => Self::Text(text.as_bytes()),
            Value::RawText(bytes) => Self::Text(bytes),
            Value::Blob(bytes) => Self::Blob(bytes),
        }
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
