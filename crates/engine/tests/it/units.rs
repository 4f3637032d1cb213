//! What a discarded change takes with it: all that the statement did with that row, by triggers, foreign-key actions,
//! conflict clauses and full-text indexes. Plain SQLite that never ran the statement is the judge.

use std::sync::Arc;

use crate::support::*;
use partial_sync::{
    Connection, Database, LocalChange,
    change::transform::{Transform, TransformMutation},
};
use partial_sync_core::ChangeId;

/// Tables that triggers and foreign keys keep together; indexes whose content is another table's.
const SCHEMA: &str = "
    create table p(id integer primary key, v);
    create table c(id integer primary key, p references p on delete cascade on update cascade, w);
    create table n(id integer primary key, p references p on delete set null on update set null);
    create table audit(what, id);
    create table count(what text primary key, n integer);
    create table docs(id integer primary key, title, body);
    create virtual table ext using fts5(title, body, content='docs', content_rowid='id');
    create virtual table place using rtree(id, x, y);
    create table meta(doc primary key, size) without rowid;
    create table pairs(a, b, v, primary key (a, b)) without rowid;
    create table u(id integer primary key, k text unique collate nocase);
    insert into count values ('c', 0);
    insert into p values (1, 'one'), (2, 'two');
    insert into c values (1, 1, 'a'), (2, 2, 'b');
    insert into n values (1, 1), (2, 2);
    insert into docs values (1, 'first', 'quick fox'), (2, 'second', 'lazy dog');
    insert into ext(ext) values ('rebuild');
    insert into meta select id, length(body) from docs;
    insert into place select id, id, 1000 from docs;
    insert into pairs values (1, 1, 'x'), (1, 2, 'y');
    create view v as select id, v from p;
    create trigger vi instead of insert on v begin
        insert into p values (new.id, new.v); insert into audit values ('view', new.id); end;
    create trigger pi after insert on p begin insert into audit values ('p+', new.id); end;
    create trigger pd after delete on p begin insert into audit values ('p-', old.id); end;
    create trigger cb before insert on n begin insert into audit values ('n+', new.id); end;
    create trigger cu after update on c begin insert into audit values ('c', new.id); end;
    create trigger di after insert on docs begin
        insert into ext(rowid, title, body) values (new.id, new.title, new.body);
        insert into meta values (new.id, length(new.body));
        insert into place values (new.id, new.id, 1000); end;
    create trigger dd after delete on docs begin
        insert into ext(ext, rowid, title, body) values ('delete', old.id, old.title, old.body);
        delete from meta where doc = old.id; delete from place where id = old.id; end;
    create trigger du after update on docs begin
        insert into ext(ext, rowid, title, body) values ('delete', old.id, old.title, old.body);
        insert into ext(rowid, title, body) values (new.id, new.title, new.body);
        update meta set doc = new.id, size = length(new.body) where doc = old.id;
        update place set id = new.id, x = new.id where id = old.id; end;";

const QUERIES: [&str; 18] = [
    "select * from u order by id",
    "select * from p order by id",
    "select * from c order by id",
    "select * from n order by id",
    "select * from audit order by what, id",
    "select * from count",
    "select * from docs order by id",
    "select * from meta",
    "select * from pairs",
    "select * from place order by id",
    "select id from ext_docsize order by id",
    "select rowid from ext where ext match 'fox' order by rowid",
    "select rowid from ext where ext match 'dog' order by rowid",
    "select rowid from ext where ext match 'cat' order by rowid",
    "select rowid from ext where ext match 'title : first' order by rowid",
    "select rowid from ext where ext match 'quick OR lazy' order by rowid",
    "pragma foreign_key_check",
    "pragma integrity_check",
];

/// A remote, a replica, and plain SQLite that runs something else.
pub(crate) struct World {
    pub served: Served,
    replicas: Replicas,
    plain: rusqlite::Connection,
    pub db: Database,
    pub conn: Connection,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::transformed(|_| Transform::Keep)
    }

    fn transformed(transform: impl Fn(&TransformMutation) -> Transform + Send + Sync + 'static) -> Self {
        let served = Served::new(SCHEMA);
        let replicas = Replicas::new();
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        plain.execute_batch(SCHEMA).unwrap();
        plain.pragma_update(None, "foreign_keys", true).unwrap();
        let db = replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .transform(Arc::new(transform))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch("pragma foreign_keys = on").unwrap();
        Self {
            served,
            replicas,
            plain,
            db,
            conn,
        }
    }

    /// Runs the statement here, and says what it changed.
    fn run(&self, sql: &str) -> Vec<LocalChange> {
        let last = self.log().last().map_or(ChangeId(0), |change| change.id);
        self.conn
            .execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        self.db.local_changes(last, 10_000).unwrap()
    }

    pub(crate) fn log(&self) -> Vec<LocalChange> {
        self.db.local_changes(ChangeId(0), 10_000).unwrap()
    }

    pub(crate) fn plain(&self, sql: &str) {
        self.plain
            .execute_batch(sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// Replica, remote and another replica have what plain SQLite has, and every index fits its content.
    fn same(&self, what: &str) {
        let remote = self.served.sqlite();
        for query in QUERIES {
            let plain = stock_rows(&self.plain, query).unwrap();
            assert_eq!(
                rows(&self.conn, query).unwrap(),
                plain,
                "{what}: the replica, {query}"
            );
            assert_eq!(
                stock_rows(&remote, query).unwrap(),
                plain,
                "{what}: the remote, {query}"
            );
        }
        // With a rank, FTS5 compares the index with the content.
        let check = "insert into ext(ext, rank) values ('integrity-check', 1)";
        self.plain.execute_batch(check).unwrap();
        remote.execute_batch(check).unwrap();
        let fresh = self.replicas.builder("fresh.db").remote(self.served.url());
        let fresh = fresh.connect().unwrap();
        fresh
            .connection()
            .unwrap()
            .execute_batch("begin; insert into ext(ext, rank) values ('integrity-check', 1); rollback")
            .unwrap();
        self.conn
            .execute_batch("begin; insert into ext(ext, rank) values ('integrity-check', 1); rollback")
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(self.log(), []);
    }

    /// In both orders: what is left is put back on a remote that has news, or pushed first.
    pub(crate) fn settle(&self, pull_first: bool, what: &str) {
        if pull_first {
            self.served
                .execute("create table if not exists somebody_else(x); insert into somebody_else values (1)");
            self.db.pull().unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        self.db.push().unwrap_or_else(|e| panic!("{what}: {e}"));
        self.db.pull().unwrap();
        self.same(what);
    }
}

/// Runs the scripts; the first change of the one with this number is discarded, with what depends on it or alone. What is
/// left is what plain SQLite makes of the scripts `left`.
fn discarded(scripts: &[&str], at: usize, left: &[&str]) {
    for (pull_first, alone) in [(true, false), (false, true)] {
        let world = World::new();
        let mut changes = vec![];
        for script in scripts {
            changes.push(world.run(script));
        }
        // Whichever of them is named.
        let named = &changes[at][if pull_first { changes[at].len() - 1 } else { 0 }];
        match alone {
            true => assert!(world.db.discard_change(named.id).unwrap()),
            false => assert!(
                !world
                    .db
                    .discard_change_with_dependents(named.id)
                    .unwrap()
                    .is_empty()
            ),
        }
        for script in left {
            world.plain(script);
        }
        world.settle(pull_first, &format!("{scripts:?} without {at}"));
    }
}

/// Was red: the index of a discarded row stayed in the log, and a trigger's rows stayed for good.
#[test]
fn what_triggers_did_for_a_discarded_row_goes_with_it() {
    let others = [
        "insert into docs values (7, 'seventh', 'a cat')",
        "insert into p values (7, 'seven')",
    ];
    for gone in [
        "insert into docs values (5, 'fifth', 'a quick fox and a cat')",
        "update docs set body = 'a cat', title = 'changed' where id = 1",
        "update docs set id = 9 where id = 1",
        "delete from docs where id = 2",
        "insert into p values (5, 'five')",
        "insert into v values (5, 'five')",
        "insert into n values (5, 1), (6, 2)",
        "update p set id = 9 where id = 1",
        "delete from p where id = 2",
        "update c set w = 'changed' where id = 1",
        "insert or replace into p values (1, 'again')",
        "update or replace p set id = 2 where id = 1",
        "update pairs set b = 3 where b = 2",
        "replace into pairs values (1, 1, 'again')",
        "update or replace pairs set b = 2 where b = 1",
        "insert into p values (1, 'x') on conflict do update set v = 'upserted'",
    ] {
        discarded(&[others[0], gone, others[1]], 1, &others);
    }
}

#[test]
fn of_a_statement_that_changed_several_rows_one_can_be_discarded_with_what_followed_from_it() {
    let world = World::new();
    let changes =
        world.run("insert into docs values (5, 'fifth', 'fox'), (6, 'sixth', 'dog'), (7, 'seventh', 'cat')");
    let second = changes
        .iter()
        .find(|change| change.what.contains("id = 6"))
        .unwrap();
    world.db.discard_change(second.id).unwrap();
    let changes = world.run("delete from p");
    let second = changes
        .iter()
        .find(|change| change.what == "delete from \"p\" (id = 2)");
    assert!(world.db.discard_change(second.unwrap().id).unwrap());
    let changes = world.run("update pairs set a = 2");
    world.db.discard_change(changes[1].id).unwrap();
    world.plain("insert into docs values (5, 'fifth', 'fox'), (7, 'seventh', 'cat')");
    world.plain("delete from p where id = 1; update pairs set a = 2 where b = 1");
    world.settle(false, "one of several");
}

/// A table that is dropped takes its rows' children with it where foreign keys act.
#[test]
fn a_discarded_drop_table_leaves_what_referred_to_it() {
    discarded(
        &[
            "create table q(id integer primary key); insert into q values (1)",
            "drop table p",
        ],
        1,
        &["create table q(id integer primary key); insert into q values (1)"],
    );
}

#[test]
fn what_could_happen_only_because_of_a_discarded_change_goes_too() {
    for (scripts, at, left) in [
        // The key was free.
        (
            &[
                "delete from docs where id = 1",
                "insert into docs values (1, 'new', 'cat')",
            ][..],
            0,
            &[][..],
        ),
        (
            &[
                "update p set id = 9 where id = 2",
                "insert into p values (2, 'new')",
                "insert into c values (5, 2, 'of the new')",
            ],
            0,
            &[],
        ),
        // No child was left.
        (
            &["delete from c where id = 2", "delete from p where id = 2"],
            0,
            &[],
        ),
        (
            &[
                "update c set p = 1 where id = 2",
                "update p set id = 9 where id = 2",
            ],
            0,
            &[],
        ),
        // The parent is only changed: its children stay.
        (
            &[
                "update p set v = 'x' where id = 1",
                "insert into c values (5, 1, 'w')",
            ],
            0,
            &["insert into c values (5, 1, 'w')"],
        ),
        // The value was free.
        (
            &[
                "insert into u values (1, 'A')",
                "update u set k = 'b' where id = 1",
                "insert into u values (2, 'a')",
                "insert into u values (3, 'c')",
            ],
            1,
            &["insert into u values (1, 'A')", "insert into u values (3, 'c')"],
        ),
        // A row that was made again is another one.
        (
            &[
                "insert into docs values (5, 'a', 'fox')",
                "delete from docs where id = 5",
                "insert into docs values (5, 'b', 'dog')",
                "update docs set body = 'cat' where id = 5",
            ],
            0,
            &[
                "insert into docs values (5, 'b', 'dog')",
                "update docs set body = 'cat' where id = 5",
            ],
        ),
        // What a cascade did to a row that is given up did not happen; the rest of it did.
        (
            &[
                "drop trigger cu; drop trigger pd; insert into c values (6, 2, 'w')",
                "insert into c values (5, 2, 'w')",
                "update p set id = 8 where id = 2",
                "delete from p where id = 8",
            ],
            1,
            &[
                "drop trigger cu; drop trigger pd; insert into c values (6, 2, 'w')",
                "update p set id = 8 where id = 2",
                "delete from p where id = 8",
            ],
        ),
        // With triggers it goes, for they may have seen the row.
        (
            &[
                "insert into c values (5, 2, 'w')",
                "update p set id = 8 where id = 2",
                "insert into p values (5, 'five')",
            ],
            0,
            &["insert into p values (5, 'five')"],
        ),
        (
            &[
                "create trigger counts after insert on c begin update count set n = n + 1; end",
                "insert into c values (5, 1, 'w')",
                "insert into c values (6, 1, 'w')",
                "insert into p values (6, 'six')",
            ],
            1,
            &[
                "create trigger counts after insert on c begin update count set n = n + 1; end",
                "insert into p values (6, 'six')",
            ],
        ),
    ] {
        for pull_first in [false, true] {
            let world = World::new();
            let changes: Vec<_> = scripts.iter().map(|script| world.run(script)).collect();
            world
                .db
                .discard_change_with_dependents(changes[at][0].id)
                .unwrap();
            left.iter().for_each(|script| world.plain(script));
            world.settle(pull_first, &format!("{scripts:?}"));
        }
    }
}

/// Was red: the index entry of a row that was skipped or rewritten was pushed and put back as it was.
#[test]
fn the_index_of_a_row_that_transform_leaves_out_or_rewrites_fits_what_is_there() {
    let script = "insert into docs values (5, 'fifth', 'fox'); update docs set body = 'cat' where id = 1;
                  delete from docs where id = 2; insert into docs values (6, 'sixth', 'dog'); insert into docs(title, body) values ('given', 'cat')";
    for pull_first in [false, true] {
        let world = World::transformed(|m| match (m.table_name.as_str(), m.id) {
            ("docs" | "place", Some(1 | 2 | 5)) => Transform::Skip,
            ("meta", _) => Transform::Skip,
            _ => Transform::Keep,
        });
        world.run(script);
        world.plain("drop trigger di; drop trigger dd; create trigger di after insert on docs begin insert into ext(rowid, title, body) values (new.id, new.title, new.body); insert into place values (new.id, new.id, 1000); end;
                     insert into docs values (6, 'sixth', 'dog'), (7, 'given', 'cat')");
        world.settle(pull_first, "skipped");
    }
    for pull_first in [false, true] {
        let world = World::transformed(|m| match (m.table_name.as_str(), m.id) {
            ("docs", Some(id @ 5..)) => Transform::Rewrite {
                sql: "insert into docs values (?, 'rewritten', 'cat')".into(),
                values: vec![partial_sync::change::Value::Integer(id)],
            },
            ("docs", Some(id)) => Transform::Rewrite {
                sql: "update docs set title = 'rewritten' where id = ?".into(),
                values: vec![partial_sync::change::Value::Integer(id)],
            },
            ("meta", _) => Transform::Skip,
            _ => Transform::Keep,
        });
        world.run(script);
        world.plain("drop trigger di; create trigger di after insert on docs begin insert into ext(rowid, title, body) values (new.id, new.title, new.body); insert into place values (new.id, new.id, 1000); end;
                     insert into docs values (5, 'rewritten', 'cat'), (6, 'rewritten', 'cat'), (7, 'rewritten', 'cat'); update docs set title = 'rewritten' where id < 3; delete from place where id = 2; update meta set size = 9 where doc = 1; update meta set size = 8 where doc = 2");
        world.settle(pull_first, "rewritten");
    }
}

/// Was red: the row was there, and nobody found it.
#[test]
fn a_row_that_transform_gives_another_number_is_in_the_index() {
    for pull_first in [false, true] {
        let world = World::transformed(|m| match (m.table_name.as_str(), m.id) {
            ("docs", Some(id @ 5..)) => Transform::Rewrite {
                sql: "insert into docs values (?, 'rewritten', 'cat')".into(),
                values: vec![partial_sync::change::Value::Integer(id + 100)],
            },
            // Rows of other tables have no index.
            ("p", Some(id)) => Transform::Rewrite {
                sql: "insert into p values (?, 'rewritten')".into(),
                values: vec![partial_sync::change::Value::Integer(id + 100)],
            },
            ("meta" | "place" | "audit", _) => Transform::Skip,
            _ => Transform::Keep,
        });
        world.run("begin; insert into docs values (5, 'fifth', 'fox'), (6, 'sixth', 'dog'); insert into p values (2000, 'x'); commit");
        world.plain("drop trigger di; drop trigger pi; insert into docs values (105, 'rewritten', 'cat'), (106, 'rewritten', 'cat');
            insert into ext(rowid, title, body) select id, title, body from docs where id > 100; insert into p values (2100, 'rewritten')");
        world.settle(pull_first, "another number");
    }
}
