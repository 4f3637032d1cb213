//! A database whose pages are absent, under real SQLite, with a source that hands out pages of recorded revisions.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_core::{PageCount, PageMap, PageNo, PageSize, Revision, SegmentSize};
use partial_sync_vfs::{
    Base, MemoryStorage, Miss, OsStorage, PageSink, PageSource, Replica, ReplicaConfig, Storage, VFS_NAME,
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
    kept: Mutex<Vec<PageSink>>,
}

impl PageSource for Recorded {
    fn fetch(&self, miss: Miss, sink: PageSink) {
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
        let keep = (&present | &send) & (0..=last).collect::<RoaringBitmap>();
        self.source.revisions.lock().push(pages.clone());
        let gate = self.replica.close_gate();
        apply.execute_batch("commit").unwrap();
        gate.move_base(base(index, &pages), &keep);
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
    let saved = Replica::load_map(&*fixture.storage, fixture.replica.name())
        .unwrap()
        .unwrap();
    assert_eq!(saved.dirty, fixture.replica.map().dirty());
    assert!(!saved.dirty.is_empty());
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
