//! A pull where it meets something else: an open reader, an expired revision, a network that goes away, a push, `stats()`.
//! The names say which defect of version 0.1.0 a test would have shown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    snapshots::{SHORT, until_expired},
    support::*,
};
use partial_sync::Database;
use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};

/// 500 rows of three to a page, so that most pages are absent after a prefix bootstrap.
const ROWS: &str = "create table t(id integer primary key, v integer, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 500)
    insert into t select x, 0, zeroblob(1200) from c;";

/// A schema of several pages: names so long that few fit one.
fn wide_schema(tables: usize) -> String {
    let columns: Vec<String> = (0..30)
        .map(|n| format!("a_rather_long_name_of_a_column_{n}"))
        .collect();
    (0..tables)
        .map(|n| {
            format!(
                "create table wide_{n}(id integer primary key, {});",
                columns.join(", ")
            )
        })
        .collect()
}

fn open(replicas: &Replicas, served: &Served) -> Database {
    replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap()
}

/// The pages of a large value that was written here lie beyond the remote's end. They used to become absent when the base
/// moved, also for a reader that had begun before, which then got NULs, or the remote's bytes.
#[test]
fn c1_a_reader_from_before_a_pull_keeps_local_pages_that_were_checkpointed() {
    for shrink in [false, true] {
        let served = Served::new(ROWS);
        let replicas = Replicas::new();
        let db = open(&replicas, &served);
        let (writer, reader) = (db.connection().unwrap(), db.connection().unwrap());
        writer
            .execute(
                "update t set v = 7, pad = ? where id = 100",
                (vec![b'x'; 50_000],),
            )
            .unwrap();
        db.checkpoint().unwrap();
        let sql =
            "select v, length(pad), replace(cast(pad as text), 'x', '') from t where id between 99 and 101";
        reader.execute_batch("begin").unwrap();
        let before = rows(&reader, sql).unwrap();
        served.execute(match shrink {
            false => "update t set v = 1 where id = 300",
            true => "delete from t where id > 200; vacuum",
        });
        assert!(db.pull().unwrap());
        // New readers fill pages, and more is written and checkpointed as far as it goes.
        let new = db.connection().unwrap();
        rows(&new, "select sum(v), sum(length(pad)) from t").unwrap();
        writer.execute("update t set v = 8 where id < 50", ()).unwrap();
        db.checkpoint().unwrap();
        assert!(!db.pull().unwrap());
        served.execute("update t set v = 2 where id = 30");
        assert!(db.pull().unwrap());
        assert_eq!(rows(&reader, sql).unwrap(), before, "shrink {shrink}");
        reader.execute_batch("commit").unwrap();
        db.push().unwrap();
        db.pull().unwrap();
        assert_eq!(contents(&reader), stock_contents(&served.sqlite()));
        assert_eq!(rows(&reader, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    }
}

/// Several readers, each from before another pull, and pages that are filled, written and cut off meanwhile.
#[test]
fn c1_readers_of_many_epochs_keep_their_states() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let db = open(&replicas, &served);
    let writer = db.connection().unwrap();
    let sql = "select sum(v), sum(length(pad)), count(*) from t where id < 120";
    let mut readers = vec![];
    for round in 0..6 {
        writer
            .execute(
                "update t set v = ?, pad = zeroblob(?) where id = 60 + ?",
                (round, 3000 * (round + 1), round),
            )
            .unwrap();
        db.checkpoint().unwrap();
        let reader = db.connection().unwrap();
        reader.execute_batch("begin").unwrap();
        let state = rows(&reader, sql).unwrap();
        readers.push((reader, state));
        served.execute(match round % 3 {
            0 => "update t set v = v + 1 where id % 7 = 0",
            1 => "delete from t where id > 130; vacuum",
            _ => "insert into t select id + 1000, v, zeroblob(1500) from t where id < 100",
        });
        assert!(db.pull().unwrap());
    }
    for (reader, state) in &readers {
        assert_eq!(&rows(reader, sql).unwrap(), state);
    }
    drop(readers);
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&writer), stock_contents(&served.sqlite()));
}

/// `sqlite_dbpage` reads a page before it writes it, and compiling any statement reads the whole schema: a pull used to fetch
/// those pages at the old revision.
#[test]
fn c2_a_pull_from_an_expired_revision_needs_nothing_of_it() {
    let served = Served::keeping(&(ROWS.to_owned() + &wide_schema(12)), SHORT);
    let replicas = Replicas::new();
    let db = open(&replicas, &served);
    let revision = db.stats().unwrap().revision.unwrap();
    served.execute(&wide_schema(30).replace("wide_", "wider_"));
    until_expired(&served, &revision);
    assert!(db.pull().unwrap());
    let conn = db.connection().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// The same with local changes, after a crash in which everything that was fetched and not saved is forgotten.
#[test]
fn c2_a_pull_from_an_expired_revision_puts_local_changes_back() {
    let served = Served::keeping(&(ROWS.to_owned() + &wide_schema(12)), SHORT);
    let replicas = Replicas::new();
    let db = open(&replicas, &served);
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 5 where id = 3", ()).unwrap();
    let revision = db.stats().unwrap().revision.unwrap();
    // What a kill would leave: the files as they are now.
    let copies = Replicas::new();
    for file in replicas.files() {
        std::fs::copy(replicas.path(&file), copies.path(&file)).unwrap();
    }
    served.execute("update t set v = 6 where id = 400; create table more(x)");
    until_expired(&served, &revision);
    for at in [&replicas, &copies] {
        let db = if std::ptr::eq(at, &replicas) {
            db.clone()
        } else {
            open(at, &served)
        };
        assert!(db.pull().unwrap());
        let conn = db.connection().unwrap();
        let sql = "select id, v from t where v > 0 order by id";
        assert_eq!(
            rows(&conn, sql).unwrap(),
            ["Integer(3)|Integer(5)", "Integer(400)|Integer(6)"]
        );
    }
}

/// Putting changes back allocates pages, which used to need the network when nothing could be read any more.
#[test]
fn h2_a_network_that_goes_away_during_a_pull_leaves_everything_readable() {
    let served = Served::new(&(ROWS.to_owned() + "delete from t where id > 100"));
    for nth in 1..12 {
        let replicas = Replicas::new();
        let faulty = Arc::new(Faulty::new(served.http()));
        let db = replicas
            .builder("a.db")
            .remote_with(faulty.clone())
            .partial(prefix(4096, 4096))
            .timeout(Duration::from_secs(5))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch(
            "with recursive c(x) as (select 1000 union all select x + 1 from c where x < 1100)
             insert into t select x, 1, zeroblob(900) from c; create table mine(x); insert into mine values (1)",
        )
        .unwrap();
        let local = rows(&conn, "select sum(v), count(*) from t where id >= 1000").unwrap();
        served.execute(&format!("update t set v = {nth}; create table new_{nth}(y)"));
        faulty.fail_from(nth, Fault::Fail(RemoteErrorKind::Unreachable));
        let pulled = db.pull();
        assert_eq!(
            rows(&conn, "select sum(v), count(*) from t where id >= 1000").unwrap(),
            local,
            "after {pulled:?}"
        );
        conn.execute("insert into mine values (2)", ()).unwrap();
        faulty.heal();
        db.pull().unwrap();
        assert_eq!(rows(&conn, "select x from mine").unwrap().len(), 2);
        assert_eq!(
            rows(&conn, "select v from t where id = 50").unwrap(),
            [format!("Integer({nth})")]
        );
        if pulled.is_ok() {
            return;
        }
    }
    panic!("no pull went through");
}

/// Base and epoch used to change one after the other.
#[test]
fn m1_stats_during_pulls_always_answer() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let db = open(&replicas, &served);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(db.stats().unwrap().pages_total > 0);
                }
            });
        }
        for n in 0..40 {
            served.execute(&format!("update t set v = {n} where id = 1"));
            db.pull().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A pull that waits for news used to hold the lock that pushes and checkpoints take.
#[test]
fn m2_a_push_and_a_checkpoint_do_not_wait_for_a_long_poll() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = served.counting();
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let before = remote.page_requests().len();
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| db.pull_waiting(Duration::from_secs(25)));
        until("the pull asks", || remote.page_requests().len() > before);
        db.checkpoint().unwrap();
        db.stats().unwrap();
        conn.execute("update t set v = 3 where id = 2", ()).unwrap();
        assert!(!polling.is_finished());
        db.push().unwrap();
        // The push is the news. What the answer lacks of it must not be missing afterwards.
        polling.join().unwrap().unwrap();
        assert_eq!(
            rows(&conn, "select v from t where id = 2").unwrap(),
            ["Integer(3)"]
        );
    });
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// A push that is confirmed between a pull's question and its commit: the pushed change is in neither the answer nor the log.
#[test]
fn m2_a_push_while_a_pull_has_its_answer_loses_nothing_from_sight() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                db.pull().unwrap();
            }
        });
        for n in 1..=60 {
            conn.execute("update t set v = ? where id = 5", (n,)).unwrap();
            db.push().unwrap();
            assert_eq!(
                rows(&conn, "select v from t where id = 5").unwrap(),
                [format!("Integer({n})")]
            );
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(faulty.requests() > 0);
}

/// Readers used to wait for all of the put-back. Now they never wait longer than for the move of the base: of many short reads
/// during a long pull none is held up by it. (How long is measured by `scripts/bench pull`.)
#[test]
fn m3_readers_and_writers_go_on_while_changes_are_put_back() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let db = open(&replicas, &served);
    let conn = db.connection().unwrap();
    conn.execute_batch("create table mine(id integer primary key, v text)")
        .unwrap();
    conn.execute_batch(
        "with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
         insert into mine select x, 'row ' || x from c",
    )
    .unwrap();
    served.execute("update t set v = 9");
    let (pulling, other) = (db.clone(), db.connection().unwrap());
    let (mut reads, mut writes) = (0, 0);
    std::thread::scope(|scope| {
        let pull = scope.spawn(move || pulling.pull());
        while !pull.is_finished() {
            let count = rows(&conn, "select count(*) from mine").unwrap();
            assert_eq!(count, [format!("Integer({})", 20000 + writes)]);
            reads += 1;
            if writes < 20 {
                other
                    .execute("insert into mine(v) values ('meanwhile')", ())
                    .unwrap();
                writes += 1;
            }
        }
        assert!(pull.join().unwrap().unwrap());
    });
    assert!(
        reads > 3 && writes > 0,
        "{reads} reads and {writes} writes during the pull"
    );
    assert_eq!(
        rows(&conn, "select count(*) from mine").unwrap(),
        [format!("Integer({})", 20000 + writes)]
    );
    assert_eq!(
        rows(&conn, "select v from t where id = 77").unwrap(),
        ["Integer(9)"]
    );
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// Nothing that a pull opened is left beside the replica, whether it went well, failed or was cancelled.
#[test]
fn a_pull_leaves_no_file_of_its_own() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_secs(5))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 1 where id in (4, 400)", ())
        .unwrap();
    let files = replicas.files();
    for (nth, ok) in [(1, false), (100, true)] {
        served.execute(&format!("update t set v = {nth} where id = 200"));
        faulty.fail_from(nth, Fault::CutAfterPages(0));
        let began = Instant::now();
        assert_eq!(db.pull().is_ok(), ok, "request {nth}");
        assert!(began.elapsed() < Duration::from_secs(30));
        faulty.heal();
        assert_eq!(replicas.files(), files, "request {nth}");
    }
}
