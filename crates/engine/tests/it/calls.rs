//! What a call returned is what happened: statements that write, and transactions that are gone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync::{Connection, Error, Result};
use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};

use crate::support::{Replicas, Served, prefix, rows};

const SCHEMA: &str = "create table p(id integer primary key);
    create table c(id integer primary key, p references p deferrable initially deferred);
    create table t(id integer primary key, v text)";

/// A local database and a replica, each with two connections.
fn both(test: impl Fn(&Connection, &Connection)) {
    let served = Served::new(SCHEMA);
    let replicas = Replicas::new();
    let local = replicas.builder("local.db").connect().unwrap();
    local.connection().unwrap().execute_batch(SCHEMA).unwrap();
    let replica = replicas
        .builder("replica.db")
        .remote(served.url())
        .connect()
        .unwrap();
    for db in [local, replica] {
        test(&db.connection().unwrap(), &db.connection().unwrap());
    }
}

fn count(conn: &Connection, table: &str) -> i64 {
    conn.query_row(&format!("select count(*) from {table}"), (), |row| row.get(0))
        .unwrap()
}

#[test]
fn b1_a_statement_that_writes_is_committed_before_its_first_row() {
    both(|conn, other| {
        for (n, sql) in [
            "insert into t values (1, 'a'), (2, 'b') returning id",
            "update t set v = 'c' returning id",
            "delete from t where id > 0 returning id",
        ]
        .iter()
        .enumerate()
        {
            let mut statement = conn.prepare(sql).unwrap();
            let mut rows = statement.query(()).unwrap();
            assert_eq!(rows.next().unwrap().unwrap().get::<i64>(0).unwrap(), 1);
            let seen = self::rows(other, "select id, v from t").unwrap();
            let expected: &[&str] = match n {
                0 => &["Integer(1)|Text(\"a\")", "Integer(2)|Text(\"b\")"],
                1 => &["Integer(1)|Text(\"c\")", "Integer(2)|Text(\"c\")"],
                _ => &[],
            };
            assert_eq!(seen, expected, "{sql}");
            assert_eq!(rows.next().unwrap().unwrap().get::<i64>(0).unwrap(), 2);
            rows.finish().unwrap();
            statement.finalize().unwrap();
        }
        let mut pragma = conn.prepare("pragma user_version = 7").unwrap();
        assert!(!pragma.step().unwrap());
        assert_eq!(rows(other, "pragma user_version").unwrap(), ["Integer(7)"]);
    });
}

#[test]
fn b1_a_commit_that_fails_fails_before_the_first_row() {
    both(|conn, other| {
        conn.execute_batch("pragma foreign_keys = on").unwrap();
        let mut statement = conn
            .prepare("insert into c(p) values (7), (8) returning id")
            .unwrap();
        let mut rows = statement.query(()).unwrap();
        match rows.next().unwrap_err() {
            Error::Sqlite(e) => assert_eq!(e.extended_code(), 787, "{e}"),
            other => panic!("{other:?}"),
        }
        drop(rows);
        statement.finalize().unwrap();
        assert!(conn.is_autocommit());
        assert_eq!(count(other, "c"), 0);
        let one = conn.query_row("insert into c(p) values (7) returning id", (), |row| {
            row.get::<i64>(0)
        });
        assert!(one.is_err(), "{one:?}");
    });
}

#[test]
fn b1_the_rows_of_a_statement_that_writes_need_little_memory_and_are_all_there() {
    both(|conn, other| {
        let sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000)
                   insert into t select i, printf('%04000d', i) from n returning id, v";
        let mut statement = conn.prepare(sql).unwrap();
        let mut rows = statement.query(()).unwrap();
        for id in 1..=4000_i64 {
            let row = rows.next().unwrap().unwrap();
            assert_eq!(row.get::<i64>(0).unwrap(), id);
            assert_eq!(row.get::<String>(1).unwrap(), format!("{id:04000}"));
        }
        assert!(rows.next().unwrap().is_none());
        drop(rows);
        assert_eq!(count(other, "t"), 4000);
    });
}

/// Loses a transaction on this connection.
type Lose = fn(&Connection) -> Result<()>;

fn by_or_rollback(conn: &Connection) -> Result<()> {
    conn.execute_batch("insert or rollback into t values (1, 'again')")
}

fn by_a_deadline(conn: &Connection) -> Result<()> {
    conn.set_deadline(Some(Instant::now() + Duration::from_millis(20)))?;
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n) insert into t select i + 10, i from n";
    let failed = conn.execute_batch(sql);
    conn.set_deadline(None)?;
    failed
}

fn by_an_interrupt(conn: &Connection) -> Result<()> {
    let handle = conn.interrupt_handle();
    let (done, stop) = std::sync::mpsc::channel::<()>();
    let interrupts = std::thread::spawn(move || {
        while stop
            .recv_timeout(Duration::from_millis(5))
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            handle.interrupt();
        }
    });
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n) insert into t select i + 10, i from n";
    let failed = conn.execute_batch(sql);
    drop(done);
    interrupts.join().unwrap();
    failed
}

#[test]
fn b3_a_transaction_that_was_rolled_back_takes_nothing_until_it_is_ended() {
    both(|conn, other| {
        for lose in [by_or_rollback as Lose, by_a_deadline, by_an_interrupt] {
            for begin in ["begin", "begin immediate", "savepoint a; savepoint b"] {
                for end in ["rollback", "commit"] {
                    conn.execute_batch(begin).unwrap();
                    conn.execute_batch("insert into t values (1, 'one')").unwrap();
                    let first = lose(conn).unwrap_err();
                    assert!(!first.is_transaction_lost(), "{first}");
                    assert!(!conn.is_autocommit() && conn.is_transaction_lost());
                    for sql in [
                        "insert into t values (2, 'two')",
                        "select 1",
                        "begin",
                        "savepoint c",
                        "release b",
                        "create table u(x)",
                        "pragma user_version = 1",
                    ] {
                        let error = conn.execute_batch(sql).unwrap_err();
                        assert!(error.is_transaction_lost(), "{sql}: {error}");
                        assert!(error.to_string().contains(&first.to_string()), "{error}");
                    }
                    conn.execute_batch("rollback to b").unwrap();
                    assert!(conn.is_transaction_lost());
                    match (end, conn.execute_batch(end)) {
                        ("rollback", Ok(())) => {}
                        ("commit", Err(error)) => assert!(error.is_transaction_lost()),
                        (_, ended) => panic!("{end}: {ended:?}"),
                    }
                    assert!(conn.is_autocommit() && !conn.is_transaction_lost());
                    assert_eq!(count(other, "t"), 0);
                }
            }
        }
        conn.execute_batch("begin; insert into t values (1, 'one'); commit")
            .unwrap();
        assert_eq!(count(other, "t"), 1);
    });
}

#[test]
fn b3_a_savepoint_that_began_the_transaction_ends_it_and_no_other_does() {
    both(|conn, other| {
        conn.execute_batch("savepoint a; savepoint \"b\"; savepoint a; insert into t values (1, 'one')")
            .unwrap();
        by_or_rollback(conn).unwrap_err();
        for sql in ["release a", "release savepoint B", "select 1"] {
            assert!(conn.execute_batch(sql).unwrap_err().is_transaction_lost());
            assert!(!conn.is_autocommit(), "{sql}");
        }
        assert!(conn.execute_batch("release a").unwrap_err().is_transaction_lost());
        assert!(conn.is_autocommit());
        conn.execute_batch(
            "savepoint a; savepoint b; rollback to a; insert into t values (2, 'two'); release a",
        )
        .unwrap();
        assert!(conn.is_autocommit());
        assert_eq!(count(other, "t"), 1);
    });
}

#[test]
fn b3_a_transaction_object_is_rolled_back_and_says_so() {
    both(|conn, other| {
        let transaction = conn.transaction().unwrap();
        transaction
            .execute("insert into t values (1, 'one')", ())
            .unwrap();
        by_or_rollback(&transaction).unwrap_err();
        let error = transaction
            .execute("insert into t values (2, 'two')", ())
            .unwrap_err();
        assert!(error.is_transaction_lost(), "{error}");
        assert!(transaction.commit().unwrap_err().is_transaction_lost());
        {
            let transaction = conn.transaction().unwrap();
            transaction
                .execute("insert into t values (1, 'one')", ())
                .unwrap();
            by_or_rollback(&transaction).unwrap_err();
        }
        assert!(conn.is_autocommit());
        let transaction = conn.transaction().unwrap();
        transaction
            .execute("insert into t values (3, 'three')", ())
            .unwrap();
        transaction.commit().unwrap();
        assert_eq!(rows(other, "select id from t").unwrap(), ["Integer(3)"]);
    });
}

#[test]
fn b3_a_transaction_that_is_undone_while_an_interrupt_lasts_is_over() {
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";
    both(|conn, other| {
        for broken in ["select * from t", "insert into t values (2, 'two')"] {
            let mut unread = conn.prepare(endless).unwrap();
            assert!(unread.step().unwrap());
            let transaction = conn.transaction().unwrap();
            transaction
                .execute("insert into t values (1, 'one')", ())
                .unwrap();
            // It lasts as long as the query is unread.
            conn.interrupt();
            assert!(transaction.execute_batch(broken).unwrap_err().is_interrupted());
            drop(transaction);
            assert!(conn.is_autocommit(), "{broken}");
            drop(unread);
            conn.execute("insert into t values (3, 'three')", ()).unwrap();
            assert_eq!(rows(other, "select id from t").unwrap(), ["Integer(3)"]);
            conn.execute("delete from t", ()).unwrap();
        }
    });
}

#[test]
fn b3_a_transaction_that_lost_a_page_pushes_nothing_of_what_follows() {
    let served = Served::new(
        "create table w(id integer primary key, v text);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000)
         insert into w select i, printf('%0400d', i) from n",
    );
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let page = "select length(v) from w where id = 1500";
    conn.execute_batch("begin; insert into w values (10000, 'mine')")
        .unwrap();
    faulty.fail_from(1, Fault::Fail(RemoteErrorKind::Refused));
    assert!(conn.execute_batch(page).unwrap_err().page().is_some());
    faulty.heal();
    let error = conn
        .execute_batch("insert into w values (10001, 'mine too')")
        .unwrap_err();
    assert!(error.is_transaction_lost(), "{error}");
    assert!(conn.execute_batch("commit").unwrap_err().is_transaction_lost());
    conn.execute_batch("insert into w values (10002, 'alone')")
        .unwrap();
    db.push().unwrap();
    let pushed: Vec<String> =
        crate::support::stock_rows(&served.sqlite(), "select id from w where id >= 10000").unwrap();
    assert_eq!(pushed, ["Integer(10002)"]);
}

#[test]
fn b3_an_interrupt_beside_an_open_query_leaves_no_transaction_that_nobody_began() {
    use rusqlite::functions::FunctionFlags;
    both(|conn, other| {
        let handle = conn.interrupt_handle();
        conn.create_scalar_function("stop", 1, FunctionFlags::default(), move |context| {
            // SQLite looks at it when the next statement begins: those that record the change, commit it or undo it.
            handle.interrupt();
            context.get::<i64>(0)
        })
        .unwrap();
        conn.execute_batch("insert into t values (1, 'a'), (2, 'b'), (3, 'c')")
            .unwrap();
        for sql in [
            "insert into t values (stop(4), 'd')",
            "insert into t values (stop(4), 'd') returning id",
            "create table extra as select stop(1) as x",
            "pragma user_version = 3; insert into t values (stop(4), 'd')",
        ] {
            let mut query = conn.prepare("select id from t").unwrap();
            let mut rows = query.query(()).unwrap();
            rows.next().unwrap().unwrap();
            let done = conn.execute_batch(sql);
            let before = count(other, "t");
            assert_eq!(before == 4, done.is_ok(), "{sql}: {done:?}");
            assert!(
                conn.is_autocommit() && !conn.is_transaction_lost(),
                "{sql}: {done:?}"
            );
            // Said to be done by a call of its own: so it is committed.
            if conn.execute_batch("insert into t values (9, 'later')").is_ok() {
                assert_eq!(count(other, "t"), before + 1, "{sql}");
            }
            drop(rows);
            drop(query);
            conn.execute_batch("delete from t where id > 3; drop table if exists extra")
                .unwrap();
            assert_eq!(count(other, "t"), 3);
        }
    });
}

#[test]
fn b3_a_transaction_whose_rollback_was_interrupted_is_rolled_back_before_the_next_statement() {
    both(|conn, other| {
        conn.execute_batch("insert into t values (1, 'a'), (2, 'b')")
            .unwrap();
        let transaction = conn.transaction().unwrap();
        transaction
            .execute_batch("insert into t values (3, 'c')")
            .unwrap();
        let mut query = conn.prepare("select id from t").unwrap();
        let mut rows = query.query(()).unwrap();
        rows.next().unwrap().unwrap();
        conn.interrupt_handle().interrupt();
        drop(transaction);
        assert!(conn.is_autocommit());
        for sql in ["insert into t values (4, 'd')", "commit", "begin", "select 1"] {
            let refused = conn.execute_batch(sql).unwrap_err();
            assert!(refused.is_interrupted(), "{sql}: {refused}");
        }
        assert!(rows.next().unwrap_err().is_interrupted());
        drop(rows);
        conn.execute_batch("insert into t values (5, 'e')").unwrap();
        assert!(conn.is_autocommit());
        assert_eq!(rows_of(other), [1, 2, 5]);
    });
}

fn rows_of(conn: &Connection) -> Vec<i64> {
    let rows = conn.query::<(i64,)>("select id from t order by id", ()).unwrap();
    rows.into_iter().map(|(id,)| id).collect()
}

#[test]
fn b3_what_could_not_be_undone_after_a_savepoint_is_undone_before_the_next_statement() {
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n";
    both(|conn, other| {
        conn.execute_batch(
            "begin; insert into t values (1, 'before'); savepoint part; insert into t values (2, 'part')",
        )
        .unwrap();
        let mut unread = conn.prepare(endless).unwrap();
        assert!(unread.step().unwrap());
        let refused = ["commit", "insert into t values (3, 'refused')", "rollback"];
        let mut refused = refused.map(|sql| conn.prepare(sql).unwrap());
        // It lasts as long as the query is unread.
        conn.interrupt();
        conn.undo_after("part");
        for statement in &mut refused {
            let error = statement.execute(()).unwrap_err();
            assert!(error.is_interrupted(), "{statement:?}: {error}");
            assert!(
                error.to_string().contains("end that query"),
                "{statement:?}: {error}"
            );
        }
        drop(unread);
        conn.execute_batch("insert into t values (4, 'after')").unwrap();
        assert!(
            conn.execute_batch("release part").is_err(),
            "the savepoint is gone"
        );
        conn.execute_batch("commit").unwrap();
        assert_eq!(
            rows(other, "select id from t").unwrap(),
            ["Integer(1)", "Integer(4)"]
        );

        // It is not done in another transaction, nor where there is no such savepoint.
        conn.execute_batch("begin; savepoint part; insert into t values (5, 'lost')")
            .unwrap();
        let mut unread = conn.prepare(endless).unwrap();
        assert!(unread.step().unwrap());
        conn.interrupt();
        conn.undo_after("part");
        drop(unread);
        conn.undo_transaction();
        conn.execute_batch("begin; savepoint part; insert into t values (6, 'kept')")
            .unwrap();
        conn.undo_after("another");
        conn.execute_batch("commit").unwrap();
        conn.undo_after("part");
        assert_eq!(
            rows(other, "select id from t").unwrap(),
            ["Integer(1)", "Integer(4)", "Integer(6)"]
        );
    });
}
