//! What statements are made of: values, conflict clauses, and statements for tables with each sort of key.

use fastrand::Rng;

/// Keys of a client: `c * SPAN + 0..ROWS`.
pub(super) const SPAN: u64 = 1000;
pub(super) const ROWS: u64 = 9;

/// A value; now and then one of several pages.
pub(super) fn value(r: &mut Rng) -> String {
    match r.u8(..12) {
        0 => "NULL".into(),
        1 => r.i32(..).to_string(),
        2 => format!("{:?}", r.f64() * 100.0),
        3 => format!("x'{:x}{:x}'", r.u8(16..), r.u8(16..)),
        4 | 5 => {
            let unit = format!("{:03}", r.u16(..1000));
            format!("replace(hex(zeroblob({})), '00', '{unit}')", r.u16(300..2500))
        }
        6 => format!("zeroblob({})", r.u16(..3000)),
        _ => format!("'t{}'", r.u16(..1000)),
    }
}

pub(super) fn words(r: &mut Rng) -> String {
    const WORDS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
    (0..r.usize(1..30))
        .map(|_| WORDS[r.usize(..6)])
        .collect::<Vec<_>>()
        .join(" ")
}

pub(super) fn or(r: &mut Rng) -> &'static str {
    ["", "", "OR REPLACE ", "OR IGNORE ", "OR ABORT "][r.usize(..5)]
}

/// Statements on a table `(id, c, n, v)` whose key is chosen.
pub(super) fn keyed(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
    let (id, n, v) = (c * SPAN + r.u64(..ROWS), r.u64(..4), value(r));
    match r.u8(..10) {
        0 => format!("DELETE FROM {table} WHERE id = {id}"),
        1 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        2 => format!("UPDATE {}{table} SET v = {v}, n = {n} WHERE id = {id}", or(r)),
        3 => format!(
            "UPDATE {}{table} SET id = {} WHERE id = {id}",
            or(r),
            c * SPAN + r.u64(..ROWS)
        ),
        4 => format!("UPDATE {table} SET v = {v} WHERE c = {c}"),
        5 => format!(
            "INSERT INTO {table}({columns}) VALUES ({id}, {c}, {n}, {v}) ON CONFLICT(id) DO UPDATE SET v = excluded.v"
        ),
        _ => format!(
            "INSERT {}INTO {table}({columns}) VALUES ({id}, {c}, {n}, {v})",
            or(r)
        ),
    }
}

/// Statements on a table `(c, n, v)` whose rows have no key, or one that nobody chooses.
pub(super) fn unkeyed(r: &mut Rng, c: u64, table: &str) -> String {
    let (n, v) = (r.u64(..5), value(r));
    match r.u8(..8) {
        0 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        1 => format!("UPDATE {table} SET v = {v} WHERE c = {c} AND n = {n}"),
        2 => format!(
            "INSERT INTO {table}(c, n, v) SELECT c, n + 1, v FROM {table} WHERE c = {c} AND n < 3 ORDER BY n, v LIMIT 4"
        ),
        _ => format!("INSERT INTO {table}(c, n, v) VALUES ({c}, {n}, {v})"),
    }
}

/// Statements on a table `(c, n, v)` with the key `(c, n)`.
pub(super) fn pair(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
    let (n, v) = (r.u64(..ROWS), value(r));
    match r.u8(..7) {
        0 => format!("DELETE FROM {table} WHERE c = {c} AND n = {n}"),
        1 => format!(
            "UPDATE {}{table} SET n = {} WHERE c = {c} AND n = {n}",
            or(r),
            r.u64(..ROWS)
        ),
        2 => format!("UPDATE {table} SET v = {v} WHERE c = {c} AND n >= {n}"),
        3 => format!(
            "INSERT INTO {table}({columns}) VALUES ({c}, {n}, {v}) ON CONFLICT DO UPDATE SET v = excluded.v"
        ),
        _ => format!("INSERT {}INTO {table}({columns}) VALUES ({c}, {n}, {v})", or(r)),
    }
}
