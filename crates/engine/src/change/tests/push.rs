//! Batches run on a real database as a remote runs them, and their answers read.

use std::{collections::BTreeSet, sync::Mutex};

use super::super::{
    keys::Keys,
    position::{self, Mark, PositionError, RemotePosition, Sent, resume_after},
    push::{PushBatch, PushLimits, PushOptions, PushOutcome, build, is_key_taken},
    transform::{ChangeType, Transform, TransformFn, TransformMutation},
};
use super::*;

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE, v)";

const MARK: Mark = Mark::of(3 << 24);

static NOTHING: BTreeSet<ChangeId> = BTreeSet::new();

fn no_keys() -> &'static Keys {
    static KEYS: std::sync::OnceLock<Keys> = std::sync::OnceLock::new();
    KEYS.get_or_init(Keys::default)
}

fn options<'a>() -> PushOptions<'a> {
    PushOptions {
        client_id: "client",
        mark: MARK,
        pulls: 3,
        after: RemotePosition::default(),
        limits: PushLimits::default(),
        skip: &NOTHING,
        mode: Mode::Triggers,
        keys: no_keys(),
        noted: None,
        transform: None,
    }
}

fn after(id: i64) -> PushOptions<'static> {
    PushOptions {
        after: at(id),
        ..options()
    }
}

/// Where a remote is that has the changes up to `id`.
fn at(id: i64) -> RemotePosition {
    RemotePosition {
        pull_gen: Some(MARK.get()),
        change_id: Some(ChangeId(id)),
    }
}

fn batch<'a>(transactions: &'a [Vec<Change>], options: &PushOptions<'_>) -> PushBatch<'a> {
    build(transactions, options).unwrap().unwrap()
}

fn send(remote: &Connection, push: &PushBatch<'_>) -> PushOutcome {
    let outcome = push.plan.outcome(&execute(remote, &push.batch));
    assert!(remote.is_autocommit(), "no transaction is left open");
    outcome
}

fn rows_of(remote: &Connection) -> i64 {
    remote
        .query_row("SELECT count(*) FROM t", [], |r| r.get(0))
        .unwrap()
}

fn position_of(remote: &Connection) -> RemotePosition {
    let steps = vec![position::ask("client")];
    position::read(
        &execute(
            remote,
            &Batch {
                steps,
                ..Batch::default()
            },
        ),
        0,
    )
    .unwrap()
}

/// Local transactions, one statement each.
fn transactions(statements: &[&str]) -> Vec<Vec<Change>> {
    let mut a = Recorder::new(SCHEMA);
    let mut all = Vec::new();
    let mut seen = 0;
    for sql in statements {
        a.run(sql, &[]);
        all.push(a.log[seen..].to_vec());
        seen = a.log.len();
    }
    all
}

#[test]
fn a_batch_lands_with_its_last_change_id() {
    let local = transactions(&[
        "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)",
        "DELETE FROM t WHERE id = 1",
    ]);
    let remote = database(SCHEMA);
    assert_eq!(position_of(&remote), RemotePosition::default());
    let push = batch(&local, &options());
    assert_eq!((push.plan.transactions, push.plan.last), (2, ChangeId(3)));
    assert_eq!(send(&remote, &push), PushOutcome::Committed);
    assert_eq!(rows_of(&remote), 1);
    assert_eq!(position_of(&remote), at(3));
}

#[test]
fn invariant_2_a_batch_sent_twice_lands_once() {
    let remote = database("CREATE TABLE t (v)");
    let mut a = Recorder::new("CREATE TABLE t (v)");
    a.run("INSERT INTO t VALUES (1), (1)", &[]);
    let keyless = [a.log];
    let push = batch(&keyless, &options());
    assert_eq!(send(&remote, &push), PushOutcome::Committed);
    assert_eq!(send(&remote, &push), PushOutcome::Moved);
    assert_eq!(rows_of(&remote), 2);
    // The batch after it lands once as well, also when it comes again late.
    let next = [vec![Change {
        id: ChangeId(9),
        ..keyless[0][0].clone()
    }]];
    let push = batch(&next, &after(2));
    assert_eq!(send(&remote, &push), PushOutcome::Committed);
    assert_eq!(send(&remote, &push), PushOutcome::Moved);
    assert_eq!(rows_of(&remote), 3);
}

#[test]
fn invariant_3_a_refused_change_leaves_nothing_of_its_batch_and_is_named() {
    let local = transactions(&[
        "INSERT INTO t VALUES (1, 'new', 1)",
        "INSERT INTO t VALUES (7, 'taken', 2)",
    ]);
    let remote = database(SCHEMA);
    remote
        .execute("INSERT INTO t VALUES (3, 'taken', 0)", [])
        .unwrap();
    let PushOutcome::Refused(refused) = send(&remote, &batch(&local, &options())) else {
        panic!("the batch was not refused");
    };
    assert_eq!(rows_of(&remote), 1);
    assert_eq!(position_of(&remote), RemotePosition::default());
    assert_eq!(refused.change_id, Some(ChangeId(2)));
    assert_eq!(refused.table.as_deref(), Some("t"));
    assert_eq!(refused.key, [("id".to_owned(), int(7))]);
    assert!(refused.sql.starts_with("INSERT OR ABORT INTO \"t\""));
    assert_eq!(refused.message, "UNIQUE constraint failed: t.u");
    let shown = refused.to_string();
    assert!(
        shown.starts_with(
            "the remote refused change 2 of table \"t\" (id = 7): UNIQUE constraint failed: t.u"
        ),
        "{shown}"
    );
    assert!(shown.contains("no local change is lost"), "{shown}");
    // Once the way is free, the same batch lands.
    remote.execute("DELETE FROM t WHERE id = 3", []).unwrap();
    assert_eq!(send(&remote, &batch(&local, &options())), PushOutcome::Committed);
}

#[test]
fn a_deferred_foreign_key_refuses_at_commit() {
    let schema = "CREATE TABLE p (id INTEGER PRIMARY KEY);
        CREATE TABLE t (id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED)";
    let mut a = Recorder::new(schema);
    a.run("INSERT INTO t VALUES (1, 99)", &[]);
    let remote = database(schema);
    remote.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    let local = [a.log];
    let PushOutcome::Refused(refused) = send(&remote, &batch(&local, &options())) else {
        panic!("the batch was not refused");
    };
    assert_eq!((refused.change_id, refused.sql.as_str()), (None, "COMMIT"));
    assert!(refused.to_string().contains("changes 1 to 1"));
    assert_eq!(rows_of(&remote), 0);
}

#[test]
fn a_column_that_is_there_already_is_skipped_when_the_batch_is_built_again() {
    let mut a = Recorder::new(SCHEMA);
    let (table, column) = ("t".to_owned(), "w".to_owned());
    a.text(
        "ALTER TABLE t ADD COLUMN w",
        &[],
        StatementKind::AlterAddColumn { table, column },
    );
    a.run("INSERT INTO t VALUES (1, 'a', 1, 2)", &[]);
    let local = [a.log];
    let remote = database(SCHEMA);
    remote.execute_batch("ALTER TABLE t ADD COLUMN w").unwrap();
    assert_eq!(
        send(&remote, &batch(&local, &options())),
        PushOutcome::Skip(ChangeId(1))
    );
    let skip = BTreeSet::from([ChangeId(1)]);
    let again = PushOptions {
        skip: &skip,
        ..options()
    };
    assert_eq!(send(&remote, &batch(&local, &again)), PushOutcome::Committed);
    assert_eq!(rows_of(&remote), 1);
}

#[test]
fn a_batch_lands_only_where_it_continues_from() {
    const AT_1: &str = "INSERT INTO turso_sync_last_change_id VALUES ('client', 50331648, 1)";
    const FENCED: &str = "INSERT INTO turso_sync_last_change_id VALUES ('client', 1, NULL)";
    const OTHERS: &str = "INSERT INTO turso_sync_last_change_id VALUES ('another', 50331648, 1)";
    let local = transactions(&["INSERT INTO t VALUES (2, 'a', 1)"]);
    let fenced = RemotePosition {
        pull_gen: Some(1),
        change_id: None,
    };
    let other_mark = RemotePosition {
        pull_gen: Some(MARK.get() + 1),
        ..at(1)
    };
    // What the remote says of this client, where the batch continues from, whether it lands.
    for (there, from, lands) in [
        ("", RemotePosition::default(), true),
        (OTHERS, RemotePosition::default(), true),
        (AT_1, at(1), true),
        (FENCED, fenced, true),
        ("", at(1), false),
        ("", fenced, false),
        (OTHERS, at(1), false),
        (AT_1, RemotePosition::default(), false),
        (AT_1, at(2), false),
        (AT_1, other_mark, false),
        (AT_1, fenced, false),
        (FENCED, RemotePosition::default(), false),
        (FENCED, at(1), false),
    ] {
        let remote = database(SCHEMA);
        if !there.is_empty() {
            remote.execute_batch(position::CREATE).unwrap();
            remote.execute_batch(there).unwrap();
        }
        let options = PushOptions {
            after: from,
            ..options()
        };
        let outcome = send(&remote, &batch(&local, &options));
        let expected = if lands {
            PushOutcome::Committed
        } else {
            PushOutcome::Moved
        };
        assert_eq!(outcome, expected, "{there:?} from {from:?}");
        assert_eq!(rows_of(&remote), i64::from(lands), "{there:?} from {from:?}");
    }
}

#[test]
fn a_busy_remote_is_told_from_one_that_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("remote.db");
    let remote = Connection::open(&path).unwrap();
    remote
        .execute_batch(&format!("PRAGMA foreign_keys = OFF; {SCHEMA}"))
        .unwrap();
    remote.busy_timeout(std::time::Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    let outcome = send(&remote, &batch(&local, &options()));
    assert!(outcome.is_busy(), "{outcome:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(send(&remote, &batch(&local, &options())), PushOutcome::Committed);
}

#[test]
fn a_remote_that_is_full_or_read_only_is_not_the_fault_of_a_change() {
    let local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    let push = batch(&local, &options());
    let remote = database(SCHEMA);
    for (message, code) in [
        ("database or disk is full", None),
        ("attempt to write a readonly database", Some("SQLITE_READONLY")),
        ("writes are blocked", Some("BLOCKED")),
    ] {
        let mut result = execute(&remote, &push.batch);
        result.step_results.truncate(3);
        result.step_errors = vec![None; 4];
        result.step_errors[3] = Some(hrana::Error {
            message: message.into(),
            code: code.map(str::to_owned),
            extended_code: None,
        });
        let outcome = push.plan.outcome(&result);
        assert!(matches!(outcome, PushOutcome::Failed { .. }), "{outcome:?}");
        assert!(!outcome.is_busy());
    }
}

#[test]
fn an_answer_that_does_not_tell_is_unclear() {
    let local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    let push = batch(&local, &options());
    assert_eq!(push.plan.outcome(&BatchResult::default()), PushOutcome::Unclear);
    let cut = BatchResult {
        step_results: vec![Some(StmtResult::default()); 3],
        step_errors: vec![],
    };
    assert_eq!(push.plan.outcome(&cut), PushOutcome::Unclear);
    // An error of ROLLBACK alone says nothing of the batch.
    let remote = database(SCHEMA);
    let mut result = execute(&remote, &push.batch);
    let last = result.step_errors.len() - 1;
    result.step_errors[last] = Some(hrana::Error {
        message: "cannot rollback - no transaction is active".into(),
        code: None,
        extended_code: None,
    });
    assert_eq!(push.plan.outcome(&result), PushOutcome::Committed);
}

#[test]
fn batches_are_filled_to_the_limit_and_never_split_a_transaction() {
    let local = transactions(&[
        "INSERT INTO t (id) VALUES (1), (2)",
        "INSERT INTO t (id) VALUES (3)",
        "INSERT INTO t (id) VALUES (4), (5), (6), (7), (8)",
        "INSERT INTO t (id) VALUES (9)",
    ]);
    let mut limited = options();
    limited.limits.statements = 3;
    let mut taken = Vec::new();
    let mut from = 0;
    let remote = database(SCHEMA);
    while let Some(push) = build(&local[from..], &limited).unwrap() {
        taken.push(push.plan.transactions);
        assert_eq!(send(&remote, &push), PushOutcome::Committed);
        from += push.plan.transactions;
        limited.after = at(push.plan.last.0);
    }
    assert_eq!(taken, [2, 1, 1]);
    assert_eq!(rows_of(&remote), 9);
    let mut small = options();
    small.limits.bytes = 1;
    assert_eq!(batch(&local, &small).plan.transactions, 1);
    assert!(build::<Vec<Change>>(&[], &small).unwrap().is_none());
}

#[test]
fn a_transaction_without_sql_still_moves_the_position() {
    let mut local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    if let ChangeKind::Row { cause, .. } = &mut local[0][0].kind {
        *cause = Cause::Trigger;
    }
    let remote = database(SCHEMA);
    assert_eq!(send(&remote, &batch(&local, &options())), PushOutcome::Committed);
    assert_eq!(rows_of(&remote), 0);
    assert_eq!(position_of(&remote), at(1));
}

#[test]
fn a_change_that_cannot_be_sent_holds_up_only_what_is_behind_it() {
    let mut local = transactions(&[
        "INSERT INTO t VALUES (1, 'a', 1)",
        "INSERT INTO t VALUES (2, 'b', 1)",
    ]);
    if let ChangeKind::Row {
        op: RowOp::Insert { after },
        ..
    } = &mut local[1][0].kind
    {
        after[2] = Value::Real(f64::NAN);
    }
    assert_eq!(batch(&local, &options()).plan.transactions, 1);
    let error = build(&local[1..], &options()).unwrap_err();
    assert_eq!(error.change_id, ChangeId(2));
    assert!(error.to_string().contains("column \"v\" of table \"t\" is NaN"));
}

#[test]
fn the_transform_callback_sees_rows_by_column_and_keeps_skips_or_rewrites_them() {
    let local = transactions(&[
        "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        "UPDATE t SET v = 'x' WHERE id = 1",
        "DELETE FROM t WHERE id = 3",
    ]);
    let seen: Arc<Mutex<Vec<TransformMutation>>> = Arc::default();
    let transform: Box<TransformFn> = {
        let seen = Arc::clone(&seen);
        Box::new(move |m: &TransformMutation| {
            seen.lock().unwrap().push(m.clone());
            match (m.id, m.change_type) {
                (Some(2), ChangeType::Insert) => Transform::Skip,
                (Some(1), ChangeType::Update) => Transform::Rewrite {
                    sql: "UPDATE t SET v = coalesce(v, 0) + ?2 WHERE id = ?1;".into(),
                    values: vec![int(1), Value::Real(f64::INFINITY)],
                },
                _ => Transform::Keep,
            }
        })
    };
    let remote = database(SCHEMA);
    let transforming = PushOptions {
        transform: Some(&*transform),
        ..options()
    };
    assert_eq!(
        send(&remote, &batch(&local, &transforming)),
        PushOutcome::Committed
    );
    let rows: Vec<(i64, f64)> = remote
        .prepare("SELECT id, v FROM t")
        .unwrap()
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows, [(1, f64::INFINITY)]);
    let seen = seen.lock().unwrap();
    let update = &seen[3];
    assert_eq!((update.change_time, update.table_name.as_str()), (100, "t"));
    assert_eq!(update.before.as_ref().unwrap()["v"], int(1));
    assert_eq!(update.after.as_ref().unwrap()["v"], text("x"));
    let updates: Vec<&str> = update
        .updates
        .as_ref()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(updates, ["v"]);
    assert_eq!(seen[4].change_type, ChangeType::Delete);
    assert!(seen[4].after.is_none() && seen[0].before.is_none());
}

#[test]
fn a_transform_callback_that_fails_or_rewrites_badly_stops_the_push() {
    let local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    let fail = |_: &TransformMutation| Transform::Fail("boom".into());
    let several = |_: &TransformMutation| Transform::Rewrite {
        sql: "DELETE FROM t; DELETE FROM t".into(),
        values: vec![],
    };
    let nothing = |_: &TransformMutation| Transform::Rewrite {
        sql: " -- nothing".into(),
        values: vec![],
    };
    for (callback, says) in [
        (&fail as &TransformFn, "boom"),
        (&several, "one statement is wanted"),
        (&nothing, "rewritten change"),
    ] {
        let options = PushOptions {
            transform: Some(callback),
            ..options()
        };
        let error = build(&local, &options).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_position_is_gone_on_from_or_is_an_error_that_says_who_was_restored() {
    let id = |n| Some(ChangeId(n));
    let mut random = fastrand::Rng::with_seed(7);
    let (own, other) = (Mark::draw(&mut random), Mark::draw(&mut random));
    let there = |change_id, mark: Mark| RemotePosition {
        // A fence or two.
        pull_gen: Some(mark.get() + 2),
        change_id,
    };
    let sent = |newest| Sent {
        newest,
        mark: Some(own),
    };
    let nothing = resume_after(RemotePosition::default(), None, sent(id(5)));
    assert_eq!(nothing, Ok(None));
    // The answer to a push was lost.
    assert_eq!(resume_after(there(id(5), own), id(3), sent(id(5))), Ok(id(5)));
    let error = resume_after(there(id(5), other), id(3), sent(id(5))).unwrap_err();
    assert!(matches!(error, PositionError::ReplicaBehind { .. }));
    // It is not known with which mark.
    let unmarked = Sent {
        newest: id(5),
        mark: None,
    };
    assert_eq!(resume_after(there(id(5), other), id(3), unmarked), Ok(id(5)));
    // What was acknowledged is known.
    assert_eq!(resume_after(there(id(3), other), id(3), sent(id(5))), Ok(id(3)));
    assert_eq!(resume_after(there(id(3), other), id(3), sent(None)), Ok(id(3)));
    for remote in [None, id(2)] {
        let error = resume_after(there(remote, own), id(3), sent(id(5))).unwrap_err();
        assert!(matches!(error, PositionError::RemoteBehind { .. }));
        assert!(error.to_string().contains("restored from a backup"));
    }
    for newest in [None, id(5)] {
        let error = resume_after(there(id(6), own), newest.and(id(3)), sent(newest)).unwrap_err();
        assert!(matches!(error, PositionError::ReplicaBehind { .. }));
        assert!(error.to_string().contains("up to 6"), "{error}");
    }
}

#[test]
fn a_position_that_cannot_be_read_is_an_error() {
    let remote = database("CREATE TABLE turso_sync_last_change_id (client_id, pull_gen, change_id)");
    let ask = Batch {
        steps: vec![position::ask("client")],
        ..Batch::default()
    };
    let nothing = Ok(RemotePosition::default());
    assert_eq!(position::read(&execute(&remote, &ask), 0), nothing);
    remote
        .execute_batch("INSERT INTO turso_sync_last_change_id VALUES ('client', 1, 'x')")
        .unwrap();
    assert!(position::read(&execute(&remote, &ask), 0).is_err());
    assert!(position::read(&BatchResult::default(), 0).is_err());
}

#[test]
fn after_a_fence_no_batch_lands_that_was_built_before_it_and_a_new_one_does() {
    let fence = position::fence("client");
    for pushed in [false, true] {
        let local = transactions(&[
            "INSERT INTO t VALUES (1, 'a', 1)",
            "INSERT INTO t VALUES (2, 'b', 2)",
        ]);
        let remote = database(SCHEMA);
        if pushed {
            assert_eq!(
                send(&remote, &batch(&local[..1], &options())),
                PushOutcome::Committed
            );
        }
        let mut late = Vec::new();
        for _ in 0..3 {
            let options = PushOptions {
                after: position_of(&remote),
                ..options()
            };
            late.push(batch(&local[1..], &options));
            let answer = execute(&remote, &fence);
            assert_eq!(position::is_fenced(&answer, ChangeId(2)), Ok(()));
            assert!(remote.is_autocommit());
        }
        let before = rows_of(&remote);
        for push in &late {
            assert_eq!(send(&remote, push), PushOutcome::Moved);
        }
        assert_eq!(rows_of(&remote), before);
        let options = PushOptions {
            after: position_of(&remote),
            ..options()
        };
        let again = batch(&local[1..], &options);
        assert_eq!(send(&remote, &again), PushOutcome::Committed);
        for push in late.iter().chain([&again]) {
            assert_eq!(send(&remote, push), PushOutcome::Moved);
        }
        assert_eq!(position_of(&remote), at(2));
    }
}

#[test]
fn a_fence_that_cannot_be_made_is_needed_only_where_the_batch_has_not_landed() {
    let local = transactions(&["INSERT INTO t VALUES (1, 'a', 1)"]);
    let remote = database(SCHEMA);
    remote.pragma_update(None, "query_only", true).unwrap();
    let fence = position::fence("client");
    let why = position::is_fenced(&execute(&remote, &fence), ChangeId(1)).unwrap_err();
    assert!(why.contains("readonly"), "{why}");
    remote.pragma_update(None, "query_only", false).unwrap();
    assert_eq!(send(&remote, &batch(&local, &options())), PushOutcome::Committed);
    remote.pragma_update(None, "query_only", true).unwrap();
    let answer = execute(&remote, &fence);
    assert_eq!(position::is_fenced(&answer, ChangeId(1)), Ok(()));
    assert!(position::is_fenced(&answer, ChangeId(2)).is_err());
    assert!(position::is_fenced(&BatchResult::default(), ChangeId(1)).is_err());
}

#[test]
fn a_taken_key_is_told_from_other_uniqueness() {
    let added = |table: Table| Change {
        id: ChangeId(1),
        time: 0,
        back: 0,
        kind: ChangeKind::Row {
            op: RowOp::Add {
                after: vec![Value::Integer(1); table.columns.len()],
            },
            table: Arc::new(table),
            cause: Cause::Statement,
        },
    };
    let table = |is_virtual| Table {
        name: "T".into(),
        columns: ["id", "id_card"]
            .map(|name| Column {
                name: name.into(),
                key: u16::from(name == "id"),
                generated: false,
            })
            .to_vec(),
        without_rowid: false,
        is_virtual,
    };
    for message in [
        "UNIQUE constraint failed: t.id",
        "UNIQUE constraint failed: T.ID (1555)",
        "Runtime error: UNIQUE constraint failed: t.id (19)",
    ] {
        assert!(is_key_taken(&added(table(false)), message), "{message}");
        assert!(is_key_taken(&added(table(true)), message), "{message}");
    }
    for message in [
        "UNIQUE constraint failed: t.id_card",
        "UNIQUE constraint failed: t.id_card (2067)",
        "UNIQUE constraint failed: t.id, t.id_card",
        "UNIQUE constraint failed: t.id (x)",
        "UNIQUE constraint failed: tt.id",
        "NOT NULL constraint failed: t.id",
        "rtree constraint failed: t.(x0<=x1)",
    ] {
        assert!(!is_key_taken(&added(table(false)), message), "{message}");
        assert!(!is_key_taken(&added(table(true)), message), "{message}");
    }
    for message in ["constraint failed", "Error: constraint failed (19)"] {
        assert!(!is_key_taken(&added(table(false)), message), "{message}");
        assert!(is_key_taken(&added(table(true)), message), "{message}");
    }
}
