//! A pull where it meets what went wrong before it: one that could not finish, a commit that failed, a push or a hydration in
//! the middle of it, a database that was cut off here. Each was broken once; what stood in the way is said beside it.
use std::{path::Path, sync::Arc, time::Duration};

use partial_sync::{Builder, Database};
use partial_sync_core::ChangeId;
use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

use crate::{
    snapshots::{SHORT, until_expired},
    support::*,
};

fn on(storage: &CrashStorage, path: &Path) -> Builder {
    Database::builder(path)
        .storage(Arc::new(storage.clone()))
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_secs(10))
}

fn fail_next(storage: &CrashStorage, after: &str, operation: &'static str) {
    let inner = storage.clone();
    storage.before(after, move || {
        let failing = inner.clone();
        inner.before(operation, move || {
            let at = failing.operations() + 1;
            failing.trouble(Some(Trouble::Fail(at, at + 1, std::io::ErrorKind::StorageFull)));
        });
    });
}

const AV: &str = "pragma auto_vacuum = full;
    create table t(id integer primary key, v text, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 500)
    insert into t select x, 'row', zeroblob(1200) from c;";

/// Pages that auto-vacuum cut off here are clean and present in the map, but beyond the end of the snapshot.
#[test]
fn a_pull_after_a_local_auto_vacuum_cut_brings_what_it_needs() {
    for checkpoint in [true, false] {
        let served = Served::new(AV);
        let replicas = Replicas::new();
        let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
        let conn = db.connection().unwrap();
        conn.execute("delete from t where id > 300", ()).unwrap();
        if checkpoint {
            db.checkpoint().unwrap();
        }
        served.execute("update t set v = 'theirs' where id = 1");
        let pulled = db.pull();
        eprintln!("checkpoint {checkpoint}: {pulled:?}; again: {:?}", db.pull());
        assert!(pulled.unwrap());
        assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
        db.push().unwrap();
        db.pull().unwrap();
        assert!(contents(&conn) == stock_contents(&served.sqlite()));
    }
}

/// The same, discarded: no put-back, and the new state is longer than what is here.
#[test]
fn a_pull_after_a_local_auto_vacuum_cut_that_was_discarded_makes_the_database_long_again() {
    let served = Served::new(AV);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("delete from t where id > 300", ()).unwrap();
    assert!(db.local_changes(ChangeId(0), 1000).unwrap().len() == 200);
    for change in db.local_changes(ChangeId(0), 1000).unwrap() {
        db.discard_change(change.id).unwrap();
    }
    let pulled = db.pull();
    eprintln!("{pulled:?}");
    assert!(pulled.unwrap());
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    assert!(contents(&conn) == stock_contents(&served.sqlite()));
}

const SMALL: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 300)
    insert into t select x, 'row ' || x || hex(zeroblob(100)) from c;";

/// A change is discarded after a pull committed whose files could not be written.
#[test]
fn a_change_discarded_after_a_pull_that_could_not_finish_is_gone_with_the_next() {
    h2("sync -pages", false);
}

#[test]
fn a_change_discarded_after_a_pull_that_could_not_finish_is_gone_also_after_a_crash() {
    h2("sync -pages", true);
}

#[test]
fn a_change_discarded_after_an_intent_that_could_not_be_removed_is_gone_after_a_crash() {
    h2("remove -changes", true);
}

fn h2(operation: &'static str, reopen: bool) {
    {
        let served = Served::new(SMALL);
        let replicas = Replicas::new();
        let path = replicas.path("a.db");
        let storage = CrashStorage::new(&path);
        let mut db = on(&storage, &path).remote(served.url()).connect().unwrap();
        let conn = db.connection().unwrap();
        conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
        served.execute("update t set v = 'theirs' where id % 2 = 0");
        fail_next(&storage, "sync -changes.tmp", operation);
        eprintln!("{operation}: {:?}", db.pull().unwrap_err());
        storage.trouble(None);
        assert!(db.discard_change(ChangeId(1)).unwrap());
        drop(conn);
        if reopen {
            storage.stop_now();
            drop(db);
            let again = replicas.path("again.db");
            db = on(&storage.after_crash(Survives::Synced, &again), &again)
                .remote(served.url())
                .connect()
                .unwrap();
        }
        let pulled = db.pull();
        let conn = db.connection().unwrap();
        let there = rows(&conn, "select v from t where id = 6000").unwrap();
        eprintln!("{operation} reopen {reopen}: pulled {pulled:?}, {there:?}");
        assert!(
            there.is_empty(),
            "{operation} reopen {reopen}: a discarded change is still there"
        );
    }
}

fn wide(tables: usize) -> String {
    let columns: Vec<String> = (0..30)
        .map(|n| format!("a_rather_long_name_of_a_column_{n}"))
        .collect();
    (0..tables)
        .map(|n| {
            format!(
                "create table wide_{n}(id integer primary key, {});",
                columns.join(", ")
            )
        })
        .collect()
}

/// `has_log` stays true after a crash although the log is gone, and the schema is not all here.
#[test]
fn c2_a_pull_without_a_log_that_was_recovered_leaves_an_expired_revision() {
    let served = Served::keeping(SMALL, SHORT);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    conn.execute("insert into t values (6001, 'mine')", ()).unwrap();
    db.push().unwrap();
    served.execute(&wide(40));
    let inner = storage.clone();
    storage.before("sync -changes.tmp", move || {
        let stop = inner.clone();
        inner.before("sync -info.tmp", move || stop.stop_now());
    });
    eprintln!("{:?}", db.pull().unwrap_err());
    drop((conn, db));
    let again = replicas.path("again.db");
    let db = on(&storage.after_crash(Survives::Synced, &again), &again)
        .remote(served.url())
        .connect()
        .unwrap();
    let other = replicas
        .builder("other.db")
        .remote(served.url())
        .connect()
        .unwrap();
    let revision = other.stats().unwrap().revision.unwrap();
    served.execute("update t set v = 'theirs' where id = 1; create table more(x)");
    until_expired(&served, &revision);
    let pulled = db.pull();
    eprintln!("{pulled:?}");
    assert!(pulled.unwrap());
}

/// A key that is moved before the table that refers to it is made.
#[test]
fn h7_references_of_a_table_that_is_made_after_a_row_moved_are_followed() {
    let served = Served::new("create table p(id integer primary key, v text)");
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into p(v) values ('mine')", ()).unwrap();
    conn.execute(
        "create table c(id integer primary key, pid integer references p(id))",
        (),
    )
    .unwrap();
    conn.execute("insert into c(pid) values (1)", ()).unwrap();
    served.execute("insert into p values (1, 'theirs')");
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(&conn, "select p.v from c join p on p.id = c.pid").unwrap(),
        ["Text(\"mine\")"]
    );
}

/// A page that was cut off, below the end of what was put back, and whose old frame is in the WAL.
#[test]
fn a_hole_below_the_end_of_what_was_put_back_shows_nothing_old() {
    let served = Served::new(
        "create table t(id integer primary key, v integer, pad blob); create table mine(id integer primary key, b blob);
        create index i1 on mine(b); create index i2 on mine(b, id); create index i3 on mine(b desc); create index i4 on mine(id, b);
        with recursive c(x) as (select 1 union all select x + 1 from c where x < 300)
        insert into t select x, 0, zeroblob(1200) from c;",
    );
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    // Frames in the WAL of pages that are present.
    served.execute("update t set v = 1");
    assert!(db.pull().unwrap());
    // The remote shrinks; local changes make it longer again, with pages that are allocated and freed.
    conn.execute("insert into mine values (1, zeroblob(60000))", ())
        .unwrap();
    conn.execute("delete from mine where id = 1", ()).unwrap();
    served.execute("delete from t where id > 100; vacuum");
    assert!(db.pull().unwrap());
    eprintln!(
        "{:?}",
        rows(
            &conn,
            "select page_count, freelist_count from pragma_page_count, pragma_freelist_count"
        )
    );
    // It grows again.
    served.execute(
        "with recursive c(x) as (select 1000 union all select x + 1 from c where x < 1300)
        insert into t select x, 2, randomblob(1200) from c;",
    );
    assert!(db.pull().unwrap());
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    db.push().unwrap();
    db.pull().unwrap();
    assert!(contents(&conn) == stock_contents(&served.sqlite()));
}

/// The sync of a pull's COMMIT fails, and so does what breaks its frames; the intent is removed all the same.
#[test]
fn invariant_8_a_commit_that_may_come_back_after_a_crash_keeps_its_intent() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let db = on(&storage, &path).remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    served.execute("update t set v = 'theirs' where id % 2 = 0; create table x(y)");
    let (inner, failing) = (storage.clone(), storage.clone());
    storage.before("sync -changes.tmp", move || {
        inner.before("write -replica-wal", move || {
            let failing_again = failing.clone();
            failing.before("sync -replica-wal", move || {
                let well = failing_again.clone();
                failing_again.before("remove -changes", move || well.trouble(None));
                let at = failing_again.operations() + 1;
                failing_again.trouble(Some(Trouble::Fail(
                    at,
                    at + 1000,
                    std::io::ErrorKind::StorageFull,
                )));
            });
        });
    });
    eprintln!("{:?}", db.pull().unwrap_err());
    storage.trouble(None);
    storage.stop_now();
    eprintln!("{:?}", storage.names());
    let tail = storage.tail();
    drop((conn, db));
    let again = replicas.path("again.db");
    let db = on(&storage.after_crash(Survives::Written, &again), &again)
        .remote(served.url())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    db.hydrate(|_| {}).unwrap();
    let check = rows(&conn, "pragma integrity_check").unwrap();
    let state = rows(&conn, "select count(*), sum(v = 'theirs') from t").unwrap();
    eprintln!("{check:?} {state:?} {tail}");
    assert_eq!(check, ["Text(\"ok\")"]);
    let theirs = rows(&conn, "select sum(v = 'theirs') from t").unwrap();
    assert!(
        theirs == ["Integer(0)"] || theirs == ["Integer(150)"],
        "{theirs:?}"
    );
}

/// Another url is accepted: everything is asked for twice.
#[test]
fn s3_another_url_is_asked_once() {
    let served = Served::new(SMALL);
    let other = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    db.push().unwrap();
    drop(conn);
    db.close().unwrap();
    let db = replicas
        .builder("a.db")
        .remote(other.url())
        .accept_new_url(true)
        .connect()
        .unwrap();
    db.pull().unwrap();
    assert_eq!(db.stats().unwrap().requests, 1);
}

/// After a pull that committed but did not finish, the log is of the new pull and `pulls` of the old one: a push applies
/// the keys that were noted before once more.
#[test]
fn h7_a_push_after_a_pull_that_could_not_finish_applies_noted_keys_once() {
    let served = Served::new(
        "create table p(id integer primary key, v text);
         create table c(id integer primary key, pid integer references p(id), v text)",
    );
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let faulty = Arc::new(partial_sync_transport::Faulty::new(served.http()));
    let db = on(&storage, &path)
        .remote_with(faulty.clone())
        .push_operations_threshold(1)
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into p(v) values ('mine')", ()).unwrap();
    conn.execute("insert into c(pid, v) values (1, 'to mine')", ())
        .unwrap();
    served.execute("insert into p values (1, 'theirs')");
    faulty.fail_from(
        4,
        partial_sync_transport::Fault::Fail(partial_sync_transport::RemoteErrorKind::Unreachable),
    );
    eprintln!("{:?}", db.push().unwrap_err());
    faulty.heal();
    eprintln!("{:?}", stock_rows(&served.sqlite(), "select id, v from p"));
    if std::env::var_os("H8_WELL").is_none() {
        fail_next(&storage, "sync -changes.tmp", "sync -pages");
        eprintln!("{:?}", db.pull().unwrap_err());
        storage.trouble(None);
    } else {
        db.pull().unwrap();
    }
    eprintln!(
        "{:?} {:?}",
        rows(&conn, "select id, v from p"),
        rows(&conn, "select pid, v from c")
    );
    conn.execute("insert into c(pid, v) values (1, 'to theirs')", ())
        .unwrap();
    db.push().unwrap();
    assert_eq!(
        stock_rows(
            &served.sqlite(),
            "select c.v, p.v from c join p on p.id = c.pid order by c.id"
        )
        .unwrap(),
        [
            "Text(\"to mine\")|Text(\"mine\")",
            "Text(\"to theirs\")|Text(\"theirs\")"
        ]
    );
}

/// What was hydrated while a pull waited for news is gone when it has them.
#[test]
fn m2_what_is_hydrated_during_a_long_poll_stays() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| db.pull_waiting(Duration::from_secs(8)));
        std::thread::sleep(Duration::from_millis(700));
        let hydrated = db.hydrate(|_| {}).unwrap();
        assert_eq!(hydrated.absent, 0);
        served.execute("update t set v = 'theirs' where id = 1");
        assert!(pulling.join().unwrap().unwrap());
    });
    let stats = db.stats().unwrap();
    assert!(stats.pages_present + 2 >= stats.pages_total, "{stats:?}");
}

/// A push sees to a sealed intent by moving the base again, without the write lock: what is written meanwhile is not known
/// to be dirty any more.
#[test]
fn invariant_1_a_push_after_a_pull_that_could_not_finish_forgets_no_dirty_page() {
    use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = on(&storage, &path).remote_with(faulty.clone()).connect().unwrap();
    let conn = db.connection().unwrap();
    let writer = db.connection().unwrap();
    rows(&conn, "select v from t where id = 1").unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    served.execute("update t set v = 'theirs' where id % 2 = 0");
    fail_next(&storage, "sync -changes.tmp", "sync -pages");
    eprintln!("{:?}", db.pull().unwrap_err());
    storage.trouble(None);
    let before = rows(&conn, "select v from t where id = 1").unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let (pusher, broken) = (db.clone(), faulty.clone());
    storage.before("write ", move || {
        // A fetched page is being stored.
        broken.fail_from(1, Fault::Fail(RemoteErrorKind::Unreachable));
        let push = std::thread::spawn(move || pusher.push());
        std::thread::sleep(Duration::from_millis(500));
        writer
            .execute("update t set v = 'local' where id = 1", ())
            .unwrap();
        sender.send((push, writer)).unwrap();
    });
    rows(&conn, "select v from t where id = 150").unwrap();
    let (push, writer) = receiver.recv().unwrap();
    eprintln!("push: {:?}", push.join().unwrap());
    drop(writer);
    faulty.heal();
    let change = db.local_changes(ChangeId(0), 10).unwrap();
    eprintln!("{change:?}");
    assert!(db.discard_change(change.last().unwrap().id).unwrap());
    eprintln!("{:?}", db.pull());
    eprintln!("{:?}", db.pull());
    assert_eq!(rows(&conn, "select v from t where id = 1").unwrap(), before);
}

/// The file of a pull that is being answered is removed by a push.
#[test]
fn m2_a_push_during_the_answer_leaves_the_staged_file() {
    use partial_sync_transport::{Fault, Faulty};
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .connect()
        .unwrap();
    served.execute("update t set v = 'theirs' where id % 2 = 0");
    faulty.fail_nth(1, Fault::HangAfterPages(3));
    let puller = db.clone();
    let cancel = db.cancel_handle().unwrap();
    let pull = std::thread::spawn(move || puller.pull());
    until("something is staged", || {
        replicas.files().contains(&"a.db-staged".to_owned())
    });
    std::thread::sleep(Duration::from_millis(200));
    db.push().unwrap();
    let files = replicas.files();
    cancel.cancel();
    let _ = pull.join().unwrap();
    assert!(files.contains(&"a.db-staged".to_owned()), "{files:?}");
}

/// A push during the question moves the base again: pages that were here when it was asked are absent afterwards, and the
/// snapshot of unchanged pages reads them as zeros.
#[test]
fn m2_a_push_during_the_question_leaves_every_page_here() {
    use partial_sync_transport::{Fault, Faulty, RemoteErrorKind};
    let served = Served::new(&format!(
        "{SMALL} create table u(id integer primary key, v text);
         insert into u select id, v || v || v || v from t;"
    ));
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let faulty = Arc::new(Faulty::new(served.http()));
    let db = on(&storage, &path).remote_with(faulty.clone()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
    served.execute("update t set v = 'theirs' where id = 2");
    fail_next(&storage, "sync -changes.tmp", "remove -changes");
    eprintln!("{:?}", db.pull().unwrap_err());
    storage.trouble(None);
    conn.execute("insert into u values (6000, 'mine')", ()).unwrap();
    faulty.fail_nth(2, Fault::Fail(RemoteErrorKind::Unreachable));
    let puller = db.clone();
    let pull = std::thread::spawn(move || puller.pull_waiting(Duration::from_secs(8)));
    std::thread::sleep(Duration::from_millis(500));
    eprintln!("push: {:?}", db.push());
    served.execute("update t set v = 'theirs' where id = 4");
    let pulled = pull.join().unwrap();
    eprintln!("{pulled:?}");
    assert!(pulled.unwrap());
    assert_eq!(rows(&conn, "select count(*) from u").unwrap(), ["Integer(301)"]);
}

/// Was red: pages that an older reader kept were fetched again by every hydration, one by one, and never stored.
#[test]
fn a_hydration_leaves_what_an_older_reader_needs_and_completes_when_it_has_ended() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let remote = served.counting();
    let db = on(&storage, &path).remote_with(remote.clone()).connect().unwrap();
    let old = db.connection().unwrap();
    old.execute_batch("begin").unwrap();
    let before = rows(&old, "select v from t where id = 1").unwrap();
    let late = db.connection().unwrap();
    // Pages that come between the question of a pull and its commit may be old.
    storage.before("sync -changes.tmp", move || {
        rows(&late, "select sum(length(v)) from t where id > 100").unwrap();
    });
    served.execute("update t set v = 'theirs'");
    assert!(db.pull().unwrap());
    let first = db.hydrate(|_| {}).unwrap();
    assert!(first.absent > 0, "{first:?}");
    remote.clear();
    let again = db.hydrate(|_| {}).unwrap();
    assert_eq!((again.fetched, again.absent), (0, first.absent));
    assert_eq!(remote.requests(), 0, "what cannot be kept is not fetched");
    assert_eq!(rows(&old, "select v from t where id = 1").unwrap(), before);
    old.execute_batch("rollback").unwrap();
    let done = db.hydrate(|_| {}).unwrap();
    assert_eq!((done.fetched, done.absent), (first.absent, 0));
    let new = rows(&old, "select v from t where id = 200").unwrap();
    assert_eq!(new, ["Text(\"theirs\")"]);
}
