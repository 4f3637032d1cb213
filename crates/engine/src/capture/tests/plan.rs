//! Statements that are recorded by their plan and those that are recorded row by row leave the same log.

use fastrand::Rng;

use super::*;
use crate::{capture::by_plan, change::Change};

const SCHEMA: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT);
    CREATE TABLE keyless(a, b);
    CREATE TABLE pairs(a, b, c, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE taken(id INTEGER PRIMARY KEY, a UNIQUE, b);
    CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, a);
    CREATE TABLE computed(id INTEGER PRIMARY KEY, a, b AS (a + 1), c AS (a + 2) STORED);
    CREATE TABLE watched(id INTEGER PRIMARY KEY, a);
    CREATE TABLE noted(id INTEGER PRIMARY KEY, a, UNIQUE(a));
    CREATE TRIGGER notes AFTER INSERT ON watched BEGIN INSERT OR IGNORE INTO noted(a) VALUES (new.a); END;
    CREATE TABLE parent(id INTEGER PRIMARY KEY);
    CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent ON DELETE CASCADE);
    CREATE VIEW seen AS SELECT id, a FROM plain;
    CREATE TRIGGER puts INSTEAD OF INSERT ON seen BEGIN INSERT INTO plain(id, a) VALUES (new.id, new.a); END;
";

/// Statements, each of which may fail.
const STATEMENTS: &[&str] = &[
    "INSERT INTO plain VALUES (?1, ?2, ?3)",
    "INSERT INTO plain(a, b) VALUES (?2, ?3)",
    "INSERT OR REPLACE INTO plain VALUES (?1, ?2, ?3)",
    "INSERT INTO plain(id, a) VALUES (?1, 1), (NULL, ?2)",
    "INSERT INTO plain(a) VALUES (?2) ON CONFLICT DO NOTHING RETURNING id, a",
    "INSERT INTO plain(id, a) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET a = excluded.a, b = ?3",
    "INSERT INTO plain(a, b) SELECT a, b FROM keyless LIMIT 5",
    "UPDATE plain SET a = ?2 WHERE id % 3 = 0",
    "UPDATE OR REPLACE plain SET id = id + 1 WHERE id > ?1",
    "UPDATE plain SET b = CAST(x'ff41' AS TEXT) WHERE id = ?1",
    "DELETE FROM plain WHERE id = ?1",
    "DELETE FROM plain",
    "INSERT INTO keyless VALUES (?2, ?3)",
    "UPDATE keyless SET a = b, b = a",
    "DELETE FROM keyless WHERE a IS ?2",
    "INSERT OR IGNORE INTO pairs VALUES (?1, ?2, ?3)",
    "REPLACE INTO pairs VALUES (?1, ?2, ?3)",
    "UPDATE pairs SET c = zeroblob(300)",
    "INSERT OR REPLACE INTO taken(a, b) VALUES (?2, ?3)",
    "UPDATE OR REPLACE taken SET a = ?2",
    "UPDATE OR FAIL taken SET a = a + 1",
    "INSERT OR FAIL INTO taken(a) VALUES (?1), (?1)",
    "INSERT OR ROLLBACK INTO taken(a) VALUES (?1)",
    "INSERT INTO counted(a) VALUES (?2)",
    "UPDATE sqlite_sequence SET seq = seq + 10",
    "INSERT INTO computed(a) VALUES (?1)",
    "UPDATE computed SET a = a + 1",
    "INSERT INTO watched(a) VALUES (?1)",
    "UPDATE noted SET a = -a",
    "DELETE FROM noted WHERE id < ?1",
    "INSERT OR IGNORE INTO parent VALUES (?1)",
    "INSERT INTO child(p) VALUES (?1)",
    "DELETE FROM parent WHERE id = ?1",
    "INSERT INTO seen VALUES (?1, ?2)",
    "CREATE TABLE IF NOT EXISTS late(id INTEGER PRIMARY KEY, a)",
    "INSERT INTO late(id, a) VALUES (?1, ?2)",
    "ALTER TABLE late ADD COLUMN b DEFAULT 7",
    "UPDATE late SET a = ?2",
    "DROP TABLE late",
    "CREATE TEMP TRIGGER IF NOT EXISTS t AFTER DELETE ON keyless BEGIN DELETE FROM pairs; END",
    "DROP TRIGGER IF EXISTS t",
    "BEGIN",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "COMMIT",
    "ROLLBACK",
];

fn value(rng: &mut Rng) -> Value {
    match rng.u8(..6) {
        0 => Value::Null,
        1 => Value::Integer(rng.i64(-3..30)),
        2 => Value::Real(rng.f64()),
        3 => Value::Text("é".repeat(rng.usize(..40))),
        4 => Value::Blob(vec![7; rng.usize(..2000)]),
        _ => Value::Integer(rng.i64(..)),
    }
}

/// Runs statements of that seed. What they said, and what the log has.
fn run(seed: u64, by_plan: bool) -> (Vec<String>, Vec<Change>) {
    by_plan::use_plans(by_plan);
    let db = TestDb::new(SCHEMA);
    let conn = db.connection();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let mut rng = Rng::with_seed(seed);
    let mut prepared = std::collections::HashMap::new();
    let mut said = Vec::new();
    for _ in 0..120 {
        let sql = *rng.choice(STATEMENTS).unwrap();
        let values = [Value::Integer(rng.i64(-2..25)), value(&mut rng), value(&mut rng)];
        // Kept, so that a plan meets a schema that has changed since.
        let stmt = match prepared.entry(sql) {
            std::collections::hash_map::Entry::Occupied(kept) => kept.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => match conn.prepare(sql) {
                Ok(stmt) => free.insert(stmt),
                Err(error) => {
                    said.push(error.to_string());
                    continue;
                }
            },
        };
        let outcome = stmt.execute(&values[..stmt.parameter_count()]);
        said.push(format!("{sql}: {outcome:?}, {}", conn.last_insert_rowid()));
    }
    drop(prepared);
    let _ = conn.execute_batch("COMMIT");
    by_plan::use_plans(true);
    let mut changes: Vec<Change> = Vec::new();
    let log = db.log();
    let mut chunks = log.chunks_after(ChangeId(0)).unwrap();
    while let Some(chunk) = chunks.next().unwrap() {
        changes.extend(chunk.changes().unwrap());
    }
    // They were made at other times.
    changes.iter_mut().for_each(|change| change.time = 0);
    (said, changes)
}

#[test]
fn what_is_recorded_by_a_plan_is_what_is_recorded_row_by_row() {
    let mut recorded = 0;
    for seed in 0..200 {
        let (with, without) = (run(seed, true), run(seed, false));
        assert_eq!(with.0, without.0, "seed {seed}");
        assert_eq!(with.1, without.1, "seed {seed}");
        recorded += with.1.len();
    }
    assert!(recorded > 10_000, "{recorded} changes were compared");
}

#[test]
fn a_statement_of_many_rows_is_recorded_in_chunks_and_from_the_temporary_file() {
    let db = TestDb::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
    let conn = db.connection();
    let fill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 60000) \
                INSERT INTO t SELECT x, x, 'a text of some length, so that it is more than stays in memory' FROM c";
    conn.execute(fill, ()).unwrap();
    conn.execute("UPDATE t SET a = -a", ()).unwrap();
    let (log, mut chunks, mut next) = (db.log(), Vec::new(), 1);
    let mut all = log.chunks_after(ChangeId(0)).unwrap();
    while let Some(chunk) = all.next().unwrap() {
        for change in chunk.changes().unwrap() {
            assert_eq!((change.id.0, change.back), (next, 0));
            let row = (next - 1) % 60_000 + 1;
            let ChangeKind::Row { op, .. } = change.kind else {
                panic!("{change:?}");
            };
            let (_, Some(after)) = op.images() else {
                panic!("{op:?}");
            };
            let sign = if next > 60_000 { -1 } else { 1 };
            assert_eq!(after[..2], [Value::Integer(row), Value::Integer(sign * row)]);
            next += 1;
        }
        chunks.push((chunk.txn.0, chunk.body.len()));
    }
    assert_eq!(next, 120_001);
    assert!(chunks.iter().all(|(_, bytes)| *bytes < (1 << 20) + 1024));
    let of = |txn: i64| chunks.iter().filter(|(of, _)| *of == txn).count();
    assert!(
        of(1) > 4 && of(60_001) > 8 && of(1) + of(60_001) == chunks.len(),
        "{chunks:?}"
    );
}
