//! Each row of the table "The SQL of a change" in `docs/protocol.md`, run on real databases.

use super::super::sql::{self, SqlError};
use super::*;

/// Records on one database what `run` does, and asserts that another one comes to the same contents.
fn same(schema: &str, run: impl FnOnce(&mut Recorder)) -> (Recorder, Connection) {
    let mut a = Recorder::new(schema);
    let b = database(schema);
    run(&mut a);
    apply(&b, &a.log);
    assert_eq!(contents(&b), contents(&a.conn));
    (a, b)
}

fn twice(schema: &str, run: impl FnOnce(&mut Recorder)) {
    let (a, b) = same(schema, run);
    apply(&b, &a.log);
    assert_eq!(contents(&b), contents(&a.conn));
}

fn count(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

const NOTES: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, body)";

#[test]
fn an_insert_with_a_primary_key_is_an_upsert_and_the_last_push_wins() {
    let mut a = Recorder::new(NOTES);
    a.run("INSERT INTO notes VALUES (1, 'mine', 2)", &[]);
    let statement = one(&a.log[0]);
    assert_eq!(
        statement.sql,
        r#"INSERT OR ABORT INTO "notes" ("id", "title", "body") VALUES (?, ?, ?) ON CONFLICT ("id") DO UPDATE SET "title" = excluded."title", "body" = excluded."body""#
    );
    let b = database(NOTES);
    b.execute("INSERT INTO notes VALUES (1, 'theirs', 0), (2, 'other', 0)", [])
        .unwrap();
    apply(&b, &a.log);
    assert_eq!(
        count(&b, "SELECT count(*) FROM notes WHERE id = 1 AND title = 'mine'"),
        1
    );
    assert_eq!(count(&b, "SELECT count(*) FROM notes"), 2);
}

#[test]
fn an_insert_into_a_table_of_keys_only_does_nothing_the_second_time() {
    twice("CREATE TABLE tags (a TEXT, b, PRIMARY KEY (b, a))", |a| {
        a.run("INSERT INTO tags VALUES ('x', 1), ('y', 1)", &[]);
        assert!(
            one(&a.log[0])
                .sql
                .ends_with(r#"ON CONFLICT ("b", "a") DO NOTHING"#)
        );
    });
}

#[test]
fn an_update_sets_the_changed_columns_only_and_keeps_what_others_changed() {
    let mut a = Recorder::new(NOTES);
    let b = database(NOTES);
    a.run("INSERT INTO notes VALUES (1, 'title', 'body')", &[]);
    apply(&b, &a.log);
    a.log.clear();
    b.execute("UPDATE notes SET body = 'theirs'", []).unwrap();
    a.run("UPDATE notes SET title = 'mine', body = body", &[]);
    assert_eq!(
        one(&a.log[0]).sql,
        r#"UPDATE OR ABORT "notes" SET "title" = ? WHERE "notes"."id" IS ?"#
    );
    apply(&b, &a.log);
    assert_eq!(
        count(
            &b,
            "SELECT count(*) FROM notes WHERE title = 'mine' AND body = 'theirs'"
        ),
        1
    );
}

#[test]
fn an_update_changes_a_key_too_and_a_key_alone() {
    let (a, _) = same(NOTES, |a| {
        a.run("INSERT INTO notes VALUES (1, 'a', 1), (5, 'b', 2)", &[]);
        a.run("UPDATE notes SET id = 2, title = 'c' WHERE id = 1", &[]);
        a.run("UPDATE notes SET id = 9 WHERE id = 5", &[]);
    });
    assert_eq!(
        one(&a.log[3]).sql,
        r#"UPDATE OR ABORT "notes" SET "id" = ? WHERE "notes"."id" IS ?"#
    );
    assert_eq!(one(&a.log[3]).args, [int(9), int(5)]);
}

#[test]
fn an_update_of_a_row_deleted_remotely_does_nothing() {
    let mut a = Recorder::new(NOTES);
    a.run("INSERT INTO notes VALUES (1, 'a', 1)", &[]);
    a.run("UPDATE notes SET title = 'b'", &[]);
    let b = database(NOTES);
    apply(&b, &a.log[1..]);
    assert_eq!(count(&b, "SELECT count(*) FROM notes"), 0);
}

#[test]
fn an_update_that_changes_nothing_has_no_sql() {
    let mut a = Recorder::new(NOTES);
    let table = Arc::new(tables(&a.conn).remove(0));
    let image = vec![int(1), text("a"), Value::Real(0.5)];
    let op = RowOp::Update {
        before: image.clone(),
        after: image,
    };
    a.note(ChangeKind::Row {
        table,
        op,
        cause: Cause::Statement,
    });
    assert_eq!(to_sql(&a.log[0], Mode::Triggers).unwrap(), []);
}

#[test]
fn an_update_from_one_zero_to_the_other_is_a_change() {
    same("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", |a| {
        a.run("INSERT INTO t VALUES (1, ?)", &[Value::Real(0.0)]);
        a.run("UPDATE t SET v = ?", &[Value::Real(-0.0)]);
        assert_eq!(to_sql(&a.log[1], Mode::Triggers).unwrap().len(), 1);
    });
}

#[test]
fn a_delete_finds_its_row_by_key() {
    let (a, _) = same(NOTES, |a| {
        a.run("INSERT INTO notes VALUES (1, 'a', 1), (2, 'a', 1)", &[]);
        a.run("DELETE FROM notes WHERE id = 1", &[]);
    });
    assert_eq!(
        one(&a.log[2]).sql,
        r#"DELETE FROM "notes" WHERE "notes"."id" IS ?"#
    );
}

#[test]
fn a_key_column_that_the_remote_does_not_have_is_refused_and_never_read_as_a_string() {
    let mut a = Recorder::new("CREATE TABLE t (id TEXT PRIMARY KEY)");
    a.run("INSERT INTO t VALUES ('id')", &[]);
    a.run("DELETE FROM t", &[]);
    let b = database("CREATE TABLE t (other TEXT PRIMARY KEY); INSERT INTO t VALUES ('a'), ('b')");
    let refused = apply_one(&b, &one(&a.log[1])).unwrap_err().to_string();
    assert!(refused.contains("no such column"), "{refused}");
    assert_eq!(count(&b, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_table_without_a_primary_key_changes_exactly_one_of_equal_rows() {
    let schema = "CREATE TABLE t (a, b)";
    let mut a = Recorder::new(schema);
    a.run("INSERT INTO t VALUES (1, 'x'), (1, 'x'), (1, 'x')", &[]);
    a.run("DELETE FROM t WHERE rowid = 2", &[]);
    a.run("UPDATE t SET b = 'y' WHERE rowid = 3", &[]);
    let b = database(schema);
    // Other rowids than at home: they mean nothing to another client.
    b.execute("INSERT INTO t VALUES (9, 'theirs')", []).unwrap();
    apply(&b, &a.log);
    assert_eq!(count(&b, "SELECT count(*) FROM t WHERE a = 1 AND b = 'x'"), 1);
    assert_eq!(count(&b, "SELECT count(*) FROM t WHERE a = 1 AND b = 'y'"), 1);
    assert_eq!(count(&b, "SELECT count(*) FROM t"), 3);
}

#[test]
fn a_row_without_a_key_is_told_from_rows_that_only_compare_equal() {
    let schema = "CREATE TABLE t (v, c TEXT COLLATE NOCASE); CREATE INDEX i ON t (c)";
    let values = [
        (int(1), text("a")),
        (Value::Real(1.0), text("a")),
        (text("1"), text("a")),
        (Value::Blob(b"1".to_vec()), text("a")),
        (Value::Null, text("a")),
        (int(1), text("A")),
        (int(1), Value::Blob(b"a".to_vec())),
        (int(1), Value::Null),
        (Value::RawText(vec![0xff]), text("a")),
        (text("1\0"), text("a\0b")),
        (text("1\0"), text("a\0c")),
    ];
    // In both orders, because of two rows that were taken for equal the first would be found.
    for order in [values.to_vec(), values.iter().rev().cloned().collect()] {
        for n in 1..=order.len() as i64 {
            same(schema, |a| {
                for (v, c) in &order {
                    a.run("INSERT INTO t VALUES (?, ?)", &[v.clone(), c.clone()]);
                }
                a.run("UPDATE t SET c = 'found' WHERE rowid = ?", &[int(n)]);
                a.run("DELETE FROM t WHERE rowid = ?", &[int(n % 11 + 1)]);
            });
        }
    }
}

#[test]
fn a_table_without_a_key_may_have_columns_named_like_the_rowid() {
    let (a, _) = same("CREATE TABLE t (ROWID, oid TEXT)", |a| {
        a.run("INSERT INTO t VALUES (7, 'x'), (7, 'x'), (1, 'y')", &[]);
        a.run("UPDATE t SET oid = 'z' WHERE _rowid_ = 1", &[]);
        a.run("DELETE FROM t WHERE _rowid_ = 2", &[]);
    });
    assert!(
        one(&a.log[4])
            .sql
            .contains("WHERE _rowid_ = coalesce((SELECT _rowid_ FROM")
    );
    let table = Table {
        name: "t".into(),
        columns: ["rowid", "OID", "_rowid_"]
            .map(|name| Column {
                name: name.into(),
                key: 0,
                generated: false,
            })
            .to_vec(),
        without_rowid: false,
        is_virtual: false,
    };
    let change = Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind: ChangeKind::Row {
            table: Arc::new(table),
            op: RowOp::Delete {
                before: vec![Value::Null; 3],
            },
            cause: Cause::Statement,
        },
    };
    let error = to_sql(&change, Mode::Triggers).unwrap_err();
    assert!(matches!(error, SqlError::NoRowIdentity { .. }));
    assert!(error.to_string().contains("Give it a primary key"));
}

#[test]
fn composite_keys_and_tables_without_rowid_work_like_the_rest() {
    for suffix in ["", " WITHOUT ROWID"] {
        let schema = format!("CREATE TABLE t (v, b INTEGER, a TEXT, PRIMARY KEY (a, b)){suffix}");
        twice(&schema, |a| {
            a.run(
                "INSERT INTO t VALUES ('one', 1, 'a'), ('two', 2, 'a'), ('three', 1, 'b')",
                &[],
            );
            a.run("UPDATE t SET v = 'TWO' WHERE a = 'a' AND b = 2", &[]);
            a.run("DELETE FROM t WHERE a = 'b'", &[]);
            let update = one(&a.log[3]);
            assert_eq!(
                update.sql,
                r#"UPDATE OR ABORT "t" SET "v" = ? WHERE "t"."a" IS ? AND "t"."b" IS ?"#
            );
            assert_eq!(update.args, [text("TWO"), text("a"), int(2)]);
        });
    }
}

#[test]
fn a_null_in_a_key_names_its_row_by_all_its_values() {
    let schema = "CREATE TABLE t (k TEXT PRIMARY KEY, v)";
    let (a, b) = same(schema, |a| {
        a.run(
            "INSERT INTO t VALUES (NULL, 1), (NULL, 1), (NULL, 2), ('k', 9)",
            &[],
        );
        a.run("UPDATE t SET v = 3 WHERE rowid = 1", &[]);
        a.run("DELETE FROM t WHERE rowid = 2", &[]);
        a.run("UPDATE t SET k = 'now' WHERE rowid = 3", &[]);
        a.run("UPDATE t SET k = NULL WHERE k = 'k'", &[]);
    });
    assert!(!one(&a.log[0]).sql.contains("ON CONFLICT"));
    // Neither finds its row the second time, and says so.
    for change in &a.log[4..6] {
        let again = one(change);
        assert!(again.must_find);
        let error = apply_one(&b, &again).unwrap_err().to_string();
        assert!(sql::is_made_to_fail(&error), "{error}");
    }
    assert_eq!(contents(&b), contents(&a.conn));
}

#[test]
fn generated_columns_are_computed_and_never_written() {
    let columns = "a TEXT, v AS (a || '!'), s AS (length(a)) STORED, z";
    for schema in [
        format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {columns})"),
        format!("CREATE TABLE t (v0 AS (z), {columns})"),
    ] {
        let (a, _) = same(&schema, |a| {
            a.run("INSERT INTO t (a, z) VALUES ('x', 1), ('yy', 2)", &[]);
            a.run("UPDATE t SET a = 'zzz' WHERE z = 2", &[]);
            a.run("DELETE FROM t WHERE z = 1", &[]);
        });
        for change in &a.log {
            let sql = one(change).sql;
            assert!(!sql.contains("\"s\"") && !sql.contains("\"v\""), "{sql}");
        }
    }
}

#[test]
fn strict_tables_take_the_same_values_back() {
    twice(
        "CREATE TABLE t (id INT PRIMARY KEY, t TEXT, r REAL, b BLOB, x ANY) STRICT",
        |a| {
            a.run(
                "INSERT INTO t VALUES (1, ?, ?, ?, ?), (2, ?, 2, x'', '7')",
                &[
                    text("a\0b"),
                    Value::Real(f64::INFINITY),
                    Value::Blob(vec![0, 1]),
                    Value::RawText(vec![0xff, 0xfe]),
                    Value::RawText(vec![0xc0]),
                ],
            );
            a.run(
                "UPDATE t SET x = ?, r = ? WHERE id = 2",
                &[int(7), Value::Real(-0.5)],
            );
        },
    );
}

#[test]
fn quoted_names_work_like_the_rest() {
    twice(
        r#"CREATE TABLE "we""ird; --'[`t" ("select" TEXT, "a ""b" INTEGER PRIMARY KEY, "ö.ü" , "?1")"#,
        |a| {
            a.run(
                r#"INSERT INTO "we""ird; --'[`t" VALUES ('it''s', 1, 2, 3), ('x', 2, 2, 3)"#,
                &[],
            );
            a.run(
                r#"UPDATE "we""ird; --'[`t" SET "ö.ü" = 'y', "?1" = NULL WHERE "a ""b" = 1"#,
                &[],
            );
            a.run(r#"DELETE FROM "we""ird; --'[`t" WHERE "a ""b" = 2"#, &[]);
        },
    );
    same(r#"CREATE TABLE "no""key" ("a""b", "where")"#, |a| {
        a.run(r#"INSERT INTO "no""key" VALUES (1, 2), (1, 2)"#, &[]);
        a.run(r#"DELETE FROM "no""key" WHERE rowid = 1"#, &[]);
    });
}

#[test]
fn insert_or_replace_deletes_the_displaced_rows_and_then_inserts() {
    same(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, u UNIQUE, w UNIQUE)",
        |a| {
            a.run(
                "INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')",
                &[],
            );
            a.run("INSERT OR REPLACE INTO t VALUES (3, 'a', 'y')", &[]);
            let deletes = a.log[3..]
                .iter()
                .filter(|c| one(c).sql.starts_with("DELETE"))
                .count();
            assert_eq!((deletes, a.log.len()), (3, 7));
        },
    );
}

#[test]
fn effects_of_triggers_are_not_sent_because_the_remote_has_the_trigger() {
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE TABLE audit (what);
        CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO audit VALUES (new.v); END";
    same(schema, |a| {
        a.run_with(
            "INSERT INTO t VALUES (1, 'x')",
            &[],
            &[("t", Cause::Statement), ("audit", Cause::Trigger)],
        )
        .unwrap();
        assert_eq!(a.log.len(), 2);
        assert_eq!(to_sql(&a.log[1], Mode::Triggers).unwrap(), []);
    });
}

/// Runs statements with enforcement at home, and their changes on remotes that enforce foreign keys and that do not.
/// Triggers on the child count how often it is written.
fn foreign_keys(child: &str, statements: &[&str]) {
    let schema = format!(
        "CREATE TABLE parent (id TEXT COLLATE NOCASE PRIMARY KEY, v);
         CREATE TABLE child ({child});
         CREATE TABLE audit (what);
         CREATE TRIGGER u AFTER UPDATE ON child BEGIN INSERT INTO audit VALUES ('update'); END;
         CREATE TRIGGER d AFTER DELETE ON child BEGIN INSERT INTO audit VALUES ('delete'); END;
         INSERT INTO parent VALUES ('a', 1), ('b', 2), ('none', 3);
         INSERT INTO child (p, n) VALUES ('a', 1), ('a', 1), ('a', 2), ('b', 1), ('b', 2);"
    );
    let mut a = Recorder::new(&schema);
    a.conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let causes = [
        ("parent", Cause::Statement),
        ("child", Cause::ForeignKey),
        ("audit", Cause::Trigger),
    ];
    for sql in statements {
        a.run_with(sql, &[], &causes).unwrap();
    }
    for enforced in ["ON", "OFF"] {
        let b = database(&schema);
        b.execute_batch(&format!("PRAGMA foreign_keys = {enforced}"))
            .unwrap();
        apply(&b, &a.log);
        assert_eq!(contents(&b), contents(&a.conn), "foreign_keys = {enforced}");
    }
}

const PARENT: &str = "p TEXT REFERENCES parent";

#[test]
fn a_cascaded_delete_lands_once_whether_or_not_the_remote_enforces_foreign_keys() {
    foreign_keys(
        &format!("{PARENT} ON DELETE CASCADE, n, id INTEGER PRIMARY KEY"),
        &["DELETE FROM parent WHERE id = 'a'"],
    );
    foreign_keys(
        &format!("{PARENT} ON DELETE CASCADE, n"),
        &["DELETE FROM parent WHERE id = 'a'"],
    );
}

#[test]
fn a_cascaded_update_lands_once_whether_or_not_the_remote_enforces_foreign_keys() {
    let statements = [
        "UPDATE parent SET id = 'c' WHERE id = 'a'",
        "UPDATE parent SET id = 'C' WHERE id = 'c'",
        "UPDATE parent SET id = 'd' WHERE id = 'C'",
    ];
    for child in ["n, id INTEGER PRIMARY KEY", "n", "n, k INTEGER PRIMARY KEY DESC"] {
        foreign_keys(&format!("{PARENT} ON UPDATE CASCADE, {child}"), &statements);
    }
}

#[test]
fn a_cascade_into_the_key_of_a_child_lands_once() {
    let schema = "CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (p INTEGER REFERENCES parent ON UPDATE CASCADE, n, PRIMARY KEY (p, n)) WITHOUT ROWID;
        CREATE TABLE audit (what);
        CREATE TRIGGER u AFTER UPDATE ON child BEGIN INSERT INTO audit VALUES ('update'); END;
        INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 'x')";
    let mut a = Recorder::new(schema);
    a.conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let causes = [
        ("parent", Cause::Statement),
        ("child", Cause::ForeignKey),
        ("audit", Cause::Trigger),
    ];
    a.run_with("UPDATE parent SET id = 2", &[], &causes).unwrap();
    for enforced in ["ON", "OFF"] {
        let b = database(schema);
        b.execute_batch(&format!("PRAGMA foreign_keys = {enforced}"))
            .unwrap();
        apply(&b, &a.log);
        assert_eq!(contents(&b), contents(&a.conn), "foreign_keys = {enforced}");
    }
}

#[test]
fn set_null_and_set_default_land_once_whether_or_not_the_remote_enforces_foreign_keys() {
    for action in ["SET NULL", "SET DEFAULT"] {
        for child in ["n, id INTEGER PRIMARY KEY", "n"] {
            foreign_keys(
                &format!(
                    "p TEXT DEFAULT 'none' REFERENCES parent ON DELETE {action} ON UPDATE {action}, {child}"
                ),
                &[
                    "DELETE FROM parent WHERE id = 'a'",
                    "UPDATE parent SET id = 'e' WHERE id = 'b'",
                ],
            );
        }
    }
}

#[test]
fn a_child_that_found_another_parent_on_the_remote_stays_with_it() {
    let schema = "CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent ON DELETE SET NULL);
        INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1)";
    let mut a = Recorder::new(schema);
    a.conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let causes = [("parent", Cause::Statement), ("child", Cause::ForeignKey)];
    a.run_with("DELETE FROM parent WHERE id = 1", &[], &causes)
        .unwrap();
    for enforced in ["ON", "OFF"] {
        let b = database(schema);
        b.execute_batch(&format!(
            "PRAGMA foreign_keys = {enforced}; UPDATE child SET p = 2"
        ))
        .unwrap();
        apply(&b, &a.log);
        assert_eq!(count(&b, "SELECT p FROM child"), 2);
    }
}

#[test]
fn schema_changes_land_in_order_with_rows_written_under_the_schema_of_their_time() {
    use StatementKind::*;
    let mut a = Recorder::new("");
    a.text("CREATE TABLE t (id INTEGER PRIMARY KEY, a);", &[], CreateTable);
    a.run("INSERT INTO t VALUES (1, 'one')", &[]);
    let add = AlterAddColumn {
        table: "t".into(),
        column: "b".into(),
    };
    a.text("ALTER TABLE t ADD COLUMN b DEFAULT 5", &[], add);
    a.run("INSERT INTO t VALUES (2, 'two', 2)", &[]);
    a.text("ALTER TABLE t RENAME COLUMN a TO c", &[], AlterOther);
    a.run("UPDATE t SET c = 'TWO' WHERE id = 2", &[]);
    a.text("ALTER TABLE t RENAME TO u", &[], AlterOther);
    a.text("CREATE UNIQUE INDEX i ON u (c)", &[], CreateIndex);
    a.run("DELETE FROM u WHERE id = 1", &[]);
    a.text("ALTER TABLE u DROP COLUMN b", &[], AlterOther);
    a.text("CREATE VIEW w AS SELECT * FROM u", &[], CreateView);
    a.text("DROP VIEW w", &[], DropView);
    a.text("DROP INDEX i", &[], DropIndex);
    let b = database("");
    apply(&b, &a.log);
    assert_eq!(contents(&b), contents(&a.conn));
    let schema = "SELECT group_concat(type || name || coalesce(sql, '')) FROM sqlite_schema";
    let read = |conn: &Connection| conn.query_row(schema, [], |r| r.get::<_, String>(0)).unwrap();
    assert_eq!(
        read(&b).replace("IF NOT EXISTS ", ""),
        read(&a.conn).replace("IF NOT EXISTS ", "")
    );
}

#[test]
fn virtual_table_writes_are_their_text_and_values() {
    let schema = "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
        CREATE VIRTUAL TABLE fts USING fts5(body, content='docs', content_rowid='id');
        CREATE VIRTUAL TABLE own USING fts5(body)";
    let write = |table: &str| StatementKind::VirtualTableWrite { table: table.into() };
    let mut a = Recorder::new(schema);
    let b = database(schema);
    a.run("INSERT INTO docs VALUES (1, 'red fox'), (2, 'blue whale')", &[]);
    a.text(
        "INSERT INTO fts(rowid, body) SELECT id, body FROM docs WHERE id >= ?1;",
        &[int(1)],
        write("fts"),
    );
    a.text(
        "INSERT INTO fts(fts, rowid, body) VALUES ('delete', ?2, ?1)",
        &[text("red fox"), int(1)],
        write("fts"),
    );
    a.text(
        "INSERT INTO own VALUES (?1)",
        &[Value::RawText(b"green\xff tree".to_vec())],
        write("own"),
    );
    apply(&b, &a.log);
    let found = |conn: &Connection, table: &str, word: &str| {
        count(
            conn,
            &format!("SELECT count(*) FROM {table} WHERE {table} MATCH '{word}'"),
        )
    };
    for conn in [&a.conn, &b] {
        assert_eq!(
            (
                found(conn, "fts", "fox"),
                found(conn, "fts", "whale"),
                found(conn, "own", "green")
            ),
            (0, 1, 1)
        );
    }
    assert_eq!(contents(&b), contents(&a.conn));
}

#[test]
fn unusual_values_arrive_with_every_bit() {
    let values = [
        Value::Real(-0.0),
        Value::Real(5e-324),
        Value::Real(1.7976931348623157e308),
        Value::Real(f64::INFINITY),
        Value::Real(f64::NEG_INFINITY),
        Value::Real(0.1 + 0.2),
        Value::Real(1e15),
        int(i64::MIN),
        int(i64::MAX),
        text(""),
        text("\0"),
        text("a\0b"),
        text("\u{10FFFF}\u{feff}"),
        Value::RawText(vec![0xff, 0x00, 0x80]),
        Value::Blob(vec![]),
        Value::Blob((0..1 << 20).map(|i| (i % 251) as u8).collect()),
    ];
    for schema in [
        "CREATE TABLE t (k PRIMARY KEY, v)",
        "CREATE TABLE t (k, v)",
        "CREATE TABLE t (k ANY, v ANY, PRIMARY KEY (k)) STRICT, WITHOUT ROWID",
    ] {
        same(schema, |a| {
            for value in &values {
                a.run("INSERT INTO t VALUES (?1, ?1)", std::slice::from_ref(value));
            }
            a.run("UPDATE t SET v = 'seen'", &[]);
            for value in &values {
                a.run("UPDATE t SET v = ?1 WHERE k = ?1", std::slice::from_ref(value));
            }
        });
        same(schema, |a| {
            for value in &values {
                a.run("INSERT INTO t VALUES (?1, ?1)", std::slice::from_ref(value));
            }
            a.run("DELETE FROM t WHERE typeof(k) <> 'null'", &[]);
            assert_eq!(count(&a.conn, "SELECT count(*) FROM t"), 0);
        });
    }
}

#[test]
fn a_nan_is_refused_by_the_name_of_its_column() {
    let mut a = Recorder::new(NOTES);
    let table = Arc::new(tables(&a.conn).remove(0));
    let op = RowOp::Insert {
        after: vec![int(1), Value::Null, Value::Real(f64::NAN)],
    };
    a.note(ChangeKind::Row {
        table,
        op,
        cause: Cause::Statement,
    });
    let error = to_sql(&a.log[0], Mode::Triggers).unwrap_err().to_string();
    assert!(error.contains("column \"body\" of table \"notes\""), "{error}");
}

#[test]
fn tables_of_two_thousand_columns_work_with_and_without_a_key() {
    let columns: Vec<String> = (0..2000).map(|i| format!("c{i}")).collect();
    for key in ["", " PRIMARY KEY"] {
        let schema = format!(
            "CREATE TABLE t ({})",
            columns.join(", ").replacen("c0", &format!("c0{key}"), 1)
        );
        same(&schema, |a| {
            let values: Vec<Value> = (0..2000).map(int).collect();
            let marks = vec!["?"; 2000].join(",");
            a.run(&format!("INSERT INTO t VALUES ({marks})"), &values);
            a.run("UPDATE t SET c0 = 'k', c1999 = 'last'", &[]);
            let set: Vec<String> = columns.iter().map(|c| format!("{c} = {c} || 'x'")).collect();
            a.run(&format!("UPDATE t SET {}", set.join(", ")), &[]);
            a.run("UPDATE t SET c5 = NULL", &[]);
        });
    }
}

#[test]
fn an_image_that_does_not_fit_its_table_is_refused() {
    let mut a = Recorder::new(NOTES);
    let table = Arc::new(tables(&a.conn).remove(0));
    let op = RowOp::Delete { before: vec![int(1)] };
    a.note(ChangeKind::Row {
        table,
        op,
        cause: Cause::Statement,
    });
    assert!(matches!(
        to_sql(&a.log[0], Mode::Triggers),
        Err(SqlError::Image {
            expected: 3,
            found: 1,
            ..
        })
    ));
}
