//! The disk of the page history is full.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::{
    HistoryError, Retention, Server,
    history::{
        Changes, Comparison, Generation, History, HistorySize, Kept, KeptRevision, Position, Pruned,
        RevisionRecord, Seq, SqliteHistory,
    },
};
use partial_sync_transport::PagesRequest;
use roaring::RoaringBitmap;
use rusqlite::ffi;

use crate::pages::support::{Client, TestDb, dump, insert};

/// A history that cannot be written while its disk is full.
#[derive(Debug)]
pub(super) struct OnDisk {
    pub(super) inner: SqliteHistory,
    pub(super) full: Arc<AtomicBool>,
    /// Comparing gets nowhere.
    pub(super) stuck: bool,
}

impl OnDisk {
    fn writing(&self) -> Result<&SqliteHistory, HistoryError> {
        let full = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        match self.full.load(SeqCst) {
            true => Err(full().into()),
            false => Ok(&self.inner),
        }
    }
}

impl History for OnDisk {
    fn generation(&self) -> Result<Option<(Generation, PageSize)>, HistoryError> {
        self.inner.generation()
    }

    fn begin_as(
        &self,
        generation: Generation,
        first: Seq,
        page_size: PageSize,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<(), HistoryError> {
        self.writing()?
            .begin_as(generation, first, page_size, db_size, unix_ms)
    }

    fn resume(
        &self,
        after: RevisionRecord,
        seq: Option<Seq>,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<RevisionRecord, HistoryError> {
        self.writing()?.resume(after, seq, db_size, unix_ms)
    }

    fn pass(&self, fence: Seq, unix_ms: i64) -> Result<(), HistoryError> {
        self.writing()?.pass(fence, unix_ms)
    }

    fn changed_by(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.inner.changed_by(seq)
    }

    fn log_nodes(&self) -> Result<Vec<u64>, HistoryError> {
        self.inner.log_nodes()
    }

    fn set_log_nodes(&self, nodes: &[u64]) -> Result<(), HistoryError> {
        self.writing()?.set_log_nodes(nodes)
    }

    fn comparison(&self) -> Result<Option<Comparison>, HistoryError> {
        self.inner.comparison()
    }

    fn compare(
        &self,
        latest: RevisionRecord,
        at: Comparison,
        hashes: &[Option<u64>],
    ) -> Result<Option<Comparison>, HistoryError> {
        match self.stuck {
            true => Ok(Some(at)),
            false => self.writing()?.compare(latest, at, hashes),
        }
    }

    fn forget(&self) -> Result<(), HistoryError> {
        self.writing()?.forget()
    }

    fn latest(&self) -> Result<RevisionRecord, HistoryError> {
        self.inner.latest()
    }

    fn leap(&self) {
        self.inner.leap();
    }

    fn record(
        &self,
        after: RevisionRecord,
        db_size: PageCount,
        unix_ms: i64,
        changes: &mut Changes<'_>,
    ) -> Result<Option<RevisionRecord>, HistoryError> {
        self.writing()?.record(after, db_size, unix_ms, changes)
    }

    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        self.inner.revision(seq)
    }

    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        self.inner.pages_at(seq, pages)
    }

    fn changed(&self, since: Seq, until: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.inner.changed(since, until)
    }

    fn lost(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.inner.lost(seq)
    }

    fn position(&self) -> Result<Option<(Seq, Position)>, HistoryError> {
        self.inner.position()
    }

    fn set_position(&self, seq: Seq, position: &Position) -> Result<(), HistoryError> {
        self.writing()?.set_position(seq, position)
    }

    fn prune(&self, retention: &Retention, unix_ms: i64) -> Result<Pruned, HistoryError> {
        self.writing()?.prune(retention, unix_ms)
    }

    fn drop_before(&self, seq: Seq) -> Result<bool, HistoryError> {
        self.writing()?.drop_before(seq)
    }
    fn list(&self, before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError> {
        self.inner.list(before, limit)
    }
    fn at_time(&self, unix_ms: i64) -> Result<Option<RevisionRecord>, HistoryError> {
        self.inner.at_time(unix_ms)
    }
    fn size(&self) -> Result<HistorySize, HistoryError> {
        self.inner.size()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}

/// Was red: a request for a revision that is kept was answered with 500, like every other one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v8_kept_revisions_are_served_while_the_history_cannot_be_written() {
    let db = TestDb::new();
    let full = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&full);
    let server = Server::builder(&db.path)
        .history(move |path| {
            let (inner, full) = (SqliteHistory::open(path)?, Arc::clone(&switch));
            let stuck = false;
            Ok(Arc::new(OnDisk { inner, full, stuck }))
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    insert(&db.open(), 1, 50);
    let first = client.latest().await;
    insert(&db.open(), 51, 50);
    let second = client.latest().await;
    full.store(true, SeqCst);
    insert(&db.open(), 101, 50);
    for kept in [&first, &second] {
        assert_eq!(client.at(&kept.revision).await.unwrap(), *kept);
    }
    let between = PagesRequest {
        since: Some(first.revision.clone()),
        revision: Some(second.revision.clone()),
        ..PagesRequest::default()
    };
    assert!(!client.ask(between).await.unwrap().pages.is_empty());
    for request in [
        PagesRequest::default(),
        PagesRequest {
            since: Some(first.revision.clone()),
            ..PagesRequest::default()
        },
    ] {
        let refused = client.ask(request).await.unwrap_err();
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (503, "HISTORY_UNWRITABLE")
        );
        assert!(refused.message.contains("disk"), "{}", refused.message);
    }
    full.store(false, SeqCst);
    let third = client.latest().await;
    assert_eq!(third.whole(), dump(&db.path));
    assert!(!client.since(&second.revision).await.unwrap().pages.is_empty());
    server.shutdown().await;
}
