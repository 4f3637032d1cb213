//! Rows of every kind of table, with their causes.

use super::*;

#[test]
fn rows_of_a_table_with_an_integer_primary_key() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL)",
        "INSERT INTO t VALUES (7, 'x', 1); UPDATE t SET a = 'y', b = 2; UPDATE t SET id = 8; DELETE FROM t",
        &[
            "+t(7,x,1.0)",
            "~t(7,x,1.0)->(7,y,2.0)",
            "~t(7,y,2.0)->(8,y,2.0)",
            "-t(8,y,2.0)",
        ],
    );
}

#[test]
fn rows_of_tables_with_other_keys_and_without_one() {
    records(
        "CREATE TABLE text_key(k TEXT PRIMARY KEY, v);
         CREATE TABLE two(b, a, v, PRIMARY KEY(a, b));
         CREATE TABLE wr(v, k TEXT PRIMARY KEY, w) WITHOUT ROWID;
         CREATE TABLE none(a, b);
         CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE TABLE strict(id INTEGER PRIMARY KEY, v ANY, r REAL) STRICT",
        "INSERT INTO text_key VALUES ('k', 1); UPDATE text_key SET k = 'l';
         INSERT INTO two VALUES (1, 2, 3); UPDATE two SET v = 4, a = 5;
         INSERT INTO wr VALUES (1, 'k', 2); UPDATE wr SET v = 3; UPDATE wr SET k = 'l'; DELETE FROM wr;
         INSERT INTO none VALUES (1, NULL); DELETE FROM none;
         INSERT INTO counted(v) VALUES ('x');
         INSERT INTO strict VALUES (1, '1', 3)",
        &[
            "+text_key(k,1)",
            "~text_key(k,1)->(l,1)",
            "+two(1,2,3)",
            "~two(1,2,3)->(1,5,4)",
            "+wr(1,k,2)",
            "~wr(1,k,2)->(3,k,2)",
            "~wr(3,k,2)->(3,l,2)",
            "-wr(3,l,2)",
            "+none(1,null)",
            "-none(1,null)",
            "*counted(1,x)",
            "+strict(1,1,3.0)",
        ],
    );
}

#[test]
fn values_have_the_affinity_of_their_column_also_after_an_update() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT, n NUMERIC, b BLOB);
         CREATE TABLE w(k TEXT PRIMARY KEY, i INTEGER, r REAL) WITHOUT ROWID",
        "INSERT INTO t VALUES (1, '1', 1, 1, '1.0', '1'); UPDATE t SET i = '2', r = 2, s = 2, n = '2.0', b = 2;
         INSERT INTO w VALUES (1, '1', 1); UPDATE w SET i = '2', r = '2'",
        &["+t(1,1,1.0,1,1,1)", "~t(1,1,1.0,1,1,1)->(1,2,2.0,2,2,2)", "+w(1,1,1.0)", "~w(1,1,1.0)->(1,2,2.0)"],
    );
}

#[test]
fn generated_columns_leave_their_places_empty() {
    let schema = "CREATE TABLE t(v AS (a || '!') VIRTUAL, a, s AS (b * 2) STORED, b, id INTEGER PRIMARY KEY, w AS (b));
                  CREATE TABLE wr(v AS (a || '!') VIRTUAL, a, s AS (b * 2) STORED, b, id TEXT PRIMARY KEY) WITHOUT ROWID";
    records(
        schema,
        "INSERT INTO t(a, b, id) VALUES ('a', 2, 3); UPDATE t SET b = 5; DELETE FROM t;
         INSERT INTO wr(a, b, id) VALUES ('a', 2, 'k'); UPDATE wr SET b = 5; DELETE FROM wr",
        &[
            "+t(null,a,null,2,3,null)",
            "~t(null,a,null,2,3,null)->(null,a,null,5,3,null)",
            "-t(null,a,null,5,3,null)",
            "+wr(null,a,null,2,k)",
            "~wr(null,a,null,2,k)->(null,a,null,5,k)",
            "-wr(null,a,null,5,k)",
        ],
    );
}

#[test]
fn unusual_values_come_out_as_they_went_in() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let mut insert = db.connection().prepare("INSERT INTO t VALUES (?)").unwrap();
    for value in [
        Value::Integer(i64::MIN),
        Value::Real(f64::INFINITY),
        Value::Real(-0.0),
        Value::RawText(vec![0xff, 0]),
        Value::Blob(vec![]),
        Value::Text("a\0b".into()),
    ] {
        insert.execute([value]).unwrap();
    }
    let expected = [
        format!("+t({})", i64::MIN),
        "+t(inf)".into(),
        "+t(-0.0)".into(),
        "+t(raw[255, 0])".into(),
        "+t(x[])".into(),
        "+t(a\0b)".into(),
    ];
    assert_eq!(db.take(), expected);
}

#[test]
fn replace_records_the_rows_it_displaces() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2);
         CREATE TABLE w(k PRIMARY KEY, u UNIQUE) WITHOUT ROWID; INSERT INTO w VALUES (1, 'a'), (2, 'b')",
        "REPLACE INTO t VALUES (1, 'b', 3); UPDATE OR REPLACE t SET id = 1; REPLACE INTO w VALUES (1, 'b')",
        &[
            "-t(1,a,1)",
            "-t(2,b,2)",
            "+t(1,b,3)",
            "~t(1,b,3)->(1,b,3)",
            "-w(2,b)",
            "-w(1,a)",
            "+w(1,b)",
        ],
    );
}

#[test]
fn upserts_are_what_they_turn_out_to_be() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 1)",
        "INSERT INTO t VALUES (1, 5), (2, 6) ON CONFLICT DO UPDATE SET n = n + excluded.n;
         INSERT INTO t VALUES (1, 9) ON CONFLICT DO NOTHING",
        &["~t(1,1)->(1,6)", "+t(2,6)"],
    );
}

#[test]
fn a_delete_of_everything_is_recorded_row_by_row() {
    records(
        "CREATE TABLE t(a); INSERT INTO t VALUES (1), (2)",
        "DELETE FROM t",
        &["-t(1)", "-t(2)"],
    );
}

#[test]
fn what_triggers_do_is_marked_as_theirs() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE log(what); CREATE TABLE twice(what);
         CREATE TRIGGER one AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;
         CREATE TRIGGER two AFTER INSERT ON log BEGIN INSERT INTO twice VALUES (new.what); END",
        "INSERT INTO t VALUES (1, 'x')",
        &["+t(1,x)", "+log(x) by trigger", "+twice(x) by trigger"],
    );
}

#[test]
fn what_an_instead_of_trigger_does_counts_as_the_statement() {
    records(
        "CREATE TABLE t(a); CREATE TABLE log(a); CREATE VIEW v AS SELECT a FROM t;
         CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (new.a); END;
         CREATE TRIGGER l AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END",
        "INSERT INTO v VALUES (5)",
        &["+t(5)", "+log(5) by trigger"],
    );
}

#[test]
fn what_a_temp_trigger_does_counts_as_the_statement() {
    records(
        "CREATE TABLE t(a); CREATE TABLE log(a); CREATE TABLE deep(a);
         CREATE TRIGGER l AFTER INSERT ON log BEGIN INSERT INTO deep VALUES (new.a); END",
        "CREATE TEMP TABLE own(a);
         CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;
         CREATE TEMP TRIGGER y AFTER INSERT ON own BEGIN INSERT INTO t VALUES (new.a); END;
         INSERT INTO own VALUES (5)",
        &["+t(5)", "+log(5)", "+deep(5) by trigger"],
    );
}

#[test]
fn foreign_key_actions_are_marked_as_such() {
    records(
        "CREATE TABLE p(id INTEGER PRIMARY KEY, v);
         CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE n(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE SET NULL, w);
         CREATE TABLE g(id INTEGER PRIMARY KEY, c REFERENCES c ON DELETE CASCADE);
         CREATE TABLE log(a);
         CREATE TRIGGER t AFTER DELETE ON c BEGIN INSERT INTO log VALUES (old.id); UPDATE n SET w = 1; END;
         INSERT INTO p VALUES (1, 'a'); INSERT INTO c VALUES (10, 1); INSERT INTO n VALUES (20, 1, 0);
         INSERT INTO g VALUES (30, 10)",
        "PRAGMA foreign_keys = ON; UPDATE p SET id = 2 WHERE id = 1 AND 0; DELETE FROM p",
        &[
            "-p(1,a)",
            "~n(20,1,0)->(20,null,0) by key",
            "-c(10,1) by key",
            "-g(30,10) by key",
            "+log(10) by trigger",
            "~n(20,null,0)->(20,null,1) by trigger",
        ],
    );
    records(
        "CREATE TABLE p(k TEXT PRIMARY KEY); CREATE TABLE c(id INTEGER PRIMARY KEY, k REFERENCES p ON UPDATE CASCADE);
         INSERT INTO p VALUES ('a'); INSERT INTO c VALUES (1, 'a')",
        "PRAGMA foreign_keys = ON; UPDATE p SET k = 'b'",
        &["~p(a)->(b)", "~c(1,a)->(1,b) by key"],
    );
}

#[test]
fn a_trigger_that_deletes_like_a_cascade_is_still_a_trigger_without_one() {
    records(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p);
         CREATE TRIGGER t AFTER DELETE ON p BEGIN DELETE FROM c WHERE p = old.id; END;
         INSERT INTO p VALUES (1); INSERT INTO c VALUES (1)",
        "DELETE FROM p",
        &["-p(1)", "-c(1) by trigger"],
    );
}

#[test]
fn rows_of_virtual_tables_are_recorded_and_their_shadow_tables_not() {
    let db = TestDb::new(
        "CREATE TABLE doc(id INTEGER PRIMARY KEY, body);
         CREATE VIRTUAL TABLE ext USING fts5(body, content = 'doc', content_rowid = 'id');
         CREATE TRIGGER ai AFTER INSERT ON doc BEGIN INSERT INTO ext(rowid, body) VALUES (new.id, new.body); END;
         CREATE VIRTUAL TABLE less USING fts5(body, content = '');
         CREATE VIRTUAL TABLE own USING fts5(a, b);
         CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)",
    );
    let connection = db.connection();
    connection
        .execute("INSERT INTO doc VALUES (?, ?)", (1, "one two"))
        .unwrap();
    connection
        .execute("INSERT INTO less(rowid, body) VALUES (?1, :b)", (7, "three"))
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO box VALUES (1, 0, 1.5); INSERT INTO box SELECT 2, 3, 4 UNION ALL SELECT NULL, 5, 6;
             UPDATE box SET x1 = x1 + 1 WHERE id = 2; DELETE FROM box WHERE id = 1; INSERT INTO ext(ext) VALUES ('optimize');
             INSERT INTO own SELECT 'x', body FROM doc; INSERT INTO own(rowid, a) VALUES (7, 'y');
             UPDATE own SET b = last_insert_rowid() WHERE rowid = 7; DELETE FROM own WHERE own MATCH 'x';
             UPDATE doc SET body = 'three'",
        )
        .unwrap();
    let out = "INSERT INTO \"ext\"(\"ext\", rowid, \"body\") SELECT 'delete', \"id\", \"body\" FROM \"doc\" \
               WHERE \"id\" = ? AND EXISTS (SELECT 1 FROM \"ext_docsize\" WHERE \"ext_docsize\".id = \"doc\".\"id\")";
    let into = "INSERT INTO \"ext\"(rowid, \"body\") SELECT \"id\", \"body\" FROM \"doc\" \
                WHERE \"id\" = ? AND NOT EXISTS (SELECT 1 FROM \"ext_docsize\" WHERE \"ext_docsize\".id = \"doc\".\"id\")";
    assert_eq!(
        db.take(),
        [
            &format!("{out} [1]"),
            "+doc(1,one two)",
            &format!("{into} [1]"),
            "INSERT INTO less(rowid, body) VALUES (?1, ?2) [7,three]",
            "+box(1,0.0,1.5)",
            "*box(2,3.0,4.0)",
            "*box(3,5.0,6.0)",
            "~box(2,3.0,4.0)->(2,3.0,5.0)",
            "-box(1,0.0,1.5)",
            "INSERT INTO ext(ext) VALUES ('optimize')",
            "*own(1,x,one two)",
            "+own(7,y,null)",
            "~own(7,y,null)->(7,y,7)",
            "-own(1,x,one two)",
            "~doc(1,one two)->(1,three)",
        ]
    );
    let hits: Vec<(i64,)> = connection
        .query("SELECT rowid FROM ext WHERE ext MATCH 'one'", ())
        .unwrap();
    assert_eq!(hits, [(1,)]);
}

#[test]
fn temp_and_attached_tables_are_not_recorded() {
    let other = tempfile::tempdir().unwrap();
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection
        .execute("ATTACH ? AS other", [other.path().join("b.db").to_str().unwrap()])
        .unwrap();
    connection
        .execute_batch(
            "CREATE TEMP TABLE x(a); INSERT INTO x VALUES (1); CREATE TABLE other.t(a); INSERT INTO other.t VALUES (1);
             INSERT INTO t SELECT a FROM x; DETACH other",
        )
        .unwrap();
    assert_eq!(db.take(), ["+t(1)"]);
}

#[test]
fn writes_to_the_projects_own_tables_are_refused() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    for sql in [
        "DELETE FROM partial_sync_changes",
        "UPDATE Partial_Sync_Changes SET txn = 1",
        "DROP TABLE partial_sync_changes",
        "CREATE TABLE partial_sync_mine(a)",
        "CREATE TRIGGER x AFTER INSERT ON partial_sync_changes BEGIN SELECT 1; END",
        "INSERT INTO sqlite_dbpage(pgno, data) VALUES (1, NULL)",
        "VACUUM",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA main.journal_mode = MEMORY",
        "PRAGMA locking_mode = exclusive",
        "PRAGMA writable_schema = ON",
        "PRAGMA page_size = 512",
        "PRAGMA schema_version = 1",
        "PRAGMA mmap_size = 1000000",
    ] {
        let error = connection.execute_batch(sql).unwrap_err();
        assert!(
            matches!(error, crate::Error::Unsupported { .. }),
            "{sql}: {error}"
        );
    }
    for sql in [
        "PRAGMA journal_mode",
        "PRAGMA journal_mode = wal",
        "PRAGMA wal_autocheckpoint = 10",
        "ANALYZE",
        "REINDEX",
    ] {
        connection.execute_batch(sql).unwrap();
    }
    let copy = db.folder.path().join("copy.db");
    connection
        .execute("VACUUM INTO ?", [copy.to_str().unwrap()])
        .unwrap();
    assert_eq!(db.take(), ["+t(1)", "ANALYZE"]);
}

#[test]
fn rows_copied_whole_from_a_table_of_the_same_shape_are_recorded() {
    records(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v);
         CREATE TABLE c(k PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE d(k PRIMARY KEY, v) WITHOUT ROWID;
         INSERT INTO a VALUES (1, 'x'); INSERT INTO c VALUES (2, 'y')",
        "INSERT INTO b SELECT * FROM a; INSERT INTO d SELECT * FROM c",
        &["*b(1,x)", "+d(2,y)"],
    );
}

#[test]
fn a_column_added_later_has_its_default_in_the_image() {
    records(
        "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN d DEFAULT 'x'",
        "UPDATE t SET id = 2; DELETE FROM t",
        &["~t(1,x)->(2,x)", "-t(2,x)"],
    );
}

#[test]
fn quoted_names_and_large_values() {
    let db = TestDb::new("CREATE TABLE \"a \"\"b\"(\"x y\" INTEGER PRIMARY KEY, [select] BLOB)");
    db.connection()
        .execute(
            "INSERT INTO \"a \"\"b\" VALUES (1, ?)",
            [Value::Blob(vec![7; 3 << 20])],
        )
        .unwrap();
    let taken = db.take();
    assert!(taken[0].starts_with("+a \"b(1,x[7, 7"), "{:.40}", taken[0]);
}

#[test]
fn rows_that_triggers_write_into_virtual_tables_are_recorded_or_refused() {
    let db = TestDb::new(
        "CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(x); CREATE TABLE u(a);
         CREATE VIRTUAL TABLE less USING fts5(x, content = '');
         CREATE TRIGGER uu AFTER INSERT ON u BEGIN INSERT INTO less(rowid, x) VALUES (1, new.a); END;",
    );
    let connection = db.connection();
    connection
        .execute_batch(
            "CREATE TEMP TRIGGER tt AFTER INSERT ON main.t BEGIN INSERT INTO f VALUES (new.a); END; INSERT INTO t VALUES (1)",
        )
        .unwrap();
    assert_eq!(db.take(), ["+t(1)", "*f(1,1)"]);
    for sql in [
        "INSERT INTO u VALUES (1)",
        "INSERT INTO less(rowid, x) SELECT 1, 'x'",
        "INSERT INTO less(rowid, x) VALUES (random(), 'x')",
        "INSERT INTO less(x) VALUES ('x')",
        "INSERT INTO less(less) SELECT 'delete-all'",
    ] {
        let error = connection.execute_batch(sql).unwrap_err();
        assert!(
            matches!(error, crate::Error::Unsupported { .. }),
            "{sql}: {error}"
        );
        assert!(connection.is_autocommit() && db.take().is_empty());
    }
    let rows: i64 = connection
        .query_row("SELECT count(*) FROM u", (), |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}
