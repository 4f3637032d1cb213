use rusqlite::{Connection, types::Value};

use super::install;

const FUNCTIONS: [(&str, usize); 10] = [
    ("instr", 2),
    ("replace", 3),
    ("trim", 1),
    ("trim", 2),
    ("ltrim", 1),
    ("ltrim", 2),
    ("rtrim", 1),
    ("rtrim", 2),
    ("unhex", 2),
    ("typeof", 1),
];

/// Bytes that are UTF-8, parts of it, NULs and hexadecimal digits, few enough that they meet.
fn bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 16] = [
        b"a",
        b"b",
        b"ab",
        b"0",
        b"4f",
        b" ",
        "é".as_bytes(),
        "€".as_bytes(),
        "😀".as_bytes(),
        b"\xc3",
        b"\xa9",
        b"\x80",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xff",
        b"\0",
    ];
    let count = rng.usize(..8);
    let few = rng.usize(1..=PIECES.len());
    let from = rng.usize(..=PIECES.len() - few);
    (0..count)
        .flat_map(|_| PIECES[from + rng.usize(..few)].to_vec())
        .collect()
}

/// A value and how it is written in a statement: texts that are not UTF-8 only come about by a cast.
fn value(rng: &mut fastrand::Rng) -> (Value, &'static str) {
    match rng.u8(..8) {
        0 => (Value::Null, "?"),
        1 => (Value::Integer(rng.i64(-20..400)), "?"),
        2 => (Value::Real(rng.f64() * 100.0), "?"),
        3 => (Value::Blob(bytes(rng)), "?"),
        _ => (Value::Blob(bytes(rng)), "CAST(? AS TEXT)"),
    }
}

fn compare(encoding: &str, rounds: usize) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (theirs, ours) = (
        Connection::open_in_memory().unwrap(),
        Connection::open_in_memory().unwrap(),
    );
    for conn in [&theirs, &ours] {
        conn.pragma_update(None, "encoding", encoding).unwrap();
    }
    install(&ours).unwrap();
    for _ in 0..rounds {
        let (name, count) = FUNCTIONS[rng.usize(..FUNCTIONS.len())];
        let (values, written): (Vec<_>, Vec<_>) = (0..count).map(|_| value(&mut rng)).unzip();
        let call = format!("{name}({})", written.join(", "));
        let sql = format!("SELECT typeof(v), hex(v), quote(v) FROM (SELECT {call} AS v)");
        let run = |conn: &Connection| {
            let mut statement = conn.prepare_cached(&sql)?;
            statement.query_row(rusqlite::params_from_iter(&values), |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2).ok(),
                ))
            })
        };
        let (theirs, ours) = (run(&theirs), run(&ours));
        assert_eq!(format!("{theirs:?}"), format!("{ours:?}"), "{call} of {values:?}");
    }
}

#[test]
fn they_give_what_sqlites_own_give() {
    compare("UTF-8", 60_000);
}

#[test]
fn also_in_a_database_of_utf16() {
    compare("UTF-16le", 20_000);
}

#[test]
fn what_takes_sqlites_own_hours_ends() {
    let conn = Connection::open_in_memory().unwrap();
    install(&conn).unwrap();
    // Billions of comparisons, or of long ones.
    for call in [
        "instr(zeroblob(3000000), CAST(zeroblob(1500000) || x'01' AS BLOB))",
        "length(replace(printf('%.*c', 3000000, 'a'), printf('%.*cb', 1500000, 'a'), ''))",
        "length(trim(replace(printf('%.*c', 400000, 'a'), 'a', 'é'), printf('%.*cé', 60000, 'b')))",
        "length(unhex(printf('%.*c', 400000, 'z'), printf('%.*cz', 60000, 'b')))",
    ] {
        conn.query_row(&format!("SELECT {call}"), [], |row| row.get::<_, i64>(0))
            .unwrap();
    }
}

#[test]
fn a_value_beyond_the_limit_and_a_set_that_is_too_long_are_errors() {
    let conn = Connection::open_in_memory().unwrap();
    install(&conn).unwrap();
    conn.set_limit(rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, 100_000)
        .unwrap();
    for call in [
        "replace(printf('%.*c', 1000, 'a'), 'a', printf('%.*c', 101, 'b'))",
        "trim('a', printf('%.*c', 70000, 'a'))",
        "unhex('aa', printf('%.*c', 70000, 'a'))",
    ] {
        let failed = conn
            .query_row(&format!("SELECT {call}"), [], |_| Ok(()))
            .unwrap_err();
        assert_eq!(
            failed.sqlite_error_code(),
            Some(rusqlite::ErrorCode::TooBig),
            "{call}"
        );
    }
    let size: i64 = conn
        .query_row(
            "SELECT length(replace(printf('%.*c', 1000, 'a'), 'a', printf('%.*c', 100, 'b')))",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(size, 100_000);
}

#[test]
fn json_patch_is_sqlites_own_but_for_large_values() {
    let conn = Connection::open_in_memory().unwrap();
    super::limit_others(&conn).unwrap();
    let text = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0));
    assert_eq!(
        text(r#"SELECT json_patch('{"a":1,"b":2}', '{"a":null,"c":[3]}')"#)
            .unwrap()
            .unwrap(),
        r#"{"b":2,"c":[3]}"#
    );
    // It is JSON, not a text with JSON in it.
    assert_eq!(
        text(r#"SELECT json_array(json_patch('{}', '{"a":1}'))"#)
            .unwrap()
            .unwrap(),
        r#"[{"a":1}]"#
    );
    assert_eq!(
        text(r#"SELECT json(jsonb_patch('{}', '{"a":1}'))"#)
            .unwrap()
            .unwrap(),
        r#"{"a":1}"#
    );
    assert_eq!(text("SELECT json_patch(NULL, '{}')").unwrap(), None);
    assert_eq!(text("SELECT json_patch('[1]', 2)").unwrap().unwrap(), "2");
    assert!(
        text("SELECT json_patch('{', '{}')")
            .unwrap_err()
            .to_string()
            .contains("malformed JSON")
    );
    let large = "SELECT json_group_object('k' || value, 1) AS j FROM generate_series(1, 100000)";
    rusqlite::vtab::series::load_module(&conn).unwrap();
    let refused = text(&format!("WITH l AS ({large}) SELECT json_patch(j, j) FROM l")).unwrap_err();
    assert!(refused.to_string().contains("patch smaller ones"), "{refused}");
    text(&format!(
        "WITH l AS ({large}) SELECT json_patch(j, '{{\"k1\":2}}') FROM l"
    ))
    .unwrap();
}
