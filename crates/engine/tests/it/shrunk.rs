//! Databases that become shorter, here and on the remote, and longer again, while older copies of the pages beyond the
//! end lie in the database file, in the WAL, and with open readers.

use std::{sync::Arc, time::Duration};

use crate::support::*;
use partial_sync::{Connection, Database};
use partial_sync_core::ChangeId;
use partial_sync_server::Retention;
use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

fn assert_ok(conn: &Connection, case: &str) {
    let ok = rows(conn, "pragma integrity_check").unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(ok, ["Text(\"ok\")"], "{case}");
}

fn discard_all(db: &Database) {
    while let Some(change) = db.local_changes(ChangeId(0), 1).unwrap().first() {
        db.discard_change_with_dependents(change.id).unwrap();
    }
}

/// The indexes hold three times what the table holds, so that the log of a deletion takes less room than the rows did. The
/// last one is at the end of the file.
const VACUUMED: &str = "pragma page_size = 512; pragma auto_vacuum = full;
    create table news(x);
    create table t(id integer primary key, v text, w text default 'here');
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 40)
    insert into t(id, v) select x, 'first ' || x || hex(zeroblob(1500)) from c;
    create index i on t(v); create index j on t(v, id); create index k on t(w, v);";

/// What makes the database shorter here, while a reader keeps the file and the WAL from being cut, and what changes a page
/// that is cut off.
fn cut_off(mine: &str, theirs: &str, checkpoint: bool, expired: bool) {
    let case = format!("{mine:?} {theirs:?} {checkpoint} {expired}");
    let retention = Retention {
        age: if expired {
            Duration::ZERO
        } else {
            Retention::default().age
        },
        ..Retention::default()
    };
    let served = Served::keeping(VACUUMED, retention);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    let size = || -> i64 { conn.query_row("pragma page_count", (), |r| r.get(0)).unwrap() };
    let before = size();
    conn.execute_batch(mine).unwrap();
    if checkpoint {
        db.checkpoint().unwrap();
    }
    let reader = db.connection().unwrap();
    reader.execute_batch("begin").unwrap();
    let seen = contents(&reader);
    conn.execute_batch("delete from t where id < 39").unwrap();
    served.execute(theirs);
    assert!(db.pull().unwrap());
    assert!(size() < before * 2 / 3, "{case}: it did not shrink");
    assert_ok(&conn, &case);
    discard_all(&db);
    db.pull().unwrap();
    assert_same(&contents(&conn), &stock_contents(&served.sqlite()), &case);
    assert_ok(&conn, &case);
    assert_same(&contents(&reader), &seen, &case);
    assert_ok(&reader, &case);
}

/// A page that was written here and that the put-back cut off was taken for one of the new base.
#[test]
fn l_a_page_that_was_written_and_then_cut_off_here_is_not_taken_for_the_remotes() {
    for (checkpoint, expired) in [(false, false), (true, false), (false, true), (true, true)] {
        cut_off(
            "update t set w = 'changed here' where id > 20",
            "insert into news values (1)",
            checkpoint,
            expired,
        );
    }
}

/// So was one that the remote had changed.
#[test]
fn l_a_page_that_the_remote_changed_and_that_is_cut_off_here_is_not_kept() {
    for (checkpoint, expired) in [(false, false), (true, false), (false, true), (true, true)] {
        cut_off(
            "insert into news values (2)",
            "update t set w = 'changed there' where id > 20",
            checkpoint,
            expired,
        );
    }
}

/// A checkpoint passes by what lies in the WAL of pages beyond the end, and no reader looks at it there any more: the database
/// file has an older copy. What a pull made the database grow over was taken for what an earlier one had brought.
fn passed_by(shrinks_in_a_pull: bool, crashes: bool) {
    let case = format!("shrinks in a pull: {shrinks_in_a_pull}, crashes: {crashes}");
    let served = Served::new(VACUUMED);
    let replicas = Replicas::new();
    let mut storage = CrashStorage::new(&replicas.path("a.db"));
    let open = |storage: &CrashStorage, name| {
        let builder = replicas.builder(name).client_name("a");
        let builder = builder.storage(Arc::new(storage.clone()));
        builder.remote(served.url()).connect().unwrap()
    };
    let size = |conn: &Connection| -> i64 { conn.query_row("pragma page_count", (), |r| r.get(0)).unwrap() };
    let mut db = open(&storage, "a.db");
    db.hydrate(|_| {}).unwrap();
    // It has read before the pull, so the pull's connection leaves the WAL where it is.
    let mut conn = db.connection().unwrap();
    conn.execute_batch("pragma wal_autocheckpoint = 0").unwrap();
    let before = size(&conn);
    served.execute("update t set v = replace(v, '0', '1')");
    assert!(db.pull().unwrap());
    conn.execute_batch("delete from t where id < 39").unwrap();
    if shrinks_in_a_pull {
        served.execute("insert into news values (1)");
        assert!(db.pull().unwrap());
    }
    assert!(size(&conn) < before / 2, "{case}: it did not shrink");
    if crashes {
        storage.stop_now();
        drop((conn, db));
        storage = storage.after_crash(Survives::Written, &replicas.path("b.db"));
        db = open(&storage, "b.db");
        conn = db.connection().unwrap();
    }
    // The checkpoint comes as far as the reader, which is not so far that it cuts the file.
    let reader = db.connection().unwrap();
    reader.execute_batch("begin").unwrap();
    let seen = contents(&reader);
    conn.execute_batch("insert into news values (2)").unwrap();
    db.checkpoint().unwrap();
    discard_all(&db);
    db.pull().unwrap();
    assert_eq!(size(&conn), before, "{case}: it did not grow again");
    assert_same(&contents(&conn), &stock_contents(&served.sqlite()), &case);
    assert_ok(&conn, &case);
    assert_same(&contents(&reader), &seen, &case);
}

#[test]
fn l_what_a_checkpoint_passes_by_when_the_database_shrank_here_is_brought_again() {
    passed_by(false, false);
}

#[test]
fn l_what_a_checkpoint_passes_by_when_a_pull_shrank_the_database_is_brought_again() {
    passed_by(true, false);
}

#[test]
fn l_what_a_checkpoint_passes_by_after_a_crash_is_brought_again() {
    passed_by(false, true);
    passed_by(true, true);
}

/// One replica and its remote, doing whatever comes.
fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let page_size = [512, 1024, 4096, 65536][random.usize(..4)];
    let vacuum = ["none", "full", "incremental"][random.usize(..3)];
    let case = format!("seed {seed}, pages of {page_size}, auto_vacuum {vacuum}");
    let width = page_size / 8;
    let count = 200;
    let served = Served::new(&format!(
        "pragma page_size = {page_size}; pragma auto_vacuum = {vacuum};
         create table news(x);
         create table t(id integer primary key, v);
         create index tv on t(v); create index tw on t(id, v);
         with recursive c(x) as (select 1 union all select x + 1 from c where x < {count})
         insert into t select x, 'first ' || x || hex(zeroblob({width})) from c;"
    ));
    let replicas = Replicas::new();
    let partial = prefix(u64::from(page_size as u32) * random.u64(1..20), 65536);
    let mut storage = CrashStorage::new(&replicas.path("0.db"));
    let mut lives = 0;
    let open = |storage: &CrashStorage, lives: i32| {
        let builder = replicas.builder(&format!("{lives}.db")).client_name("a");
        builder
            .storage(Arc::new(storage.clone()))
            .remote(served.url())
            .partial(partial.clone())
            .connect()
    };
    let mut db = open(&storage, 0).unwrap();
    let mut conn = db.connection().unwrap();
    let mut reader: Option<(Connection, Vec<String>)> = None;
    let mut next = 10_000;
    let mut trace = vec![];
    for _ in 0..random.usize(5..40) {
        let (a, b) = (random.i64(1..250), random.i64(1..80));
        next += 1000;
        let n = random.usize(..18);
        let sql = match random.u8(..5) {
            0 => format!("delete from t where id between {a} and {}", a + b * 3),
            1 => "delete from t where id > 3".to_string(),
            2 => format!(
                "update t set v = v || '{next}' where id between {a} and {}",
                a + b
            ),
            3 => format!(
                "insert or ignore into t select id + {next}, v from t where id between {a} and {}",
                a + b
            ),
            _ => format!(
                "with recursive c(x) as (select {next} union all select x + 1 from c where x < {next} + {b})
                 insert or ignore into t select x, 'new ' || x || hex(zeroblob({width})) from c"
            ),
        };
        trace.push(format!("{n} {sql}"));
        let case = || format!("{case}: {trace:#?}");
        match n {
            0..=3 => conn
                .execute_batch(&sql)
                .unwrap_or_else(|e| panic!("{}: {e}", case())),
            4 => {
                conn.execute_batch(&format!(
                    "pragma cache_size = 4; begin; {sql}; savepoint a; delete from t; rollback"
                ))
                .unwrap_or_else(|e| panic!("{}: {e}", case()));
            }
            5..=6 => {
                // Rows of other keys than the replica's, so that nothing is refused.
                served.execute(&sql.replace(&next.to_string(), &(next + 1_000_000).to_string()));
                if vacuum == "incremental" {
                    served.execute("pragma incremental_vacuum");
                } else if random.u8(..4) == 0 {
                    served.execute("vacuum");
                }
            }
            7..=9 => {
                db.pull().unwrap_or_else(|e| panic!("{}: pull: {e}", case()));
                assert_ok(&conn, &case());
            }
            10 => db
                .checkpoint()
                .unwrap_or_else(|e| panic!("{}: checkpoint: {e}", case())),
            11 => {
                discard_all(&db);
            }
            12 => {
                let r = db.connection().unwrap();
                r.execute_batch("begin").unwrap();
                let seen = contents(&r);
                reader = Some((r, seen));
            }
            13 => {
                if let Some((r, seen)) = reader.take() {
                    assert_same(&contents(&r), &seen, &format!("{}: reader", case()));
                    assert_ok(&r, &case());
                }
            }
            14 => {
                db.hydrate(|_| {}).unwrap();
            }
            15 => {
                reader = None;
                drop(conn);
                db.close().unwrap();
                db = open(&storage, lives).unwrap_or_else(|e| panic!("{}: open: {e}", case()));
                conn = db.connection().unwrap();
                assert_ok(&conn, &case());
            }
            _ => {
                let survives = match random.u8(..3) {
                    0 => Survives::Written,
                    1 => Survives::Synced,
                    _ => Survives::SyncedAndSome(random.u64(..)),
                };
                storage.trouble(Some(Trouble::Stop(storage.operations() + random.u64(1..60))));
                let _ = match random.u8(..4) {
                    0 => conn.execute_batch(&sql),
                    1 => conn
                        .execute_batch(&format!(
                            "pragma cache_size = 4; begin; {sql}; savepoint a; delete from t; rollback"
                        ))
                        .and_then(|()| db.checkpoint()),
                    2 => db.checkpoint(),
                    _ => db.pull().map(drop),
                };
                storage.stop_now();
                reader = None;
                drop(conn);
                drop(db);
                lives += 1;
                storage = storage.after_crash(survives, &replicas.path(&format!("{lives}.db")));
                db = open(&storage, lives).unwrap_or_else(|e| panic!("{}: open: {e}", case()));
                db.stats().unwrap_or_else(|e| panic!("{}: stats: {e}", case()));
                conn = db.connection().unwrap();
                assert_ok(&conn, &case());
            }
        }
        if let Some((r, seen)) = &reader {
            assert_same(&contents(r), seen, &format!("{}: reader", case()));
        }
    }
    let case = format!("{case}: {trace:#?}");
    discard_all(&db);
    db.pull().unwrap_or_else(|e| panic!("{case}: pull: {e}"));
    assert_same(&contents(&conn), &stock_contents(&served.sqlite()), &case);
    assert_ok(&conn, &case);
}

#[test]
fn l_random_histories_of_databases_that_shrink_and_grow() {
    let seed = seed();
    let count = std::env::var("HISTORIES").map_or(10, |n| n.parse().unwrap());
    for n in 0..count {
        history(seed.wrapping_add(n));
    }
}

fn pulls(storage: &CrashStorage) -> u64 {
    let info: serde_json::Value = serde_json::from_slice(&storage.file("-info").unwrap()).unwrap();
    info["pulls"].as_u64().unwrap()
}

/// The info file was written, and what was left to do failed: it counted again.
#[test]
fn l_a_pull_that_is_finished_twice_counts_once() {
    let served = Served::new("create table t(x)");
    let replicas = Replicas::new();
    let storage = CrashStorage::new(&replicas.path("a.db"));
    let builder = replicas.builder("a.db").storage(Arc::new(storage.clone()));
    let db = builder.remote(served.url()).connect().unwrap();
    served.execute("insert into t values (1)");
    let fails = storage.clone();
    storage.before("remove -changes", move || {
        let next = fails.operations() + 1;
        fails.trouble(Some(Trouble::Fail(next, next + 1, std::io::ErrorKind::Other)));
    });
    db.pull().unwrap_err();
    assert_eq!(pulls(&storage), 1);
    assert!(!db.pull().unwrap());
    assert_eq!(pulls(&storage), 1);
}

/// Statistics and the like read the schema to count local changes of which there were none, and failed without it.
#[test]
fn l_a_replica_without_local_changes_is_told_so_without_the_remote() {
    let tables: String = (0..100)
        .map(|n| format!("create table t{n}(id integer primary key, some_column text, another_column text);"))
        .collect();
    let mut served = Served::new(&tables);
    let replicas = Replicas::new();
    let storage = CrashStorage::new(&replicas.path("a.db"));
    let builder = |storage: &CrashStorage, name: &str| {
        let builder = replicas.builder(name).storage(Arc::new(storage.clone()));
        builder.remote(served.url()).partial(prefix(4096, 4096))
    };
    let db = builder(&storage, "a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    assert!(rows(&conn, "select * from t7").unwrap().is_empty());
    storage.stop_now();
    drop((conn, db));
    let storage = storage.after_crash(Survives::Written, &replicas.path("b.db"));
    let again = builder(&storage, "b.db");
    served.stop();
    let db = again.connect().unwrap();
    assert_eq!(db.stats().unwrap().cdc_operations, 0);
    assert_eq!(db.local_changes(ChangeId(0), 10).unwrap(), []);
    assert!(!db.discard_change(ChangeId(1)).unwrap());
    db.push().unwrap();
    db.close().unwrap();
}
