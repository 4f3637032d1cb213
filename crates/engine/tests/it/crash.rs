//! Crashes: the world stops at every single file operation of a replica's life, and what survived is opened again.
//!
//! The remote is a real server over HTTP. A trigger there (and in the replica) notes every row that lands, so that a
//! change that came twice is seen.

use std::{
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::support::*;
use partial_sync::{Connection, Database, Error, Result};
use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

const REMOTE: &str = "create table t(id integer primary key, v text);
    create table pair(id integer primary key, v text);
    create table audit(seq integer primary key, what text);
    create index tv on t(v);
    create trigger ti after insert on t begin insert into audit(what) values ('insert ' || new.id || ' ' || new.v); end;
    create trigger tu after update on t begin insert into audit(what) values ('update ' || new.id || ' ' || new.v); end;
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 40)
    insert into pair select x, 'pair ' || x || hex(zeroblob(90)) from c;
    insert into t values (1, 'one'), (2, 'two'), (3, 'three');";

/// One replica's life. Stops at the first step that fails.
struct Life<'a> {
    served: &'a Served,
    path: PathBuf,
    storage: CrashStorage,
    /// Ids of local transactions, and whether their commit returned.
    local: Vec<(i64, bool)>,
    /// Ids of transactions of the remote.
    remote: Vec<i64>,
    created: bool,
    /// As [`Builder::longest_question`](partial_sync::Builder).
    question: usize,
}

/// What a local transaction with this id does; both rows or none.
fn local_sql(id: i64) -> String {
    format!(
        "begin immediate; insert into t values ({id}, 'local {id}'); insert into pair values ({id}, 'local');
         update t set v = 'touched {id}' where id = {}; commit",
        id % 3 + 1
    )
}

impl<'a> Life<'a> {
    fn new(served: &'a Served, path: PathBuf, storage: CrashStorage) -> Self {
        Self {
            served,
            path,
            storage,
            local: vec![],
            remote: vec![],
            created: false,
            question: 0,
        }
    }

    fn open(&self) -> Result<Database> {
        Database::builder(&self.path)
            .storage(Arc::new(self.storage.clone()))
            .remote(self.served.url())
            .partial(prefix(2 * 4096, 4096))
            .longest_question(self.question)
            .timeout(std::time::Duration::from_secs(10))
            .connect()
    }

    fn local(&mut self, conn: &Connection, id: i64) -> Result<()> {
        self.local.push((id, false));
        let result = conn.execute_batch(&local_sql(id));
        if result.is_err() && !conn.is_autocommit() {
            let _ = conn.execute_batch("rollback");
        }
        result?;
        self.local.last_mut().unwrap().1 = true;
        Ok(())
    }

    fn remote(&mut self, id: i64, sql: &str) {
        self.served.execute(&format!(
            "begin; insert into t values ({id}, 'remote {id}'); {sql}; insert into pair values ({id}, 'remote'); commit"
        ));
        self.remote.push(id);
    }

    fn run(&mut self) -> Result<()> {
        let db = self.open()?;
        let conn = db.connection()?;
        conn.execute_batch("pragma synchronous = full")?;
        self.local(&conn, 1000)?;
        conn.execute_batch("create table made(id integer primary key, note); create index mn on made(note)")?;
        self.created = true;
        conn.execute("insert into made values (1, 'here')", ())?;
        db.checkpoint()?;
        self.local(&conn, 1001)?;
        db.push()?;
        self.local(&conn, 1002)?;
        self.remote(
            2000,
            "create table theirs(x); update pair set v = 'theirs' where id = 3",
        );
        self.local(&conn, 1003)?;
        // Pages of the old revision come when the intent is written, and are saved.
        let late = db.connection()?;
        self.storage.before("sync -changes.tmp", move || {
            let _ = rows(&late, "select count(*) from audit");
            let _ = rows(&late, "pragma wal_checkpoint(passive)");
        });
        db.pull()?;
        self.local(&conn, 1004)?;
        db.push()?;
        self.remote(2001, "delete from pair where id between 5 and 30");
        db.pull()?;
        self.local(&conn, 1005)?;
        drop(conn);
        drop(db);
        Ok(())
    }

    /// Opens what survived and holds it against what happened.
    fn check(&self, after: CrashStorage, path: PathBuf, case: &str) -> Database {
        let db = Database::builder(&path)
            .storage(Arc::new(after))
            .remote(self.served.url())
            .partial(prefix(2 * 4096, 4096))
            .longest_question(self.question)
            .connect()
            .unwrap_or_else(|e| panic!("{case}: the replica does not open: {e}"));
        let conn = db.connection().unwrap();
        db.hydrate(|_| {})
            .unwrap_or_else(|e| panic!("{case}: hydrate: {e}"));
        let ok = rows(&conn, "pragma integrity_check").unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(ok, ["Text(\"ok\")"], "{case}");
        for (id, returned) in &self.local {
            let there: i64 = conn
                .query_row(
                    &format!("select (select count(*) from t where id = {id}) + (select count(*) from pair where id = {id})"),
                    (),
                    |r| r.get(0),
                )
                .unwrap();
            match returned {
                true => assert_eq!(there, 2, "{case}: local transaction {id} had returned"),
                false => assert!(there == 0 || there == 2, "{case}: half of transaction {id}"),
            }
        }
        for id in &self.remote {
            let there: i64 = conn
                .query_row(
                    &format!("select (select count(*) from t where id = {id}) + (select count(*) from pair where id = {id})"),
                    (),
                    |r| r.get(0),
                )
                .unwrap();
            assert!(
                there == 0 || there == 2,
                "{case}: half of the remote's transaction {id}"
            );
        }
        if self.created {
            rows(&conn, "select * from made").unwrap_or_else(|e| panic!("{case}: local DDL is gone: {e}"));
        }
        db.push().unwrap_or_else(|e| panic!("{case}: push: {e}"));
        db.pull().unwrap_or_else(|e| panic!("{case}: pull: {e}"));
        let here = contents(&conn);
        let there = stock_contents(&self.served.sqlite());
        assert!(
            here == there,
            "{case}: replica and remote differ: {:?}",
            difference(&here, &there)
        );
        let ok = rows(&conn, "pragma integrity_check").unwrap();
        assert_eq!(ok, ["Text(\"ok\")"], "{case}: after push and pull");
        let twice = stock_rows(
            &self.served.sqlite(),
            "select what from audit group by what having count(*) > 1",
        )
        .unwrap();
        assert!(twice.is_empty(), "{case}: landed twice: {twice:?}");
        for (id, returned) in &self.local {
            if *returned {
                let sql = format!("select count(*) from audit where what = 'insert {id} local {id}'");
                assert_eq!(
                    stock_rows(&self.served.sqlite(), &sql).unwrap(),
                    ["Integer(1)"],
                    "{case}: {id}"
                );
            }
        }
        db
    }
}

fn difference(a: &[String], b: &[String]) -> Vec<String> {
    let only_a = a
        .iter()
        .filter(|x| !b.contains(x))
        .map(|x| format!("only here: {x}"));
    let only_b = b
        .iter()
        .filter(|x| !a.contains(x))
        .map(|x| format!("only there: {x}"));
    only_a.chain(only_b).take(12).collect()
}

/// Stops the world at operation `n` of a fresh life and checks what survived.
fn crash_at(n: u64, survives: Survives, question: usize, remote: &Served, folder: &Replicas) {
    let path = folder.path(&format!("life-{n}.db"));
    let storage = CrashStorage::new(&path);
    storage.trouble(Some(Trouble::Stop(n)));
    let mut life = Life::new(remote, path, storage.clone());
    life.question = question;
    let outcome = life.run();
    let stopped = storage.has_stopped();
    assert!(
        stopped || outcome.is_ok(),
        "operation {n} did not come, and yet: {outcome:?}"
    );
    storage.stop_now();
    let case = format!(
        "crash at operation {n} ({}), {survives:?} survives",
        storage.tail()
    );
    let again = folder.path(&format!("again-{n}.db"));
    life.check(storage.after_crash(survives, &again), again, &case);
}

/// Lives that run at once; most of their time is waiting.
const AT_ONCE: usize = 6;

fn for_every_operation(run: impl Fn(u64, &Replicas) + Sync) {
    let folder = Replicas::new();
    if let Ok(n) = std::env::var("CRASH_AT") {
        return run(n.parse().unwrap(), &folder);
    }
    let served = Served::new(REMOTE);
    let path = folder.path("whole.db");
    let storage = CrashStorage::new(&path);
    Life::new(&served, path, storage.clone()).run().unwrap();
    let operations = storage.operations();
    assert!(operations > 50, "the scenario has only {operations} operations");
    println!("{operations} operations; CRASH_AT=n runs one");
    let next = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n > operations {
                        break;
                    }
                    run(n, &folder);
                }
            });
        }
    });
}

/// What a pull asks is one request.
const ONE: usize = 1 << 20;
/// It is a list, and then its pages.
const LIST: usize = 0;

fn every_crash(survives: impl Fn(u64) -> Survives + Sync, question: usize) {
    for_every_operation(|n, folder| {
        crash_at(n, survives(n), question, &Served::new(REMOTE), folder);
    });
}

#[test]
fn invariants_1_2_7_8_hold_when_the_process_is_killed_at_any_file_operation() {
    every_crash(|_| Survives::Written, LIST);
}

#[test]
fn invariants_1_2_7_8_hold_when_the_power_fails_at_any_file_operation() {
    every_crash(|_| Survives::Synced, ONE);
}

#[test]
fn invariants_1_2_7_8_hold_when_the_power_fails_and_some_unsynced_writes_survive() {
    every_crash(Survives::SyncedAndSome, LIST);
}

/// Crashes at operation `n`, and again at a later operation of what comes after.
fn crash_twice(n: u64, folder: &Replicas) {
    let served = Served::new(REMOTE);
    let mut random = fastrand::Rng::with_seed(n);
    let mut survives = || match random.u8(..3) {
        0 => Survives::Written,
        1 => Survives::Synced,
        _ => Survives::SyncedAndSome(random.u64(..)),
    };
    let (first, second) = (survives(), survives());
    let path = folder.path(&format!("first-{n}.db"));
    let storage = CrashStorage::new(&path);
    storage.trouble(Some(Trouble::Stop(n)));
    let mut life = Life::new(&served, path, storage.clone());
    life.question = if random.bool() { LIST } else { ONE };
    let _ = life.run();
    storage.stop_now();
    let path = folder.path(&format!("second-{n}.db"));
    let storage = storage.after_crash(first, &path);
    let m = random.u64(1..40);
    storage.trouble(Some(Trouble::Stop(m)));
    (life.path, life.storage) = (path, storage.clone());
    // What this gets done is not noted, only what was there before must still be.
    let _ = life.open().and_then(|db| {
        db.pull()?;
        db.push()
    });
    let case = format!(
        "crashes at operations {n} and then {m} ({}), {first:?}, {second:?}",
        storage.tail()
    );
    storage.stop_now();
    let path = folder.path(&format!("third-{n}.db"));
    life.check(storage.after_crash(second, &path), path, &case);
}

#[test]
fn invariants_1_2_7_8_hold_when_what_comes_after_a_crash_crashes_too() {
    for_every_operation(crash_twice);
}

/// Calls until it works; what it fails with before must be a typed error of the disk.
fn until_it_works<T>(case: &str, mut call: impl FnMut() -> Result<T>) -> T {
    const FULL: i32 = 13;
    const IO: i32 = 10;
    const CANNOT_OPEN: i32 = 14;
    for _ in 0..12 {
        match call() {
            Ok(value) => return value,
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {}
            Err(Error::Sqlite(e)) if matches!(e.code(), FULL | IO | CANNOT_OPEN) => {}
            Err(Error::Read(_)) => {}
            Err(error) => panic!("{case}: not an error of the disk: {error:?}"),
        }
    }
    panic!("{case}: still failing although the disk has room again");
}

/// The disk is full from operation `n` on, for four operations.
fn disk_full_at(n: u64, folder: &Replicas) {
    let served = Served::new(REMOTE);
    let path = folder.path(&format!("full-{n}.db"));
    let storage = CrashStorage::new(&path);
    storage.trouble(Some(Trouble::Fail(n, n + 4, io::ErrorKind::StorageFull)));
    let mut life = Life::new(&served, path, storage.clone());
    let case = format!("disk full at operation {n}");
    let db = until_it_works(&case, || life.open());
    let conn = until_it_works(&case, || db.connection());
    let local = |id: i64| {
        until_it_works(&case, || {
            // A commit that failed may have happened, as after any error of the disk.
            let there: i64 =
                conn.query_row(&format!("select count(*) from pair where id = {id}"), (), |r| {
                    r.get(0)
                })?;
            let done = match there {
                0 => conn.execute_batch(&local_sql(id)),
                _ => Ok(()),
            };
            if done.is_err() {
                if !conn.is_autocommit() {
                    let _ = conn.execute_batch("rollback");
                }
                // The way out of a pull that could not be finished.
                let _ = db.pull();
            }
            done
        });
    };
    local(1000);
    life.local.push((1000, true));
    until_it_works(&case, || db.checkpoint());
    until_it_works(&case, || db.push());
    local(1001);
    life.local.push((1001, true));
    life.remote(
        2000,
        "create table theirs(x); update pair set v = 'theirs' where id = 3",
    );
    until_it_works(&case, || db.pull());
    local(1002);
    life.local.push((1002, true));
    until_it_works(&case, || db.push());
    life.remote(2001, "delete from pair where id between 5 and 30");
    until_it_works(&case, || db.pull());
    local(1003);
    life.local.push((1003, true));
    storage.stop_now();
    drop((conn, db));
    let again = folder.path(&format!("after-full-{n}.db"));
    life.check(storage.after_crash(Survives::Written, &again), again, &case);
}

#[test]
fn invariant_1_a_full_disk_is_a_typed_error_after_which_the_replica_goes_on_with_everything_it_had() {
    for_every_operation(disk_full_at);
}

const CHILD: &str = "PARTIAL_SYNC_CRASH_CHILD";

/// What the killed process does: the other test runs this one in a process of its own.
#[test]
fn child_that_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let [path, url, from] = task.split('|').collect::<Vec<_>>()[..] else {
        panic!("{task}")
    };
    let db = Database::builder(path)
        .remote(url)
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    for id in from.parse::<i64>().unwrap().. {
        conn.execute_batch(&local_sql(id)).unwrap();
        println!("\ncommitted {id}");
        match id % 12 {
            3 => db.checkpoint().unwrap(),
            6 => db.push().unwrap(),
            9 => drop(db.pull().unwrap()),
            _ => {}
        }
    }
}

#[test]
fn invariants_1_2_8_hold_when_a_real_process_is_killed_at_random_moments() {
    let seed = 7;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    let path = replicas.path("killed.db");
    let mut committed: Vec<i64> = vec![];
    for round in 0..20 {
        let from = committed.last().map_or(1000, |id| id + 10);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child_that_is_killed", "--nocapture"])
            .env(CHILD, format!("{}|{}|{from}", path.display(), served.url()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = random.usize(1..25);
        let mut id_of = |line: io::Result<String>| {
            line.unwrap()
                .strip_prefix("committed ")
                .map(|id| id.parse::<i64>().unwrap())
        };
        committed.extend(lines.by_ref().filter_map(&mut id_of).take(wanted));
        if random.bool() {
            served.execute(&format!("insert into t values ({}, 'remote')", 100_000 + round));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had printed before it died.
        committed.extend(lines.filter_map(&mut id_of));
        let db = Database::builder(&path).remote(served.url()).connect().unwrap();
        let conn = db.connection().unwrap();
        db.hydrate(|_| {}).unwrap();
        assert_eq!(
            rows(&conn, "pragma integrity_check").unwrap(),
            ["Text(\"ok\")"],
            "round {round}"
        );
        for id in &committed {
            let sql = format!(
                "select (select count(*) from t where id = {id}) + (select count(*) from pair where id = {id})"
            );
            assert_eq!(
                rows(&conn, &sql).unwrap(),
                ["Integer(2)"],
                "round {round}: transaction {id} was committed"
            );
        }
    }
    assert!(committed.len() > 100, "{} transactions", committed.len());
    let db = Database::builder(&path).remote(served.url()).connect().unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    assert!(contents(&db.connection().unwrap()) == stock_contents(&served.sqlite()));
    let twice = "select what from audit group by what having count(*) > 1";
    assert!(stock_rows(&served.sqlite(), twice).unwrap().is_empty());
}
