//! Small requests for an older revision: answered without asking the page history's file where that can be, and right whatever
//! happens meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use parking_lot::Mutex;
use partial_sync_core::{PageCount, PageNo, PageSize, Revision};
use partial_sync_server::{
    HistoryError, Retention, Server, ServerHandle,
    history::{
        Changes, Comparison, Generation, History, HistorySize, Kept, KeptRevision, Position, Pruned,
        RevisionRecord, Seq, SqliteHistory,
    },
};
use partial_sync_transport::{PageSelector, PagesRequest};
use roaring::RoaringBitmap;
use rusqlite::Connection;

use super::support::{Client, TestDb, ids, insert};

/// What the tests of a history know of it, and do with it.
#[derive(Clone, Default)]
struct Watch {
    /// How often its file was asked for a revision, for pages or for what changed.
    asked: Arc<AtomicUsize>,
    /// Done when it is next asked for pages that it has in memory, before it looks or after.
    meanwhile: Arc<Mutex<Option<(When, Work)>>>,
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    After,
}

impl Watch {
    fn now(&self, when: When) {
        let work = self.meanwhile.lock().take_if(|(at, _)| *at == when);
        work.into_iter().for_each(|(_, work)| work());
    }
}

struct Watched {
    inner: SqliteHistory,
    watch: Watch,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

macro_rules! as_the_inner_one {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $out { self.inner.$name($($arg),*) })*
    };
}

impl History for Watched {
    as_the_inner_one! {
        generation() -> Result<Option<(Generation, PageSize)>, HistoryError>;
        begin_as(generation: Generation, first: Seq, page_size: PageSize, size: PageCount, ms: i64) -> Result<(), HistoryError>;
        resume(after: RevisionRecord, seq: Option<Seq>, size: PageCount, ms: i64) -> Result<RevisionRecord, HistoryError>;
        pass(fence: Seq, ms: i64) -> Result<(), HistoryError>;
        changed_by(seq: Seq) -> Result<RoaringBitmap, HistoryError>;
        log_nodes() -> Result<Vec<u64>, HistoryError>;
        set_log_nodes(nodes: &[u64]) -> Result<(), HistoryError>;
        comparison() -> Result<Option<Comparison>, HistoryError>;
        compare(latest: RevisionRecord, at: Comparison, hashes: &[Option<u64>]) -> Result<Option<Comparison>, HistoryError>;
        forget() -> Result<(), HistoryError>;
        latest() -> Result<RevisionRecord, HistoryError>;
        leap() -> ();
        record(after: RevisionRecord, size: PageCount, ms: i64, changes: &mut Changes<'_>) -> Result<Option<RevisionRecord>, HistoryError>;
        lost(seq: Seq) -> Result<RoaringBitmap, HistoryError>;
        position() -> Result<Option<(Seq, Position)>, HistoryError>;
        set_position(seq: Seq, position: &Position) -> Result<(), HistoryError>;
        prune(retention: &Retention, ms: i64) -> Result<Pruned, HistoryError>;
        drop_before(seq: Seq) -> Result<bool, HistoryError>;
        list(before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError>;
        at_time(ms: i64) -> Result<Option<RevisionRecord>, HistoryError>;
        size() -> Result<HistorySize, HistoryError>;
        place() -> String;
        revision_at_once(seq: Seq) -> Option<RevisionRecord>;
        changed_at_once(since: Seq, until: Seq) -> Option<RoaringBitmap>;
    }

    fn changed(&self, since: Seq, until: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.watch.asked.fetch_add(1, SeqCst);
        self.inner.changed(since, until)
    }

    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        self.watch.asked.fetch_add(1, SeqCst);
        self.inner.revision(seq)
    }

    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        self.watch.asked.fetch_add(1, SeqCst);
        self.inner.pages_at(seq, pages)
    }

    fn pages_at_once(&self, seq: Seq, pages: &[PageNo]) -> Option<Vec<Kept>> {
        self.watch.now(When::Before);
        let found = self.inner.pages_at_once(seq, pages);
        self.watch.now(When::After);
        found
    }
}

async fn serve(db: &TestDb) -> (ServerHandle, Watch) {
    let watch = Watch::default();
    let watching = watch.clone();
    let server = Server::builder(&db.path)
        .history(move |path| {
            let (inner, watch) = (SqliteHistory::open(path)?, watching.clone());
            Ok(Arc::new(Watched { inner, watch }))
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    (server, watch)
}

fn page(id: u32, revision: &Revision) -> PagesRequest {
    PagesRequest {
        revision: Some(revision.clone()),
        select: ids([id]),
        ..PagesRequest::default()
    }
}

/// Was slow: every request for an older revision asked the file twice, on threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v22_the_file_of_the_history_is_asked_once_for_a_page_that_has_changed_and_never_for_another() {
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 100);
    let (server, watch) = serve(&db).await;
    let client = Client::new(&server.url());
    let mut kept = Vec::new();
    for id in [1, 50, 100, 50] {
        kept.push(client.latest().await);
        writer
            .execute("UPDATE t SET v = zeroblob(500) WHERE id = ?", [id])
            .unwrap();
    }
    let last = client.latest().await;
    watch.asked.store(0, SeqCst);
    for _ in 0..2 {
        for old in &kept {
            for id in 0..old.size {
                let found = client.ask(page(id, &old.revision)).await.unwrap();
                assert_eq!(found.pages[&id], old.pages[&id]);
            }
        }
        // What each commit changed. A page that has changed twice was two things before.
        let mut changes = 0;
        for (old, new) in kept.iter().zip(kept.iter().skip(1).chain([&last])) {
            changes += old
                .pages
                .iter()
                .filter(|(id, data)| new.pages[id] != **data)
                .count();
        }
        assert!(changes >= 3, "{changes}");
        assert_eq!(watch.asked.load(SeqCst), changes);
    }
    server.shutdown().await;
}

/// Was slow: each pull, and each of many polls that one commit woke, asked the file on a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v15_what_changed_lately_is_told_without_asking_the_file() {
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 300);
    let (server, watch) = serve(&db).await;
    let client = Client::new(&server.url());
    let mut kept = Vec::new();
    for change in [
        "UPDATE t SET v = zeroblob(500) WHERE id = 7",
        "INSERT INTO t (id, v) SELECT id + 1000, v FROM t WHERE id < 100",
        "UPDATE t SET v = zeroblob(400) WHERE id IN (7, 200)",
        "DELETE FROM t WHERE id % 2",
        "VACUUM",
        "INSERT INTO t (id, v) SELECT id + 2000, v FROM t WHERE id < 50",
    ] {
        kept.push(client.latest().await);
        writer.execute_batch(change).unwrap();
    }
    let last = client.latest().await;
    assert!(kept.iter().any(|old| old.size > last.size), "it has shrunk");
    for select in [PageSelector::All, ids(0..last.size / 2)] {
        watch.asked.store(0, SeqCst);
        for old in &kept {
            let since = PagesRequest {
                since: Some(old.revision.clone()),
                select: select.clone(),
                ..PagesRequest::default()
            };
            let told = client.ask(since).await.unwrap();
            let chosen = |id: u32| match &select {
                PageSelector::All => true,
                PageSelector::Ids(ids) => ids.contains(id),
            };
            for id in (0..last.size).filter(|id| chosen(*id)) {
                let found = told.pages.get(&id).or_else(|| old.pages.get(&id));
                assert!(found == Some(&last.pages[&id]), "page {id} differs");
            }
            let unasked = told
                .pages
                .keys()
                .filter(|id| !chosen(**id) && **id + 1 != last.size);
            assert_eq!(unasked.count(), 0);
        }
        assert_eq!(watch.asked.load(SeqCst), 0);
    }
    // What the server does not remember, it finds in the file.
    server.shutdown().await;
    let (server, watch) = serve(&db).await;
    let client = Client::new(&server.url());
    for old in &kept {
        let since = PagesRequest {
            since: Some(old.revision.clone()),
            ..PagesRequest::default()
        };
        let told = client.ask(since).await.unwrap();
        for (id, data) in &last.pages {
            let found = told.pages.get(id).or_else(|| old.pages.get(id));
            assert!(found == Some(data), "page {id} differs");
        }
    }
    assert!(watch.asked.load(SeqCst) > 0);
    server.shutdown().await;
}

/// Commits, their revisions and checkpoints come after the latest state was taken for an answer, before or after the history is
/// asked what has changed since the revision of the answer, and before its pages are read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v22_a_commit_and_a_checkpoint_between_looking_and_reading_change_no_answer() {
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let (server, watch) = serve(&db).await;
    let client = Client::new(&server.url());
    let old = client.latest().await;
    let started = Connection::open(&db.path).unwrap();
    started
        .execute("UPDATE t SET v = zeroblob(500) WHERE id = 1", ())
        .unwrap();
    client.latest().await;
    let change = |path: std::path::PathBuf, client: Client| {
        move || {
            let writer = Connection::open(&path).unwrap();
            writer.busy_timeout(std::time::Duration::from_millis(50)).unwrap();
            let seen = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                for mode in ["PASSIVE", "TRUNCATE", "RESTART"] {
                    writer
                        .execute("UPDATE t SET v = randomblob(500) WHERE id < 90", ())
                        .unwrap();
                    // On a connection of its own: it cannot wait behind the request that is being held.
                    let client = Client::new(&client.url);
                    runtime.as_ref().unwrap().block_on(client.latest());
                    writer
                        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
                        .unwrap();
                }
                // The pages that were free are others' now.
                writer
                    .execute_batch("DELETE FROM t WHERE id % 2; VACUUM")
                    .unwrap();
            });
            tokio::task::block_in_place(|| seen.join().unwrap());
        }
    };
    // What was not asked before, so that no answer that was given is given again.
    let mut from = 1..old.size;
    let mut is_as_it_was = async |when: When| {
        let select = ids(from.next().unwrap()..old.size);
        let request = PagesRequest {
            revision: Some(old.revision.clone()),
            select,
            ..PagesRequest::default()
        };
        let found = client.ask(request).await.unwrap();
        let wanted = old.order.iter().skip(from.start as usize - 1);
        assert!(found.order.iter().eq(wanted), "{when:?}");
        let differs = found.pages.iter().find(|(id, data)| old.pages[id] != **data);
        assert_eq!(differs.map(|(id, _)| id), None, "{when:?}");
    };
    for when in [When::After, When::Before, When::After] {
        // Then what has changed already is in memory.
        for id in 0..old.size {
            client.ask(page(id, &old.revision)).await.unwrap();
        }
        *watch.meanwhile.lock() = Some((when, Box::new(change(db.path.clone(), client.clone()))));
        is_as_it_was(when).await;
        assert!(watch.meanwhile.lock().is_none(), "nothing happened meanwhile");
        is_as_it_was(when).await;
        let now = client.latest().await;
        assert_eq!(client.at(&now.revision).await.unwrap(), now);
    }
    server.shutdown().await;
}

/// What is let go of is not told from memory either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v22_a_revision_that_was_let_go_of_is_no_longer_told_from_memory() {
    let folder = TestDb::new();
    let history = SqliteHistory::open(&folder.path).unwrap();
    history.begin(PageSize::DEFAULT, PageCount(3), 0).unwrap();
    let mut latest = history.latest().unwrap();
    let first = latest;
    for n in 1..=3 {
        let change = partial_sync_server::history::Change {
            page: PageNo::new(n).unwrap(),
            before: partial_sync_server::history::Before::Page(vec![n as u8; 4096].into()),
            after: Some(0),
        };
        let changes = &mut std::iter::once(Ok(change));
        latest = history
            .record(latest, PageCount(3), n.into(), changes)
            .unwrap()
            .unwrap();
    }
    assert_eq!(history.revision_at_once(first.seq), Some(first));
    let retention = Retention {
        age: std::time::Duration::ZERO,
        bytes: 0,
    };
    while history.prune(&retention, 100).unwrap().more {}
    assert_eq!(history.revision_at_once(first.seq), None);
    assert_eq!(history.pages_at_once(first.seq, &[PageNo::FIRST]), None);
    assert_eq!(history.changed_at_once(first.seq, latest.seq), None);
    assert_eq!(history.revision_at_once(latest.seq), Some(latest));
    // Another life counts from the same number.
    history.begin(PageSize::DEFAULT, PageCount(3), 0).unwrap();
    assert_eq!(history.revision_at_once(latest.seq), None);
    assert_eq!(history.pages_at_once(first.seq, &[PageNo::FIRST]), None);
    assert_eq!(history.changed_at_once(first.seq, latest.seq), None);
}
