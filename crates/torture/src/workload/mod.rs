//! The tables of a history and the statements that clients run on them.
//!
//! Every client (0 = those that write on the remote directly) writes rows of its own: `c` is its number, and keys that are
//! chosen lie in its own range. So whatever the order in which pushes land, the contents are decided: they are those that
//! plain SQLite has after the same statements. Rows that everybody updates are updated in a column of one's own.

mod kinds;

use fastrand::Rng;

use kinds::KINDS;

/// Keys of a client: `c * SPAN + 0..ROWS`.
const SPAN: u64 = 1000;
const ROWS: u64 = 9;

/// Names of all kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name)
}

/// The query of what is compared of a table.
pub fn compared(table: &str) -> String {
    let found = KINDS
        .iter()
        .flat_map(|kind| kind.compared)
        .find(|(name, _)| *name == table);
    found.map_or_else(
        || format!("SELECT * FROM \"{table}\""),
        |(_, query)| (*query).to_owned(),
    )
}

/// Makes the tables, and the one that only the remote writes.
pub fn script(tables: &[String], filler: usize) -> String {
    let mut out = String::from("CREATE TABLE filler(id INTEGER PRIMARY KEY, v);\n");
    for name in tables {
        if let Some(kind) = KINDS.iter().find(|kind| kind.name == name) {
            out.push_str(kind.script);
            out.push('\n');
        }
    }
    if filler > 0 {
        out.push_str(&format!(
            "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {filler}) \
             INSERT INTO filler SELECT i, hex(zeroblob(40 + i * 37 % 200)) FROM n;"
        ));
    }
    out
}

/// Every table that these kinds make.
pub fn tables_of(kinds: &[String]) -> Vec<String> {
    let mut out = vec!["filler".to_owned(), "#user_version".to_owned()];
    for kind in KINDS
        .iter()
        .filter(|kind| kinds.iter().any(|name| name == kind.name))
    {
        for part in kind.script.split("CREATE ").skip(1) {
            let part = part.trim_start_matches("VIRTUAL ");
            if let Some(rest) = part.strip_prefix("TABLE ") {
                out.extend(rest.split(['(', ' ']).next().map(str::to_owned));
            }
        }
    }
    out
}

/// A statement of a client on one of these kinds.
pub fn statement(r: &mut Rng, client: u64, tables: &[String]) -> String {
    let name = &tables[r.usize(..tables.len())];
    match KINDS.iter().find(|kind| kind.name == name) {
        Some(kind) => (kind.statement)(r, client),
        None => "SELECT 1".to_owned(),
    }
}

/// Schema changes of a client, to tables of its own.
pub fn schema_change(r: &mut Rng, client: u64) -> String {
    let (name, other) = (
        format!("own{client}_{}", r.u8(..3)),
        format!("own{client}_{}", r.u8(..3)),
    );
    match r.u8(..9) {
        0 | 1 => format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, a, b TEXT)"),
        2 => format!("DROP TABLE {name}"),
        3 => format!("ALTER TABLE {name} ADD COLUMN x{}", r.u8(..2)),
        4 => format!("ALTER TABLE {name} RENAME TO {other}"),
        5 => format!("CREATE INDEX {name}_a ON {name}(a)"),
        6 => format!("DROP INDEX {name}_a"),
        7 => format!("ALTER TABLE {name} RENAME COLUMN a TO a{}", r.u8(..2)),
        _ => format!(
            "INSERT OR REPLACE INTO {name}(id, b) VALUES ({}, {})",
            r.u8(..5),
            value(r)
        ),
    }
}

/// Statements of other clients, on the remote, to the table that is theirs: growth and shrinking.
pub fn filler(r: &mut Rng) -> String {
    match r.u8(..8) {
        0 => "DELETE FROM filler WHERE id % 3 = 1".into(),
        1 => format!("DELETE FROM filler WHERE id > {}", r.u16(..60)),
        2 => format!("UPDATE filler SET v = v || 'x' WHERE id % 7 = {}", r.u8(..7)),
        3 => format!("INSERT INTO filler(v) VALUES (hex(zeroblob({})))", r.u16(..6000)),
        4 => format!(
            "INSERT INTO filler(v) SELECT hex(zeroblob({})) FROM generate_series(1, {})",
            r.u16(..200),
            r.u8(1..60)
        ),
        5 => "VACUUM".into(),
        6 => "PRAGMA incremental_vacuum".into(),
        _ => "PRAGMA wal_checkpoint(TRUNCATE)".into(),
    }
}

/// A value; now and then one of several pages.
fn value(r: &mut Rng) -> String {
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

fn words(r: &mut Rng) -> String {
    const WORDS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"];
    (0..r.usize(1..30))
        .map(|_| WORDS[r.usize(..6)])
        .collect::<Vec<_>>()
        .join(" ")
}

fn or(r: &mut Rng) -> &'static str {
    ["", "", "OR REPLACE ", "OR IGNORE ", "OR ABORT "][r.usize(..5)]
}

/// Statements on a table `(id, c, n, v)` whose key is chosen.
fn keyed(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
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
fn unkeyed(r: &mut Rng, c: u64, table: &str) -> String {
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
fn pair(r: &mut Rng, c: u64, table: &str, columns: &str) -> String {
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
