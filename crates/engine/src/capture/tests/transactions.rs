//! What belongs together: savepoints, failed statements, rolled back and crashed transactions, two connections.

use super::*;

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a CHECK (a <> 'bad'))";

#[test]
fn a_rolled_back_transaction_records_nothing() {
    records(
        SCHEMA,
        "BEGIN; INSERT INTO t VALUES (1, 'a'); ROLLBACK; BEGIN; INSERT INTO t VALUES (2, 'b'); COMMIT",
        &["+t(2,b)"],
    );
}

#[test]
fn a_savepoint_rolled_back_takes_its_records_with_it() {
    records(
        SCHEMA,
        "SAVEPOINT a; INSERT INTO t VALUES (1, 'a'); SAVEPOINT b; INSERT INTO t VALUES (2, 'b'); SAVEPOINT c;
         INSERT INTO t VALUES (3, 'c'); RELEASE c; INSERT INTO t VALUES (4, 'd'); ROLLBACK TO b;
         INSERT INTO t VALUES (5, 'e'); RELEASE b; INSERT INTO t VALUES (6, 'f'); RELEASE a",
        &["+t(1,a)", "+t(5,e)", "+t(6,f)"],
    );
}

#[test]
fn a_log_made_inside_a_savepoint_survives_its_rollback() {
    records(
        SCHEMA,
        "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1, 'a'); SAVEPOINT b; ROLLBACK TO a;
         INSERT INTO t VALUES (2, 'b'); RELEASE a; COMMIT; INSERT INTO t VALUES (3, 'c')",
        &["+t(2,b)", "+t(3,c)"],
    );
}

#[test]
fn a_transaction_is_one_whatever_its_chunks() {
    let db = TestDb::new(SCHEMA);
    let connection = db.connection();
    connection
        .execute_batch(
            "INSERT INTO t VALUES (1, 'a'); BEGIN; INSERT INTO t VALUES (2, 'b'); SAVEPOINT x;
             INSERT INTO t VALUES (3, 'c'); RELEASE x; INSERT INTO t VALUES (4, 'd'); COMMIT",
        )
        .unwrap();
    let spans: Vec<_> = db
        .chunks()
        .iter()
        .map(|c| (c.txn.0, c.first.0, c.last.0))
        .collect();
    assert_eq!(spans, [(1, 1, 1), (2, 2, 2), (2, 3, 3), (2, 4, 4)]);
}

#[test]
fn a_failed_statement_records_nothing_and_the_transaction_goes_on() {
    let db = TestDb::new(SCHEMA);
    let connection = db.connection();
    assert!(
        connection
            .execute_batch("INSERT INTO t VALUES (1, 'a'), (2, 'bad')")
            .is_err()
    );
    assert!(connection.is_autocommit());
    connection
        .execute_batch("BEGIN; INSERT INTO t VALUES (3, 'c')")
        .unwrap();
    assert!(
        connection
            .execute_batch("INSERT INTO t VALUES (4, 'a'), (5, 'bad')")
            .is_err()
    );
    assert!(!connection.is_autocommit());
    connection
        .execute_batch("INSERT OR IGNORE INTO t VALUES (6, 'f'), (7, 'bad'); COMMIT")
        .unwrap();
    assert_eq!(db.take(), ["+t(3,c)", "+t(6,f)"]);
    let rows: Vec<(i64,)> = connection.query("SELECT id FROM t", ()).unwrap();
    assert_eq!(rows, [(3,), (6,)]);
}

#[test]
fn or_fail_keeps_and_records_what_came_before() {
    let db = TestDb::new("CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    let connection = db.connection();
    assert!(
        connection
            .execute_batch("INSERT OR FAIL INTO t VALUES (1, 'a'), (1, 'b')")
            .is_err()
    );
    connection.execute_batch("BEGIN").unwrap();
    assert!(
        connection
            .execute_batch("INSERT OR FAIL INTO t VALUES (2, 'a'), (2, 'b')")
            .is_err()
    );
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(db.take(), ["+t(1,a)", "+t(2,a)"]);
    let rows: Vec<(i64,)> = connection.query("SELECT id FROM t", ()).unwrap();
    assert_eq!(rows, [(1,), (2,)]);
}

#[test]
fn a_raised_failure_leaves_the_log_true_to_the_rows() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE seen(a);
                  CREATE TRIGGER s BEFORE INSERT ON t BEGIN INSERT INTO seen VALUES (new.id);
                    SELECT RAISE(FAIL, 'no') WHERE new.a = 'fail'; SELECT RAISE(ABORT, 'no') WHERE new.a = 'abort'; END";
    let plain = |script: [&str; 4]| {
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        for sql in script {
            let _ = plain.execute_batch(sql);
        }
        let mut rows = plain.prepare("SELECT a FROM seen ORDER BY 1").unwrap();
        let rows = rows.query_map([], |r| r.get::<_, i64>(0)).unwrap();
        rows.collect::<Result<Vec<_>, _>>().unwrap()
    };
    for (begin, commit) in [("", ""), ("BEGIN; INSERT INTO t VALUES (9, 'before')", "COMMIT")] {
        for how in ["fail", "abort"] {
            for rows in [format!("(1, '{how}')"), format!("(1, 'ok'), (2, '{how}')")] {
                let db = TestDb::new(schema);
                let connection = db.connection();
                connection.execute_batch(begin).unwrap();
                assert!(
                    connection
                        .execute_batch(&format!("INSERT INTO t VALUES {rows}"))
                        .is_err()
                );
                connection.execute_batch(commit).unwrap();
                let log = db.take();
                let seen: Vec<(i64,)> = connection.query("SELECT a FROM seen ORDER BY 1", ()).unwrap();
                let seen: Vec<i64> = seen.into_iter().map(|(a,)| a).collect();
                let script = [schema, begin, &format!("INSERT INTO t VALUES {rows}"), commit];
                assert_eq!(seen, plain(script), "{begin} {rows}");
                for table in ["t", "seen"] {
                    let rows: Vec<Vec<Value>> =
                        connection.query(&format!("SELECT * FROM {table}"), ()).unwrap();
                    let logged = log
                        .iter()
                        .filter(|l| l.starts_with(&format!("+{table}(")))
                        .count();
                    assert_eq!(rows.len(), logged, "{begin} {rows:?} {log:?}");
                }
            }
        }
    }
}

/// What triggers did before a failure stays after FAIL, whatever it was and whatever else they touched, and goes after ABORT.
#[test]
fn what_only_triggers_did_before_a_failure_is_kept_and_recorded_as_sqlite_keeps_it() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE one(k TEXT COLLATE NOCASE PRIMARY KEY, n REAL) WITHOUT ROWID;
        CREATE TABLE two(rowid, n, g AS (n || '!'), s AS (n + 1) STORED); CREATE TABLE three(x INTEGER PRIMARY KEY);
        INSERT INTO one VALUES ('a', 1), ('b', 2); INSERT INTO two(rowid, n) VALUES (1, 1), (2, 2); INSERT INTO three VALUES (1), (2);";
    let effects = [
        "INSERT INTO one VALUES ('c', 3)",
        "UPDATE one SET n = n + 1 WHERE k = 'A'",
        "UPDATE one SET k = 'B' WHERE k = 'b'",
        "DELETE FROM one WHERE k = 'a'",
        "UPDATE two SET n = n + 1",
        "DELETE FROM two WHERE n = 1",
        "INSERT INTO two(rowid, n) VALUES (3, 3)",
        "UPDATE three SET x = x + 10",
        "REPLACE INTO three VALUES (1)",
        "DELETE FROM three WHERE x < 3; INSERT INTO three VALUES (1), (2)",
        "SELECT 1",
        // More rows than are looked at.
        "INSERT INTO three MANY",
        "INSERT INTO three MANY; UPDATE one SET n = n",
        "UPDATE one SET n = n + 1; INSERT INTO three MANY; DELETE FROM three WHERE x > 999",
        "DELETE FROM three WHERE x < 3; INSERT INTO three MANY; DELETE FROM three WHERE x > 999; INSERT INTO three VALUES (1), (2)",
    ];
    const MANY: &str = "SELECT 1000 + 10 * a.value + b.value FROM json_each('[0,1,2,3,4,5,6,7,8,9]') a, \
                        json_each('[0,1,2,3,4,5,6,7,8,9]') b";
    for effect in effects {
        let effect = &effect.replace("MANY", MANY);
        for (how, or) in [
            ("FAIL", ""),
            ("ABORT", ""),
            ("FAIL", "OR FAIL "),
            ("ABORT", "OR FAIL "),
        ] {
            for (begin, commit) in [("", ""), ("BEGIN; INSERT INTO three VALUES (100)", "COMMIT")] {
                let trigger = format!(
                    "CREATE TRIGGER s BEFORE INSERT ON t BEGIN {effect}; SELECT RAISE({how}, 'no') WHERE new.a = 'no'; END"
                );
                let db = TestDb::new(&format!("{schema}{trigger}"));
                let plain = rusqlite::Connection::open_in_memory().unwrap();
                plain.execute_batch(&format!("{schema}{trigger}")).unwrap();
                let connection = db.connection();
                for sql in [begin, &format!("INSERT {or}INTO t VALUES (1, 'no')"), commit] {
                    let (here, there) = (connection.execute_batch(sql), plain.execute_batch(sql));
                    assert_eq!(here.is_ok(), there.is_ok(), "{sql}: {here:?} {there:?}");
                }
                for table in ["t", "one", "two", "three"] {
                    let sql = format!("SELECT * FROM {table} ORDER BY 1");
                    let here: Vec<Vec<Value>> = connection.query(&sql, ()).unwrap();
                    let mut there = plain.prepare(&sql).unwrap();
                    let count = there.column_count();
                    let there: Vec<Vec<Value>> = there
                        .query_map([], |r| {
                            (0..count).map(|i| Ok(Value::from(r.get_ref(i)?))).collect()
                        })
                        .unwrap()
                        .map(Result::unwrap)
                        .collect();
                    assert_eq!(here, there, "{effect} {how} {or} {begin}: {table}");
                }
                let log = db.take();
                let mine = log.iter().filter(|l| !l.contains("three(100)")).count();
                // What comes to nothing may be left out.
                let nothing = ["SELECT", "REPLACE", "DELETE FROM three WHERE x < 3"]
                    .iter()
                    .any(|e| effect.starts_with(e));
                let kept = how == "FAIL" && !nothing;
                assert_eq!(mine > 0, kept, "{effect} {how} {or} {begin}: {log:?}");
            }
        }
    }
}

#[test]
fn or_rollback_ends_the_transaction_and_forgets_it() {
    let db = TestDb::new("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let connection = db.connection();
    connection
        .execute_batch("BEGIN; INSERT INTO t VALUES (1)")
        .unwrap();
    assert!(
        connection
            .execute_batch("INSERT OR ROLLBACK INTO t VALUES (2), (1)")
            .is_err()
    );
    connection.execute_batch("ROLLBACK").unwrap();
    assert!(connection.is_autocommit());
    connection
        .execute_batch("BEGIN; INSERT INTO t VALUES (3); COMMIT")
        .unwrap();
    assert!(
        connection
            .execute_batch("INSERT OR ROLLBACK INTO t VALUES (4), (3)")
            .is_err()
    );
    assert_eq!(db.take(), ["+t(3)"]);
}

#[test]
fn a_commit_refused_by_a_deferred_key_can_be_mended() {
    let db = TestDb::new(
        "CREATE TABLE p(id INTEGER PRIMARY KEY);
         CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    );
    let connection = db.connection();
    connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    assert!(connection.execute_batch("INSERT INTO c VALUES (1)").is_err());
    assert!(connection.is_autocommit());
    connection
        .execute_batch("BEGIN; INSERT INTO c VALUES (2)")
        .unwrap();
    assert!(connection.execute_batch("COMMIT").is_err());
    connection
        .execute_batch("INSERT INTO p VALUES (2); COMMIT")
        .unwrap();
    assert_eq!(db.take(), ["+c(2)", "+p(2)"]);
}

#[test]
fn a_statement_with_returning_is_recorded_before_its_rows_are_read() {
    let db = TestDb::new(SCHEMA);
    let connection = db.connection();
    let mut insert = connection
        .prepare("INSERT INTO t VALUES (?, 'a'), (?, 'b') RETURNING id, a")
        .unwrap();
    let mut rows = insert.query((1, 2)).unwrap();
    assert_eq!(rows.next().unwrap().unwrap().get::<i64>("id").unwrap(), 1);
    assert_eq!(db.take(), ["+t(1,a)", "+t(2,b)"]);
    assert_eq!(rows.next().unwrap().unwrap().get::<String>(1).unwrap(), "b");
    assert!(rows.next().unwrap().is_none());
    drop(rows);
    assert_eq!(insert.query_row((3, 4), |row| row.get::<i64>(0)).unwrap(), 3);
    assert_eq!(db.take(), ["+t(3,a)", "+t(4,b)"]);
}

#[test]
fn a_write_while_a_query_is_being_read() {
    let db = TestDb::new("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)");
    let connection = db.connection();
    let mut select = connection.prepare("SELECT id FROM t ORDER BY id").unwrap();
    let mut rows = select.query(()).unwrap();
    assert!(rows.next().unwrap().is_some());
    connection.execute("DELETE FROM t WHERE id = 3", ()).unwrap();
    assert!(connection.execute("INSERT INTO t VALUES (4), (1)", ()).is_err());
    assert!(rows.next().unwrap().is_some());
    assert_eq!(db.take(), ["-t(3)"]);
}

#[test]
fn invariant_1_a_connection_lost_in_a_transaction_leaves_neither_rows_nor_records() {
    let db = TestDb::new(SCHEMA);
    let connection = db.connection();
    connection
        .execute_batch("INSERT INTO t VALUES (1, 'a'); BEGIN; INSERT INTO t VALUES (2, 'b'); SAVEPOINT x")
        .unwrap();
    // A copy of the files is what a crash would leave.
    let copy = tempfile::tempdir().unwrap();
    for name in ["a.db", "a.db-wal"] {
        std::fs::copy(db.folder.path().join(name), copy.path().join(name)).unwrap();
    }
    drop(connection);
    let crashed = TestDb {
        folder: copy,
        highest_used_id: Arc::default(),
    };
    for db in [db, crashed] {
        assert_eq!(db.take(), ["+t(1,a)"]);
        let rows: Vec<(i64,)> = db.connection().query("SELECT id FROM t", ()).unwrap();
        assert_eq!(rows, [(1,)]);
    }
}

#[test]
fn invariant_2_change_ids_only_go_up_with_two_connections_and_a_log_that_is_emptied() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connections = [db.connection(), db.connection()];
    let mut last = 0;
    for round in 0..20 {
        connections[round % 2]
            .execute("INSERT INTO t VALUES (?)", [round as i64])
            .unwrap();
        let id = db.log().last().unwrap().unwrap().0;
        assert!(id > last, "{id} after {last}");
        last = id;
        if round % 5 == 4 {
            db.highest_used_id.fetch_max(last, Ordering::SeqCst);
            let conn = db.plain();
            conn.execute_batch("BEGIN IMMEDIATE").unwrap();
            Log::new(&conn).delete_through(ChangeId(last)).unwrap();
            // As after a pull that found everything on the remote.
            conn.execute_batch("DROP TABLE main.partial_sync_changes")
                .unwrap();
            conn.execute_batch("COMMIT").unwrap();
        }
    }
    assert_eq!(last, 20);
}

#[test]
fn a_first_write_in_a_deferred_transaction_waits_for_the_other_writer() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let (a, b) = (db.connection(), db.connection());
    a.execute_batch("BEGIN").unwrap();
    let mut insert = a.prepare("INSERT INTO t VALUES (1)").unwrap();
    b.execute("INSERT INTO t VALUES (2)", ()).unwrap();
    // Had preparing taken a snapshot, this would fail with "database is locked".
    insert.execute(()).unwrap();
    a.execute_batch("COMMIT").unwrap();
    assert_eq!(db.take(), ["+t(2)", "+t(1)"]);
}

#[test]
fn a_large_transaction_is_written_in_pieces_that_belong_together() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection
        .execute_batch("BEGIN; INSERT INTO t SELECT zeroblob(1000) FROM generate_series(1, 3000); COMMIT")
        .unwrap();
    let chunks = db.chunks();
    assert!(
        chunks.len() > 2 && chunks.iter().all(|c| c.txn.0 == 1),
        "{}",
        chunks.len()
    );
    assert_eq!(chunks.iter().map(|c| c.count).sum::<u64>(), 3000);
}

#[test]
fn the_log_can_be_read_marked_and_mended() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let log = db.log();
    assert_eq!(
        (
            log.count().unwrap(),
            log.last().unwrap(),
            log.marker("m").unwrap()
        ),
        (0, None, None)
    );
    db.connection()
        .execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); COMMIT")
        .unwrap();
    let discard = |id| log.discard(&[ChangeId(id)].into()).unwrap();
    assert!(discard(9).is_empty());
    assert_eq!(line(&discard(2)[0].kind), "+t(2)");
    assert_eq!(
        (log.count().unwrap(), log.last().unwrap()),
        (1, Some(ChangeId(1)))
    );
    let chunks = db.chunks();
    assert_eq!(discard(1).len(), 1);
    assert_eq!(log.count().unwrap(), 0);
    let insert = |chunk: &Chunk| {
        let mut insert = db.plain().prepare_one(crate::log::INSERT).unwrap();
        chunk.bind(&mut insert).unwrap();
        insert.execute().unwrap();
    };
    chunks.iter().for_each(insert);
    assert_eq!(db.chunks(), chunks);
    assert_eq!(log.delete_through(ChangeId(1)).unwrap(), 1);
    // As release 0.1 left it: with the number of its discarded last change.
    let old = |chunk: &Chunk| Chunk {
        last: ChangeId(2),
        ..chunk.clone()
    };
    chunks.iter().map(old).for_each(|chunk| insert(&chunk));
    assert_eq!(log.delete_through(ChangeId(0)).unwrap(), 0);
    assert_eq!(log.delete_through(ChangeId(1)).unwrap(), 1);
    log.set_marker("m", Some(rusqlite::types::ValueRef::Integer(5)))
        .unwrap();
    assert_eq!(log.marker("m").unwrap(), Some(Value::Integer(5)));
    log.set_marker("m", None).unwrap();
    assert_eq!(log.marker("m").unwrap(), None);
}

#[test]
fn threads_that_share_a_connection_take_turns() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let connection = connection.clone();
            scope.spawn(move || {
                let mut insert = connection.prepare("INSERT INTO t VALUES (?)").unwrap();
                for i in 0..50 {
                    insert.execute([thread * 100 + i]).unwrap();
                    let _: i64 = connection
                        .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
                        .unwrap();
                }
            });
        }
    });
    let mut rows: Vec<(i64,)> = connection.query("SELECT a FROM t", ()).unwrap();
    let mut logged = db.take();
    assert_eq!(
        (rows.len(), logged.len(), connection.total_changes()),
        (200, 200, 200)
    );
    logged.sort();
    rows.sort_by_key(|(a,)| format!("+t({a})"));
    assert_eq!(
        logged,
        rows.iter().map(|(a,)| format!("+t({a})")).collect::<Vec<_>>()
    );
}

#[test]
fn writers_on_connections_of_their_own_number_their_changes_without_gaps_or_doubles() {
    let db = TestDb::new("CREATE TABLE t(a)");
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let connection = db.connection();
            scope.spawn(move || {
                connection.busy_timeout(Duration::from_secs(60)).unwrap();
                for i in 0..50 {
                    connection
                        .execute("INSERT INTO t VALUES (?)", [thread * 100 + i])
                        .unwrap();
                }
            });
        }
    });
    let ids: Vec<i64> = db
        .chunks()
        .iter()
        .flat_map(|chunk| chunk.changes().unwrap())
        .map(|change| change.id.0)
        .collect();
    assert_eq!(ids, (1..=200).collect::<Vec<_>>());
}

#[test]
fn execute_counts_the_rows_of_its_statement_alone() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    let counts: Vec<u64> = [
        "INSERT INTO t VALUES (1), (2)",
        "BEGIN",
        "DELETE FROM t WHERE a = 1",
        "COMMIT",
        "UPDATE t SET a = 1 WHERE 0",
    ]
    .into_iter()
    .map(|sql| connection.execute(sql, ()).unwrap())
    .collect();
    assert_eq!(counts, [2, 0, 1, 0, 0]);
}

/// Was red: SQLite emptied the database, on a connection that had read nothing before, and nothing of that was recorded.
#[test]
fn invariant_1_a_begin_within_a_savepoint_does_not_empty_the_database() {
    for begin in [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "begin exclusive",
        "/* now */ BEGIN IMMEDIATE",
    ] {
        let db = TestDb::new("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
        let connection = db.connection();
        connection.execute_batch("SAVEPOINT s").unwrap();
        let refused = connection.execute_batch(begin).unwrap_err().to_string();
        assert_eq!(refused, "cannot start a transaction within a transaction");
        connection.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
        assert_eq!(
            connection.query::<(i64,)>("SELECT a FROM t", ()).unwrap(),
            [(1,)],
            "{begin}"
        );
        assert!(db.take().is_empty());
    }
}

/// A BEGIN IMMEDIATE within a savepoint fails for the same reason as in stock SQLite where another connection writes.
#[test]
fn a_begin_within_a_savepoint_waits_for_the_lock_as_sqlite_does() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let (connection, other) = (db.connection(), db.plain());
    connection
        .execute_batch("PRAGMA busy_timeout = 0; SAVEPOINT s")
        .unwrap();
    other
        .execute_batch("PRAGMA busy_timeout = 0; BEGIN IMMEDIATE")
        .unwrap();
    let refused = connection
        .execute_batch("BEGIN IMMEDIATE")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("locked"), "{refused}");
    other.execute_batch("COMMIT").unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    let refused = other.execute_batch("BEGIN IMMEDIATE").unwrap_err().to_string();
    assert!(refused.contains("locked"), "{refused}");
    connection.execute_batch("ROLLBACK").unwrap();
    other.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
}

/// Was red: what came after it on the connection was in a transaction that nobody had begun and nobody would commit.
#[test]
fn a_schema_change_of_which_nothing_can_be_asked_leaves_no_transaction() {
    let limit = rusqlite::limits::Limit::SQLITE_LIMIT_SQL_LENGTH;
    for sql in ["CREATE TABLE u(a)", "PRAGMA user_version = 7"] {
        let db = TestDb::new("CREATE TABLE t(a)");
        let connection = db.connection();
        let mut change = connection.prepare(sql).unwrap();
        let set = |length| {
            connection
                .conn()
                .with_rusqlite(|c| c.set_limit(limit, length))
                .unwrap()
        };
        // What asks is longer.
        let before = set(10);
        change.execute(()).unwrap_err();
        set(before);
        assert!(connection.is_autocommit(), "{sql}");
        connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        assert_eq!(db.take(), ["+t(1)"]);
    }
}
