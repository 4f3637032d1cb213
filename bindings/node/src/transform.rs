//! The `transform` callback: called on a worker thread, which waits for what JavaScript decides.

use std::{collections::BTreeMap, sync::Arc};

use napi::bindgen_prelude::{BigInt, Buffer, Either5, Null};
use napi_derive::napi;
use partial_sync::change::{
    Value,
    transform::{ChangeType, RowValues, Transform, TransformFn, TransformMutation},
};

use crate::{
    codec,
    mailbox::{Answer, Mailbox, Question, Reply},
};

/// Integers that JavaScript's numbers hold exactly.
const SAFE: std::ops::RangeInclusive<i64> = -9_007_199_254_740_991..=9_007_199_254_740_991;

type JsValue = Either5<Null, f64, BigInt, String, Buffer>;

/// A row change as JavaScript sees it.
#[napi(object, object_from_js = false)]
pub struct Mutation {
    /// Seconds since 1970.
    pub change_time: i64,
    /// The table.
    pub table_name: String,
    /// The row's integer key, where it has one.
    pub id: Either5<Null, f64, BigInt, String, Buffer>,
    /// `insert`, `update` or `delete`.
    pub change_type: String,
    /// The row before.
    pub before: Option<BTreeMap<String, JsValue>>,
    /// The row after.
    pub after: Option<BTreeMap<String, JsValue>>,
    /// The new values of the columns that changed.
    pub updates: Option<BTreeMap<String, JsValue>>,
}

#[allow(clippy::cast_precision_loss)]
fn integer(value: i64) -> JsValue {
    if SAFE.contains(&value) {
        Either5::B(value as f64)
    } else {
        Either5::C(BigInt::from(value))
    }
}

fn row(values: &RowValues) -> BTreeMap<String, JsValue> {
    let value = |value: &Value| match value {
        Value::Null => Either5::A(Null),
        Value::Integer(value) => integer(*value),
        Value::Real(value) => Either5::B(*value),
        Value::Text(text) => Either5::D(text.clone()),
        Value::RawText(bytes) => Either5::D(String::from_utf8_lossy(bytes).into_owned()),
        Value::Blob(bytes) => Either5::E(Buffer::from(bytes.clone())),
    };
    values
        .iter()
        .map(|(name, content)| (name.clone(), value(content)))
        .collect()
}

impl From<&TransformMutation> for Mutation {
    fn from(mutation: &TransformMutation) -> Self {
        Self {
            change_time: mutation.change_time,
            table_name: mutation.table_name.clone(),
            id: mutation.id.map_or(Either5::A(Null), integer),
            change_type: match mutation.change_type {
                ChangeType::Insert => "insert",
                ChangeType::Update => "update",
                ChangeType::Delete => "delete",
            }
            .into(),
            before: mutation.before.as_ref().map(row),
            after: mutation.after.as_ref().map(row),
            updates: mutation.updates.as_ref().map(row),
        }
    }
}

/// The engine's callback.
pub(crate) fn function(mailbox: &Arc<Mailbox>) -> Arc<TransformFn> {
    let mailbox = mailbox.clone();
    Arc::new(move |mutation| {
        let question = Question {
            kind: "transform".into(),
            mutation: Some(mutation.into()),
            ..Question::default()
        };
        match mailbox.ask_blocking(question) {
            Ok(Answer::Decision(decision)) => decision,
            Ok(_) => Transform::Fail("the transform function decided nothing".into()),
            Err(refused) => Transform::Fail(refused.message),
        }
    })
}

/// Reads a decision.
pub(crate) fn decision(reply: Reply) -> napi::Result<Transform> {
    Ok(match reply.decision.as_deref() {
        Some("skip") => Transform::Skip,
        Some("rewrite") => {
            let words = reply.words.as_deref().unwrap_or_default();
            let values = codec::decode(words, reply.count.unwrap_or(0), reply.texts, reply.blobs)?;
            let value = |value| match value {
                rusqlite::types::Value::Null => Value::Null,
                rusqlite::types::Value::Integer(value) => Value::Integer(value),
                rusqlite::types::Value::Real(value) => Value::Real(value),
                rusqlite::types::Value::Text(text) => Value::Text(text),
                rusqlite::types::Value::Blob(bytes) => Value::Blob(bytes),
            };
            Transform::Rewrite {
                sql: reply.text.unwrap_or_default(),
                values: values.into_iter().map(value).collect(),
            }
        }
        _ => Transform::Keep,
    })
}
