//! How values and conditions are read, and what of values is written in a way of its own: each is an object whose fields come in any order, its `type` perhaps last. Nothing is
//! kept but what it is made of, and no value is ever in an error's text.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer, Serializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Col, Condition, LONGEST_MESSAGE, MOST_ARGUMENTS, MOST_COLUMNS, Value};

pub(super) fn integer_as_string<S: Serializer>(value: &i64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

pub(super) fn bytes_as_base64<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&BASE64.encode(bytes))
}

/// Base64, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ValueKind {
    Null,
    Integer,
    Float,
    Text,
    Blob,
}

#[derive(Deserialize)]
struct ValueParts<'a> {
    #[serde(rename = "type")]
    kind: ValueKind,
    #[serde(borrow, default)]
    value: Scalar<'a>,
    #[serde(borrow, default)]
    base64: Scalar<'a>,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let parts = ValueParts::deserialize(d)?;
        Ok(match (parts.kind, parts.value, parts.base64) {
            (ValueKind::Null, ..) => Value::Null,
            (ValueKind::Integer, Scalar::Text(text), _) => Value::Integer {
                value: text
                    .parse()
                    .map_err(|_| D::Error::custom("an integer is not the decimal text of a 64-bit one"))?,
            },
            (ValueKind::Float, Scalar::Number(value), _) => Value::Float { value },
            (ValueKind::Text, Scalar::Text(text), _) => Value::Text {
                value: text.into_owned(),
            },
            (ValueKind::Blob, _, Scalar::Text(text)) => Value::Blob {
                base64: BASE64
                    .decode(text.as_bytes())
                    .map_err(|_| D::Error::custom("a blob is not base64"))?,
            },
            (ValueKind::Integer | ValueKind::Text, ..) => {
                return Err(D::Error::custom(
                    "`value` of an integer or a text is not a string",
                ));
            }
            (ValueKind::Float, ..) => return Err(D::Error::custom("`value` of a float is not a number")),
            (ValueKind::Blob, ..) => return Err(D::Error::custom("`base64` of a blob is not a string")),
        })
    }
}

/// What a field of a value may be.
#[derive(Default)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    /// Nothing, or what no value has.
    #[default]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(ScalarVisitor).map(|scalar: Scalar<'de>| scalar)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConditionKind {
    Ok,
    Error,
    Not,
    And,
    Or,
    IsAutocommit,
}

#[derive(Deserialize)]
pub(super) struct ConditionParts {
    #[serde(rename = "type")]
    kind: ConditionKind,
    step: Option<u32>,
    cond: Option<Box<Condition>>,
    conds: Option<Vec<Condition>>,
}

impl TryFrom<ConditionParts> for Condition {
    type Error = &'static str;

    fn try_from(parts: ConditionParts) -> Result<Self, &'static str> {
        let step = parts.step.ok_or("a condition has no `step`");
        let conds = parts.conds.ok_or("a condition has no `conds`");
        Ok(match parts.kind {
            ConditionKind::Ok => Condition::Ok { step: step? },
            ConditionKind::Error => Condition::Error { step: step? },
            ConditionKind::Not => Condition::Not {
                cond: parts.cond.ok_or("a condition has no `cond`")?,
            },
            ConditionKind::And => Condition::And { conds: conds? },
            ConditionKind::Or => Condition::Or { conds: conds? },
            ConditionKind::IsAutocommit => Condition::IsAutocommit {},
        })
    }
}

/// Reads the arguments of a statement, and no more than a statement can have.
pub(super) fn arguments<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    let what = "a statement takes at most 32766 arguments";
    d.deserialize_seq(List::new(MOST_ARGUMENTS, what))
}

/// Reads the columns of a result.
pub(super) fn columns<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Col>, D::Error> {
    let what = "a result has at most 32767 columns";
    d.deserialize_seq(List::new(MOST_COLUMNS, what))
}

/// Reads the rows of a result. One without a value is none, and would take many times its bytes.
pub(super) fn rows<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<Value>>, D::Error> {
    struct Rows;
    impl<'de> Visitor<'de> for Rows {
        type Value = Vec<Vec<Value>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of rows")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut rows = Vec::new();
            while let Some(mut row) = list.next_element::<Vec<Value>>()? {
                row.shrink_to_fit();
                if !row.is_empty() {
                    rows.push(row);
                }
            }
            Ok(rows)
        }
    }
    d.deserialize_seq(Rows)
}

/// Reads the text of an error, and cuts it.
pub(super) fn message<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let mut text = String::deserialize(d)?;
    if text.len() > LONGEST_MESSAGE {
        text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
        text.shrink_to_fit();
    }
    Ok(text)
}

/// Reads a list of at most so many; `what` says that there are more.
pub(crate) fn read_list<T: DeserializeOwned>(
    json: &RawValue,
    most: usize,
    what: &str,
) -> serde_json::Result<Vec<T>> {
    serde_json::Deserializer::from_str(json.get()).deserialize_seq(List::new(most, what))
}

struct List<'w, T> {
    most: usize,
    what: &'w str,
    of: PhantomData<T>,
}

impl<'w, T> List<'w, T> {
    fn new(most: usize, what: &'w str) -> Self {
        Self {
            most,
            what,
            of: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(one) = list.next_element()? {
            if read.len() == self.most {
                return Err(A::Error::custom(self.what));
            }
            read.push(one);
        }
        Ok(read)
    }
}
