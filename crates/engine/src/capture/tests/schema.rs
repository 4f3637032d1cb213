//! Schema changes: the statement is recorded, what SQLite does inside of it is not.

use super::*;

#[test]
fn schema_changes_are_recorded_as_text_in_order_with_rows() {
    records(
        "",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x'); CREATE INDEX i ON t(a);
         ALTER TABLE t ADD COLUMN b DEFAULT 7; UPDATE t SET a = 'y'; ALTER TABLE t RENAME COLUMN a TO c;
         ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2, 'z', 8); DROP INDEX i; ALTER TABLE u DROP COLUMN c;
         DELETE FROM u WHERE id = 1; CREATE VIEW v AS SELECT 1; DROP VIEW v; DROP TABLE u",
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a)",
            "+t(1,x)",
            "CREATE INDEX i ON t(a)",
            "ALTER TABLE t ADD COLUMN b DEFAULT 7",
            "~t(1,x,7)->(1,y,7)",
            "ALTER TABLE t RENAME COLUMN a TO c",
            "ALTER TABLE t RENAME TO u",
            "+u(2,z,8)",
            "DROP INDEX i",
            "ALTER TABLE u DROP COLUMN c",
            "-u(1,7)",
            "CREATE VIEW v AS SELECT 1",
            "DROP VIEW v",
            "DROP TABLE u",
        ],
    );
}

#[test]
fn what_changes_no_schema_is_not_recorded() {
    records(
        "CREATE TABLE t(a); CREATE INDEX i ON t(a)",
        "CREATE TABLE IF NOT EXISTS t(b); CREATE INDEX IF NOT EXISTS i ON t(a); DROP TABLE IF EXISTS u;
         CREATE TEMP TABLE x(a); CREATE TEMP VIEW y AS SELECT 1; CREATE INDEX temp.xi ON x(a); DROP TABLE x",
        &[],
    );
}

#[test]
fn a_table_made_from_a_select_is_recorded_with_its_rows() {
    let db = TestDb::new("CREATE TABLE t(a INT, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, 'y')");
    db.connection()
        .execute("CREATE TABLE u AS SELECT b, a + ? AS n FROM t", [10])
        .unwrap();
    let taken = db.take();
    assert_eq!(taken[1..], ["+u(x,11)", "+u(y,12)"]);
    assert!(
        taken[0].starts_with("CREATE TABLE u(") && !taken[0].contains("SELECT"),
        "{}",
        taken[0]
    );
}

#[test]
fn kinds_of_statements_are_told_apart() {
    use crate::change::StatementKind as K;
    let db = TestDb::new("CREATE TABLE t(a)");
    db.connection()
        .execute_batch(
            "ALTER TABLE t ADD b; ALTER TABLE t RENAME b TO c; CREATE VIRTUAL TABLE f USING fts5(x);
             INSERT INTO f(f) VALUES ('optimize'); DROP TABLE f; CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END;
             DROP TRIGGER tr; CREATE TABLE k(a PRIMARY KEY, b UNIQUE); BEGIN; DROP TABLE k; ROLLBACK",
        )
        .unwrap();
    let kinds: Vec<K> = db
        .chunks()
        .iter()
        .flat_map(|chunk| chunk.changes().unwrap())
        .map(|change| match change.kind {
            ChangeKind::Statement(statement) => statement.kind,
            ChangeKind::Row { .. } => panic!("{}", line(&change.kind)),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            K::AlterAddColumn {
                table: "t".into(),
                column: "b".into()
            },
            K::AlterOther,
            K::CreateTable,
            K::VirtualTableWrite { table: "f".into() },
            K::DropTable,
            K::CreateTrigger,
            K::DropTrigger,
            K::CreateTable,
        ]
    );
}

#[test]
fn dropping_a_parent_records_what_its_foreign_keys_do() {
    records(
        "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p ON DELETE CASCADE);
         INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1)",
        "PRAGMA foreign_keys = ON; DROP TABLE p",
        &["-c(1) by key", "DROP TABLE p"],
    );
}

#[test]
fn a_failed_schema_change_records_nothing() {
    let db = TestDb::new("CREATE TABLE t(a); INSERT INTO t VALUES (1), (1)");
    let connection = db.connection();
    connection.execute("UPDATE t SET a = 2", ()).unwrap();
    assert!(connection.execute_batch("CREATE UNIQUE INDEX i ON t(a)").is_err());
    assert!(connection.execute_batch("CREATE TABLE t(b)").is_err());
    assert_eq!(db.take(), ["~t(1)->(2)", "~t(1)->(2)"]);
    assert!(connection.is_autocommit());
}

#[test]
fn a_schema_changed_by_another_connection_is_noticed() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let (a, b) = (db.connection(), db.connection());
    let mut insert = a.prepare("INSERT INTO t(a) VALUES (?)").unwrap();
    insert.execute([1]).unwrap();
    b.execute_batch("ALTER TABLE t RENAME COLUMN a TO z; ALTER TABLE t ADD COLUMN a DEFAULT 5")
        .unwrap();
    insert.execute([2]).unwrap();
    db.plain()
        .execute_batch("DROP TABLE t; CREATE TABLE t(a, k INTEGER PRIMARY KEY)")
        .unwrap();
    insert.execute([3]).unwrap();
    let changes: Vec<_> = db
        .chunks()
        .iter()
        .flat_map(|c| c.changes().unwrap())
        .map(|c| c.kind)
        .collect();
    let columns = |kind: &ChangeKind| match kind {
        ChangeKind::Row { table, .. } => table
            .columns
            .iter()
            .map(|c| c.name.clone())
            .collect::<Vec<_>>()
            .join(" "),
        ChangeKind::Statement(_) => String::new(),
    };
    assert_eq!(
        changes.iter().map(columns).collect::<Vec<_>>(),
        ["a", "", "", "z a", "a k"]
    );
    assert_eq!(db.take()[3..], ["+t(null,2)", "*t(3,1)"]);
}

#[test]
fn a_schema_change_rolled_back_to_a_savepoint_is_forgotten() {
    records(
        "CREATE TABLE t(a)",
        "BEGIN; SAVEPOINT s; ALTER TABLE t ADD COLUMN b; INSERT INTO t VALUES (1, 2); ROLLBACK TO s;
         INSERT INTO t VALUES (3); COMMIT",
        &["+t(3)"],
    );
}
