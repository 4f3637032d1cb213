//! Where pushes meet what else can be wrong with a replica, a schema or a key.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use partial_sync::{Connection, Database, Error};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult},
};

use crate::{late_batches::Slow, support::*};

const T: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');";

fn open(r: &Replicas, s: &Served, name: &str) -> (Database, Connection) {
    let db = r
        .builder(name)
        .remote(s.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    (db, conn)
}

fn remote(s: &Served, sql: &str) -> Vec<String> {
    stock_rows(&s.sqlite(), sql).unwrap()
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| format!("Text({v:?})")).collect()
}

/// Copies a closed replica's files.
fn copy(r: &Replicas, from: &str, to: &str) {
    for file in r.files() {
        if let Some(rest) = file.strip_prefix(from) {
            std::fs::copy(r.path(&file), r.path(&format!("{to}{rest}"))).unwrap();
        }
    }
}

fn is_a_copy(error: &Error) -> bool {
    error.to_string().contains("restored from a backup or copied")
}

/// Two replicas that go by one client id: what the other one pushed is not what this one has made.
#[test]
fn h7_a_copied_replicas_changes_are_not_taken_for_those_of_the_original() {
    for pushed_before in [false, true] {
        for pulls in [false, true] {
            let s = Served::new(T);
            let r = Replicas::new();
            let (a, ca) = open(&r, &s, "a.db");
            ca.execute("insert into t(v) values ('both')", ()).unwrap();
            if pushed_before {
                a.push().unwrap();
            }
            drop((ca, a));
            copy(&r, "a.db", "b.db");
            let (a, ca) = open(&r, &s, "a.db");
            let (b, cb) = open(&r, &s, "b.db");
            ca.execute("insert into t(v) values ('a')", ()).unwrap();
            a.push().unwrap();
            for n in 0..3 {
                cb.execute("insert into t(v) values (?)", [format!("b{n}")])
                    .unwrap();
            }
            let all = rows(&cb, "select id, v from t").unwrap();
            let error = if pulls { b.pull().map(drop) } else { b.push() }.unwrap_err();
            assert!(is_a_copy(&error), "{error}");
            assert_eq!(rows(&cb, "select id, v from t").unwrap(), all);
            assert_eq!(
                remote(&s, "select v from t order by v"),
                texts(&["a", "base", "both"])
            );
        }
    }
}

/// What a push is known to have sent stays known: after a fence, a crash, another url.
#[test]
fn h7_what_landed_unheard_is_this_replicas_own_after_a_pull_that_failed() {
    let s =
        Served::new("create table t(id integer primary key, v unique); insert into t values (9, 'base');");
    let r = Replicas::new();
    let slow = Slow::new(s.http());
    let open = || {
        let db = r
            .builder("a.db")
            .remote_with(slow.clone())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        (db, conn)
    };
    let (a, ca) = open();
    ca.execute("insert into t(v) values ('a')", ()).unwrap();
    slow.lose_answers(true);
    a.push().unwrap_err();
    slow.lose_answers(false);
    ca.execute("insert into t(v) values ('b')", ()).unwrap();
    s.execute("insert into t values (50, 'b')");
    // The fence is there, the pull is not.
    assert!(matches!(a.pull().unwrap_err(), Error::PullConflict { .. }));
    drop((ca, a));
    s.execute("delete from t where id = 50");
    let (a, ca) = open();
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(
        remote(&s, "select v from t order by v"),
        texts(&["a", "b", "base"])
    );
    assert_eq!(
        rows(&ca, "select v from t order by v").unwrap(),
        texts(&["a", "b", "base"])
    );
}

#[test]
fn h7_a_key_that_nobody_chose_takes_no_row_away_where_the_table_says_replace_or_ignore() {
    for clause in ["replace", "ignore", "rollback", "fail"] {
        for pulls in [false, true] {
            let s = Served::new(&format!(
                "create table t(id integer primary key on conflict {clause}, v); insert into t values (9, 'base');"
            ));
            let r = Replicas::new();
            let (a, ca) = open(&r, &s, "a.db");
            let (b, cb) = open(&r, &s, "b.db");
            ca.execute("insert into t(v) values ('a')", ()).unwrap();
            cb.execute("insert into t(v) values ('b')", ()).unwrap();
            b.push().unwrap();
            if pulls {
                a.pull().unwrap();
            }
            a.push().unwrap();
            assert_eq!(
                remote(&s, "select v from t order by v"),
                texts(&["a", "b", "base"]),
                "{clause}"
            );
            a.pull().unwrap();
            assert_eq!(
                rows(&ca, "select v from t order by v").unwrap(),
                texts(&["a", "b", "base"]),
                "{clause}"
            );
        }
    }
}

/// A unique violation refuses the batch, or is a conflict of a pull, whatever the table says of violations.
#[test]
fn h7_a_unique_violation_is_never_resolved_in_silence() {
    for clause in ["replace", "ignore"] {
        for sql in [
            "insert into t(v, n) values ('same', 1)",
            "update t set v = 'same' where id = 9",
        ] {
            for pulls in [false, true] {
                let s = Served::new(&format!(
                    "create table t(id integer primary key, v text unique on conflict {clause}, n);
                     insert into t values (9, 'base', 0);"
                ));
                let r = Replicas::new();
                let (a, ca) = open(&r, &s, "a.db");
                ca.execute(sql, ()).unwrap();
                s.execute("insert into t values (50, 'same', 2)");
                let here = rows(&ca, "select * from t").unwrap();
                let there = remote(&s, "select * from t");
                match pulls {
                    true => assert!(
                        matches!(a.pull(), Err(Error::PullConflict { .. })),
                        "{clause} {sql}"
                    ),
                    false => assert!(matches!(a.push(), Err(Error::PushRefused(_))), "{clause} {sql}"),
                }
                assert_eq!(remote(&s, "select * from t"), there);
                assert_eq!(rows(&ca, "select * from t").unwrap(), here);
            }
        }
    }
}

/// badge -> employee -> person, where an employee's key is its person's.
#[test]
fn h7_what_refers_to_a_key_that_is_another_rows_key_follows() {
    let schema = "create table person(id integer primary key, v);
        create table employee(id integer primary key references person(id), v);
        create table badge(employee references employee(id), v);
        create table scan(id integer primary key, badge_of references badge(employee), v);
        insert into person values (9, 'base');";
    for pulls in [false, true] {
        for at_once in [false, true] {
            let s = Served::new(schema);
            let r = Replicas::new();
            let (a, ca) = open(&r, &s, "a.db");
            s.execute("insert into person values (10, 'b'); insert into employee values (10, 'b'); insert into badge values (10, 'b'); insert into scan(badge_of, v) values (10, 'b')");
            if at_once {
                ca.execute_batch("begin").unwrap();
            }
            ca.execute_batch("insert into person(v) values ('a'); insert into employee values (10, 'a'); insert into badge values (10, 'a'); insert into scan(badge_of, v) values (10, 'a');")
                .unwrap();
            if at_once {
                ca.execute_batch("commit").unwrap();
            }
            if pulls {
                a.pull().unwrap();
            }
            a.push().unwrap();
            let all = "select p.v || e.v || b.v || s.v from person p join employee e on e.id = p.id join badge b on b.employee = e.id join scan s on s.badge_of = b.employee order by 1";
            assert_eq!(remote(&s, all), texts(&["aaaa", "bbbb"]), "{pulls} {at_once}");
            a.pull().unwrap();
            assert_eq!(rows(&ca, all).unwrap(), texts(&["aaaa", "bbbb"]));
        }
    }
}

/// With foreign keys enforced, dropping a table deletes its rows first, and what refers to them goes too.
#[test]
fn a_dropped_parent_and_what_its_drop_took_away_land() {
    for action in ["cascade", "set null"] {
        let s = Served::new(&format!(
            "create table p(id integer primary key, v);
             create table c(id integer primary key, p references p(id) on delete {action}, v);
             insert into p values (1, 'x'), (2, 'y'); insert into c values (1, 1, 'one'), (2, 2, 'two'), (3, null, 'none');"
        ));
        let r = Replicas::new();
        let (a, ca) = open(&r, &s, "a.db");
        ca.execute_batch("pragma foreign_keys = on").unwrap();
        ca.execute_batch("drop table p").unwrap();
        let here = rows(&ca, "select * from c order by id").unwrap();
        let log: Vec<_> = a
            .local_changes(partial_sync::ChangeId(0), 100)
            .unwrap()
            .into_iter()
            .map(|c| c.what)
            .collect();
        println!("{log:?}");
        a.push().unwrap();
        assert_eq!(remote(&s, "select * from c order by id"), here, "{action}");
        a.pull().unwrap();
        assert_eq!(
            rows(&ca, "select * from c order by id").unwrap(),
            here,
            "{action}"
        );
    }
}

/// A row with the highest key that there is, which anybody may write, leaves no higher one.
#[test]
fn h7_a_row_with_the_highest_key_of_all_stops_nobody() {
    for pulls in [false, true] {
        let s = Served::new(T);
        let r = Replicas::new();
        let (a, ca) = open(&r, &s, "a.db");
        ca.execute("insert into t(v) values ('a'), ('a2')", ()).unwrap();
        s.execute("insert into t values (10, 'b'), (11, 'b2'), (9223372036854775807, 'c')");
        if pulls {
            a.pull().unwrap();
        }
        a.push().unwrap();
        assert_eq!(
            remote(&s, "select v from t order by v"),
            texts(&["a", "a2", "b", "b2", "base", "c"])
        );
        ca.execute("update t set v = v || '!' where v like 'a%'", ())
            .unwrap();
        a.push().unwrap();
        a.pull().unwrap();
        assert_eq!(
            rows(&ca, "select v from t order by v").unwrap(),
            texts(&["a!", "a2!", "b", "b2", "base", "c"])
        );
    }
}

/// What is noted of moved keys goes along once, with the batch that makes the row.
#[test]
fn h7_the_keys_of_many_batches_are_noted_once() {
    let s = Served::new(T);
    let r = Replicas::new();
    let slow = Slow::new(s.http());
    let db = r
        .builder("a.db")
        .remote_with(slow.clone())
        .push_operations_threshold(10);
    let a = db.connect().unwrap();
    let ca = a.connection().unwrap();
    s.execute("with recursive n(i) as (select 10 union all select i + 1 from n where i < 400) insert into t select i, 'b' from n");
    for _ in 0..300 {
        ca.execute("insert into t(v) values ('a')", ()).unwrap();
    }
    a.push().unwrap();
    // A row and a note, and what each batch of ten has besides; the first is sent twice.
    let steps = slow.steps();
    assert!(steps < 300 * 2 + 35 * 10 + 20, "{steps}");
    ca.execute("update t set v = 'a!' where v = 'a'", ()).unwrap();
    drop((ca, a));
    let a = r.builder("a.db").remote_with(slow.clone()).connect().unwrap();
    let ca = a.connection().unwrap();
    a.push().unwrap();
    assert_eq!(
        remote(&s, "select v, count(*) from t group by v"),
        [
            "Text(\"a!\")|Integer(300)",
            "Text(\"b\")|Integer(391)",
            "Text(\"base\")|Integer(1)"
        ]
    );
    // Notes of an earlier pull are forgotten.
    a.pull().unwrap();
    s.execute("insert into t values (701, 'c')");
    ca.execute("insert into t(v) values ('again')", ()).unwrap();
    a.push().unwrap();
    assert_eq!(
        remote(&s, "select count(*) from partial_sync_keys"),
        ["Integer(1)"]
    );
}

/// A local transaction is never split, so what it is too large for has to be told.
#[test]
fn a_transaction_that_is_too_large_for_the_remote_is_told_as_that() {
    let mut s = Served::new(T);
    s.stop();
    let server = partial_sync_server::Server::builder(&s.file)
        .limits(partial_sync_server::Limits {
            body: 4096,
            ..Default::default()
        })
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let r = Replicas::new();
    let a = r
        .builder("a.db")
        .remote(format!("http://{}", server.addr()))
        .connect()
        .unwrap();
    let ca = a.connection().unwrap();
    ca.execute("insert into t(v) values (zeroblob(8000))", ())
        .unwrap();
    let error = a.push().unwrap_err().to_string();
    assert!(
        error.contains("never split") && error.contains("raise its limits"),
        "{error}"
    );
    a.pull().unwrap();
    assert_eq!(rows(&ca, "select count(*) from t").unwrap(), ["Integer(2)"]);
}

/// More rows in one transaction than a batch of statements usually has.
#[test]
#[ignore = "takes its time"]
fn several_hundred_thousand_rows_in_one_transaction_land() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    ca.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < 300000) insert into t(v) select 'a' from n", ())
        .unwrap();
    a.push().unwrap();
    assert_eq!(remote(&s, "select count(*) from t"), ["Integer(300001)"]);
}

/// What became of a push that got no answer cannot be settled by one who may only read.
#[test]
fn h7_a_pull_that_may_not_settle_a_push_says_which_token_it_needs() {
    use partial_sync_server::{
        Server,
        access::Access,
        auth::{AnyOf, StaticToken},
    };
    let mut s = Served::new(T);
    s.stop();
    let server = Server::builder(&s.file)
        .authenticator(AnyOf(vec![
            Box::new(StaticToken::new("reader", Access::ReadOnly)),
            Box::new(StaticToken::new("writer", Access::Full)),
        ]))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}", server.addr());
    let r = Replicas::new();
    let with = |token: &str| {
        let http = partial_sync_transport::HttpRemote::builder(url.clone())
            .auth_token(token)
            .build()
            .unwrap();
        let slow = Slow::new(std::sync::Arc::new(http));
        let db = r.builder("a.db").remote_with(slow.clone()).connect().unwrap();
        let conn = db.connection().unwrap();
        (slow, db, conn)
    };
    let (slow, a, ca) = with("writer");
    ca.execute("insert into t(v) values ('a')", ()).unwrap();
    slow.stick(true);
    a.push().unwrap_err();
    drop((ca, a, slow));
    let (_slow, a, ca) = with("reader");
    let error = a.pull().unwrap_err().to_string();
    assert!(
        error.contains("a token that may write") && !error.contains("later"),
        "{error}"
    );
    assert_eq!(
        rows(&ca, "select v from t order by v").unwrap(),
        texts(&["a", "base"])
    );
    drop((ca, a));
    let (_slow, a, _ca) = with("writer");
    a.pull().unwrap();
    drop((_ca, a));
    let (_slow, a, _ca) = with("reader");
    a.pull().unwrap();
}

/// A remote while which is asked to commit, somebody commits here.
#[derive(Debug)]
struct Meanwhile {
    inner: Arc<dyn Remote>,
    writer: Mutex<Option<Connection>>,
    batches: AtomicUsize,
}

impl Remote for Meanwhile {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.inner.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        let commits = (batch.steps.iter()).any(|step| step.stmt.sql.as_deref() == Some("COMMIT"));
        if commits && self.batches.fetch_add(1, Ordering::Relaxed) < 50 {
            let writer = self.writer.lock().unwrap();
            writer
                .as_ref()
                .unwrap()
                .execute("insert into t(v) values ('meanwhile')", ())
                .unwrap();
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

/// A replica with so many rows to push, two in a batch.
fn beside_a_writer(s: &Served, r: &Replicas, rows: usize) -> (Arc<Meanwhile>, Database, Connection) {
    let meanwhile = Arc::new(Meanwhile {
        inner: s.http(),
        writer: Mutex::default(),
        batches: AtomicUsize::new(0),
    });
    let db = r
        .builder("a.db")
        .remote_with(meanwhile.clone())
        .partial(prefix(4096, 4096))
        .push_operations_threshold(2)
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    *meanwhile.writer.lock().unwrap() = Some(db.connection().unwrap());
    for n in 0..rows {
        conn.execute("insert into t(v) values (?)", [format!("{n}")])
            .unwrap();
    }
    (meanwhile, db, conn)
}

#[test]
fn a_push_beside_somebody_who_writes_without_a_pause_ends() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (meanwhile, db, conn) = beside_a_writer(&s, &r, 6);
    db.push().unwrap();
    let batches = meanwhile.batches.load(Ordering::Relaxed);
    assert!(batches <= 6, "{batches} batches");
    let before = remote(
        &s,
        "select v from t where v not in ('meanwhile', 'base') order by v",
    );
    assert_eq!(before, texts(&["0", "1", "2", "3", "4", "5"]));
    // What came later is pushed by the next ones.
    meanwhile.batches.store(50, Ordering::Relaxed);
    db.push().unwrap();
    assert_eq!(
        remote(&s, "select v from t order by id"),
        rows(&conn, "select v from t order by id").unwrap()
    );
}

/// It noted that it was about to send what was committed meanwhile, which it then left to the next push.
#[test]
fn a_push_beside_a_writer_leaves_a_pull_nothing_to_settle() {
    let s = Served::new(T);
    let r = Replicas::new();
    let (meanwhile, db, _conn) = beside_a_writer(&s, &r, 5);
    db.push().unwrap();
    meanwhile.batches.store(50, Ordering::Relaxed);
    db.pull().unwrap();
    assert_eq!(meanwhile.batches.load(Ordering::Relaxed), 50, "nothing to settle");
}
