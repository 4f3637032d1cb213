//! Copies of one replica that are used beside each other: they go by one client id, and give the same numbers to other changes.
//! What one of them has pushed is never taken for what another one has made, whatever that one has sent meanwhile.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use partial_sync::{Connection, Database, Error};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, TransferStats,
    hrana::{Batch, BatchResult},
};

use crate::support::*;

const T: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');";

/// A remote on the way to which, once, another copy of the replica pushes before a batch arrives.
#[derive(Debug)]
struct Overtaken {
    inner: Arc<dyn Remote>,
    by: Mutex<Option<Database>>,
    /// Then the batch is lost.
    loses: bool,
}

impl Remote for Overtaken {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.inner.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<std::time::Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        let commits = (batch.steps.iter()).any(|step| step.stmt.sql.as_deref() == Some("COMMIT"));
        let other = self.by.lock().unwrap().take_if(|_| commits);
        if let Some(other) = other {
            std::thread::scope(|scope| scope.spawn(|| other.push()).join().unwrap()).unwrap();
            if self.loses {
                let error = RemoteError::new(RemoteErrorKind::TimedOut, "no answer");
                return Box::pin(std::future::ready(Err(error)));
            }
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

fn open(r: &Replicas, name: &str, remote: Arc<dyn Remote>) -> (Database, Connection) {
    let db = r
        .builder(name)
        .remote_with(remote)
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    (db, conn)
}

fn insert(conn: &Connection, v: &str) {
    conn.execute("insert into t(v) values (?)", [v]).unwrap();
}

fn is_a_copy(error: &Error) -> bool {
    error.to_string().contains("restored from a backup or copied")
}

#[test]
fn h7_of_two_copies_that_push_at_once_neither_takes_the_others_changes_for_its_own() {
    for loses in [false, true] {
        for (pulls, reopened) in [(false, false), (false, true), (true, false), (true, true)] {
            let s = Served::new(T);
            let r = Replicas::new();
            let (a, ca) = open(&r, "a.db", s.http());
            insert(&ca, "both");
            a.push().unwrap();
            drop((ca, a));
            for file in r.files() {
                if let Some(rest) = file.strip_prefix("a.db") {
                    std::fs::copy(r.path(&file), r.path(&format!("b.db{rest}"))).unwrap();
                }
            }
            let (a, ca) = open(&r, "a.db", s.http());
            let overtaken = Arc::new(Overtaken {
                inner: s.http(),
                by: Mutex::new(Some(a.clone())),
                loses,
            });
            let (mut b, mut cb) = open(&r, "b.db", overtaken.clone());
            insert(&ca, "a");
            insert(&cb, "b0");
            insert(&cb, "b1");
            let all = rows(&cb, "select id, v from t").unwrap();
            let pushed = b.push();
            let what = format!("loses {loses}, pulls {pulls}, reopened {reopened}: {pushed:?}");
            assert!(pushed.is_err_and(|error| loses || is_a_copy(&error)), "{what}");
            if reopened {
                drop((cb, b));
                (b, cb) = open(&r, "b.db", overtaken);
            }
            let error = if pulls { b.pull().map(drop) } else { b.push() }.expect_err(&what);
            assert!(is_a_copy(&error), "{what}: {error}");
            assert_eq!(rows(&cb, "select id, v from t").unwrap(), all, "{what}");
            assert_eq!(b.stats().unwrap().cdc_operations, 2, "{what}");
            assert_eq!(
                stock_rows(&s.sqlite(), "select v from t order by v").unwrap(),
                ["a", "base", "both"].map(|v| format!("Text({v:?})")),
                "{what}"
            );
            insert(&ca, "a again");
            a.push().unwrap();
            a.pull().unwrap();
        }
    }
}
