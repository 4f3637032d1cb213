//! Changes that are given up, and what the remote may know of them.

use std::sync::Arc;

use crate::support::*;
use partial_sync::Database;
use partial_sync_core::ChangeId;
use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};

/// Was red: the newest change had landed, its answer was lost, and it was discarded; the remote then knew of a change that
/// the log did not, and the replica was said to be restored from a backup. It is not discarded any more.
#[test]
fn sync_goes_on_after_the_newest_change_landed_unheard_and_was_to_be_discarded() {
    for pulled_first in [false, true] {
        goes_on(pulled_first);
    }
}

fn goes_on(pulled_first: bool) {
    let served = Served::new("create table t(id integer primary key, v text)");
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (1, 'a')", ()).unwrap();
    conn.execute("insert into t values (2, 'b')", ()).unwrap();
    // The batch, then the question how far the remote is.
    faulty.fail_nth(1, Fault::LoseAnswer);
    faulty.fail_nth(2, Fault::Fail(RemoteErrorKind::Unreachable));
    db.push().unwrap_err();
    faulty.heal();
    assert!(!db.discard_change(ChangeId(2)).unwrap());
    if pulled_first {
        db.pull().unwrap();
    }
    db.push().unwrap();
    conn.execute("insert into t values (3, 'c')", ()).unwrap();
    db.push().unwrap();
    let there = stock_rows(&served.sqlite(), "select id from t order by id").unwrap();
    assert_eq!(there, ["Integer(1)", "Integer(2)", "Integer(3)"]);
}

fn small(served: &Served, replicas: &Replicas, name: &str) -> Database {
    replicas
        .builder(name)
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap()
}

fn same(served: &Served, db: &Database) {
    let conn = db.connection().unwrap();
    assert_same(
        &contents(&conn),
        &stock_contents(&served.sqlite()),
        "replica and remote",
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

/// Was red: the discarded change stayed in the replica until the remote had news, and in tables that nobody else wrote for
/// good.
#[test]
fn s6_what_was_discarded_is_gone_with_the_next_pull_even_without_news() {
    let served = Served::new("create table t(id integer primary key, v text); insert into t values (1, 'a')");
    let replicas = Replicas::new();
    let db = small(&served, &replicas, "a.db");
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "insert into t values (2, 'kept'); update t set v = 'x' where id = 1; create table mine(a); insert into mine values (1)",
    )
    .unwrap();
    let listed = db.local_changes(ChangeId(0), 100).unwrap();
    let what: Vec<&str> = listed.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(
        what,
        [
            "insert into \"t\" (id = 2)",
            "update \"t\" (id = 1)",
            "create table mine(a)",
            "insert into \"mine\" (a = 1)"
        ]
    );
    assert_eq!(db.local_changes(listed[0].id, 1).unwrap(), listed[1..2]);
    assert!(db.discard_change(listed[1].id).unwrap());
    assert_eq!(
        db.discard_change_with_dependents(listed[2].id).unwrap(),
        [listed[2].id, listed[3].id]
    );
    assert!(
        db.discard_change_with_dependents(listed[2].id)
            .unwrap()
            .is_empty()
    );
    // It holds across a restart.
    drop((conn, db));
    let db = small(&served, &replicas, "a.db");
    let conn = db.connection().unwrap();
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(&conn, "select v from t").unwrap(),
        ["Text(\"a\")", "Text(\"kept\")"]
    );
    assert!(conn.prepare("select * from mine").is_err());
    assert!(!db.pull().unwrap(), "once");
    db.push().unwrap();
    db.pull().unwrap();
    same(&served, &db);
}

/// Was red: there was no way out of it but to give up the replica.
#[test]
fn s6_a_refused_unique_index_is_discarded_alone_and_what_depends_on_it_with_it() {
    for (script, taken, left) in [
        (
            "create unique index ui on t(v); insert into t values (4, 'd')",
            1,
            1,
        ),
        ("create unique index ui on t(v); drop index ui", 2, 0),
    ] {
        let served =
            Served::new("create table t(id integer primary key, v text); insert into t values (1, 'a')");
        let replicas = Replicas::new();
        let db = small(&served, &replicas, "a.db");
        db.connection().unwrap().execute_batch(script).unwrap();
        served.execute("insert into t values (2, 'a')");
        for error in [
            db.push().unwrap_err(),
            db.pull().unwrap_err(),
            db.push().unwrap_err(),
        ] {
            let change = error.change().expect("it names the change");
            assert!(
                error.to_string().contains(&format!("discard_change({change})")),
                "{error}"
            );
            assert!(!error.to_string().contains("transform"), "{error}");
        }
        let change = db.push().unwrap_err().change().unwrap();
        assert_eq!(db.discard_change_with_dependents(change).unwrap().len(), taken);
        assert_eq!(db.stats().unwrap().cdc_operations, left);
        db.pull().unwrap();
        db.push().unwrap();
        db.pull().unwrap();
        same(&served, &db);
    }
}

#[test]
fn s6_what_depends_on_a_row_goes_with_it() {
    let served = Served::new(
        "create table p(id integer primary key, v); create table c(id integer primary key, p references p, w);
         create table bare(a, b)",
    );
    let replicas = Replicas::new();
    let db = small(&served, &replicas, "a.db");
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "insert into p values (1, 'a'), (2, 'b'); insert into c values (10, 1, 'x'), (11, 2, 'y'); update p set id = 3 where id = 1;
         update c set w = 'z' where id = 10; update p set v = 'c' where id = 3; delete from c where id = 10;
         insert into bare values (1, 2); update bare set b = 3; delete from p where id = 2",
    )
    .unwrap();
    let first = db.local_changes(ChangeId(0), 1).unwrap()[0].id;
    let gone = db.discard_change_with_dependents(first).unwrap();
    let left: Vec<String> = db
        .local_changes(ChangeId(0), 100)
        .unwrap()
        .into_iter()
        .map(|change| change.what)
        .collect();
    assert_eq!(
        left,
        [
            "insert into \"p\" (id = 2)",
            "insert into \"c\" (id = 11)",
            "insert into \"bare\" (a = 1, b = 2)",
            "update \"bare\" (a = 1, b = 2)",
            "delete from \"p\" (id = 2)",
        ]
    );
    assert_eq!(gone.len(), 6);
    db.pull().unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    same(&served, &db);
}

#[test]
fn s6_what_depends_on_a_schema_change_goes_with_it() {
    let served = Served::new("create table t(id integer primary key, a); create table u(x)");
    let replicas = Replicas::new();
    let db = small(&served, &replicas, "a.db");
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "insert into t values (1, 'a'); alter table t rename to \"New T\"; insert into \"New T\" values (2, 'b');
         create view v as select * from [new t]; insert into u values (1); drop view v; pragma user_version = 3",
    )
    .unwrap();
    let rename = db.local_changes(ChangeId(0), 100).unwrap()[1].id;
    assert_eq!(db.discard_change_with_dependents(rename).unwrap().len(), 4);
    db.pull().unwrap();
    assert_eq!(rows(&conn, "select id from t").unwrap(), ["Integer(1)"]);
    db.push().unwrap();
    db.pull().unwrap();
    same(&served, &db);
    assert_eq!(rows(&conn, "pragma user_version").unwrap(), ["Integer(3)"]);
}

/// A push that does not end would hold the test for ever.
fn push_within_seconds(db: &Arc<Database>) -> Result<(), String> {
    let (done, wait) = std::sync::mpsc::channel();
    let db = db.clone();
    std::thread::spawn(move || done.send(db.push().map_err(|e| e.to_string())));
    wait.recv_timeout(std::time::Duration::from_secs(20))
        .map_err(|_| "the push does not end".to_owned())?
}

/// Was red: the rest of the transaction kept the discarded change's number, so it was never done with: it was pushed again
/// and again, without end.
#[test]
fn s6_the_rest_of_a_transaction_whose_last_change_was_discarded_arrives_once() {
    for pulled_first in [false, true] {
        let served = Served::new("create table t(v); create table u(id integer primary key)");
        let replicas = Replicas::new();
        let db = Arc::new(small(&served, &replicas, "a.db"));
        let conn = db.connection().unwrap();
        conn.execute_batch("begin; insert into t values ('once'); insert into u values (1); commit")
            .unwrap();
        let changes = db.local_changes(ChangeId(0), 10).unwrap();
        assert!(db.discard_change(changes[1].id).unwrap());
        if pulled_first {
            db.pull().unwrap();
        }
        push_within_seconds(&db).unwrap();
        assert_eq!(db.stats().unwrap().cdc_operations, 0);
        conn.execute("insert into u values (2)", ()).unwrap();
        let newest = db.local_changes(ChangeId(0), 10).unwrap().pop().unwrap().id;
        assert!(newest > changes[1].id, "the discarded number is given again");
        push_within_seconds(&db).unwrap();
        let there = stock_rows(&served.sqlite(), "select v from t").unwrap();
        assert_eq!(there, [r#"Text("once")"#], "pulled first: {pulled_first}");
        let there = stock_rows(&served.sqlite(), "select id from u").unwrap();
        assert_eq!(there, ["Integer(2)"], "pulled first: {pulled_first}");
    }
}

#[test]
fn s6_the_remedy_that_a_refusal_names_ends_the_refusal() {
    let served = Served::new("create table log(v); create table t(id integer primary key, u unique)");
    let replicas = Replicas::new();
    let db = Arc::new(small(&served, &replicas, "a.db"));
    let conn = db.connection().unwrap();
    served.execute("insert into t values (1, 'taken')");
    conn.execute_batch("begin; insert into log values ('once'); insert into t values (2, 'taken'); commit")
        .unwrap();
    assert!(matches!(db.push(), Err(partial_sync::Error::PushRefused(_))));
    let last = db.local_changes(ChangeId(0), 10).unwrap().pop().unwrap().id;
    assert!(db.discard_change(last).unwrap());
    push_within_seconds(&db).unwrap();
    let there = stock_rows(&served.sqlite(), "select v from log").unwrap();
    assert_eq!(there, [r#"Text("once")"#]);
}

/// The remote has the whole transaction: there is nothing to give up, and nothing to put back.
#[test]
fn s6_a_transaction_that_landed_unheard_is_not_given_up_in_part() {
    for pull in [false, true] {
        let served = Served::new("create table t(v)");
        let replicas = Replicas::new();
        let faulty = Arc::new(Faulty::new(served.http()));
        let db = replicas.builder("a.db");
        let db = db
            .remote_with(faulty.clone())
            .partial(prefix(4096, 4096))
            .connect();
        let db = Arc::new(db.unwrap());
        let conn = db.connection().unwrap();
        conn.execute_batch("begin; insert into t values ('a'); insert into t values ('b'); commit")
            .unwrap();
        faulty.fail_nth(1, Fault::LoseAnswer);
        faulty.fail_nth(2, Fault::Fail(RemoteErrorKind::Unreachable));
        db.push().unwrap_err();
        faulty.heal();
        let last = db.local_changes(ChangeId(0), 10).unwrap().pop().unwrap().id;
        assert!(!db.discard_change(last).unwrap());
        match pull {
            true => db.pull().map(drop).unwrap(),
            false => db.push().unwrap(),
        }
        conn.execute("insert into t values ('c')", ()).unwrap();
        push_within_seconds(&db).unwrap();
        let there = stock_rows(&served.sqlite(), "select v from t order by v").unwrap();
        assert_eq!(there, [r#"Text("a")"#, r#"Text("b")"#, r#"Text("c")"#]);
    }
}
