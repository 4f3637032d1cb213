//! Rows as bytes, from SQLite's values without a [`Value`](super::Value) of each between: the same bytes as postcard makes of a
//! [`RowOp`](super::RowOp). It is what the recorder does for each value of each row that changes.

use rusqlite::types::ValueRef;

/// The number of [`RowOp::Insert`](super::RowOp::Insert), and so on.
pub(crate) const INSERT: u8 = 0;
pub(crate) const UPDATE: u8 = 1;
pub(crate) const DELETE: u8 = 2;
pub(crate) const ADD: u8 = 3;

/// Appends a row: the number of its values, and each. Whether there is text in it that is not Unicode.
pub(crate) fn add_image<'v, E>(
    bytes: &mut Vec<u8>,
    columns: usize,
    value: impl Fn(usize) -> Result<ValueRef<'v>, E>,
) -> Result<bool, E> {
    add_number(bytes, columns as u64);
    let mut raw = false;
    for column in 0..columns {
        raw |= add_value(bytes, value(column)?);
    }
    Ok(raw)
}

fn add_value(bytes: &mut Vec<u8>, value: ValueRef<'_>) -> bool {
    let mut block = |kind: u8, content: &[u8]| {
        bytes.push(kind);
        add_number(bytes, content.len() as u64);
        bytes.extend_from_slice(content);
    };
    match value {
        ValueRef::Null => bytes.push(0),
        ValueRef::Integer(value) => {
            bytes.push(1);
            add_signed(bytes, value);
        }
        ValueRef::Real(value) => {
            bytes.push(2);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        ValueRef::Text(text) if std::str::from_utf8(text).is_ok() => block(3, text),
        ValueRef::Text(bytes) => {
            block(4, bytes);
            return true;
        }
        ValueRef::Blob(bytes) => block(5, bytes),
    }
    false
}

/// Appends a number as postcard does: seven bits in each byte, the low ones first.
pub(crate) fn add_number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Appends a number with a sign, small ones as few bytes.
pub(crate) fn add_signed(bytes: &mut Vec<u8>, value: i64) {
    add_number(bytes, ((value << 1) ^ (value >> 63)) as u64);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::change::{RowOp, Value};

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-200..200i64).prop_map(Value::Integer),
            any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::text),
            ".{0,200}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn they_are_the_bytes_of_postcard(before in prop::collection::vec(value(), 0..200), after in prop::collection::vec(value(), 0..5)) {
            let ops = [
                (INSERT, RowOp::Insert { after: after.clone() }),
                (UPDATE, RowOp::Update { before: before.clone(), after: after.clone() }),
                (DELETE, RowOp::Delete { before: before.clone() }),
                (ADD, RowOp::Add { after: after.clone() }),
            ];
            for (number, op) in ops {
                let mut bytes = vec![number];
                let (before, after) = op.images();
                for image in before.into_iter().chain(after) {
                    let value = |i: usize| Ok::<_, Infallible>(ValueRef::from(&image[i]));
                    add_image(&mut bytes, image.len(), value).unwrap();
                }
                prop_assert_eq!(bytes, postcard::to_stdvec(&op).unwrap());
            }
        }
    }
}
