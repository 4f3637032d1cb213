//! The tables of a history and the statements that clients run on them.
//!
//! Every client (0 = those that write on the remote directly) writes rows of its own: `c` is its number, and keys that are
//! chosen lie in its own range. So whatever the order in which pushes land, the contents are decided: they are those that
//! plain SQLite has after the same statements. Rows that everybody updates are updated in a column of one's own.

mod kinds;
mod pieces;

use fastrand::Rng;

use kinds::KINDS;
use pieces::value;

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
