//! Statement hydration over real HTTP: a cold query takes one request unless `prefetch` is false, and nothing depends on it.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use crate::support::*;
use partial_sync::{Database, PartialSync};
use partial_sync_server::{
    Server,
    pages::{QueryError, QueryLimits, QueryRunner, RevisionReader, Touched},
};
use partial_sync_transport::{Counting, HttpRemote};

const ROWS: &str = "create table t(id integer primary key, k text, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
    insert into t select x, printf('key %06d', x * 7919 % 20000), zeroblob(300) from c;
    create index tk on t(k);
    create table other(id integer primary key, t_id integer);
    insert into other select id, (id * 31) % 20000 + 1 from t where id % 50 = 0;";

fn open(replicas: &Replicas, name: &str, remote: &Arc<Counting>) -> Database {
    open_with(replicas, name, remote, None)
}

fn open_with(replicas: &Replicas, name: &str, remote: &Arc<Counting>, prefetch: Option<bool>) -> Database {
    let partial = PartialSync {
        prefetch,
        ..prefix(64 * 1024, 16 * 1024)
    };
    replicas
        .builder(name)
        .remote_with(remote.clone())
        .partial(partial)
        .connect()
        .unwrap()
}

#[test]
fn a_cold_query_takes_one_request_whatever_it_looks_up() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    for (n, sql) in [
        "select k from t where id = 12345",
        "select id, length(pad) from t where k between 'key 004000' and 'key 004100' order by k",
        "select count(*), max(t.k) from other join t on t.id = other.t_id",
        "select k, count(*) over (order by k) from t where id in (5, 7000, 19999)",
        "with a as (select t_id from other where id < 3000) select sum(length(pad)) from t where id in a",
    ]
    .into_iter()
    .enumerate()
    {
        let remote = served.counting();
        let db = open(&replicas, &format!("{n}.db"), &remote);
        let conn = db.connection().unwrap();
        // The schema is in the prefix; nothing but the query itself is to be counted.
        rows(&conn, "select count(*) from sqlite_schema").unwrap();
        assert!(db.settle(Duration::from_secs(10)));
        remote.clear();
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap(),
            "{sql}"
        );
        assert_eq!(remote.requests(), 1, "{sql}");
        assert!(db.settle(Duration::from_secs(10)));
        assert!(remote.ids_delivered_twice().is_empty(), "{sql}");
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap(),
            "{sql}"
        );
        assert_eq!(remote.requests(), 1, "{sql}: asked again for what is here");
    }
}

#[test]
fn with_prefetch_false_no_statement_leaves_and_each_absent_segment_is_a_request() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let sql = "select id from t where k = 'key 004000'";
    for (prefetch, requests) in [(Some(false), 2), (None, 1), (Some(true), 1)] {
        let remote = served.counting();
        let db = open_with(&replicas, &format!("{prefetch:?}.db"), &remote, prefetch);
        let conn = db.connection().unwrap();
        rows(&conn, "select count(*) from sqlite_schema").unwrap();
        remote.clear();
        rows(&conn, sql).unwrap();
        assert!(db.settle(Duration::from_secs(10)));
        let asked = remote.page_requests();
        assert_eq!(asked.len(), requests, "{prefetch:?}");
        let sent = asked.iter().any(|request| request.query.is_some());
        assert_eq!(sent, prefetch != Some(false));
        drop((conn, db));
        // It keeps what it was made with.
        let db = replicas
            .builder(&format!("{prefetch:?}.db"))
            .remote_with(remote.clone())
            .connect()
            .unwrap();
        remote.clear();
        rows(&db.connection().unwrap(), "select pad from t where id = 15000").unwrap();
        let sent = remote
            .page_requests()
            .iter()
            .any(|request| request.query.is_some());
        assert_eq!(sent, prefetch != Some(false));
    }
}

/// 16 MiB came along, whatever was read.
#[test]
fn who_reads_the_first_rows_of_a_large_table_pays_for_little_and_who_reads_all_needs_few_requests() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    rows(&conn, "select count(*) from sqlite_schema").unwrap();
    remote.clear();
    let sql = "select id, pad from t";
    let mut statement = conn.prepare(sql).unwrap();
    let mut first = statement.query(()).unwrap();
    for _ in 0..10 {
        first.next().unwrap().unwrap();
    }
    assert!(db.settle(Duration::from_secs(10)));
    let delivered = remote.ids_delivered().len();
    println!("{delivered} pages for 10 rows");
    assert!((1024..=1100).contains(&delivered), "{delivered} pages");
    drop(first);
    drop(statement);
    assert_eq!(
        rows(&conn, "select count(id), sum(length(pad)) from t not indexed").unwrap(),
        ["Integer(20000)|Integer(6000000)"]
    );
    println!("{} requests", remote.requests());
    assert!(remote.requests() <= 3, "{}", remote.requests());
    assert!(remote.ids_delivered_twice().is_empty());
}

#[test]
fn a_statement_that_the_remote_cannot_run_is_answered_page_by_page() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "create temp table wanted(id); insert into wanted values (3), (9000), (18000);
         create table mine(id integer primary key); insert into mine values (12000)",
    )
    .unwrap();
    let answer = rows(
        &conn,
        "select k from t where id in (select id from wanted union select id from mine) order by id",
    );
    let sql = "select k from t where id in (3, 9000, 12000, 18000) order by id";
    assert_eq!(answer.unwrap(), stock_rows(&served.sqlite(), sql).unwrap());
    // A write is never sent, and finds its pages all the same.
    conn.execute("update t set pad = null where k = 'key 000700'", ())
        .unwrap();
    assert!(
        remote
            .page_requests()
            .iter()
            .all(|r| r.query.as_ref().is_none_or(|q| !q.contains("update")))
    );
    db.push().unwrap();
    db.pull().unwrap();
    let sql = "select count(*) from t where pad is null";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
}

#[test]
fn two_threads_with_the_same_cold_query_share_one_request() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let sql = "select count(*), sum(length(pad)), max(k) from t";
    let expected = stock_rows(&served.sqlite(), sql).unwrap();
    let conns: Vec<_> = (0..6).map(|_| db.connection().unwrap()).collect();
    remote.clear();
    std::thread::scope(|scope| {
        for conn in &conns {
            scope.spawn(|| assert_eq!(rows(conn, sql).unwrap(), expected));
        }
    });
    assert!(db.settle(Duration::from_secs(10)));
    assert!(remote.ids_delivered_twice().is_empty());
}

/// Runs a query when the test says so.
struct Slow(Mutex<mpsc::Receiver<()>>);

impl QueryRunner for Slow {
    fn run(&self, _: &RevisionReader, _: &str, _: &QueryLimits, _: &Arc<Touched>) -> Result<(), QueryError> {
        let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(60));
        Err(QueryError::NotASelect)
    }
}

#[test]
fn invariant_10_a_remote_that_thinks_too_long_about_a_statement_is_asked_for_the_page_alone() {
    let made = Served::new(ROWS);
    let (release, wait) = mpsc::channel();
    let copy = made.folder.path().join("slow.db");
    made.execute(&format!("vacuum into '{}'", copy.display()));
    let server = Server::builder(&copy)
        .queries(Slow(Mutex::new(wait)))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let replicas = Replicas::new();
    let remote = Arc::new(Counting::new(Arc::new(
        HttpRemote::builder(server.url()).build().unwrap(),
    )));
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    let sql = "select k from t where id = 15000";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&made.sqlite(), sql).unwrap()
    );
    drop(release);
    drop((conn, db));
    server.shutdown_blocking();
}
