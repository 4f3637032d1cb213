//! Rows whose keys SQLite gave, and which got other keys on the remote or in a put-back, are followed through everything
//! that the log does afterwards; nobody else's row is changed, and where that cannot be known a pull is asked for first.

use crate::support::*;
use partial_sync::{Connection, Database, Error};

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

/// A replica that does not know yet that another one has taken key 10.
fn taken(schema: &str) -> (Served, Replicas, Database, Connection) {
    let s = Served::new(schema);
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    let (b, cb) = open(&r, &s, "b.db");
    cb.execute("insert into t(v) values ('b10')", ()).unwrap();
    b.push().unwrap();
    (s, r, a, ca)
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| format!("Text({v:?})")).collect()
}

/// The push says that a pull has to come first, and changes nothing; after that it succeeds.
fn push_after_a_pull(s: &Served, a: &Database) {
    let before = remote(s, "select * from t");
    let refused = a.push().unwrap_err();
    assert!(
        matches!(&refused, Error::Unsendable { change: Some(_), message } if message.contains("pull first")),
        "{refused:?}"
    );
    assert_eq!(remote(s, "select * from t"), before);
    a.pull().unwrap();
    a.push().unwrap();
}

#[test]
fn h7_a_delete_means_the_row_that_had_the_key_then() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    ca.execute("delete from t where v = 'a10'", ()).unwrap();
    ca.execute("insert into t(v) values ('a10 again')", ()).unwrap();
    ca.execute("insert into t(v) values ('a11')", ()).unwrap();
    a.push().unwrap();
    let all = texts(&["a10 again", "a11", "b10", "base"]);
    assert_eq!(remote(&s, "select v from t order by v"), all);
    // The notes on the remote tell them apart as well.
    ca.execute("update t set v = v || '!' where v like 'a1%'", ())
        .unwrap();
    a.push().unwrap();
    a.pull().unwrap();
    let all = texts(&["a10 again!", "a11!", "b10", "base"]);
    assert_eq!(remote(&s, "select v from t order by v"), all);
    assert_eq!(rows(&ca, "select v from t order by v").unwrap(), all);
}

#[test]
fn h7_both_rows_that_had_a_key_are_put_back_under_their_own() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    ca.execute("update t set v = 'a10 changed' where v = 'a10'", ())
        .unwrap();
    ca.execute("delete from t where v = 'a10 changed'", ()).unwrap();
    ca.execute("insert into t(v) values ('a10 again')", ()).unwrap();
    a.pull().unwrap();
    a.push().unwrap();
    assert_eq!(
        remote(&s, "select v from t order by v"),
        texts(&["a10 again", "b10", "base"])
    );
}

#[test]
fn h7_a_row_that_moved_twice_is_followed() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    // 10 here is 11 there; the row goes, and 11 is somebody else's.
    ca.execute("delete from t where v = 'a10'", ()).unwrap();
    a.push().unwrap();
    s.execute("insert into t(v) values ('c11')");
    ca.execute("insert into t(v) values ('a10 again')", ()).unwrap();
    ca.execute("update t set v = 'a10 changed' where v = 'a10 again'", ())
        .unwrap();
    a.pull().unwrap();
    a.push().unwrap();
    let all = texts(&["a10 changed", "b10", "base", "c11"]);
    assert_eq!(remote(&s, "select v from t order by v"), all);
}

#[test]
fn h7_a_put_back_gives_no_key_that_a_later_transaction_chose() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('given')", ()).unwrap();
    ca.execute("insert into t(id, v) values (11, 'chosen')", ())
        .unwrap();
    a.pull().unwrap();
    a.push().unwrap();
    let all = ["(9, base)", "(10, b10)", "(11, chosen)", "(12, given)"].map(|row| format!("Text({row:?})"));
    assert_eq!(
        remote(&s, "select '(' || id || ', ' || v || ')' from t order by id"),
        all
    );
}

#[test]
fn h7_a_key_chosen_after_a_push_is_not_the_own_rows_that_moved_there() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('given')", ()).unwrap();
    a.push().unwrap();
    ca.execute("insert into t(id, v) values (11, 'chosen')", ())
        .unwrap();
    ca.execute("update t set v = v || '!' where v in ('given', 'chosen')", ())
        .unwrap();
    push_after_a_pull(&s, &a);
    let all = texts(&["b10", "base", "chosen!", "given!"]);
    assert_eq!(remote(&s, "select v from t order by v"), all);
}

#[test]
fn h7_many_taken_keys_are_put_back() {
    const MANY: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 8000)
                        insert into t(v) select 'x' || i from n";
    let s = Served::new(T);
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    s.execute(MANY);
    ca.execute(MANY, ()).unwrap();
    a.pull().unwrap();
    assert_eq!(rows(&ca, "select count(*) from t").unwrap(), ["Integer(16001)"]);
}

#[test]
fn h7_autoincrement_gives_no_key_that_was_used_before() {
    for pull in [false, true] {
        let s = Served::new(
            "create table t(id integer primary key autoincrement, v); insert into t values (9, 'base');",
        );
        let r = Replicas::new();
        let (a, ca) = open(&r, &s, "a.db");
        s.execute("insert into t(v) values ('b10'), ('b11'), ('b12'); delete from t where id > 10");
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        assert_eq!(
            remote(&s, "select id from t where v = 'a10'"),
            ["Integer(13)"],
            "pull {pull}"
        );
        assert_eq!(
            remote(&s, "select seq from sqlite_sequence"),
            ["Integer(13)"],
            "pull {pull}"
        );
    }
}

#[test]
fn h7_a_renamed_tables_rows_are_put_back_under_their_keys() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    ca.execute("alter table t rename to u", ()).unwrap();
    ca.execute("update u set v = 'a10 changed' where v = 'a10'", ())
        .unwrap();
    a.pull().unwrap();
    a.push().unwrap();
    let all = texts(&["a10 changed", "b10", "base"]);
    assert_eq!(remote(&s, "select v from u order by v"), all);
}

#[test]
fn h7_a_table_renamed_beside_moved_keys_is_pulled_first() {
    for pushed in [false, true] {
        let (s, _r, a, ca) = taken(T);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        if pushed {
            a.push().unwrap();
        }
        ca.execute("alter table t rename to u", ()).unwrap();
        ca.execute("update u set v = 'a10 changed' where v = 'a10'", ())
            .unwrap();
        push_after_a_pull(&s, &a);
        let all = texts(&["a10 changed", "b10", "base"]);
        assert_eq!(remote(&s, "select v from u order by v"), all, "pushed {pushed}");
    }
}

#[test]
fn h7_a_reference_whose_column_was_renamed_follows_its_row() {
    let (s, _r, a, ca) = taken(
        "create table t(id integer primary key, v); create table c(id integer primary key, p references t);
         insert into t values (9, 'base');",
    );
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    ca.execute("insert into c values (1, 10)", ()).unwrap();
    ca.execute("alter table c rename column p to parent", ()).unwrap();
    ca.execute("insert into c values (2, 10)", ()).unwrap();
    push_after_a_pull(&s, &a);
    assert_eq!(
        remote(&s, "select t.v from c join t on t.id = c.parent"),
        texts(&["a10", "a10"])
    );
}

#[test]
fn h7_a_child_that_the_log_makes_after_its_parents_row_follows_it() {
    for pull in [false, true] {
        let (s, _r, a, ca) = taken(T);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        ca.execute("create table c(id integer primary key, p references t)", ())
            .unwrap();
        ca.execute("insert into c values (1, 10)", ()).unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        assert_eq!(
            remote(&s, "select t.v from c join t on t.id = c.p"),
            texts(&["a10"]),
            "pull {pull}"
        );
    }
}

#[test]
fn h7_a_reference_follows_its_row_however_it_is_stored() {
    const SCHEMA: &str = "create table t(id integer primary key, v); insert into t values (9, 'base');
        create table c(id integer primary key, plain references t, txt text references t, num real references t,
                       whole integer references t, late references t);";
    for pull in [false, true] {
        let (s, _r, a, ca) = taken(SCHEMA);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        ca.execute("insert into c values (1, ' 10 ', '10', '10', '1e1', 10.0)", ())
            .unwrap();
        ca.execute("insert into c values (2, x'3130', '9', 9, 9, 'ten')", ())
            .unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        // What is found by its whole row, or by the old values, is found.
        ca.execute("update c set late = txt where id = 1", ()).unwrap();
        a.push().unwrap();
        assert_eq!(
            remote(&s, "select plain, txt, num, whole, late from c"),
            [
                "Text(\"11\")|Text(\"11\")|11.0|Integer(11)|Text(\"11\")",
                "x[31, 30]|Text(\"9\")|9.0|Integer(9)|Text(\"ten\")"
            ],
            "pull {pull}"
        );
        a.pull().unwrap();
        for column in ["plain", "txt", "num", "whole", "late"] {
            let sql = format!("select t.v from c join t on t.id = c.{column} where c.id = 1");
            assert_eq!(rows(&ca, &sql).unwrap(), texts(&["a10"]), "{column}, pull {pull}");
        }
    }
}

#[test]
fn h7_a_key_that_is_chosen_after_its_row_was_deleted_stays_that_key() {
    for pull in [false, true] {
        let (s, _r, a, ca) = taken(T);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        if !pull {
            a.push().unwrap();
        }
        ca.execute("delete from t where id = 10", ()).unwrap();
        ca.execute("insert into t(id, v) values (10, 'chosen')", ())
            .unwrap();
        ca.execute("update t set v = v || '!' where id = 10", ()).unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        // The remote has noted it, too.
        ca.execute("update t set v = v || '!' where id = 10", ()).unwrap();
        a.push().unwrap();
        // A key that was chosen is the same row for everybody: the last push wins.
        let all = "select id, v from t order by id";
        let expected = ["Integer(9)|Text(\"base\")", "Integer(10)|Text(\"chosen!!\")"];
        assert_eq!(remote(&s, all), expected, "pull {pull}");
        a.pull().unwrap();
        assert_eq!(rows(&ca, all).unwrap(), expected, "pull {pull}");
    }
}

#[test]
fn h7_a_key_that_is_chosen_again_meets_no_own_row_that_got_it() {
    for pull in [false, true] {
        let (s, _r, a, ca) = taken(T);
        // 10 and 11 here are 11 and 12 there, or 12 and 11.
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        a.push().unwrap();
        ca.execute("insert into t(v) values ('a11')", ()).unwrap();
        a.push().unwrap();
        ca.execute("delete from t where id = 11", ()).unwrap();
        ca.execute("insert into t values (11, 'chosen')", ()).unwrap();
        if pull {
            a.pull().unwrap();
            a.push().unwrap();
        } else {
            push_after_a_pull(&s, &a);
        }
        let all = texts(&["a10", "b10", "base", "chosen"]);
        assert_eq!(remote(&s, "select v from t order by v"), all, "pull {pull}");
    }
    // It is chosen as it is where the row that got it has gone.
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    ca.execute("delete from t where id = 10", ()).unwrap();
    a.push().unwrap();
    ca.execute("insert into t values (11, 'chosen')", ()).unwrap();
    push_after_a_pull(&s, &a);
    assert_eq!(remote(&s, "select v from t where id = 11"), texts(&["chosen"]));
}

#[test]
fn h7_a_row_that_is_replaced_in_one_transaction_is_the_same_row() {
    for pull in [false, true] {
        let (s, _r, a, ca) = taken(T);
        ca.execute("insert into t(v) values ('a10')", ()).unwrap();
        if !pull {
            a.push().unwrap();
        }
        ca.execute("insert or replace into t(id, v) values (10, 'replaced')", ())
            .unwrap();
        ca.execute_batch(
            "begin; delete from t where id = 10; insert into t values (10, 'replaced twice'); commit",
        )
        .unwrap();
        if pull {
            a.pull().unwrap();
        }
        a.push().unwrap();
        assert_eq!(
            remote(&s, "select v from t order by id"),
            texts(&["base", "b10", "replaced twice"]),
            "pull {pull}"
        );
    }
}

#[test]
fn h7_a_key_that_an_update_chose_is_held_against_those_that_rows_got() {
    // 11 is where the own row went.
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    ca.execute("update t set id = 11, v = 'was 9' where id = 9", ())
        .unwrap();
    push_after_a_pull(&s, &a);
    let all = texts(&["a10", "b10", "was 9"]);
    assert_eq!(remote(&s, "select v from t order by v"), all);
    // 10 is another client's row there.
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    a.push().unwrap();
    ca.execute("delete from t where id = 10", ()).unwrap();
    ca.execute("update t set id = 10 where id = 9", ()).unwrap();
    assert!(matches!(a.push().unwrap_err(), Error::PushRefused(_)));
    assert_eq!(
        remote(&s, "select v from t order by v"),
        texts(&["a10", "b10", "base"])
    );
}

#[test]
fn h7_taken_keys_in_many_tables_and_columns_that_are_there_take_one_push() {
    let tables = || (0..9).map(|n| format!("t{n}"));
    let schema: String = tables()
        .map(|t| format!("create table {t}(id integer primary key, v);"))
        .collect();
    let s = Served::new(&schema);
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    for table in tables() {
        let add = format!("alter table {table} add column w");
        s.execute(&format!("{add}; insert into {table}(v) values ('b')"));
        ca.execute_batch(&format!("{add}; insert into {table}(v) values ('a')"))
            .unwrap();
    }
    a.push().unwrap();
    for table in tables() {
        let all = texts(&["b", "a"]);
        assert_eq!(remote(&s, &format!("select v from {table} order by id")), all);
    }
}

#[test]
fn h7_a_taken_key_of_a_table_that_is_dropped_later_is_pulled_first() {
    let (s, _r, a, ca) = taken(T);
    ca.execute("insert into t(v) values ('a10')", ()).unwrap();
    ca.execute("drop table t", ()).unwrap();
    push_after_a_pull(&s, &a);
    assert_eq!(
        remote(&s, "select count(*) from sqlite_schema where name = 't'"),
        ["Integer(0)"]
    );
}

#[test]
fn h7_another_column_that_is_taken_is_a_refusal_that_says_so() {
    let s = Served::new("create table t(id integer primary key, id_card unique)");
    let r = Replicas::new();
    let (a, ca) = open(&r, &s, "a.db");
    ca.execute("insert into t(id_card) values ('x')", ()).unwrap();
    s.execute("insert into t values (50, 'x')");
    let refused = a.push().unwrap_err();
    assert!(
        matches!(&refused, Error::PushRefused(refused) if refused.message.contains("t.id_card")),
        "{refused:?}"
    );
}

#[test]
fn h7_a_token_that_may_not_write_is_what_a_push_says() {
    use partial_sync_server::{Server, access::Access, auth::StaticToken};
    // A statement that only a remote that takes rows could be sent.
    let mut s = Served::new(
        "create table t(id integer primary key, v); create table log(v);
         create trigger i after insert on t begin insert or ignore into log values (new.v); end;",
    );
    s.stop();
    let server = Server::builder(&s.file)
        .authenticator(StaticToken::new("reader", Access::ReadOnly))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let r = Replicas::new();
    let a = r
        .builder("a.db")
        .remote(format!("http://{}", server.addr()))
        .auth_token("reader")
        .connect()
        .unwrap();
    let ca = a.connection().unwrap();
    ca.execute("insert or replace into t values (1, 'x')", ())
        .unwrap();
    let error = a.push().unwrap_err();
    assert!(
        error.is_unauthorized() && error.to_string().contains("may not write"),
        "{error:?}"
    );
    // Nothing is under way that a pull would have to settle.
    a.pull().unwrap();
    assert_eq!(a.stats().unwrap().cdc_operations, 2);
}
