//! How many requests things take and which pages they bring: the numbers that a partial replica is held to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::support::*;
use partial_sync::{Database, PartialSync};
use partial_sync_transport::Counting;

/// A table of about 10,000 pages of 4 KiB, and an index in whose order the rows lie far from each other.
const BIG: &str = "create table t(id integer primary key, k integer, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 30000)
    insert into t select x, (x * 7919) % 30011, zeroblob(1200) from c;
    create index tk on t(k);";

/// The same in small: some hundred pages.
const SMALL: &str = "create table t(id integer primary key, k integer, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 1500)
    insert into t select x, (x * 7919) % 1511, zeroblob(1000) from c;
    create index tk on t(k);";

const SEGMENT: u64 = 16 * 1024;
const PAGES_OF_A_SEGMENT: u32 = 4;

fn open(served: &Served, prefetch: bool) -> (Database, Arc<Counting>) {
    let remote = served.counting();
    let db = Database::builder(":memory:")
        .remote_with(remote.clone())
        .partial(PartialSync {
            prefetch: Some(prefetch),
            ..prefix(128 * 1024, SEGMENT)
        })
        .connect()
        .unwrap();
    (db, remote)
}

fn number(served: &Served, sql: &str) -> i64 {
    served.sqlite().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Levels of a B-tree, the root's and the leaves' included.
fn depth(served: &Served, tree: &str) -> usize {
    let sql = format!(
        "select max(length(path) - length(replace(path, '/', ''))) from dbstat where name = '{tree}' and pagetype <> 'overflow'"
    );
    number(served, &sql) as usize
}

/// 0-based ids of a B-tree's pages.
fn pages_of(served: &Served, tree: &str) -> BTreeSet<u32> {
    let conn = served.sqlite();
    let mut select = conn
        .prepare("select pageno - 1 from dbstat where name = ?")
        .unwrap();
    let ids = select.query_map([tree], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

fn segments(pages: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    pages.into_iter().map(|id| id / PAGES_OF_A_SEGMENT).collect()
}

#[test]
fn a_prefix_connect_is_one_request_for_the_pages_of_the_prefix() {
    let served = Served::new(BIG);
    let (db, remote) = open(&served, false);
    assert_eq!(remote.requests(), 1);
    let mut ids = remote.ids_delivered();
    ids.sort_unstable();
    assert_eq!(ids, (0..32).collect::<Vec<u32>>());
    assert_eq!(db.stats().unwrap().pages_present, 32);
}

#[test]
fn a_lookup_by_key_takes_at_most_as_many_requests_as_its_tree_has_levels() {
    let seed = seed();
    let served = Served::new(BIG);
    assert!(number(&served, "select count(*) from dbstat where name = 't'") >= 10_000);
    let (by_key, by_index) = (depth(&served, "t"), depth(&served, "tk"));
    for prefetch in [false, true] {
        let mut random = fastrand::Rng::with_seed(seed);
        let (db, remote) = open(&served, prefetch);
        let conn = db.connection().unwrap();
        let mut worst = (0, 0);
        for n in 0..60 {
            let id = random.u32(1..=30_000);
            let before = remote.requests();
            let (limit, sql) = if n % 3 < 2 {
                (by_key, format!("select k from t where id = {id}"))
            } else {
                (
                    by_key + by_index,
                    format!("select id, length(pad) from t where k = {id}"),
                )
            };
            rows(&conn, &sql).unwrap();
            let took = remote.requests() - before;
            assert!(
                took <= limit,
                "{sql} took {took} requests, the trees have {limit} levels"
            );
            let worst = if n % 3 < 2 { &mut worst.0 } else { &mut worst.1 };
            *worst = took.max(*worst);
            rows(&conn, &sql).unwrap();
            assert_eq!(
                remote.requests() - before,
                took,
                "{sql} asked again for what is here"
            );
        }
        println!(
            "prefetch {prefetch}: by key at most {} requests ({by_key} levels), by index at most {} ({} levels)",
            worst.0,
            worst.1,
            by_key + by_index
        );
        assert!(remote.ids_delivered_twice().is_empty());
    }
}

#[test]
fn invariant_6_a_page_that_is_here_is_never_requested_again() {
    let seed = seed();
    let served = Served::new(SMALL);
    for prefetch in [false, true] {
        let mut random = fastrand::Rng::with_seed(seed);
        let (db, remote) = open(&served, prefetch);
        let conn = db.connection().unwrap();
        for _ in 0..200 {
            let n = random.u32(1..1500);
            let sql = match random.u32(0..5) {
                0 => format!("select k from t where id = {n}"),
                1 => format!("select sum(length(pad)) from t where k between {n} and {n} + 20"),
                2 => format!("select max(k) from (select k from t where id > {n} order by id limit 30)"),
                3 => format!("select id from t where k < {n} order by k desc limit 10"),
                _ => {
                    conn.execute("update t set pad = zeroblob(900) where id = ?", (n,))
                        .unwrap();
                    continue;
                }
            };
            rows(&conn, &sql).unwrap();
        }
        rows(&conn, "select count(*), sum(length(pad)) from t not indexed").unwrap();
        rows(&conn, "select count(*) from t indexed by tk where k >= 0").unwrap();
        let twice = remote.ids_delivered_twice();
        assert!(
            twice.is_empty(),
            "prefetch {prefetch}: pages {twice:?} came twice"
        );
        let mut asked = BTreeSet::new();
        for ids in remote.ids_asked() {
            for id in ids.expect("every request names its pages") {
                assert!(
                    asked.insert(id),
                    "prefetch {prefetch}: page id {id} was asked for twice"
                );
            }
        }
    }
}

#[test]
fn invariant_6_many_readers_of_the_same_absent_pages_share_their_requests() {
    let served = Served::new(SMALL);
    for prefetch in [false, true] {
        let (db, remote) = open(&served, prefetch);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let conn = db.connection().unwrap();
                    let sql = "select count(*), sum(k), sum(length(pad)) from t not indexed";
                    assert_eq!(
                        rows(&conn, sql).unwrap(),
                        stock_rows(&served.sqlite(), sql).unwrap()
                    );
                });
            }
        });
        let twice = remote.ids_delivered_twice();
        assert!(
            twice.is_empty(),
            "prefetch {prefetch}: pages {twice:?} came twice"
        );
    }
}

#[test]
fn nothing_is_requested_when_everything_needed_is_here() {
    let served = Served::new(SMALL);
    let (db, remote) = open(&served, true);
    let conn = db.connection().unwrap();
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    remote.clear();
    for sql in [
        "select count(*), sum(length(pad)) from t not indexed",
        "select id from t where k between 100 and 900 order by k desc",
        "select * from t order by id desc limit 100",
        "select count(*) from sqlite_schema",
        "pragma integrity_check",
    ] {
        rows(&conn, sql).unwrap();
    }
    conn.execute_batch("update t set k = k + 1 where id % 10 = 0; delete from t where id % 11 = 0; insert into t(k) values (5); create table made(x);")
        .unwrap();
    rows(&db.connection().unwrap(), "select sum(k) from t").unwrap();
    db.checkpoint().unwrap();
    rows(&conn, "select sum(k) from t").unwrap();
    assert_eq!(remote.requests(), 0);
}

#[test]
fn a_full_scan_without_prefetch_is_one_request_for_each_absent_segment() {
    let served = Served::new(SMALL);
    let (db, remote) = open(&served, false);
    let conn = db.connection().unwrap();
    let here = segments(remote.ids_delivered());
    for (tree, sql) in [
        ("t", "select count(*), sum(length(pad)) from t not indexed"),
        ("tk", "select count(*) from t indexed by tk where k >= 0"),
    ] {
        let here: BTreeSet<u32> = here.union(&segments(remote.ids_delivered())).copied().collect();
        remote.clear();
        rows(&conn, sql).unwrap();
        let absent = segments(pages_of(&served, tree)).difference(&here).count();
        println!(
            "{tree}: {} requests for {absent} absent segments",
            remote.requests()
        );
        assert_eq!(remote.requests(), absent, "{sql}");
    }
}

#[test]
fn a_full_scan_with_prefetch_takes_at_most_20_requests_and_few_pages_too_many() {
    let served = Served::new(BIG);
    for (direction, sql) in [
        ("forwards", "select count(*), sum(length(pad)) from t not indexed"),
        (
            "backwards",
            "select count(*), sum(length(pad)) from (select pad from t order by id desc)",
        ),
    ] {
        let (db, remote) = open(&served, true);
        let conn = db.connection().unwrap();
        remote.clear();
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap()
        );
        let (table, delivered) = (pages_of(&served, "t").len(), remote.ids_delivered().len());
        println!(
            "{direction}: {} requests, {delivered} pages for a table of {table} ({:.3} times)",
            remote.requests(),
            delivered as f64 / table as f64
        );
        assert!(
            remote.requests() <= 20,
            "{direction}: {} requests",
            remote.requests()
        );
        assert!(
            delivered as f64 <= 1.05 * table as f64,
            "{direction}: {delivered} pages of {table}"
        );
        assert!(remote.ids_delivered_twice().is_empty());
    }
}

/// Rows in an index's order lie all over the table. What is held to here is that no page comes twice and that prefetch
/// does not make it worse; the numbers are printed.
#[test]
fn an_index_scan_with_table_lookups_brings_no_page_twice() {
    let served = Served::new(BIG);
    let sql = "select count(*), sum(length(pad)) from t indexed by tk where k between 10000 and 12000";
    let mut taken = vec![];
    for prefetch in [false, true] {
        let (db, remote) = open(&served, prefetch);
        let conn = db.connection().unwrap();
        remote.clear();
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap()
        );
        let delivered = remote.ids_delivered().len();
        println!(
            "prefetch {prefetch}: {} requests, {delivered} pages for 2000 rows by their index",
            remote.requests()
        );
        assert!(remote.ids_delivered_twice().is_empty());
        taken.push(remote.requests());
    }
    assert!(taken[1] <= taken[0], "prefetch takes more requests: {taken:?}");
}

#[test]
fn invariant_9_a_pull_downloads_no_page_that_is_absent() {
    let served = Served::new(SMALL);
    for prefetch in [false, true] {
        let (db, remote) = open(&served, prefetch);
        let conn = db.connection().unwrap();
        rows(&conn, "select k from t where id in (10, 700, 1490)").unwrap();
        for round in 0..4 {
            // What still streams in behind the last query did not come with the pull.
            assert!(db.settle(Duration::from_secs(10)));
            let here: BTreeSet<u32> = remote.ids_delivered().into_iter().collect();
            let total = db.stats().unwrap().pages_total;
            let present = db.stats().unwrap().pages_present;
            assert!(present < total / 2, "most pages should be absent");
            let before = remote.page_requests().len();
            let delivered = remote.ids_delivered().len();
            served.execute(match round {
                0 => "update t set pad = zeroblob(999)",
                1 => "update t set k = k + 1 where id = 1400",
                2 => "delete from t where id % 3 = 0",
                _ => "with recursive c(x) as (select 1 union all select x + 1 from c where x < 300) insert into t(k, pad) select x, zeroblob(1000) from c",
            });
            assert!(db.pull().unwrap());
            let grown = db.stats().unwrap().pages_total > total;
            let last = db.stats().unwrap().pages_total - 1;
            let brought = &remote.ids_delivered()[delivered..];
            for id in brought {
                assert!(
                    here.contains(id) || (grown && *id == last),
                    "page id {id} was absent and came with the pull"
                );
            }
            let requests = remote.page_requests().len() - before;
            println!(
                "round {round}: {requests} requests, {} pages, {present} of {total} were here",
                brought.len()
            );
            assert!(requests <= if grown { 2 } else { 1 }, "{requests} requests");
            let sql = "select id, k, length(pad) from t where id in (10, 700, 1490)";
            assert_eq!(
                rows(&conn, sql).unwrap(),
                stock_rows(&served.sqlite(), sql).unwrap()
            );
        }
        let before = remote.requests();
        assert!(!db.pull().unwrap());
        assert_eq!(
            remote.requests() - before,
            1,
            "a pull without news is one request"
        );
    }
}

/// The bodies went as they are, and so did what came back: 385 KB.
#[test]
fn a_push_of_5_000_rows_sends_at_most_300_000_bytes_and_receives_few() {
    let served = Served::new("create table t(id integer primary key, k integer, body text)");
    let http = served.http();
    let db = Database::builder(":memory:")
        .remote_with(http.clone())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let mut random = fastrand::Rng::with_seed(seed());
    for transaction in 0..50 {
        conn.execute_batch("begin").unwrap();
        for row in 0..100 {
            let (id, k, word) = (transaction * 100 + row, random.u32(..), random.u32(..1000));
            conn.execute(
                "insert into t values (?, ?, 'a message of some length with word ' || ? || ' in it')",
                (id, i64::from(k), word),
            )
            .unwrap();
        }
        conn.execute_batch("commit").unwrap();
    }
    let before = http.transferred();
    db.push().unwrap();
    let after = http.transferred();
    let (requests, bytes, back) = (
        after.requests - before.requests,
        after.bytes_sent - before.bytes_sent,
        after.bytes_received - before.bytes_received,
    );
    assert_eq!(number(&served, "select count(*) from t"), 5000);
    eprintln!("{requests} requests, {bytes} up, {back} down");
    assert!(requests <= 1, "{requests} requests");
    assert!(bytes <= 300_000, "{bytes} bytes in {requests} requests");
    assert!(back <= 10_000, "{back} bytes came back");
}
