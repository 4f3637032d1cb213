//! Replicas that read from a bucket without a server: what is fetched, pulls, writes that wait for a server, a bucket that is away.

use std::{
    fs,
    num::NonZeroU64,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use partial_sync::{Bootstrap, Builder, Database, Error, ErrorKind, PartialSync};
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::{Replication, Server, ServerHandle};
use partial_sync_store::{Begin, BucketRemote, New, Writer};
use partial_sync_transport::{Counting, Fault, Faulty, HttpRemote, Remote, RemoteErrorKind};
use tempfile::TempDir;

use crate::support::{Replicas, assert_same, contents, prefix, rows, stock_contents};

/// Some 8 MB of rows, in a tree of three levels.
const ROWS: &str = "create table t (id integer primary key, v text);
    with recursive n(i) as (values (1) union all select i + 1 from n where i < 16000)
    insert into t select i, hex(randomblob(220)) from n;
    create table small (id integer primary key, v text);
    insert into small values (1, 'one'), (2, 'two')";

/// A database in a bucket, in a folder; what is committed comes from a file of stock SQLite's.
struct Bucket {
    folder: TempDir,
    writer: Writer,
    runtime: tokio::runtime::Runtime,
}

fn pages(file: &[u8]) -> Vec<(PageNo, Vec<u8>)> {
    let pages = file.chunks(PageSize::DEFAULT.as_usize()).map(<[u8]>::to_vec);
    (1..).filter_map(PageNo::new).zip(pages).collect()
}

impl Bucket {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = rusqlite::Connection::open(folder.path().join("source.db")).unwrap();
        source.execute_batch(script).unwrap();
        let url = format!("file://{}", folder.path().join("bucket").display());
        let bucket = partial_sync_store::open(&url, Vec::new()).unwrap();
        let begin = Begin {
            node: NonZeroU64::new(7).unwrap(),
            url: Some("https://writer.example".to_owned()),
            new: New {
                lineage: NonZeroU64::new(8).unwrap(),
                after: None,
                retention: Duration::from_secs(3600),
            },
            now: 1_700_000_000_000,
        };
        let all = pages(&fs::read(folder.path().join("source.db")).unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let size = PageCount(all.len() as u32);
        let create = Writer::create(bucket, begin, PageSize::DEFAULT, size, move |put| {
            all.iter().try_for_each(|(page, bytes)| put(*page, bytes))
        });
        let writer = runtime.block_on(create).unwrap();
        Self {
            folder,
            writer,
            runtime,
        }
    }

    fn url(&self) -> String {
        format!("file://{}", self.place().display())
    }

    fn place(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    fn source(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("source.db")).unwrap()
    }

    /// Commits what a script changes.
    fn commit(&mut self, script: &str) {
        let read = || pages(&fs::read(self.folder.path().join("source.db")).unwrap());
        let before = read();
        self.source().execute_batch(script).unwrap();
        let after = read();
        let changed = after
            .iter()
            .enumerate()
            .filter(|(n, page)| before.get(*n) != Some(page));
        let changed = changed.map(|(_, (page, bytes))| Ok((*page, bytes)));
        let append = self
            .writer
            .append(changed, PageCount(after.len() as u32), 1_700_000_000_001);
        self.runtime.block_on(append).unwrap();
    }

    /// All commits are compacted and old, and what nobody has to have of them is removed.
    fn collect(&mut self) {
        let (keeper, last) = (self.writer.keeper(), self.writer.last());
        while self.runtime.block_on(keeper.compact(last)).unwrap() {}
        let old = SystemTime::now() - Duration::from_secs(3 * 3600);
        let mut folders = vec![self.place()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => {
                        let file = fs::File::options().write(true).open(entry.path()).unwrap();
                        file.set_modified(old).unwrap();
                    }
                }
            }
        }
        self.commit("update small set v = v || '.'");
        let (keeper, last) = (self.writer.keeper(), self.writer.last());
        assert!(self.runtime.block_on(keeper.collect(last)).unwrap() > 0);
    }

    /// Nobody finds the bucket.
    fn hide(&self) {
        fs::rename(self.place(), self.folder.path().join("hidden")).unwrap();
    }

    fn show(&self) {
        fs::rename(self.folder.path().join("hidden"), self.place()).unwrap();
    }
}

fn partial(builder: Builder) -> Builder {
    builder.partial(prefix(4096, 16 << 10))
}

fn query(sql: &str) -> PartialSync {
    PartialSync {
        bootstrap: Some(Bootstrap::query(sql)),
        segment_size: Some(4096),
        ..PartialSync::default()
    }
}

fn assert_is(db: &Database, source: &rusqlite::Connection, what: &str) {
    assert_same(
        &contents(&db.connection().unwrap()),
        &stock_contents(source),
        what,
    );
}

#[test]
fn a_replica_of_a_bucket_fetches_pulls_and_keeps_its_writes_which_a_push_leaves_to_a_server() {
    let mut bucket = Bucket::new(ROWS);
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(bucket.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let pages = |db: &Database| db.stats().unwrap().pages_present;
    assert!(pages(&db) < 10);
    assert_eq!(
        rows(&conn, "select v from small where id = 2").unwrap(),
        ["Text(\"two\")"]
    );
    assert!(pages(&db) < 40, "what is around them comes along, and no more");
    conn.execute_batch("insert into small values (10, 'mine'); update t set v = 'mine' where id = 5")
        .unwrap();
    bucket.commit("update small set v = 'theirs' where id = 1; delete from t where id > 15000; insert into t values (90000, 'new')");
    assert!(db.pull().unwrap());
    assert!(!db.pull().unwrap(), "nothing is new");
    let mine = "select * from small union all select * from t where id = 5";
    let expected = [
        "Integer(1)|Text(\"theirs\")",
        "Integer(2)|Text(\"two\")",
        "Integer(10)|Text(\"mine\")",
        "Integer(5)|Text(\"mine\")",
    ];
    assert_eq!(rows(&conn, mine).unwrap(), expected);

    // It says where to, and loses nothing, however often.
    for _ in 0..2 {
        let error = db.push().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RemoteRefused);
        assert!(error.to_string().contains("https://writer.example"), "{error}");
        bucket.commit("insert into t values (null, 'more')");
        assert!(db.pull().unwrap());
        assert_eq!(rows(&conn, mine).unwrap(), expected);
    }
    drop((conn, db));
    // Also after a restart; and everything can be fetched.
    let db = replicas.builder("a.db").connect().unwrap();
    assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
    let source = bucket.source();
    source
        .execute_batch("insert into small values (10, 'mine'); update t set v = 'mine' where id = 5")
        .unwrap();
    assert_is(&db, &source, "the bucket's, and what was changed here");
    assert!(db.stats().unwrap().requests > 1);
}

#[test]
fn a_replica_that_is_here_is_opened_and_written_to_while_its_bucket_is_away() {
    let mut bucket = Bucket::new(ROWS);
    let replicas = Replicas::new();
    drop(
        replicas
            .builder("a.db")
            .remote(bucket.url())
            .partial(query("select * from small"))
            .connect()
            .unwrap(),
    );
    bucket.hide();
    for builder in [
        replicas.builder("a.db"),
        replicas.builder("a.db").remote(bucket.url()),
    ] {
        let db = builder.connect().unwrap();
        let conn = db.connection().unwrap();
        assert_eq!(rows(&conn, "select count(*) from small").unwrap().len(), 1);
        conn.execute_batch("insert into small values (null, 'offline')")
            .unwrap();
        assert_eq!(db.stats().unwrap().requests, 0);
        let away = rows(&conn, "select v from t where id = 9000").unwrap_err();
        assert!(away.to_string().contains(&bucket.url()), "{away}");
        assert!(db.pull().is_err());
        assert!(!bucket.place().exists(), "nothing is made in its place");
    }
    bucket.show();
    bucket.commit("insert into small values (3, 'three')");
    let db = replicas.builder("a.db").connect().unwrap();
    assert!(db.pull().unwrap());
    let conn = db.connection().unwrap();
    let names = rows(&conn, "select v from small order by v").unwrap();
    assert_eq!(
        names,
        [
            "Text(\"offline\")",
            "Text(\"offline\")",
            "Text(\"one\")",
            "Text(\"three\")",
            "Text(\"two\")"
        ]
    );
    assert_eq!(
        rows(&conn, "select id from t where id = 9000").unwrap(),
        ["Integer(9000)"]
    );
}

#[test]
fn a_query_is_run_here_and_what_it_touches_is_local_afterwards() {
    let bucket = Bucket::new(ROWS);
    let replicas = Replicas::new();
    let touches = "select v from t where id in (17, 9000) union all select v from small";
    let first = replicas
        .builder("a.db")
        .remote(bucket.url())
        .partial(query(touches))
        .connect()
        .unwrap();
    // A replica that was begun without the bucket gets the same with its first pull.
    let later = replicas
        .builder("b.db")
        .remote(bucket.url())
        .partial(query(touches))
        .bootstrap_if_empty(false);
    let later = later.connect().unwrap();
    assert_eq!(later.stats().unwrap().requests, 0);
    assert!(later.pull().unwrap());
    // And one that is there, when it is told to.
    let told = replicas
        .builder("c.db")
        .remote(bucket.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let mut seen = 0;
    let fetched = told
        .hydrate_query(touches, |at| seen = at.fetched)
        .unwrap()
        .fetched;
    assert!(fetched > 0 && fetched == seen);
    let before: Vec<_> = [&first, &later, &told]
        .map(|db| db.stats().unwrap().requests)
        .into();
    bucket.hide();
    for (db, before) in [&first, &later, &told].into_iter().zip(before) {
        let conn = db.connection().unwrap();
        assert_eq!(rows(&conn, touches).unwrap().len(), 4);
        let stats = db.stats().unwrap();
        assert_eq!(stats.requests, before);
        assert!(stats.pages_present * 20 < stats.pages_total, "not all of it");
    }
    bucket.show();
    // What is not a query is not run, and of a first connect nothing is left, so that the next one is again the first.
    for wrong in [
        "select v from nowhere",
        "delete from small",
        "pragma journal_mode = delete",
        "select 1; select 2",
        "with a as (select 1) delete from small",
    ] {
        let connect = replicas
            .builder("d.db")
            .remote(bucket.url())
            .partial(query(wrong))
            .connect();
        assert!(
            matches!(connect, Err(Error::BootstrapQuery { .. })),
            "{wrong}: {connect:?}"
        );
        assert!(
            !replicas.files().iter().any(|name| name.starts_with("d.db")),
            "{wrong}"
        );
        assert!(told.hydrate_query(wrong, |_| {}).is_err(), "{wrong}");
    }
    assert_is(&told, &bucket.source(), "nothing was written");
}

#[test]
fn a_base_that_was_collected_is_left_with_a_pull_and_local_writes_stay_on_top() {
    let mut bucket = Bucket::new(ROWS);
    bucket.commit("update small set v = 'second' where id = 2");
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(bucket.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from small where id = 2").unwrap(),
        ["Text(\"second\")"]
    );
    conn.execute_batch("insert into small values (1000, 'mine')")
        .unwrap();
    for n in 0..20 {
        bucket.commit(&format!("insert into small values ({n} + 10, 'n{n}')"));
    }
    bucket.collect();
    // By a process that has not seen any of it.
    drop((conn, db));
    let db = replicas.builder("a.db").connect().unwrap();
    let conn = db.connection().unwrap();
    let gone = rows(&conn, "select v from t where id = 15999").unwrap_err();
    assert!(gone.is_revision_expired(), "{gone}");
    assert!(db.hydrate(|_| {}).unwrap_err().is_revision_expired());
    assert!(db.pull().unwrap());
    let source = bucket.source();
    source
        .execute_batch("insert into small values (1000, 'mine')")
        .unwrap();
    assert_is(&db, &source, "the bucket's, and what was changed here");
}

#[test]
fn a_cold_row_takes_three_requests_in_sequence_and_those_of_opening() {
    let bucket = Bucket::new(ROWS);
    let replicas = Replicas::new();
    drop(
        partial(replicas.builder("a.db").remote(bucket.url()))
            .connect()
            .unwrap(),
    );
    let db = replicas.builder("a.db").connect().unwrap();
    assert!(!db.pull().unwrap());
    // The head, what is needed of the snapshot, and the names behind it, of which not all need be asked for.
    let opening = db.stats().unwrap().requests;
    assert!(opening <= 1 + 2 + 24, "{opening}");
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select id from t where id = 12345").unwrap(),
        ["Integer(12345)"]
    );
    let requests = db.stats().unwrap().requests - opening;
    assert!((1..=3).contains(&requests), "{requests}");
    // All of it: in large ranges, and each byte once.
    let before = db.stats().unwrap();
    assert_eq!(db.hydrate(|_| {}).unwrap().absent, 0);
    let after = db.stats().unwrap();
    let stored: u64 = fs::read_dir(bucket.place().join("ltx/9"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    let (asked, came) = (
        after.requests - before.requests,
        after.network_received_bytes - before.network_received_bytes,
    );
    assert!(
        asked <= stored / (256 << 10) + 4,
        "{asked} requests for {stored} bytes"
    );
    assert!(came <= stored * 13 / 10, "{came} bytes of {stored}");
}

#[test]
fn urls_that_lead_to_no_database_are_told_of_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let replicas = Replicas::new();
    let empty = format!("file://{}", folder.path().display());
    for (url, kind) in [
        (empty.as_str(), RemoteErrorKind::NotFound),
        ("s3:///app", RemoteErrorKind::InvalidUrl),
        ("s3://user:secret@bucket/app", RemoteErrorKind::InvalidUrl),
        ("memory:///nothing", RemoteErrorKind::NotFound),
        ("ftp://host/app", RemoteErrorKind::InvalidUrl),
    ] {
        let error = replicas.builder("a.db").remote(url).connect().unwrap_err();
        assert!(
            matches!(&error, Error::Remote(error) if error.kind == kind),
            "{url}: {error}"
        );
        assert!(!error.to_string().contains("secret"));
        assert!(replicas.files().is_empty(), "{url}");
    }
}

/// A server of a file whose bucket is at `url`.
fn serve(file: &std::path::Path, url: &str) -> ServerHandle {
    Server::builder(file)
        .replicate(Replication::to(url))
        .start_blocking("127.0.0.1:0")
        .unwrap()
}

#[test]
fn a_replica_moves_from_a_server_to_its_bucket_and_back_with_what_was_not_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("remote.db");
    let stock = rusqlite::Connection::open(&file).unwrap();
    stock.execute_batch(ROWS).unwrap();
    let url = format!("file://{}", folder.path().join("bucket").display());
    let server = serve(&file, &url);
    let replicas = Replicas::new();
    let of_server =
        |server: &ServerHandle| replicas.builder("a.db").remote(server.url()).accept_new_url(true);
    let db = partial(of_server(&server)).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into small values (10, 'pushed')")
        .unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    conn.execute_batch("insert into small values (11, 'kept')")
        .unwrap();
    let revision = db.stats().unwrap().revision.unwrap();
    drop((conn, db));

    // The server is away. Not by accident:
    server.shutdown_blocking();
    let other = replicas
        .builder("a.db")
        .remote(url.as_str())
        .connect()
        .unwrap_err();
    assert!(matches!(other, Error::OtherRemote { .. }), "{other}");
    let db = replicas
        .builder("a.db")
        .remote(url.as_str())
        .accept_new_url(true)
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    db.pull().unwrap();
    assert_eq!(
        db.stats().unwrap().revision.unwrap(),
        revision,
        "the same by its name"
    );
    let small = "select v from small order by id";
    assert_eq!(
        rows(&conn, small).unwrap(),
        [
            "Text(\"one\")",
            "Text(\"two\")",
            "Text(\"pushed\")",
            "Text(\"kept\")"
        ]
    );
    assert_eq!(
        rows(&conn, "select id from t where id = 12345").unwrap(),
        ["Integer(12345)"]
    );
    conn.execute_batch("insert into small values (12, 'of the bucket')")
        .unwrap();
    assert_eq!(db.push().unwrap_err().kind(), ErrorKind::RemoteRefused);
    drop((conn, db));

    let server = serve(&file, &url);
    let db = of_server(&server).connect().unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    let there = stock
        .prepare(small)
        .unwrap()
        .query_map((), |row| row.get::<_, String>(0))
        .unwrap()
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    assert_eq!(there, ["one", "two", "pushed", "kept", "of the bucket"]);
    assert_is(&db, &stock, "at the end");
    drop(db);
    server.shutdown_blocking();
}

#[test]
fn after_a_push_without_an_answer_a_bucket_gives_nothing_until_a_server_has_settled_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("remote.db");
    let stock = rusqlite::Connection::open(&file).unwrap();
    stock
        .execute_batch("create table t (id integer primary key, v text)")
        .unwrap();
    let url = format!("file://{}", folder.path().join("bucket").display());
    let server = serve(&file, &url);
    let replicas = Replicas::new();
    let http: Arc<dyn Remote> = Arc::new(HttpRemote::builder(server.url()).build().unwrap());
    let faulty = Arc::new(Faulty::new(http));
    let db = replicas
        .builder("a.db")
        .remote_with(faulty.clone())
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("insert into t (v) values ('mine')").unwrap();
    faulty.fail_nth(1, Fault::LoseAnswer);
    assert!(db.push().is_err());
    drop((conn, db));

    let of_bucket = || {
        let builder = replicas.builder("a.db").remote(url.as_str());
        builder.accept_new_url(true).connect().unwrap()
    };
    let db = of_bucket();
    let error = db.pull().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RemoteRefused);
    assert!(
        error
            .to_string()
            .contains("a pull after a push that got no answer"),
        "{error}"
    );
    drop(db);
    let of_server = replicas.builder("a.db").remote(server.url());
    of_server.accept_new_url(true).connect().unwrap().pull().unwrap();
    let db = of_bucket();
    db.pull().unwrap();
    assert_eq!(
        rows(&db.connection().unwrap(), "select v from t").unwrap(),
        ["Text(\"mine\")"]
    );
    assert_is(&db, &stock, "once, and nothing else");
    assert_eq!(db.stats().unwrap().cdc_operations, 0);
    drop(db);
    server.shutdown_blocking();
}

#[test]
fn a_bucket_without_a_head_as_litestream_writes_it_is_read_and_names_no_server() {
    let mut bucket = Bucket::new(ROWS);
    fs::remove_dir_all(bucket.place().join("partial-sync")).unwrap();
    let replicas = Replicas::new();
    let db = partial(replicas.builder("a.db").remote(bucket.url()))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select id from t where id = 12345").unwrap(),
        ["Integer(12345)"]
    );
    conn.execute_batch("insert into small values (1000, 'mine')")
        .unwrap();
    bucket.commit("update small set v = 'theirs' where id = 1");
    assert!(db.pull().unwrap());
    let error = db.push().unwrap_err();
    assert!(error.to_string().contains("a server of this database"), "{error}");
    assert_eq!(
        rows(&conn, "select v from small").unwrap(),
        ["Text(\"theirs\")", "Text(\"two\")", "Text(\"mine\")"]
    );
}

#[test]
fn a_first_connect_that_is_cut_off_continues_at_its_revision_though_the_bucket_has_moved_on() {
    let more =
        "insert into t select i, hex(randomblob(1900)) from (select id + 20000 as i from t limit 1500)";
    let mut bucket = Bucket::new(&format!("{ROWS}; {more}"));
    let (replicas, first) = (Replicas::new(), bucket.source());
    let before: i64 = first
        .query_row("select count(*) from t", (), |row| row.get(0))
        .unwrap();
    let remote = || Arc::new(Counting::new(Arc::new(BucketRemote::at(bucket.url()))));
    let cut = Arc::new(Faulty::new(remote()));
    cut.fail_nth(1, Fault::CutAfterPages(2500));
    assert!(replicas.builder("a.db").remote_with(cut).connect().is_err());
    let again = remote();
    bucket.commit("delete from t where id > 100");
    let db = replicas
        .builder("a.db")
        .remote_with(again.clone())
        .connect()
        .unwrap();
    assert!(
        again.ids_delivered().iter().all(|id| *id >= 2048),
        "the rest alone, but for what had not been noted"
    );
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select count(*) from t").unwrap(),
        [format!("Integer({before})")]
    );
    assert!(db.pull().unwrap());
    assert_is(&db, &bucket.source(), "after a pull");
}
