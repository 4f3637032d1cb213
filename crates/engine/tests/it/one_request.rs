//! A push that knows where the remote is sends its batch without asking. What it knows may have become wrong: the remote was
//! restored, another copy of the replica has pushed, a word of the remote could not be noted, another server answers.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use partial_sync::{Connection, Database, Error};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
};
use partial_sync_vfs::crash::{CrashStorage, Trouble};

use crate::support::*;

const T: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');";

/// A remote that may be one which takes no rows as they came out.
#[derive(Debug)]
struct Plain {
    inner: Arc<dyn Remote>,
    is_plain: AtomicBool,
}

impl Remote for Plain {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.inner.pages(request)
    }

    fn execute(
        &self,
        mut batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        if self.is_plain.load(Ordering::Relaxed) {
            (batch.rows, batch.foreign_keys) = (false, false);
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

fn open(r: &Replicas, http: &Arc<dyn Remote>, name: &str) -> (Database, Connection) {
    let db = r
        .builder(name)
        .remote_with(http.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    (db, conn)
}

fn insert(conn: &Connection, v: &str) {
    conn.execute("insert into t(v) values (?)", [v]).unwrap();
}

fn there(s: &Served) -> Vec<String> {
    stock_rows(&s.sqlite(), "select v from t order by id").unwrap()
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| format!("Text({v:?})")).collect()
}

/// How many requests a push takes.
fn push(db: &Database, http: &Arc<dyn Remote>) -> u64 {
    let before = http.transferred().requests;
    db.push().unwrap();
    http.transferred().requests - before
}

#[test]
fn a_push_is_one_request_from_the_first_one_on() {
    let s = Served::new(T);
    let r = Replicas::new();
    let http = s.http();
    let (db, conn) = open(&r, &http, "a.db");
    insert(&conn, "first");
    assert_eq!(push(&db, &http), 1, "the first");
    assert_eq!(push(&db, &http), 0, "nothing to push");
    insert(&conn, "second");
    assert_eq!(push(&db, &http), 1, "the second");
    s.execute("insert into t values (100, 'theirs')");
    db.pull().unwrap();
    insert(&conn, "after a pull");
    assert_eq!(push(&db, &http), 1, "after a pull");
    insert(&conn, "before the end");
    drop((conn, db));
    let http = s.http();
    let (db, conn) = open(&r, &http, "a.db");
    insert(&conn, "opened again");
    assert_eq!(push(&db, &http), 1, "opened again");
    assert_eq!(rows(&conn, "select v from t order by id").unwrap(), there(&s));
    assert_eq!(there(&s).len(), 7);
}

#[test]
fn a_push_asks_where_rows_have_other_keys_on_the_remote_than_here() {
    let s = Served::new(T);
    let r = Replicas::new();
    let http = s.http();
    let (db, conn) = open(&r, &http, "a.db");
    insert(&conn, "mine");
    s.execute("insert into t values (10, 'theirs')");
    db.push().unwrap();
    conn.execute("update t set v = 'mine, changed' where id = 10", ())
        .unwrap();
    assert_eq!(push(&db, &http), 2);
    let all = texts(&["base", "theirs", "mine, changed"]);
    assert_eq!(there(&s), all);
    db.pull().unwrap();
    insert(&conn, "another");
    assert_eq!(
        push(&db, &http),
        2,
        "it is not known yet that the keys are forgotten"
    );
    insert(&conn, "and another");
    assert_eq!(push(&db, &http), 1);
    assert_eq!(rows(&conn, "select v from t order by id").unwrap(), there(&s));
}

#[test]
fn nothing_lands_on_a_remote_that_has_lost_what_it_acknowledged() {
    for lost in [
        "delete from turso_sync_last_change_id",
        "drop table turso_sync_last_change_id",
        "update turso_sync_last_change_id set change_id = change_id - 1",
        "update turso_sync_last_change_id set change_id = null",
    ] {
        for reopened in [false, true] {
            let s = Served::new(T);
            let r = Replicas::new();
            let http = s.http();
            let (mut db, mut conn) = open(&r, &http, "a.db");
            insert(&conn, "a");
            insert(&conn, "b");
            db.push().unwrap();
            insert(&conn, "c");
            s.execute(lost);
            if reopened {
                drop((conn, db));
                (db, conn) = open(&r, &http, "a.db");
            }
            for _ in 0..2 {
                let error = db.push().unwrap_err();
                assert!(matches!(error, Error::Position(_)), "{lost}: {error:?}");
                assert!(error.to_string().contains("restored from a backup"), "{error}");
            }
            assert_eq!(there(&s), texts(&["base", "a", "b"]), "{lost}");
            assert_eq!(
                rows(&conn, "select v from t where v = 'c'").unwrap(),
                texts(&["c"])
            );
        }
    }
}

#[test]
fn copies_that_have_never_pushed_do_not_push_over_each_other() {
    let s = Served::new(T);
    let r = Replicas::new();
    let http = s.http();
    let (a, on_a) = open(&r, &http, "a.db");
    insert(&on_a, "both");
    drop((on_a, a));
    for file in r.files() {
        let rest = file.strip_prefix("a.db").unwrap();
        std::fs::copy(r.path(&file), r.path(&format!("b.db{rest}"))).unwrap();
    }
    let (a, on_a) = open(&r, &http, "a.db");
    let (b, on_b) = open(&r, &http, "b.db");
    insert(&on_b, "b");
    a.push().unwrap();
    let error = b.push().unwrap_err();
    assert!(
        error.to_string().contains("restored from a backup or copied"),
        "{error}"
    );
    insert(&on_a, "a");
    assert_eq!(push(&a, &http), 1);
    assert_eq!(there(&s), texts(&["base", "both", "a"]));
}

/// The batch landed, and that could not be written down: what is on the remote is still this replica's own.
#[test]
fn a_confirmation_that_cannot_be_noted_leaves_the_push_to_be_settled() {
    for reopened in [false, true] {
        let s = Served::new(T);
        let r = Replicas::new();
        let path = r.path("a.db");
        let storage = CrashStorage::new(&path);
        let connect = |path: &Path| {
            Database::builder(path)
                .storage(Arc::new(storage.clone()))
                .remote_with(s.http())
                .partial(prefix(4096, 4096))
                .connect()
                .unwrap()
        };
        let mut db = connect(&path);
        let mut conn = db.connection().unwrap();
        insert(&conn, "a");
        db.push().unwrap();
        insert(&conn, "b");
        let disk = storage.clone();
        // What is about to be sent is noted first, then what was confirmed.
        storage.before("write -info.tmp", move || {
            let disk2 = disk.clone();
            disk.before("write -info.tmp", move || {
                let at = disk2.operations() + 1;
                disk2.trouble(Some(Trouble::Fail(at, at + 1, io::ErrorKind::StorageFull)));
            });
        });
        let error = db.push().unwrap_err();
        assert!(matches!(error, Error::Storage { .. }), "{error:?}");
        assert_eq!(there(&s), texts(&["base", "a", "b"]), "it landed");
        if reopened {
            drop((conn, db));
            db = connect(&path);
            conn = db.connection().unwrap();
        }
        insert(&conn, "c");
        db.push().unwrap();
        assert_eq!(there(&s), texts(&["base", "a", "b", "c"]));
        db.pull().unwrap();
        assert_eq!(rows(&conn, "select v from t order by id").unwrap(), there(&s));
    }
}

#[test]
fn a_server_in_its_place_that_takes_no_rows_is_asked_and_gets_the_changes_as_it_takes_them() {
    let s = Served::new(T);
    let r = Replicas::new();
    let plain = Arc::new(Plain {
        inner: s.http(),
        is_plain: AtomicBool::new(false),
    });
    let http: Arc<dyn Remote> = plain.clone();
    let (db, conn) = open(&r, &http, "a.db");
    insert(&conn, "rows");
    assert_eq!(push(&db, &http), 1);
    plain.is_plain.store(true, Ordering::Relaxed);
    insert(&conn, "no rows");
    assert_eq!(push(&db, &http), 3, "a batch, the question, the batch");
    assert_eq!(there(&s), texts(&["base", "rows", "no rows"]));
}

/// Somebody was writing when that was confirmed.
#[test]
fn what_is_pushed_and_could_not_leave_the_log_leaves_it_with_the_next_push() {
    for reopened in [false, true] {
        let s = Served::new(T);
        let r = Replicas::new();
        let http = s.http();
        let open = || {
            let builder = r.builder("a.db").remote_with(http.clone());
            let db = builder
                .partial(prefix(4096, 4096))
                .timeout(Duration::from_secs(1))
                .connect()
                .unwrap();
            let conn = db.connection().unwrap();
            (db, conn)
        };
        let (mut db, mut conn) = open();
        insert(&conn, "a");
        conn.execute_batch("begin immediate").unwrap();
        assert_eq!(push(&db, &http), 1);
        conn.execute_batch("rollback").unwrap();
        assert_eq!(db.stats().unwrap().cdc_operations, 1);
        if reopened {
            drop((conn, db));
            (db, conn) = open();
        }
        assert_eq!(push(&db, &http), 0, "it is known there");
        assert_eq!(db.stats().unwrap().cdc_operations, 0);
        insert(&conn, "b");
        assert_eq!(push(&db, &http), 1);
        assert_eq!(there(&s), texts(&["base", "a", "b"]));
    }
}

/// What such a one sends lands nowhere, and it could not settle what became of it.
#[test]
fn a_push_that_gets_no_answer_and_may_not_write_is_in_no_pulls_way() {
    use partial_sync_server::{Server, access::Access, auth::StaticToken};
    let mut s = Served::new(T);
    s.stop();
    let server = Server::builder(&s.file)
        .authenticator(StaticToken::new("reader", Access::ReadOnly))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let http = partial_sync_transport::HttpRemote::builder(format!("http://{}", server.addr()))
        .auth_token("reader")
        .build()
        .unwrap();
    let slow = crate::late_batches::Slow::new(Arc::new(http));
    let r = Replicas::new();
    let db = r.builder("a.db").remote_with(slow.clone()).connect().unwrap();
    let conn = db.connection().unwrap();
    insert(&conn, "mine");
    slow.lose_answers(true);
    db.push().unwrap_err();
    slow.lose_answers(false);
    s.execute("insert into t values (50, 'theirs')");
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(&conn, "select v from t order by v").unwrap(),
        texts(&["base", "mine", "theirs"])
    );
}
