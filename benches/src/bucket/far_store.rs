//! An object store at the other end of a line: each request takes a round trip more, bytes that are read come no faster than the line is
//! wide, and both are counted. Below it is a store in memory.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use partial_sync_store::{
    Bucket, Layout,
    object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
        PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
    },
};
use tokio::time::Instant;

use crate::far::Line;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    /// Requests that began while none was under way: so many followed each other, at least.
    pub rounds: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FarStore {
    inner: InMemory,
    line: Line,
    /// When the line has carried what it was given.
    free: Mutex<Option<Instant>>,
    reads: AtomicU64,
    writes: AtomicU64,
    bytes_read: AtomicU64,
    rounds: AtomicU64,
    under_way: AtomicU64,
}

impl FarStore {
    pub(super) fn new(line: Line) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            line,
            free: Mutex::default(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
        })
    }

    pub(super) fn bucket(self: &Arc<Self>) -> Bucket {
        Bucket::new(self.clone(), Path::from("app"), Layout::S3, "memory:///far")
    }

    pub(super) fn asked(&self) -> Asked {
        Asked {
            reads: self.reads.load(SeqCst),
            writes: self.writes.load(SeqCst),
            bytes_read: self.bytes_read.load(SeqCst),
            rounds: self.rounds.load(SeqCst),
        }
    }

    /// Begins a request, which has gone there and back when this returns.
    async fn travel(&self, count: &AtomicU64) -> UnderWay<'_> {
        count.fetch_add(1, SeqCst);
        if self.under_way.fetch_add(1, SeqCst) == 0 {
            self.rounds.fetch_add(1, SeqCst);
        }
        let under_way = UnderWay(self);
        tokio::time::sleep(self.line.rtt).await;
        under_way
    }

    /// Waits until the line has carried these bytes too.
    async fn carry(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, SeqCst);
        let Some(width) = self.line.bytes_per_second else {
            return;
        };
        let until = {
            let mut free = self
                .free
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            let from = free.map_or(now, |free| free.max(now));
            let until = from + Duration::from_secs_f64(bytes as f64 / width as f64);
            *free = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

impl std::ops::Sub for Asked {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            bytes_read: self.bytes_read - before.bytes_read,
            rounds: self.rounds - before.rounds,
        }
    }
}

struct UnderWay<'a>(&'a FarStore);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

impl fmt::Display for FarStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FarStore")
    }
}

#[async_trait]
impl ObjectStore for FarStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let _under_way = self.travel(&self.writes).await;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let _under_way = self.travel(&self.writes).await;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let _under_way = self.travel(&self.reads).await;
        let is_head = options.head;
        let got = self.inner.get_opts(path, options).await?;
        if !is_head {
            self.carry(got.range.end - got.range.start).await;
        }
        Ok(got)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.fetch_add(1, SeqCst);
        self.inner.list(prefix).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let _under_way = self.travel(&self.reads).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _under_way = self.travel(&self.writes).await;
        self.inner.copy_opts(from, to, options).await
    }
}
