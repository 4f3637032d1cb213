//! Replicas that are made without the remote (`bootstrap_if_empty(false)`, or while the url function gives no url): what is
//! written before the first pull, and what the first pull and the first push make of it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::support::*;
use partial_sync::{Bootstrap, Builder, Database, Error, PartialSync, Result};
use partial_sync_transport::{RemoteErrorKind, UrlSource, memory::MemoryRemote};
use partial_sync_vfs::crash::{CrashStorage, Survives, Trouble};

/// More than a hundred pages, with a table that local writes meet.
const REMOTE: &str = "create table t(id integer primary key, v text);
    create table big(id integer primary key, v text);
    create index bv on big(v);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 2000)
    insert into big select x, 'row ' || x || hex(zeroblob(90)) from c;
    insert into t values (1, 'one'), (2, 'two');";

const LOCAL: &str = "create table if not exists t(id integer primary key, v text);
    create table notes(id integer primary key, note text);
    create index ni on notes(note);
    insert into t values (10, 'here');
    insert into notes values (1, 'first'), (2, 'second');
    update notes set note = 'changed' where id = 2;";

fn later(builder: Builder) -> Builder {
    builder.bootstrap_if_empty(false)
}

fn one(db: &Database, sql: &str) -> String {
    rows(&db.connection().unwrap(), sql).unwrap().join(", ")
}

/// Everything is equal on both sides, and the file is sound.
fn assert_equal(db: &Database, served: &Served) {
    let conn = db.connection().unwrap();
    assert_same(
        &contents(&conn),
        &stock_contents(&served.sqlite()),
        "replica and remote",
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

#[test]
fn a_connect_without_bootstrap_asks_for_nothing_and_local_writes_work() {
    let served = Served::new(REMOTE);
    let remote = served.counting();
    let replicas = Replicas::new();
    let open = || {
        later(replicas.builder("a.db").remote_with(remote.clone()))
            .connect()
            .unwrap()
    };
    let db = open();
    let conn = db.connection().unwrap();
    assert_eq!(contents(&conn), [] as [&str; 0]);
    conn.execute_batch(LOCAL).unwrap();
    db.checkpoint().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.revision, stats.last_pull_unix_time), (None, None));
    assert_eq!(stats.cdc_operations, 7);
    assert_eq!(db.page_map().unwrap().revision, "none yet");
    drop((conn, db));
    let db = open();
    assert_eq!(
        one(&db, "select note from notes where id = 2"),
        "Text(\"changed\")"
    );
    for error in [
        db.hydrate(|_| {}).unwrap_err(),
        db.hydrate_query("select * from t", |_| {}).unwrap_err(),
        db.verify(|_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotPulledYet { .. }), "{error}");
        assert!(error.to_string().ends_with("pull first"), "{error}");
    }
    assert_eq!(remote.requests(), 0);
    // Nor does it need a remote that can be reached.
    let nowhere = later(replicas.builder("b.db").remote("http://127.0.0.1:1"))
        .connect()
        .unwrap();
    nowhere.connection().unwrap().execute_batch(LOCAL).unwrap();
    let error = nowhere.pull().unwrap_err();
    assert_eq!(
        error.remote().unwrap().kind,
        RemoteErrorKind::Unreachable,
        "{error}"
    );
    assert_eq!(one(&nowhere, "select count(*) from notes"), "Integer(2)");
}

#[test]
fn the_first_pull_brings_the_remotes_rows_and_keeps_those_written_before() {
    let served = Served::new(REMOTE);
    for (name, open_before) in [("a.db", true), ("b.db", false)] {
        let remote = served.counting();
        let replicas = Replicas::new();
        let db = later(replicas.builder(name).remote_with(remote.clone()))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch(LOCAL).unwrap();
        let kept_open = open_before.then(|| conn.clone());
        drop(conn);
        assert!(db.pull().unwrap());
        assert_eq!(remote.requests(), 1, "{:?}", remote.ids_asked());
        assert_eq!(
            one(&db, "select id, v from t order by id")
                .matches("Integer")
                .count(),
            3
        );
        assert_eq!(one(&db, "select count(*) from big"), "Integer(2000)");
        assert_eq!(
            one(&db, "select note from notes order by id"),
            "Text(\"first\"), Text(\"changed\")"
        );
        if let Some(conn) = kept_open {
            assert_eq!(
                rows(&conn, "select v from t where id = 2").unwrap(),
                ["Text(\"two\")"]
            );
            conn.execute("insert into t values (11, 'after')", ()).unwrap();
        }
        assert_eq!(remote.requests(), 1, "everything is here");
        assert!(!db.pull().unwrap());
        db.push().unwrap();
        db.pull().unwrap();
        assert_equal(&db, &served);
        assert!(db.verify(|_| {}).unwrap().is_equal());
        assert!(db.stats().unwrap().last_pull_unix_time.is_some());
        served.execute("drop table notes; delete from t where id >= 10");
    }
}

#[test]
fn a_push_before_any_pull_sends_everything_once_to_an_empty_remote_and_to_one_that_is_not() {
    for script in ["", REMOTE] {
        let served = Served::new(script);
        let replicas = Replicas::new();
        let db = later(replicas.builder("a.db").remote(served.url()))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch(LOCAL).unwrap();
        db.push().unwrap();
        assert_eq!(db.stats().unwrap().cdc_operations, 0);
        db.push().unwrap();
        conn.execute("insert into notes values (3, 'between')", ())
            .unwrap();
        assert!(db.pull().unwrap());
        assert_eq!(rows(&conn, "select count(*) from notes").unwrap(), ["Integer(3)"]);
        conn.execute("insert into notes values (4, 'after')", ()).unwrap();
        db.push().unwrap();
        db.pull().unwrap();
        assert_equal(&db, &served);
        let there = stock_rows(&served.sqlite(), "select count(*), count(distinct id) from notes").unwrap();
        assert_eq!(there, ["Integer(4)|Integer(4)"]);
        drop((conn, db));
        let db = later(replicas.builder("a.db").remote(served.url()))
            .connect()
            .unwrap();
        assert!(!db.pull().unwrap());
        assert_equal(&db, &served);
    }
}

#[test]
fn a_pull_of_a_remote_that_is_still_empty_changes_nothing_and_a_later_one_brings_it() {
    let remote = MemoryRemote::new();
    remote.push_revision(vec![]);
    let replicas = Replicas::new();
    let db = later(replicas.builder("a.db").remote_with(Arc::new(remote.clone())))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(LOCAL).unwrap();
    assert!(!db.pull().unwrap());
    assert_eq!(db.stats().unwrap().cdc_operations, 7);
    let origin = stock(&replicas.path("origin.db"));
    origin.execute_batch(REMOTE).unwrap();
    let mut select = origin
        .prepare("select data from sqlite_dbpage order by pgno")
        .unwrap();
    let pages = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    remote.push_revision(pages.map(|data| data.unwrap().into()).collect());
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(
            &conn,
            "select (select count(*) from big), (select count(*) from t), (select count(*) from notes)"
        )
        .unwrap(),
        ["Integer(2000)|Integer(3)|Integer(2)"]
    );
    assert!(!db.pull().unwrap());
}

#[test]
fn a_table_that_is_defined_otherwise_there_is_a_conflict_and_nothing_is_lost() {
    let served =
        Served::new("create table t(id integer primary key, other text); insert into t values (1, 'theirs')");
    let replicas = Replicas::new();
    let db = later(replicas.builder("a.db").remote(served.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("create table t(id integer primary key, mine text); insert into t values (5, 'mine')")
        .unwrap();
    let error = db.pull().unwrap_err();
    let Error::PullConflict { change, .. } = &error else {
        panic!("{error}")
    };
    assert!(error.to_string().contains("no column named mine"), "{error}");
    assert!(
        error.to_string().contains("row of table \"t\" with id = 5"),
        "{error}"
    );
    let refused = db.push().unwrap_err();
    assert!(matches!(refused, Error::PushRefused(_)), "{refused}");
    assert_eq!(
        rows(&conn, "select id, mine from t").unwrap(),
        ["Integer(5)|Text(\"mine\")"]
    );
    assert_eq!(db.stats().unwrap().cdc_operations, 2);
    // The way out that the error names.
    assert!(db.discard_change(*change).unwrap());
    assert!(db.pull().unwrap());
    assert_eq!(
        rows(&conn, "select * from t").unwrap(),
        ["Integer(1)|Text(\"theirs\")"]
    );
    db.push().unwrap();
    assert_equal(&db, &served);
}

#[test]
fn the_first_pull_fetches_what_the_first_connect_would_have() {
    let served = Served::new(REMOTE);
    let partial = |bootstrap| PartialSync {
        bootstrap,
        segment_size: Some(4096),
        ..PartialSync::default()
    };
    let cases = [
        (
            "prefix.db",
            Some(partial(Some(Bootstrap::prefix(8 * 4096)))),
            8..=9,
        ),
        (
            "query.db",
            Some(partial(Some(Bootstrap::query(
                "select * from big where id = 700",
            )))),
            3..=5,
        ),
        ("none.db", Some(partial(None)), 1..=2),
        ("all.db", None, 200..=u32::MAX),
    ];
    for (name, partial, expected) in cases {
        let remote = served.counting();
        let replicas = Replicas::new();
        let builder = later(replicas.builder(name).remote_with(remote.clone()));
        let db = match partial {
            Some(partial) => builder.partial(partial),
            None => builder.pull_bytes_threshold(64 << 10),
        };
        let db = db.connect().unwrap();
        assert!(db.pull().unwrap());
        let stats = db.stats().unwrap();
        let all = served
            .sqlite()
            .query_row("pragma page_count", (), |r| r.get::<_, u32>(0))
            .unwrap();
        assert_eq!(stats.pages_total, all);
        assert!(
            expected.contains(&stats.pages_present),
            "{name}: {} pages",
            stats.pages_present
        );
        if name == "query.db" {
            remote.clear();
            assert_eq!(one(&db, "select id from big where id = 700"), "Integer(700)");
            assert_eq!(remote.requests(), 0, "{:?}", remote.ids_asked());
        }
        assert_eq!(
            one(&db, "select count(*) from big where v like 'row 19%'"),
            "Integer(111)"
        );
        db.connection()
            .unwrap()
            .execute("insert into t values (77, 'on top')", ())
            .unwrap();
        db.push().unwrap();
        db.pull().unwrap();
        assert_equal(&db, &served);
        served.execute("delete from t where id = 77");
    }
}

#[test]
fn a_bootstrap_query_that_the_remote_refuses_fails_the_pull_and_another_one_works_after_opening_again() {
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    let with = |query: &str| {
        let partial = PartialSync {
            bootstrap: Some(Bootstrap::query(query)),
            ..PartialSync::default()
        };
        later(replicas.builder("a.db").remote(served.url()))
            .partial(partial)
            .connect()
            .unwrap()
    };
    let db = with("select * from nowhere");
    db.connection().unwrap().execute_batch(LOCAL).unwrap();
    let error = db.pull().unwrap_err();
    assert!(matches!(error, Error::BootstrapQuery { .. }), "{error}");
    assert_eq!(one(&db, "select count(*) from notes"), "Integer(2)");
    drop(db);
    let db = with("select * from t");
    assert!(db.pull().unwrap());
    db.push().unwrap();
    db.pull().unwrap();
    assert_equal(&db, &served);
}

/// A url function and what it answers.
fn switch() -> (Arc<Mutex<Option<String>>>, UrlSource) {
    let url = Arc::<Mutex<Option<String>>>::default();
    let answer = url.clone();
    (url, UrlSource::function(move || answer.lock().unwrap().clone()))
}

#[test]
fn while_sync_is_paused_a_first_connect_works_and_sync_begins_when_there_is_a_url() {
    let served = Served::new(REMOTE);
    let other = Served::new(REMOTE);
    let replicas = Replicas::new();
    let (url, function) = switch();
    let open = || replicas.builder("a.db").remote(function.clone()).connect();
    let db = open().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(LOCAL).unwrap();
    let paused = |result: Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.remote().unwrap().kind, RemoteErrorKind::Paused, "{error}");
        assert!(error.to_string().contains("sync is paused"), "{error}");
    };
    paused(db.pull().map(drop));
    paused(db.push());
    drop((conn, db));
    let db = open().unwrap();
    assert_eq!(
        Database::remote_of(replicas.path("a.db")).unwrap().as_deref(),
        Some("")
    );
    // A url that does not answer is not taken for the replica's.
    *url.lock().unwrap() = Some("http://127.0.0.1:1".to_owned());
    assert_eq!(
        db.pull().unwrap_err().remote().unwrap().kind,
        RemoteErrorKind::Unreachable
    );
    *url.lock().unwrap() = Some(served.url());
    assert!(db.pull().unwrap());
    assert_eq!(one(&db, "select count(*) from big"), "Integer(2000)");
    db.push().unwrap();
    db.pull().unwrap();
    assert_equal(&db, &served);
    // From now on it belongs to that remote.
    *url.lock().unwrap() = Some(other.url());
    for error in [db.pull().unwrap_err(), open_again(db, open).unwrap_err()] {
        assert!(matches!(error, Error::OtherRemote { .. }), "{error}");
    }
    // And opens while sync is paused, with what is here.
    *url.lock().unwrap() = None;
    let db = open().unwrap();
    assert_eq!(one(&db, "select count(*) from big"), "Integer(2000)");
    paused(db.pull().map(drop));
    assert_eq!(
        stock_contents(&other.sqlite()).len() + 6,
        stock_contents(&served.sqlite()).len()
    );
}

fn open_again(db: Database, open: impl Fn() -> Result<Database>) -> Result<Database> {
    drop(db);
    open()
}

#[test]
fn a_push_adopts_the_url_too() {
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    let (url, function) = switch();
    let db = replicas.builder("a.db").remote(function).connect().unwrap();
    db.connection().unwrap().execute_batch(LOCAL).unwrap();
    *url.lock().unwrap() = Some(served.url());
    db.push().unwrap();
    assert_eq!(
        Database::remote_of(replicas.path("a.db")).unwrap(),
        Some(served.url())
    );
    db.pull().unwrap();
    assert_equal(&db, &served);
}

#[test]
fn a_remote_that_cannot_be_reached_at_the_first_connect_is_an_error_unless_sync_is_paused() {
    let replicas = Replicas::new();
    for remote in [
        UrlSource::from("http://127.0.0.1:1"),
        UrlSource::function(|| Some("http://127.0.0.1:1".into())),
    ] {
        let error = replicas.builder("a.db").remote(remote).connect().unwrap_err();
        assert_eq!(
            error.remote().unwrap().kind,
            RemoteErrorKind::Unreachable,
            "{error}"
        );
        assert!(replicas.files().is_empty(), "{:?}", replicas.files());
    }
}

#[test]
fn a_pause_in_the_middle_of_a_first_connect_leaves_a_replica_that_the_first_pull_fills() {
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    let (asked, answer) = (Arc::new(Mutex::new(0)), served.url());
    let paused = Arc::new(Mutex::new(true));
    let (count, pause) = (asked.clone(), paused.clone());
    let function = UrlSource::function(move || {
        *count.lock().unwrap() += 1;
        (*count.lock().unwrap() < 3 || !*pause.lock().unwrap()).then(|| answer.clone())
    });
    let db = replicas
        .builder("a.db")
        .remote(function)
        .pull_bytes_threshold(16 << 10)
        .connect()
        .unwrap();
    assert_eq!(one(&db, "select count(*) from sqlite_schema"), "Integer(0)");
    *paused.lock().unwrap() = false;
    assert!(db.pull().unwrap());
    assert_equal(&db, &served);
}

#[test]
fn a_replica_that_is_here_is_opened_as_always() {
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    drop(replicas.builder("a.db").remote(served.url()).connect().unwrap());
    let db = later(replicas.builder("a.db").remote(served.url()))
        .connect()
        .unwrap();
    assert_eq!(one(&db, "select count(*) from big"), "Integer(2000)");
    assert!(db.stats().unwrap().revision.is_some());
}

#[test]
fn a_replica_in_memory_can_begin_without_the_remote() {
    let served = Served::new(REMOTE);
    let db = later(Database::builder(":memory:").remote(served.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(LOCAL).unwrap();
    db.pull().unwrap();
    db.push().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

#[test]
fn a_replica_made_while_paused_opens_without_a_url() {
    let replicas = Replicas::new();
    let (_, function) = switch();
    let db = replicas.builder("a.db").remote(function).connect().unwrap();
    db.connection().unwrap().execute_batch(LOCAL).unwrap();
    drop(db);
    let db = replicas.builder("a.db").connect().unwrap();
    assert!(db.is_replica());
    assert_eq!(one(&db, "select count(*) from notes"), "Integer(2)");
    let error = db.pull().unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("this replica was opened without its url"),
        "{error}"
    );
}

#[test]
fn writers_that_go_on_during_the_first_pull_lose_nothing() {
    let served = Served::new(REMOTE);
    let replicas = Replicas::new();
    let db = later(replicas.builder("a.db").remote(served.url()))
        .connect()
        .unwrap();
    db.connection().unwrap().execute_batch(LOCAL).unwrap();
    let (written, stop) = (Mutex::new(vec![]), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (db, written, stop) = (&db, &written, &stop);
            scope.spawn(move || {
                let conn = db.connection().unwrap();
                for n in (1_000_000 * (thread + 1)).. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    conn.execute("insert into notes values (?, 'thread')", (n,))
                        .unwrap();
                    written.lock().unwrap().push(n);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
        }
        until("some rows are written", || written.lock().unwrap().len() > 20);
        db.pull().unwrap();
        let so_far = written.lock().unwrap().len();
        until("more rows are written", || {
            written.lock().unwrap().len() > so_far + 20
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let expected = written.into_inner().unwrap().len() + 2;
    assert_eq!(
        one(&db, "select count(*) from notes"),
        format!("Integer({expected})")
    );
    assert_eq!(one(&db, "select count(*) from big"), "Integer(2000)");
    db.push().unwrap();
    db.pull().unwrap();
    assert_equal(&db, &served);
}

#[test]
fn a_remote_with_other_pages_or_text_than_the_replica_began_with_is_refused_with_the_way_out() {
    for (pragma, theirs) in [
        ("page_size = 8192", "pages of 8192 bytes"),
        ("encoding = 'UTF-16'", "text in UTF-16"),
    ] {
        let served = Served::new(&format!("pragma {pragma}; {REMOTE}"));
        let replicas = Replicas::new();
        let db = later(replicas.builder("a.db").remote(served.url()))
            .connect()
            .unwrap();
        db.connection().unwrap().execute_batch(LOCAL).unwrap();
        let error = db.pull().unwrap_err();
        assert!(error.to_string().contains(theirs), "{error}");
        assert!(
            error.to_string().contains("push what was changed locally"),
            "{error}"
        );
        assert_eq!(one(&db, "select count(*) from notes"), "Integer(2)");
        db.push().unwrap();
        drop(db);
        let db = replicas.builder("b.db").remote(served.url()).connect().unwrap();
        assert_eq!(one(&db, "select count(*) from notes"), "Integer(2)");
        assert_equal(&db, &served);
    }
}

#[test]
fn a_remote_with_auto_vacuum_can_be_pulled_into_a_replica_that_began_without_it() {
    let served = Served::new(&format!("pragma auto_vacuum = full; {REMOTE}"));
    let replicas = Replicas::new();
    let db = later(replicas.builder("a.db").remote(served.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(LOCAL).unwrap();
    db.pull().unwrap();
    conn.execute_batch("delete from big where id > 50; insert into notes select id + 10, v from big")
        .unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    assert_equal(&db, &served);
}

/// What is on the remote when a replica begins without it. Every row that lands in `t` is noted. The schema takes several
/// pages, which must be readable at every moment.
const NOTED: &str = "create table t(id integer primary key, v text);
    create table audit(seq integer primary key, what text);
    create trigger ti after insert on t begin insert into audit(what) values ('insert ' || new.id); end;
    create table big(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 12)
    insert into big select x, 'row ' || x || hex(zeroblob(400)) from c;
    insert into t values (1, 'one');";

fn noted() -> Served {
    let wide = |n| {
        format!(
            "create table wide_{n}(a integer primary key, b_{});",
            "x".repeat(700)
        )
    };
    Served::new(&(0..12).map(wide).chain([NOTED.to_owned()]).collect::<String>())
}

/// The life of a replica that begins without the remote, on a disk that may stop.
struct Life<'a> {
    served: &'a Served,
    path: PathBuf,
    storage: CrashStorage,
    everything: bool,
    push_first: bool,
    /// Ids of local transactions whose commit returned.
    committed: Vec<i64>,
}

impl Life<'_> {
    fn open(&self) -> Result<Database> {
        let builder = later(Database::builder(&self.path))
            .storage(Arc::new(self.storage.clone()))
            .remote(self.served.url());
        match self.everything {
            true => builder.connect(),
            false => builder.partial(prefix(2 * 4096, 4096)).connect(),
        }
    }

    fn run(&mut self) -> Result<()> {
        let db = self.open()?;
        let conn = db.connection()?;
        conn.execute_batch("pragma synchronous = full")?;
        let mut write = |id: i64| {
            let result = conn.execute_batch(&format!(
                "begin immediate; create table if not exists t(id integer primary key, v text);
                 create table if not exists pair(id integer primary key, v text); insert into t values ({id}, 'here');
                 insert into pair values ({id}, hex(zeroblob(300))); commit"
            ));
            if result.is_ok() {
                self.committed.push(id);
            }
            result
        };
        write(1000)?;
        db.checkpoint()?;
        write(1001)?;
        if self.push_first {
            db.push()?;
            write(1002)?;
        }
        db.pull()?;
        write(1003)?;
        db.checkpoint()?;
        db.push()?;
        db.pull()?;
        write(1004)
    }

    /// Opens what survived: everything that was committed is here, and lands on the remote once.
    fn check(&self, case: &str) {
        let db = self
            .open()
            .unwrap_or_else(|e| panic!("{case}: the replica does not open: {e}"));
        let conn = db.connection().unwrap();
        let is_here = |when: &str| {
            for id in &self.committed {
                let sql = format!(
                    "select (select count(*) from t where id = {id}), (select count(*) from pair where id = {id})"
                );
                let there = rows(&conn, &sql).unwrap_or_else(|e| panic!("{case}: {when}: {e}"));
                assert_eq!(there, ["Integer(1)|Integer(1)"], "{case}: {when}: {id}");
            }
            let ok = rows(&conn, "pragma integrity_check").unwrap();
            assert_eq!(ok, ["Text(\"ok\")"], "{case}: {when}");
        };
        is_here("opened");
        db.pull().unwrap_or_else(|e| panic!("{case}: pull: {e}"));
        is_here("after the pull");
        db.push().unwrap_or_else(|e| panic!("{case}: push: {e}"));
        db.pull().unwrap_or_else(|e| panic!("{case}: second pull: {e}"));
        is_here("after the push");
        let there = self.served.sqlite();
        assert_same(&contents(&conn), &stock_contents(&there), case);
        let twice = "select what from audit group by what having count(*) > 1";
        assert_eq!(stock_rows(&there, twice).unwrap(), [] as [&str; 0], "{case}");
    }
}

/// The world stops at every file operation of such a life.
fn every_crash(everything: bool, push_first: bool, survives: impl Fn(u64) -> Survives) {
    let replicas = Replicas::new();
    for n in 1.. {
        let served = noted();
        let path = replicas.path(&format!("life-{n}.db"));
        let storage = CrashStorage::new(&path);
        storage.trouble(Some(Trouble::Stop(n)));
        let mut life = Life {
            served: &served,
            path,
            storage: storage.clone(),
            everything,
            push_first,
            committed: vec![],
        };
        let outcome = life.run();
        if !storage.has_stopped() {
            outcome.unwrap();
            assert!(n > 60, "the life has only {n} operations");
            break;
        }
        let case = format!(
            "everything: {everything}, push first: {push_first}, crash at operation {n} ({}), {:?} survives",
            storage.tail(),
            survives(n)
        );
        life.path = replicas.path(&format!("again-{n}.db"));
        life.storage = storage.after_crash(survives(n), &life.path);
        life.check(&case);
    }
}

#[test]
fn invariants_1_2_7_hold_when_the_process_is_killed_at_any_file_operation_before_and_in_a_first_pull() {
    every_crash(true, false, |_| Survives::Written);
}

#[test]
fn invariants_1_2_7_hold_when_the_power_fails_at_any_file_operation_before_and_in_a_first_pull() {
    every_crash(false, false, |_| Survives::Synced);
}

#[test]
fn invariants_1_2_7_hold_when_the_power_fails_and_the_first_contact_was_a_push() {
    every_crash(true, true, Survives::SyncedAndSome);
}

#[test]
fn what_the_first_pull_brought_is_not_downloaded_again_by_the_second() {
    let served = Served::new(REMOTE);
    let remote = served.counting();
    let replicas = Replicas::new();
    let db = later(replicas.builder("a.db").remote_with(remote.clone()))
        .connect()
        .unwrap();
    db.pull().unwrap();
    served.execute("update big set v = 'changed' where id = 1000");
    remote.clear();
    assert!(db.pull().unwrap());
    let delivered = remote.ids_delivered().len();
    assert!(delivered < 10, "{delivered} pages for one row");
    assert_equal(&db, &served);
}
