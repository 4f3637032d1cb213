//! A row change as JavaScript sees it.

use std::collections::BTreeMap;

use napi::bindgen_prelude::{BigInt, Buffer, Either5, Null};
use napi_derive::napi;
use partial_sync::change::{
    Value,
    transform::{ChangeType, RowValues, TransformMutation},
};

/// Integers that JavaScript's numbers hold exactly.
const SAFE: std::ops::RangeInclusive<i64> = -9_007_199_254_740_991..=9_007_199_254_740_991;

type JsValue = Either5<Null, f64, BigInt, String, Buffer>;

/// What `transform` is given.
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
