//! What continues at the same time: statistics, checkpoints, pushes and pulls of one replica, and cancelling each of them
//! wherever it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use partial_sync::{Builder, CancelHandle, Database, Result, change::transform::Transform};
use partial_sync_transport::{
    Fault, Faulty, HttpClient, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, TransferStats,
    hrana::{Batch, BatchResult},
    http::{HttpRequest, HttpResponse, ReqwestClient},
};

use partial_sync_vfs::crash::{CrashStorage, Survives};

use crate::support::{Replicas, Served, contents, prefix, rows, stock_contents, stock_rows};

const TABLE: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 2000)
    insert into t select i, printf('%0400d', i) from n";
/// Longer than anything here may take.
const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);

/// Statistics were read on the connection that checkpoints: a checkpoint fails where a statement is reading.
#[test]
fn m6_statistics_disturb_no_checkpoint_push_or_writer() {
    let served = Served::new("create table t (id integer primary key, v text)");
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("pragma synchronous = off").unwrap();
    for id in 0..1000 {
        conn.execute("insert into t values (?, 'x')", (id,)).unwrap();
    }
    assert_eq!(db.stats().unwrap().cdc_operations, 1000);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                db.stats().unwrap();
            }
        });
        scope.spawn(|| {
            let conn = db.connection().unwrap();
            for id in 10_000..11_000 {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                conn.execute("insert into t values (?, 'y')", (id,)).unwrap();
            }
        });
        let worked = (|| {
            for _ in 0..10 {
                db.checkpoint()?;
            }
            db.push()
        })();
        over.store(true, Ordering::Relaxed);
        worked.unwrap();
    });
    db.push().unwrap();
    assert_eq!(db.stats().unwrap().cdc_operations, 0);
}

#[test]
fn m6_statistics_work_while_a_push_waits_for_the_remote_and_a_writer_has_the_lock() {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t values (5000, 'x')").unwrap();
    remote.fail_from(1, Fault::Hang);
    let cancel = db.cancel_handle().unwrap();
    for busy in [Database::push as fn(&Database) -> _, |db| db.pull().map(drop)] {
        let before = remote.requests();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| busy(&db));
            while remote.requests() == before {
                thread::yield_now();
            }
            conn.execute_batch("begin immediate; insert into t values (5001, 'y')")
                .unwrap();
            let began = Instant::now();
            assert_eq!(db.stats().unwrap().cdc_operations, 1);
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
            conn.execute_batch("rollback").unwrap();
            cancel.cancel();
            assert!(waiting.join().unwrap().unwrap_err().is_interrupted());
        });
    }
}

/// Calls something before each batch of SQL that brings changes.
struct AtEachBatch {
    inner: Arc<dyn Remote>,
    call: Box<dyn Fn(&Batch) + Send + Sync>,
}

impl std::fmt::Debug for AtEachBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtEachBatch")
    }
}

impl Remote for AtEachBatch {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.inner.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        // Not the question that comes first.
        let commits = |step: &partial_sync_transport::hrana::Step| step.stmt.sql.as_deref() == Some("COMMIT");
        if batch.steps.iter().any(commits) {
            (self.call)(&batch);
        }
        self.inner.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn transferred(&self) -> TransferStats {
        self.inner.transferred()
    }
}

/// The WAL was synced once before a push; what was committed while it ran could leave before it was durable.
#[test]
fn m8_a_batch_leaves_only_after_everything_in_it_is_durable() {
    for checkpointed in [false, true] {
        let served = Served::new("create table t (id integer primary key, v text)");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let disk = CrashStorage::new(&path);
        let writer: Arc<parking_lot::Mutex<Option<partial_sync::Connection>>> = Arc::default();
        let (of_writer, of_disk, url) = (writer.clone(), disk.clone(), served.url());
        let other = folder.path().join("after.db");
        let last = 6;
        let remote = AtEachBatch {
            inner: served.http(),
            call: Box::new(move |batch| {
                let sent: Vec<i64> = batch
                    .steps
                    .iter()
                    .filter(|step| {
                        step.stmt
                            .sql
                            .as_deref()
                            .is_some_and(|sql| sql.contains("INTO \"t\""))
                    })
                    .filter_map(|step| match step.stmt.args.first() {
                        Some(partial_sync_transport::hrana::Value::Integer { value }) => Some(*value),
                        _ => None,
                    })
                    .collect();
                assert!(!sent.is_empty(), "{batch:?}");
                // The power fails now.
                let survived = of_disk.after_crash(Survives::Synced, &other);
                let after = Database::builder(&other)
                    .storage(Arc::new(survived))
                    .remote(url.clone())
                    .connect()
                    .unwrap();
                let conn = after.connection().unwrap();
                for &id in &sent {
                    let here: i64 = conn
                        .query_row("select count(*) from t where id = ?", (id,), |row| row.get(0))
                        .unwrap();
                    assert_eq!(here, 1, "row {id} left before it was durable");
                }
                let newest = sent.iter().max().copied().unwrap();
                if newest < last {
                    let writer = of_writer.lock();
                    let writer = writer.as_ref().unwrap();
                    writer
                        .execute("insert into t values (?, 'x')", (newest + 1,))
                        .unwrap();
                    if checkpointed {
                        writer.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
                    }
                }
            }),
        };
        let db = Database::builder(&path)
            .storage(Arc::new(disk))
            .remote_with(Arc::new(remote))
            .push_operations_threshold(1)
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch("pragma synchronous = off; insert into t values (1, 'x')")
            .unwrap();
        *writer.lock() = Some(conn);
        // What is written while a push sends is the next push's.
        for _ in 0..last {
            db.push().unwrap();
        }
        let there = stock_rows(&served.sqlite(), "select count(*) from t").unwrap();
        assert_eq!(there, [format!("Integer({last})")]);
        writer.lock().take();
    }
}

/// It answers how fresh the replica is, not when the remote had something new.
#[test]
fn s4_a_pull_that_brings_nothing_moves_the_time_of_the_last_pull() {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap()
    };
    let began = open().stats().unwrap().last_pull_unix_time.unwrap();
    let info = replicas.path("a.db-info");
    let text = std::fs::read_to_string(&info).unwrap();
    let old = text.replace(&format!("\"last_pull\": {began}"), "\"last_pull\": 1000");
    assert_ne!(old, text);
    std::fs::write(&info, old).unwrap();

    let db = open();
    assert_eq!(db.stats().unwrap().last_pull_unix_time, Some(1000));
    assert!(!db.pull().unwrap());
    assert!(db.stats().unwrap().last_pull_unix_time.unwrap() >= began);
    drop(db);
    assert!(open().stats().unwrap().last_pull_unix_time.unwrap() >= began);
}

/// A replica, opened twice: the first handle hangs in a pull with the turn, the second one has a handle to cancel it with.
fn two_handles(test: impl FnOnce(&Database, &Database, CancelHandle)) {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let open = || -> Builder {
        replicas
            .builder("a.db")
            .remote_with(remote.clone())
            .partial(prefix(4096, 4096))
            .timeout(LONG)
    };
    let first = open().connect().unwrap();
    let conn = first.connection().unwrap();
    conn.execute_batch("insert into t values (5000, 'x')").unwrap();
    let cancel = CancelHandle::new();
    let second = open().cancel_handle(cancel.clone()).connect().unwrap();
    remote.fail_from(1, Fault::Hang);
    let before = remote.requests();
    let of_first = first.cancel_handle().unwrap();
    thread::scope(|scope| {
        let hanging = scope.spawn(|| first.push());
        while remote.requests() == before {
            thread::yield_now();
        }
        test(&first, &second, cancel);
        assert!(!hanging.is_finished(), "the other handle was not cancelled");
        of_first.cancel();
        assert!(hanging.join().unwrap().unwrap_err().is_interrupted());
    });
    remote.heal();
    first.push().unwrap();
    second.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// A cancel does not touch what begins after it, and a thread may begin late.
fn cancel_until_over(cancel: &CancelHandle, is_over: impl Fn() -> bool) {
    while !is_over() {
        cancel.cancel();
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn l_a_wait_for_the_turn_of_another_push_can_be_cancelled() {
    two_handles(|_, second, cancel| {
        type Wait = fn(&Database) -> Result<()>;
        let waits: [(&str, Wait); 5] = [
            ("push", |db| db.push()),
            ("checkpoint", |db| db.checkpoint()),
            ("hydrate", |db| db.hydrate(|_| {}).map(drop)),
            ("verify", |db| db.verify(|_| {}).map(drop)),
            ("discard", |db| {
                db.discard_change(partial_sync_core::ChangeId(1)).map(drop)
            }),
        ];
        for (what, wait) in waits {
            let began = Instant::now();
            thread::scope(|scope| {
                let waiting = scope.spawn(|| wait(second));
                thread::sleep(Duration::from_millis(50));
                assert!(!waiting.is_finished(), "{what}");
                cancel_until_over(&cancel, || waiting.is_finished());
                let error = waiting.join().unwrap().unwrap_err();
                assert!(error.is_interrupted(), "{what}: {error:?}");
            });
            assert!(began.elapsed() < SOON, "{what}: {:?}", began.elapsed());
        }
    });
}

/// A cancel counted only for the wait that was under way: one that came while a push was building its next batch, or
/// between two waits, was forgotten.
#[test]
fn l_a_cancel_between_two_waits_is_not_forgotten() {
    let served = Served::new("create table t (id integer primary key, v text)");
    let replicas = Replicas::new();
    let cancel = CancelHandle::new();
    let calls = cancel.clone();
    let once = AtomicBool::new(true);
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .cancel_handle(cancel)
        .transform(Arc::new(move |_| {
            if once.swap(false, Ordering::Relaxed) {
                calls.cancel();
            }
            Transform::Keep
        }))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t values (1, 'x')").unwrap();
    let error = db.push().unwrap_err();
    assert!(error.is_interrupted(), "{error:?}");
    assert!(
        stock_rows(&served.sqlite(), "select * from t")
            .unwrap()
            .is_empty(),
        "nothing was sent after it"
    );
    // What begins later is not touched.
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// What the remote confirmed is removed from the log, for which the push waits for a writer.
#[test]
fn l_a_push_that_waits_for_a_local_writer_can_be_cancelled_and_pushes_nothing_twice() {
    let served = Served::new("create table t (id integer primary key, v text)");
    let replicas = Replicas::new();
    let cancel = CancelHandle::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .timeout(LONG)
        .cancel_handle(cancel.clone())
        .connect()
        .unwrap();
    let (conn, other) = (db.connection().unwrap(), db.connection().unwrap());
    conn.execute_batch("insert into t values (1, 'x')").unwrap();
    other
        .execute_batch("begin immediate; insert into t values (2, 'y')")
        .unwrap();
    let began = Instant::now();
    thread::scope(|scope| {
        let pushing = scope.spawn(|| db.push());
        while stock_rows(&served.sqlite(), "select * from t")
            .unwrap()
            .is_empty()
        {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50));
        cancel.cancel();
        let error = pushing.join().unwrap().unwrap_err();
        assert!(error.is_interrupted(), "{error:?}");
    });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    other.execute_batch("commit").unwrap();
    served.execute("delete from t");
    db.push().unwrap();
    let there = stock_rows(&served.sqlite(), "select id from t").unwrap();
    assert_eq!(there, ["Integer(2)"], "what had landed did not land again");
    db.pull().unwrap();
    assert_eq!(rows(&conn, "select id from t").unwrap(), there);
}

#[test]
fn l_a_pull_that_waits_for_a_local_writer_can_be_cancelled() {
    let served = Served::new("create table t (id integer primary key, v text)");
    let replicas = Replicas::new();
    let cancel = CancelHandle::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .timeout(LONG)
        .cancel_handle(cancel.clone())
        .connect()
        .unwrap();
    let (conn, other) = (db.connection().unwrap(), db.connection().unwrap());
    other
        .execute_batch("begin immediate; insert into t values (2, 'y')")
        .unwrap();
    served.execute("insert into t values (1, 'x')");
    let began = Instant::now();
    thread::scope(|scope| {
        let pulling = scope.spawn(|| db.pull());
        while !replicas.files().contains(&"a.db-staged".to_owned()) {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(200));
        cancel.cancel();
        let error = pulling.join().unwrap().unwrap_err();
        assert!(error.is_interrupted(), "{error:?}");
    });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    other.execute_batch("commit").unwrap();
    assert!(db.pull().unwrap());
    db.push().unwrap();
    assert_eq!(
        rows(&conn, "select id from t").unwrap(),
        stock_rows(&served.sqlite(), "select id from t").unwrap()
    );
}

#[test]
fn l_settling_can_be_cancelled_and_takes_any_wait() {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .timeout(Duration::MAX)
        .connect()
        .unwrap();
    assert!(db.settle(Duration::MAX), "nothing is under way");
    remote.fail_from(1, Fault::Hang);
    let conn = db.connection().unwrap();
    let interrupt = conn.interrupt_handle();
    let before = remote.requests();
    thread::scope(|scope| {
        let query = scope.spawn(|| rows(&conn, "select sum(length(v)) from t"));
        while remote.requests() == before {
            thread::yield_now();
        }
        let settling = scope.spawn(|| db.settle(Duration::MAX));
        thread::sleep(Duration::from_millis(50));
        assert!(!settling.is_finished());
        cancel_until_over(&db.cancel_handle().unwrap(), || settling.is_finished());
        assert!(!settling.join().unwrap());
        interrupt.interrupt();
        assert!(query.join().unwrap().unwrap_err().is_interrupted());
    });
}

/// Every answer's body comes a byte at a time, from when it is told to.
#[derive(Debug)]
struct Dripping {
    client: ReqwestClient,
    on: AtomicBool,
}

impl HttpClient for Dripping {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        async move {
            let mut response = self.client.send(request).await?;
            if self.on.load(Ordering::Relaxed) {
                response.body = response
                    .body
                    .flat_map(|chunk| match chunk {
                        Ok(bytes) => {
                            let bytes: Vec<_> = (0..bytes.len()).map(|n| Ok(bytes.slice(n..n + 1))).collect();
                            futures_util::stream::iter(bytes)
                        }
                        Err(error) => futures_util::stream::iter(vec![Err(error)]),
                    })
                    .then(|byte| async {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        byte
                    })
                    .boxed();
            }
            Ok(response)
        }
        .boxed()
    }
}

#[test]
fn t4_a_remote_whose_answers_drip_holds_no_push_pull_query_or_first_connect() {
    let served = Served::new(TABLE);
    let replicas = Replicas::new();
    let client = Arc::new(Dripping {
        client: ReqwestClient::new().unwrap(),
        on: AtomicBool::new(false),
    });
    let limit = Duration::from_secs(1);
    let open = |name: &str| {
        replicas
            .builder(name)
            .remote(served.url())
            .http_client(client.clone())
            .partial(prefix(4096, 4096))
            .timeout(limit)
    };
    let db = open("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t values (5000, 'x')").unwrap();
    served.execute("update t set v = 'theirs' where id = 1");

    client.on.store(true, Ordering::Relaxed);
    let cases: [(&str, &dyn Fn() -> Result<()>); 4] = [
        ("push", &|| db.push()),
        ("pull", &|| db.pull().map(drop)),
        ("query", &|| {
            rows(&conn, "select v from t where id = 1500").map(drop)
        }),
        ("first connect", &|| open("b.db").connect().map(drop)),
    ];
    for (what, case) in cases {
        let began = Instant::now();
        let error = case().unwrap_err();
        assert!(error.is_transient(), "{what}: {error:?}");
        let is_page = error.page().is_some();
        let kind = error.remote().map(|e| e.kind);
        assert!(
            is_page || kind == Some(RemoteErrorKind::TimedOut),
            "{what}: {error:?}"
        );
        // The head and the body of a few answers, each with a limit of its own.
        assert!(began.elapsed() < 6 * limit, "{what}: {:?}", began.elapsed());
    }
    // A cancel ends it at once.
    let cancel = CancelHandle::new();
    thread::scope(|scope| {
        let connecting = scope.spawn(|| open("c.db").cancel_handle(cancel.clone()).timeout(LONG).connect());
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        cancel_until_over(&cancel, || connecting.is_finished());
        assert!(connecting.join().unwrap().unwrap_err().is_interrupted());
        assert!(began.elapsed() < SOON);
    });
    let left: Vec<String> = replicas
        .files()
        .into_iter()
        .filter(|f| !f.starts_with("a.db"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    client.on.store(false, Ordering::Relaxed);
    db.push().unwrap();
    db.pull().unwrap();
    db.hydrate(|_| {}).unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}
