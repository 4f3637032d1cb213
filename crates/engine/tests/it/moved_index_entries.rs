//! Entries of full-text and spatial indexes that the application itself writes, under the key of a row whose key moves:
//! they go with their row where it is certain that they are its, and are refused where it is not; never another row's.

use crate::support::*;
use partial_sync::{Connection, Database, Error};

const INDEXES: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');
    create virtual table own using fts5(v);
    create virtual table ext using fts5(v, content = 't', content_rowid = 'id');
    create virtual table bare using fts5(v, content = '');
    create virtual table box using rtree(id, x0, x1); insert into ext(rowid, v) values (9, 'base');";

/// A row and its entries, as a program without triggers writes them.
fn row(v: &str, key: i64) -> String {
    format!(
        "begin; insert into t(v) values ('{v}'); insert into own(rowid, v) values ({key}, '{v}');
         insert into ext(rowid, v) values ({key}, '{v}'); insert into bare(rowid, v) values ({key}, '{v}');
         insert into box values ({key}, {key}, {key} + 0.5); commit;"
    )
}

fn open(r: &Replicas, s: &Served, name: &str) -> (Database, Connection) {
    let db = r.builder(name).remote(s.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    (db, conn)
}

/// Every row is found under its own key in every index, on the remote and here.
fn found(s: &Served, conn: &Connection, all: &[(&str, i64)], what: &str) {
    for (v, key) in all {
        let expected = [format!("Integer({key})")];
        for sql in [
            format!("select id from t where v = '{v}'"),
            format!("select rowid from own where own match '{v}'"),
            format!("select rowid from ext where ext match '{v}'"),
            format!("select rowid from bare where bare match '{v}'"),
            format!("select id from box where id = {key}"),
        ] {
            assert_eq!(
                stock_rows(&s.sqlite(), &sql).unwrap(),
                expected,
                "{what}, remote: {sql}"
            );
            assert_eq!(rows(conn, &sql).unwrap(), expected, "{what}, here: {sql}");
        }
    }
}

#[test]
fn h7_index_entries_of_one_transaction_go_with_their_row() {
    for pull in [false, true] {
        let s = Served::new(INDEXES);
        let r = Replicas::new();
        let (a, ca) = open(&r, &s, "a.db");
        let (b, cb) = open(&r, &s, "b.db");
        cb.execute_batch(&row("b10", 10)).unwrap();
        b.push().unwrap();
        ca.execute_batch(&row("a10", 10)).unwrap();
        let mut insert = ca
            .prepare("insert into ext(rowid, v) values (:key, ?2), (11, 'a11')")
            .unwrap();
        ca.execute_batch("begin; insert into t(v) values ('a11'); insert into t(v) values ('a12')")
            .unwrap();
        insert.bind_named(":key", 12).unwrap();
        insert.bind(2, "a12").unwrap();
        insert.step().unwrap();
        drop(insert);
        for (v, key) in [("a11", 11), ("a12", 12)] {
            ca.execute_batch(&format!(
                "insert into own(rowid, v) values ({key}, '{v}'); insert into bare(rowid, v) values ({key}, '{v}');
                 insert into box values ({key}, {key}, {key})"
            ))
            .unwrap();
        }
        ca.execute_batch("commit").unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        // What comes later, before the next pull, means the same entries.
        // The others had this replica's next keys.
        let key = if pull { 13 } else { 10 };
        ca.execute_batch(&format!(
            "begin; insert into ext(ext, rowid, v) values ('delete', {key}, 'a10'); update t set v = 'a10x' where id = {key};
             insert into ext(rowid, v) values ({key}, 'a10x'); update own set v = 'a10x' where rowid = {key};
             insert into bare(bare, rowid, v) values ('delete', {key}, 'a10'); insert into bare(rowid, v) values ({key}, 'a10x'); commit"
        ))
        .unwrap();
        a.push().unwrap();
        a.pull().unwrap();
        let all = [("b10", 10), ("a11", 11), ("a12", 12), ("a10x", 13)];
        found(&s, &ca, &all, &format!("pull {pull}"));
        let check = "insert into ext(ext, rank) values ('integrity-check', 1);
                     insert into own(own) values ('integrity-check'); insert into bare(bare) values ('integrity-check')";
        s.execute(check);
    }
}

#[test]
fn h7_an_index_entry_that_may_be_another_rows_is_refused() {
    for (sql, follows) in [
        ("insert into own(rowid, v) values (10, 'a10')", false),
        ("insert into bare(rowid, v) values (10, 'a10')", false),
        ("insert into box values (10, 1, 2)", false),
        ("insert into ext(rowid, v) values (10, 'a10')", true),
    ] {
        for pull in [false, true] {
            let s = Served::new(INDEXES);
            let r = Replicas::new();
            let (a, ca) = open(&r, &s, "a.db");
            s.execute(&row("b10", 10));
            ca.execute("insert into t(v) values ('a10')", ()).unwrap();
            ca.execute(sql, ()).unwrap();
            let result = if pull { a.pull().map(drop) } else { a.push() };
            if follows {
                result.unwrap();
            } else {
                let error = result.unwrap_err();
                assert!(
                    matches!(
                        error,
                        Error::Unsendable { change: Some(_), .. } | Error::PullConflict { .. }
                    ) && error.to_string().contains("one transaction"),
                    "{sql}, pull {pull}: {error:?}"
                );
                // What the message says helps.
                assert!(a.discard_change(error.change().unwrap()).unwrap());
            }
            a.pull().unwrap();
            a.push().unwrap();
            if !follows {
                ca.execute(&sql.replace("10", "11"), ()).unwrap();
                a.push().unwrap();
            }
            assert_eq!(
                stock_rows(&s.sqlite(), "select id from t where v = 'a10'").unwrap(),
                ["Integer(11)"]
            );
            found(&s, &ca, &[("b10", 10)], &format!("{sql}, pull {pull}"));
        }
    }
}

#[test]
fn h7_an_index_with_keys_of_its_own_is_left_alone() {
    let s = Served::new(INDEXES);
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    s.execute("insert into t(v) values ('b10')");
    // Before the row there was a row with that key, and other keys.
    ca.execute("insert into own(rowid, v) values (10, 'mine')", ())
        .unwrap();
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    ca.execute("insert into own(rowid, v) values (700, 'mine')", ())
        .unwrap();
    ca.execute("update own set v = 'still mine' where rowid = 10", ())
        .unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    let all = "select rowid, v from own order by rowid";
    let expected = ["Integer(10)|Text(\"still mine\")", "Integer(700)|Text(\"mine\")"];
    assert_eq!(stock_rows(&s.sqlite(), all).unwrap(), expected);
    assert_eq!(rows(&ca, all).unwrap(), expected);
}
