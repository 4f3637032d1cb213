//! What statements do to rows reaches the remote exactly as it came out, whatever did it: the statement, triggers at any
//! depth, foreign-key actions, conflict clauses. Plain SQLite that ran the same statements is the judge.

use std::sync::Arc;

use crate::support::*;
use partial_sync::{Builder, Connection, Database, Error};

/// A remote, replicas of it, and plain SQLite that runs what is run on the first replica.
pub(super) struct World {
    pub(super) served: Served,
    replicas: Replicas,
    pub(super) plain: rusqlite::Connection,
    pub(super) a: Database,
    pub(super) conn: Connection,
}

impl World {
    pub(super) fn new(schema: &str) -> Self {
        Self::with(schema, |served, builder| builder.remote(served.url()))
    }

    fn with(schema: &str, remote: impl Fn(&Served, Builder) -> Builder) -> Self {
        let served = Served::new(schema);
        let replicas = Replicas::new();
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        plain.pragma_update(None, "foreign_keys", false).unwrap();
        plain.execute_batch(schema).unwrap();
        let a = remote(&served, replicas.builder("a.db"))
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap();
        let conn = a.connection().unwrap();
        conn.execute_batch("pragma foreign_keys = off").unwrap();
        Self {
            served,
            replicas,
            plain,
            a,
            conn,
        }
    }

    /// Runs statements on the replica and on plain SQLite; both accept or refuse each of them.
    fn run(&self, statements: &[&str]) {
        for sql in statements {
            let here = self.conn.execute_batch(sql);
            let there = self.plain.execute_batch(sql);
            assert_eq!(here.is_ok(), there.is_ok(), "{sql}: {here:?}, {there:?}");
        }
    }

    fn same(&self, what: &str) {
        let plain = stock_contents(&self.plain);
        assert_same(
            &contents(&self.conn),
            &plain,
            &format!("{what}: the replica and plain SQLite"),
        );
        let remote = stock_contents(&self.served.sqlite());
        assert_same(&remote, &plain, &format!("{what}: the remote and plain SQLite"));
        for conn in [&self.served.sqlite(), &self.plain] {
            assert_eq!(
                stock_rows(conn, "pragma integrity_check").unwrap(),
                ["Text(\"ok\")"]
            );
        }
        assert_eq!(
            rows(&self.conn, "pragma integrity_check").unwrap(),
            ["Text(\"ok\")"]
        );
    }

    /// Pushes and pulls, and all have what plain SQLite has; the same when somebody else's commit in a table of its own
    /// makes the pull put everything back first.
    fn check(&self) {
        self.served
            .execute("create table somebody_else(x); insert into somebody_else values (1)");
        self.plain
            .execute_batch("create table somebody_else(x); insert into somebody_else values (1)")
            .unwrap();
        self.a.pull().unwrap();
        let plain = stock_contents(&self.plain);
        assert_same(&contents(&self.conn), &plain, "put back");
        self.a.push().unwrap();
        assert_eq!(self.a.stats().unwrap().cdc_operations, 0);
        self.same("pushed");
        self.a.pull().unwrap();
        self.same("pulled");
        let b = self
            .replicas
            .builder("b.db")
            .remote(self.served.url())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap();
        assert_same(&contents(&b.connection().unwrap()), &plain, "another replica");
    }
}

/// Runs the statements in a world with this schema, in both orders of push and pull.
fn exact(schema: &str, statements: &[&str]) {
    let world = World::new(schema);
    world.run(statements);
    world.check();
    let world = World::new(schema);
    world.run(statements);
    world.a.push().unwrap();
    world.same("pushed at once");
    world.a.pull().unwrap();
    world.same("pulled");
}

const COUNTED: &str = "
    create table t(id integer primary key, u unique, v);
    create table count(what text primary key, n integer);
    create table uniq(k unique, n);
    create table audit(n integer primary key autoincrement, what);
    insert into t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);
    insert into count values ('i', 0), ('u', 0), ('d', 0);";

#[test]
fn h7_rows_that_triggers_made_have_the_same_keys_on_the_remote() {
    let schema = "create table t(v); create table made(id integer primary key, v);
        create trigger ti after insert on t begin insert into made(v) values (new.v); end;";
    let world = World::new(schema);
    let b = world
        .replicas
        .builder("b.db")
        .remote(world.served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let cb = b.connection().unwrap();
    cb.execute("insert into t values ('b')", ()).unwrap();
    world.conn.execute("insert into t values ('a')", ()).unwrap();
    world.conn.execute("insert into t values ('a2')", ()).unwrap();
    b.push().unwrap();
    world.a.push().unwrap();
    let made = "select v from made order by v";
    let all = ["Text(\"a\")", "Text(\"a2\")", "Text(\"b\")"];
    assert_eq!(stock_rows(&world.served.sqlite(), made).unwrap(), all);
    // This replica has not pulled: its row 1 is another one there. What it deletes is its own.
    world.conn.execute("delete from made where id = 1", ()).unwrap();
    world
        .conn
        .execute("update made set v = 'changed' where id = 2", ())
        .unwrap();
    world.a.push().unwrap();
    let left = ["Text(\"b\")", "Text(\"changed\")"];
    assert_eq!(stock_rows(&world.served.sqlite(), made).unwrap(), left);
    for (db, conn) in [(&world.a, &world.conn), (&b, &cb)] {
        db.pull().unwrap();
        assert_eq!(rows(conn, made).unwrap(), left);
    }
    // After the pull the key means what it means there.
    world.conn.execute("delete from made where id = 1", ()).unwrap();
    world.a.push().unwrap();
    assert_eq!(
        stock_rows(&world.served.sqlite(), made).unwrap(),
        ["Text(\"changed\")"]
    );
}

#[test]
fn h7_keys_that_nobody_chose_take_no_row_away_whoever_pushes_first_and_whoever_pulls() {
    let schema = "create table p(id integer primary key, name);
        create table c(id integer primary key autoincrement, p integer references p(id), v);
        create table n(id integer primary key, v);
        insert into p(name) values ('old');";
    for pull_first in [false, true] {
        let world = World::new(schema);
        let b = world
            .replicas
            .builder("b.db")
            .remote(world.served.url())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap();
        let cb = b.connection().unwrap();
        for (conn, who) in [(&cb, "b"), (&world.conn, "a")] {
            for n in 0..40 {
                conn.execute("insert into p(name) values (?)", [format!("{who}{n}")])
                    .unwrap();
                let id = conn.last_insert_rowid();
                conn.execute("insert into c(p, v) values (?, ?)", (id, format!("{who}{n}")))
                    .unwrap();
                conn.execute("insert into n values (null, ?)", [format!("{who}{n}")])
                    .unwrap();
                conn.execute("insert into n values (?, ?)", (None::<i64>, format!("{who}{n}'")))
                    .unwrap();
            }
        }
        b.push().unwrap();
        if pull_first {
            world.a.pull().unwrap();
        }
        world.a.push().unwrap();
        // Between the push and the pull, the replica continues with the keys that it knows.
        let ids = rows(&world.conn, "select id from p where name = 'a7'").unwrap();
        assert_eq!(ids.len(), 1);
        world
            .conn
            .execute_batch(
                "update p set name = 'a7 changed' where name = 'a7'; delete from p where name = 'a8';
                 insert into c(p, v) select id, 'late child' from p where name = 'a9'; insert into p(name) values ('late');",
            )
            .unwrap();
        world.a.push().unwrap();
        let served = world.served.sqlite();
        let count = |sql: &str| stock_rows(&served, sql).unwrap();
        assert_eq!(
            count("select count(*), count(distinct name) from p"),
            ["Integer(81)|Integer(81)"]
        );
        assert_eq!(
            count("select count(*), count(distinct v) from n"),
            ["Integer(160)|Integer(160)"]
        );
        assert_eq!(
            count("select count(*) from c join p on p.id = c.p where c.v = p.name"),
            ["Integer(78)"],
            "children are with their parents"
        );
        assert_eq!(
            count("select p.name from c join p on p.id = c.p where c.v = 'late child'"),
            ["Text(\"a9\")"]
        );
        assert_eq!(
            count("select count(*) from p where name like 'b%'"),
            ["Integer(40)"]
        );
        for (db, conn) in [(&world.a, &world.conn), (&b, &cb)] {
            db.pull().unwrap();
            assert_same(
                &contents(conn),
                &stock_contents(&served),
                "a replica and the remote",
            );
        }
    }
}

#[test]
fn h7_unpushed_rows_with_keys_that_nobody_chose_get_others_in_a_pull() {
    let world =
        World::new("create table p(id integer primary key, name); create table c(p references p, v);");
    world
        .conn
        .execute_batch(
            "insert into p(name) values ('mine'), ('mine too'); insert into c values (1, 'of mine'), (2, 'of mine too');
             update p set name = 'mine, changed' where id = 1;",
        )
        .unwrap();
    world.served.execute("insert into p(name) values ('theirs')");
    world.a.pull().unwrap();
    let joined = "select p.name, c.v from p left join c on c.p = p.id order by 1";
    let expected = [
        "Text(\"mine too\")|Text(\"of mine too\")",
        "Text(\"mine, changed\")|Text(\"of mine\")",
        "Text(\"theirs\")|Null",
    ];
    assert_eq!(rows(&world.conn, joined).unwrap(), expected);
    // The log says so too: a second pull, and then a push.
    world
        .conn
        .execute("update p set name = name || '!' where name = 'mine too'", ())
        .unwrap();
    world.served.execute("insert into p(name) values ('theirs too')");
    world.a.pull().unwrap();
    world.a.push().unwrap();
    world.a.pull().unwrap();
    let expected = [
        "Text(\"mine too!\")|Text(\"of mine too\")",
        "Text(\"mine, changed\")|Text(\"of mine\")",
        "Text(\"theirs\")|Null",
        "Text(\"theirs too\")|Null",
    ];
    assert_eq!(rows(&world.conn, joined).unwrap(), expected);
    assert_same(
        &contents(&world.conn),
        &stock_contents(&world.served.sqlite()),
        "the replica and the remote",
    );
}

#[test]
fn h7_a_row_without_a_key_that_its_trigger_changes_is_found_again() {
    exact(
        "create table t(a, b); insert into t values (1, 1);
         create trigger ti after insert on t begin update t set b = hex(randomblob(8)) || new.a where rowid = new.rowid; end;
         create trigger tu after update of a on t begin update t set b = 'was ' || old.a where rowid = new.rowid; end;"
            .replace("hex(randomblob(8))", "'x'")
            .as_str(),
        &[
            "insert into t(a) values (2), (3), (4)",
            "update t set a = 20 where a = 2",
            "delete from t where a = 3",
            "delete from t where b = 'x4'",
        ],
    );
}

/// A parent deleted here, a child that another client made there; and the other way round. Where foreign keys were enforced
/// when the change was made, the remote refuses what would leave an orphan, and names it.
#[test]
fn foreign_keys_that_were_enforced_here_hold_on_the_remote() {
    let schema = "create table p(id integer primary key, u unique);
        create table c(id integer primary key, p references p(id) on delete cascade, u references p(u) on update set null);
        insert into p values (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'); insert into c values (10, 1, null), (40, 4, 'd');";
    let delete: &[&str] = &["insert into p values (7, 'g')", "delete from p where id = 1"];
    let update: &[&str] = &["update p set u = 'z' where id = 1"];
    let insert: &[&str] = &[
        "begin",
        "pragma defer_foreign_keys = on",
        "insert into c values (70, 7, 'h')",
        "insert into p values (7, 'h')",
        "insert into c values (30, 3, 'c')",
        "insert into c values (71, 7, null)",
        "commit",
    ];
    for (there, here, blamed) in [
        ("insert into c values (11, 1, null)", delete, Some(("p", 1))),
        ("insert into c values (11, 2, 'a')", update, Some(("p", 1))),
        ("delete from p where id = 3", insert, Some(("c", 30))),
        ("update p set u = 'other' where id = 3", insert, Some(("c", 30))),
        // What nobody depends on, and orphans of others.
        (
            "insert into c values (11, 2, 'b'), (12, 99, 'nobody')",
            delete,
            None,
        ),
        ("delete from p where id = 2", insert, None),
    ] {
        for enforced in [true, false] {
            let world = World::new(schema);
            world.served.execute(there);
            world
                .conn
                .execute_batch(&format!("pragma foreign_keys = {enforced}"))
                .unwrap();
            for sql in here {
                world.conn.execute_batch(sql).unwrap();
            }
            let before = stock_contents(&world.served.sqlite());
            match (world.a.push(), blamed.filter(|_| enforced)) {
                (Ok(()), None) => continue,
                (Err(Error::PushRefused(refused)), Some((table, id))) => {
                    let change = refused.change_id.unwrap();
                    assert_eq!(
                        refused.code.as_deref(),
                        Some("SQLITE_CONSTRAINT_FOREIGNKEY"),
                        "{there}"
                    );
                    assert_eq!(refused.table.as_deref(), Some(table), "{there}: {refused}");
                    assert!(
                        format!("{:?}", refused.key).contains(&format!("Integer({id})")),
                        "{refused}"
                    );
                    // Nothing landed: the changes before it are in the same batch.
                    assert_same(
                        &before,
                        &stock_contents(&world.served.sqlite()),
                        "after the refusal",
                    );
                    // Once the change is given up, the rest goes.
                    world.a.discard_change(change).unwrap();
                    let mut again = world.a.push();
                    while let Err(Error::PushRefused(refused)) = &again {
                        world.a.discard_change(refused.change_id.unwrap()).unwrap();
                        again = world.a.push();
                    }
                    again.unwrap();
                    world.a.pull().unwrap();
                    let there = stock_contents(&world.served.sqlite());
                    assert_same(&contents(&world.conn), &there, "after all");
                    let orphans = stock_rows(&world.served.sqlite(), "pragma foreign_key_check").unwrap();
                    assert!(orphans.is_empty(), "{orphans:?}");
                }
                (outcome, expected) => panic!("{there}: {outcome:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn h7_an_update_or_delete_of_a_keyless_row_that_is_gone_is_a_typed_refusal() {
    for sql in ["update t set b = 'mine' where a = 1", "delete from t where a = 1"] {
        let world = World::new("create table t(a, b); insert into t values (1, 1), (2, 2);");
        world.conn.execute(sql, ()).unwrap();
        world.served.execute("update t set b = 'theirs' where a = 1");
        let Error::PushRefused(refused) = world.a.push().unwrap_err() else {
            panic!("not refused")
        };
        assert!(
            refused.message.contains("no row with exactly these values"),
            "{refused}"
        );
        let Error::PullConflict { change, message, .. } = world.a.pull().unwrap_err() else {
            panic!("no conflict")
        };
        assert!(message.contains("no row with exactly these values"), "{message}");
        assert!(world.a.discard_change(change).unwrap());
        world.a.pull().unwrap();
        assert_same(
            &contents(&world.conn),
            &stock_contents(&world.served.sqlite()),
            "after the discard",
        );
    }
}

/// Of rows that are the same in every column exactly one goes. A row that a key finds and that is gone already is not a conflict.
#[test]
fn h7_one_of_several_equal_rows_goes_and_a_keyed_row_that_is_gone_is_no_conflict() {
    for pull_first in [false, true] {
        let world = World::new(
            "create table t(a, b); insert into t values (1, 1), (1, 1), (1, 1), (1, 1.0);
             create table k(id integer primary key, v); insert into k values (1, 1), (2, 2), (3, 3);",
        );
        world
            .conn
            .execute_batch("delete from t where rowid = 2; delete from k where id < 3; update t set b = 5 where rowid = 3")
            .unwrap();
        world
            .served
            .execute("delete from k where id = 1; update k set v = 9 where id = 3");
        if pull_first {
            world.a.pull().unwrap();
        }
        world.a.push().unwrap();
        world.a.pull().unwrap();
        let remote = world.served.sqlite();
        assert_eq!(
            stock_rows(&remote, "select a, b from t order by typeof(b), b").unwrap(),
            ["Integer(1)|Integer(1)", "Integer(1)|Integer(5)", "Integer(1)|1.0"]
        );
        assert_eq!(
            stock_rows(&remote, "select * from k").unwrap(),
            ["Integer(3)|Integer(9)"]
        );
        assert_same(&contents(&world.conn), &stock_contents(&remote), "pulled");
    }
}

#[test]
fn t1_a_conflict_clause_of_the_statement_overrides_those_inside_triggers() {
    let schema = format!(
        "{COUNTED}
         create trigger ti after insert on t begin insert or ignore into uniq values (new.v, new.id); end;
         create trigger tu after update on t begin insert or abort into uniq values (new.v, new.id); end;
         insert into uniq values (7, 'first');"
    );
    exact(
        &schema,
        &[
            "insert or replace into t values (10, 'x', 7)",
            "insert or replace into t values (1, 'y', 7)",
            "insert or ignore into t values (11, 'z', 7)",
            "update or replace t set v = 7 where id = 2",
            "update or ignore t set v = 7 where id = 3",
            "replace into t values (12, 'b', 7)",
        ],
    );
}

#[test]
fn t2_effects_of_statements_that_change_nothing_or_another_column_are_kept() {
    let schema = format!(
        "{COUNTED}
         create trigger tu after update on t begin update count set n = n + 1 where what = 'u'; end;
         create trigger tv after update of v on t begin insert into audit(what) values ('v of ' || new.id); end;
         create trigger bi before insert on t begin update count set n = n + 1 where what = 'i'; end;
         create trigger bg before insert on t when new.v = 'none' begin
             insert into audit(what) values ('refused ' || new.id); select raise(ignore); end;
         create trigger bd before delete on t begin update count set n = n + old.id where what = 'd'; end;"
    );
    exact(
        &schema,
        &[
            "update t set v = v",
            "update t set v = v, u = u || '!' where id = 1",
            "insert into t values (1, 'other', 5) on conflict(id) do update set v = excluded.v",
            "insert into t values (1, 'other', 5) on conflict do nothing",
            "insert into t values (20, 'q', 'none'), (21, 'r', 'some'), (22, 's', 'none')",
            "delete from t where id in (1, 2)",
            "insert or ignore into t values (3, 'zz', 1)",
        ],
    );
}

#[test]
fn t3_a_cascade_below_a_trigger_reaches_the_children() {
    exact(
        "create table job(n); create table p(id integer primary key); create table c(id integer primary key, p references p on delete cascade);
         create table g(c references c on delete set null on update cascade);
         create trigger j after insert on job begin delete from p where id = new.n; update c set id = id + 100 where p = new.n + 1; end;
         insert into p values (1), (2), (3); insert into c values (1, 1), (2, 2), (3, 3); insert into g values (1), (2), (3);",
        &["pragma foreign_keys = on", "insert into job values (1)", "delete from p where id = 3", "pragma foreign_keys = off"],
    );
}

#[test]
fn m4_effects_of_recursive_triggers_are_kept_at_any_depth() {
    exact(
        "create table t(id integer primary key, n); create table gone(id);
         create trigger ti after insert on t when new.n > 0 begin insert into t(n) values (new.n - 1); end;
         create trigger td after delete on t begin insert into gone values (old.id); end;",
        &[
            "pragma recursive_triggers = on",
            "insert into t values (100, 20)",
            "insert or replace into t values (100, 3)",
            "pragma recursive_triggers = off",
            "insert into t values (200, 5)",
            "insert or replace into t values (200, 6)",
        ],
    );
}

#[test]
fn m5_text_with_nuls_stays_that_text_in_every_encoding() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let schema = format!(
            "pragma encoding = '{encoding}'; create table t(k text primary key, v); create table n(a, b);
             insert into t values ('old' || char(0) || 'key', 1); insert into n values (char(0), 1), (char(0, 0), 2);"
        );
        exact(
            &schema,
            &[
                "insert into t values ('a' || char(0) || 'b', 'v' || char(0)), (char(0), char(1, 0, 2))",
                "update t set v = char(0) || 'ü€𝄞' where k = 'old' || char(0) || 'key'",
                "update n set b = 'x' || char(0) where a = char(0, 0)",
                "delete from n where a = char(0)",
                "delete from t where k = char(0)",
            ],
        );
    }
}

const WORDS: &str = "
    create table docs(id integer primary key, title text, body text);
    create virtual table own using fts5(title, body);
    create virtual table old using fts4(body);
    create virtual table ext using fts5(title, body, content = 'docs', content_rowid = 'id');
    create virtual table box using rtree(id, x0, x1, y0, y1, +label);
    create virtual table grid using rtree_i32(id, x0, x1);
    create trigger di after insert on docs begin insert into ext(rowid, title, body) values (new.id, new.title, new.body); end;
    create trigger dd after delete on docs begin
        insert into ext(ext, rowid, title, body) values ('delete', old.id, old.title, old.body); end;
    create trigger du after update on docs begin
        insert into ext(ext, rowid, title, body) values ('delete', old.id, old.title, old.body);
        insert into ext(rowid, title, body) values (new.id, new.title, new.body); end;
    create table place(id integer primary key, x, label);
    create trigger pi after insert on place begin insert into box values (new.id, new.x, new.x + 1, 0, 1, new.label); end;
    create trigger pu after update of x on place begin update box set x0 = new.x, x1 = new.x + 1 where id = new.id; end;
    create trigger pd after delete on place begin delete from box where id = old.id; end;
    insert into docs values (1, 'one', 'the quick brown fox'), (2, 'two', 'jumps over the dog');
    insert into own(rowid, title, body) select id, title, body from docs;";

const QUERIES: [&str; 9] = [
    "select rowid, * from own order by 1",
    "select rowid, * from old order by 1",
    "select * from box order by 1",
    "select * from grid order by 1",
    "select rowid from own where own match 'fox OR words OR random' order by 1",
    "select rowid, body from old where old match 'words' order by 1",
    "select rowid, title from ext where ext match 'fox OR dog OR words' order by 1",
    "select label from box where x0 > 2 order by 1",
    "select count(*) from ext where ext match 'brown'",
];

/// The virtual tables give the same on both sides, by content and by search; and they are whole.
fn same_words(world: &World, what: &str) {
    let remote = world.served.sqlite();
    for query in QUERIES {
        let plain = stock_rows(&world.plain, query).unwrap();
        assert_eq!(
            stock_rows(&remote, query).unwrap(),
            plain,
            "{what}: the remote: {query}"
        );
        assert_eq!(
            rows(&world.conn, query).unwrap(),
            plain,
            "{what}: the replica: {query}"
        );
    }
    for table in ["own", "ext"] {
        let check = format!("insert into {table}({table}, rank) values ('integrity-check', 1)");
        remote
            .execute_batch(&check)
            .unwrap_or_else(|e| panic!("{what}: {table}: {e}"));
    }
    for table in ["box", "grid"] {
        let check = format!("select rtreecheck('{table}')");
        assert_eq!(stock_rows(&remote, &check).unwrap(), ["Text(\"ok\")"], "{what}");
    }
}

#[test]
fn m7_rows_of_virtual_tables_are_those_that_were_written() {
    let statements = [
        "insert into docs(title, body) values ('three', 'some words'), ('four', 'other words')",
        "insert into own(rowid, title, body) select id, title, body from docs where id > 2",
        "insert into own(title, body) values ('last', last_insert_rowid()), ('random', 'random ' || hex(zeroblob(abs(changes()))))",
        "insert into own select 'when', strftime('%Y', 0)",
        "update own set body = body || ' words' where rowid in (select id from docs where id < 3)",
        "delete from own where own match 'random'",
        "insert into old select body from docs",
        "update old set body = 'more words' where docid = 2",
        "delete from old where docid = 1",
        "create temp table scratch(a); insert into scratch values ('from temp'); insert into own(title) select a from scratch",
        "update docs set body = 'a slow dog' where id = 1",
        "delete from docs where id = 2",
        "insert or replace into docs values (3, 'three again', 'fox and words')",
        "with recursive c(n) as (select 1 union all select n + 1 from c where n < 300) insert into place select n, n * 1.5, 'p' || n from c",
        "update place set x = x + 0.25 where id % 7 = 0",
        "delete from place where id % 11 = 0",
        "insert into box select id + 1000, x, x + 2, 3, 4, label from place where id < 5",
        "update box set label = 'changed' where id = 1001",
        "insert into grid values (null, 5, 7), (9, 1, 2)",
        "update grid set x1 = x1 + 10 where x0 = 5",
        "insert into own(own) values ('optimize')",
        "insert into ext(ext) values ('rebuild')",
    ];
    // REPLACE displaces a row without its DELETE trigger: not for an index that triggers keep.
    let statements: Vec<&str> = statements
        .into_iter()
        .filter(|sql| !sql.starts_with("insert or replace"))
        .collect();
    for pull_first in [false, true] {
        let world = World::new(WORDS);
        world.run(&statements);
        if pull_first {
            world.served.execute("create table somebody_else(x)");
            world
                .plain
                .execute_batch("create table somebody_else(x)")
                .unwrap();
            world.a.pull().unwrap();
        }
        world.a.push().unwrap();
        same_words(&world, "pushed");
        world.a.pull().unwrap();
        same_words(&world, "pulled");
    }
}

#[test]
fn m7_an_index_that_triggers_keep_stays_whole_when_both_sides_change_its_rows() {
    for pull_first in [false, true] {
        let world = World::new(WORDS);
        world.conn.execute_batch(
            "update docs set title = 'mine' where id = 1; insert into docs(title, body) values ('mine', 'new words');
             insert into own(title) values ('mine'); insert into docs values (50, 'mine too', 'fox'); insert into place(x, label) values (1, 'mine')",
        ).unwrap();
        // What somebody else writes there fires the same triggers.
        world.served.execute(
            "update docs set body = 'theirs' where id = 1; insert into docs(title, body) values ('theirs', 'their words');
             insert into own(title) values ('theirs'); insert into docs values (50, 'theirs too', 'dog'); insert into place(x, label) values (2, 'theirs')",
        );
        if pull_first {
            world.a.pull().unwrap();
        }
        world.a.push().unwrap();
        world.a.pull().unwrap();
        let remote = world.served.sqlite();
        for query in QUERIES {
            assert_eq!(
                rows(&world.conn, query).unwrap(),
                stock_rows(&remote, query).unwrap(),
                "{query}"
            );
        }
        let all = |sql: &str| stock_rows(&remote, sql).unwrap();
        assert_eq!(
            all("select title, body from docs where id = 1"),
            ["Text(\"mine\")|Text(\"theirs\")"]
        );
        assert_eq!(
            all("select count(*) from docs where body like '%words'"),
            ["Integer(2)"]
        );
        assert_eq!(
            all("select title from own where title is not null and rowid > 2 order by 1"),
            ["Text(\"mine\")", "Text(\"theirs\")"]
        );
        assert_eq!(
            all("select label from place order by 1"),
            ["Text(\"mine\")", "Text(\"theirs\")"]
        );
        assert_eq!(
            all("select p.label || b.label from place p join box b using (id) order by 1"),
            ["Text(\"minemine\")", "Text(\"theirstheirs\")"]
        );
        for table in ["own", "ext"] {
            let check = format!("insert into {table}({table}, rank) values ('integrity-check', 1)");
            remote
                .execute_batch(&check)
                .unwrap_or_else(|e| panic!("{pull_first}: {table}: {e}"));
        }
    }
}

/// A log that release 0.1 wrote: what its triggers did is marked in it and not sent, because they fire where it is run.
#[test]
fn h7_a_remote_that_does_not_take_rows_gets_what_its_own_triggers_make_of_them() {
    let plain_remote =
        |served: &Served, builder: Builder| builder.remote_with(Arc::new(WithoutRows(served.http())));
    let schema = format!(
        "{COUNTED} create trigger ti after insert on t begin insert into audit(what) values ('i' || new.id); end;
         create trigger tu after update of v on t begin insert into audit(what) values ('u' || new.id); end;
         create trigger tk after insert on t when new.id > 90 begin insert or ignore into uniq values (new.v, new.id); end;"
    );
    let world = World::with(&schema, plain_remote);
    world.run(&[
        "insert into t values (50, 'x', 1)",
        "update t set v = 9 where id = 2",
        "delete from t where id = 3",
    ]);
    world.a.push().unwrap();
    world.same("pushed");
    // What its triggers would not repeat is refused, not lost.
    for sql in [
        "update t set v = v where id = 1",
        "insert or replace into t values (99, 'y', 1)",
        "insert into t values (1, 'other', 5) on conflict(id) do update set v = 77",
    ] {
        let world = World::with(&schema, plain_remote);
        world.run(&[sql]);
        let error = world.a.push().unwrap_err();
        assert!(matches!(error, Error::Unsendable { .. }), "{sql}: {error}");
        assert!(error.to_string().contains("would not repeat"), "{error}");
        assert!(world.a.stats().unwrap().cdc_operations > 0);
    }
}

/// There the key of a row that a trigger made is the remote's. What this replica knows under that key is another client's.
#[test]
fn h7_a_row_that_a_trigger_made_is_no_other_clients_row_on_a_remote_whose_triggers_fire() {
    let plain_remote =
        |served: &Served, builder: Builder| builder.remote_with(Arc::new(WithoutRows(served.http())));
    let schema = "create table t(id integer primary key, v);
        create table made(n integer primary key, v, w);
        create table copied(id integer primary key, v);
        create trigger ti after insert on t begin
            insert into made(v) values (new.v); insert into copied values (new.id, new.v); end;";
    let made = "select v, w from made order by v";
    for sql in [
        "delete from made where v = 'a'",
        "update made set w = 'mine' where v = 'a'",
    ] {
        for pull_first in [false, true] {
            for push_first in [false, true] {
                let world = World::with(schema, plain_remote);
                world.conn.execute("insert into t values (100, 'a')", ()).unwrap();
                // Another client's row has the key that this replica's trigger gave.
                world.served.execute("insert into t values (200, 'b')");
                if push_first {
                    world.a.push().unwrap();
                    assert_eq!(
                        stock_rows(&world.served.sqlite(), made).unwrap(),
                        ["Text(\"a\")|Null", "Text(\"b\")|Null"]
                    );
                }
                world.conn.execute(sql, ()).unwrap();
                if pull_first {
                    match world.a.pull() {
                        Ok(_) => {}
                        Err(Error::PullConflict { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
                let pushed = world.a.push();
                let left = stock_rows(&world.served.sqlite(), made).unwrap();
                let theirs = "Text(\"b\")|Null".to_owned();
                assert!(left.contains(&theirs), "{sql}: {left:?}");
                match pushed {
                    // A put-back gave the row the key that the remote's trigger gives it too.
                    Ok(()) => {
                        assert!(pull_first && !push_first);
                        assert!(!left.contains(&"Text(\"a\")|Null".into()), "{sql}: {left:?}");
                    }
                    Err(Error::PushRefused(refused)) => {
                        assert_eq!(refused.table.as_deref(), Some("made"), "{refused}");
                        assert!(refused.to_string().contains("discard_change"), "{refused}");
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        }
    }
    // A row that the trigger named, and one that is what it was, are found.
    let world = World::with(schema, plain_remote);
    world.run(&["insert into t values (100, 'a'), (101, 'b')"]);
    world.a.push().unwrap();
    world.run(&[
        "update copied set v = 'changed' where id = 100",
        "update made set w = 'changed' where n = 1",
        "delete from made where n = 2",
    ]);
    world.a.push().unwrap();
    world.same("pushed");
}

/// SQLite undoes a statement that fails only where it had foreseen that it may: these leave in a transaction what they did before,
/// which is committed with it.
#[test]
fn what_a_failed_statement_leaves_in_a_transaction_reaches_the_remote() {
    let schema = "create table t(id integer primary key, a); create table n(a, b); create table strict_one(a text) strict;
        create table taken(id integer primary key, a unique);
        create table numbers(g, x); create index numbers_g on numbers(g, x); create table words(w);
        create virtual table f using fts5(a);
        create table parent(id integer primary key, a); create table child(p references parent on update cascade, v);
        insert into t values (1, 'a'), (2, 'b'); insert into taken values (1, 1), (2, 2); insert into f(a) values ('word');
        insert into numbers values (1, 1), (2, 9223372036854775807), (2, 1); insert into words values ('word'), ('\"');
        insert into parent values (1, 'a'), (2, 'b'); insert into child values (1, 'a'), (2, 'b');";
    let statements = [
        "insert or fail into strict_one values ('a'), (x'00')",
        "insert into strict_one values ('a'), (x'00')",
        "update t set id = case id when 1 then 11 else 'x' end",
        "update or replace taken set id = case id when 1 then 11 else 'x' end, a = 7",
        "insert into n select g, sum(x) from numbers group by g",
        "insert into n select f.a, w from words, f where f match w",
        "insert into f(rowid, a) values (5, 'x'), (5, 'y')",
        "insert or fail into f(rowid, a) values (5, 'x'), (5, 'y')",
        "insert into f(a) select sum(x) from numbers group by g",
        "update parent set id = case id when 1 then 11 else 'x' end",
    ];
    for sql in statements {
        for before in ["", "begin", "savepoint s", "begin; insert into n values (0, 0)"] {
            let world = World::new(schema);
            world.run(&["pragma foreign_keys = on", before, sql]);
            assert!(!world.conn.is_transaction_lost(), "{before}: {sql}");
            world.run(&["insert into n values (1, 2)"]);
            if !before.is_empty() {
                world.run(&["commit"]);
            }
            world.check();
        }
    }
}

/// Was red: the rows of the table that was there were recorded as new ones, and pushed once more.
#[test]
fn a_table_that_is_there_already_is_not_made_again() {
    let schema = "create table t(a); create table k(id integer primary key, a); insert into t values (1), (2); insert into k values (1, 1);";
    exact(
        schema,
        &[
            "begin",
            "create table if not exists t as select 3 as a",
            "create table if not exists k as select 3 as a",
            "create table if not exists t(a)",
            "create view if not exists t as select 1",
            "commit",
            "begin",
            "select * from t",
            "create table if not exists t as select 3 as a",
            "commit",
            "begin",
            "create table if not exists n as select 3 as a",
            "insert into t values (4)",
            "create table if not exists n as select 3 as a",
            "commit",
        ],
    );
    // Nothing is written, so nobody is kept waiting and nothing is pushed.
    let world = World::new(schema);
    world.run(&["begin", "create table if not exists t as select 3 as a"]);
    let other = world.a.connection().unwrap();
    other.execute("insert into t values (5)", ()).unwrap();
    world.conn.execute_batch("commit").unwrap();
    assert_eq!(world.a.stats().unwrap().cdc_operations, 1);
}

/// Was red: SQLite's hook gives the default as an integer, so that the row was not found on the remote and the push refused for good.
#[test]
fn a_row_that_is_older_than_a_real_column_with_a_default_is_found() {
    for add in [
        "x real default 5",
        "x double precision not null default -5",
        "x float default '7'",
        "x numeric default '5'",
    ] {
        for change in [
            "update t set a = a + 1",
            "delete from t where a = 1",
            "insert or replace into t(a) values (1), (2)",
            "update or replace t set a = 2",
        ] {
            exact(
                "create table t(a unique, b); insert into t values (1, 1), (2, 2), (3, 3);
                 create table log(x); create trigger logged after delete on t when old.a = 7 begin insert into log values (old.b); end;",
                &[&format!("alter table t add column {add}"), change, "insert into t(a) values (7)", "delete from t where a = 7"],
            );
            exact(
                &format!(
                    "create table t(a unique, b); insert into t values (1, 1), (2, 2), (3, 3); alter table t add column {add}"
                ),
                &[
                    change,
                    change,
                    "begin",
                    "delete from t",
                    "rollback",
                    "delete from t",
                ],
            );
        }
    }
}

/// Our server as one that does not know rows: the field does not reach it.
#[derive(Debug)]
struct WithoutRows(Arc<dyn partial_sync_transport::Remote>);

impl partial_sync_transport::Remote for WithoutRows {
    fn pages(
        &self,
        request: partial_sync_transport::PagesRequest,
    ) -> futures_util::future::BoxFuture<
        '_,
        Result<partial_sync_transport::PageStream, partial_sync_transport::RemoteError>,
    > {
        self.0.pages(request)
    }

    fn execute(
        &self,
        mut batch: partial_sync_transport::hrana::Batch,
        deadline: Option<std::time::Duration>,
    ) -> futures_util::future::BoxFuture<
        '_,
        Result<partial_sync_transport::hrana::BatchResult, partial_sync_transport::RemoteError>,
    > {
        batch.rows = false;
        self.0.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> partial_sync_transport::TransferStats {
        self.0.transferred()
    }
}

/// FTS5 writes what it has in memory when a savepoint begins, also that of a statement on another table. Was red: such a statement was
/// refused, as one that would write to the replica.
#[test]
fn a_statement_that_makes_fts5_write_is_not_taken_for_one_that_writes_to_the_replica() {
    let schema = "create virtual table f using fts5(a); create virtual table g using fts4(a); create table t(a, b unique);
        create unique index i on t(lower(a), b); insert into t values (1, 1), (2, 2);";
    for other in [
        "reindex",
        "reindex i",
        "insert into x values (1), (2), (3)",
        "create temp table y as select * from t",
    ] {
        let world = World::new(schema);
        world.run(&[
            "create temp table x(a unique)",
            "begin",
            "insert into t values (7, 7)",
            "insert into f(rowid, a) values (1, 'one')",
            "insert into g(docid, a) values (1, 'one')",
            other,
            "insert into f(rowid, a) values (2, 'two')",
            "commit",
        ]);
        let same = |sql: &str| {
            let there = stock_rows(&world.plain, sql).unwrap();
            assert_eq!(rows(&world.conn, sql).unwrap(), there, "{other}");
            there
        };
        same("pragma integrity_check");
        let found = same("select * from f where f match 'one OR two'");
        world.a.push().unwrap();
        let remote = stock_rows(
            &world.served.sqlite(),
            "select * from f where f match 'one OR two'",
        )
        .unwrap();
        assert_eq!(remote, found, "{other}");
    }
}
