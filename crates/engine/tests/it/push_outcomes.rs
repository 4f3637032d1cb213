//! What comes of a push: who wins, what a transform makes of it, a change that is refused or cannot be put back, an answer that is
//! lost, batches; and that two replicas and the remote agree after many of them.

use std::sync::Arc;

use super::push_rules::{checked, small};
use crate::support::*;
use partial_sync::{
    Database, Error,
    change::{
        Value,
        transform::{ChangeType, Transform, TransformMutation},
    },
};
use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};

fn two(served: &Served, replicas: &Replicas) -> (Database, Database) {
    let open = |name: &str| small(replicas.builder(name).remote(served.url()));
    (open("a.db"), open("b.db"))
}

#[test]
fn the_last_push_wins_by_row_on_insert_and_by_column_on_update() {
    let served = Served::new(
        "create table t(id integer primary key, x, y); insert into t values (1, 'x', 'y'), (2, 'x', 'y'), (3, 'x', 'y');",
    );
    let replicas = Replicas::new();
    let (a, b) = two(&served, &replicas);
    let (ca, cb) = (a.connection().unwrap(), b.connection().unwrap());
    ca.execute_batch("update t set x = 'a' where id = 1; update t set x = 'a', y = 'a' where id = 2; insert into t values (10, 'a', 'a'); delete from t where id = 3;")
        .unwrap();
    cb.execute_batch("update t set y = 'b' where id = 1; update t set x = 'b' where id = 2; insert into t values (10, 'b', null); update t set x = 'lost' where id = 3;")
        .unwrap();
    a.push().unwrap();
    b.push().unwrap();
    a.pull().unwrap();
    b.pull().unwrap();
    let expected = [
        "Integer(1)|Text(\"a\")|Text(\"b\")",
        "Integer(2)|Text(\"b\")|Text(\"a\")",
        "Integer(10)|Text(\"b\")|Null",
    ];
    assert_eq!(rows(&ca, "select * from t order by id").unwrap(), expected);
    assert_eq!(rows(&cb, "select * from t order by id").unwrap(), expected);
}

#[test]
fn a_transform_skips_and_rewrites_what_is_pushed_and_put_back() {
    let served = Served::new(
        "create table t(id integer primary key, v text); create table secret(id integer primary key, v); insert into t values (1, 'one');",
    );
    let replicas = Replicas::new();
    let transform = |m: &TransformMutation| match (m.table_name.as_str(), m.change_type) {
        ("secret", _) => Transform::Skip,
        ("t", ChangeType::Insert) => Transform::Rewrite {
            sql: "insert into t values (?, upper(?))".into(),
            values: vec![
                Value::Integer(m.id.unwrap()),
                m.after.as_ref().unwrap()["v"].clone(),
            ],
        },
        _ => Transform::Keep,
    };
    let a = small(
        replicas
            .builder("a.db")
            .remote(served.url())
            .transform(Arc::new(transform)),
    );
    let conn = a.connection().unwrap();
    conn.execute_batch("insert into secret values (1, 'not for them'); insert into t values (2, 'two'); update t set v = 'uno' where id = 1;")
        .unwrap();
    served.execute("insert into t values (3, 'three')");
    assert!(a.pull().unwrap());
    let expected = [
        "Integer(1)|Text(\"uno\")",
        "Integer(2)|Text(\"TWO\")",
        "Integer(3)|Text(\"three\")",
    ];
    assert_eq!(rows(&conn, "select * from t").unwrap(), expected);
    assert_eq!(rows(&conn, "select * from secret").unwrap(), [""; 0]);
    a.push().unwrap();
    assert_eq!(stock_rows(&served.sqlite(), "select * from t").unwrap(), expected);
    assert_eq!(
        stock_rows(&served.sqlite(), "select * from secret").unwrap(),
        [""; 0]
    );
    a.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

#[test]
fn a_refused_change_is_named_leaves_the_log_as_it_was_and_can_be_discarded() {
    let served = Served::new(
        "create table t(id integer primary key, u text unique); insert into t values (1, 'one');",
    );
    let replicas = Replicas::new();
    let a = small(replicas.builder("a.db").remote(served.url()));
    let conn = a.connection().unwrap();
    conn.execute_batch("insert into t values (5, 'fine'); insert into t values (6, 'taken'); insert into t values (7, 'fine too');")
        .unwrap();
    served.execute("insert into t values (2, 'taken')");
    let mine = contents(&conn);
    let mut refused = None;
    for _ in 0..2 {
        let Error::PushRefused(error) = a.push().unwrap_err() else {
            panic!("not the error expected")
        };
        assert_eq!(error.table.as_deref(), Some("t"));
        assert_eq!(error.key, [("id".to_owned(), Value::Integer(6))]);
        assert_eq!(error.message, "UNIQUE constraint failed: t.u");
        assert!(error.to_string().contains("discard"), "{error}");
        assert_eq!(a.stats().unwrap().cdc_operations, 3);
        assert_eq!(contents(&conn), mine);
        // A batch lands whole or not at all: invariant 3.
        assert_eq!(
            stock_rows(&served.sqlite(), "select count(*) from t").unwrap(),
            ["Integer(2)"]
        );
        refused = error.change_id;
    }
    assert!(a.discard_change(refused.unwrap()).unwrap());
    assert!(!a.discard_change(refused.unwrap()).unwrap());
    assert_eq!(a.stats().unwrap().cdc_operations, 2);
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(
        rows(&conn, "select * from t").unwrap(),
        [
            "Integer(1)|Text(\"one\")",
            "Integer(2)|Text(\"taken\")",
            "Integer(5)|Text(\"fine\")",
            "Integer(7)|Text(\"fine too\")"
        ]
    );
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    checked(&conn, "after the discarded change");
}

#[test]
fn a_change_that_cannot_be_put_back_stops_the_pull_and_changes_nothing() {
    let served = Served::new(
        "create table t(id integer primary key, u text unique); insert into t values (1, 'one');",
    );
    let replicas = Replicas::new();
    let a = small(replicas.builder("a.db").remote(served.url()));
    let conn = a.connection().unwrap();
    conn.execute_batch("insert into t values (5, 'fine'); insert into t values (6, 'taken');")
        .unwrap();
    served.execute("insert into t values (2, 'taken')");
    let before = (contents(&conn), a.stats().unwrap().revision);
    for _ in 0..2 {
        let error = a.pull().unwrap_err();
        let Error::PullConflict {
            change,
            what,
            message,
        } = &error
        else {
            panic!("{error}")
        };
        assert!(what.contains('t') && what.contains("id = 6"), "{what}");
        assert_eq!(message, "UNIQUE constraint failed: t.u");
        assert!(
            error.to_string().contains(&format!("discard_change({change})")),
            "{error}"
        );
        assert_eq!((contents(&conn), a.stats().unwrap().revision), before);
        assert_eq!(a.stats().unwrap().cdc_operations, 2);
    }
    // The replica stays usable, and the user can take the row out of the way.
    conn.execute("update t set u = 'mine' where id = 6", ()).unwrap();
    let Error::PullConflict { change, .. } = a.pull().unwrap_err() else {
        panic!("not a conflict")
    };
    assert!(a.discard_change(change).unwrap());
    assert!(a.pull().unwrap());
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    checked(&conn, "after the conflict");
}

#[test]
fn invariant_2_a_lost_answer_does_not_make_a_change_land_twice() {
    for nth in 1..=6 {
        let served = Served::new("create table t(v);");
        let replicas = Replicas::new();
        let remote = Arc::new(Faulty::new(served.http()));
        let a = small(
            replicas
                .builder("a.db")
                .remote_with(remote.clone())
                .push_operations_threshold(2),
        );
        let conn = a.connection().unwrap();
        for n in 0..6 {
            conn.execute("insert into t values (?)", (n % 2,)).unwrap();
        }
        remote.fail_nth(nth, Fault::LoseAnswer);
        let mut failures = 0;
        while let Err(error) = a.push() {
            assert!(error.is_transient(), "{error}");
            failures += 1;
            assert!(failures <= 1, "the fault happened once");
            // What was made after a failed push lands after what may have landed.
            conn.execute("insert into t values ('later')", ()).unwrap();
        }
        remote.heal();
        let expected = 6 + failures;
        let count = stock_rows(&served.sqlite(), "select count(*) from t").unwrap();
        assert_eq!(count, [format!("Integer({expected})")], "answer {nth} was lost");
        a.pull().unwrap();
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    }
}

#[test]
fn invariant_2_a_pull_after_a_lost_answer_does_not_put_back_what_landed() {
    let served = Served::new("create table t(v);");
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let a = small(replicas.builder("a.db").remote_with(remote.clone()));
    let conn = a.connection().unwrap();
    conn.execute_batch("insert into t values (1), (1); insert into t values (2);")
        .unwrap();
    remote.fail_nth(1, Fault::LoseAnswer);
    assert!(a.push().is_err());
    conn.execute("insert into t values (3)", ()).unwrap();
    assert!(a.pull().unwrap());
    assert_eq!(
        rows(&conn, "select v from t order by v").unwrap(),
        ["Integer(1)", "Integer(1)", "Integer(2)", "Integer(3)"]
    );
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(
        stock_rows(&served.sqlite(), "select count(*) from t").unwrap(),
        ["Integer(4)"]
    );
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

#[test]
fn invariant_3_a_local_transaction_lands_whole_or_not_at_all_however_small_the_batches() {
    let served = Served::new(
        "create table t(id integer primary key, u unique); insert into t values (1000, 'taken');",
    );
    let replicas = Replicas::new();
    let a = small(
        replicas
            .builder("a.db")
            .remote(served.url())
            .push_operations_threshold(2),
    );
    let conn = a.connection().unwrap();
    conn.execute_batch(
        "insert into t values (1, 'alone');
         begin; with recursive c(x) as (select 10 union all select x + 1 from c where x < 30) insert into t select x, x from c; commit;",
    )
    .unwrap();
    // Not known here, because its page was never looked at in time.
    served.execute("insert into t values (2000, 'thirty')");
    conn.execute_batch("begin; insert into t values (40, 'good'); insert into t values (41, 'thirty'); insert into t values (42, 'never'); commit;")
        .unwrap();
    let error = a.push().unwrap_err();
    assert!(matches!(error, Error::PushRefused(_)), "{error}");
    let there = stock_rows(
        &served.sqlite(),
        "select count(*), max(id) from t where id < 1000",
    )
    .unwrap();
    assert_eq!(
        there,
        ["Integer(22)|Integer(30)"],
        "two transactions landed, the third did not, not in part"
    );
    assert_eq!(a.stats().unwrap().cdc_operations, 3);
    // Cut off before it arrives: nothing lands.
    served.execute("delete from t where id = 2000");
    let faulty = Arc::new(Faulty::new(served.http()));
    drop((conn, a));
    let a = small(replicas.builder("a.db").remote_with(faulty.clone()));
    faulty.fail_from(1, Fault::Fail(RemoteErrorKind::Unreachable));
    assert!(a.push().unwrap_err().is_transient());
    assert_eq!(
        stock_rows(
            &served.sqlite(),
            "select count(*) from t where id between 40 and 42"
        )
        .unwrap(),
        ["Integer(0)"]
    );
    faulty.heal();
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(
        stock_rows(
            &served.sqlite(),
            "select count(*) from t where id between 40 and 42"
        )
        .unwrap(),
        ["Integer(3)"]
    );
    assert_eq!(
        contents(&a.connection().unwrap()),
        stock_contents(&served.sqlite())
    );
}

/// A replica writes all the time, the remote too; after every few steps everybody has the same.
#[test]
fn invariant_7_two_replicas_and_the_remote_agree_after_many_rounds() {
    let mut random = fastrand::Rng::with_seed(seed());
    let served = Served::new(
        "create table t(id integer primary key, u text unique, v, w); create table k(a, b); create index kv on t(v);
         create table audit(n integer primary key, what text);
         create trigger ta after insert on t begin insert into audit(what) values ('insert ' || new.id); end;",
    );
    let replicas = Replicas::new();
    let (a, b) = two(&served, &replicas);
    let conns = [a.connection().unwrap(), b.connection().unwrap()];
    let mut unique = 0;
    for round in 0..25 {
        for (who, db) in [&a, &b].into_iter().enumerate() {
            for _ in 0..random.u32(0..8) {
                unique += 1;
                // Each writes rows of its own, but both update and delete any row.
                let id = random.u32(0..40) * 2 + who as u32;
                let any = random.u32(0..80);
                let sql = match random.u32(0..7) {
                    0 | 1 => format!(
                        "insert or ignore into t values ({id}, 'u{unique}', {unique}, zeroblob({}))",
                        random.u32(0..6000)
                    ),
                    2 => format!("update t set v = {unique} where id = {any}"),
                    3 => format!(
                        "update t set w = zeroblob({}) where id = {any}",
                        random.u32(0..9000)
                    ),
                    4 => format!("delete from t where id = {any}"),
                    5 => format!("insert into k values ({who}, {})", unique % 3),
                    _ => format!("delete from k where a = {who} and b = {}", unique % 3),
                };
                conns[who]
                    .execute(&sql, ())
                    .unwrap_or_else(|e| panic!("{sql}: {e}"));
            }
            match random.u32(0..4) {
                0 => db.push().unwrap(),
                1 => drop(db.pull().unwrap()),
                2 => db.checkpoint().unwrap(),
                _ => {}
            }
        }
        let theirs = 200 + random.u32(0..5);
        match random.u32(0..12) {
            0 | 1 => served.execute(&format!(
                "insert or replace into t values ({theirs}, 'r{unique}', 1, zeroblob(20000))"
            )),
            // Rows of `k` have no key: of those that a client knows of, the remote takes none away, or that client's
            // own DELETE would find nothing and be refused.
            2 => served.execute(&format!(
                "delete from t where id % 7 = 3; delete from k where a = 2; insert into k values (2, {unique})"
            )),
            3 => served.execute("vacuum"),
            4 => served.execute(&format!("update t set v = -{unique}")),
            _ => {}
        }
        if round % 5 == 4 {
            for db in [&a, &b, &a, &b] {
                db.push().unwrap();
                db.pull().unwrap();
            }
            let remote = stock_contents(&served.sqlite());
            for (who, conn) in conns.iter().enumerate() {
                assert_same(
                    &contents(conn),
                    &remote,
                    &format!("round {round}: replica {who} and the remote"),
                );
                checked(conn, "after many rounds");
            }
        }
    }
}
