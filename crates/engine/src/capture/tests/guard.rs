//! What a statement may not touch, and what SQLite keeps beside tables: pragmas that are part of the database, counters,
//! statistics.

use super::*;
use crate::{
    Error,
    capture::pragma::{PRAGMAS, Setting},
    change::sql::to_sql,
};

const OWN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a);
    CREATE TABLE turso_sync_last_change_id(client_id TEXT PRIMARY KEY, pull_gen INTEGER, change_id INTEGER);
    INSERT INTO turso_sync_last_change_id VALUES ('other', 1, 7)";

#[track_caller]
fn refused(connection: &Connection, sql: &str) {
    match connection.execute_batch(sql) {
        Err(Error::Unsupported { .. }) => {}
        Err(other) => panic!("{sql}: {other:?}"),
        Ok(()) => panic!("{sql}: it was accepted"),
    }
}

#[test]
fn s2_no_statement_touches_the_tables_of_this_project() {
    let db = TestDb::new(OWN);
    let connection = db.connection();
    connection.execute_batch("INSERT INTO t(a) VALUES (1)").unwrap();
    for table in [
        "turso_sync_last_change_id",
        "main.Turso_Sync_Last_Change_Id",
        "\"turso_sync_last_change_id\"",
        "[turso_sync_last_change_id]",
        "'turso_sync_last_change_id'",
    ] {
        for sql in [
            format!("DROP TABLE {table}"),
            format!("DELETE FROM {table}"),
            format!("UPDATE {table} SET change_id = 0"),
            format!("INSERT INTO {table} VALUES ('x', 1, 1)"),
            format!("REPLACE INTO {table} VALUES ('other', 1, 1)"),
            format!("ALTER TABLE {table} RENAME TO mine"),
            format!("ALTER TABLE {table} RENAME COLUMN change_id TO id"),
            format!("ALTER TABLE {table} ADD COLUMN more"),
            format!("ALTER TABLE {table} DROP COLUMN pull_gen"),
        ] {
            refused(&connection, &sql);
        }
    }
    for sql in [
        "CREATE INDEX i ON turso_sync_last_change_id(change_id)",
        "CREATE TRIGGER tr AFTER UPDATE ON turso_sync_last_change_id BEGIN DELETE FROM t; END",
        "CREATE TEMP TRIGGER tr AFTER UPDATE ON turso_sync_last_change_id BEGIN DELETE FROM t; END",
        "CREATE TEMP TRIGGER tr AFTER UPDATE ON main.partial_sync_changes BEGIN DELETE FROM t; END",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE turso_sync_last_change_id SET change_id = 0; END",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM \"Partial_Sync_Changes\"; END",
        "CREATE VIEW v AS SELECT * FROM turso_sync_last_change_id",
        "CREATE TABLE c(p REFERENCES turso_sync_last_change_id ON DELETE CASCADE)",
        "ALTER TABLE t ADD COLUMN p REFERENCES 'turso_sync_last_change_id'",
        "CREATE VIRTUAL TABLE f USING fts5(x, content='partial_sync_changes')",
        "CREATE VIRTUAL TABLE partial_sync USING fts5(x)",
        "CREATE VIRTUAL TABLE partial_sync_f USING fts5(x)",
        "CREATE TABLE partial_sync_mine(a)",
        "CREATE VIEW partial_sync_v AS SELECT 1",
        "CREATE INDEX partial_sync_i ON t(a)",
        "CREATE TRIGGER partial_sync_t AFTER INSERT ON t BEGIN SELECT 1; END",
        "ALTER TABLE t RENAME TO partial_sync_mine",
        "ALTER TABLE main.t RENAME TO \"partial_sync_state\"",
        "DROP TABLE partial_sync_changes",
        "DELETE FROM partial_sync_changes",
        "PRAGMA writable_schema = ON",
        "PRAGMA writable_schema = 1",
        "PRAGMA main.writable_schema(yes)",
        "UPDATE sqlite_dbpage SET data = zeroblob(4096) WHERE pgno = 2",
        "INSERT INTO sqlite_dbpage(pgno, data, schema) VALUES (2, zeroblob(4096), 'main')",
    ] {
        refused(&connection, sql);
    }
    for sql in [
        "DELETE FROM sqlite_schema",
        "UPDATE sqlite_master SET sql = '' WHERE name = 'turso_sync_last_change_id'",
        "INSERT INTO sqlite_schema VALUES ('table', 'x', 'x', 2, 'CREATE TABLE x(a)')",
    ] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
    // A TEMP trigger is compiled when it fires.
    connection
        .execute_batch(
            "CREATE TEMP TRIGGER tt AFTER INSERT ON t BEGIN DELETE FROM turso_sync_last_change_id; END",
        )
        .unwrap();
    refused(&connection, "INSERT INTO t(a) VALUES (2)");
    // Its own schema is everybody's own affair, and reading is free.
    connection
        .execute_batch(
            "DROP TRIGGER tt; CREATE TEMP TABLE turso_sync_last_change_id(a); DROP TABLE temp.turso_sync_last_change_id;
             SELECT * FROM turso_sync_last_change_id; SELECT count(*) FROM partial_sync_changes",
        )
        .unwrap();
    assert_eq!(db.take(), ["*t(1,1)"]);
    let kept: i64 = connection
        .query_row("SELECT change_id FROM turso_sync_last_change_id", (), |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(kept, 7);
}

#[test]
fn s2_the_tables_behind_a_virtual_table_are_not_written_past_it() {
    let db = TestDb::new("CREATE VIRTUAL TABLE f USING fts5(x)");
    let connection = db.connection();
    for sql in [
        "DELETE FROM f_data",
        "INSERT INTO f_content VALUES (1, 'x')",
        "DROP TABLE f_idx",
    ] {
        assert!(connection.execute_batch(sql).is_err(), "{sql}");
    }
    connection
        .execute_batch("INSERT INTO f VALUES ('a b'); INSERT INTO f(f) VALUES ('optimize')")
        .unwrap();
}

/// What release 0.1.0 recorded, and no release sends.
#[test]
fn s2_a_recorded_change_of_these_tables_has_no_sql() {
    let statement = |sql: &str, kind| crate::change::Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind: ChangeKind::Statement(crate::change::StatementChange {
            sql: sql.into(),
            args: vec![],
            named: vec![],
            kind,
        }),
    };
    use crate::change::StatementKind as K;
    for (sql, kind) in [
        ("DROP TABLE turso_sync_last_change_id", K::DropTable),
        (
            "DROP TABLE IF EXISTS main.[turso_sync_last_change_id]",
            K::DropTable,
        ),
        ("ALTER TABLE turso_sync_last_change_id RENAME TO x", K::AlterOther),
        ("ALTER TABLE x RENAME TO turso_sync_last_change_id", K::AlterOther),
        ("CREATE VIEW turso_sync_last_change_id AS SELECT 1", K::CreateView),
        (
            "CREATE TRIGGER a AFTER INSERT ON t BEGIN DELETE FROM turso_sync_last_change_id; END",
            K::CreateTrigger,
        ),
    ] {
        assert_eq!(
            to_sql(&statement(sql, kind), crate::change::Mode::Rows).unwrap(),
            [],
            "{sql}"
        );
    }
    let table = Arc::new(crate::change::Table {
        name: "turso_sync_last_change_id".into(),
        columns: vec![],
        without_rowid: false,
        is_virtual: false,
    });
    let kind = ChangeKind::Row {
        table,
        op: RowOp::Delete { before: vec![] },
        cause: Cause::Statement,
    };
    let change = crate::change::Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind,
    };
    assert_eq!(to_sql(&change, crate::change::Mode::Rows).unwrap(), []);
    assert_eq!(
        to_sql(
            &statement("DROP TABLE t", K::DropTable),
            crate::change::Mode::Rows
        )
        .unwrap()
        .len(),
        1
    );
}

#[test]
fn h3_pragmas_that_are_part_of_the_database_are_recorded_in_their_transaction() {
    records(
        "CREATE TABLE t(a)",
        "PRAGMA user_version = 5; BEGIN; INSERT INTO t VALUES (1); PRAGMA main.user_version(6); PRAGMA user_version;
         SAVEPOINT s; PRAGMA application_id = 0x10; ROLLBACK TO s; PRAGMA application_id = -7; COMMIT;
         BEGIN; PRAGMA user_version = 99; ROLLBACK; PRAGMA user_version = '6'; PRAGMA USER_VERSION = 0;
         PRAGMA temp.user_version = 3; SELECT * FROM pragma_user_version; EXPLAIN PRAGMA user_version = 8",
        &[
            "PRAGMA user_version = 5",
            "+t(1)",
            "PRAGMA user_version = 6",
            "PRAGMA application_id = -7",
            "PRAGMA user_version = 0",
        ],
    );
}

#[test]
fn h3_a_pragma_in_a_deferred_transaction_is_recorded_even_if_nothing_is_known_before() {
    records(
        "PRAGMA user_version = 3",
        "BEGIN; PRAGMA user_version = 3; COMMIT",
        &["PRAGMA user_version = 3"],
    );
}

#[test]
fn t4_an_alter_table_is_recorded_with_legacy_alter_table() {
    let db = TestDb::new("CREATE TABLE t(a); CREATE TABLE u(b); CREATE VIEW w AS SELECT b FROM u");
    db.connection()
        .execute_batch(
            "PRAGMA legacy_alter_table = ON; ALTER TABLE u RENAME TO v; ALTER TABLE t ADD COLUMN c;
             PRAGMA legacy_alter_table = OFF; DROP VIEW w; ALTER TABLE t RENAME COLUMN a TO b",
        )
        .unwrap();
    let sql: Vec<String> = db
        .chunks()
        .iter()
        .flat_map(|chunk| chunk.changes().unwrap())
        .flat_map(|change| to_sql(&change, crate::change::Mode::Rows).unwrap())
        .map(|statement| statement.sql)
        .collect();
    assert_eq!(
        sql,
        [
            "PRAGMA legacy_alter_table = ON",
            "ALTER TABLE u RENAME TO v",
            "PRAGMA legacy_alter_table = OFF",
            "ALTER TABLE t ADD COLUMN c",
            "DROP VIEW IF EXISTS w",
            "ALTER TABLE t RENAME COLUMN a TO b",
        ]
    );
}

#[test]
fn l_counters_of_autoincrement_are_recorded_when_a_statement_writes_them() {
    let db = TestDb::new(OWN);
    let connection = db.connection();
    connection
        .execute_batch(
            "INSERT INTO t(a) VALUES ('x'); UPDATE sqlite_sequence SET seq = 100 WHERE name = 't';
             INSERT INTO t(a) VALUES ('y'); DELETE FROM sqlite_sequence; INSERT INTO sqlite_sequence VALUES ('t', 500);
             CREATE TABLE d(i INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO d VALUES (3); DROP TABLE d;
             ALTER TABLE t RENAME TO u",
        )
        .unwrap();
    assert_eq!(
        db.take(),
        [
            "*t(1,x)",
            " [t,100]",
            "*t(101,y)",
            " [t]",
            " [t,500]",
            "CREATE TABLE d(i INTEGER PRIMARY KEY AUTOINCREMENT)",
            "+d(3)",
            "DROP TABLE d",
            "ALTER TABLE t RENAME TO u",
        ]
    );
}

#[test]
fn l_analyze_is_recorded_and_its_tables_are_not_written_otherwise() {
    let db = TestDb::new("CREATE TABLE t(a); CREATE INDEX i ON t(a); INSERT INTO t VALUES (1), (2)");
    let connection = db.connection();
    connection
        .execute_batch("ANALYZE; BEGIN; ANALYZE main.t; ROLLBACK; analyze t; PRAGMA optimize; REINDEX")
        .unwrap();
    assert_eq!(db.take(), ["ANALYZE", "analyze t"]);
    for sql in [
        "DELETE FROM sqlite_stat1",
        "INSERT INTO sqlite_stat1 VALUES ('t', 'i', '5 1')",
        "UPDATE sqlite_stat4 SET tbl = 'x'",
        "DROP TABLE sqlite_stat1",
    ] {
        refused(&connection, sql);
    }
    assert_eq!(db.take(), [] as [&str; 0]);
}

/// Every pragma of the library that is linked, and what becomes of setting it.
#[test]
fn l_every_pragma_of_sqlite_is_decided_for() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    let known: Vec<String> = connection
        .query("PRAGMA pragma_list", ())
        .unwrap()
        .into_iter()
        .map(|(name,): (String,)| name)
        .collect();
    assert!(known.len() > 60, "{known:?}");
    let decided: Vec<&str> = PRAGMAS.iter().map(|(name, _)| *name).collect();
    assert!(decided.is_sorted(), "the table is in order");
    for name in &known {
        assert!(
            decided.contains(&name.as_str()),
            "PRAGMA {name} is not decided for"
        );
    }
    for (name, setting) in PRAGMAS {
        if !known.iter().any(|known| known == name) {
            panic!("there is no PRAGMA {name}");
        }
        // A value that would mean something to each of them, and is not what is there.
        let value = match *name {
            "encoding" => "'UTF-16'",
            "journal_mode" => "DELETE",
            "locking_mode" => "EXCLUSIVE",
            "temp_store_directory" => "''",
            "hard_heap_limit" => "1000000000000",
            "soft_heap_limit" => "0",
            "index_info" | "index_list" | "index_xinfo" | "table_info" | "table_list" | "table_xinfo"
            | "foreign_key_list" | "foreign_key_check" => "t",
            _ => "1",
        };
        let sql = format!("PRAGMA {name} = {value}");
        let other = db.connection();
        let outcome = other.execute_batch(&sql);
        let recorded = db.take();
        match setting {
            Setting::Plain => {
                outcome.unwrap_or_else(|e| panic!("{sql}: {e}"));
                assert!(recorded.is_empty(), "{sql}: {recorded:?}");
            }
            Setting::Recorded => {
                outcome.unwrap();
                assert_eq!(recorded, [sql]);
            }
            Setting::Refused(allowed, _) => {
                assert!(
                    matches!(outcome, Err(Error::Unsupported { .. })),
                    "{sql}: {outcome:?}"
                );
                for value in *allowed {
                    other
                        .execute_batch(&format!("PRAGMA {name} = '{value}'"))
                        .unwrap();
                }
            }
            Setting::Never(_) => {
                for sql in [sql, format!("PRAGMA {name}"), format!("PRAGMA main.{name}(2)")] {
                    refused(&other, &sql);
                }
            }
        }
    }
    assert_eq!(db.take(), [] as [&str; 0]);
}

/// Was red: SQLite crashed in the hook when a value did not fit the memory that the pragma leaves it.
#[test]
fn the_pragma_that_limits_memory_is_refused_and_says_what_to_do() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    for sql in [
        "PRAGMA hard_heap_limit = 20000000",
        "PRAGMA main.hard_heap_limit(20000000)",
        "PRAGMA temp.hard_heap_limit = 20000000",
    ] {
        let refused = connection.execute_batch(sql).unwrap_err().to_string();
        assert!(refused.contains("limit the process instead"), "{sql}: {refused}");
    }
    connection.execute_batch("PRAGMA hard_heap_limit = 0").unwrap();
    let limit: Vec<(i64,)> = connection.query("PRAGMA hard_heap_limit", ()).unwrap();
    assert_eq!(limit, [(0,)]);
    connection
        .execute_batch("INSERT INTO t VALUES (zeroblob(30000000))")
        .unwrap();
}
