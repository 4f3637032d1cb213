//! Places to write to that count, lose, delay and deny requests; databases; and a reader that knows nothing of the crate's own.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_ltx::{Contents, Reader, TxId, TxRange};
use partial_sync_store::{
    Begin, Bucket, Claim, Clock, FileName, Folder, Layout, Level, Mark, New, StoreError, Writer,
    object_store::{
        CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
        ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
        memory::InMemory, path::Path,
    },
};
use tokio::sync::Semaphore;

pub(crate) const SIZE: PageSize = PageSize::DEFAULT;
/// The retention of tests: an hour.
pub(crate) const RETENTION: Duration = Duration::from_secs(3600);

/// What happens to the next request of a kind.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It is not done, and gives an error.
    Denied,
    /// It is done, and gives an error.
    AnswerLost,
    /// It waits for a permit, then is done.
    Held(Arc<Semaphore>),
    /// It meets another one of the same name, and is not done.
    Conflict,
    /// It is done, and once more, as the store's own client does it where the first answer is lost.
    Repeated,
    /// It is done as if it had no condition.
    Unconditional,
    /// It is done.
    Done,
}

/// A store with troubles. A request's kind is `put`, `get`, `head`, `list` or `delete`, and a part of its path may be asked for.
#[derive(Debug)]
pub(crate) struct Troubled {
    inner: Arc<dyn ObjectStore>,
    /// There is no head, as where another program writes.
    headless: bool,
    fates: Mutex<Vec<(&'static str, &'static str, Fate)>>,
    counts: Mutex<BTreeMap<&'static str, usize>>,
    /// How many requests wait for a permit.
    held: AtomicU64,
    /// Bytes of the parts that were asked for.
    bytes: AtomicU64,
    /// How much older than it is an object is listed.
    aged: Mutex<BTreeMap<Path, Duration>>,
    /// How many more requests are answered.
    life: Mutex<Option<usize>>,
}

impl Troubled {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            headless: false,
            fates: Mutex::default(),
            counts: Mutex::default(),
            held: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            aged: Mutex::default(),
            life: Mutex::default(),
        })
    }

    /// The same objects, without the head.
    pub(crate) fn headless(&self) -> Arc<Self> {
        Arc::new(Self {
            inner: self.inner.clone(),
            headless: true,
            fates: Mutex::default(),
            counts: Mutex::default(),
            held: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            aged: Mutex::default(),
            life: Mutex::default(),
        })
    }

    pub(crate) fn memory() -> Arc<Self> {
        Self::new(Arc::new(InMemory::new()))
    }

    /// The next request of this kind whose path has `part` in it.
    pub(crate) fn next(&self, kind: &'static str, part: &'static str, fate: Fate) {
        self.fates.lock().unwrap().push((kind, part, fate));
    }

    /// No more troubles.
    pub(crate) fn clear(&self) {
        self.fates.lock().unwrap().clear();
    }

    /// Requests of each kind since the last time this was asked.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut self.counts.lock().unwrap())
    }

    /// Time passes: everything that is there becomes older.
    pub(crate) async fn age(&self, by: Duration) {
        let objects: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        let mut aged = self.aged.lock().unwrap();
        for object in objects {
            *aged.entry(object.location).or_default() += by;
        }
    }

    /// Everything is gone.
    pub(crate) async fn remove_all(&self) {
        let objects: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        for object in objects {
            self.inner.delete(&object.location).await.unwrap();
        }
    }

    /// Bytes of the parts that were asked for since the last time this was asked.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    async fn hold(&self, permits: &Semaphore) {
        /// Also where the request is given up.
        struct Waits<'a>(&'a AtomicU64);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.held);
        permits.acquire().await.unwrap().forget();
    }

    /// How many requests wait for a permit.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns when a request waits for a permit.
    pub(crate) async fn until_held(&self) {
        while self.held.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }

    fn fate(&self, kind: &'static str, path: &str) -> Fate {
        *self.counts.lock().unwrap().entry(kind).or_default() += 1;
        if let Some(fate) = self.dies() {
            return fate;
        }
        let mut fates = self.fates.lock().unwrap();
        let at = fates
            .iter()
            .position(|(k, part, _)| *k == kind && path.contains(part));
        at.map_or(Fate::Done, |at| fates.remove(at).2)
    }

    pub(crate) fn bucket(self: &Arc<Self>, clock: &Arc<TestClock>) -> Bucket {
        self.place("some/app", clock)
    }

    /// One of several places.
    pub(crate) fn place(self: &Arc<Self>, prefix: &str, clock: &Arc<TestClock>) -> Bucket {
        let url = format!("memory:///{prefix}");
        let (this, its_clock) = (self.clone(), clock.clone());
        Bucket::new(self.clone(), Path::from(prefix), Layout::S3, url)
            .with_clock(clock.clone())
            .with_others(move |url| Ok(this.place(url.strip_prefix("memory:///").unwrap(), &its_clock)))
    }

    /// So many more requests are answered, and of one more the answer is lost: anyone who asks is dead from then on. `None`: nobody is.
    pub(crate) fn die_after(&self, requests: Option<usize>) {
        *self.life.lock().unwrap() = requests;
    }

    fn dies(&self) -> Option<Fate> {
        let mut life = self.life.lock().unwrap();
        match &mut *life {
            None => None,
            Some(usize::MAX) => Some(Fate::Denied),
            Some(left) => {
                *left = left.checked_sub(1).unwrap_or(usize::MAX);
                (*left == usize::MAX).then_some(Fate::AnswerLost)
            }
        }
    }
}

fn trouble() -> Error {
    Error::Generic {
        store: "troubled",
        source: "the connection was closed".into(),
    }
}

impl fmt::Display for Troubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Troubled")
    }
}

#[async_trait]
impl ObjectStore for Troubled {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let fate = self.fate("put", location.as_ref());
        match &fate {
            Fate::Denied => return Err(trouble()),
            Fate::Conflict => {
                let (path, source) = (location.to_string(), "another PUT is under way".into());
                return Err(Error::AlreadyExists { path, source });
            }
            Fate::Held(permits) => self.hold(permits).await,
            Fate::Unconditional => options.mode = PutMode::Overwrite,
            _ => {}
        }
        if matches!(fate, Fate::Repeated) {
            let _lost = self
                .inner
                .put_opts(location, payload.clone(), options.clone())
                .await;
        }
        let result = self.inner.put_opts(location, payload, options).await;
        match fate {
            Fate::AnswerLost => Err(trouble()),
            _ => result,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { "head" } else { "get" };
        match self.fate(kind, location.as_ref()) {
            Fate::Denied | Fate::AnswerLost => return Err(trouble()),
            Fate::Held(permits) => self.hold(&permits).await,
            _ => {}
        }
        if self.headless && location.as_ref().ends_with("head.json") {
            let (path, source) = (location.to_string(), "there is none".into());
            return Err(Error::NotFound { path, source });
        }
        let answer = self.inner.get_opts(location, options).await;
        if let Ok(answer) = &answer {
            let range = &answer.range;
            self.bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
        answer
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.fate("delete", "");
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if matches!(self.fate("list", ""), Fate::Denied | Fate::AnswerLost) {
            return futures_util::stream::once(async { Err(trouble()) }).boxed();
        }
        let aged = self.aged.lock().unwrap().clone();
        let objects = self.inner.list(prefix).map_ok(move |mut object| {
            object.last_modified -= aged.get(&object.location).copied().unwrap_or_default();
            object
        });
        objects.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.fate("list", "");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A clock that tests set.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn mark(&self) -> Mark {
        let steady = Duration::from_secs(self.0.load(Ordering::Relaxed));
        Mark {
            steady,
            ..Mark::default()
        }
    }
}

/// A database: its pages.
pub(crate) type Pages = Vec<Vec<u8>>;

pub(crate) fn page(byte: u8) -> Vec<u8> {
    vec![byte; SIZE.as_usize()]
}

pub(crate) fn pages(bytes: &[u8]) -> Pages {
    bytes.iter().map(|byte| page(*byte)).collect()
}

pub(crate) fn no(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

pub(crate) fn tx(n: u64) -> TxId {
    TxId::new(n).unwrap()
}

pub(crate) fn name(level: u8, min: u64, max: u64) -> FileName {
    FileName {
        level: Level::new(level).unwrap(),
        ids: TxRange::new(tx(min), tx(max)).unwrap(),
    }
}

pub(crate) fn begin(node: u64) -> Begin {
    Begin {
        node: NonZeroU64::new(node).unwrap(),
        url: Some(format!("https://node{node}.example")),
        new: New {
            lineage: NonZeroU64::new(0xabc).unwrap(),
            after: None,
            retention: RETENTION,
        },
        now: 1_700_000_000_000,
    }
}

pub(crate) async fn create(
    bucket: &Bucket,
    node: u64,
    database: &[u8],
) -> std::result::Result<Writer, StoreError> {
    let database = pages(database);
    let commit = PageCount(database.len() as u32);
    Writer::create(bucket.clone(), begin(node), SIZE, commit, move |put| {
        (1..).zip(&database).try_for_each(|(n, page)| put(no(n), page))
    })
    .await
}

/// The log of these nodes.
pub(crate) fn own(nodes: &[u64]) -> Claim {
    Claim::Own(nodes.iter().filter_map(|node| NonZeroU64::new(*node)).collect())
}

/// Commits pages of one byte each.
pub(crate) async fn append(
    writer: &mut Writer,
    changed: &[(u32, u8)],
    commit: u32,
) -> std::result::Result<TxId, StoreError> {
    let changed: Vec<_> = changed.iter().map(|(n, byte)| (no(*n), page(*byte))).collect();
    let changed = changed.iter().map(|(n, page)| Ok((*n, page)));
    writer.append(changed, PageCount(commit), 1_700_000_000_001).await
}

/// Removes all that can be removed, at a time when everything that is there is old; commits a transaction that changes nothing.
pub(crate) async fn collect_all(store: &Troubled, writer: &mut Writer) -> usize {
    store.age(2 * RETENTION).await;
    let commit = writer.commit().0;
    append(writer, &[], commit).await.unwrap();
    writer.keeper().collect(writer.last()).await.unwrap()
}

/// A file, read whole.
pub(crate) async fn read(bucket: &Bucket, name: FileName) -> (Contents, Vec<(PageNo, Vec<u8>)>) {
    let size = bucket
        .size(name)
        .await
        .unwrap()
        .unwrap_or_else(|| panic!("{name} is not there"));
    let bytes = bucket.range(name, 0..size).await.unwrap();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let mut pages = Vec::new();
    while let Some((page, bytes)) = reader.next_page().unwrap() {
        pages.push((page, bytes.to_vec()));
    }
    (reader.finish().unwrap(), pages)
}

fn apply((contents, changed): (Contents, Vec<(PageNo, Vec<u8>)>), database: &mut Pages) {
    database.resize(contents.header.commit.0 as usize, page(0));
    for (n, bytes) in changed {
        database[n.get() as usize - 1] = bytes;
    }
}

/// The database that all that is in the bucket makes, as `litestream restore` goes about it: the newest snapshot, then whatever
/// continues it, larger levels first.
pub(crate) async fn restore(bucket: &Bucket) -> (TxId, Vec<u8>) {
    let mut files = Vec::new();
    for level in (0..=9).filter_map(Level::new) {
        for file in bucket.list(level, None).await.unwrap() {
            files.push(FileName { level, ids: file.ids });
        }
    }
    let mut database = Vec::new();
    let mut end = None;
    loop {
        let next = files
            .iter()
            .filter(|file| file.ids.continues(end) && (end.is_some() || file.level == Level::SNAPSHOTS))
            .max_by_key(|file| (file.level, file.ids.max()));
        let Some(next) = next else {
            let bytes = database.iter().map(|page: &Vec<u8>| {
                assert!(page.iter().all(|byte| *byte == page[0]));
                page[0]
            });
            return (end.unwrap(), bytes.collect());
        };
        apply(read(bucket, *next).await, &mut database);
        end = Some(next.ids.max());
    }
}

/// What a test is to hold for: memory, and a folder.
pub(crate) fn places() -> Vec<(Arc<Troubled>, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = Troubled::new(Arc::new(Folder::new(folder.path()).unwrap()));
    vec![(Troubled::memory(), None), (in_folder, Some(folder))]
}
