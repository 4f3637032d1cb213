//! Batches that were given up on and land late: after a pull they would speak of rows as they were before it, so a pull
//! first makes sure that none lands any more.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use partial_sync::{Connection, Database, Error};
use partial_sync_core::ChangeId;
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, TransferStats,
    hrana::{Batch, BatchResult, Step},
};

use crate::support::*;

/// A remote on the way to which batches get stuck while it is told so.
#[derive(Debug)]
pub(crate) struct Slow {
    inner: Arc<dyn Remote>,
    stuck: Mutex<Vec<Batch>>,
    sticks: AtomicBool,
    loses_answers: AtomicBool,
    refuses_sql: AtomicBool,
    batches: AtomicUsize,
    steps: AtomicUsize,
}

impl Slow {
    pub(crate) fn new(inner: Arc<dyn Remote>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            stuck: Mutex::default(),
            sticks: AtomicBool::new(false),
            loses_answers: AtomicBool::new(false),
            refuses_sql: AtomicBool::new(false),
            batches: AtomicUsize::new(0),
            steps: AtomicUsize::new(0),
        })
    }

    pub(crate) fn stick(&self, sticks: bool) {
        self.sticks.store(sticks, Ordering::Relaxed);
    }

    /// Batches arrive, and nobody hears of it.
    pub(crate) fn lose_answers(&self, loses: bool) {
        self.loses_answers.store(loses, Ordering::Relaxed);
    }

    /// Steps of batches so far.
    pub(crate) fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    /// What was stuck arrives; nobody reads the answers.
    pub(crate) fn deliver(&self) {
        let stuck = std::mem::take(&mut *self.stuck.lock().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        for batch in stuck {
            runtime.block_on(self.inner.execute(batch, None)).unwrap();
        }
    }
}

impl Remote for Slow {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.inner.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        let failed = |kind| {
            let error = RemoteError::new(kind, "no answer");
            Box::pin(std::future::ready(Err(error))) as BoxFuture<'_, _>
        };
        if self.refuses_sql.load(Ordering::Relaxed) {
            return failed(RemoteErrorKind::Unreachable);
        }
        // Not the question that comes first.
        let commits = |step: &Step| step.stmt.sql.as_deref() == Some("COMMIT");
        if batch.steps.iter().any(commits) {
            self.batches.fetch_add(1, Ordering::Relaxed);
            self.steps.fetch_add(batch.steps.len(), Ordering::Relaxed);
            if self.sticks.load(Ordering::Relaxed) {
                self.stuck.lock().unwrap().push(batch);
                return failed(RemoteErrorKind::TimedOut);
            }
            if self.loses_answers.load(Ordering::Relaxed) {
                let sent = self.inner.execute(batch, deadline);
                return Box::pin(async move {
                    sent.await?;
                    Err(RemoteError::new(RemoteErrorKind::TimedOut, "no answer"))
                });
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

const T: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');";

fn open(r: &Replicas, s: &Served) -> (Arc<Slow>, Database, Connection) {
    let slow = Slow::new(s.http());
    let db = r
        .builder("a.db")
        .remote_with(slow.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    (slow, db, conn)
}

fn remote(s: &Served) -> Vec<String> {
    stock_rows(&s.sqlite(), "select id, v from t order by id").unwrap()
}

#[test]
fn h7_a_batch_that_is_late_does_not_land_after_a_pull() {
    for reopened in [false, true] {
        let s = Served::new(T);
        let r = Replicas::new();
        let (mut slow, mut a, mut ca) = open(&r, &s);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        slow.stick(true);
        a.push().unwrap_err();
        slow.stick(false);
        let late = slow.clone();
        if reopened {
            drop((ca, a));
            (slow, a, ca) = open(&r, &s);
        }
        s.execute("insert into t values (10, 'b10')");
        a.pull().unwrap();
        assert_eq!(
            rows(&ca, "select v from t where id = 11").unwrap(),
            ["Text(\"a10\")"]
        );
        s.execute("delete from t where id = 10; insert into t values (11, 'b11')");
        late.deliver();
        ca.execute("update t set v = 'a10!' where id = 11", ()).unwrap();
        a.push().unwrap();
        let all = [
            "Integer(9)|Text(\"base\")",
            "Integer(11)|Text(\"b11\")",
            "Integer(12)|Text(\"a10!\")",
        ];
        assert_eq!(remote(&s), all, "reopened {reopened}");
        a.pull().unwrap();
        assert_eq!(rows(&ca, "select id, v from t order by id").unwrap(), all);
        drop(slow);
    }
}

#[test]
fn h7_of_several_late_batches_none_lands_after_a_pull_and_one_that_landed_before_it_counts() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (slow, a, ca) = open(&r, &s);
    slow.stick(true);
    for n in 0..3 {
        ca.execute("insert into t(v) values (?)", [format!("a{n}")])
            .unwrap();
        a.push().unwrap_err();
        if n < 2 {
            a.pull().unwrap_err();
        }
    }
    slow.stick(false);
    // The fences of pulls that failed are among them.
    slow.deliver();
    let landed = remote(&s);
    assert_eq!(landed[1], "Integer(10)|Text(\"a0\")");
    s.execute("insert into t(v) values ('b')");
    a.pull().unwrap();
    ca.execute("update t set v = v || '!' where v like 'a%'", ())
        .unwrap();
    a.push().unwrap();
    slow.deliver();
    a.pull().unwrap();
    let all = "select v from t order by v";
    let expected = ["a0!", "a1!", "a2!", "b", "base"].map(|v| format!("Text({v:?})"));
    assert_eq!(rows(&ca, all).unwrap(), expected);
    assert_eq!(stock_rows(&s.sqlite(), all).unwrap(), expected);
}

#[test]
fn h7_a_pull_that_cannot_settle_what_is_under_way_fails_and_changes_nothing() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (slow, a, ca) = open(&r, &s);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    slow.stick(true);
    a.push().unwrap_err();
    slow.stick(false);
    s.execute("insert into t values (10, 'b10')");
    slow.refuses_sql.store(true, Ordering::Relaxed);
    let error = a.pull().unwrap_err();
    assert!(matches!(error, Error::Remote(_)), "{error:?}");
    assert_eq!(
        rows(&ca, "select v from t where id = 10").unwrap(),
        ["Text(\"a10\")"]
    );
    slow.refuses_sql.store(false, Ordering::Relaxed);
    a.pull().unwrap();
    a.push().unwrap();
    assert_eq!(remote(&s).len(), 3);
}

#[test]
fn h7_a_push_whose_end_is_known_leaves_a_pull_nothing_to_settle() {
    let s =
        Served::new("create table t(id integer primary key, v unique); insert into t values (9, 'base');");
    let r = Replicas::new();
    let (slow, a, ca) = open(&r, &s);
    ca.execute("insert into t(v) values ('a')", ()).unwrap();
    a.push().unwrap();
    ca.execute("insert into t(v) values ('b')", ()).unwrap();
    s.execute("insert into t values (50, 'b')");
    assert!(matches!(a.push().unwrap_err(), Error::PushRefused(_)));
    let sent = slow.batches.load(Ordering::Relaxed);
    assert!(matches!(a.pull().unwrap_err(), Error::PullConflict { .. }));
    assert_eq!(slow.batches.load(Ordering::Relaxed), sent);
}

/// What was sent is given up only if it did not land.
#[test]
fn h7_a_change_that_may_have_landed_is_not_given_up_before_that_is_known() {
    for (lost, landed) in [(true, true), (false, false)] {
        let s = Served::new(T);
        let r = Replicas::new();
        let (slow, a, ca) = open(&r, &s);
        ca.execute("insert into t(v) values ('a')", ()).unwrap();
        let change = a.local_changes(ChangeId(0), 10).unwrap()[0].id;
        if lost {
            slow.lose_answers(true);
        } else {
            slow.stick(true);
        }
        a.push().unwrap_err();
        slow.lose_answers(false);
        slow.stick(false);
        slow.refuses_sql.store(true, Ordering::Relaxed);
        a.discard_change(change).unwrap_err();
        assert_eq!(a.local_changes(ChangeId(0), 10).unwrap().len(), 1);
        slow.refuses_sql.store(false, Ordering::Relaxed);
        assert_eq!(a.discard_change(change).unwrap(), !landed);
        slow.deliver();
        a.pull().unwrap();
        assert_eq!(remote(&s).len(), if landed { 2 } else { 1 });
        assert_eq!(rows(&ca, "select id, v from t order by id").unwrap(), remote(&s));
        assert_eq!(a.local_changes(ChangeId(0), 10).unwrap(), []);
    }
}

/// A push that could not take what it sent out of the log, because somebody was writing.
#[test]
fn h7_a_change_that_the_remote_has_is_not_given_up() {
    let s = Served::new(T);
    let r = Replicas::new();
    let db = r
        .builder("a.db")
        .remote(s.url())
        .timeout(Duration::from_secs(3))
        .connect()
        .unwrap();
    let (conn, other) = (db.connection().unwrap(), db.connection().unwrap());
    conn.execute("insert into t(v) values ('a')", ()).unwrap();
    let change = db.local_changes(ChangeId(0), 10).unwrap()[0].id;
    other.execute_batch("begin immediate").unwrap();
    db.push().unwrap();
    other.execute_batch("rollback").unwrap();
    assert_eq!(remote(&s).len(), 2);
    assert_eq!(db.local_changes(ChangeId(0), 10).unwrap(), [], "it was pushed");
    assert!(!db.discard_change(change).unwrap());
    db.pull().unwrap();
    assert_eq!(
        rows(&conn, "select id, v from t order by id").unwrap(),
        remote(&s)
    );
}

/// The same remote under another name.
#[test]
fn h7_a_batch_that_is_late_does_not_land_after_a_pull_from_a_new_url() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (late, a, ca) = open(&r, &s);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    late.stick(true);
    a.push().unwrap_err();
    late.stick(false);
    drop((ca, a));
    let a = r
        .builder("a.db")
        .remote(s.url().replace("127.0.0.1", "localhost"))
        .accept_new_url(true)
        .connect()
        .unwrap();
    let ca = a.connection().unwrap();
    s.execute("insert into t values (10, 'b10')");
    a.pull().unwrap();
    s.execute("delete from t where id = 10; insert into t values (11, 'b11')");
    late.deliver();
    ca.execute("update t set v = 'a10!' where v = 'a10'", ()).unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    let all = [
        "Integer(9)|Text(\"base\")",
        "Integer(11)|Text(\"b11\")",
        "Integer(12)|Text(\"a10!\")",
    ];
    assert_eq!(remote(&s), all);
    assert_eq!(rows(&ca, "select id, v from t order by id").unwrap(), all);
}
