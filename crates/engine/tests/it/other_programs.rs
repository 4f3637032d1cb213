//! What other programs see of a replica: while a page of it is absent, or not all of it is in the database file, SQLite
//! itself refuses the file; a replica that is whole is an ordinary file, and what another program writes to it is noticed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use crate::support::*;
use partial_sync::{Bootstrap, Database, Error, PartialSync};
use partial_sync_vfs::{
    Storage,
    crash::{CrashStorage, Survives, Trouble},
};

/// A table whose long values lie on overflow pages.
const LONG: &str = "create table t(id integer primary key, v text);
    create table small(id integer primary key, v text);
    insert into small values (1, 'one'), (2, 'two'), (3, 'three');
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 40)
    insert into t select x, hex(zeroblob(20000)) from c;";

/// The `sqlite3` program on a file: what it printed, errors included, and whether it was content.
fn shell(file: &Path, sql: &str) -> (String, bool) {
    let out = Command::new("sqlite3")
        .arg(file)
        .arg(sql)
        .output()
        .expect("sqlite3 is installed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (text.trim().to_owned(), out.status.success())
}

fn refused(file: &Path, sql: &str) {
    let (text, ok) = shell(file, sql);
    assert!(!ok && text.contains("file is not a database"), "{sql}: {text}");
}

fn versions(file: &Path) -> [u8; 2] {
    let bytes = std::fs::read(file).unwrap();
    [bytes[18], bytes[19]]
}

/// What a kill would leave of a replica now.
fn killed(replicas: &Replicas, name: &str) -> Replicas {
    let copy = Replicas::new();
    for file in replicas.files().iter().filter(|file| file.starts_with(name)) {
        std::fs::copy(replicas.path(file), copy.path(file)).unwrap();
    }
    copy
}

fn bytes_of(replicas: &Replicas) -> BTreeMap<String, Vec<u8>> {
    let files = replicas.files().into_iter();
    files
        .map(|name| (name.clone(), std::fs::read(replicas.path(&name)).unwrap()))
        .collect()
}

fn partial(served: &Served, replicas: &Replicas) -> Database {
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096));
    db.connect().unwrap()
}

#[test]
fn s1_after_a_kill_the_shell_is_refused_leaves_and_the_next_open_has_every_write() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let db = partial(&served, &replicas);
    let conn = db.connection().unwrap();
    conn.execute("insert into small values (10, 'checkpointed')", ())
        .unwrap();
    db.checkpoint().unwrap();
    conn.execute_batch(
        "insert into small values (11, 'mine'); create table made(x); insert into made values (5)",
    )
    .unwrap();
    let after = killed(&replicas, "a.db");
    let file = after.path("a.db");
    let before = bytes_of(&after);
    for sql in [
        "select * from small",
        "update small set v = 'theirs'",
        "pragma integrity_check",
        "pragma journal_mode = wal",
        "pragma wal_checkpoint(truncate)",
        "vacuum",
    ] {
        refused(&file, sql);
    }
    assert!(before == bytes_of(&after), "the shell left {:?}", after.files());

    let db = after.builder("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select id, v from small where id >= 10").unwrap(),
        ["Integer(10)|Text(\"checkpointed\")", "Integer(11)|Text(\"mine\")"]
    );
    assert_eq!(rows(&conn, "select x from made").unwrap(), ["Integer(5)"]);
}

#[test]
fn s1_with_overflow_pages_absent_the_shell_is_refused() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let db = partial(&served, &replicas);
    let conn = db.connection().unwrap();
    rows(&conn, "select id from t where id = 7").unwrap();
    rows(&conn, "select * from small").unwrap();
    drop(conn);
    db.checkpoint().unwrap();
    db.close().unwrap();
    refused(&replicas.path("a.db"), "select * from t where id = 7");
    refused(&replicas.path("a.db"), "update small set v = 'theirs'");
}

#[test]
fn s1_every_way_to_begin_a_replica_makes_a_file_that_others_refuse() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let query = PartialSync {
        bootstrap: Some(Bootstrap::query("select v from small where id = 2")),
        ..PartialSync::default()
    };
    for (name, partial) in [
        ("prefix.db", prefix(8192, 4096)),
        ("query.db", query),
        ("page.db", PartialSync::default()),
    ] {
        let db = replicas
            .builder(name)
            .remote(served.url())
            .partial(partial)
            .connect()
            .unwrap();
        db.close().unwrap();
        refused(&replicas.path(name), "select * from small");
    }
    let db = replicas
        .builder("empty.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .bootstrap_if_empty(false)
        .connect()
        .unwrap();
    assert_eq!(versions(&killed(&replicas, "empty.db").path("empty.db")), [3, 3]);
    db.connection()
        .unwrap()
        .execute_batch("create table own(x); insert into own values (1)")
        .unwrap();
    refused(
        &killed(&replicas, "empty.db").path("empty.db"),
        "select * from own",
    );
    db.push().unwrap();
    db.pull().unwrap();
    db.close().unwrap();
    refused(&replicas.path("empty.db"), "select * from own");
}

fn whole(served: &Served, replicas: &Replicas) -> Database {
    replicas.builder("a.db").remote(served.url()).connect().unwrap()
}

#[test]
fn s1_a_whole_and_checkpointed_replica_is_an_ordinary_file_until_the_next_write() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let file = replicas.path("a.db");
    let db = whole(&served, &replicas);
    let conn = db.connection().unwrap();
    conn.execute("insert into small values (10, 'mine')", ()).unwrap();
    refused(&killed(&replicas, "a.db").path("a.db"), "select * from small");
    db.checkpoint().unwrap();
    let after = killed(&replicas, "a.db");
    assert_eq!(shell(&after.path("a.db"), "pragma integrity_check").0, "ok");
    assert_eq!(
        shell(&after.path("a.db"), "select v from small where id = 10").0,
        "mine"
    );
    assert!(contents(&conn) == stock_contents(&stock(&after.path("a.db"))));

    conn.execute("insert into small values (11, 'later')", ())
        .unwrap();
    let after = killed(&replicas, "a.db");
    refused(&after.path("a.db"), "select * from small");
    let db_after = after.builder("a.db").connect().unwrap();
    let count = rows(&db_after.connection().unwrap(), "select count(*) from small").unwrap();
    assert_eq!(count, ["Integer(5)"]);
    db_after.close().unwrap();
    assert_eq!(shell(&after.path("a.db"), "select count(*) from small").0, "5");

    let here = contents(&conn);
    drop(conn);
    db.close().unwrap();
    assert_eq!(shell(&file, "pragma integrity_check").0, "ok");
    assert!(here == stock_contents(&stock(&file)));
    // Looking changes nothing, neither there nor here.
    let before = bytes_of(&replicas);
    let db = whole(&served, &replicas);
    assert!(here == contents(&db.connection().unwrap()));
    db.close().unwrap();
    assert!(before == bytes_of(&replicas));
    let db = whole(&served, &replicas);
    db.push().unwrap();
    db.pull().unwrap();
    db.close().unwrap();
    assert_eq!(shell(&file, "select count(*) from small").0, "5");
}

#[test]
fn s1_a_partial_replica_that_is_hydrated_becomes_ordinary_and_a_pull_hides_it_again() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let file = replicas.path("a.db");
    let db = partial(&served, &replicas);
    db.hydrate(|_| {}).unwrap();
    db.checkpoint().unwrap();
    assert_eq!(versions(&file), [1, 1]);
    served.execute("delete from t where id % 2 = 0; vacuum; insert into small values (20, 'theirs')");
    db.pull().unwrap();
    assert_eq!(versions(&file), [3, 3]);
    db.hydrate(|_| {}).unwrap();
    let here = contents(&db.connection().unwrap());
    db.close().unwrap();
    assert_eq!(shell(&file, "pragma integrity_check").0, "ok");
    assert!(here == stock_contents(&stock(&file)));
}

#[test]
fn s1_what_another_program_did_to_a_whole_replica_is_noticed_at_the_next_open() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let db = whole(&served, &replicas);
    let conn = db.connection().unwrap();
    conn.execute("insert into small values (10, 'mine')", ()).unwrap();
    drop(conn);
    db.close().unwrap();
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("an update", |file| {
            assert!(shell(file, "update small set v = 'theirs' where id = 1").1)
        }),
        ("WAL mode", |file| {
            assert!(
                shell(
                    file,
                    "pragma journal_mode = wal; insert into small values (30, 'x')"
                )
                .1
            )
        }),
        ("a vacuum", |file| assert!(shell(file, "delete from t; vacuum").1)),
        ("a journal", |file| {
            std::fs::write(file.with_file_name("a.db-journal"), [1; 600]).unwrap()
        }),
        ("a WAL", |file| {
            std::fs::write(file.with_file_name("a.db-wal"), [1; 600]).unwrap()
        }),
        ("a removal", |file| std::fs::remove_file(file).unwrap()),
    ];
    for (what, change) in changes {
        let copy = killed(&replicas, "a.db");
        copy.builder("a.db").connect().unwrap().close().unwrap();
        change(&copy.path("a.db"));
        for builder in [copy.builder("a.db"), copy.builder("a.db").remote(served.url())] {
            let error = builder.connect().unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::ChangedElsewhere {
                        unpushed: Some(1),
                        ..
                    }
                ),
                "{what}: {error:?}"
            );
            let text = error.to_string();
            assert!(
                text.contains("another program") && text.contains("1 local change"),
                "{what}: {text}"
            );
        }
        // Nothing was removed: it says where the writes are.
        assert!(copy.files().contains(&"a.db-info".to_owned()));
    }
}

/// Takes a replica back to how version 0.1.0 left it.
fn as_of_0_1(storage: &dyn Storage, path: &Path) {
    let file = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    storage.rename(&file("-replica-wal"), &file("-wal")).unwrap();
    let main = storage.open(path, false).unwrap();
    main.write_at(&[2, 2], 18).unwrap();
    main.sync().unwrap();
    let info = storage.open(&file("-info"), false).unwrap();
    let mut bytes = vec![0; info.len().unwrap() as usize];
    info.read_at(&mut bytes, 0).unwrap();
    let text = String::from_utf8(bytes)
        .unwrap()
        .replace("\"format\": 2", "\"format\": 1");
    info.write_at(text.as_bytes(), 0).unwrap();
    info.sync().unwrap();
    storage.sync_folder(path).unwrap();
}

#[test]
fn s1_a_replica_of_0_1_0_is_converted_whatever_operation_it_is_killed_at() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    let path = replicas.path("a.db");
    let storage = CrashStorage::new(&path);
    let on = |storage: &CrashStorage, path: &Path| {
        Database::builder(path)
            .storage(Arc::new(storage.clone()))
            .timeout(Duration::from_secs(5))
    };
    let db = on(&storage, &path)
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "pragma synchronous = full; insert into small values (10, 'mine'); create table made(x)",
    )
    .unwrap();
    let left = storage.after_crash(Survives::Written, &path);
    drop((conn, db));
    as_of_0_1(&left, &path);
    let mut kills = 0;
    loop {
        let mut all_done = true;
        for survives in [
            Survives::Written,
            Survives::Synced,
            Survives::SyncedAndSome(kills),
        ] {
            let path = replicas.path(&format!("{kills}.db"));
            let storage = left.after_crash(Survives::Written, &path);
            storage.trouble(Some(Trouble::Stop(storage.operations() + 1 + kills)));
            all_done &= on(&storage, &path).connect().is_ok();
            let again = replicas.path(&format!("{kills}-again.db"));
            let storage = storage.after_crash(survives, &again);
            let is_hidden = storage.file("").unwrap()[18..20] == [3, 3];
            assert!(
                !is_hidden || storage.file("-wal").is_none(),
                "{kills} {survives:?}: a WAL where others find it"
            );
            let db = on(&storage, &again).connect().unwrap();
            let conn = db.connection().unwrap();
            let found = rows(&conn, "select v from small where id = 10").unwrap();
            assert_eq!(found, ["Text(\"mine\")"], "{kills} {survives:?}");
            assert!(rows(&conn, "select * from made").unwrap().is_empty());
            assert_eq!(storage.file("").unwrap()[18..20], [3, 3]);
            drop(conn);
            db.close().unwrap();
        }
        if all_done {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 5, "{kills} operations");
}

#[test]
fn s1_between_ordinary_and_hidden_any_kill_leaves_what_was_committed_and_nothing_for_others_to_lose() {
    let served = Served::new(LONG);
    let replicas = Replicas::new();
    for kill in 1.. {
        let path = replicas.path(&format!("{kill}.db"));
        let storage = CrashStorage::new(&path);
        let db = Database::builder(&path)
            .storage(Arc::new(storage.clone()))
            .remote(served.url())
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch("pragma synchronous = full").unwrap();
        storage.trouble(Some(Trouble::Stop(storage.operations() + kill)));
        let mut committed = 0;
        let result = (|| {
            for n in 0..3 {
                conn.execute("insert into small values (?, 'mine')", [100 + n])?;
                committed = n + 1;
                db.checkpoint()?;
            }
            Ok::<_, Error>(())
        })();
        storage.stop_now();
        for survives in [Survives::Written, Survives::Synced, Survives::SyncedAndSome(kill)] {
            let again = replicas.path(&format!("{kill}-again.db"));
            let storage = storage.after_crash(survives, &again);
            let main = storage.file("").unwrap();
            let wal = storage.file("-replica-wal").unwrap_or_default();
            assert!(
                main[18..20] == [3, 3] || (main[18..20] == [1, 1] && wal.iter().all(|&b| b == 0)),
                "{kill} {survives:?}: {:?} with {} bytes of WAL",
                &main[18..20],
                wal.len()
            );
            let db = Database::builder(&again)
                .storage(Arc::new(storage))
                .connect()
                .unwrap();
            let sql = "select count(*) from small where id >= 100";
            let found: i64 = db
                .connection()
                .unwrap()
                .query_row(sql, (), |row| row.get(0))
                .unwrap();
            assert!(found >= committed, "{kill} {survives:?}: {found} of {committed}");
        }
        drop((conn, db));
        if result.is_ok() {
            assert!(kill > 10);
            break;
        }
    }
}

#[test]
fn h1_killed_between_the_cut_of_the_file_and_the_save_of_its_page_map_it_opens_with_every_change() {
    let served = Served::new(
        "pragma auto_vacuum = full; create table t(id integer primary key, v text);
         insert into t values (1, 'one'), (2, 'two'); create table big(id integer primary key, v text);
         with recursive c(x) as (select 1 union all select x + 1 from c where x < 400)
         insert into big select x, hex(zeroblob(500)) from c;",
    );
    let replicas = Replicas::new();
    let life = |name: &str, stop: Option<u64>| {
        let path = replicas.path(name);
        let storage = CrashStorage::new(&path);
        storage.trouble(stop.map(Trouble::Stop));
        let ran = (|| {
            let db = Database::builder(&path)
                .storage(Arc::new(storage.clone()))
                .remote(served.url())
                .connect()?;
            let conn = db.connection()?;
            conn.execute_batch(
                "pragma synchronous = full; drop table big; insert into t values (1000, 'mine')",
            )?;
            db.checkpoint()
        })();
        storage.stop_now();
        (storage, ran)
    };
    let trace = life("whole.db", None).0.trace();
    let cut = trace
        .iter()
        .rposition(|operation| operation.starts_with("set_len  "))
        .expect("it was cut");
    // A save syncs twice.
    let syncs = |(_, operation): &(usize, &String)| *operation == "sync -pages";
    let (saved, _) = trace.iter().enumerate().skip(cut).filter(syncs).nth(1).unwrap();
    for stop in cut + 1..=saved + 1 {
        let (storage, ran) = life(&format!("{stop}.db"), Some(stop as u64));
        assert!(ran.is_err());
        for survives in [
            Survives::Written,
            Survives::Synced,
            Survives::SyncedAndSome(stop as u64),
        ] {
            let again = replicas.path(&format!("{stop}-again.db"));
            let storage = storage.after_crash(survives, &again);
            let db = Database::builder(&again)
                .storage(Arc::new(storage))
                .remote(served.url())
                .connect()
                .unwrap_or_else(|e| panic!("stopped at {stop} ({}), {survives:?}: {e}", trace[stop - 1]));
            let conn = db.connection().unwrap();
            let here = rows(&conn, "select count(*), max(id) from t").unwrap();
            assert_eq!(here, ["Integer(3)|Integer(1000)"], "{stop} {survives:?}");
            assert_eq!(db.stats().unwrap().cdc_operations, 2);
            assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
        }
    }
}
