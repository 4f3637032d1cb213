//! Ways in which a committed local write could be lost, a stale page come back, or a replica not be opened any more. Each
//! test begins with what was wrong. Most failed before the mend; those of the late fetch, of the frames of a rolled back
//! transaction and of a new WAL's name hold mends that came from reading, and passed before them too.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::*;
use futures_util::{StreamExt, future::BoxFuture};
use partial_sync::{Builder, Database, Error};
use partial_sync_transport::{
    Fault, Faulty, PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
};
use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

const SMALL: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 300)
    insert into t select x, 'row ' || x || hex(zeroblob(100)) from c;";

fn on(storage: &CrashStorage, path: &Path) -> Builder {
    Database::builder(path)
        .storage(Arc::new(storage.clone()))
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_secs(10))
}

fn check(db: &Database, served: &Served) {
    let conn = db.connection().unwrap();
    db.hydrate(|_| {}).unwrap();
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    db.push().unwrap();
    db.pull().unwrap();
    let (here, there) = (contents(&conn), stock_contents(&served.sqlite()));
    assert!(here == there, "replica and remote differ");
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

/// A push landed, its answer was lost, and the next pull brought the changes back, so that it dropped them from the log
/// without noting their ids. New changes got the same ids again, and the next push took them for those that had landed:
/// it deleted them unsent.
#[test]
fn invariant_1_ids_of_changes_that_a_pull_finds_on_the_remote_are_not_given_again() {
    for reopened in [false, true] {
        let served = Served::new(SMALL);
        let replicas = Replicas::new();
        let faulty = Arc::new(Faulty::new(served.http()));
        let open = || {
            replicas
                .builder("a.db")
                .remote_with(faulty.clone())
                .partial(prefix(4096, 4096))
                .connect()
                .unwrap()
        };
        let mut db = open();
        let conn = db.connection().unwrap();
        for id in 1000..1005 {
            conn.execute(&format!("insert into t values ({id}, 'first')"), ())
                .unwrap();
        }
        // The batch, then the question how far the remote is.
        faulty.fail_nth(1, Fault::LoseAnswer);
        faulty.fail_nth(
            2,
            Fault::Fail(partial_sync_transport::RemoteErrorKind::Unreachable),
        );
        db.push().unwrap_err();
        faulty.heal();
        assert_eq!(
            stock_rows(&served.sqlite(), "select count(*) from t where id >= 1000").unwrap(),
            ["Integer(5)"]
        );
        assert!(db.pull().unwrap());
        assert_eq!(db.stats().unwrap().cdc_operations, 0);
        if reopened {
            drop(conn);
            drop(db);
            db = open();
        }
        let conn = db.connection().unwrap();
        for id in 2000..2007 {
            conn.execute(&format!("insert into t values ({id}, 'second')"), ())
                .unwrap();
        }
        db.push().unwrap();
        assert_eq!(
            stock_rows(&served.sqlite(), "select count(*) from t where id >= 2000").unwrap(),
            ["Integer(7)"],
            "reopened: {reopened}"
        );
        check(&db, &served);
    }
}

/// A pull that had nothing to put back let writers continue before its file was removed, and had no marker that it was done:
/// after a crash in between, its pages were written again, over what had been committed meanwhile.
#[test]
fn invariant_1_a_write_between_a_pulls_commit_and_its_end_survives_a_crash() {
    for operation in ["write -info.tmp", "remove -changes"] {
        let served = Served::new(SMALL);
        let replicas = Replicas::new();
        let path = replicas.path("a.db");
        let storage = CrashStorage::new(&path);
        let db = on(&storage, &path).remote(served.url()).connect().unwrap();
        let conn = db.connection().unwrap();
        rows(&conn, "select count(*) from t").unwrap();
        served.execute("update t set v = 'theirs' where id % 3 = 0");
        let outcome = Arc::new(Mutex::new(None));
        {
            let (outcome, storage, busy) = (outcome.clone(), storage.clone(), db.connection().unwrap());
            let stopping = storage.clone();
            storage.before(operation, move || {
                // Another thread's write; it may have to wait for the pull, and then it is not committed.
                let handle = busy.interrupt_handle();
                let writer = std::thread::spawn(move || {
                    busy.execute("insert into t values (5000, 'mine')", ()).is_ok()
                });
                let began = std::time::Instant::now();
                while !writer.is_finished() && began.elapsed() < Duration::from_millis(300) {
                    std::thread::yield_now();
                }
                stopping.stop_now();
                handle.interrupt();
                // It may wait for the info file, which the pull is writing.
                *outcome.lock().unwrap() = Some(writer);
            });
        }
        db.pull().unwrap_err();
        let writer = outcome.lock().unwrap().take().expect("the pull came to its end");
        let committed = writer.join().unwrap();
        drop((conn, db));
        let again = replicas.path("again.db");
        let db = on(&storage.after_crash(Survives::Written, &again), &again)
            .remote(served.url())
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        let there = rows(&conn, "select count(*) from t where id = 5000").unwrap() == ["Integer(1)"];
        assert!(there || !committed, "{operation}: committed and lost");
        check(&db, &served);
    }
}

/// A pull noted how far the WAL had been accounted for, and counted frames of a transaction that had been rolled back.
/// Later commits overwrote these, and after a crash their pages were not known to be dirty: the next pull left local
/// pages among the remote's.
#[test]
fn invariant_1_frames_of_a_rolled_back_transaction_do_not_hide_later_commits() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("pragma cache_size = 2; begin; update t set v = v || 'spilled'; rollback")
        .unwrap();
    served.execute("update t set v = 'theirs' where id = 1");
    assert!(db.pull().unwrap());
    let clean = db.stats().unwrap().pages_dirty;
    conn.execute("update t set v = 'mine' where id in (100, 200, 299)", ())
        .unwrap();
    let dirty = db.stats().unwrap().pages_dirty;
    assert!(dirty > clean);
    storage.stop_now();
    drop((conn, db));
    let again = replicas.path("again.db");
    let db = on(&storage.after_crash(Survives::Written, &again), &again)
        .remote(served.url())
        .connect()
        .unwrap();
    assert!(
        db.stats().unwrap().pages_dirty >= dirty - clean,
        "{} pages known to be dirty, there were {dirty}",
        db.stats().unwrap().pages_dirty
    );
    served.execute("delete from t where id between 90 and 250");
    check(&db, &served);
}

/// When the sync in a pull's COMMIT failed, its frames stayed in the WAL, complete. The pull was called off; a crash
/// later brought the pages back, without the local changes on top.
#[test]
fn invariant_1_a_pull_whose_commit_failed_does_not_come_back_after_a_crash() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    served.execute("update t set v = 'theirs' where id % 2 = 0");
    // The seal, then the first frame of the pull, then the sync of its COMMIT.
    let (inner, failing) = (storage.clone(), storage.clone());
    storage.before("sync -changes.tmp", move || {
        inner.before("write -replica-wal", move || {
            let failing_again = failing.clone();
            failing.before("sync -replica-wal", move || {
                let at = failing_again.operations() + 1;
                failing_again.trouble(Some(Trouble::Fail(at, at + 1, std::io::ErrorKind::Other)));
            });
        });
    });
    let error = db.pull().unwrap_err();
    assert!(matches!(error, Error::Sqlite(_)), "{error:?}");
    storage.trouble(None);
    storage.stop_now();
    drop((conn, db));
    let again = replicas.path("again.db");
    let db = on(&storage.after_crash(Survives::Written, &again), &again)
        .remote(served.url())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from t where id = 6000").unwrap(),
        ["Text(\"mine\")"]
    );
    check(&db, &served);
}

/// A remote that holds back the end of an answer until it is told to continue.
#[derive(Debug)]
struct Held {
    inner: Arc<dyn Remote>,
    go_on: tokio::sync::watch::Receiver<bool>,
}

impl Remote for Held {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        let go_on = self.go_on.clone();
        Box::pin(async move {
            let answer = self.inner.pages(request).await?;
            let pages = answer.pages.enumerate().then(move |(n, page)| {
                let mut go_on = go_on.clone();
                async move {
                    if n > 0 {
                        let _ = go_on.wait_for(|go| *go).await;
                    }
                    page
                }
            });
            Ok(PageStream {
                header: answer.header,
                pages: pages.boxed(),
            })
        })
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.inner.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn transferred(&self) -> TransferStats {
        self.inner.transferred()
    }
}

/// A fetch went on after its replica was closed: it wrote to a file whose lock was gone, over whatever the next owner had
/// put there, and until it ended the replica could not be opened again in the same process. Later it did no harm, but kept its
/// connection until the remote answered, or for the request timeout: a program that opened a replica, gave up and closed it,
/// again and again, had hundreds of them.
#[test]
fn invariant_12_a_fetch_that_nobody_waits_for_ends_with_its_replica() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let (go, go_on) = tokio::sync::watch::channel(true);
    let held = Arc::new(Held {
        inner: served.http(),
        go_on,
    });
    let open = || {
        Database::builder(&path)
            .storage(Arc::new(storage.clone()))
            .remote_with(held.clone())
            .partial(prefix(4096, 64 * 1024))
            .connect()
    };
    let db = open().unwrap();
    let conn = db.connection().unwrap();
    go.send(false).unwrap();
    // Gets one page of two; the other is under way when the replica is closed.
    let handle = conn.interrupt_handle();
    let asked = storage.operations();
    let reader = std::thread::spawn(move || rows(&conn, "select count(*) from t").map(drop));
    while storage.operations() == asked {
        std::thread::yield_now();
    }
    handle.interrupt();
    reader.join().unwrap().unwrap_err();
    drop(db);
    let before = storage.operations();
    // The fetch has ended when its stream is gone.
    let began = std::time::Instant::now();
    while go.receiver_count() > 1 && began.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert_eq!(go.receiver_count(), 1, "the fetch did not end");
    go.send_replace(true);
    assert_eq!(storage.operations(), before, "{}", storage.tail());
    let db = open().expect("a replica can be opened again right after it was closed");
    let conn = db.connection().unwrap();
    assert_eq!(rows(&conn, "select count(*) from t").unwrap(), ["Integer(300)"]);
}

/// Whether a replica was ready was read before its lock was taken: when another process finished its first connect in
/// between, its replica was emptied.
#[test]
fn invariant_1_a_connect_that_waited_for_the_lock_looks_again() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    // A first connect that failed half way: its info file says that it is not ready.
    storage.trouble(Some(Trouble::Stop(12)));
    on(&storage, &path).remote(served.url()).connect().unwrap_err();
    let storage = storage.after_crash(Survives::Written, &path);
    assert!(
        String::from_utf8(storage.file("-info").unwrap())
            .unwrap()
            .contains("\"ready\": false")
    );
    {
        let (storage, path, url) = (storage.clone(), path.clone(), served.url());
        storage.clone().before("lock", move || {
            let db = on(&storage, &path).remote(url).connect().unwrap();
            db.connection()
                .unwrap()
                .execute("insert into t values (7000, 'mine')", ())
                .unwrap();
        });
    }
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from t where id = 7000").unwrap(),
        ["Text(\"mine\")"]
    );
}

/// The side files of a replica that somebody removed by hand were taken for those of the new one.
#[test]
fn invariant_5_side_files_left_by_an_earlier_replica_do_not_reach_a_new_one() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 'old replica' where id > 200", ())
        .unwrap();
    let wal = std::fs::read(replicas.path("a.db-replica-wal")).unwrap();
    drop((conn, db));
    for name in ["a.db", "a.db-info", "a.db-pages"] {
        std::fs::remove_file(replicas.path(name)).unwrap();
    }
    std::fs::write(replicas.path("a.db-replica-wal"), wal).unwrap();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    assert!(
        contents(&conn) == stock_contents(&served.sqlite()),
        "the old replica's rows are here"
    );
}

/// A pull used to commit twice, and after a crash in between the schema was read at the old base revision; where the remote's
/// schema had grown onto a page that is not here, that page was read as zeros and the replica did not open again. Whatever
/// the moment, opening needs no remote.
#[test]
fn invariant_8_a_pull_that_brought_a_larger_schema_is_finished_after_any_crash_and_without_the_remote() {
    let schema: String = (0..60)
        .map(|n| {
            format!(
                "create table grown_{n}(a integer primary key, b, c, d_{});",
                "x".repeat(90)
            )
        })
        .collect();
    for log_is_empty in [true, false] {
        let mut crash = 0;
        loop {
            let mut served = Served::new(SMALL);
            let replicas = Replicas::new();
            let path = replicas.path("a.db");
            let storage = CrashStorage::new(&path);
            let db = on(&storage, &path).remote(served.url()).connect().unwrap();
            let conn = db.connection().unwrap();
            rows(&conn, "select count(*) from t").unwrap();
            if !log_is_empty {
                conn.execute("insert into t values (8000, 'mine')", ()).unwrap();
            }
            served.execute(&schema);
            storage.trouble(Some(Trouble::Stop(storage.operations() + 1 + crash)));
            let pulled = db.pull();
            storage.stop_now();
            drop((conn, db));
            served.stop();
            let again = replicas.path("again.db");
            let db = on(&storage.after_crash(Survives::Written, &again), &again)
                .remote(served.url())
                .timeout(Duration::from_secs(1))
                .connect()
                .unwrap_or_else(|e| panic!("crash {crash} ({}), empty: {log_is_empty}: {e}", storage.tail()));
            let conn = db.connection().unwrap();
            served.start();
            if !log_is_empty {
                assert_eq!(
                    rows(&conn, "select v from t where id = 8000").unwrap(),
                    ["Text(\"mine\")"]
                );
            }
            check(&db, &served);
            if pulled.is_ok() {
                break;
            }
            crash += 1;
        }
    }
}

/// The folder was not synced after the WAL had been made in it: after a power failure the WAL had no name.
#[test]
fn invariant_1_a_commit_in_a_new_wal_survives_a_power_failure() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("pragma synchronous = full; insert into t values (9000, 'mine')")
        .unwrap();
    storage.stop_now();
    drop((conn, db));
    let again = replicas.path("again.db");
    let db = on(&storage.after_crash(Survives::Synced, &again), &again)
        .remote(served.url())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from t where id = 9000").unwrap(),
        ["Text(\"mine\")"]
    );
    check(&db, &served);
}
