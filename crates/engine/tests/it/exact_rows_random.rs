//! Random schemas with triggers, conflict clauses and foreign keys, and random statements on them: what they do to rows reaches the
//! remote exactly as it came out.

use super::exact_rows::World;
use crate::support::*;

/// A random schema, and random statements on it.
struct Random(fastrand::Rng);

impl Random {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.0.usize(0..of.len())]
    }

    fn table(&mut self) -> &'static str {
        self.pick(&["t0", "t1", "t2", "t3", "t4"])
    }

    fn value(&mut self) -> String {
        match self.0.u32(0..9) {
            0 => "null".into(),
            1 => format!("'{}'", self.0.u32(0..4)),
            2 => format!("'a{}' || char(0) || 'b'", self.0.u32(0..3)),
            3 => format!("{}.5", self.0.u32(0..4)),
            4 => format!("x'0{}'", self.0.u32(0..4)),
            _ => self.0.u32(0..6).to_string(),
        }
    }

    fn conflict(&mut self) -> &'static str {
        self.pick(&["", "", "", "or ignore", "or replace", "or abort", "or fail"])
    }

    fn action(&mut self) -> &'static str {
        self.pick(&["cascade", "set null", "set default", "no action", "restrict"])
    }

    fn schema(&mut self) -> String {
        let (u, d) = (self.action(), self.action());
        let (v, e) = (self.action(), self.action());
        let mut schema = format!(
            "create table t0(id integer primary key, a, b unique);
             create table t1(id integer primary key autoincrement, a references t0(id) on update {u} on delete {d}, b);
             create table t2(k text primary key, a integer references t0 on update {v} on delete {e}, b);
             create table t3(a, b);
             create table t4(a, b, c default 7, primary key(b, a)) without rowid;
             create table audit(n integer primary key, what);
             create table total(what text primary key, n integer);
             create view v as select id, a, b from t0;
             create trigger vi instead of insert on v begin insert into t0(id, a, b) values (new.id, new.a, new.b); end;
             create trigger vu instead of update on v begin update t0 set a = new.a where id = old.id; end;
             insert into t0 values (1, 1, 1), (2, 2, 2), (3, 3, 3); insert into t1(a, b) values (1, 1), (2, 2);
             insert into t2 values ('x', 1, 1), ('y', 2, 2); insert into t3 values (1, 1), (1, 1); insert into t4(a, b) values (1, 1);
             insert into total values ('insert', 0), ('update', 0), ('delete', 0);"
        );
        for n in 0..self.0.u32(1..6) {
            let table = self.table();
            let when = self.pick(&["before", "after"]);
            let (event, rows) = match self.0.u32(0..4) {
                0 => ("insert", &["new"][..]),
                1 => ("delete", &["old"][..]),
                2 => ("update of a", &["old", "new"][..]),
                _ => ("update", &["old", "new"][..]),
            };
            let mut body = String::new();
            for _ in 0..self.0.u32(1..3) {
                let row = self.pick(rows);
                let or = self.conflict();
                let target = self.table();
                let (x, y) = (self.value(), self.value());
                body.push_str(&match self.0.u32(0..8) {
                    0 => format!("insert into audit(what) values ('{event} ' || {row}.a);"),
                    1 => format!(
                        "update total set n = n + 1 where what = '{}';",
                        self.pick(&["insert", "update", "delete"])
                    ),
                    2 => format!("update {or} {target} set b = {row}.a where a is {row}.b;"),
                    3 => format!("delete from {target} where b is {row}.a;"),
                    4 => format!("insert {or} into t3 values ({row}.b, {x});"),
                    5 => format!("insert {or} into t0(a, b) values ({row}.b, {y});"),
                    6 => {
                        let how = self.pick(&["ignore", "fail, 'no'", "abort, 'no'"]);
                        format!("select raise({how}) where {row}.b is {x};")
                    }
                    _ => format!("insert {or} into t4(a, b) values ({row}.a, {x});"),
                });
            }
            schema.push_str(&format!(
                "create trigger tr{n} {when} {event} on {table} begin {body} end;\n"
            ));
        }
        schema
    }

    fn statement(&mut self) -> String {
        let (table, or) = (self.table(), self.conflict());
        let (x, y, z) = (self.value(), self.value(), self.value());
        match self.0.u32(0..22) {
            0..3 => format!("insert {or} into {table}(a, b) values ({x}, {y}), ({z}, {x})"),
            3 => format!("insert {or} into t0 values ({}, {x}, {y})", self.0.u32(1..8)),
            4 => format!("replace into {table}(a, b) values ({x}, {y})"),
            5 => format!(
                "insert into t0(id, a, b) values ({}, {x}, {y}) on conflict do update set a = excluded.a",
                self.0.u32(1..8)
            ),
            6 => format!(
                "insert into t2 values ('{}', {x}, {y}) on conflict(k) do update set b = b || 'x', a = excluded.a",
                self.pick(&["x", "y", "z"])
            ),
            7 | 8 => format!("update {or} {table} set a = {x} where b is {y}"),
            9 => format!("update {or} {table} set a = a, b = {x} where a is {y}"),
            10 => format!("update {table} set a = a"),
            11 => format!(
                "update {or} t0 set id = id + {} where id > {}",
                self.0.u32(1..3),
                self.0.u32(1..5)
            ),
            12 | 13 => format!("delete from {table} where a is {x} or b is {y}"),
            14 => format!(
                "insert into {table}(a, b) select b, a from {} limit 2",
                self.table()
            ),
            15 => format!("insert {or} into v values ({}, {x}, {y})", self.0.u32(1..9)),
            16 => format!("update v set a = {x} where id < {}", self.0.u32(1..5)),
            17 => self
                .pick(&["pragma foreign_keys = on", "pragma foreign_keys = off"])
                .into(),
            18 => self
                .pick(&[
                    "pragma recursive_triggers = on",
                    "pragma recursive_triggers = off",
                ])
                .into(),
            19 => format!("delete from t0 where id = {}", self.0.u32(1..6)),
            20 => self.pick(&["begin", "savepoint s"]).into(),
            _ => self.pick(&["commit", "rollback to s", "release s"]).into(),
        }
    }
}

/// Plain SQLite is the judge of whatever comes: `PARTIAL_SYNC_SEED` repeats a failure.
#[test]
fn t1_t2_t3_m4_h7_random_schemas_and_statements_come_to_what_plain_sqlite_makes_of_them() {
    let seed = seed();
    for round in 0..8 {
        let mut random = Random(fastrand::Rng::with_seed(seed.wrapping_add(round)));
        let schema = random.schema();
        let world = World::new(&schema);
        let mut ran = vec![];
        for step in 0..60 {
            let sql = random.statement();
            let here = world.conn.execute_batch(&sql);
            let there = world.plain.execute_batch(&sql);
            if world.conn.is_transaction_lost() {
                world.conn.execute_batch("rollback").unwrap();
            }
            ran.push(sql);
            let all = || format!("round {round}\n{schema}\n{}", ran.join(";\n"));
            assert_eq!(here.is_ok(), there.is_ok(), "{here:?}, {there:?}\n{}", all());
            // Plain SQLite then keeps what the triggers had done so far, if a transaction is open; a replica undoes the statement.
            let too_deep = "triggers nested too deep";
            if there.is_err_and(|e| e.to_string().contains(too_deep)) && !world.conn.is_autocommit() {
                world.conn.execute_batch("rollback").unwrap();
                world.plain.execute_batch("rollback").unwrap();
            }
            if step % 20 != 19 {
                continue;
            }
            for end in ["commit", "release s"] {
                let (here, there) = (world.conn.execute_batch(end), world.plain.execute_batch(end));
                assert_eq!(here.is_ok(), there.is_ok(), "{here:?}, {there:?}\n{}", all());
            }
            if !world.conn.is_autocommit() {
                // A deferred violation.
                world.conn.execute_batch("rollback").unwrap();
                world.plain.execute_batch("rollback").unwrap();
            }
            let compare = |what: &str| {
                let plain = stock_contents(&world.plain);
                assert_same(
                    &contents(&world.conn),
                    &plain,
                    &format!("{what}: the replica\n{}", all()),
                );
            };
            compare("before");
            if step % 40 == 19 {
                let other = format!("create table other{step}(x); insert into other{step} values (1)");
                world.served.execute(&other);
                world.plain.execute_batch(&other).unwrap();
                world.a.pull().unwrap_or_else(|e| panic!("pull: {e}\n{}", all()));
                compare("put back");
            }
            if let Err(e) = world.a.push() {
                // SQLite lets a child without a parent in when a BEFORE trigger of its INSERT deletes from the parent's table;
                // the remote, which runs no trigger, does not.
                let orphans: i64 = world
                    .plain
                    .query_row("select count(*) from pragma_foreign_key_check", (), |row| {
                        row.get(0)
                    })
                    .unwrap();
                assert!(
                    e.to_string().contains("SQLITE_CONSTRAINT_FOREIGNKEY")
                        && orphans > 0
                        && schema
                            .lines()
                            .any(|line| line.contains(" before ") && line.contains("begin delete from t0")),
                    "push: {e}\n{}",
                    all()
                );
                break;
            }
            let plain = stock_contents(&world.plain);
            let remote = stock_contents(&world.served.sqlite());
            assert_same(&remote, &plain, &format!("the remote\n{}", all()));
            world.a.pull().unwrap_or_else(|e| panic!("pull: {e}\n{}", all()));
            compare("pulled");
        }
    }
}
