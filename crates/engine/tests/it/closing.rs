//! The files of a replica belong to one open of it at a time: closing closes everything, what a pull left behind does nothing
//! to the next open, and what still stands on a replica keeps it open.

use std::{path::Path, sync::Arc, time::Duration};

use crate::support::*;
use futures_util::{FutureExt, future::BoxFuture};
use partial_sync::{CancelHandle, Database, Error};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
};
use tokio::sync::watch;

const ROWS: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 4000)
    insert into t select x, printf('%0200d', x) from c;";

/// Holds answers back, whatever the deadline says, from the n-th request on until they are let go.
#[derive(Debug)]
struct Holding {
    inner: Arc<dyn Remote>,
    /// How many requests may pass.
    pass: watch::Sender<usize>,
    /// Requests that are held.
    held: watch::Sender<usize>,
}

impl Holding {
    fn new(inner: Arc<dyn Remote>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            pass: watch::Sender::new(usize::MAX),
            held: watch::Sender::new(0),
        })
    }

    fn hold_after(&self, requests: usize) {
        self.pass.send_replace(requests);
    }

    fn let_go(&self) {
        self.hold_after(usize::MAX);
    }

    fn held(&self) -> usize {
        *self.held.borrow()
    }
}

impl Remote for Holding {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        async move {
            let mut passes = false;
            self.pass.send_modify(|left| {
                passes = *left > 0;
                *left = if *left == usize::MAX {
                    *left
                } else {
                    left.saturating_sub(1)
                };
            });
            if !passes {
                let mut pass = self.pass.subscribe();
                self.held.send_modify(|n| *n += 1);
                let _ = pass.wait_for(|&left| left > 0).await;
                self.held.send_modify(|n| *n -= 1);
            }
            self.inner.pages(request).await
        }
        .boxed()
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

/// Files in a folder that this process has open.
#[cfg(target_os = "linux")]
fn open_files(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let mut open: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|file| file.starts_with(&folder))
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    open.sort();
    open
}

#[cfg(not(target_os = "linux"))]
fn open_files(_folder: &Path) -> Vec<String> {
    vec![]
}

/// What a kill would leave of a replica now, opened without its remote.
fn after_a_kill(replicas: &Replicas, name: &str) -> (Replicas, Database) {
    let copy = Replicas::new();
    for file in replicas.files().iter().filter(|file| file.starts_with(name)) {
        std::fs::copy(replicas.path(file), copy.path(file)).unwrap();
    }
    let db = copy.builder(name).connect().unwrap();
    (copy, db)
}

/// A pull whose put-back waits for a page that does not come in time.
fn a_pull_that_gives_up(served: &Served, replicas: &Replicas, holding: &Arc<Holding>) -> Database {
    let db = replicas
        .builder("a.db")
        .remote_with(holding.clone())
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_millis(700))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 'mine' where id = 2000", ())
        .unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    served.execute(
        "delete from t where id % 2 = 1; create table other(x); insert into other values (1); vacuum",
    );
    holding.hold_after(1);
    let error = db.pull().unwrap_err();
    assert!(holding.held() > 0, "a fetch is under way: {error}");
    db
}

#[test]
fn c3_what_a_pull_left_behind_is_closed_with_the_replica_and_does_nothing_to_the_next_open() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let holding = Holding::new(served.http());
    let db = a_pull_that_gives_up(&served, &replicas, &holding);
    db.close().unwrap();
    assert!(holding.held() > 0, "the answer has still not come");
    assert_eq!(open_files(replicas.0.path()), Vec::<String>::new());

    let again = || replicas.builder("a.db").remote(served.url());
    let db = again().connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 'second' where id = 2001", ())
        .unwrap();
    holding.let_go();
    until("the late answer has come", || holding.held() == 0);
    std::thread::sleep(Duration::from_millis(200));
    conn.execute("update t set v = 'third' where id = 2002", ())
        .unwrap();
    assert!(
        open_files(replicas.0.path())
            .iter()
            .all(|file| !file.contains("deleted")),
        "{:?}",
        open_files(replicas.0.path())
    );
    let expected = [
        "Integer(2000)|Text(\"mine\")",
        "Integer(2001)|Text(\"second\")",
        "Integer(2002)|Text(\"third\")",
    ];
    let sql = "select id, v from t where id between 2000 and 2002";
    assert_eq!(rows(&conn, sql).unwrap(), expected);
    let (_copy, killed) = after_a_kill(&replicas, "a.db");
    assert_eq!(rows(&killed.connection().unwrap(), sql).unwrap(), expected);
    killed.close().unwrap();
    drop(conn);
    db.pull().unwrap();
    db.close().unwrap();
}

#[test]
fn c3_a_pull_that_is_cancelled_leaves_no_file_open() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let holding = Holding::new(served.http());
    let cancel = CancelHandle::new();
    let db = replicas
        .builder("a.db")
        .remote_with(holding.clone())
        .partial(prefix(4096, 4096))
        .cancel_handle(cancel.clone())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 'mine' where id = 2000", ())
        .unwrap();
    assert!(db.settle(Duration::from_secs(10)));
    holding.hold_after(0);
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| db.pull());
        until("the pull waits", || holding.held() > 0 || pulling.is_finished());
        cancel.cancel();
        assert!(pulling.join().unwrap().unwrap_err().is_interrupted());
    });
    drop(conn);
    db.close().unwrap();
    assert_eq!(open_files(replicas.0.path()), Vec::<String>::new());
    let (_copy, killed) = after_a_kill(&replicas, "a.db");
    let conn = killed.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from t where id = 2000").unwrap(),
        ["Text(\"mine\")"]
    );
}

#[test]
fn c3_a_statement_that_is_kept_keeps_the_replica_open_and_the_next_open_is_the_same_one() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .timeout(Duration::from_millis(300))
    };
    let db = open().connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("update t set v = 'mine' where id = 2000", ())
        .unwrap();
    let mut kept = conn.prepare("select v from t where id >= 2000").unwrap();
    let mut iterating = kept.query(()).unwrap();
    iterating.next().unwrap().unwrap();
    drop(conn);
    let error = db.close().unwrap_err();
    assert!(matches!(error, Error::LeftOpen { .. }), "{error}");
    assert!(error.to_string().contains("still in use"), "{error}");

    let again = open().connect().unwrap();
    let conn = again.connection().unwrap();
    conn.execute("update t set v = 'too' where id = 2001", ())
        .unwrap();
    assert!(iterating.next().unwrap().is_some());
    drop(iterating);
    drop(kept);
    let sql = "select v from t where id between 2000 and 2001";
    assert_eq!(rows(&conn, sql).unwrap(), ["Text(\"mine\")", "Text(\"too\")"]);
    let (_copy, killed) = after_a_kill(&replicas, "a.db");
    assert_eq!(
        rows(&killed.connection().unwrap(), sql).unwrap(),
        ["Text(\"mine\")", "Text(\"too\")"]
    );
    drop(conn);
    again.close().unwrap();
    assert_eq!(open_files(replicas.0.path()), Vec::<String>::new());
}

#[test]
fn c3_closing_waits_until_other_threads_have_closed_too() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
    };
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let db = open().connect().unwrap();
                scope.spawn(move || {
                    let conn = db.connection().unwrap();
                    rows(&conn, "select v from t where id = 77").unwrap();
                    drop(conn);
                    db.close().unwrap();
                });
            }
        });
        assert_eq!(open_files(replicas.0.path()), Vec::<String>::new());
    }
}
