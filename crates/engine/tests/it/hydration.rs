//! Statement hydration over real HTTP: a cold query takes one request unless `prefetch` is false, and nothing depends on it.

use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use crate::support::*;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use partial_sync::{Database, PartialSync};
use partial_sync_core::PageId;
use partial_sync_server::{
    Server,
    pages::{QueryError, QueryLimits, QueryRunner, RevisionReader, SnapshotQueries, Touched},
};
use partial_sync_transport::{
    Counting, HttpRemote, PageSelector, PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
    wire::{Packer, PageEncoding},
};
use rusqlite::{functions::FunctionFlags, types::Value};

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

/// About 26 MiB of texts, more than the first two answers to a scan bring.
const TEXTS: &str = "create table t(id integer primary key, k integer, body text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 60000)
    insert into t select x, x * 7919 % 60013, printf('%d a message of %d words, the %d. of its kind, ', x, x % 97, x / 7) || hex(randomblob(150)) from c;
    create index tk on t(k);";

/// The pages of a tree as one answer would have them.
fn packed(served: &Served, tree: &str) -> usize {
    let sqlite = served.sqlite();
    let sql = "select pgno - 1, data from sqlite_dbpage where pgno in (select pageno from dbstat where name = ?) order by 1";
    let mut select = sqlite.prepare(sql).unwrap();
    let pages = select.query_map([tree], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get::<_, Vec<u8>>(1)?.into()))
    });
    let pages: Vec<(u64, Bytes)> = pages.unwrap().map(Result::unwrap).collect();
    let mut packed = BytesMut::new();
    let mut packer = Packer::new(PageEncoding::ZstdBlocks);
    packer.pack(&pages, &mut packed).unwrap();
    packed.len()
}

/// Was red, by what was on its way when the client left an answer that it had enough of: a block at least, and over a long line
/// half of the table.
#[test]
fn a_cold_scan_takes_three_requests_and_no_byte_that_is_sent_is_lost() {
    let served = Served::new(TEXTS);
    let replicas = Replicas::new();
    for (name, prefetch, sql) in [
        (
            "a.db",
            None,
            "select count(*), sum(length(body)) from t not indexed",
        ),
        (
            "b.db",
            Some(true),
            "select count(*), max(body) from (select * from t order by id desc)",
        ),
    ] {
        let http = served.http();
        let remote = Arc::new(Counting::new(http.clone()));
        let db = open_with(&replicas, name, &remote, prefetch);
        let conn = db.connection().unwrap();
        rows(&conn, "select count(*) from sqlite_schema").unwrap();
        assert!(db.settle(Duration::from_secs(10)));
        remote.clear();
        let (before, received) = (served.sent(), http.transferred().bytes_received);
        let expected = stock_rows(&served.sqlite(), sql).unwrap();
        assert_eq!(rows(&conn, sql).unwrap(), expected);
        assert!(db.settle(Duration::from_secs(60)));
        let sent = served.sent();
        let (pages, bytes) = (sent.0 - before.0, sent.1 - before.1);
        let at_once = packed(&served, "t");
        println!(
            "{} requests, {pages} pages, {bytes} bytes; {at_once} at once",
            remote.requests()
        );
        assert!(remote.requests() <= 3, "{} requests", remote.requests());
        assert_eq!(pages, remote.ids_delivered().len() as u64);
        assert!(remote.ids_delivered_twice().is_empty());
        assert_eq!(bytes, http.transferred().bytes_received - received);
        assert!(
            bytes as f64 <= 1.05 * at_once as f64,
            "{bytes} bytes, {at_once} at once"
        );
    }
}

/// How many pages may come along, of the requests that name a statement.
fn told(remote: &Counting) -> Vec<Option<u64>> {
    let requests = remote.page_requests();
    let named = requests.iter().filter(|request| request.query.is_some());
    named
        .map(|request| request.most_along.map(NonZeroU64::get))
        .collect()
}

/// What came along before the pull says nothing of what the statement needs after it.
#[test]
fn a_statement_whose_answer_ended_at_its_limit_is_sent_again_after_a_pull() {
    let served = Served::new(TEXTS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    rows(&conn, "select count(*) from sqlite_schema").unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    remote.clear();
    let sql = "select id, k, body from t";
    let mut statement = conn.prepare(sql).unwrap();
    let mut some = statement.query(()).unwrap();
    some.next().unwrap().unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    assert_eq!(told(&remote), [Some(1024)]);
    drop(some);
    drop(statement);
    served.execute("update t set body = 'another ' || body where id % 3 = 0");
    assert!(db.pull().unwrap());
    remote.clear();
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert_eq!(told(&remote), [Some(1024), Some(4096)]);
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// A remote that is told nothing of how much may come along, as one that does not know of it.
#[derive(Debug)]
struct Older(Arc<dyn Remote>);

impl Remote for Older {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.0.pages(PagesRequest {
            most_along: None,
            ..request
        })
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.0.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> TransferStats {
        self.0.transferred()
    }
}

#[test]
fn a_remote_that_knows_no_limit_is_left_when_enough_came_along() {
    let served = Served::new(TEXTS);
    let replicas = Replicas::new();
    let remote = Arc::new(Counting::new(Arc::new(Older(served.http()))));
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    rows(&conn, "select count(*) from sqlite_schema").unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    remote.clear();
    let mut statement = conn.prepare("select id, body from t").unwrap();
    let mut some = statement.query(()).unwrap();
    some.next().unwrap().unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    let delivered = remote.ids_delivered().len();
    assert!((1024..=1100).contains(&delivered), "{delivered} pages");
    drop(some);
    drop(statement);
    remote.clear();
    let sql = "select count(*), sum(length(body)) from t not indexed";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert!(remote.requests() <= 3, "{} requests", remote.requests());
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

/// Functions and databases that only this connection has, pragmas, and values of many megabytes.
#[test]
fn what_only_a_connection_knows_is_answered_as_by_sqlite() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    conn.create_scalar_function("twice", 1, FunctionFlags::default(), |context| {
        Ok(context.get::<i64>(0)? * 2)
    })
    .unwrap();
    let beside = replicas.path("beside.db");
    stock(&beside)
        .execute_batch("create table t(id integer primary key, k text); insert into t values (17, 'beside')")
        .unwrap();
    conn.execute_batch(&format!("attach '{}' as beside", beside.display()))
        .unwrap();
    let stock_sqlite = |sql: &str| stock_rows(&served.sqlite(), sql).unwrap();
    for (sql, plain) in [
        (
            "select k from t where id = twice(4000)",
            "select k from t where id = 8000",
        ),
        (
            "select t.k, b.k from t join beside.t b on t.id = b.id",
            "select k, 'beside' from t where id = 17",
        ),
        (
            "select name, k from pragma_table_info('other'), t where t.id = 11000 + cid order by cid",
            "select name, k from pragma_table_info('other'), t where t.id = 11000 + cid order by cid",
        ),
    ] {
        assert_eq!(rows(&conn, sql).unwrap(), stock_sqlite(plain), "{sql}");
    }
    assert!(db.settle(Duration::from_secs(10)));
    remote.clear();
    let mut statement = conn
        .prepare("select k from t where id = 19000 and length(?1) > 0")
        .unwrap();
    let blob = Value::Blob(vec![7; 16 << 20]);
    let mut found = statement.query([blob]).unwrap();
    let k: String = found.next().unwrap().unwrap().get(0).unwrap();
    assert_eq!(
        format!("Text({k:?})"),
        stock_sqlite("select k from t where id = 19000")[0]
    );
    let asked = remote.page_requests();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|request| request.query.is_none()));
}

/// Runs queries as the server does, each when the test lets it.
struct Held(Mutex<mpsc::Receiver<()>>, Arc<Mutex<Vec<String>>>);

impl QueryRunner for Held {
    fn run(
        &self,
        pages: &RevisionReader,
        sql: &str,
        limits: &QueryLimits,
        touched: &Arc<Touched>,
    ) -> Result<(), QueryError> {
        self.1.lock().unwrap().push(sql.to_owned());
        let _ = self.0.lock().unwrap().recv_timeout(Duration::from_secs(60));
        SnapshotQueries.run(pages, sql, limits, touched)
    }
}

/// Its pages come when a pull has moved the base, and are those of an older state. A reader that began before finds its own
/// pages, and sends no statement for them.
#[test]
fn invariant_4_a_statement_that_is_answered_across_a_pull_changes_nothing() {
    let made = Served::new(ROWS);
    let (release, wait) = mpsc::channel();
    let runs = Arc::new(Mutex::new(vec![]));
    let copy = made.folder.path().join("held.db");
    made.execute(&format!("vacuum into '{}'", copy.display()));
    let server = Server::builder(&copy)
        .queries(Held(Mutex::new(wait), runs.clone()))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let replicas = Replicas::new();
    let remote = Arc::new(Counting::new(Arc::new(
        HttpRemote::builder(server.url()).build().unwrap(),
    )));
    let db = open(&replicas, "a.db", &remote);
    let (conn, reader) = (db.connection().unwrap(), db.connection().unwrap());
    reader
        .execute_batch("begin; select count(*) from sqlite_schema")
        .unwrap();
    rows(&reader, "select k from t where id = 1").unwrap();
    let before = stock(&copy);
    before.execute_batch("begin").unwrap();
    let sum = "select count(*), sum(length(pad)), max(k), min(k) from t where id % 2 = 0 or k > 'key 01'";
    let old = stock_rows(&before, sum).unwrap();
    // It reads a row, of the first pages that it waits for, and the statement is still to run.
    let sql = "select id, pad, k from t order by id desc";
    let mut statement = conn.prepare(sql).unwrap();
    let mut some = statement.query(()).unwrap();
    some.next().unwrap().unwrap();
    until("the statement runs", || {
        runs.lock().unwrap().iter().any(|run| run == sql)
    });
    drop(some);
    drop(statement);
    stock(&copy)
        .execute_batch("update t set pad = zeroblob(301), k = 'new ' || k where id % 3 = 0")
        .unwrap();
    assert!(db.pull().unwrap());
    drop(release);
    assert!(db.settle(Duration::from_secs(30)));
    remote.clear();
    assert_eq!(rows(&reader, sum).unwrap(), old);
    assert!(!remote.page_requests().is_empty());
    assert!(
        remote
            .page_requests()
            .iter()
            .all(|request| request.query.is_none())
    );
    assert_eq!(rows(&conn, sum).unwrap(), stock_rows(&stock(&copy), sum).unwrap());
    assert_eq!(rows(&reader, sum).unwrap(), old);
    assert_eq!(contents(&conn), stock_contents(&stock(&copy)));
    drop((before, reader, conn, db));
    server.shutdown_blocking();
}

/// A time limit ends a query that waits for what its statement is to bring, and nothing is left of that.
#[test]
fn a_query_whose_time_is_over_while_its_statement_is_answered_is_interrupted_and_can_be_asked_again() {
    let made = Served::new(ROWS);
    let (release, wait) = mpsc::channel();
    let copy = made.folder.path().join("held.db");
    made.execute(&format!("vacuum into '{}'", copy.display()));
    let server = Server::builder(&copy)
        .queries(Held(Mutex::new(wait), Arc::default()))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let replicas = Replicas::new();
    let remote: Arc<dyn Remote> = Arc::new(HttpRemote::builder(server.url()).build().unwrap());
    let remote = Arc::new(Counting::new(remote));
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    let sql = "select count(*), sum(length(pad)), max(k) from t where id % 3 = 1";
    let error = conn
        .within(Some(Duration::from_millis(300)), || rows(&conn, sql))
        .unwrap_err();
    assert!(error.is_interrupted(), "{error}");
    // The statement of the query that is gone is still held.
    let other = db.connection().unwrap();
    let row = "select k from t where id = 19999";
    assert_eq!(
        rows(&other, row).unwrap(),
        stock_rows(&stock(&copy), row).unwrap()
    );
    // Nor does it keep a replica open that is closed.
    drop((conn, other));
    db.close().unwrap();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    drop(release);
    assert_eq!(rows(&conn, sql).unwrap(), stock_rows(&stock(&copy), sql).unwrap());
    assert_eq!(contents(&conn), stock_contents(&stock(&copy)));
    drop((conn, db));
    server.shutdown_blocking();
}

/// Connections that miss the same pages with statements of their own, while rows change and pulls bring them.
#[test]
fn statements_that_miss_the_same_pages_are_answered_each_for_itself() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    for round in 0..6 {
        served.execute(&format!(
            "update t set pad = zeroblob(200 + {round}), k = k || {round} where id % 7 < 5"
        ));
        assert!(db.pull().unwrap());
        let of = |n: u32| format!("select {n}, count(*), sum(length(pad)), max(k) from t where id >= {n}");
        let expected: Vec<_> = (0..6)
            .map(|n| stock_rows(&served.sqlite(), &of(n)).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for (n, expected) in (0..6).zip(&expected) {
                let conn = db.connection().unwrap();
                scope.spawn(move || assert_eq!(&rows(&conn, &of(n)).unwrap(), expected));
            }
        });
        assert!(db.settle(Duration::from_secs(30)));
    }
}

/// A server that goes away in the middle cuts what comes along, and nothing else.
#[test]
fn a_server_that_stops_while_a_statement_runs_is_asked_again_when_it_is_back() {
    let mut served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = open(&replicas, "a.db", &remote);
    let conn = db.connection().unwrap();
    let endless = "select t.id, pad from t, (with recursive c(x) as (select 1 union all select x + 1 from c) select x from c)";
    let mut statement = conn.prepare(endless).unwrap();
    let mut some = statement.query(()).unwrap();
    some.next().unwrap().unwrap();
    served.stop();
    drop(some);
    drop(statement);
    served.start();
    assert!(db.settle(Duration::from_secs(30)));
    let sql = "select count(*), sum(length(pad)), max(k) from t";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// What a remote does with a request that names a statement.
#[derive(Clone, Copy, PartialEq)]
enum Odd {
    /// Never answers it.
    Silent,
    /// Sends everything but the pages that are asked for.
    Other,
}

/// With how many pages nobody asked for were sent, and the least time that a request for pages alone was given, in milliseconds.
struct OddRemote(Arc<dyn Remote>, Odd, Arc<AtomicUsize>, Arc<AtomicUsize>);

impl std::fmt::Debug for OddRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OddRemote")
    }
}

impl Remote for OddRemote {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        async move {
            if request.query.is_none() {
                let given = request.deadline.unwrap().as_millis() as usize;
                self.3.fetch_min(given, Ordering::SeqCst);
                return self.0.pages(request).await;
            }
            if self.1 == Odd::Silent {
                return std::future::pending().await;
            }
            let PageSelector::Ids(asked) = request.select.clone() else {
                return self.0.pages(request).await;
            };
            let all = PagesRequest {
                select: PageSelector::All,
                query: None,
                have: None,
                ..request
            };
            let answer = self.0.pages(all).await?;
            let sent = self.2.clone();
            let pages = answer.pages.filter(move |page| {
                let other = page
                    .as_ref()
                    .is_ok_and(|page| page.id != PageId(0) && !asked.contains(page.id.0));
                sent.fetch_add(usize::from(other), Ordering::SeqCst);
                std::future::ready(other)
            });
            Ok(PageStream {
                header: answer.header,
                pages: pages.boxed(),
            })
        }
        .boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.0.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> TransferStats {
        self.0.transferred()
    }
}

/// It took all that a query may wait for a page, and the query failed; or a whole database came that nobody had asked for.
#[test]
fn invariant_10_a_remote_that_is_odd_about_statements_is_asked_for_the_page_alone() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let sql = "select k from t where id = 15000";
    for odd in [Odd::Silent, Odd::Other] {
        let (sent, given) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(usize::MAX)),
        );
        let remote = OddRemote(served.http(), odd, sent.clone(), given.clone());
        let db = replicas
            .builder(&format!("{}.db", odd as u8))
            .remote_with(Arc::new(remote))
            .partial(prefix(64 * 1024, 16 * 1024))
            .timeout(Duration::from_millis(1500))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap()
        );
        assert!(db.settle(Duration::from_secs(10)));
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < 1200, "{sent} pages");
        let given = given.load(Ordering::SeqCst);
        assert!(
            odd != Odd::Silent || given <= 750,
            "{given} ms: who waits would not hear why it fails"
        );
    }
}
