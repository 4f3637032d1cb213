//! Deadlines of a connection, and threads that must not wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{Replicas, Served, prefix, rows};
use partial_sync::{Connection, Database, Error, Result};
use partial_sync_transport::{Delayed, Fault, Faulty};

const WIDE: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 3000)
    insert into t select i, printf('%0400d', i) from n";
const ENDLESS: &str =
    "with recursive n(i) as (values (1) union all select i + 1 from n) select count(*) from n";
const SOON: Duration = Duration::from_millis(50);

fn value(conn: &Connection, id: i64) -> Result<i64> {
    conn.query_row("select length(v) from t where id = ?", (id,), |row| row.get(0))
}

fn soon() -> Option<Instant> {
    Some(Instant::now() + SOON)
}

#[test]
fn a_deadline_ends_a_page_fetch_a_computation_and_a_wait_for_a_lock() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(8192, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(value(&conn, 1).unwrap(), 400);

    remote.fail_from(1, Fault::Hang);
    conn.set_deadline(soon()).unwrap();
    let error = value(&conn, 2500).unwrap_err();
    assert!(error.is_interrupted() && error.page().is_some(), "{error:?}");

    conn.set_deadline(soon()).unwrap();
    let error = rows(&conn, ENDLESS).unwrap_err();
    assert!(error.is_interrupted(), "{error:?}");
    assert!(error.to_string().contains("deadline"), "{error}");

    let other = db.connection().unwrap();
    other
        .execute_batch("begin immediate; update t set v = 'x' where id = 1")
        .unwrap();
    conn.set_deadline(soon()).unwrap();
    let began = Instant::now();
    let error = conn.execute("update t set v = 'y' where id = 1", ()).unwrap_err();
    assert!(error.is_interrupted(), "{error:?}");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "it waited {:?}",
        began.elapsed()
    );
    other.execute_batch("commit").unwrap();

    conn.set_deadline(None).unwrap();
    remote.heal();
    assert_eq!(value(&conn, 1).unwrap(), 1);
    assert_eq!(value(&conn, 2999).unwrap(), 400);
}

#[test]
fn an_interrupt_ends_a_wait_for_a_lock() {
    let folder = tempfile::tempdir().unwrap();
    let db = Database::builder(folder.path().join("a.db")).connect().unwrap();
    let (one, two) = (db.connection().unwrap(), db.connection().unwrap());
    one.execute_batch("create table t (v); begin immediate").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| two.execute("insert into t values (1)", ()));
        while !waiting.is_finished() {
            two.interrupt();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(waiting.join().unwrap().unwrap_err().is_interrupted());
    });
    two.busy_timeout(Duration::ZERO).unwrap();
    match two.execute("insert into t values (1)", ()).unwrap_err() {
        Error::Sqlite(error) => assert_eq!(error.code(), 5, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_thread_that_must_not_wait_gets_what_is_here_and_a_clear_no_for_what_is_not() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let counting = served.counting();
    let db = replicas
        .builder("a.db")
        .remote_with(Arc::new(Delayed::new(counting.clone(), SOON)))
        .partial(prefix(8192, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(value(&conn, 1).unwrap(), 400);
    counting.clear();
    conn.execute_batch("begin; insert into t (id, v) values (10000, 'mine')")
        .unwrap();
    let requests = counting.requests();
    let mut statement = conn.prepare("select length(v) from t where id = ?").unwrap();
    let mut here =
        |id: i64| conn.without_waiting(100_000, || statement.query_row((id,), |row| row.get::<i64>(0)));
    assert_eq!(here(1).unwrap(), 400);
    assert!(matches!(here(1500).unwrap_err(), Error::WouldWait));
    assert_eq!(counting.requests(), requests, "nothing was asked for");
    // The transaction continues, with what it wrote.
    assert!(!conn.is_autocommit());
    assert_eq!(here(10_000).unwrap(), 4);
    assert_eq!(
        statement.query_row((1500,), |row| row.get::<i64>(0)).unwrap(),
        400
    );
    conn.execute_batch("commit").unwrap();

    // Nor does it compute for long, while another thread may.
    let error = conn.without_waiting(10_000, || rows(&conn, ENDLESS)).unwrap_err();
    assert!(matches!(error, Error::WouldWait), "{error:?}");
    let error = conn
        .without_waiting(10_000, || rows(&conn, "select nothing"))
        .unwrap_err();
    assert!(
        matches!(error, Error::Sqlite(_)),
        "errors stay what they are: {error:?}"
    );
    assert_eq!(value(&conn, 10_000).unwrap(), 4);
}
