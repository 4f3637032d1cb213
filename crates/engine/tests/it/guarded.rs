//! What a statement may not touch, and what SQLite keeps outside of tables (pragmas, counters, statistics): through a
//! replica, a push, a pull and the server's SQL.

use crate::support::*;
use partial_sync::{Connection, Database, Error};
use partial_sync_transport::hrana::{Batch, Condition, Step, Stmt, Value};

const SCRIPT: &str =
    "create table t(id integer primary key autoincrement, v text); insert into t(v) values ('a'), ('b');
    create table u(id integer primary key, x)";

fn open(served: &Served, replicas: &Replicas, name: &str) -> Database {
    replicas
        .builder(name)
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap()
}

/// Runs statements on the remote as any client of SQL over HTTP does, each on its own; gives the first error.
fn over_http(served: &Served, sql: &str, args: Vec<Value>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let step = |condition, sql: &str, args| Step {
        condition,
        stmt: Stmt::new(sql, args),
    };
    let steps = vec![
        step(None, sql, args),
        step(Some(Condition::Ok { step: 0 }), "select 1", vec![]),
    ];
    let result = runtime
        .block_on(served.http().execute(
            Batch {
                steps,
                ..Batch::default()
            },
            None,
        ))
        .map_err(|e| e.to_string())?;
    match result.step_errors.into_iter().flatten().next() {
        Some(error) => Err(error.message),
        None => Ok(()),
    }
}

#[track_caller]
fn unsupported(conn: &Connection, sql: &str) -> String {
    match conn.execute_batch(sql) {
        Err(error @ Error::Unsupported { .. }) => error.to_string(),
        other => panic!("{sql}: {other:?}"),
    }
}

#[track_caller]
fn same(served: &Served, db: &Database) {
    let conn = db.connection().unwrap();
    assert_same(
        &contents(&conn),
        &stock_contents(&served.sqlite()),
        "replica and remote",
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

/// Was red: the table was dropped, and with it what every other client had been told was there.
#[test]
fn s2_the_table_of_positions_survives_every_client() {
    let served = Served::new(SCRIPT);
    let replicas = Replicas::new();
    let (a, b) = (open(&served, &replicas, "a.db"), open(&served, &replicas, "b.db"));
    let conn = a.connection().unwrap();
    conn.execute("insert into t(v) values ('c')", ()).unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    for sql in [
        "drop table turso_sync_last_change_id",
        "delete from turso_sync_last_change_id",
        "create trigger tr after insert on turso_sync_last_change_id begin select 1; end",
    ] {
        assert!(
            unsupported(&conn, sql).contains("turso_sync_last_change_id"),
            "{sql}"
        );
    }
    for sql in [
        "drop table turso_sync_last_change_id",
        "delete from turso_sync_last_change_id",
        "alter table turso_sync_last_change_id rename to x",
        "alter table turso_sync_last_change_id add column x",
        "alter table turso_sync_last_change_id drop column change_id",
        "alter table turso_sync_last_change_id rename column change_id to x",
        "alter table t rename to partial_sync_changes",
        "create index i on turso_sync_last_change_id(change_id)",
        "create trigger tr after insert on turso_sync_last_change_id begin delete from t; end",
        "create trigger tr after insert on u begin delete from turso_sync_last_change_id; end",
        "create view v as select * from turso_sync_last_change_id",
        "update turso_sync_last_change_id set client_id = 'x'",
        "create table partial_sync_changes(a)",
        "create table partial_sync_other(a)",
        "insert into turso_sync_last_change_id select 'new' || value, 1, 1 from generate_series(1, 2)",
    ] {
        let refused = over_http(&served, sql, vec![]).unwrap_err();
        assert!(refused.contains("not allowed here"), "{sql}: {refused}");
    }
    // As clients of others do it.
    let text = |value: &str| Value::Text { value: value.into() };
    let number = |value| Value::Integer { value };
    let own = || vec![text("other"), number(1), number(7)];
    for (sql, args) in [
        (
            "CREATE TABLE IF NOT EXISTS turso_sync_last_change_id (client_id TEXT PRIMARY KEY, pull_gen INTEGER, change_id INTEGER)",
            vec![],
        ),
        (
            "INSERT INTO turso_sync_last_change_id(client_id, pull_gen, change_id) VALUES (?, ?, ?)",
            own(),
        ),
        (
            "INSERT INTO turso_sync_last_change_id(client_id, pull_gen, change_id) VALUES (?, ?, ?) ON CONFLICT(client_id) DO UPDATE SET pull_gen=excluded.pull_gen, change_id=excluded.change_id",
            own(),
        ),
        (
            "UPDATE turso_sync_last_change_id SET pull_gen = ?, change_id = ? WHERE client_id = ?",
            vec![number(2), number(8), text("other")],
        ),
    ] {
        over_http(&served, sql, args).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let refused = over_http(
        &served,
        "UPDATE turso_sync_last_change_id SET change_id = 0",
        vec![],
    );
    assert!(refused.unwrap_err().contains("its own row only"));
    let there = "select iif(change_id = 8, pull_gen, 'a mark'), change_id from turso_sync_last_change_id order by change_id";
    assert_eq!(
        stock_rows(&served.sqlite(), there).unwrap(),
        ["Text(\"a mark\")|Integer(1)", "Integer(2)|Integer(8)"]
    );
    conn.execute("insert into t(v) values ('d')", ()).unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    b.pull().unwrap();
    same(&served, &a);
    same(&served, &b);
}

/// A trigger that somebody made on the remote's file by hand does not let a client's statement through.
#[test]
fn s2_a_trigger_writes_no_positions() {
    let served = Served::new(
        "create table t(id integer primary key); create table turso_sync_last_change_id \
         (client_id text primary key, pull_gen integer, change_id integer); \
         create trigger tr after insert on t begin delete from turso_sync_last_change_id; end",
    );
    let replicas = Replicas::new();
    let db = open(&served, &replicas, "a.db");
    unsupported(&db.connection().unwrap(), "insert into t values (1)");
    let refused = over_http(&served, "insert into t values (1)", vec![]).unwrap_err();
    assert!(refused.contains("not allowed here"), "{refused}");
}

/// Was red: it was never pushed, and the next pull undid it, so that an application ran its migrations twice.
#[test]
fn h3_user_version_and_application_id_are_pushed_put_back_and_pulled() {
    let served = Served::new(SCRIPT);
    let replicas = Replicas::new();
    let (a, b) = (open(&served, &replicas, "a.db"), open(&served, &replicas, "b.db"));
    let conn = a.connection().unwrap();
    let versions = |conn: &Connection| {
        let one = |sql| rows(conn, sql).unwrap().remove(0);
        (one("pragma user_version"), one("pragma application_id"))
    };
    let expected = ("Integer(5)".to_owned(), "Integer(-7)".to_owned());
    conn.execute_batch(
        "begin; alter table t add column n; pragma main.user_version(5); pragma application_id = -7; commit;
         begin; pragma user_version = 9; rollback",
    )
    .unwrap();
    assert_eq!(versions(&conn), expected);
    served.execute("insert into t(v) values ('theirs')");
    a.pull().unwrap();
    assert_eq!(versions(&conn), expected, "put back");
    a.push().unwrap();
    assert_eq!(a.stats().unwrap().cdc_operations, 0);
    let there = |sql| stock_rows(&served.sqlite(), sql).unwrap().remove(0);
    assert_eq!(
        (there("pragma user_version"), there("pragma application_id")),
        expected
    );
    a.pull().unwrap();
    b.pull().unwrap();
    assert_eq!(versions(&conn), expected);
    assert_eq!(versions(&b.connection().unwrap()), expected);
    same(&served, &a);
    drop((conn, a));
    let again = open(&served, &replicas, "a.db");
    assert_eq!(versions(&again.connection().unwrap()), expected);
}

/// Was red: what was written to the other replica was not recorded there, and vanished.
#[test]
fn h4_a_replica_is_not_attached_under_any_name() {
    let served = Served::new(SCRIPT);
    let replicas = Replicas::new();
    let (a, b, closed) = (
        open(&served, &replicas, "a.db"),
        open(&served, &replicas, "b.db"),
        open(&served, &replicas, "closed.db"),
    );
    drop(closed);
    let path = |name| replicas.path(name).canonicalize().unwrap().display().to_string();
    let plain = replicas.path("plain.db");
    stock(&plain).execute_batch("create table p(a)").unwrap();
    let mut names = vec![];
    for name in ["a.db", "b.db", "closed.db"] {
        let full = path(name);
        names.push(full.clone());
        names.push(format!("file:{full}"));
        names.push(format!("file:{full}?mode=ro&immutable=1"));
        names.push(format!("file://{full}?vfs=unix"));
        names.push(format!("file:{full}?%76fs=unix-none"));
        names.push(full.replace("/", "/./"));
        #[cfg(unix)]
        {
            let link = replicas.path(&format!("link-{name}"));
            std::os::unix::fs::symlink(&full, &link).unwrap();
            names.push(link.display().to_string());
            let here = std::env::current_dir().unwrap();
            let up = "../".repeat(here.components().count());
            names.push(format!("{up}{}", full.trim_start_matches('/')));
            if name != "closed.db" {
                let hard = replicas.path(&format!("hard-{name}"));
                std::fs::hard_link(&full, &hard).unwrap();
                names.push(hard.display().to_string());
            }
        }
    }
    let local = Database::builder(&plain).connect().unwrap().connection().unwrap();
    let conn = a.connection().unwrap();
    for name in &names {
        for sql in ["attach ? as other", "attach database '' || ? as other"] {
            let error = conn.execute(sql, [name.as_str()]).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error:?}");
        }
        if !name.contains("fs=") {
            let error = local.execute("attach ? as other", [name.as_str()]).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error:?}");
            assert!(
                error.to_string().contains("Open it as a database of its own"),
                "{error}"
            );
        }
        unsupported(&conn, &format!("attach '{name}' as other"));
        assert!(conn.execute_batch("select * from other.t").is_err());
        for from in [&conn, &local] {
            let error = from.execute("vacuum into ?", [name.as_str()]).unwrap_err();
            if !name.contains("fs=") {
                assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error:?}");
            }
        }
    }
    // What is not a replica is attached as ever.
    conn.execute("attach ? as plain", [plain.to_str().unwrap()])
        .unwrap();
    conn.execute_batch(
        "attach 'file:shared?mode=memory&cache=private' as m; attach 'file:/x?vfs=memdb' as n; attach ':memory:' as o;
         insert into plain.p select v from t; detach plain",
    )
    .unwrap();
    // All three replicas are as they were.
    for db in [&a, &b, &open(&served, &replicas, "closed.db")] {
        db.connection()
            .unwrap()
            .execute("insert into t(v) values ('x')", ())
            .unwrap();
        db.push().unwrap();
        db.pull().unwrap();
        same(&served, db);
    }
}

/// Was red: the remote rewrote the references of a view and a trigger, which the replica had left alone.
#[test]
fn t4_a_rename_means_the_same_on_both_sides_with_legacy_alter_table() {
    for legacy in ["on", "off"] {
        let served = Served::new(
            "create table t(id integer primary key); create table u(id integer primary key);
             create view w as select id from t; create table c(t references t)",
        );
        let replicas = Replicas::new();
        let (a, b) = (open(&served, &replicas, "a.db"), open(&served, &replicas, "b.db"));
        let conn = a.connection().unwrap();
        conn.execute_batch(&format!(
            "pragma legacy_alter_table = {legacy}; alter table t rename to old; alter table u rename to t; \
             pragma legacy_alter_table = off; insert into t values (1)"
        ))
        .unwrap();
        let schema = "select name, sql from sqlite_schema where name in ('w', 'c', 't', 'old') order by 1";
        let mine = rows(&conn, schema).unwrap();
        served.execute("insert into c values (null)");
        a.pull().unwrap();
        assert_eq!(rows(&conn, schema).unwrap(), mine, "put back, legacy {legacy}");
        a.push().unwrap();
        a.pull().unwrap();
        b.pull().unwrap();
        assert_eq!(
            stock_rows(&served.sqlite(), schema).unwrap(),
            mine,
            "pushed, legacy {legacy}"
        );
        assert_eq!(rows(&b.connection().unwrap(), schema).unwrap(), mine);
        same(&served, &a);
    }
}

/// Was red: a pull undid it.
#[test]
fn l_a_counter_of_autoincrement_that_was_written_is_pushed_and_put_back() {
    let served = Served::new(SCRIPT);
    let replicas = Replicas::new();
    let a = open(&served, &replicas, "a.db");
    let conn = a.connection().unwrap();
    conn.execute_batch("update sqlite_sequence set seq = 1000 where name = 't'")
        .unwrap();
    served.execute("insert into u values (1, 'theirs')");
    a.pull().unwrap();
    let seq = "select seq from sqlite_sequence where name = 't'";
    assert_eq!(rows(&conn, seq).unwrap(), ["Integer(1000)"]);
    conn.execute("insert into t(v) values ('c')", ()).unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(
        stock_rows(&served.sqlite(), "select max(id) from t").unwrap(),
        ["Integer(1001)"]
    );
    assert_eq!(stock_rows(&served.sqlite(), seq).unwrap(), ["Integer(1001)"]);
    same(&served, &a);
}

/// Was red: the statistics were undone by the next pull, and nothing said so.
#[test]
fn l_analyze_is_run_on_the_remote_too() {
    let served = Served::new(
        "create table t(id integer primary key, v); create index i on t(v);
         insert into t(v) with recursive n(i) as (select 1 union all select i + 1 from n limit 500) select i % 7 from n",
    );
    let replicas = Replicas::new();
    let a = open(&served, &replicas, "a.db");
    let conn = a.connection().unwrap();
    conn.execute_batch("analyze; insert into t(v) values (3)")
        .unwrap();
    let stat = "select tbl, idx from sqlite_stat1";
    assert_eq!(rows(&conn, stat).unwrap(), ["Text(\"t\")|Text(\"i\")"]);
    served.execute("insert into t(v) values (4)");
    a.pull().unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    assert_eq!(rows(&conn, stat).unwrap(), ["Text(\"t\")|Text(\"i\")"]);
    same(&served, &a);
}

#[test]
fn l_vacuum_is_refused_and_a_copy_of_a_partial_replica_is_whole() {
    let served = Served::new(
        "create table t(id integer primary key, v); \
         insert into t(v) with recursive n(i) as (select 1 union all select i + 1 from n limit 400) select randomblob(900) from n",
    );
    let replicas = Replicas::new();
    let a = open(&served, &replicas, "a.db");
    let conn = a.connection().unwrap();
    conn.execute("insert into t(v) values ('mine')", ()).unwrap();
    for sql in [
        "vacuum",
        "vacuum main",
        "pragma incremental_vacuum",
        "pragma incremental_vacuum(3)",
    ] {
        assert!(unsupported(&conn, sql).contains("on the remote"), "{sql}");
    }
    let before = a.stats().unwrap();
    assert!(before.pages_present < before.pages_total);
    let copy = replicas.path("copy.db");
    conn.execute("vacuum into ?", [copy.to_str().unwrap()]).unwrap();
    let stock = stock(&copy);
    assert_eq!(
        stock_rows(&stock, "pragma integrity_check").unwrap(),
        ["Text(\"ok\")"]
    );
    assert_eq!(
        stock_rows(&stock, "select count(*) from t").unwrap(),
        ["Integer(401)"]
    );
    a.push().unwrap();
    a.pull().unwrap();
    same(&served, &a);
}

/// Was red: the second replica could neither push nor pull any more.
#[test]
fn s6_a_migration_that_both_sides_ran_alike_is_skipped() {
    for pull_first in [false, true] {
        let served = Served::new(
            "create table t(id integer primary key, a, b, c); insert into t values (1, 'a', 'b', 'c'); create table old(x)",
        );
        let replicas = Replicas::new();
        let (a, b) = (open(&served, &replicas, "a.db"), open(&served, &replicas, "b.db"));
        for (db, id) in [(&a, 2), (&b, 3)] {
            let conn = db.connection().unwrap();
            conn.execute_batch(&format!(
                "begin; alter table t rename column a to a2; alter table t drop column b; alter table old rename to new;
                 alter table t add column d; create unique index ui on t(a2); pragma user_version = 2; commit;
                 insert into t values ({id}, 'a{id}', 'c', 'd'); insert into new values ({id})"
            ))
            .unwrap();
        }
        a.push().unwrap();
        if pull_first {
            b.pull().unwrap();
        }
        b.push().unwrap();
        for db in [&a, &b] {
            db.pull().unwrap();
            same(&served, db);
            let conn = db.connection().unwrap();
            assert_eq!(rows(&conn, "select a2 from t").unwrap().len(), 3);
            assert_eq!(rows(&conn, "pragma user_version").unwrap(), ["Integer(2)"]);
        }
        assert_eq!(b.stats().unwrap().cdc_operations, 0);
    }
}
