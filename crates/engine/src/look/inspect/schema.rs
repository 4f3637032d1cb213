//! Reads rows of `sqlite_schema` from their raw records (<https://www.sqlite.org/fileformat2.html#record_format>), as far
//! as they name tables and indexes. A record may be cut short or be anything; what cannot be read is left out.

use partial_sync_core::btree::take_varint;

use super::view::OwnerKind;

/// Bytes of a row that are looked at: type, name, table and root page come first, the SQL text last.
pub(super) const PREFIX: usize = 4096;

/// A table or index that has a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SchemaRow {
    pub(super) kind: OwnerKind,
    pub(super) name: String,
    pub(super) table: String,
    pub(super) root: u32,
}

/// How the database stores text, byte 56 of its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoding(pub(super) u32);

impl Encoding {
    fn text(self, bytes: &[u8]) -> String {
        let units = |read: fn([u8; 2]) -> u16| bytes.as_chunks::<2>().0.iter().map(move |&pair| read(pair));
        match self.0 {
            2 => char::decode_utf16(units(u16::from_le_bytes))
                .map(|c| c.unwrap_or('\u{fffd}'))
                .collect(),
            3 => char::decode_utf16(units(u16::from_be_bytes))
                .map(|c| c.unwrap_or('\u{fffd}'))
                .collect(),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// Reads `(type, name, tbl_name, rootpage, ...)`; `None` for views, triggers, virtual tables and damage.
pub(super) fn row(record: &[u8], encoding: Encoding) -> Option<SchemaRow> {
    let mut rest = record;
    let header_len = usize::try_from(take_varint(&mut rest)?).ok()?;
    let mut types = record.get(record.len() - rest.len()..header_len)?;
    let mut body = record.get(header_len..)?;
    let mut next = || {
        let serial = take_varint(&mut types)?;
        let len = match serial {
            0 | 8 | 9 => 0,
            1..=4 => serial as usize,
            5 => 6,
            6 | 7 => 8,
            12.. => usize::try_from((serial - 12) / 2).ok()?,
            _ => return None,
        };
        Some((serial, body.split_off(..len)?))
    };
    let mut text = || {
        next()
            .filter(|(serial, _)| *serial >= 13 && serial % 2 == 1)
            .map(|(_, bytes)| encoding.text(bytes))
    };
    let (kind, name, table) = (text()?, text()?, text()?);
    let kind = match kind.as_str() {
        "table" => OwnerKind::Table,
        "index" => OwnerKind::Index,
        _ => return None,
    };
    let root = match next()? {
        (9, _) => 1,
        (1..=6, bytes) => bytes
            .iter()
            .try_fold(0_u64, |n, &b| n.checked_mul(256).map(|n| n + u64::from(b)))?,
        _ => return None,
    };
    let root = u32::try_from(root).ok().filter(|&root| root > 0)?;
    Some(SchemaRow {
        kind,
        name,
        table,
        root,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(values: [&str; 3], root: &[u8], sql: &str) -> Vec<u8> {
        let serial = |text: &str| (text.len() * 2 + 13) as u8;
        let mut record = vec![6];
        record.extend(values.map(serial));
        record.push(root.len() as u8);
        record.push(serial(sql));
        values.iter().for_each(|v| record.extend(v.as_bytes()));
        record.extend(root);
        record.extend(sql.as_bytes());
        record
    }

    #[test]
    fn a_row_names_its_tree_even_when_its_sql_is_cut_off() {
        let whole = record(
            ["index", "by_name", "towns"],
            &[1, 0],
            "CREATE INDEX by_name ON towns(name)",
        );
        let expected = SchemaRow {
            kind: OwnerKind::Index,
            name: "by_name".into(),
            table: "towns".into(),
            root: 256,
        };
        for len in whole.len() - 30..=whole.len() {
            assert_eq!(row(&whole[..len], Encoding(1)).as_ref(), Some(&expected));
        }
    }

    #[test]
    fn what_has_no_tree_is_left_out() {
        assert_eq!(row(&record(["view", "v", "v"], &[], ""), Encoding(1)), None);
        assert_eq!(row(&record(["table", "fts", "fts"], &[0], ""), Encoding(1)), None);
        assert_eq!(row(&[], Encoding(1)), None);
    }

    #[test]
    fn names_in_utf_16_are_read_too() {
        assert_eq!(Encoding(2).text(b"t\0\xe4\0"), "tä");
        assert_eq!(Encoding(3).text(b"\0t\0\xe4"), "tä");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), encoding in 0..5_u32) {
            let _ = row(&bytes, Encoding(encoding));
        }
    }
}
