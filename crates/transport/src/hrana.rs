//! Hrana 2 JSON, the part that both sides of `POST /v2/pipeline` share: values, statements, conditions and results.
//!
//! Format: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_2_SPEC.md>. Integers travel as strings, blobs
//! as base64; JSON has no NaN and no infinity, so a [`Value::Float`] must be finite.

use serde::{Deserialize, Serialize};

/// A SQL value on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Value {
    /// NULL
    Null,
    /// A 64-bit integer, as a decimal string.
    Integer {
        /// The integer.
        #[serde(with = "integer_as_string")]
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
        #[serde(with = "bytes_as_base64")]
        base64: Vec<u8>,
    },
}

mod integer_as_string {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &i64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        text.parse()
            .map_err(|_| D::Error::custom(format!("{text:?} is no 64-bit integer")))
    }
}

mod bytes_as_base64 {
    use base64::{
        Engine,
        alphabet::STANDARD,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&ENGINE.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        ENGINE.decode(text.as_bytes()).map_err(D::Error::custom)
    }
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
    #[serde(default)]
    pub args: Vec<Value>,
    /// Named arguments.
    #[serde(default)]
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
#[serde(tag = "type", rename_all = "snake_case")]
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
    #[serde(default)]
    pub cols: Vec<Col>,
    /// The rows.
    #[serde(default)]
    pub rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted.
    #[serde(default)]
    pub affected_row_count: u64,
    /// Rowid of the last insert.
    #[serde(default, with = "optional_integer_as_string")]
    pub last_insert_rowid: Option<i64>,
}

mod optional_integer_as_string {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Option<i64>, s: S) -> Result<S::Ok, S::Error> {
        value.map(|v| v.to_string()).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(i64),
        }
        match Option::<Either>::deserialize(d)? {
            None => Ok(None),
            Some(Either::Number(n)) => Ok(Some(n)),
            Some(Either::Text(t)) => t.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// An error of a statement, with SQLite's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Error {
    /// The text: `no such table: t`.
    pub message: String,
    /// `SQLITE_CONSTRAINT_UNIQUE`, ...
    #[serde(default)]
    pub code: Option<String>,
}

/// What a batch gave, a result or an error for each step that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchResult {
    /// A result for each step that succeeded.
    pub step_results: Vec<Option<StmtResult>>,
    /// An error for each step that failed.
    pub step_errors: Vec<Option<Error>>,
}
