//! What the wrappers promise: typed errors instead of undefined behaviour, owned statements, the hook and the context.

use std::{
    sync::{Arc, Mutex},
    thread,
};

use super::*;

fn memory() -> Conn {
    Conn::open(":memory:", &OpenOptions::default()).unwrap()
}

#[test]
fn this_build_has_what_the_project_needs() {
    check_build().unwrap();
}

#[test]
fn a_statement_keeps_its_connection_alive_and_moves_between_threads() {
    let mut stmt = memory().prepare_one("SELECT ?1 + 1").unwrap();
    let got = thread::spawn(move || {
        stmt.bind(1, ValueRef::Integer(41)).unwrap();
        assert_eq!(stmt.step().unwrap(), Step::Row);
        let ValueRef::Integer(n) = stmt.value(0).unwrap() else {
            panic!("not an integer")
        };
        n
    });
    assert_eq!(got.join().unwrap(), 42);
}

#[test]
fn every_value_comes_back_as_it_was_bound() {
    let conn = memory();
    let mut stmt = conn.prepare_one("SELECT ?1").unwrap();
    for value in [
        ValueRef::Null,
        ValueRef::Integer(i64::MIN),
        ValueRef::Real(f64::NEG_INFINITY),
        ValueRef::Text(b""),
        ValueRef::Text(b"\xff not UTF-8"),
        ValueRef::Blob(b""),
        ValueRef::Blob(b"\0\x01"),
    ] {
        stmt.reset();
        stmt.bind(1, value).unwrap();
        stmt.step().unwrap();
        assert_eq!(stmt.value(0).unwrap(), value);
    }
}

#[test]
fn misuse_is_a_typed_error() {
    let conn = memory();
    let mut stmt = conn.prepare_one("SELECT :a").unwrap();
    assert_eq!(stmt.bind(0, ValueRef::Null).unwrap_err().code, codes::RANGE);
    assert_eq!(stmt.bind(2, ValueRef::Null).unwrap_err().code, codes::RANGE);
    assert_eq!(
        stmt.bind_named(":b", ValueRef::Null).unwrap_err().code,
        codes::RANGE
    );
    assert_eq!(stmt.value(0).unwrap_err().code, codes::MISUSE);
    stmt.step().unwrap();
    assert_eq!(stmt.value(1).unwrap_err().code, codes::RANGE);
    assert_eq!(stmt.column_name(7).unwrap_err().code, codes::RANGE);
    assert_eq!(conn.prepare("SELECT 1\0", false).unwrap_err().code, codes::MISUSE);
    assert_eq!(conn.prepare_one(" -- nothing").unwrap_err().code, codes::MISUSE);
    let error = conn.prepare("SELECT missing", false).unwrap_err();
    assert_eq!(
        (error.message.as_str(), error.offset),
        ("no such column: missing", Some(7))
    );
}

#[test]
fn a_script_is_prepared_statement_by_statement() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE é(a); /* ü */ INSERT INTO é VALUES (1); ; INSERT INTO é VALUES (2) -- ü",
    )
    .unwrap();
    assert_eq!(conn.total_changes(), 2);
}

#[test]
fn the_hook_sees_old_and_new_values() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)")
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    conn.set_preupdate_hook(Some(Box::new(move |change| {
        let read = |v: Result<ValueRef<'_>>| v.ok().map(|v| format!("{v:?}"));
        log.lock().unwrap().push((
            change.op(),
            read(change.before(1)),
            read(change.after(1)),
            change.depth(),
        ));
    })));
    conn.execute_batch("INSERT INTO t VALUES (1, 'x'); UPDATE t SET a = 'y'; DELETE FROM t")
        .unwrap();
    let (x, y) = (
        format!("{:?}", ValueRef::Text(b"x")),
        format!("{:?}", ValueRef::Text(b"y")),
    );
    assert_eq!(
        *seen.lock().unwrap(),
        [
            (RowChange::Insert, None, Some(x.clone()), 0),
            (RowChange::Update, Some(x), Some(y.clone()), 0),
            (RowChange::Delete, Some(y), None, 0)
        ]
    );
}

#[test]
fn a_panic_in_the_hook_fails_the_statement_and_leaves_the_connection_usable() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE t(a)").unwrap();
    conn.set_preupdate_hook(Some(Box::new(|_| panic!("on purpose"))));
    conn.execute_batch("BEGIN").unwrap();
    assert_eq!(
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap_err().code,
        codes::ABORT
    );
    conn.execute_batch("ROLLBACK").unwrap();
    conn.set_preupdate_hook(None);
    conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
}

#[test]
fn the_context_names_the_innermost_statement_and_is_restored() {
    let conn = memory();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, inner) = (seen.clone(), memory());
    conn.with_rusqlite(|c| {
        c.create_scalar_function(
            "ask",
            1,
            rusqlite::functions::FunctionFlags::SQLITE_UTF8,
            move |_| {
                log.lock().unwrap().push(context::current_statement_sql());
                inner.execute_batch("SELECT 1").unwrap();
                log.lock().unwrap().push(context::current_statement_sql());
                Ok(1)
            },
        )
    })
    .unwrap();
    let mut stmt = conn.prepare_one("SELECT ask(?1)").unwrap();
    stmt.bind(1, ValueRef::Text(b"it's")).unwrap();
    stmt.execute().unwrap();
    let sql = Some("SELECT ask('it''s')".to_owned());
    assert_eq!(*seen.lock().unwrap(), [sql.clone(), sql]);
    assert_eq!(context::current_statement_sql(), None);
    assert!(!context::is_executing() && !context::is_interrupted());
}

#[test]
fn an_interrupt_is_seen_from_inside_and_breaks_the_statement() {
    let conn = memory();
    let handle = conn.interrupt_handle();
    conn.with_rusqlite(|c| {
        c.create_scalar_function(
            "stop",
            0,
            rusqlite::functions::FunctionFlags::SQLITE_UTF8,
            move |_| {
                let before = context::is_interrupted();
                handle.interrupt();
                Ok(!before && context::is_interrupted())
            },
        )
    })
    .unwrap();
    let endless = "WITH RECURSIVE c(x) AS (SELECT stop() UNION ALL SELECT x FROM c) SELECT count(*) FROM c";
    assert_eq!(conn.execute_batch(endless).unwrap_err().code, codes::INTERRUPT);
    conn.execute_batch("SELECT 1").unwrap();
}
