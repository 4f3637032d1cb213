//! The main job, over real HTTP against the real server: open partially, query, write, push, pull.

use crate::support::*;
use partial_sync::{Bootstrap, PartialSync};

/// About 10,000 leaves of 4 KiB: rows of 400 bytes and an index.
const BIG: &str = "create table t(id integer primary key, k text, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 90000)
    insert into t select x, printf('key %08d', (x * 7919) % 90000), zeroblob(400) from c;
    create index tk on t(k);";

const SMALL: &str = "create table t(id integer primary key, v text);
    create index tv on t(v);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 5000)
    insert into t select x, 'row ' || x from c;
    create table account(name text primary key, balance integer);
    insert into account values ('a', 10), ('b', 20);";

#[test]
fn a_prefix_connect_takes_one_request_and_brings_its_pages() {
    let served = Served::new(BIG);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(128 * 1024, 16 * 1024))
        .connect()
        .unwrap();
    assert_eq!(remote.requests(), 1);
    let stats = db.stats().unwrap();
    assert_eq!(stats.pages_present, 32);
    assert!(stats.pages_total > 10_000);
    // Depth of the table's tree: a root, interior pages, leaves.
    let conn = db.connection().unwrap();
    remote.clear();
    assert_eq!(rows(&conn, "select k from t where id = 77777").unwrap().len(), 1);
    assert!(
        (1..=3).contains(&remote.requests()),
        "{} requests",
        remote.requests()
    );
    remote.clear();
    assert_eq!(rows(&conn, "select k from t where id = 77777").unwrap().len(), 1);
    assert_eq!(remote.requests(), 0, "what is here is not asked for again");
}

#[test]
fn a_full_scan_with_prefetch_takes_few_requests_and_no_page_too_many() {
    let served = Served::new(BIG);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(PartialSync {
            prefetch: Some(true),
            ..prefix(128 * 1024, 16 * 1024)
        })
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    remote.clear();
    let sql = "select count(*), sum(length(pad)), max(k) from t";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    let table: i64 = served
        .sqlite()
        .query_row("select count(*) from dbstat where name = 't'", [], |r| r.get(0))
        .unwrap();
    let delivered = remote.ids_delivered().len() as i64;
    println!(
        "{} requests, {delivered} pages for a table of {table}",
        remote.requests()
    );
    assert!(table > 10_000);
    assert!(remote.requests() <= 20, "{} requests", remote.requests());
    assert!(
        delivered as f64 <= table as f64 * 1.05,
        "{delivered} pages of {table}"
    );
    assert!(remote.ids_delivered_twice().is_empty());
}

#[test]
fn a_full_scan_without_prefetch_asks_once_for_each_absent_segment() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 16 * 1024))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    remote.clear();
    rows(&conn, "select count(*), max(v) from t not indexed").unwrap();
    rows(&conn, "select count(*) from t indexed by tv").unwrap();
    let mut segments: Vec<u32> = remote
        .ids_asked()
        .into_iter()
        .map(|ids| ids.unwrap()[0] / 4)
        .collect();
    let asked = segments.len();
    segments.sort();
    segments.dedup();
    assert_eq!(segments.len(), asked, "a segment was asked for twice");
    assert!(remote.ids_delivered_twice().is_empty());
}

#[test]
fn a_query_bootstrap_answers_its_query_without_another_request() {
    let served = Served::new(BIG);
    let replicas = Replicas::new();
    let remote = served.counting();
    let sql = "select id, k from t where k between 'key 00000100' and 'key 00000140'";
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(PartialSync {
            bootstrap: Some(Bootstrap::query(sql)),
            ..PartialSync::default()
        })
        .connect()
        .unwrap();
    let connect = remote.requests();
    assert!(connect <= 2, "{connect} requests");
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert_eq!(remote.requests(), connect);
    assert!(db.stats().unwrap().pages_present < 200);
}

#[test]
fn without_partial_options_everything_is_here_and_works_offline() {
    let mut served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let expected = stock_contents(&served.sqlite());
    served.stop();
    let conn = db.connection().unwrap();
    assert_eq!(contents(&conn), expected);
    assert_eq!(db.stats().unwrap().pages_present, db.stats().unwrap().pages_total);
}

#[test]
fn invariant_7_writes_made_offline_reach_the_remote_and_another_replica() {
    let mut served = Served::new(SMALL);
    let replicas = Replicas::new();
    let open = |name: &str| {
        replicas
            .builder(name)
            .remote(served.url())
            .partial(prefix(16 * 1024, 16 * 1024))
            .connect()
            .unwrap()
    };
    let (a, b) = (open("a.db"), open("b.db"));
    let conn = a.connection().unwrap();
    // Brings what the writes will touch.
    rows(&conn, "select count(v), max(id) from t").unwrap();
    rows(&conn, "select * from t indexed by tv order by v").unwrap();
    rows(&conn, "select * from account order by name").unwrap();
    served.stop();
    conn.execute("update t set v = 'offline ' || id where id % 100 = 0", ())
        .unwrap();
    conn.execute("delete from t where id % 101 = 0", ()).unwrap();
    conn.execute_batch(
        "begin; update account set balance = balance - 5 where name = 'a';
         update account set balance = balance + 5 where name = 'b'; commit;
         create table note(id integer primary key autoincrement, body text);
         insert into note(body) values ('written while the server was away');",
    )
    .unwrap();
    let error = a.push().unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(a.stats().unwrap().cdc_operations > 0);
    served.start();
    served.execute("insert into t values (1000000, 'by somebody else')");
    a.push().unwrap();
    assert_eq!(a.stats().unwrap().cdc_operations, 0);
    assert!(a.pull().unwrap());
    assert!(b.pull().unwrap());
    let expected = stock_contents(&served.sqlite());
    assert_eq!(contents(&conn), expected);
    assert_eq!(contents(&b.connection().unwrap()), expected);
    assert!(!b.pull().unwrap(), "nothing more to pull");
}

#[test]
fn a_pull_puts_changes_that_were_not_pushed_back_on_top() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let a = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = a.connection().unwrap();
    conn.execute("update account set balance = 99 where name = 'a'", ())
        .unwrap();
    conn.execute("insert into t values (7000000, 'mine')", ())
        .unwrap();
    served.execute("update account set balance = 77 where name = 'b'; delete from t where id < 3000; vacuum");
    assert!(a.pull().unwrap());
    assert_eq!(
        rows(&conn, "select name, balance from account order by name").unwrap(),
        ["Text(\"a\")|Integer(99)", "Text(\"b\")|Integer(77)"]
    );
    assert_eq!(rows(&conn, "select count(*) from t").unwrap(), ["Integer(2002)"]);
    assert_eq!(a.stats().unwrap().cdc_operations, 2);
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

#[test]
fn a_replica_is_opened_again_offline_with_its_options() {
    let mut served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(16 * 1024, 8 * 1024))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    rows(&conn, "select * from account").unwrap();
    conn.execute("update account set balance = 1 where name = 'a'", ())
        .unwrap();
    let before = db.stats().unwrap();
    drop(conn);
    drop(db);
    served.stop();
    for url in [Some(served.url()), None] {
        let mut builder = replicas
            .builder("a.db")
            .timeout(std::time::Duration::from_secs(3));
        if let Some(url) = url {
            builder = builder.remote(url);
        }
        let db = builder.connect().unwrap();
        let conn = db.connection().unwrap();
        assert_eq!(
            rows(&conn, "select balance from account where name = 'a'").unwrap(),
            ["Integer(1)"]
        );
        let after = db.stats().unwrap();
        // The change log's own page was checkpointed when the replica was closed.
        assert!((before.pages_present..=before.pages_present + 2).contains(&after.pages_present));
        assert_eq!(after.cdc_operations, 1);
        assert_eq!(after.revision, before.revision);
        let error = rows(&conn, "select count(*) from t").unwrap_err();
        assert!(error.page().is_some() && error.remote().is_some(), "{error}");
    }
}

#[test]
fn a_hydrated_replica_is_an_ordinary_sqlite_file() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 128 * 1024))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'one more')", ())
        .unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    rows(&conn, "select count(*) from t indexed by tv").unwrap();
    rows(&conn, "pragma integrity_check").unwrap();
    db.checkpoint().unwrap();
    drop((conn, db));
    let stock = stock(&replicas.path("a.db"));
    assert_eq!(
        stock_rows(&stock, "pragma integrity_check").unwrap(),
        ["Text(\"ok\")"]
    );
    assert_eq!(stock_contents(&stock), stock_contents(&served.sqlite()));
}

#[test]
fn an_empty_remote_can_be_filled_from_a_replica() {
    let served = Served::new("");
    let replicas = Replicas::new();
    let a = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = a.connection().unwrap();
    conn.execute_batch("create table t(x primary key, y); insert into t values (1, 2), ('three', 4.5)")
        .unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    let b = replicas.builder("b.db").remote(served.url()).connect().unwrap();
    assert_eq!(contents(&b.connection().unwrap()), contents(&conn));
}

#[test]
fn a_memory_replica_works_and_leaves_no_file() {
    let served = Served::new(SMALL);
    let db = partial_sync::Database::builder(":memory:")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("delete from t where id > 100", ()).unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

#[test]
fn invariant_10_a_first_connect_can_be_cancelled_and_leaves_no_file() {
    // Accepts connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let replicas = Replicas::new();
    let handle = partial_sync::CancelHandle::new();
    let cancel = handle.clone();
    let canceller = std::thread::spawn(move || {
        let asked = silent.accept().unwrap();
        cancel.cancel();
        asked
    });
    let error = replicas
        .builder("a.db")
        .remote(url)
        .cancel_handle(handle)
        .connect()
        .unwrap_err();
    assert!(error.is_interrupted(), "{error}");
    assert!(replicas.files().is_empty(), "{:?}", replicas.files());
    canceller.join().unwrap();
}
