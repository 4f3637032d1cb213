//! Hrana 2 JSON, the part that both sides of `POST /v2/pipeline` share: values, statements, conditions and results.
//!
//! Format: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_2_SPEC.md>. Integers travel as strings, blobs
//! as base64; JSON has no NaN and no infinity, so a [`Value::Float`] must be finite.
//!
//! What is read is read field by field, in the order it comes. What serde makes for a tagged enum first keeps everything in it,
//! at up to 35 times the size of the JSON.

pub(crate) mod read;

use serde::{Deserialize, Serialize};

/// As many parameters as SQLite lets a statement have.
pub const MOST_ARGUMENTS: usize = 32_766;
/// As many columns as SQLite lets a result have.
const MOST_COLUMNS: usize = 32_767;
/// The longest text of an error, in bytes.
const LONGEST_MESSAGE: usize = 4 << 10;

/// A SQL value on the wire.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Value {
    /// NULL
    Null,
    /// A 64-bit integer, as a decimal string.
    Integer {
        /// The integer.
        #[serde(serialize_with = "read::integer_as_string")]
        value: i64,
    },
    /// A finite float.
    Float {
        /// The float.
        value: f64,
    },
    /// UTF-8 text.
    Text {
        /// The text.
        value: String,
    },
    /// Bytes.
    Blob {
        /// The bytes, as base64, padded or not.
        #[serde(serialize_with = "read::bytes_as_base64")]
        base64: Vec<u8>,
    },
}

/// A named argument of a statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedArg {
    /// The name, with or without its prefix (`:`, `@`, `$`).
    pub name: String,
    /// The value.
    pub value: Value,
}

/// One SQL statement with its arguments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stmt {
    /// The text; absent when `sql_id` names a stored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Id of a text stored with `store_sql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_id: Option<i32>,
    /// Positional arguments.
    #[serde(default, deserialize_with = "read::arguments")]
    pub args: Vec<Value>,
    /// Named arguments.
    #[serde(default, deserialize_with = "read::arguments")]
    pub named_args: Vec<NamedArg>,
    /// Whether rows are wanted; absent = yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want_rows: Option<bool>,
}

impl Stmt {
    /// A statement with positional arguments.
    pub fn new(sql: impl Into<String>, args: Vec<Value>) -> Self {
        Self {
            sql: Some(sql.into()),
            args,
            ..Self::default()
        }
    }
}

/// When a step of a batch is to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", try_from = "read::ConditionParts")]
pub enum Condition {
    /// The step with this index succeeded.
    Ok {
        /// Index of an earlier step.
        step: u32,
    },
    /// The step with this index failed.
    Error {
        /// Index of an earlier step.
        step: u32,
    },
    /// Negation.
    Not {
        /// The condition negated.
        cond: Box<Condition>,
    },
    /// All of them.
    And {
        /// The conditions.
        conds: Vec<Condition>,
    },
    /// Any of them.
    Or {
        /// The conditions.
        conds: Vec<Condition>,
    },
    /// No transaction is open.
    IsAutocommit {},
}

/// A statement of a batch and its condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `None` = always.
    #[serde(default)]
    pub condition: Option<Condition>,
    /// The statement.
    pub stmt: Stmt,
}

/// Statements to run one after the other on one connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The steps.
    pub steps: Vec<Step>,
    /// This project's: they are to run with triggers and foreign-key actions off. A server that does not know the field
    /// ignores it, so the first step has to be one that fails there: `SELECT partial_sync_rows()`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows: bool,
    /// With `rows`: foreign keys are enforced nevertheless, each as if it said `NO ACTION`. When `COMMIT` finds one violated,
    /// the step since which it is has that error too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign_keys: bool,
}

/// A column of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Col {
    /// Its name.
    pub name: Option<String>,
    /// Its declared type, where it is a column of a table.
    #[serde(default)]
    pub decltype: Option<String>,
}

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StmtResult {
    /// The columns.
    #[serde(default, deserialize_with = "read::columns")]
    pub cols: Vec<Col>,
    /// The rows.
    #[serde(default, deserialize_with = "read::rows")]
    pub rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted.
    #[serde(default)]
    pub affected_row_count: u64,
    /// Rowid of the last insert.
    #[serde(default, with = "optional_integer_as_string")]
    pub last_insert_rowid: Option<i64>,
}

/// A rowid, which existing servers give as a text, a number or null.
pub mod optional_integer_as_string {
    use std::fmt;

    use serde::{
        Deserializer, Serialize, Serializer,
        de::{Error, Visitor},
    };

    /// As a text.
    pub fn serialize<S: Serializer>(value: &Option<i64>, s: S) -> Result<S::Ok, S::Error> {
        value.map(|v| v.to_string()).serialize(s)
    }

    /// As any of them.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
        struct Rowid;
        impl Visitor<'_> for Rowid {
            type Value = Option<i64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rowid, as a text or a number, or null")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_i64<E>(self, rowid: i64) -> Result<Self::Value, E> {
                Ok(Some(rowid))
            }

            fn visit_u64<E: Error>(self, rowid: u64) -> Result<Self::Value, E> {
                i64::try_from(rowid).map(Some).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, rowid: &str) -> Result<Self::Value, E> {
                rowid.parse().map(Some).map_err(E::custom)
            }
        }
        d.deserialize_any(Rowid)
    }
}

/// An error of a statement, with SQLite's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// The text: `no such table: t`. Of somebody else's, so much as an error may show.
    #[serde(deserialize_with = "read::message")]
    pub message: String,
    /// SQLite's primary code, `SQLITE_CONSTRAINT`, or one of the server's.
    #[serde(default)]
    pub code: Option<String>,
    /// SQLite's extended code where it says more, `SQLITE_CONSTRAINT_UNIQUE`. Other servers put it into `code`, or do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_code: Option<String>,
}

impl Error {
    /// The code that says most.
    pub fn best_code(&self) -> Option<&str> {
        self.extended_code.as_deref().or(self.code.as_deref())
    }
}

/// What a batch gave, a result or an error for each step that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchResult {
    /// A result for each step that succeeded.
    pub step_results: Vec<Option<StmtResult>>,
    /// An error for each step that failed.
    pub step_errors: Vec<Option<Error>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through_json(value: &Value) -> Value {
        serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
    }

    #[test]
    fn values_have_the_json_of_the_specification() {
        let cases = [
            (Value::Null, r#"{"type":"null"}"#),
            (
                Value::Integer { value: i64::MIN },
                r#"{"type":"integer","value":"-9223372036854775808"}"#,
            ),
            (
                Value::Integer { value: i64::MAX },
                r#"{"type":"integer","value":"9223372036854775807"}"#,
            ),
            (Value::Float { value: -0.0 }, r#"{"type":"float","value":-0.0}"#),
            (Value::Float { value: 1.5 }, r#"{"type":"float","value":1.5}"#),
            (
                Value::Float { value: 1e308 },
                r#"{"type":"float","value":1e+308}"#,
            ),
            (
                Value::Text { value: "a\"b".into() },
                r#"{"type":"text","value":"a\"b"}"#,
            ),
            (
                Value::Blob { base64: vec![0xfb] },
                r#"{"type":"blob","base64":"+w=="}"#,
            ),
        ];
        for (value, json) in cases {
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<Value>(json).unwrap(), value);
        }
        let Value::Float { value } = through_json(&Value::Float { value: -0.0 }) else {
            panic!()
        };
        assert!(value.is_sign_negative(), "minus zero keeps its sign");
    }

    #[test]
    fn a_blob_is_read_with_and_without_padding_and_a_float_without_a_point() {
        for text in ["+w==", "+w"] {
            let json = format!(r#"{{"type":"blob","base64":"{text}"}}"#);
            assert_eq!(
                serde_json::from_str::<Value>(&json).unwrap(),
                Value::Blob { base64: vec![0xfb] }
            );
        }
        let json = r#"{"type":"float","value":3}"#;
        assert_eq!(
            serde_json::from_str::<Value>(json).unwrap(),
            Value::Float { value: 3.0 }
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for json in [
            r#"{"type":"integer","value":"9223372036854775808"}"#,
            r#"{"type":"integer","value":"1.5"}"#,
            r#"{"type":"integer","value":""}"#,
            r#"{"type":"blob","base64":"*"}"#,
            r#"{"type":"float","value":null}"#,
            r#"{"type":"date","value":"1"}"#,
            "null",
        ] {
            assert!(serde_json::from_str::<Value>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn conditions_and_results_have_the_json_of_the_specification() {
        let json = r#"{"type":"and","conds":[{"type":"ok","step":0},{"type":"not","cond":{"type":"error","step":1}},{"type":"or","conds":[]},{"type":"is_autocommit"}]}"#;
        let condition: Condition = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&condition).unwrap(), json);
        // Existing servers give the rowid as a text, a number or null, and leave out what they do not have.
        for (json, rowid) in [
            (r#"{"last_insert_rowid":"-7"}"#, Some(-7)),
            (
                r#"{"last_insert_rowid":7,"cols":[{"name":null}],"rows":[],"rows_read":3}"#,
                Some(7),
            ),
            (r#"{"last_insert_rowid":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(
                serde_json::from_str::<StmtResult>(json)
                    .unwrap()
                    .last_insert_rowid,
                rowid
            );
        }
    }

    #[test]
    fn invariant_11_a_deeply_nested_condition_is_refused_and_not_followed() {
        let json = format!(
            "{}{{}}{}",
            r#"{"type":"not","cond":"#.repeat(100_000),
            "}".repeat(100_000)
        );
        assert!(serde_json::from_str::<Condition>(&json).is_err());
    }

    proptest! {
        #[test]
        fn any_value_comes_back_exactly(integer: i64, float: f64, text: String, base64: Vec<u8>) {
            for value in [Value::Integer { value: integer }, Value::Text { value: text }, Value::Blob { base64 }] {
                prop_assert_eq!(through_json(&value), value);
            }
            if float.is_finite() {
                let Value::Float { value } = through_json(&Value::Float { value: float }) else { panic!() };
                prop_assert_eq!(value.to_bits(), float.to_bits());
            }
        }
    }
}
