//! Which key a value means, and which row a key means after each change of the log.

use rusqlite::OptionalExtension;

use super::super::keys::{Keys, as_integer};
use super::*;

#[test]
fn a_value_means_the_key_that_sqlite_takes_it_for() {
    let conn = database("CREATE TABLE p(id INTEGER PRIMARY KEY)");
    let ids = [0, 7, -7, 10, 100, i64::MAX, i64::MIN, i64::MAX - 1, 1 << 53];
    for id in ids {
        conn.execute("INSERT INTO p VALUES (?)", [id]).unwrap();
    }
    let numbers = [
        "7",
        "+7",
        "-7",
        "07",
        "7.0",
        "7.",
        "70e-1",
        "1e1",
        "1E+1",
        "+.7e1",
        "-0",
        "0.0",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "9223372036854775806",
        "9007199254740992.0",
        "7.5",
        "e1",
        ".",
        "",
        "-",
        "1e",
        "7e0x",
        "0x7",
        "inf",
        "nan",
        "1_0",
        "7 7",
        "--7",
        "100.00e0",
        "１",
    ];
    let padded = ["", " ", "\t\n\u{b}\u{c}\r ", "\u{a0}", "x"];
    let texts = numbers.iter().flat_map(|number| {
        padded
            .iter()
            .flat_map(move |pad| [format!("{pad}{number}"), format!("{number}{pad}")])
    });
    let reals = [
        7.0,
        -7.0,
        7.5,
        1e300,
        -0.0,
        9007199254740992.0,
        9.3e18,
        f64::INFINITY,
    ]
    .map(Value::Real);
    let others = [
        Value::Null,
        Value::Integer(7),
        Value::Blob(b"7".to_vec()),
        Value::RawText(b"7\xff".to_vec()),
    ];
    for value in texts.map(Value::Text).chain(reals).chain(others) {
        let found: Option<i64> = conn
            .query_row("SELECT id FROM p WHERE id = ?", [&value], |row| row.get(0))
            .optional()
            .unwrap();
        let meant = as_integer(&value).filter(|id| ids.contains(id));
        assert_eq!(meant, found, "{value:?}");
    }
}

#[test]
fn a_key_means_the_last_row_that_had_it() {
    let table = Arc::new(Table {
        name: "t".into(),
        columns: vec![Column {
            name: "id".into(),
            key: 1,
            generated: false,
        }],
        without_rowid: false,
        is_virtual: false,
    });
    let row = |key| vec![Value::Integer(key)];
    let update = |before, after| RowOp::Update {
        before: row(before),
        after: row(after),
    };
    let ops = [
        RowOp::Add { after: row(10) },
        update(10, 10),
        RowOp::Delete { before: row(10) },
        RowOp::Insert { after: row(10) },
        update(10, 20),
        RowOp::Insert { after: row(9) },
        update(9, 10),
    ];
    let log: Vec<Change> = (1..)
        .zip(ops)
        .map(|(id, op)| Change {
            id: ChangeId(id),
            time: 0,
            back: 0,
            kind: ChangeKind::Row {
                table: table.clone(),
                op,
                cause: Cause::Statement,
            },
        })
        .collect();
    let keys = |transaction: fn(&Change) -> ChangeId| {
        let mut keys = Keys::default();
        keys.moved("T", 10, ChangeId(1), 11);
        // Twice, as a push does that starts over.
        let mut sent = Vec::new();
        for _ in 0..2 {
            keys.rewind();
            for change in &log {
                keys.follow(change, transaction(change)).unwrap();
            }
            sent = log.clone();
            for change in &mut sent {
                keys.rewrite(change);
            }
        }
        let key = |image: Option<&Vec<Value>>| image.and_then(|image| as_integer(&image[0]));
        let keys = sent.iter().map(|change| match &change.kind {
            ChangeKind::Row { op, .. } => (key(op.images().0), key(op.images().1)),
            ChangeKind::Statement(_) => (None, None),
        });
        keys.collect::<Vec<_>>()
    };
    let each = [
        (None, Some(11)),
        (Some(11), Some(11)),
        (Some(11), None),
        (None, Some(10)),
        (Some(10), Some(20)),
        (None, Some(9)),
        (Some(9), Some(10)),
    ];
    assert_eq!(keys(|change| change.id), each);
    // Deleted and made again in one transaction it is the same row.
    let mut together = each;
    together[3] = (None, Some(11));
    together[4] = (Some(11), Some(20));
    assert_eq!(keys(|_| ChangeId(1)), together);
}
