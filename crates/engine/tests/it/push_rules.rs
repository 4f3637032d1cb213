//! The rules by which local changes become SQL, end to end: local writes, a push to the real server, a pull here, a pull
//! in a second replica, and all three have the same contents; also when the remote changed meanwhile, so that a pull puts
//! the changes back on top before they are pushed.

use std::{sync::Arc, time::Duration};

use crate::support::*;
use futures_util::{FutureExt, future::BoxFuture};
use partial_sync::{Builder, Connection, Database};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, TransferStats,
    hrana::{Batch, BatchResult, Condition, Step, Stmt},
};

/// Local writes on a schema, and what somebody else does on the remote meanwhile.
struct Case {
    schema: &'static str,
    local: &'static str,
    remote: &'static str,
}

pub(super) fn small(builder: Builder) -> Database {
    builder.partial(prefix(4096, 4096)).connect().unwrap()
}

pub(super) fn checked(conn: &Connection, what: &str) {
    let answer = rows(conn, "pragma integrity_check").unwrap();
    assert_eq!(answer, ["Text(\"ok\")"], "{what}");
}

/// Rows of ordinary tables; not those of virtual tables' own tables, which two databases may keep differently.
fn plain_contents(conn: &Connection) -> Vec<String> {
    let tables: Vec<(String,)> = conn
        .query(
            "select name from pragma_table_list where schema = 'main' and type = 'table' \
             and name not like 'sqlite_%' and name not like 'partial_sync_%' and name not like 'turso_sync_%' order by 1",
            (),
        )
        .unwrap();
    let mut out = vec![];
    for (table,) in tables {
        let mut all = rows(conn, &format!("select * from \"{}\"", table.replace('"', "\"\""))).unwrap();
        all.sort();
        out.push(table);
        out.extend(all);
    }
    out
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// Nobody else writes.
    Alone,
    /// Somebody else commits; this replica pushes, then pulls.
    PushFirst,
    /// Somebody else commits; this replica pulls, which puts its changes back, and then pushes.
    PullFirst,
}

impl Case {
    fn check(&self) {
        for order in [Order::Alone, Order::PushFirst, Order::PullFirst] {
            self.check_in(order, |served, name, replicas| {
                replicas.builder(name).remote(served.url())
            });
        }
    }

    fn check_in(
        &self,
        order: Order,
        open: impl Fn(&Served, &str, &Replicas) -> Builder,
    ) -> (Served, Vec<String>) {
        let served = Served::new(self.schema);
        let replicas = Replicas::new();
        let a = small(open(&served, "a.db", &replicas));
        let b = small(open(&served, "b.db", &replicas));
        let conn = a.connection().unwrap();
        conn.execute_batch(self.local)
            .unwrap_or_else(|e| panic!("{order:?}: the local writes: {e}"));
        let mine = plain_contents(&conn);
        if order != Order::Alone {
            served.execute(self.remote);
        }
        if order == Order::PullFirst {
            a.pull()
                .unwrap_or_else(|e| panic!("{order:?}: pull with put-back: {e}"));
            checked(&conn, "after the put-back");
        }
        a.push().unwrap_or_else(|e| panic!("{order:?}: push: {e}"));
        assert_eq!(a.stats().unwrap().cdc_operations, 0);
        let before = plain_contents(&conn);
        a.pull().unwrap_or_else(|e| panic!("{order:?}: pull: {e}"));
        b.pull()
            .unwrap_or_else(|e| panic!("{order:?}: pull of the second replica: {e}"));
        let after = plain_contents(&conn);
        match order {
            Order::Alone => assert_same(&mine, &after, "alone: what was written here and what came of it"),
            Order::PullFirst => assert_same(
                &before,
                &after,
                "what was put back here and what the remote made of it",
            ),
            Order::PushFirst => {}
        }
        let what = format!("{order:?}");
        let remote = stock_contents(&served.sqlite());
        assert_same(
            &contents(&conn),
            &remote,
            &format!("{what}: this replica and the remote"),
        );
        let other = b.connection().unwrap();
        assert_same(
            &contents(&other),
            &remote,
            &format!("{what}: the second replica and the remote"),
        );
        checked(&conn, &what);
        checked(&other, &what);
        let stock = stock_rows(&served.sqlite(), "pragma integrity_check").unwrap();
        assert_eq!(stock, ["Text(\"ok\")"], "{what}");
        (served, after)
    }
}

#[test]
fn invariant_7_rows_of_a_table_with_an_integer_primary_key() {
    Case {
        schema: "create table t(id integer primary key, a, b text, c integer);
            insert into t values (1, 'one', 'b1', 1), (2, 'two', 'b2', 2), (3, 'three', 'b3', 3), (4, 'four', 'b4', 4),
            (5, 'five', 'b5', 5), (6, 'six', 'b6', 6);
            create unique index tb on t(b);",
        local: "insert into t values (10, 'ten', 'b10', 10), (-1, 'minus', 'b-1', -1);
            insert into t(a, b) values ('next', 'b11');
            insert into t values (9223372036854775807, 'last', 'b12', null);
            update t set a = 'uno' where id = 1;
            update t set c = c * 10 where id in (1, 2);
            update t set id = 20 where id = 3;
            delete from t where id = 4;
            insert or replace into t values (5, 'cinq', 'b5', 55);
            insert or replace into t values (30, 'takes the place of six', 'b6', 66);
            insert into t values (1, 'x', 'y', 9) on conflict(id) do update set c = c + excluded.c;
            insert or ignore into t values (1, 'ignored', 'z', 0);
            replace into t values (2, 'deux', 'b2', 22);
            begin; update t set a = 'undone'; rollback;
            begin; savepoint s; update t set a = 'undone'; rollback to s; update t set c = c + 1 where id = 10; commit;",
        remote: "update t set c = 77 where id = 1; update t set a = 'remote' where id = 2; delete from t where id = 3;
            update t set a = 'remote four' where id = 4; insert into t values (1000, 'theirs', 'r', 1);",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_with_a_text_key() {
    Case {
        schema: "create table t(k text primary key, v); insert into t values ('a', 1), ('b', 2), ('c', 3), ('A', 4), ('', 5), (null, 6), (null, 6);",
        local: "insert into t values ('d', 7); update t set v = 10 where k = 'a'; update t set k = 'bb' where k = 'b';
            delete from t where k = ''; update t set v = 'null' where k is null; insert into t values (null, 8);
            delete from t where k is null and v = 8; insert or replace into t values ('c', 'again');
            update t set v = x'00ff' where k = 'A'; delete from t where rowid = 7;",
        remote: "update t set v = 99 where k = 'a'; delete from t where k = 'c'; insert into t values ('e', 1);",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_with_a_composite_key() {
    Case {
        schema: "create table t(a integer, b text collate nocase, v, w, primary key(a, b));
            insert into t values (1, 'x', 1, 1), (1, 'Y', 2, 2), (2, 'x', 3, 3), (null, 'n', 4, 4), (null, 'n', 5, 5), (3, null, 6, 6);",
        local: "insert into t values (5, 'five', 5, 5); update t set v = 10 where a = 1 and b = 'X';
            update t set b = 'y' where a = 1 and b = 'y'; update t set w = 'n' where v = 5; delete from t where a = 3;
            update t set a = 7, b = 'moved' where a = 2; delete from t where v = 4;
            insert or replace into t values (1, 'X', 'over', 'x');",
        remote: "update t set w = 'remote' where a = 1; insert into t values (9, 'nine', 9, 9);",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_without_rowid() {
    Case {
        schema: "create table t(a text, b integer, v blob, u unique, primary key(b desc, a)) without rowid;
            insert into t values ('x', 1, x'01', 1), ('y', 1, x'02', 2), ('x', 2, x'03', 3), ('z', 3, null, null), ('q', 8, 1, 8);",
        local: "insert into t values ('n', 4, zeroblob(9000), 4); update t set v = randomblob(5000) where b = 1 and a = 'x';
            update t set b = 10 where a = 'y'; delete from t where b = 2; replace into t values ('w', 7, 'w', 8);
            update t set a = 'Z' where a = 'z';",
        remote: "update t set v = 'remote' where b = 3; insert into t values ('r', 100, 1, 100); delete from t where a = 'y';",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_without_a_key() {
    Case {
        schema: "create table t(a, b, c real);
            insert into t values (1, 'x', 1.5), (1, 'x', 1.5), (1, 'x', 1.5), (2, null, null), ('1', 'x', 1.5), (1.0, 'x', 1.5), (null, null, null);",
        local: "insert into t values (1, 'x', 1.5); update t set b = 'changed' where rowid = 2; delete from t where rowid = 3;
            update t set c = c + 1 where b is null; delete from t where a is null; insert into t values (null, null, null), (null, null, null);
            update t set a = 'was text' where typeof(a) = 'text'; update t set a = 'was real' where typeof(a) = 'real';
            insert into t values (3, x'78', 1.5), (3, 'x', 1.5); delete from t where a = 3 and typeof(b) = 'blob';",
        remote: "insert into t values ('theirs', 1, 1); update t set b = 'remote' where a = 2; delete from t where rowid = 1;",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_with_autoincrement() {
    Case {
        schema: "create table t(id integer primary key autoincrement, v); insert into t(v) values ('a'), ('b'), ('c'); delete from t where id = 3;",
        local: "insert into t(v) values ('mine'); insert into t values (100, 'jump'); insert into t(v) values ('after');
            delete from t where id > 100; insert into t(v) values ('no number twice'); update t set id = 200 where id = 1;",
        remote: "insert into t(id, v) values (50, 'theirs'); update t set v = 'remote' where id = 2;",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_a_table_with_generated_columns() {
    Case {
        schema: "create table t(id integer primary key, a integer, twice integer generated always as (a * 2) stored,
                hidden text as ('v' || a) virtual, b text, check (a < 1000));
            create index th on t(hidden);
            create table nokey(a, double as (a + a), b);
            insert into t(a, b) values (1, 'x'), (2, 'y'), (3, 'z');
            insert into nokey(a, b) values (1, 1), (1, 1), (2, 2);",
        local: "insert into t(a, b) values (10, 'ten'); update t set a = 20 where id = 1; delete from t where hidden = 'v2';
            update t set b = 'only b' where id = 3; insert into nokey(a, b) values (5, 5); update nokey set b = 9 where rowid = 1;
            delete from nokey where double = 4;",
        remote: "update t set b = 'remote' where id = 1; insert into t(id, a, b) values (77, 7, 'r'); insert into nokey(a) values (70);",
    }
    .check();
}

#[test]
fn invariant_7_rows_of_strict_tables() {
    Case {
        schema: "create table t(id int primary key, i integer, r real, s text, b blob, x any) strict;
            create table w(k any primary key, v any) strict, without rowid;
            insert into t values (1, 1, 1, 'one', x'01', 1), (2, 2, 2.5, 'two', x'02', '2'), (3, null, null, null, null, null);
            insert into w values (1, 1), ('1', 'text'), (x'31', x'31'), (1.5, 1.5);",
        local: "insert into t values (4, 4, 4, '4', x'34', 4.0); update t set x = '7' where id = 1; update t set x = 7.0 where id = 2;
            update t set r = 3 where id = 3; delete from w where k = 1; update w set v = 'blob' where k = x'31';
            update w set v = 'is text' where k = '1'; insert into w values (2.0, 2), ('2', 2); delete from w where k = 1.5;",
        remote: "update t set s = 'remote' where id = 1; insert into w values ('theirs', 1);",
    }
    .check();
}

#[test]
fn invariant_7_quoted_names_in_every_place() {
    Case {
        schema: r#"create table "select * from"(" id " integer primary key, "a""b" text, "group" integer, "x]y");
            create table "tab'le"("k" text, "ord""er" integer, primary key("k", "ord""er")) without rowid;
            create table [ü€ 日本](n, "") ;
            create unique index "where" on "select * from"("group");
            insert into "select * from" values (1, 'q', 1, 1), (2, 'r', 2, 2), (3, 's', 3, 3);
            insert into "tab'le" values ('a', 1), ('b', 2);
            insert into [ü€ 日本] values (1, 2), (3, 4), (5, 6);"#,
        local: r#"insert into "select * from" values (10, 'it''s', 10, '"'); update "select * from" set "a""b" = ';--' where " id " = 1;
            delete from "select * from" where " id " = 2; update "tab'le" set "ord""er" = 5 where k = 'a'; delete from "tab'le" where k = 'b';
            insert into "tab'le" values ('c', 3); update [ü€ 日本] set "" = 'leer' where n = 1; delete from [ü€ 日本] where n = 3;
            insert or replace into "select * from" values (11, 'over three', 3, 0);"#,
        remote: r#"insert into "select * from" values (20, 'remote', 20, 20); update [ü€ 日本] set n = 100 where n = 5;"#,
    }
    .check();
}

#[test]
fn invariant_7_values_of_every_kind_arrive_bit_by_bit() {
    let values = "null, 0, -1, 9223372036854775807, -9223372036854775808, 9007199254740993, 0.0, -0.0, 0.1, 1e308, -1e308, \
         4.9406564584124654e-324, 2.2250738585072014e-308, 1e15, 123456789012345680.0, 9e999, -9e999, 1.0, '', 'it''s', \
         'NaN', 'ünï ☃ 𝄞', char(0), 'a' || char(0) || 'b', char(65533), cast(x'ff41fe' as text), cast(x'c3' as text), \
         cast(x'4100ff' as text), x'', x'00', x'ff00ff', zeroblob(70000), char(10, 13, 9), '\\', '\"'";
    let each: Vec<String> = values_of(values);
    let mut local = String::new();
    for (n, value) in each.iter().enumerate() {
        local.push_str(&format!(
            "insert into pk values ({n}, {value}, null); insert into nokey values ({value}, {n});
             insert or ignore into keyed values ({value}, {n}); update pk set w = {value} where id = {n};
             insert into moved values ({n}, 'before'); update moved set v = {value} where id = {n};
             update nokey set n = n + 1000 where n = {n} and n % 2 = 0; delete from nokey where n = {n} and n % 3 = 0;\n"
        ));
    }
    local.push_str("update keyed set n = n + 1000 where n % 2 = 0; delete from keyed where n % 3 = 0;");
    Case {
        schema: "create table pk(id integer primary key, v, w);
            create table nokey(v, n);
            create table keyed(k primary key, n);
            create table moved(id integer primary key, v);
            insert into pk values (1000, 'here', 1);",
        local: local.leak(),
        remote: "insert into pk values (2000, cast(x'fefe' as text), 9e999); insert into nokey values (-0.0, 5);",
    }
    .check();
}

/// Splits at the commas outside of parentheses and quotes.
fn values_of(list: &str) -> Vec<String> {
    let (mut out, mut depth, mut quoted, mut one) = (vec![], 0, false, String::new());
    for c in list.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                out.push(std::mem::take(&mut one).trim().to_owned());
                continue;
            }
            _ => {}
        }
        one.push(c);
    }
    out.push(one.trim().to_owned());
    out
}

#[test]
fn invariant_2_effects_of_triggers_happen_exactly_once_on_the_remote() {
    Case {
        schema: "create table item(id integer primary key, name text, qty integer);
            create table audit(n integer primary key autoincrement, what text, id integer, before integer, after integer);
            create table total(name text primary key, qty integer) without rowid;
            create table deep(n integer);
            create trigger ai after insert on item begin
                insert into audit(what, id, after) values ('insert', new.id, new.qty);
                insert into total values (new.name, new.qty) on conflict(name) do update set qty = qty + excluded.qty;
            end;
            create trigger au after update of qty on item when old.qty is not new.qty begin
                insert into audit(what, id, before, after) values ('update', new.id, old.qty, new.qty);
                update total set qty = qty - old.qty + new.qty where name = new.name;
            end;
            create trigger bd before delete on item begin
                insert into audit(what, id, before) values ('delete', old.id, old.qty);
                update total set qty = qty - old.qty where name = old.name;
                delete from total where qty = 0;
            end;
            create trigger td after update on total begin insert into deep values (new.qty); end;
            create view stock as select name, qty from total;
            create trigger sv instead of insert on stock begin insert into item(name, qty) values (new.name, new.qty); end;
            insert into item(name, qty) values ('nail', 100), ('screw', 50);",
        local: "insert into item(name, qty) values ('nail', 5), ('bolt', 7); update item set qty = qty + 1 where name = 'nail';
            delete from item where id = 2; insert into stock values ('washer', 3);
            update item set name = 'nut' where name = 'bolt';",
        remote: "insert into item(id, name, qty) values (90, 'theirs', 9);",
    }
    .check();
}

const FAMILY: Case = Case {
    schema: "create table parent(id integer primary key, name text unique);
        create table cascading(id integer primary key, p integer references parent(id) on delete cascade on update cascade, v);
        create table nulling(id integer primary key, p integer references parent on delete set null on update set null);
        create table defaulting(id integer primary key, p integer default 1 references parent on delete set default on update cascade);
        create table by_name(k text primary key, n text references parent(name) on update cascade on delete cascade deferrable initially deferred) without rowid;
        create table grandchild(c integer references cascading(id) on delete cascade, v);
        insert into parent values (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four');
        insert into cascading values (1, 2, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 4, 'd');
        insert into nulling values (1, 2), (2, 3); insert into defaulting values (1, 2), (2, 3);
        insert into by_name values ('x', 'two'), ('y', 'three'); insert into grandchild values (1, 1), (1, 2), (3, 3), (3, 3);",
    local: "pragma foreign_keys = on;
        delete from parent where id = 2; update parent set id = 30 where id = 3; update parent set name = 'drei' where id = 30;
        begin; insert into by_name values ('z', 'later'); insert into parent values (9, 'later'); commit;
        update cascading set v = 'changed' where id = 3; insert into cascading values (10, 9, 'new');",
    remote: "insert into parent values (50, 'theirs'); insert into cascading values (50, 50, 'theirs'); update cascading set v = 'remote' where id = 4;",
};

#[test]
fn invariant_7_foreign_key_actions_reach_a_remote_that_does_not_enforce_them() {
    FAMILY.check();
}

#[test]
fn invariant_7_foreign_key_actions_reach_a_remote_that_enforces_them_too() {
    for order in [Order::Alone, Order::PushFirst, Order::PullFirst] {
        FAMILY.check_in(order, |served, name, replicas| {
            replicas
                .builder(name)
                .remote_with(Arc::new(Enforcing(served.http())))
        });
    }
}

/// A remote on which foreign keys are enforced.
#[derive(Debug)]
struct Enforcing(Arc<dyn Remote>);

fn shifted(condition: Condition) -> Condition {
    match condition {
        Condition::Ok { step } => Condition::Ok { step: step + 1 },
        Condition::Error { step } => Condition::Error { step: step + 1 },
        Condition::Not { cond } => Condition::Not {
            cond: Box::new(shifted(*cond)),
        },
        Condition::And { conds } => Condition::And {
            conds: conds.into_iter().map(shifted).collect(),
        },
        Condition::Or { conds } => Condition::Or {
            conds: conds.into_iter().map(shifted).collect(),
        },
        other => other,
    }
}

impl Remote for Enforcing {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        self.0.pages(request)
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        let first = Step {
            condition: None,
            stmt: Stmt::new("PRAGMA foreign_keys = ON", vec![]),
        };
        let rest = batch.steps.into_iter().map(|mut step| {
            step.condition = step.condition.map(shifted);
            step
        });
        let batch = Batch {
            steps: std::iter::once(first).chain(rest).collect(),
            ..Batch::default()
        };
        async move {
            let mut answer = self.0.execute(batch, deadline).await?;
            assert!(answer.step_errors[0].is_none(), "{:?}", answer.step_errors[0]);
            answer.step_results.remove(0);
            answer.step_errors.remove(0);
            Ok(answer)
        }
        .boxed()
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> TransferStats {
        self.0.transferred()
    }
}

#[test]
fn invariant_7_full_text_indexes_with_external_content() {
    Case {
        schema: "create table doc(id integer primary key, title text, body text);
            create virtual table by_hand using fts5(title, body, content = 'doc', content_rowid = 'id');
            create virtual table own using fts5(body, tokenize = 'porter');
            create virtual table triggered using fts5(body, content = 'doc', content_rowid = 'id');
            create trigger di after insert on doc begin insert into triggered(rowid, body) values (new.id, new.body); end;
            create trigger dd after delete on doc begin insert into triggered(triggered, rowid, body) values ('delete', old.id, old.body); end;
            create trigger du after update on doc begin
                insert into triggered(triggered, rowid, body) values ('delete', old.id, old.body);
                insert into triggered(rowid, body) values (new.id, new.body);
            end;
            insert into doc values (1, 'first', 'the quick brown fox'), (2, 'second', 'jumps over the dog');
            insert into by_hand(rowid, title, body) select id, title, body from doc;
            insert into own(rowid, body) values (1, 'running dogs'), (2, 'sleeping cats');",
        local: "insert into doc values (3, 'third', 'a lazy fox'); insert into by_hand(rowid, title, body) values (3, 'third', 'a lazy fox');
            insert into by_hand(by_hand, rowid, title, body) values ('delete', 2, 'second', 'jumps over the dog');
            delete from doc where id = 2; update doc set body = 'the slow brown fox' where id = 1;
            insert into by_hand(by_hand) values ('rebuild');
            insert into own(body) values ('birds fly'); update own set body = 'running horses' where rowid = 1; delete from own where rowid = 2;
            insert into own(own) values ('optimize');",
        remote: "insert into doc values (70, 'theirs', 'remote words'); insert into by_hand(rowid, title, body) values (70, 'theirs', 'remote words');
            insert into own(rowid, body) values (70, 'remote words');",
    }
    .check_words(&[
        "select rowid from by_hand where by_hand match 'fox' order by 1",
        "select rowid from triggered where triggered match 'brown OR lazy' order by 1",
        "select body from own where own match 'run OR fly' order by 1",
        "select count(*) from own where own match 'cat'",
        "insert into by_hand(by_hand) values ('integrity-check')",
        "insert into triggered(triggered) values ('integrity-check')",
    ]);
}

impl Case {
    /// As [`Case::check`]; and these queries give on stock SQLite what local writes gave there.
    fn check_words(&self, queries: &[&str]) {
        for order in [Order::Alone, Order::PushFirst, Order::PullFirst] {
            let (served, _) = self.check_in(order, |served, name, replicas| {
                replicas.builder(name).remote(served.url())
            });
            let expected = rusqlite::Connection::open_in_memory().unwrap();
            expected.execute_batch(self.schema).unwrap();
            if order != Order::Alone {
                expected.execute_batch(self.remote).unwrap();
            }
            expected.execute_batch(self.local).unwrap();
            for query in queries {
                assert_eq!(
                    stock_rows(&served.sqlite(), query).unwrap(),
                    stock_rows(&expected, query).unwrap(),
                    "{order:?}: {query}"
                );
            }
        }
    }
}

#[test]
fn invariant_7_spatial_indexes() {
    Case {
        schema: "create virtual table place using rtree(id, x0, x1, y0, y1, +name);
            insert into place values (1, 0, 1, 0, 1, 'a'), (2, 5, 6, 5, 6, 'b'), (3, 9, 10, 9, 10, 'c');",
        local: "insert into place values (4, 2.5, 3.5, 2.5, 3.5, 'mine'); update place set x1 = 7, name = 'wider' where id = 2; delete from place where id = 3;",
        remote: "insert into place values (70, 1, 2, 1, 2, 'theirs');",
    }
    .check_words(&["select * from place order by id", "select name from place where x0 < 4 and x1 > 2 order by 1"]);
}

#[test]
fn invariant_7_schema_changes_in_order_with_the_rest() {
    Case {
        schema: "create table t(id integer primary key, a, b, c); insert into t values (1, 1, 1, 1), (2, 2, 2, 2);
            create index tc on t(c); create table old(x); insert into old values (1); create view v as select a from t;",
        local: "insert into t values (3, 3, 3, 3); alter table t add column d default 'dee'; update t set d = 'changed' where id = 1;
            alter table t rename column b to bee; update t set bee = 'b' where id = 2; drop view v; alter table t drop column a;
            create table made as select id, bee from t; insert into made values (9, 'nine');
            create table if not exists made(x); alter table made rename to renamed; insert into renamed values (10, 'ten');
            create index rn on renamed(bee); drop index tc; drop table old; drop table if exists no_such_table;
            create view w as select bee from t; create trigger tr after insert on t begin insert into renamed values (new.id, 'by trigger'); end;
            insert into t(id, bee) values (20, 'fires'); drop trigger tr; insert into t(id, bee) values (21, 'does not');
            create table s(k text primary key, v any) strict, without rowid; insert into s values ('k', 1.0);
            begin; create table undone(x); insert into undone values (1); rollback;",
        remote: "insert into t(id, c) values (70, 70); create table theirs(x); insert into theirs values (1); insert into old values (2);",
    }
    .check();
}

#[test]
fn invariant_7_keys_that_trade_places_and_rows_that_are_displaced() {
    Case {
        schema: "create table t(id integer primary key, u unique, v unique);
            create table w(k text primary key, n integer unique) without rowid;
            insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4); insert into w values ('x', 1), ('y', 2), ('z', 3);",
        local: "begin; update t set id = -1 where id = 1; update t set id = 1 where id = 2; update t set id = 2 where id = -1; commit;
            begin; update t set u = null where u = 'c'; update t set u = 'c' where u = 'd'; update t set u = 'd' where u is null; commit;
            insert or replace into t values (9, 'c', 1); update or replace t set v = 3 where id = 9;
            update w set k = 'tmp' where k = 'x'; update w set k = 'x' where k = 'y'; update w set k = 'y' where k = 'tmp';
            replace into w values ('new', 3); update w set n = n + 10; update or ignore w set n = 11;
            delete from t where id = 9; insert into t values (9, 'again', 9); delete from t where id = 9;",
        remote: "insert into t values (100, 'theirs', 100); insert into w values ('r', 100);",
    }
    .check();
}

#[test]
fn invariant_7_a_table_is_emptied_dropped_and_made_anew() {
    Case {
        schema: "create table t(id integer primary key, v); insert into t values (1, 1), (2, 2); create table k(x, y); insert into k values (1, 1), (1, 1);
            create table gone(x); insert into gone values (1);",
        local: "delete from t; insert into t values (1, 'again'); delete from k; insert into k values (5, 5);
            drop table gone; create table gone(y primary key, z); insert into gone values (1, 'other table');
            create table brief(x); insert into brief values (1); drop table brief; create temp table scratch(x); insert into scratch values (1);",
        remote: "insert into t values (70, 'theirs'); insert into k values (70, 70);",
    }
    .check();
}

#[test]
fn invariant_7_many_changes_in_one_transaction_and_many_transactions() {
    Case {
        schema: "create table t(id integer primary key, v, pad); create table many(a, b);",
        local: "with recursive c(x) as (select 1 union all select x + 1 from c where x < 3000) insert into t select x, x, 'pad ' || x from c;
            update t set v = v + 1 where id % 2 = 0; delete from t where id % 5 = 0;
            with recursive c(x) as (select 1 union all select x + 1 from c where x < 500) insert into many select x % 7, x % 3 from c;
            delete from many where a = 3; update many set b = 'changed' where a = 4 and b = 1;",
        remote: "insert into t values (100000, 'theirs', null); insert into many values (3, 0);",
    }
    .check();
}
