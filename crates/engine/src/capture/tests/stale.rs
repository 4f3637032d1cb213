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

/// Was red: what a trigger did that came after the statement was prepared was known of the first run alone, in which SQLite
/// compiled the statement again; and not even there, when a function of SQL had prepared another one.
#[test]
fn a_trigger_made_later_is_known_of_every_run_from_then_on() {
    let trigger = "CREATE TRIGGER r BEFORE INSERT ON t BEGIN INSERT INTO u(a) VALUES (new.a); \
                   SELECT RAISE(IGNORE) WHERE new.a = 9; END";
    let log = |late: bool, value: &str| {
        let db = TestDb::new(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); CREATE TABLE u(id INTEGER PRIMARY KEY, a)",
        );
        let connection = Arc::new(db.connection());
        let nested = Arc::downgrade(&connection);
        let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        let prepares = move |context: &mut rusqlite::functions::Context<'_>| {
            nested.upgrade().unwrap().prepare("SELECT 1").unwrap();
            context.get::<i64>(0)
        };
        connection
            .create_scalar_function("prepares", 1, flags, prepares)
            .unwrap();
        if !late {
            connection.execute_batch(trigger).unwrap();
        }
        let insert = format!("INSERT INTO t(a) VALUES ({value}), (?1 + 1)");
        let mut insert = connection.prepare(&insert).unwrap();
        if late {
            connection.execute_batch(trigger).unwrap();
        }
        for value in [1, 5, 8] {
            insert.execute([value]).unwrap();
        }
        connection.execute_batch("DROP TRIGGER r").unwrap();
        for value in [9, 12] {
            insert.execute([value]).unwrap();
        }
        let changes = db.chunks().into_iter().flat_map(|chunk| chunk.changes().unwrap());
        changes
            .map(|change| format!("{} {} {}", change.id.0, change.unit().0, line(&change.kind)))
            .collect::<Vec<_>>()
    };
    for value in ["?1", "prepares(?1)"] {
        let early = log(false, value);
        assert!(early.contains(&"5 2 *t(2,2)".to_owned()), "{early:?}");
        assert_eq!(early.last().unwrap(), "17 17 *t(9,13)");
        assert_eq!(log(true, value), early);
    }
}

/// Was red: the rows of such a trigger stayed, without a record, where they are in a table whose rows cannot be named.
#[test]
fn invariant_1_what_a_trigger_made_later_did_before_it_failed_is_not_kept_unrecorded() {
    let db = TestDb::new("CREATE TABLE t(a); CREATE TABLE u(rowid, _rowid_, oid)");
    let connection = db.connection();
    let mut insert = connection.prepare("INSERT INTO t VALUES (2)").unwrap();
    connection
        .execute_batch(
            "CREATE TEMP TRIGGER r BEFORE INSERT ON main.t WHEN new.a = 2 BEGIN INSERT INTO u VALUES (7, 8, 9); \
             SELECT RAISE(FAIL, 'no'); END; BEGIN; INSERT INTO t VALUES (1)",
        )
        .unwrap();
    assert_eq!(insert.execute(()).unwrap_err().to_string(), "no");
    let _ = connection.execute_batch("COMMIT");
    let rows: Vec<(i64,)> = connection
        .query("SELECT count(*) FROM t UNION ALL SELECT count(*) FROM u", ())
        .unwrap();
    assert_eq!(
        rows.iter().map(|(n,)| n).sum::<i64>(),
        db.take().len() as i64,
        "{rows:?}"
    );
    // From the second run on the trigger is known of, and the transaction stays.
    connection
        .execute_batch("BEGIN; INSERT INTO t VALUES (3)")
        .unwrap();
    assert_eq!(insert.execute(()).unwrap_err().to_string(), "no");
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(db.take(), ["+t(3)"]);
    assert_eq!(connection.query::<(i64,)>("SELECT a FROM t", ()).unwrap(), [(3,)]);
    assert!(
        connection
            .query::<(i64,)>("SELECT rowid FROM u", ())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_failure_after_a_trigger_made_later_that_sqlite_has_undone_leaves_the_transaction() {
    let db = TestDb::new("CREATE TABLE t(a UNIQUE); CREATE TABLE u(a)");
    let connection = db.connection();
    let mut insert = connection.prepare("INSERT INTO t VALUES (2), (1)").unwrap();
    connection
        .execute_batch(
            "CREATE TEMP TRIGGER r AFTER INSERT ON main.t BEGIN INSERT INTO u VALUES (new.a); END;
             BEGIN; INSERT INTO t VALUES (1)",
        )
        .unwrap();
    assert!(insert.execute(()).unwrap_err().to_string().contains("UNIQUE"));
    connection.execute_batch("COMMIT").unwrap();
    assert_eq!(db.take(), ["+t(1)", "+u(1)"]);
    assert_eq!(connection.query::<(i64,)>("SELECT a FROM u", ()).unwrap(), [(1,)]);
}
