//! Bytes and changes: there and back, and what happens to bytes that are not changes.

use proptest::prelude::*;

use super::super::codec::{self, CodecError, decode, encode};
use super::*;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        any::<u64>().prop_map(|bits| Value::Real(f64::from_bits(bits))),
        any::<String>().prop_map(Value::Text),
        Just(Value::RawText(vec![0xff, 0, 0x80])),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Blob),
    ]
}

fn change() -> impl Strategy<Value = ChangeKind> {
    let row = (
        "[a-c]",
        proptest::collection::vec((value(), value()), 1..5),
        0..3u8,
        prop_oneof![
            Just(Cause::Statement),
            Just(Cause::Trigger),
            Just(Cause::ForeignKey)
        ],
    )
        .prop_map(|(name, values, op, cause)| {
            let columns = (0..values.len())
                .map(|i| Column {
                    name: format!("c{i}"),
                    key: u16::from(i == 0),
                    generated: false,
                })
                .collect();
            let (before, after): (Vec<Value>, Vec<Value>) = values.into_iter().unzip();
            ChangeKind::Row {
                table: Arc::new(Table {
                    name,
                    columns,
                    without_rowid: false,
                    is_virtual: false,
                }),
                op: match op {
                    0 => RowOp::Insert { after },
                    1 => RowOp::Update { before, after },
                    _ => RowOp::Delete { before },
                },
                cause,
            }
        });
    let statement = (any::<String>(), proptest::collection::vec(value(), 0..3)).prop_map(|(sql, args)| {
        ChangeKind::Statement(StatementChange {
            named: args.iter().map(|v| (":n".to_owned(), v.clone())).collect(),
            sql,
            args,
            kind: StatementKind::AlterAddColumn {
                table: "t".into(),
                column: "c".into(),
            },
        })
    });
    prop_oneof![4 => row, 1 => statement]
}

fn chunk() -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec((any::<i64>(), any::<i64>(), change()), 0..20).prop_map(|all| {
        all.into_iter()
            .map(|(id, time, kind)| Change {
                id: ChangeId(id),
                time,
                back: 0,
                kind,
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_come_back_from_bytes_as_they_were(changes in chunk()) {
        prop_assert_eq!(decode(&encode(&changes).unwrap()).unwrap(), changes);
    }

    #[test]
    fn invariant_11_any_bytes_decode_or_fail_with_a_typed_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        let _ = decode(&bytes);
        let _ = decode(&versioned);
    }

    #[test]
    fn invariant_11_changes_damaged_in_one_place_decode_or_fail_with_a_typed_error(
        changes in chunk(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encode(&changes).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(changes) = decode(&bytes) {
            for change in &changes {
                let _ = to_sql(change, Mode::Triggers);
            }
        }
    }

    #[test]
    fn changes_cut_anywhere_are_damaged(changes in chunk(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&changes).unwrap();
        prop_assert!(matches!(decode(&bytes[..at.index(bytes.len())]), Err(CodecError::Damaged(_))));
    }
}

#[test]
fn a_table_is_written_once_per_chunk() {
    let table = Arc::new(Table {
        name: "a rather long name for a table".into(),
        columns: vec![Column {
            name: "also long".into(),
            key: 1,
            generated: false,
        }],
        without_rowid: false,
        is_virtual: false,
    });
    let changes: Vec<Change> = (0..100)
        .map(|i| Change {
            id: ChangeId(i),
            time: 0,
            back: 0,
            kind: ChangeKind::Row {
                // Half of them share the descriptor, half have an equal one.
                table: if i % 2 == 0 {
                    Arc::clone(&table)
                } else {
                    Arc::new((*table).clone())
                },
                op: RowOp::Insert { after: vec![int(1)] },
                cause: Cause::Statement,
            },
        })
        .collect();
    let bytes = encode(&changes).unwrap();
    assert!(bytes.len() < 1100, "{} bytes", bytes.len());
    assert_eq!(decode(&bytes).unwrap(), changes);
}

#[test]
fn lengths_that_are_not_there_are_not_allocated() {
    // Claims 2^63 tables, changes or bytes.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for prefix in [&[1u8][..], &[1, 0], &[1, 1]] {
        let bytes = [prefix, &huge].concat();
        assert!(matches!(decode(&bytes), Err(CodecError::Damaged(_))));
    }
}

#[test]
fn another_version_is_named() {
    assert_eq!(decode(&[9, 0, 0]), Err(CodecError::Version(9)));
}

#[test]
fn bytes_behind_the_last_change_are_damage() {
    let mut bytes = encode(&[]).unwrap();
    bytes.push(0);
    assert!(matches!(decode(&bytes), Err(CodecError::Damaged(_))));
}

#[test]
fn a_name_that_would_end_the_sql_is_damage() {
    for (name, column) in [("a\0b", "c"), ("t", "c\0")] {
        let table = Arc::new(Table {
            name: name.into(),
            columns: vec![Column {
                name: column.into(),
                key: 1,
                generated: false,
            }],
            without_rowid: false,
            is_virtual: false,
        });
        let op = RowOp::Insert {
            after: vec![Value::Integer(1)],
        };
        let kind = ChangeKind::Row {
            table,
            op,
            cause: Cause::Statement,
        };
        let bytes = encode(&[Change {
            id: ChangeId(1),
            time: 0,
            back: 0,
            kind,
        }]);
        assert!(matches!(decode(&bytes.unwrap()), Err(CodecError::Damaged(_))));
    }
}

#[test]
fn what_was_recorded_before_changes_had_units_is_read() {
    // Version 2: mode Rows, a table t(id), a row of it; each change is alone.
    let written = [
        2, 0, 1, 1, b't', 1, 2, b'i', b'd', 1, 0, 0, 0, 1, 10, 0, 0, 0, 0, 1, 1, 14, 1,
    ];
    let changes = codec::decode(&written).unwrap();
    assert_eq!(codec::mode(&written), Mode::Rows);
    assert_eq!((changes[0].id, changes[0].unit()), (ChangeId(5), ChangeId(5)));
    let later = Change {
        back: 3,
        ..changes[0].clone()
    };
    let again = codec::decode(&codec::encode(std::slice::from_ref(&later)).unwrap()).unwrap();
    assert_eq!(again, [later]);
    assert_eq!(again[0].unit(), ChangeId(2));
}

#[test]
fn h7_what_release_0_1_recorded_is_read_and_run_with_triggers_firing() {
    // A table t(id) and one row of it, made by a trigger.
    let written = [
        1, 1, 1, b't', 1, 2, b'i', b'd', 1, 0, 0, 1, 2, 0, 0, 0, 0, 1, 1, 14, 1,
    ];
    assert_eq!(codec::mode(&written), Mode::Triggers);
    let changes = codec::decode(&written).unwrap();
    let ChangeKind::Row { table, op, cause } = &changes[0].kind else {
        panic!("a row")
    };
    assert_eq!((table.name.as_str(), table.is_virtual), ("t", false));
    assert_eq!(*op, RowOp::Insert { after: vec![int(7)] });
    assert_eq!(*cause, Cause::Trigger);
    assert_eq!(to_sql(&changes[0], Mode::Triggers).unwrap(), []);
    assert_eq!(to_sql(&changes[0], Mode::Rows).unwrap().len(), 1);
    // It keeps that when a part of it is discarded.
    let again = codec::encode_in(codec::mode(&written), &changes).unwrap();
    assert_eq!(codec::mode(&again), Mode::Triggers);
    assert_eq!(codec::decode(&again).unwrap(), changes);
    assert_eq!(codec::mode(&codec::encode(&changes).unwrap()), Mode::Rows);
}
