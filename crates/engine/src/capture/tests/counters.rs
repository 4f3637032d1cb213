//! The log is invisible: counters and rowids are those of stock SQLite running the same statements.

use super::*;

/// Runs the same statements with and without the recorder and compares all that a user can see after each.
#[track_caller]
fn same_as_stock(schema: &str, statements: &[&str]) {
    let (ours, stock) = (TestDb::new(schema), TestDb::new(schema));
    let (a, b) = (ours.connection(), stock.open(None));
    let total = (a.total_changes(), b.total_changes());
    for sql in statements {
        let run = |c: &Connection, total: u64| {
            let outcome = c.execute_batch(sql).map_err(|e| e.to_string());
            if c.is_transaction_lost() {
                c.execute_batch("ROLLBACK").unwrap();
            }
            let seen: Vec<Vec<Value>> = c
                .query("SELECT changes(), total_changes(), last_insert_rowid()", ())
                .unwrap();
            let mut seen = format!("{seen:?}");
            seen += &format!(
                " {} {} {}",
                c.changes(),
                c.total_changes() - total,
                c.last_insert_rowid()
            );
            (outcome, c.is_autocommit(), seen)
        };
        assert_eq!(run(&a, total.0), run(&b, total.1), "{sql}");
    }
    let tables: Vec<(String,)> = b
        .query("SELECT name FROM sqlite_schema WHERE type = 'table'", ())
        .unwrap();
    for (table,) in tables {
        let all = |c: &Connection| {
            c.query::<Vec<Value>>(&format!("SELECT * FROM \"{table}\""), ())
                .unwrap()
        };
        assert_eq!(all(&a), all(&b), "{table}");
    }
}

#[test]
fn counters_and_rowids_are_those_of_stock_sqlite() {
    same_as_stock(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE);
         CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
         CREATE TABLE n(a, c DEFAULT (changes()), tc DEFAULT (total_changes()), r DEFAULT (last_insert_rowid()));
         CREATE TABLE log(a, c, tc);
         CREATE TABLE big(id INTEGER PRIMARY KEY, a);
         CREATE TRIGGER tr AFTER INSERT ON t BEGIN
           INSERT INTO log VALUES (new.id, changes(), total_changes());
           UPDATE w SET v = v WHERE 0; INSERT INTO log VALUES (new.id, changes(), total_changes()); END",
        &[
            "INSERT INTO t VALUES (5, 'a')",
            "INSERT INTO n(a) VALUES (1)",
            "INSERT INTO t VALUES (6, 'b'), (7, 'c')",
            "INSERT INTO n(a) VALUES (2), (3), (4)",
            "SELECT 1",
            "UPDATE t SET a = a || 'x'",
            "UPDATE t SET a = 1 WHERE 0",
            "INSERT INTO n(a) SELECT changes()",
            "INSERT INTO w VALUES (1, 1), (2, 2)",
            "INSERT INTO n(a) SELECT changes() + total_changes()",
            "REPLACE INTO t VALUES (9, 'ax')",
            "INSERT INTO t VALUES (5, 'dup')",
            "INSERT OR FAIL INTO t VALUES (20, 'q'), (20, 'r')",
            "INSERT OR IGNORE INTO t VALUES (20, 'q'), (21, 's')",
            "BEGIN",
            "INSERT INTO t VALUES (30, 'A'), (31, 'B')",
            "SAVEPOINT s",
            "UPDATE t SET a = a || 'y' WHERE id > 29",
            "DELETE FROM w",
            "ROLLBACK TO s",
            "INSERT INTO n(a) VALUES (8)",
            "RELEASE s",
            "COMMIT",
            "SELECT changes()",
            "BEGIN; DELETE FROM t WHERE id = 31; ROLLBACK",
            "INSERT INTO big SELECT value, 'x' FROM generate_series(1, 5000)",
            "DELETE FROM big",
            "CREATE TABLE made AS SELECT id, a FROM t",
            "INSERT OR ROLLBACK INTO t VALUES (5, 'z')",
            "ALTER TABLE made ADD COLUMN c",
            "DELETE FROM made WHERE id > 6",
            "DROP TABLE made",
            "INSERT INTO t VALUES (NULL, 'end')",
        ],
    );
}

#[test]
fn what_a_commit_writes_or_undoes_does_not_count() {
    same_as_stock(
        "CREATE TABLE n(a); INSERT INTO n VALUES ('a'), ('b'), ('c');
         CREATE VIRTUAL TABLE f USING fts5(a);
         CREATE TABLE p(id INTEGER PRIMARY KEY);
         CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
        &[
            "PRAGMA foreign_keys = ON",
            "INSERT INTO f SELECT a FROM n",
            "UPDATE f SET a = a || 'x'",
            "BEGIN; INSERT INTO f SELECT a FROM n",
            "COMMIT",
            "INSERT INTO n VALUES (1), (2)",
            "INSERT INTO c VALUES (1), (2)",
            "SELECT 1",
            "INSERT INTO n VALUES (1), (2)",
            "BEGIN; INSERT INTO n VALUES (1), (2); INSERT INTO c VALUES (1)",
            "COMMIT",
            "ROLLBACK",
            "INSERT INTO c VALUES (3)",
        ],
    );
}

#[test]
fn a_statement_that_does_not_get_the_lock_counts_nothing() {
    let (ours, stock) = (TestDb::new("CREATE TABLE t(a)"), TestDb::new("CREATE TABLE t(a)"));
    let seen = [(&ours, ours.connection()), (&stock, stock.open(None))].map(|(db, connection)| {
        connection.busy_timeout(Duration::ZERO).unwrap();
        let before = connection.total_changes();
        connection.execute("INSERT INTO t VALUES (1), (2)", ()).unwrap();
        let other = db.plain();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let refused = connection.execute("DELETE FROM t", ()).unwrap_err().to_string();
        let counted: Vec<Vec<Value>> = connection.query("SELECT changes()", ()).unwrap();
        (
            refused,
            counted,
            connection.changes(),
            connection.total_changes() - before,
        )
    });
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_random_script_leaves_what_stock_sqlite_leaves() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut statements = vec!["PRAGMA foreign_keys = ON".to_owned()];
    let mut open = false;
    for _ in 0..400 {
        let (id, other) = (random.i64(1..40), random.i64(1..40));
        let or = ["", "OR FAIL", "OR IGNORE", "OR REPLACE", "OR ROLLBACK"][random.usize(0..5)];
        let statement = match random.u32(0..13) {
            0..3 => format!("INSERT {or} INTO p VALUES ({id}, {other}), ({other}, {id})"),
            3 => format!("INSERT {or} INTO c VALUES ({id}, {other})"),
            4 => format!("UPDATE {or} p SET id = id + 1 WHERE id >= {id}"),
            5 => format!("UPDATE c SET p = {other} WHERE id > {id}"),
            6 => format!("DELETE FROM p WHERE id = {id}"),
            7 => format!("INSERT {or} INTO w VALUES ({id}, {other}) ON CONFLICT DO UPDATE SET v = v + 1"),
            8 => "SAVEPOINT s".to_owned(),
            9 => "ROLLBACK TO s".to_owned(),
            10 => "RELEASE s".to_owned(),
            11 if open => ["COMMIT", "ROLLBACK"][random.usize(0..2)].to_owned(),
            _ => "BEGIN".to_owned(),
        };
        open = statement == "BEGIN" || open && !["COMMIT", "ROLLBACK"].contains(&statement.as_str());
        statements.push(statement);
    }
    statements.push("ROLLBACK".into());
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    same_as_stock(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, u UNIQUE);
         CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE w(k INTEGER PRIMARY KEY, v) WITHOUT ROWID;
         CREATE TABLE log(a);
         CREATE TRIGGER tr AFTER DELETE ON c BEGIN INSERT INTO log VALUES (old.id); END",
        &statements,
    );
}

#[test]
fn interrupting_ends_a_recorded_statement_and_leaves_the_connection_usable() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    let handle = connection.interrupt_handle();
    let mut insert = connection
        .prepare(
            "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) INSERT INTO t SELECT x FROM c",
        )
        .unwrap();
    let (started, waits) = std::sync::mpsc::channel();
    let worker = std::thread::spawn(move || {
        started.send(()).unwrap();
        insert.execute(()).unwrap_err()
    });
    waits.recv().unwrap();
    while !worker.is_finished() {
        handle.interrupt();
        std::thread::yield_now();
    }
    assert!(worker.join().unwrap().is_interrupted());
    connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    assert_eq!(db.take(), ["+t(1)"]);
}
