//! Random statements on one database; their changes as SQL on another; equal contents.

use proptest::prelude::*;

use super::super::{
    codec,
    sql::{self, key_of},
};
use super::*;

const SCHEMA: &str = r#"
    CREATE TABLE ipk (id INTEGER PRIMARY KEY, a, b TEXT, c REAL);
    CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT, a);
    CREATE TABLE textkey (k TEXT PRIMARY KEY, a, n NUMERIC);
    CREATE TABLE anykey (k PRIMARY KEY, a);
    CREATE TABLE nocase (k TEXT COLLATE NOCASE PRIMARY KEY, a TEXT COLLATE NOCASE);
    CREATE TABLE composite (a, b, v, w INTEGER, PRIMARY KEY (b, a));
    CREATE TABLE norowid (a TEXT, b INTEGER, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE keyonly (k TEXT PRIMARY KEY);
    CREATE TABLE nokey (a, b TEXT COLLATE NOCASE, c INTEGER);
    CREATE TABLE hidden (rowid TEXT, _rowid_, x);
    CREATE TABLE gen (id INTEGER PRIMARY KEY, v AS (a || '!'), a, s AS (length(a)) STORED, z);
    CREATE TABLE gennokey (v AS (a || '!'), a, s AS (length(a)) STORED);
    CREATE TABLE strict (id INT PRIMARY KEY, t TEXT, r REAL, b BLOB, x ANY) STRICT;
    CREATE TABLE "we""ird '[`table" ("a ""b" INTEGER PRIMARY KEY, "select" TEXT, "x;--" );
"#;

/// Values that are easily lost, and some that only look alike.
fn value() -> impl Strategy<Value = Value> {
    let plain = vec![
        Value::Null,
        int(0),
        int(1),
        int(2),
        int(3),
        int(i64::MAX),
        int(i64::MIN),
        int((1 << 53) + 1),
        Value::Real(1.0),
        Value::Real(0.0),
        Value::Real(-0.0),
        Value::Real(1.5),
        Value::Real(5e-324),
        Value::Real(f64::MAX),
        Value::Real(0.1),
        Value::Real(9007199254740993.0),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        text(""),
        text("1"),
        text("1.0"),
        text("a"),
        text("A"),
        text("a "),
        text("a\0b"),
        text("a\0c"),
        text("it's \"quoted\" ;--"),
        text("\u{1F980}"),
        text("inf"),
        Value::RawText(vec![0xff, 0x61]),
        Value::RawText(vec![0x61, 0, 0xc3]),
        Value::Blob(vec![]),
        Value::Blob(b"a".to_vec()),
        Value::Blob(b"1".to_vec()),
        Value::Blob(vec![0, 255, 0]),
    ];
    prop_oneof![
        3 => proptest::sample::select(plain),
        1 => (0..6i64).prop_map(Value::Integer),
        1 => "[aAbB]{0,2}".prop_map(Value::Text),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<Value>),
    Replace(Vec<Value>),
    /// One row gets a new value in one column, which may be its key.
    UpdateOne(usize, usize, Value),
    /// All rows of an equal value get a new one, in a column outside the key.
    UpdateMany(usize, Value, Value),
    DeleteOne(usize),
    DeleteMany(usize, Value),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => proptest::collection::vec(value(), 5).prop_map(Op::Insert),
        1 => proptest::collection::vec(value(), 5).prop_map(Op::Replace),
        4 => (0..8usize, 0..5usize, value()).prop_map(|(r, c, v)| Op::UpdateOne(r, c, v)),
        1 => (0..5usize, value(), value()).prop_map(|(c, a, b)| Op::UpdateMany(c, a, b)),
        1 => (0..8usize).prop_map(Op::DeleteOne),
        1 => (0..5usize, value()).prop_map(|(c, v)| Op::DeleteMany(c, v)),
    ]
}

fn perform(db: &mut Recorder, table: &Table, op: &Op) {
    let columns: Vec<&Column> = table.columns.iter().filter(|c| !c.generated).collect();
    let names: Vec<String> = columns.iter().map(|c| name(&c.name)).collect();
    let at = name(&table.name);
    let column = |n: usize| &names[n % names.len()];
    // Which row a number means: by position, found again by every column (any of several equal ones).
    let row = |db: &Recorder, n: usize| {
        let rows = rows(&db.conn, table);
        rows.into_values().nth(n).map(|image| {
            let (mut terms, mut args) = (Vec::new(), Vec::new());
            for (i, c) in table.columns.iter().enumerate().filter(|(_, c)| !c.generated) {
                terms.push(format!("{} IS ? AND typeof({0}) = ?", name(&c.name)));
                let kind = match &image[i] {
                    Value::Null => "null",
                    Value::Integer(_) => "integer",
                    Value::Real(_) => "real",
                    Value::Text(_) | Value::RawText(_) => "text",
                    Value::Blob(_) => "blob",
                };
                args.extend([image[i].clone(), text(kind)]);
            }
            (terms.join(" AND "), args)
        })
    };
    let (sql, args) = match op {
        Op::Insert(values) | Op::Replace(values) => {
            let verb = match op {
                Op::Insert(_) => "INSERT",
                _ => "INSERT OR REPLACE",
            };
            let marks = vec!["?"; names.len()].join(", ");
            (
                format!("{verb} INTO {at} ({}) VALUES ({marks})", names.join(", ")),
                values[..names.len()].to_vec(),
            )
        }
        Op::UpdateOne(r, c, v) => {
            let Some((condition, args)) = row(db, *r) else {
                return;
            };
            let args = [vec![v.clone()], args].concat();
            (
                format!("UPDATE {at} SET {} = ? WHERE {condition}", column(*c)),
                args,
            )
        }
        Op::UpdateMany(c, from, to) => {
            if columns[c % columns.len()].key > 0 {
                return;
            }
            let c = column(*c);
            (
                format!("UPDATE {at} SET {c} = ? WHERE {c} IS ?"),
                vec![to.clone(), from.clone()],
            )
        }
        Op::DeleteOne(r) => {
            let Some((condition, args)) = row(db, *r) else {
                return;
            };
            (format!("DELETE FROM {at} WHERE {condition}"), args)
        }
        Op::DeleteMany(c, v) => (
            format!("DELETE FROM {at} WHERE {} IS ?", column(*c)),
            vec![v.clone()],
        ),
    };
    // What a constraint refuses has changed nothing.
    let _ = db.run_with(&sql, &args, &[]);
}

/// SQL cannot tell `-0.0` from `0.0`; of two rows that differ in nothing else either may be meant.
fn comparable(conn: &Connection) -> BTreeMap<String, Vec<String>> {
    let mut all = contents(conn);
    for rows in all.values_mut() {
        for row in rows.iter_mut() {
            *row = row.replace("Real(-0.0)", "Real(0.0)");
        }
        rows.sort();
    }
    all
}

/// Whether the change finds its row by key, before and after.
fn is_keyed(change: &Change) -> bool {
    let ChangeKind::Row { table, op, .. } = &change.kind else {
        return false;
    };
    let keyed = |image: &[Value]| key_of(table, image).is_some();
    match op {
        RowOp::Insert { after } | RowOp::Add { after } => keyed(after),
        RowOp::Update { before, after } => keyed(before) && keyed(after),
        RowOp::Delete { before } => keyed(before),
    }
}

fn changes_key(change: &Change) -> bool {
    let ChangeKind::Row { table, op, .. } = &change.kind else {
        return false;
    };
    match op {
        RowOp::Update { before, after } => sql::changed_columns(table, before, after)
            .iter()
            .any(|&i| table.columns[i].key > 0),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariant_7_random_changes_give_equal_contents_and_keyed_ones_can_run_twice(
        ops in proptest::collection::vec((0..14usize, op()), 1..40),
    ) {
        let mut a = Recorder::new(SCHEMA);
        let tables = tables(&a.conn);
        prop_assert_eq!(tables.len(), 14);
        for (n, op) in &ops {
            perform(&mut a, &tables[*n], op);
        }
        let log = codec::decode(&codec::encode(&a.log).unwrap()).unwrap();
        prop_assert_eq!(&log, &a.log);

        let b = database(SCHEMA);
        apply(&b, &log);
        prop_assert_eq!(comparable(&b), comparable(&a.conn));

        // Each change at once again, where a key says which row is meant.
        let c = database(SCHEMA);
        for change in &log {
            apply(&c, std::slice::from_ref(change));
            if is_keyed(change) {
                apply(&c, std::slice::from_ref(change));
            }
        }
        prop_assert_eq!(comparable(&c), comparable(&a.conn));

        // The whole log again, where no key moves from one row to another.
        let keyed: Vec<Change> = log.iter().filter(|c| is_keyed(c)).cloned().collect();
        if keyed.len() == log.len() && !log.iter().any(changes_key) {
            apply(&b, &log);
            prop_assert_eq!(comparable(&b), comparable(&a.conn));
        }
    }
}
