//! A pull of a replica with pages here and there: the remote lists what changed, and the replica asks for what it has of that.
//! What is asked, in how many requests of how many bytes; and what may come between the list and its pages, or between them
//! and the commit.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use partial_sync::{Database, PartialSync};
use partial_sync_core::{
    PageCount, PageSize, Revision,
    chunk::{Bits, Chunk},
    saved_map,
};
use partial_sync_transport::{
    ApplyMode, Fault, Faulty, Features, HttpRemote, MemoryRemote, PageStream, PagesHeader, PagesRequest,
    Remote, RemoteError, RemoteErrorKind, TransferStats,
    hrana::{Batch, BatchResult},
};
use partial_sync_vfs::crash::{CrashStorage, Survives};

/// Does something before some requests for pages, which it remembers.
struct Between {
    inner: Arc<dyn Remote>,
    seen: Mutex<Vec<PagesRequest>>,
    before: Mutex<BTreeMap<usize, Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Between {
    fn around(inner: Arc<dyn Remote>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            seen: Mutex::default(),
            before: Mutex::default(),
        })
    }

    /// Before the nth request for pages from here on.
    fn before(&self, nth: usize, what: impl FnOnce() + Send + 'static) {
        let at = self.seen.lock().len() + nth;
        self.before.lock().insert(at, Box::new(what));
    }

    /// The requests for pages since the last time.
    fn requests(&self) -> Vec<PagesRequest> {
        assert!(self.before.lock().is_empty(), "it came to that");
        std::mem::take(&mut *self.seen.lock())
    }
}

impl Remote for Between {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        let nth = {
            let mut seen = self.seen.lock();
            seen.push(request.clone());
            seen.len()
        };
        let before = self.before.lock().remove(&nth);
        async move {
            if let Some(before) = before {
                // It may wait for other requests.
                tokio::task::spawn_blocking(before).await.unwrap();
            }
            self.inner.pages(request).await
        }
        .boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.inner.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn transferred(&self) -> TransferStats {
        self.inner.transferred()
    }
}

/// Which of the requests ask for a list, for pages of a revision, or for what changed of some pages.
fn kinds(requests: &[PagesRequest]) -> Vec<&'static str> {
    let kind = |request: &PagesRequest| match (&request.since, request.list) {
        (Some(_), true) => "list",
        (Some(_), false) => "changed",
        (None, false) => "pages",
        (None, true) => "list of pages",
    };
    requests.iter().map(kind).collect()
}

/// A database, and its commits as revisions in memory.
struct Origin {
    _folder: tempfile::TempDir,
    conn: rusqlite::Connection,
    memory: MemoryRemote,
    remote: Arc<Between>,
    replicas: Replicas,
}

const ROWS: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 600)
    insert into t select x, 'first ' || x || hex(zeroblob(500)) from c";

impl Origin {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conn = stock(&folder.path().join("origin.db"));
        let memory = MemoryRemote::new();
        let this = Self {
            _folder: folder,
            conn,
            remote: Between::around(Arc::new(memory.clone())),
            memory,
            replicas: Replicas::new(),
        };
        this.commit(ROWS);
        this
    }

    fn commit(&self, script: &str) -> Revision {
        self.conn.execute_batch(script).unwrap();
        self.memory.push_revision(self.pages())
    }

    fn pages(&self) -> Vec<Bytes> {
        let mut select = self
            .conn
            .prepare("select data from sqlite_dbpage order by pgno")
            .unwrap();
        let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        rows.map(|data| data.unwrap().into()).collect()
    }

    /// A replica that always asks for a list.
    fn open(&self) -> Database {
        let db = self
            .replicas
            .builder("a.db")
            .remote_with(self.remote.clone())
            .partial(prefix(4096, 4096))
            .longest_question(0)
            .connect()
            .unwrap();
        self.remote.requests();
        db
    }
}

fn v(db: &Database, id: u32) -> String {
    let conn = db.connection().unwrap();
    let sql = format!("select substr(v, 1, 12) from t where id = {id}");
    rows(&conn, &sql).unwrap().remove(0)
}

/// A replica of which half of the pages are here, every second one, of 12,000 pages of 512 bytes.
struct HereAndThere {
    served: Served,
    _replicas: Replicas,
    remote: Arc<HttpRemote>,
    between: Arc<Between>,
    db: Database,
}

impl HereAndThere {
    fn new(prefetch: bool) -> Self {
        let served = Served::new(
            "pragma page_size = 512; create table t(id integer primary key, v text);
             with recursive c(x) as (select 1 union all select x + 1 from c where x < 12000)
             insert into t select x, 'row ' || x || hex(zeroblob(180)) from c",
        );
        let replicas = Replicas::new();
        let remote: Arc<HttpRemote> = Arc::new(HttpRemote::builder(served.url()).build().unwrap());
        let between = Between::around(remote.clone());
        let open = || -> Database {
            let partial = PartialSync {
                prefetch: Some(prefetch),
                ..prefix(4096, 4096)
            };
            let builder = replicas.builder("a.db").remote_with(between.clone());
            builder.partial(partial).connect().unwrap()
        };
        let db = open();
        db.hydrate(|_| {}).unwrap();
        let pages = db.stats().unwrap().pages_total;
        assert!(pages > 12_000);
        drop(db);
        let chunk = |nth| Chunk {
            first: nth,
            count: 1,
            present: Bits::of([0x5555_5555_5555_5555; 64]),
            dirty: Bits::Empty,
        };
        let (map, _) = saved_map::whole(
            &[chunk(0), chunk(1)],
            PageSize::new(512).unwrap(),
            PageCount(pages),
        );
        std::fs::write(replicas.path("a.db-pages"), map).unwrap();
        let db = open();
        between.requests();
        assert_eq!(db.stats().unwrap().pages_present, 4096);
        Self {
            served,
            _replicas: replicas,
            remote,
            between,
            db,
        }
    }
}

#[test]
fn what_a_statement_says_of_pages_here_and_there_is_little() {
    let of = HereAndThere::new(true);
    let conn = of.db.connection().unwrap();
    rows(&conn, "select count(*) from sqlite_schema").unwrap();
    assert!(of.db.settle(Duration::from_secs(10)));
    of.between.requests();
    let sql = "select substr(v, 1, 8) from t where id in (11, 12, 3000, 3001, 9999)";
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&of.served.sqlite(), sql).unwrap()
    );
    let requests = of.between.requests();
    let statement = requests.iter().find(|request| request.query.is_some());
    let have = statement.and_then(|request| request.have.as_ref()).unwrap();
    println!("{} pages in {} bytes", have.len(), have.serialized_size());
    assert!(have.len() > 1000, "of those around it is said which are here");
    assert!(have.iter().all(|id| id < 8192 && id % 2 == 0 || id > 8191));
    assert!(have.serialized_size() < 16 << 10);
    assert_eq!(requests.len(), 1);
    // What a query is hydrated with is told first, and nothing of what is here.
    assert!(of.db.settle(Duration::from_secs(10)));
    of.between.requests();
    let sql = "select count(*), max(v) from t where id between 2000 and 2400";
    let before = of.db.stats().unwrap().pages_present;
    let mut told = 0;
    let hydrated = of
        .db
        .hydrate_query(sql, |progress| told = progress.fetched)
        .unwrap();
    assert!(hydrated.fetched > 100 && told == hydrated.fetched);
    let stats = of.db.stats().unwrap();
    assert_eq!(stats.pages_present, before + hydrated.fetched);
    let requests = of.between.requests();
    assert_eq!(kinds(&requests), ["list of pages", "pages"]);
    assert!(requests.iter().all(|request| request.have.is_none()));
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&of.served.sqlite(), sql).unwrap()
    );
    assert!(of.between.requests().is_empty());
    let nothing = of.db.hydrate_query(sql, |_| {}).unwrap();
    assert_eq!(nothing.fetched, 0);
    assert_eq!(kinds(&of.between.requests()), ["list of pages"]);
}

#[test]
fn a_pull_of_pages_here_and_there_is_two_requests_of_few_bytes() {
    let HereAndThere {
        served,
        _replicas,
        remote,
        between,
        db,
    } = HereAndThere::new(false);
    let here = db.stats().unwrap().pages_present;
    let pull = |sql: &str| {
        served.execute(sql);
        let before = remote.transferred();
        assert!(db.pull().unwrap());
        let after = remote.transferred();
        let sent = after.bytes_sent - before.bytes_sent;
        println!("{sql}: {sent} bytes sent");
        assert_eq!(after.requests - before.requests, 2);
        assert_eq!(kinds(&between.requests()), ["list", "pages"]);
        sent
    };
    assert!(pull("update t set v = 'theirs' where id = 1000") < 500);
    assert!(pull("update t set v = 'more' where id in (1, 2000, 4000, 11999)") < 500);
    assert!(pull("insert into t select id + 20000, v from t where id < 50") < 1000);
    let before = remote.transferred().requests;
    assert!(!db.pull().unwrap());
    assert_eq!(
        remote.transferred().requests,
        before + 1,
        "without news it is one request"
    );
    assert_eq!(kinds(&between.requests()), ["list"]);
    assert!(
        db.stats().unwrap().pages_present >= here - 100,
        "what did not change stays"
    );
    let sql = "select id, substr(v, 1, 9) from t where id in (1, 2, 999, 1000, 1001, 4000, 11999, 20001)";
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, sql).unwrap(),
        stock_rows(&served.sqlite(), sql).unwrap()
    );
    assert_same(&contents(&conn), &stock_contents(&served.sqlite()), "after pulls");
}

#[test]
fn a_remote_that_does_not_list_is_asked_what_changed_of_the_pages_here() {
    let origin = Origin::new();
    let db = origin.open();
    v(&db, 300);
    origin.remote.requests();
    let without = Features {
        list: false,
        ..Features::ALL
    };
    let second = |n: u32| format!("update t set v = 'second {n}' || substr(v, 12) where id in (300, 400)");
    // It has become another one since it said that it lists.
    origin.memory.set_features(without);
    assert!(!db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["list"]);
    origin.commit(&second(1));
    assert!(db.pull().unwrap());
    assert_eq!(
        kinds(&origin.remote.requests()),
        ["changed"],
        "it has said that it does not"
    );
    origin.memory.set_features(Features::ALL);
    origin.commit(&second(2));
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["changed"]);
    origin.memory.set_features(without);
    origin.commit(&second(3));
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["list", "changed"]);
    // What it can is remembered.
    origin.memory.set_features(Features::ALL);
    origin.commit(&second(4));
    assert!(db.pull().unwrap());
    drop(db);
    let db = origin.open();
    origin.commit(&second(5));
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests())[..2], ["list", "pages"]);
    assert!(v(&db, 300).starts_with("Text(\"second 5"));
    // One that cannot say what changed since.
    origin.memory.set_replace_base(true);
    origin.commit(&second(6));
    origin.remote.requests();
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["list", "changed"]);
    assert_eq!(contents(&db.connection().unwrap()), stock_contents(&origin.conn));
}

/// It was waited for twice: in the list, and again in the question that followed.
#[test]
fn a_remote_that_cannot_list_has_been_waited_for() {
    for fails in [true, false] {
        let origin = Origin::new();
        let faulty = Arc::new(Faulty::new(Arc::new(origin.memory.clone())));
        let remote = Between::around(faulty.clone());
        let db = origin
            .replicas
            .builder("a.db")
            .remote_with(remote.clone())
            .partial(prefix(4096, 4096))
            .longest_question(0)
            .connect()
            .unwrap();
        origin.commit("update t set v = 'second'");
        remote.requests();
        match fails {
            true => faulty.fail_nth(1, Fault::Fail(RemoteErrorKind::Failed)),
            false => origin.memory.set_features(Features {
                list: false,
                ..Features::ALL
            }),
        }
        let wait = Duration::from_secs(5);
        assert!(db.pull_waiting(wait).unwrap());
        let requests = remote.requests();
        assert_eq!(kinds(&requests[..2]), ["list", "changed"]);
        let waits = requests.iter().map(|request| request.long_poll);
        assert_eq!(waits.flatten().collect::<Vec<_>>(), [wait]);
        assert_eq!(contents(&db.connection().unwrap()), stock_contents(&origin.conn));
    }
}

/// As one that compares pages after a kill: it can tell of some pages, and not of all.
#[test]
fn a_remote_that_cannot_list_now_is_asked_about_the_pages_that_are_here_if_they_are_not_many() {
    let origin = Origin::new();
    let faulty = Arc::new(Faulty::new(origin.remote.clone()));
    let db = origin
        .replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .partial(prefix(4096, 4096))
        .longest_question(0)
        .connect()
        .unwrap();
    origin.commit("update t set v = 'second'");
    origin.remote.requests();
    faulty.fail_nth(1, Fault::Fail(RemoteErrorKind::Failed));
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["changed"]);
    assert_eq!(contents(&db.connection().unwrap()), stock_contents(&origin.conn));
}

#[test]
fn a_base_that_expired_is_told_by_the_list_and_everything_here_is_brought() {
    let origin = Origin::new();
    let db = origin.open();
    let (old, _) = origin.memory.latest().unwrap();
    v(&db, 300);
    origin.commit("update t set v = 'second' where id = 300");
    origin.memory.expire(&old);
    origin.remote.requests();
    assert!(db.pull().unwrap());
    assert_eq!(kinds(&origin.remote.requests()), ["list", "pages"]);
    assert_eq!(contents(&db.connection().unwrap()), stock_contents(&origin.conn));
}

/// The revision of the list is gone before its pages are asked for: the question is asked again, but not for ever.
#[test]
fn a_revision_that_expires_between_a_list_and_its_pages_is_asked_for_again_and_not_for_ever() {
    let origin = Arc::new(Mutex::new(Origin::new()));
    let (db, remote, base) = {
        let origin = origin.lock();
        (
            origin.open(),
            origin.remote.clone(),
            origin.memory.latest().unwrap().0,
        )
    };
    let before = v(&db, 300);
    remote.requests();
    let commit = move |origin: &Mutex<Origin>, n: usize| {
        let origin = origin.lock();
        let (latest, _) = origin.memory.latest().unwrap();
        origin.commit(&format!(
            "update t set v = 'new {n} ' || id where id in (300, {n})"
        ));
        if latest != base {
            origin.memory.expire(&latest);
        }
    };
    commit(&origin, 0);
    // As often as it takes to give up.
    for nth in [2, 4, 6] {
        let (origin, commit) = (origin.clone(), commit.clone());
        remote.before(nth, move || commit(&origin, nth));
    }
    let error = db.pull().unwrap_err();
    assert!(error.is_revision_expired(), "{error}");
    assert_eq!(
        kinds(&remote.requests()),
        ["list", "pages", "list", "pages", "list", "pages"]
    );
    assert_eq!(v(&db, 300), before, "the pull has not happened");
    remote.requests();
    // And once.
    let (other, again) = (origin.clone(), commit.clone());
    remote.before(2, move || again(&other, 9));
    assert!(db.pull().unwrap());
    let requests = remote.requests();
    assert_eq!(kinds(&requests), ["list", "pages", "list", "pages"]);
    let latest = origin.lock().memory.latest().unwrap().0;
    assert_eq!(requests[3].revision.as_ref(), Some(&latest));
    assert_eq!(db.stats().unwrap().revision.as_deref(), Some(latest.as_str()));
    assert_eq!(
        contents(&db.connection().unwrap()),
        stock_contents(&origin.lock().conn)
    );
}

/// And before what local changes are put back on: the pull failed, and said "pull".
#[test]
fn a_revision_that_expires_while_local_changes_are_put_back_is_asked_for_again() {
    let origin = Arc::new(Mutex::new(Origin::new()));
    let (db, remote) = {
        let origin = origin.lock();
        (origin.open(), origin.remote.clone())
    };
    let conn = db.connection().unwrap();
    conn.execute_batch("update t set v = 'mine' where id = 300")
        .unwrap();
    // The row moves to a page that is not here.
    let (told, _) = {
        let origin = origin.lock();
        origin.commit("update t set v = hex(zeroblob(1500)) where id between 296 and 304");
        origin.memory.latest().unwrap()
    };
    remote.requests();
    let theirs = origin.clone();
    remote.before(3, move || {
        let origin = theirs.lock();
        origin.commit("update t set v = 'theirs' where id = 1");
        origin.memory.expire(&told);
    });
    assert!(db.pull().unwrap());
    let requests = remote.requests();
    assert_eq!(kinds(&requests[..5]), ["list", "pages", "pages", "list", "pages"]);
    assert_eq!(v(&db, 300), r#"Text("mine")"#);
    assert_eq!(v(&db, 1), r#"Text("theirs")"#);
    assert_eq!(db.stats().unwrap().cdc_operations, 1);
}

/// Pages of the old revision come after the list, and after its pages: those that changed are not believed to be of the new
/// one, and the others stay.
#[test]
fn invariant_4_pages_that_come_between_a_list_and_the_commit_stay_if_they_did_not_change() {
    for nth in [1, 2] {
        let origin = Origin::new();
        let db = origin.open();
        v(&db, 1);
        let reader = db.connection().unwrap();
        reader.execute_batch("begin").unwrap();
        let old = rows(&reader, "select v from t where id = 1").unwrap();
        origin.commit("update t set v = 'second' where id in (300, 302)");
        origin.remote.requests();
        // 300 and 302 are not here, nor is 500.
        let late = db.connection().unwrap();
        let ids = "select substr(v, 1, 9) from t where id in (300, 500)";
        origin.remote.before(nth, move || {
            let read = rows(&late, ids).unwrap();
            assert_eq!(read, ["Text(\"first 300\")", "Text(\"first 500\")"]);
        });
        assert!(db.pull().unwrap());
        // What was read meanwhile were pages, too.
        let own = |request: &PagesRequest| request.since.is_some() || request.revision.is_none();
        let requests = origin.remote.requests();
        assert_eq!(requests.iter().filter(|request| own(request)).count(), 1);
        let conn = db.connection().unwrap();
        let unchanged = rows(&conn, "select substr(v, 1, 9) from t where id = 500").unwrap();
        assert_eq!(unchanged, ["Text(\"first 500\")"]);
        assert!(origin.remote.requests().is_empty(), "it was here");
        let changed = rows(&conn, "select v from t where id in (300, 302)").unwrap();
        assert_eq!(changed, ["Text(\"second\")", "Text(\"second\")"]);
        // An open reader keeps its own.
        assert_eq!(rows(&reader, "select v from t where id = 1").unwrap(), old);
        let theirs = rows(&reader, ids).unwrap();
        assert_eq!(theirs, ["Text(\"first 300\")", "Text(\"first 500\")"]);
        drop(reader);
        assert_eq!(contents(&conn), stock_contents(&origin.conn));
    }
}

/// The last page, page 1, an end that moves both ways, and a replica of which hardly anything is here.
#[test]
fn a_database_that_grows_and_shrinks_is_pulled_by_lists() {
    let origin = Origin::new();
    let db = origin.open();
    let conn = db.connection().unwrap();
    for (n, script) in [
        "pragma user_version = 7",
        "insert into t select id + 1000, v from t where id < 200",
        "delete from t where id > 100; vacuum",
        "insert into t select id + 2000, v || v from t",
        "create table u(x); insert into u select v from t",
        "drop table u; vacuum",
        "update t set v = 'all ' || id",
    ]
    .into_iter()
    .enumerate()
    {
        origin.commit(script);
        origin.remote.requests();
        assert!(db.pull().unwrap());
        let asked = kinds(&origin.remote.requests());
        assert_eq!(asked, ["list", "pages"], "{script}");
        if n % 2 == 1 {
            assert_eq!(contents(&conn), stock_contents(&origin.conn), "{script}");
        } else {
            let sql = "select count(*), max(id), (select user_version from pragma_user_version) from t";
            assert_eq!(
                rows(&conn, sql).unwrap(),
                stock_rows(&origin.conn, sql).unwrap(),
                "{script}"
            );
        }
    }
    assert_eq!(contents(&conn), stock_contents(&origin.conn));
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

/// Pages of the old revision come when the intent of a pull is being written, and the page map says so on the disk before the
/// pull commits: the next process does not believe them to be of the new one.
#[test]
fn invariant_4_a_page_that_came_and_was_saved_before_a_commit_is_not_believed_after_a_crash() {
    for (question, survives) in [
        (0, Survives::Written),
        (0, Survives::Synced),
        (1 << 20, Survives::Written),
        (1 << 20, Survives::Synced),
    ] {
        let served = Served::new(ROWS);
        let replicas = Replicas::new();
        let path = replicas.path("a.db");
        let storage = CrashStorage::new(&path);
        let open = |storage: &CrashStorage, path: &Path| {
            Database::builder(path)
                .storage(Arc::new(storage.clone()))
                .remote(served.url())
                .partial(prefix(4096, 4096))
                .longest_question(question)
                .connect()
                .unwrap()
        };
        let db = open(&storage, &path);
        // Something is in the WAL that a checkpoint can take out of it.
        let conn = db.connection().unwrap();
        conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
        served.execute("update t set v = 'theirs' where id in (300, 500)");
        let (late, saved) = (db.connection().unwrap(), storage.clone());
        let came = Arc::new(AtomicUsize::new(0));
        let note = came.clone();
        storage.before("sync -changes.tmp", move || {
            let read = rows(&late, "select substr(v, 1, 9) from t where id = 300").unwrap();
            assert_eq!(read, ["Text(\"first 300\")"]);
            let before = saved.operations();
            rows(&late, "pragma wal_checkpoint(passive)").unwrap();
            let trace = saved.trace();
            let done = saved.operations() - before;
            let wrote = trace[trace.len() - done as usize..]
                .iter()
                .any(|operation| operation.starts_with("write -pages"));
            note.store(1 + usize::from(wrote), Ordering::SeqCst);
            // The pull has committed, and its page map is about to be saved.
            let stop = saved.clone();
            saved.before("write -pages", move || stop.stop_now());
        });
        db.pull().unwrap_err();
        assert!(storage.has_stopped());
        assert_eq!(came.load(Ordering::SeqCst), 2, "{:?}", storage.trace());
        let again = replicas.path("again.db");
        let db = open(&storage.after_crash(survives, &again), &again);
        let conn = db.connection().unwrap();
        let ids = "select v from t where id in (300, 500, 6000)";
        assert_eq!(
            rows(&conn, ids).unwrap(),
            ["Text(\"theirs\")", "Text(\"theirs\")", "Text(\"mine\")"]
        );
        db.push().unwrap();
        db.pull().unwrap();
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    }
}

/// Rows come and go on both sides, the database grows and shrinks, readers stay, and pages are read at random while pulls are
/// under way.
#[test]
fn invariant_4_random_pulls_by_lists_and_by_questions_come_to_the_same() {
    let seed = seed();
    for (nth, question) in [0, 0, 1 << 20].into_iter().enumerate() {
        random_pulls(seed.wrapping_add(nth as u64), question);
    }
}

fn random_pulls(seed: u64, question: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let served = Served::new(
        "create table t(id integer primary key, v text); create table mine(id integer primary key, v text);
         with recursive c(x) as (select 1 union all select x + 1 from c where x < 900)
         insert into t select x, 'first ' || x || hex(zeroblob(500)) from c",
    );
    let replicas = Replicas::new();
    let remote = Between::around(served.http());
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .longest_question(question)
        .connect()
        .unwrap();
    let (conn, writer) = (db.connection().unwrap(), db.connection().unwrap());
    let sum = "select count(*), sum(length(v)), max(v), min(v) from t";
    let some = |random: &mut fastrand::Rng| {
        let from = random.u32(1..1200);
        format!(
            "select id, substr(v, 1, 30) from t where id between {from} and {}",
            from + random.u32(0..40)
        )
    };
    let mut readers = vec![];
    let late = Arc::new(AtomicUsize::new(0));
    for round in 0..40 {
        let at = random.u32(1..1000);
        served.execute(&match random.u8(0..6) {
            0 => format!("update t set v = '{round} ' || substr(v, 5) where id between {at} and {at} + 20"),
            1 => format!("insert or replace into t select id + {at}, v from t where id % 9 = 0"),
            2 => format!("delete from t where id > {at} and id % 3 = 0"),
            3 => format!("delete from t where id > {at} + 300; vacuum"),
            4 => format!(
                "create table if not exists u{}(x); insert into u{0} select v from t where id < 30",
                round % 3
            ),
            _ => format!("update t set v = hex(zeroblob({at} % 700)) where id % 50 = {round} % 50"),
        });
        if random.bool() {
            writer
                .execute(
                    &format!(
                        "insert or replace into mine values ({}, hex(zeroblob({at})))",
                        at % 60
                    ),
                    (),
                )
                .unwrap();
        }
        if random.u8(0..4) == 0 {
            db.checkpoint().unwrap();
        }
        if random.u8(0..3) == 0 {
            let reader = db.connection().unwrap();
            reader.execute_batch("begin").unwrap();
            let sql = some(&mut random);
            let state = rows(&reader, &sql).unwrap();
            readers.push((reader, sql, state));
        }
        if random.bool() {
            let (reader, sql) = (db.connection().unwrap(), some(&mut random));
            let late = late.clone();
            remote.before(random.usize(1..3), move || {
                rows(&reader, &sql).unwrap();
                late.fetch_add(1, Ordering::SeqCst);
            });
        }
        let case = format!("seed {seed}, question {question}, round {round}");
        let _ = db.pull().unwrap();
        remote.before.lock().clear();
        for (reader, sql, state) in &readers {
            assert_eq!(&rows(reader, sql).unwrap(), state, "{case}");
        }
        if readers.len() > 3 {
            readers.remove(random.usize(..3));
        }
        let sql = some(&mut random);
        assert_eq!(
            rows(&conn, &sql).unwrap(),
            stock_rows(&served.sqlite(), &sql).unwrap(),
            "{case}"
        );
        if random.u8(0..8) == 0 {
            assert_eq!(
                rows(&conn, sum).unwrap(),
                stock_rows(&served.sqlite(), sum).unwrap(),
                "{case}"
            );
        }
        if random.u8(0..8) == 0 {
            db.push().unwrap();
        }
    }
    drop(readers);
    println!(
        "seed {seed}: {} times pages came meanwhile",
        late.load(Ordering::SeqCst)
    );
    db.push().unwrap();
    db.pull().unwrap();
    assert_same(
        &contents(&conn),
        &stock_contents(&served.sqlite()),
        &format!("seed {seed}"),
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
}

type Change = Box<dyn Fn(&mut PagesHeader) + Send + Sync>;

/// Says other things of what changed than is so.
struct Says {
    inner: MemoryRemote,
    change: Mutex<Change>,
}

impl std::fmt::Debug for Says {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Says")
    }
}

impl Remote for Says {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        async move {
            let list = request.list;
            let mut answer = self.inner.pages(request).await?;
            if list {
                (self.change.lock())(&mut answer.header);
            }
            Ok(answer)
        }
        .boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.inner.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.inner.url()
    }

    fn transferred(&self) -> TransferStats {
        self.inner.transferred()
    }
}

/// More than changed, more than there is, every number there is, and not since the base.
#[test]
fn invariant_4_a_list_may_name_more_than_changed_and_more_than_there_is() {
    let changes: [Change; 4] = [
        Box::new(|header| {
            let end = header.db_size.0;
            header.listed.as_mut().unwrap().insert_range(end..end + 100);
        }),
        Box::new(|header| {
            header.listed.as_mut().unwrap().insert_range(0..=u32::MAX);
        }),
        Box::new(|header| {
            header.listed.as_mut().unwrap().insert(u32::MAX);
        }),
        Box::new(|header| header.mode = ApplyMode::ReplaceBase),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let origin = Origin::new();
        let says = Arc::new(Says {
            inner: origin.memory.clone(),
            change: Mutex::new(change),
        });
        let path = origin.replicas.path("a.db");
        let storage = CrashStorage::new(&path);
        let open = |storage: &CrashStorage, path: &Path| {
            Database::builder(path)
                .storage(Arc::new(storage.clone()))
                .remote_with(says.clone())
                .partial(prefix(4096, 4096))
                .longest_question(0)
                .connect()
                .unwrap()
        };
        let db = open(&storage, &path);
        v(&db, 300);
        let conn = db.connection().unwrap();
        conn.execute("insert into t values (6000, 'mine')", ()).unwrap();
        for (round, script) in [
            "update t set v = 'second' where id in (300, 500)",
            "insert into t select id + 1000, v from t where id < 200",
            "delete from t where id > 300; vacuum",
            "insert into t select id + 3000, v from t",
        ]
        .into_iter()
        .enumerate()
        {
            origin.commit(script);
            assert!(db.pull().unwrap(), "{nth}, {round}");
            v(&db, 299);
        }
        origin.commit("update t set v = 'last' where id in (1, 299)");
        // It has committed, and only its intent says so.
        let stop = storage.clone();
        storage.before("write -pages", move || stop.stop_now());
        db.pull().unwrap_err();
        let again = origin.replicas.path("again.db");
        let db = open(&storage.after_crash(Survives::Synced, &again), &again);
        assert_eq!(v(&db, 299), "Text(\"last\")");
        assert_eq!(v(&db, 6000), "Text(\"mine\")");
        let conn = db.connection().unwrap();
        conn.execute("delete from t where id = 6000", ()).unwrap();
        assert_eq!(contents(&conn), stock_contents(&origin.conn), "{nth}");
    }
}

/// It is a matter of bytes: a list of all numbers takes a few on the wire.
#[test]
fn a_list_of_what_a_query_touches_may_name_more_than_there_is() {
    let origin = Origin::new();
    origin.memory.on_query(|_, _| Ok((0..1).collect()));
    let says = Says {
        inner: origin.memory.clone(),
        change: Mutex::new(Box::new(|header| {
            header.listed.as_mut().unwrap().insert_range(0..=u32::MAX);
        })),
    };
    let db = origin
        .replicas
        .builder("a.db")
        .remote_with(Arc::new(says))
        .partial(prefix(4096, 4096))
        .longest_question(0)
        .connect()
        .unwrap();
    let before = db.stats().unwrap();
    let hydrated = db.hydrate_query("select * from t", |_| {}).unwrap();
    assert_eq!(hydrated.fetched, before.pages_total - before.pages_present);
    assert_eq!(contents(&db.connection().unwrap()), stock_contents(&origin.conn));
}

/// Before the list, and between the list and its pages.
#[test]
fn a_pull_by_a_list_that_is_cancelled_has_not_happened_and_the_next_one_does() {
    let served = Served::new(ROWS);
    for nth in [1, 2] {
        let replicas = Replicas::new();
        let remote = Between::around(served.http());
        let db = replicas
            .builder("a.db")
            .remote_with(remote.clone())
            .partial(prefix(4096, 4096))
            .longest_question(0)
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        let mine = format!("update t set v = 'mine {nth}' where id = 300");
        conn.execute_batch(&mine).unwrap();
        let theirs = v(&db, 20);
        // The row that was written moves to a page that is not here.
        served.execute(&format!(
            "update t set v = {nth} || hex(zeroblob(1000 + {nth})) where id between 296 and 304 or id = 20"
        ));
        remote.requests();
        let cancel = db.cancel_handle().unwrap();
        remote.before(nth, move || cancel.cancel());
        let error = db.pull().unwrap_err();
        assert!(
            matches!(error, partial_sync::Error::Interrupted { .. }),
            "{nth}: {error}"
        );
        remote.requests();
        assert_eq!(v(&db, 20), theirs);
        assert_eq!(v(&db, 300), format!("Text(\"mine {nth}\")"));
        conn.execute_batch("insert into t(v) values ('more of mine')")
            .unwrap();
        assert!(db.pull().unwrap());
        assert_ne!(v(&db, 20), theirs);
        assert_eq!(v(&db, 300), format!("Text(\"mine {nth}\")"));
        db.push().unwrap();
        db.pull().unwrap();
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()), "{nth}");
        drop((conn, db));
        assert!(
            replicas
                .files()
                .iter()
                .all(|file| !file.contains("staged") && !file.contains("preview")),
            "{:?}",
            replicas.files()
        );
    }
}

/// The server's revisions in between are not asked for: what was cut off and grew again is another page.
#[test]
fn a_database_that_shrinks_and_grows_between_two_pulls_is_pulled_by_a_list() {
    let served = Served::new(ROWS);
    let replicas = Replicas::new();
    let remote = Between::around(served.http());
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .longest_question(0)
        .connect()
        .unwrap();
    db.hydrate(|_| {}).unwrap();
    let conn = db.connection().unwrap();
    for (round, last) in [500, 900, 300, 600].into_iter().enumerate() {
        if round % 2 == 1 {
            conn.execute("insert into t(v) values (hex(zeroblob(9000)))", ())
                .unwrap();
        }
        served.execute("delete from t where id > 100; vacuum");
        served.execute("create table if not exists u(x); insert into u values (hex(zeroblob(5000)))");
        served.execute(&format!(
            "with recursive c(x) as (select 101 union all select x + 1 from c where x < {last})
             insert into t select x, '{round} ' || x || hex(zeroblob(500)) from c"
        ));
        remote.requests();
        assert!(db.pull().unwrap());
        assert_eq!(kinds(&remote.requests())[0], "list");
        assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
        db.push().unwrap();
        db.pull().unwrap();
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()), "{round}");
    }
}
