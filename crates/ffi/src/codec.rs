//! Values as a run of bytes, in the format that the header describes at `PartialSyncBatch`.

use rusqlite::types::ValueRef;

/// The numbers of [`PartialSyncType`](crate::column::PartialSyncType).
mod tag {
    pub(super) const INTEGER: u8 = 1;
    pub(super) const REAL: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const BLOB: u8 = 4;
    pub(super) const NULL: u8 = 5;
}

/// Appends a value.
pub(crate) fn encode(value: ValueRef<'_>, into: &mut Vec<u8>) {
    let mut number = |tag, bytes: [u8; 8]| {
        let mut all = [tag; 9];
        all[1..].copy_from_slice(&bytes);
        into.extend_from_slice(&all);
    };
    match value {
        ValueRef::Null => into.push(tag::NULL),
        ValueRef::Integer(value) => number(tag::INTEGER, value.to_le_bytes()),
        ValueRef::Real(value) => number(tag::REAL, value.to_le_bytes()),
        ValueRef::Text(bytes) => encode_bytes(tag::TEXT, bytes, into),
        ValueRef::Blob(bytes) => encode_bytes(tag::BLOB, bytes, into),
    }
}

fn encode_bytes(tag: u8, bytes: &[u8], into: &mut Vec<u8>) {
    // SQLite's texts and blobs are shorter than 2 GiB.
    let length = bytes.len() as u32;
    let mut head = [tag; 5];
    head[1..].copy_from_slice(&length.to_le_bytes());
    into.reserve(head.len() + bytes.len());
    into.extend_from_slice(&head);
    into.extend_from_slice(bytes);
}

/// Takes the first value off `bytes`; `None` when they are not one.
pub(crate) fn decode<'b>(bytes: &mut &'b [u8]) -> Option<ValueRef<'b>> {
    let (&tag, rest) = bytes.split_first()?;
    let (value, rest) = match tag {
        tag::NULL => (ValueRef::Null, rest),
        tag::INTEGER => {
            let (number, rest) = rest.split_first_chunk()?;
            (ValueRef::Integer(i64::from_le_bytes(*number)), rest)
        }
        tag::REAL => {
            let (number, rest) = rest.split_first_chunk()?;
            (ValueRef::Real(f64::from_le_bytes(*number)), rest)
        }
        tag::TEXT | tag::BLOB => {
            let (length, rest) = rest.split_first_chunk()?;
            let (content, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            match tag {
                tag::TEXT => (ValueRef::Text(content), rest),
                _ => (ValueRef::Blob(content), rest),
            }
        }
        _ => return None,
    };
    *bytes = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back() {
        let values = [
            ValueRef::Null,
            ValueRef::Integer(i64::MIN),
            ValueRef::Integer(i64::MAX),
            ValueRef::Real(-0.0),
            ValueRef::Real(f64::INFINITY),
            ValueRef::Text(b""),
            ValueRef::Text("a\0\u{1f600}".as_bytes()),
            ValueRef::Text(b"\xff"),
            ValueRef::Blob(b""),
            ValueRef::Blob(&[0; 300]),
        ];
        let mut encoded = vec![];
        values.iter().for_each(|&value| encode(value, &mut encoded));
        let mut rest = &encoded[..];
        for value in values {
            assert_eq!(decode(&mut rest), Some(value));
        }
        assert!(rest.is_empty());
        for end in 0..encoded.len() {
            let mut cut = &encoded[..end];
            while decode(&mut cut).is_some() {}
            assert!(cut.len() < 305, "what was cut is not taken for a value");
        }
        assert_eq!(decode(&mut &[9][..]), None);
    }
}
