//! What is recorded is enough: run on a copy of the database, as a push runs it on the remote, it gives the same contents.

use partial_sync_vfs::sqlite::{Step, ValueRef};

use super::*;
use crate::change::{
    Mode,
    sql::{is_duplicate_column, to_sql},
};

const SCHEMA: &str = "
    CREATE TABLE p(id INTEGER PRIMARY KEY, u UNIQUE, r REAL);
    CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE n(k TEXT PRIMARY KEY, p REFERENCES p(id) ON DELETE SET NULL ON UPDATE CASCADE, g AS (k || p) STORED);
    CREATE TABLE w(b, a, v, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE bare(a, b);
    CREATE TABLE strict(id INTEGER PRIMARY KEY, v ANY, t TEXT) STRICT;
    CREATE TABLE audit(what);
    CREATE VIRTUAL TABLE words USING fts5(t, content = 'strict', content_rowid = 'id');
    CREATE VIRTUAL TABLE free USING fts5(t);
    CREATE TRIGGER si AFTER INSERT ON strict BEGIN INSERT INTO words(rowid, t) VALUES (new.id, new.t); END;
    CREATE TRIGGER sd AFTER DELETE ON strict BEGIN INSERT INTO words(words, rowid, t) VALUES ('delete', old.id, old.t); END;
    CREATE TRIGGER cd AFTER DELETE ON c BEGIN INSERT INTO audit VALUES (old.id); END;
    CREATE VIEW v AS SELECT a, b FROM bare;
    CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO bare VALUES (new.a, new.b); END";

fn statement(random: &mut fastrand::Rng, round: usize) -> String {
    let (a, b, c) = (random.i64(1..30), random.i64(1..30), random.i64(-3..3));
    let or = ["", "", "OR IGNORE", "OR REPLACE", "OR FAIL", "OR ROLLBACK"][random.usize(0..6)];
    match random.u32(0..24) {
        0..3 => format!("INSERT {or} INTO p VALUES ({a}, {b}, {c}), ({b}, {a}, {c}.5)"),
        3 => format!("UPDATE {or} p SET id = id + 100 * (id < 100), r = {c} WHERE id >= {a}"),
        4 => format!("DELETE FROM p WHERE id % 7 = {} OR u = {b}", a % 7),
        5 => format!("INSERT {or} INTO c(p) SELECT id FROM p WHERE id > {a} LIMIT 3"),
        6 => format!("INSERT {or} INTO n(k, p) VALUES ('k{a}', (SELECT max(id) FROM p WHERE id < {b}))"),
        7 => format!("UPDATE {or} n SET k = 'k{b}' WHERE k = 'k{a}'"),
        8 => format!("INSERT {or} INTO w VALUES ({a}, {}, x'0{}')", b % 3, c.abs()),
        9 => format!("UPDATE {or} w SET a = a + 1, v = 'it''s {c}' WHERE b > {a}"),
        10 => format!("DELETE FROM w WHERE b = {a}"),
        11 => format!("INSERT INTO bare VALUES ({c}, NULL), ({c}, 'z{a}'), ({c}, NULL)"),
        12 => format!("UPDATE bare SET b = {a} WHERE a = {c} AND b IS NULL"),
        13 => format!("DELETE FROM bare WHERE a = {c} AND rowid % 2 = {}", a % 2),
        14 => format!("INSERT INTO v VALUES ({a}, 9e999)"),
        15 => format!(
            "INSERT INTO strict VALUES ({a}, {c}.25, 'word{b} other') ON CONFLICT DO UPDATE SET v = v || 'x'"
        ),
        16 => format!("DELETE FROM strict WHERE id = {a}"),
        17 => format!("INSERT INTO free(rowid, t) VALUES ({}, 'text{b}')", round + 1),
        18 => "SAVEPOINT s".into(),
        19 => "ROLLBACK TO s".into(),
        20 => "RELEASE s".into(),
        21 => "BEGIN".into(),
        22 => ["COMMIT", "ROLLBACK"][random.usize(0..2)].into(),
        _ => format!("ALTER TABLE bare ADD COLUMN more{} DEFAULT {c}", round / 50),
    }
}

fn contents(db: &TestDb) -> Vec<String> {
    let conn = db.plain();
    let mut lines = Vec::new();
    for table in ["p", "c", "n", "w", "bare", "strict", "audit", "words", "free"] {
        let mut select = conn.prepare_one(&format!("SELECT * FROM {table}")).unwrap();
        while select.step().unwrap() == Step::Row {
            let row: Vec<_> = (0..select.column_count())
                .map(|i| format!("{:?}", select.value(i).unwrap()))
                .collect();
            lines.push(format!("{table} {}", row.join(" ")));
        }
    }
    for query in ["words WHERE words MATCH 'other'", "free WHERE free MATCH 'text7'"] {
        let mut select = conn.prepare_one(&format!("SELECT rowid FROM {query}")).unwrap();
        while select.step().unwrap() == Step::Row {
            lines.push(format!("{query} {:?}", select.value(0).unwrap()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_copy_that_runs_the_recorded_changes_has_the_same_contents() {
    for enforced in ["ON", "OFF"] {
        let seed = std::env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
        println!("SEED={seed} foreign_keys={enforced}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (db, copy) = (TestDb::new(SCHEMA), TestDb::new(SCHEMA));
        let connection = db.connection();
        connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        let remote = copy.plain();
        remote
            .execute_batch(&format!("PRAGMA foreign_keys = {enforced}"))
            .unwrap();
        for round in 0..600 {
            // Many fail, and are meant to.
            let _ = connection.execute_batch(&statement(&mut random, round));
            if connection.is_transaction_lost() {
                connection.execute_batch("ROLLBACK").unwrap();
            }
            if round % 60 != 59 {
                continue;
            }
            if !connection.is_autocommit() {
                connection.execute_batch("COMMIT").unwrap();
            }
            let mut applied = Vec::new();
            for change in db.chunks().iter().flat_map(|chunk| chunk.changes().unwrap()) {
                applied.push(line(&change.kind));
                for sql in to_sql(&change, Mode::Triggers).unwrap() {
                    let run = remote.prepare_one(&sql.sql).and_then(|mut stmt| {
                        for (i, value) in sql.args.iter().enumerate() {
                            let value = rusqlite::types::ToSql::to_sql(value).unwrap();
                            let rusqlite::types::ToSqlOutput::Borrowed(value) = value else {
                                unreachable!()
                            };
                            stmt.bind(i + 1, value)?;
                        }
                        stmt.execute()
                    });
                    match run {
                        Err(e) if sql.skip_if_duplicate_column && is_duplicate_column(&e.message) => {}
                        run => run.unwrap_or_else(|e| {
                            panic!("{e}: {} {:?}\n{}", sql.sql, sql.args, applied.join("\n"))
                        }),
                    }
                }
            }
            db.take();
            assert_eq!(
                contents(&db),
                contents(&copy),
                "round {round}\n{}",
                applied.join("\n")
            );
        }
        for db in [&db, &copy] {
            let mut check = db.plain().prepare_one("PRAGMA integrity_check").unwrap();
            check.step().unwrap();
            assert_eq!(check.value(0).unwrap(), ValueRef::Text(b"ok"));
        }
    }
}
