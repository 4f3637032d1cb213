//! Statements whose tables became others after they were prepared, and triggers on the log itself.

use super::*;

/// Was red: the statement had been prepared for a temporary table, which nobody records, and SQLite compiled it again for
/// the table of the replica.
#[test]
fn invariant_1_a_statement_prepared_for_a_temporary_table_writes_nothing_unrecorded_when_that_is_gone() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection.execute_batch("CREATE TEMP TABLE t(a)").unwrap();
    let mut insert = connection.prepare("INSERT INTO t VALUES (?)").unwrap();
    insert.execute([1]).unwrap();
    connection.execute_batch("DROP TABLE temp.t").unwrap();
    let refused = insert.execute([2]).unwrap_err();
    assert!(refused.to_string().contains("prepare it again"), "{refused}");
    let mut insert = connection.prepare("INSERT INTO t VALUES (?)").unwrap();
    insert.execute([3]).unwrap();
    assert_eq!(connection.query::<(i64,)>("SELECT a FROM t", ()).unwrap(), [(3,)]);
    assert_eq!(db.take(), ["+t(3)"]);
}

/// Was red: as above, with a trigger that came later.
#[test]
fn invariant_1_a_temporary_trigger_made_later_writes_nothing_unrecorded() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection.execute_batch("CREATE TEMP TABLE s(a)").unwrap();
    let mut insert = connection.prepare("INSERT INTO s VALUES (?)").unwrap();
    connection
        .execute_batch("CREATE TEMP TRIGGER r AFTER INSERT ON s BEGIN INSERT INTO t VALUES (new.a); END")
        .unwrap();
    let refused = insert.execute([1]).unwrap_err();
    assert!(refused.to_string().contains("prepare it again"), "{refused}");
    connection.execute("INSERT INTO s VALUES (2)", ()).unwrap();
    assert_eq!(connection.query::<(i64,)>("SELECT a FROM t", ()).unwrap(), [(2,)]);
    assert_eq!(db.take(), ["+t(2)"]);
}

/// Was red: it would have run, unrecorded, whenever the log was written.
#[test]
fn a_temporary_trigger_on_the_log_is_refused() {
    let db = TestDb::new("CREATE TABLE t(a)");
    let connection = db.connection();
    connection.execute("INSERT INTO t VALUES (1)", ()).unwrap();
    let refused = connection
        .execute_batch(
            "CREATE TEMP TRIGGER r AFTER INSERT ON main.partial_sync_changes BEGIN INSERT INTO t VALUES (9); END",
        )
        .unwrap_err();
    assert!(refused.to_string().contains("partial_sync_changes"), "{refused}");
}
