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
        stmt.reset().unwrap();
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

/// Each page that a statement misses had its values written out, megabytes of hexadecimal digits for a blob.
#[test]
fn a_statement_of_many_bytes_is_not_written_out() {
    let conn = memory();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    conn.with_rusqlite(|c| {
        let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        c.create_scalar_function("ask", 2, flags, move |_| {
            let sql = context::current_statement_sql();
            log.lock()
                .unwrap()
                .push((sql.map(|sql| sql.len()), context::runs_statement()));
            Ok(1)
        })
    })
    .unwrap();
    let long = vec![b'a'; context::LONGEST_STATEMENT];
    let mut stmt = conn.prepare_one("SELECT ask(?1, ?2)").unwrap();
    let mut ask = |one, other| {
        stmt.bind(1, one).unwrap();
        stmt.bind(2, other).unwrap();
        stmt.execute().unwrap();
        seen.lock().unwrap().pop().unwrap()
    };
    let (short, null) = (ValueRef::Text(b"short"), ValueRef::Null);
    let half = long.len() / 2;
    assert_eq!(ask(short, null), (Some(25), true));
    assert_eq!(ask(ValueRef::Blob(&long), null), (None, true));
    assert_eq!(ask(null, ValueRef::Text(&long)), (None, true));
    // Together they are too long, one of them is not.
    assert_eq!(
        ask(ValueRef::Blob(&long[..half]), ValueRef::Text(&long[..half])),
        (None, true)
    );
    assert!(ask(ValueRef::Text(&long[..half]), short).0.is_some());
    assert_eq!(ask(short, null), (Some(25), true));
    assert!(ask(ValueRef::Integer(7), null).0.is_some());
    stmt.bind(1, ValueRef::Blob(&long)).unwrap();
    stmt.clear_bindings();
    stmt.execute().unwrap();
    assert_eq!(seen.lock().unwrap().pop().unwrap(), (Some(22), true));
    let text = format!("SELECT ask(1, '{}')", str::from_utf8(&long).unwrap());
    conn.execute_batch(&text).unwrap();
    assert_eq!(seen.lock().unwrap().pop().unwrap(), (None, true));
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

/// SQLite keeps one error text for each connection and frees it at the next call, from whichever thread. It was read after
/// the mutex had been given back: another thread's text, or freed memory.
#[test]
fn h5_threads_that_share_a_connection_get_their_own_errors_and_never_freed_memory() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 400;
    let conn = memory();
    conn.execute_batch("CREATE TABLE t(a UNIQUE CHECK(a <> 'no')); INSERT INTO t VALUES (1)")
        .unwrap();
    let start = Arc::new(std::sync::Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let (conn, start) = (conn.clone(), start.clone());
            thread::spawn(move || {
                // Texts of very different lengths, so that a freed one is not overwritten in place by an equal one.
                let name = format!("missing_{n}_{}", "x".repeat(n * 3000));
                start.wait();
                for round in 0..ROUNDS {
                    let error = conn.prepare(&format!("SELECT {name}"), false).unwrap_err();
                    assert_eq!(error.message, format!("no such column: {name}"), "round {round}");
                    assert_eq!((error.code, error.offset), (codes::ERROR, Some(7)));

                    let mut insert = conn.prepare_one("INSERT INTO t VALUES (?1)").unwrap();
                    insert.bind(1, ValueRef::Integer(1)).unwrap();
                    let error = insert.step().unwrap_err();
                    assert_eq!(error.message, "UNIQUE constraint failed: t.a");
                    insert.bind(1, ValueRef::Text(b"no")).unwrap();
                    assert_eq!(
                        insert.step().unwrap_err().message,
                        "CHECK constraint failed: a <> 'no'"
                    );

                    let mut echo = conn.prepare_one("SELECT ?1").unwrap();
                    echo.bind(1, ValueRef::Text(name.as_bytes())).unwrap();
                    assert_eq!(echo.step().unwrap(), Step::Row);
                    assert_eq!(echo.value(0).unwrap(), ValueRef::Text(name.as_bytes()));
                    assert_eq!(echo.column_name(0).unwrap(), "?1");
                    assert_eq!(echo.sql(), "SELECT ?1");

                    // rusqlite reads the error of its own calls too.
                    let error = conn
                        .with_rusqlite(|c| c.execute_batch(&format!("DROP TABLE {name}")))
                        .unwrap_err();
                    assert!(
                        error.message.contains(&format!("no such table: {name}")),
                        "{error}"
                    );
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Set-up work and a hook that replaces itself meet: each takes the connection's mutex first.
#[test]
fn h5_set_up_work_on_one_thread_and_a_held_connection_on_another_do_not_wait_for_each_other() {
    let conn = memory();
    conn.execute_batch("CREATE TABLE t(a)").unwrap();
    let other = conn.clone();
    let set_up = thread::spawn(move || {
        for _ in 0..2000 {
            other.with_rusqlite(|c| c.execute_batch("SELECT 1")).unwrap();
            other.set_preupdate_hook(Some(Box::new(|_| {})));
        }
    });
    for _ in 0..2000 {
        let _held = conn.hold();
        conn.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        conn.with_rusqlite(|c| c.execute_batch("SELECT 1")).unwrap();
        conn.set_preupdate_hook(None);
    }
    set_up.join().unwrap();
}

/// A connection that commits and begins again without a pause.
#[test]
fn b9_who_waits_for_the_lock_gets_it_from_one_that_writes_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let open = || Conn::open(&path, &OpenOptions::default()).unwrap();
    let busy = open();
    busy.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; CREATE TABLE t(x)")
        .unwrap();
    let mut commits = 0;
    for _ in 0..20 {
        busy.execute_batch("BEGIN IMMEDIATE").unwrap();
        let other = open();
        let waiter = std::thread::spawn(move || other.execute_batch("INSERT INTO t VALUES (1)"));
        while busy.limits().turns.waiting() == 0 {
            std::thread::yield_now();
        }
        while !waiter.is_finished() {
            let waited = busy.limits().turns.waiting();
            busy.execute_batch("COMMIT; BEGIN IMMEDIATE; INSERT INTO t VALUES (2)")
                .unwrap();
            // One that has had its turn, and whose thread has not ended yet, waits no longer.
            commits += waited.min(busy.limits().turns.waiting());
        }
        waiter.join().unwrap().unwrap();
        busy.execute_batch("COMMIT").unwrap();
    }
    assert!(commits < 400, "{commits} commits while another connection waited");
}
