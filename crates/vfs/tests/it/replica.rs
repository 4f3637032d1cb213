//! A database whose pages are absent, under real SQLite, with a source that hands out pages of recorded revisions.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_core::{Epoch, PageCount, PageMap, PageNo, PageSize, Revision, SegmentSize};
use partial_sync_vfs::{
    Base, MemoryStorage, Miss, NextBase, OsStorage, PageSink, PageSource, Replica, ReplicaConfig, Stay,
    Storage, VFS_NAME,
    crash::{CrashStorage, Survives, Trouble},
    save_page_map,
    sqlite::{Conn, OpenOptions, Step},
};
use roaring::RoaringBitmap;

type Pages = Vec<Vec<u8>>;

/// Recorded revisions, by index.
#[derive(Default)]
struct Recorded {
    revisions: Mutex<Vec<Pages>>,
    fetches: AtomicUsize,
    fetched: Mutex<Vec<PageNo>>,
    broken: AtomicBool,
    silent: AtomicBool,
    kept: Mutex<Vec<Box<dyn PageSink>>>,
}

impl PageSource for Recorded {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.fetched.lock().extend(&miss.pages);
        if self.silent.load(Ordering::SeqCst) {
            self.kept.lock().push(sink);
            return;
        }
        if self.broken.load(Ordering::SeqCst) {
            return sink.finish(Err(Arc::new(std::io::Error::other("the cable is cut"))));
        }
        let revisions = self.revisions.lock();
        let pages = &revisions[miss.base.revision.as_str().parse::<usize>().unwrap()];
        for page in miss.pages {
            sink.page(page, &pages[page.id().0 as usize]).unwrap();
        }
        sink.finish(Ok(()));
    }
}

fn base(index: usize, pages: &Pages) -> Base {
    Base {
        revision: Revision::new(index.to_string()).unwrap(),
        size: PageCount(pages.len() as u32),
    }
}

struct Fixture {
    replica: Arc<Replica>,
    source: Arc<Recorded>,
    storage: Arc<dyn Storage>,
    _folder: tempfile::TempDir,
}

/// A database made by stock SQLite, as pages.
struct Original(
    Conn,
    #[allow(dead_code, reason = "removes the folder when dropped")] tempfile::TempDir,
);

impl Original {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conn = Conn::open(folder.path().join("original.db"), &OpenOptions::default()).unwrap();
        conn.execute_batch("pragma journal_mode=wal").unwrap();
        conn.execute_batch(script).unwrap();
        Self(conn, folder)
    }

    fn pages(&self) -> Pages {
        let mut stmt = self
            .0
            .prepare_one("select data from sqlite_dbpage order by pgno")
            .unwrap();
        let mut pages = vec![];
        while stmt.step().unwrap() == Step::Row {
            pages.push(stmt.value(0).unwrap().as_blob().unwrap().to_vec());
        }
        pages
    }
}

fn fixture(pages: Pages, storage: Arc<dyn Storage>, segment: u64, wait: Duration) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Recorded::default());
    let page_size = PageSize::new(pages[0].len() as u32).unwrap();
    let config = ReplicaConfig {
        storage: storage.clone(),
        path: folder.path().canonicalize().unwrap().join("app.db"),
        page_size,
        base: base(0, &pages),
        map: PageMap::new(),
        source: source.clone(),
        segment: SegmentSize::new(segment).unwrap(),
        prefetch: false,
        wait,
        temporary: false,
    };
    source.revisions.lock().push(pages);
    Fixture {
        replica: Replica::register(config).unwrap(),
        source,
        storage,
        _folder: folder,
    }
}

impl Fixture {
    fn on_disk(pages: Pages) -> Self {
        fixture(pages, Arc::new(OsStorage), 4096, Duration::from_secs(20))
    }

    fn open(&self) -> Conn {
        let options = OpenOptions {
            vfs: Some(VFS_NAME.into()),
            ..OpenOptions::default()
        };
        Conn::open(self.replica.name(), &options).unwrap()
    }

    fn fetches(&self) -> usize {
        self.source.fetches.load(Ordering::SeqCst)
    }

    /// A pull as the engine does it, without put-back: the pages that changed of those that are here, through
    /// `sqlite_dbpage`.
    fn pull(&self, pages: Pages) {
        let (present, dirty) = (self.replica.map().present(), self.replica.map().dirty());
        let index = self.source.revisions.lock().len();
        let old = self.source.revisions.lock()[index - 1].clone();
        let last = pages.len() as u32 - 1;
        let mut send: RoaringBitmap = (&present | &dirty)
            .iter()
            .filter(|&id| dirty.contains(id) || old.get(id as usize) != pages.get(id as usize))
            .filter(|&id| id <= last)
            .collect();
        send.insert(0);
        if pages.len() > old.len() {
            send.insert(last);
        }
        let differ: RoaringBitmap = (0..=last)
            .filter(|&id| old.get(id as usize) != pages.get(id as usize))
            .collect();
        let apply = self.open();
        apply.execute_batch("begin immediate").unwrap();
        let mut cookie = apply.prepare_one("pragma schema_version").unwrap();
        cookie.step().unwrap();
        let local = cookie.value(0).unwrap().as_i64().unwrap() as u32;
        drop(cookie);
        let mut put = apply
            .prepare_one("insert into sqlite_dbpage(pgno, data) values (?, ?)")
            .unwrap();
        for id in send.iter().rev_sorted() {
            let mut page = pages[id as usize].clone();
            if id == 0 {
                let remote = u32::from_be_bytes(page[40..44].try_into().unwrap());
                page[40..44].copy_from_slice(&(local.max(remote) + 1).to_be_bytes());
            }
            put.bind(1, rusqlite::types::ValueRef::Integer(i64::from(id) + 1))
                .unwrap();
            put.bind(2, rusqlite::types::ValueRef::Blob(&page)).unwrap();
            put.execute().unwrap();
        }
        drop(put);
        let next = NextBase {
            base: base(index, &pages),
            // In turns: what is known to be the same, and what is known not to be.
            stay: match index % 2 {
                0 => Stay::Only(present - &send),
                _ => Stay::AllBut(differ | &dirty),
            },
            committed: send.clone(),
            dirty: RoaringBitmap::new(),
            end: base(index, &pages).size,
        };
        self.source.revisions.lock().push(pages.clone());
        self.replica
            .move_base(&next, || apply.execute_batch("commit"))
            .unwrap();
    }
}

trait RevSorted: Iterator<Item = u32> + Sized {
    fn rev_sorted(self) -> impl Iterator<Item = u32> {
        let all: Vec<u32> = self.collect();
        all.into_iter().rev()
    }
}
impl<I: Iterator<Item = u32>> RevSorted for I {}

fn text(conn: &Conn, sql: &str) -> String {
    let mut stmt = conn.prepare_one(sql).unwrap();
    let mut out = String::new();
    while stmt.step().unwrap() == Step::Row {
        for column in 0..stmt.column_count() {
            out += &format!("{:?}|", stmt.value(column).unwrap());
        }
        out += "\n";
    }
    out
}

const ROWS: &str = "create table t(id integer primary key, v text); create index ti on t(v);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
    insert into t select x, 'row ' || x || printf('%040d', x) from c;";
const SUM: &str = "select count(*), sum(length(v)), min(v), max(v) from t";

#[test]
fn every_answer_on_absent_pages_equals_that_of_the_full_file() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let conn = fixture.open();
    for sql in [
        "select v from t where id = 777",
        SUM,
        "select id from t where v > 'row 5' order by v desc limit 20",
        "pragma journal_mode",
        "pragma integrity_check",
    ] {
        assert_eq!(text(&conn, sql), text(&original.0, sql), "{sql}");
    }
    let fetched = fixture.source.fetched.lock().len();
    assert_eq!(
        fetched,
        fixture.source.revisions.lock()[0].len(),
        "each page once"
    );
}

#[test]
fn invariant_4_a_reader_that_began_before_a_pull_sees_the_old_absent_pages() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let idle = fixture.open();
    text(&idle, "select v from t where id = 5");
    let expected_old = text(&original.0, SUM);

    let old_reader = fixture.open();
    old_reader.execute_batch("begin").unwrap();
    text(&old_reader, "select v from t where id = 5");

    original
        .0
        .execute_batch(
            "delete from t where id between 5000 and 9000; insert into t select id + 1000000, v || 'x' from t;
             create table other(z); insert into other values ('hello')",
        )
        .unwrap();
    fixture.pull(original.pages());

    // A new reader fills pages at the new revision; the old one must not be given them.
    let new_reader = fixture.open();
    assert_eq!(text(&new_reader, SUM), text(&original.0, SUM));
    assert_eq!(text(&old_reader, SUM), expected_old);
    old_reader.execute_batch("commit").unwrap();
    assert_eq!(text(&old_reader, SUM), text(&original.0, SUM));
    assert_eq!(
        text(&idle, "select z from other"),
        text(&original.0, "select z from other")
    );
    text(&idle, "pragma wal_checkpoint(truncate)");
    assert_eq!(
        text(&idle, "pragma integrity_check"),
        text(&original.0, "pragma integrity_check")
    );
    assert_eq!(text(&idle, SUM), text(&original.0, SUM));
}

#[test]
fn invariant_6_local_writes_survive_fetches_and_checkpoints() {
    let original = Original::new(ROWS);
    let fixture = fixture(
        original.pages(),
        Arc::new(OsStorage),
        64 << 10,
        Duration::from_secs(20),
    );
    let conn = fixture.open();
    for script in [
        "update t set v = 'local ' || id where id % 500 = 0",
        "delete from t where id % 700 = 0",
    ] {
        conn.execute_batch(script).unwrap();
        original.0.execute_batch(script).unwrap();
    }
    text(&conn, "pragma wal_checkpoint(truncate)");
    assert_eq!(text(&conn, SUM), text(&original.0, SUM));
    assert_eq!(
        text(&conn, "pragma integrity_check"),
        text(&original.0, "pragma integrity_check")
    );
    let dirty = fixture.replica.map().dirty();
    assert!(!dirty.is_empty() && dirty.is_subset(&fixture.replica.map().present()));
}

#[test]
fn the_page_map_is_durable_before_the_wal_is_reset_even_without_syncs() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let conn = fixture.open();
    conn.execute_batch("pragma synchronous=off; update t set v = 'x' where id = 3")
        .unwrap();
    text(&conn, "pragma wal_checkpoint(truncate)");
    let saved = Replica::load_map(&*fixture.storage, fixture.replica.name(), PageCount(u32::MAX))
        .unwrap()
        .unwrap();
    assert_eq!(saved.map.dirty(), fixture.replica.map().dirty());
    assert!(!saved.map.dirty().is_empty());
}

#[test]
fn invariant_10_a_read_of_an_absent_page_ends_with_the_deadline_and_works_again_later() {
    let original = Original::new(ROWS);
    let fixture = fixture(
        original.pages(),
        Arc::new(OsStorage),
        4096,
        Duration::from_millis(200),
    );
    let conn = fixture.open();
    text(&conn, "select v from t where id = 5");
    fixture.source.silent.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let error = conn.execute_batch("select count(*) from t").unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(
        error.to_string().contains("did not arrive within 200ms"),
        "{error}"
    );
    fixture.source.silent.store(false, Ordering::SeqCst);
    fixture.source.kept.lock().clear();
    assert_eq!(text(&conn, SUM), text(&original.0, SUM));
}

#[test]
fn invariant_5_a_failed_fetch_fails_the_query_with_the_page_and_the_cause() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let conn = fixture.open();
    text(&conn, "select v from t where id = 5");
    fixture.source.broken.store(true, Ordering::SeqCst);
    let error = conn.execute_batch("select count(*) from t").unwrap_err();
    assert!(
        error.to_string().contains("the cable is cut") && error.to_string().contains("page "),
        "{error}"
    );
    // What is here still answers.
    text(&conn, "select v from t where id = 5");
    fixture.source.broken.store(false, Ordering::SeqCst);
    assert_eq!(text(&conn, SUM), text(&original.0, SUM));
}

#[test]
fn invariant_10_an_interrupt_breaks_the_wait_for_a_page() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let conn = fixture.open();
    fixture.source.silent.store(true, Ordering::SeqCst);
    let handle = conn.interrupt_handle();
    let source = fixture.source.clone();
    // Opening may have fetched page 1; an interrupt before the statement runs would be lost.
    let before = source.fetches.load(Ordering::SeqCst);
    let interrupter = std::thread::spawn(move || {
        while source.fetches.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
        handle.interrupt();
    });
    let error = conn.execute_batch("select count(*) from t").unwrap_err();
    interrupter.join().unwrap();
    assert!(error.to_string().to_lowercase().contains("interrupt"), "{error}");
}

#[test]
fn two_readers_that_miss_the_same_page_share_one_fetch() {
    let original = Original::new(ROWS);
    let expected = text(&original.0, SUM);
    let fixture = Fixture::on_disk(original.pages());
    let conns: Vec<Conn> = (0..8).map(|_| fixture.open()).collect();
    std::thread::scope(|scope| {
        for conn in &conns {
            scope.spawn(|| assert_eq!(text(conn, SUM), expected));
        }
    });
    let mut fetched = fixture.source.fetched.lock().clone();
    let all = fetched.len();
    fetched.sort();
    fetched.dedup();
    assert_eq!(fetched.len(), all, "no page twice");
    assert!(fixture.fetches() <= all);
}

#[test]
fn a_memory_replica_touches_no_disk() {
    let original = Original::new(ROWS);
    let fixture = fixture(
        original.pages(),
        Arc::new(MemoryStorage::default()),
        4096,
        Duration::from_secs(20),
    );
    let conn = fixture.open();
    conn.execute_batch("update t set v = 'here' where id = 9")
        .unwrap();
    original
        .0
        .execute_batch("update t set v = 'here' where id = 9")
        .unwrap();
    assert_eq!(text(&conn, SUM), text(&original.0, SUM));
    text(&conn, "pragma wal_checkpoint(truncate)");
    assert_eq!(text(&conn, SUM), text(&original.0, SUM));
    let path: PathBuf = fixture.replica.name().to_owned();
    drop(conn);
    assert!(!path.exists());
    assert_eq!(
        std::fs::read_dir(Path::new(path.parent().unwrap()))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_connection_that_closes_leaves_the_wal_to_the_others() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let (a, b) = (fixture.open(), fixture.open());
    a.execute_batch("update t set v = 'a' where id = 1").unwrap();
    b.execute_batch("begin; select * from t limit 1").unwrap();
    drop(a);
    assert_eq!(text(&b, "select v from t where id = 1"), "Text([97])|\n");
    b.execute_batch("commit").unwrap();
    drop(b);
    let c = fixture.open();
    assert_eq!(text(&c, "select v from t where id = 1"), "Text([97])|\n");
}

#[test]
fn a_whole_database_keeps_its_files_in_its_storage() {
    let storage = Arc::new(MemoryStorage::default());
    let path = PathBuf::from("/whole/side.db");
    let open = |replica: &Replica| {
        let options = OpenOptions {
            vfs: Some(VFS_NAME.into()),
            ..OpenOptions::default()
        };
        Conn::open(replica.name(), &options).unwrap()
    };
    {
        let replica = Replica::register_whole(storage.clone(), path.clone()).unwrap();
        let conn = open(&replica);
        conn.execute_batch(
            "create table j(x); insert into j values (1); pragma journal_mode=wal; create table t(x)",
        )
        .unwrap();
        conn.execute_batch("with recursive c(x) as (select 1 union all select x + 1 from c where x < 5000) insert into t select hex(zeroblob(100)) from c").unwrap();
        let other = open(&replica);
        assert_eq!(text(&other, "select count(*) from t"), "Integer(5000)|\n");
    }
    let replica = Replica::register_whole(storage, path.clone()).unwrap();
    assert_eq!(
        text(&open(&replica), "pragma integrity_check; "),
        "Text([111, 107])|\n"
    );
    assert_eq!(
        text(&open(&replica), "select count(*) from t"),
        "Integer(5000)|\n"
    );
    assert!(!path.exists());
}

#[test]
fn a_reader_that_joined_a_fetch_which_failed_fetches_for_itself() {
    let original = Original::new(ROWS);
    let fixture = Fixture::on_disk(original.pages());
    let (a, b) = (fixture.open(), fixture.open());
    fixture.source.silent.store(true, Ordering::SeqCst);
    let source = fixture.source.clone();
    let interrupt = a.interrupt_handle();
    let before = source.fetches.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| a.execute_batch("select count(*) from t"));
        while source.fetches.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
        interrupt.interrupt();
        assert!(first.join().unwrap().is_err());
        // Its fetch is still in the air; the second reader joins it.
        source.silent.store(false, Ordering::SeqCst);
        let second = scope.spawn(|| text(&b, SUM));
        let sink = source.kept.lock().pop().unwrap();
        sink.finish(Err(Arc::new(std::io::Error::other("given up"))));
        assert_eq!(second.join().unwrap(), text(&original.0, SUM));
    });
}

/// Another instance of a fixture's replica.
fn register_again(fixture: &Fixture, wait: Duration) -> std::io::Result<Arc<Replica>> {
    Replica::register(ReplicaConfig {
        storage: fixture.storage.clone(),
        path: fixture.replica.name().to_owned(),
        page_size: fixture.replica.page_size(),
        base: fixture.replica.base(),
        map: PageMap::from_sets(&fixture.replica.map().present(), &fixture.replica.map().dirty()),
        source: fixture.source.clone(),
        segment: SegmentSize::new(4096).unwrap(),
        prefetch: false,
        wait,
        temporary: false,
    })
}

#[test]
fn c3_a_connection_that_outlives_its_instance_can_do_nothing_and_keeps_the_next_one_away() {
    let original = Original::new(ROWS);
    let mut fixture = Fixture::on_disk(original.pages());
    let conn = fixture.open();
    conn.execute_batch("update t set v = 'mine' where id = 3")
        .unwrap();
    let mut kept = conn.prepare_one("select v from t where id < 10").unwrap();
    assert!(kept.step().unwrap() == Step::Row);

    fixture.replica.close();
    let error = conn
        .execute_batch("update t set v = 'lost' where id = 4")
        .unwrap_err();
    assert!(error.to_string().contains("the replica was closed"), "{error}");
    let options = OpenOptions {
        vfs: Some(VFS_NAME.into()),
        ..OpenOptions::default()
    };
    let opened =
        Conn::open(fixture.replica.name(), &options).and_then(|c| c.execute_batch("select * from t"));
    let error = opened.unwrap_err();
    assert!(error.to_string().contains("the replica was closed"), "{error}");

    let error = register_again(&fixture, Duration::from_millis(50)).err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(
        error.to_string().contains("still in use by connections"),
        "{error}"
    );

    drop(conn);
    assert!(
        register_again(&fixture, Duration::from_millis(50)).is_err(),
        "the statement keeps it"
    );
    let next = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| register_again(&fixture, Duration::from_secs(20)));
        drop(kept);
        waiting.join().unwrap().unwrap()
    });
    // Closing the old connection has neither checkpointed nor removed the WAL.
    next.account_for_wal(None).unwrap();
    fixture.replica = next;
    let conn = fixture.open();
    assert_eq!(
        text(&conn, "select v from t where id = 3"),
        "Text([109, 105, 110, 101])|\n"
    );
}

/// A pull whose put-back made the database shorter than its base is: a checkpoint may pass by what the WAL has of the rest.
#[test]
fn what_is_here_beyond_the_end_that_a_pull_leaves_is_dirty() {
    let original = Original::new(ROWS);
    let fixture = fixture(
        original.pages(),
        Arc::new(OsStorage),
        4096,
        Duration::from_secs(10),
    );
    let conn = fixture.open();
    text(&conn, "select count(v) from t");
    let map = fixture.replica.map();
    let beyond = map.present_from(PageCount(2));
    assert!(!beyond.is_empty());
    let next = NextBase {
        base: fixture.replica.base(),
        stay: Stay::AllBut(RoaringBitmap::new()),
        committed: RoaringBitmap::new(),
        dirty: RoaringBitmap::new(),
        end: PageCount(2),
    };
    fixture.replica.move_base(&next, || Ok::<_, ()>(())).unwrap();
    assert_eq!(map.dirty(), beyond);
    assert_eq!(map.present_from(PageCount(2)), beyond);
}

#[test]
fn c3_a_fetch_that_never_ends_keeps_nothing_open() {
    let original = Original::new(ROWS);
    let fixture = fixture(
        original.pages(),
        Arc::new(OsStorage),
        4096,
        Duration::from_millis(100),
    );
    let conn = fixture.open();
    text(&conn, "select v from t where id = 5");
    fixture.source.silent.store(true, Ordering::SeqCst);
    conn.execute_batch("select count(*) from t").unwrap_err();
    drop(conn);
    assert_eq!(fixture.replica.wait_until_unused(Duration::ZERO), 0);
    let (weak, source) = (Arc::downgrade(&fixture.replica), fixture.source.clone());
    drop(fixture);
    assert!(weak.upgrade().is_none());
    // The answer comes at last, for nobody.
    let sink = source.kept.lock().pop().unwrap();
    assert!(sink.page(PageNo::new(2).unwrap(), &[0; 4096]).is_err());
    sink.finish(Ok(()));
}

/// A disk on which the next operation of one kind on one file fails.
struct Failing {
    disk: MemoryStorage,
    next: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

struct FailingFile {
    file: Arc<dyn partial_sync_vfs::StorageFile>,
    path: PathBuf,
    next: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

fn fails(
    next: &Mutex<Option<(&'static str, &'static str)>>,
    operation: &str,
    path: &Path,
) -> std::io::Result<()> {
    let mut next = next.lock();
    match *next {
        Some((wanted, suffix)) if wanted == operation && path.to_str().unwrap().ends_with(suffix) => {
            *next = None;
            Err(std::io::Error::other("the disk is on fire"))
        }
        _ => Ok(()),
    }
}

impl partial_sync_vfs::StorageFile for FailingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        fails(&self.next, "read", &self.path)?;
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        // A page map that was saved before is saved into its file.
        let is_map = self.path.to_string_lossy().ends_with("-pages");
        fails(&self.next, if is_map { "save" } else { "write" }, &self.path)?;
        self.file.write_at(data, offset)
    }
    fn sync(&self) -> std::io::Result<()> {
        fails(&self.next, "sync", &self.path)?;
        self.file.sync()
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        fails(&self.next, "truncate", &self.path)?;
        self.file.set_len(len)
    }
    fn len(&self) -> std::io::Result<u64> {
        fails(&self.next, "measure", &self.path)?;
        self.file.len()
    }
}

impl Storage for Failing {
    fn open(&self, path: &Path, create: bool) -> std::io::Result<Arc<dyn partial_sync_vfs::StorageFile>> {
        fails(&self.next, "open", path)?;
        Ok(Arc::new(FailingFile {
            file: self.disk.open(path, create)?,
            path: path.to_owned(),
            next: self.next.clone(),
        }))
    }
    fn exists(&self, path: &Path) -> std::io::Result<bool> {
        fails(&self.next, "look for", path)?;
        self.disk.exists(path)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        fails(&self.next, "remove", path)?;
        self.disk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        fails(&self.next, "save", to)?;
        self.disk.rename(from, to)
    }
    fn sync_folder(&self, path: &Path) -> std::io::Result<()> {
        self.disk.sync_folder(path)
    }
    fn lock(&self, path: &Path) -> std::io::Result<Box<dyn std::any::Any + Send + Sync>> {
        self.disk.lock(path)
    }
}

#[test]
fn c3_an_error_of_the_disk_names_the_file_the_operation_and_the_cause() {
    let pages = Original::new(ROWS).pages();
    let write = "pragma synchronous=full; update t set v = 'x' where id = 3";
    let checkpoint = "pragma wal_checkpoint(truncate)";
    for (operation, file, sql) in [
        ("open", "-replica-wal", "select count(*) from t"),
        ("measure", "-replica-wal", "select count(*) from t"),
        ("look for", "-replica-wal", "select count(*) from t"),
        ("read", ".db", "select count(*) from t"),
        ("write", "-replica-wal", write),
        ("sync", "-replica-wal", write),
        ("read", "-replica-wal", checkpoint),
        ("write", ".db", checkpoint),
        ("sync", ".db", checkpoint),
        ("save", "-pages", checkpoint),
        ("truncate", "-replica-wal", checkpoint),
    ] {
        let next = Arc::new(Mutex::new(None));
        let storage = Failing {
            disk: MemoryStorage::default(),
            next: next.clone(),
        };
        let fixture = fixture(pages.clone(), Arc::new(storage), 4096, Duration::from_secs(20));
        let conn = fixture.open();
        if sql != "select count(*) from t" || operation == "read" {
            text(&conn, "select count(*) from t");
            conn.execute_batch("update t set v = 'before' where id = 2")
                .unwrap();
            // Nothing of a page cache may answer.
            conn.execute_batch("pragma cache_size = 1; pragma shrink_memory")
                .unwrap();
        }
        *next.lock() = Some((operation, file));
        let result = conn.execute_batch(sql);
        assert!(next.lock().is_none(), "{operation} {file}: it did not happen");
        let error = result.expect_err(&format!("{operation} {file}")).to_string();
        assert!(
            error.contains(&format!("could not {operation} "))
                && error.contains("app.db")
                && error.contains(&format!("{file}: the disk is on fire")),
            "{operation} {file}: {error}"
        );
        assert!(!error.contains("disk I/O error"), "{error}");
    }
}

/// A whole map was being saved, and the process was killed between its rename and the sync of the folder. The next one writes and
/// checkpoints, and the power fails.
fn survives_after_a_killed_save(synchronous: &str) {
    let original = Original::new(
        "create table t(id integer primary key, v text);
         with recursive c(x) as (select 1 union all select x + 1 from c where x < 100) insert into t select x, 'v' from c",
    );
    let pages = original.pages();
    let page_size = PageSize::new(pages[0].len() as u32).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("app.db");
    let source = Arc::new(Recorded::default());
    source.revisions.lock().push(pages.clone());
    let all = PageCount(u32::MAX);
    let register = |storage: &CrashStorage, map: PageMap| {
        Replica::register(ReplicaConfig {
            storage: Arc::new(storage.clone()),
            path: path.clone(),
            page_size,
            base: base(0, &pages),
            map,
            source: source.clone(),
            segment: SegmentSize::new(4096).unwrap(),
            prefetch: false,
            wait: Duration::from_secs(5),
            temporary: false,
        })
        .unwrap()
    };
    let open = || {
        let options = OpenOptions {
            vfs: Some(VFS_NAME.into()),
            ..OpenOptions::default()
        };
        Conn::open(&path, &options).unwrap()
    };
    let storage = CrashStorage::new(&path);
    let first = register(&storage, PageMap::new());
    let conn = open();
    assert_eq!(text(&conn, "select count(*) from t"), "Integer(100)|\n");
    first.save_map().unwrap();
    drop(conn);
    first.close();
    drop(first);
    // The next process replaces the map (one of version 1, say) and is killed before the sync of the folder.
    let map = Replica::load_map(&storage, &path, all).unwrap().unwrap().map;
    let map = PageMap::from_sets(&map.present(), &map.dirty());
    let at = storage.operations() + 5;
    storage.trouble(Some(Trouble::Fail(at, at + 1, io::ErrorKind::Other)));
    save_page_map(&storage, &path, &map, page_size, base(0, &pages).size, || Ok(())).unwrap_err();
    assert_eq!(storage.trace().last().unwrap(), "sync_folder");
    // The one after it writes, and checkpoints.
    let map = Replica::load_map(&storage, &path, all).unwrap().unwrap().map;
    let second = register(&storage, map);
    let conn = open();
    conn.execute_batch(&format!(
        "pragma synchronous={synchronous};
         with recursive c(x) as (select 101 union all select x + 1 from c where x < 2000) insert into t select x, printf('%0200d', x) from c"
    ))
    .unwrap();
    text(&conn, "pragma wal_checkpoint(truncate)");
    let after = storage.after_crash(Survives::Synced, &path);
    drop(conn);
    second.close();
    drop(second);
    // The power had failed.
    let map = Replica::load_map(&after, &path, all).unwrap().unwrap().map;
    map.truncate(PageCount(
        (after.file("").unwrap().len() / page_size.as_usize()) as u32,
    ));
    let third = register(&after, map);
    let conn = open();
    assert_eq!(text(&conn, "select count(*) from t"), "Integer(2000)|\n");
    let ok = text(&conn, "pragma integrity_check");
    assert_eq!(ok, "Text([111, 107])|\n");
    drop(conn);
    third.close();
}

#[test]
fn invariant_1_what_a_checkpoint_moved_after_a_killed_save_survives_a_power_failure() {
    // Without syncs of SQLite's own, too.
    for synchronous in ["off", "normal"] {
        survives_after_a_killed_save(synchronous);
    }
}

/// Every second page of 100,000 is here: what is said of that is some KiB, and true.
#[test]
fn what_a_fetch_says_of_many_pages_here_and_there_is_little() {
    let fixture = fixture(
        vec![vec![0; 512]],
        Arc::new(MemoryStorage::default()),
        4096,
        Duration::from_secs(1),
    );
    let map = fixture.replica.map();
    let have = || fixture.replica.begin_fetch([]).unwrap().2.have();
    for n in (1..2000).step_by(2) {
        map.set_present(PageNo::new(n).unwrap(), Epoch(0));
    }
    assert!(have() == map.present(), "they are few");
    for n in (2001..100_000).step_by(2) {
        map.set_present(PageNo::new(n).unwrap(), Epoch(0));
    }
    let start = have();
    assert!(start.iter().eq((0..4096).step_by(2)), "the start of the file");
    assert!(start.serialized_size() < 8 << 10);
}

/// Was red: beside what a query touches a remote may send anything, and each page took 64 KiB of a replica in memory, wherever it was.
#[test]
fn invariant_11_pages_that_the_base_has_not_are_not_stored() {
    let fixture = fixture(
        vec![vec![0; 512]; 3],
        Arc::new(MemoryStorage::default()),
        4096,
        Duration::from_secs(1),
    );
    let (_, _, sink) = fixture.replica.begin_fetch([]).unwrap();
    for n in [3, 4, 1 << 20, u32::MAX] {
        sink.page(PageNo::new(n).unwrap(), &[7; 512]).unwrap();
    }
    sink.finish(Ok(()));
    assert!(fixture.replica.map().present().iter().eq([2]));
    let file = fixture.storage.open(fixture.replica.name(), false).unwrap();
    assert_eq!(file.len().unwrap(), 3 * 512);
}
