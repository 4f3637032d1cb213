//! What a replica of 100 GB costs: its file is sparse, and all but the first pages of the remote's database are zeros.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::support::*;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use partial_sync::Database;
use partial_sync_core::{
    PageCount, PageId, PageSize, Revision,
    chunk::{Bits, Chunk},
    saved_map,
};
use partial_sync_transport::{
    ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, TransferStats,
    hrana::{Batch, BatchResult},
    wire::{PageEncoding, PullUpdatesRequest, encode_frame},
};

const PAGE: usize = 4096;
/// 100 GB.
const PAGES: u32 = 25_000_000;

/// Revisions of a database that is large and has nothing in most of its pages.
#[derive(Debug)]
struct Large {
    revisions: Vec<Vec<u8>>,
    latest: AtomicUsize,
    /// Bytes of each request for pages.
    asked: Mutex<Vec<usize>>,
}

impl Large {
    /// After each of these scripts.
    fn new(scripts: &[&str]) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large.db");
        let conn = rusqlite::Connection::open(&file).unwrap();
        let revisions = scripts.iter().map(|script| {
            conn.execute_batch(script).unwrap();
            let mut bytes = std::fs::read(&file).unwrap();
            // How many pages it has.
            bytes[28..32].copy_from_slice(&PAGES.to_be_bytes());
            bytes
        });
        Arc::new(Self {
            revisions: revisions.collect(),
            latest: AtomicUsize::new(0),
            asked: Mutex::default(),
        })
    }

    /// Bytes of the requests for pages since the last time.
    fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut *self.asked.lock())
    }

    fn page(&self, revision: usize, id: u32) -> &[u8] {
        let at = id as usize * PAGE;
        self.revisions[revision].get(at..at + PAGE).unwrap_or(&[0; PAGE])
    }

    fn answer(&self, request: PagesRequest) -> PageStream {
        let number = |revision: &Revision| revision.as_str().parse::<usize>().unwrap();
        let at = request
            .revision
            .as_ref()
            .map_or(self.latest.load(Ordering::SeqCst), number);
        let mut ids = match request.select {
            PageSelector::Ids(ids) => ids,
            PageSelector::All if request.list => (0..(self.revisions[at].len() / PAGE) as u32).collect(),
            PageSelector::All => panic!("it is too large"),
        };
        if let Some(since) = &request.since {
            // Only the first pages ever change.
            ids.remove_range((self.revisions[at].len() / PAGE) as u32..);
            ids = ids
                .into_iter()
                .filter(|id| self.page(number(since), *id) != self.page(at, *id))
                .collect();
            ids |= request.require.unwrap_or_default();
        }
        let listed = request.list.then(|| std::mem::take(&mut ids));
        let pages: Vec<_> = ids
            .into_iter()
            .map(|id| {
                Ok(RemotePage {
                    id: PageId(id),
                    data: Bytes::copy_from_slice(self.page(at, id)),
                })
            })
            .collect();
        PageStream {
            header: PagesHeader {
                revision: Revision::new(at.to_string()).unwrap(),
                db_size: PageCount(PAGES),
                mode: ApplyMode::Incremental,
                features: Features {
                    require: true,
                    list: true,
                    ..Features::default()
                },
                listed,
            },
            pages: stream::iter(pages).boxed(),
        }
    }
}

impl Remote for Large {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        let wire = PullUpdatesRequest::new(&request, PageEncoding::Raw);
        let mut frame = BytesMut::new();
        encode_frame(&wire, &mut frame);
        self.asked.lock().push(frame.len());
        async move { Ok(self.answer(request)) }.boxed()
    }

    fn execute(
        &self,
        _: Batch,
        _: Option<std::time::Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        async { Err(RemoteError::new(RemoteErrorKind::Refused, "it only has pages")) }.boxed()
    }

    fn url(&self) -> String {
        "http://large".into()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats::default()
    }
}

const SCRIPT: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 4000)
    insert into t select x, printf('%0200d', x) from c;";

/// Writes a page map of which all pages are here, or every second one, but for those that have something in them.
fn have(path: &Path, step: usize) {
    let bits = match step {
        1 => Bits::Full,
        _ => Bits::of([0x5555_5555_5555_5555; 64]),
    };
    let mut chunks = vec![];
    let chunk = |first, present| Chunk {
        first,
        count: 1,
        present,
        dirty: Bits::Empty,
    };
    let mut first = [0; 64];
    first[0] = 1;
    chunk(0, Bits::of(first)).append_to(&mut chunks);
    for nth in 1..PAGES / 4096 {
        chunk(nth, bits.clone()).append_to(&mut chunks);
    }
    let (bytes, _) = saved_map::whole(&chunks, PageSize::DEFAULT, PageCount(PAGES));
    std::fs::write(path, bytes).unwrap();
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or("0");
    line.split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse().ok())
        .unwrap_or(0)
}

/// Prints what a replica of 100 GB costs: `cargo test --release -p partial-sync --test it -- --ignored --nocapture 100_gb`.
#[test]
#[ignore = "prints numbers"]
fn what_a_replica_of_100_gb_costs() {
    for (step, which) in [(1, "all pages"), (2, "every second page")] {
        let remote = Large::new(&[SCRIPT, "update t set v = 'theirs' where id = 2000"]);
        let replicas = Replicas::new();
        let open = || -> Database {
            replicas
                .builder("a.db")
                .remote_with(remote.clone())
                .partial(prefix(PAGE as u64, 1))
                .connect()
                .unwrap()
        };
        drop(open());
        have(&replicas.path("a.db-pages"), step);
        let before = resident();
        let begun = Instant::now();
        let timed = |what: &str, begun: Instant| println!("{which}: {what} {:?}", begun.elapsed());
        let db = open();
        timed("opened in", begun);
        println!("{which}: {} KiB more memory", resident().saturating_sub(before));
        let conn = db.connection().unwrap();
        let row = |id: u32| rows(&conn, &format!("select length(v) from t where id = {id}")).unwrap();
        row(2000);
        remote.asked();
        let begun = Instant::now();
        row(1000);
        timed("a miss took", begun);
        println!("{which}: requests of {:?} bytes", remote.asked());
        conn.execute("update t set v = 'mine' where id = 1000", ())
            .unwrap();
        let begun = Instant::now();
        db.checkpoint().unwrap();
        timed("a checkpoint took", begun);
        remote.latest.store(1, Ordering::SeqCst);
        let begun = Instant::now();
        assert!(db.pull().unwrap());
        timed("a pull of one page took", begun);
        let asked = remote.asked();
        println!("{which}: requests of {asked:?} bytes");
        assert!(asked.len() <= 2 && asked.iter().all(|bytes| *bytes < 16 << 10));
        assert_eq!(row(2000), ["Integer(6)"]);
        assert_eq!(row(1000), ["Integer(4)"]);
    }
}
