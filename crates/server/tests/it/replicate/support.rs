//! A bucket in memory whose requests can be counted, denied, held and lost; the database that it makes; a server that replicates to it.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{TryStreamExt, stream::BoxStream};
use parking_lot::Mutex;
use partial_sync_ltx::{Reader, TxId, TxRange};
use partial_sync_server::{Durability, Replication, Server, ServerError, ServerHandle};
use partial_sync_store::{
    Bucket, Layout,
    object_store::{
        CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
        ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
        path::Path as Key,
    },
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::place::{Place, Write, is_used_up};
use crate::pages::support::Client;

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They are done.
    Fine,
    /// They are not done, and fail.
    Denied,
    /// Those that write are done, and fail.
    Lost,
    /// Those that write wait. What nobody waits for any more arrives late.
    Held,
    /// All wait, as those of a machine do that sleeps.
    Paused,
    /// Those that write fail, and arrive late.
    Late,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TestStore {
    place: Arc<Place>,
    weather: watch::Sender<Weather>,
    /// Requests that are done before the weather turns bad for good; `usize::MAX` = it does not.
    left: AtomicUsize,
    /// Requests with a condition that meet another one, and are not done.
    conflicts: AtomicUsize,
    /// Requests that are done before all wait; `usize::MAX` = they do not.
    awake: AtomicUsize,
    pub puts: AtomicUsize,
    pub all: AtomicUsize,
    pub lists: AtomicUsize,
    /// Bytes that were read.
    pub bytes: AtomicU64,
    /// Those that wait now.
    pub waiting: watch::Sender<usize>,
    /// What was put and is still to be done when it is let go.
    late: Mutex<Vec<Write>>,
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::to(&Arc::default())
    }

    /// A way to a place that others go to too.
    pub(crate) fn to(place: &Arc<Place>) -> Arc<Self> {
        Arc::new(Self {
            place: Arc::clone(place),
            weather: watch::Sender::new(Weather::Fine),
            left: AtomicUsize::new(usize::MAX),
            conflicts: AtomicUsize::new(0),
            awake: AtomicUsize::new(usize::MAX),
            puts: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            waiting: watch::Sender::new(0),
            late: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// From the `n`th request on nothing is done any more: the server has lost its network. What writes then may still arrive, with
    /// [`Self::let_late_arrive`].
    pub(crate) fn cut_after(&self, n: usize) {
        self.left.store(n, SeqCst);
    }

    /// From the `n`th request on all wait: the machine falls asleep.
    pub(crate) fn pause_after(&self, n: usize) {
        self.awake.store(n, SeqCst);
    }

    /// The next `n` requests with a condition meet another one that comes to nothing.
    pub(crate) fn conflict(&self, n: usize) {
        self.conflicts.store(n, SeqCst);
    }

    /// Whether requests wait, or are about to.
    pub(crate) fn is_held(&self) -> bool {
        self.awake.load(SeqCst) != usize::MAX
            || matches!(*self.weather.borrow(), Weather::Held | Weather::Paused)
    }

    /// Nothing is done any more, and nobody waits: the server has ended.
    pub(crate) fn end(&self) {
        self.cut_after(0);
        self.awake.store(usize::MAX, SeqCst);
        self.set(Weather::Fine);
    }

    /// The network is there again.
    pub(crate) fn mend(&self) {
        self.left.store(usize::MAX, SeqCst);
        self.awake.store(usize::MAX, SeqCst);
        self.set(Weather::Fine);
    }

    /// What was on its way when the network was cut arrives.
    pub(crate) async fn let_late_arrive(&self) -> usize {
        let late = std::mem::take(&mut *self.late.lock());
        let n = late.len();
        for (key, payload, mode) in late {
            // It may not be allowed any more.
            let _ = self.place.put(&key, payload, mode.into()).await;
        }
        n
    }

    /// Writes its files to a folder, by the names that they have in one.
    pub(crate) async fn export(&self, folder: &Path) {
        let objects: Vec<_> = self.place.objects.list(None).try_collect().await.unwrap();
        for object in objects {
            let parts: Vec<_> = object.location.parts().collect();
            let [.., level, name] = &*parts else { continue };
            let Ok(level) = u8::from_str_radix(level.as_ref(), 16) else {
                continue;
            };
            let level = folder.join(format!("ltx/{level}"));
            std::fs::create_dir_all(&level).unwrap();
            let file = self.place.objects.get(&object.location).await.unwrap();
            std::fs::write(level.join(name.as_ref()), file.bytes().await.unwrap()).unwrap();
        }
    }

    /// Everything is removed.
    pub(crate) async fn clear(&self) {
        let objects: Vec<_> = self.place.objects.list(None).try_collect().await.unwrap();
        for object in objects {
            self.place.objects.delete(&object.location).await.unwrap();
        }
    }

    pub(crate) fn bucket(self: &Arc<Self>) -> Bucket {
        self.bucket_of("app")
    }

    pub(crate) fn bucket_of(self: &Arc<Self>, name: &str) -> Bucket {
        Bucket::new(
            self.clone(),
            Key::from(name),
            Layout::S3,
            format!("memory:///{name}"),
        )
        .with_clock(self.place.clone())
    }

    /// Waits until so many requests wait.
    pub(crate) async fn until_waiting(&self, n: usize) {
        let mut waiting = self.waiting.subscribe();
        waiting.wait_for(|waiting| *waiting >= n).await.unwrap();
    }

    async fn before(&self, writes: Option<Write>) -> Result<()> {
        self.all.fetch_add(1, SeqCst);
        if is_used_up(&self.left) {
            self.late.lock().extend(writes);
            return Err(trouble());
        }
        if is_used_up(&self.awake) {
            self.awake.store(usize::MAX, SeqCst);
            self.set(Weather::Paused);
        }
        let mut weather = self.weather.subscribe();
        let waits = |now: &Weather| match now {
            Weather::Held => writes.is_some(),
            Weather::Paused => true,
            _ => false,
        };
        let now = *weather.borrow();
        if waits(&now) {
            self.waiting.send_modify(|n| *n += 1);
            let mut leaving = Leaving(self, writes.clone());
            weather.wait_for(|now| !waits(now)).await.unwrap();
            // It ended meanwhile: then what it had put is late.
            if self.left.load(SeqCst) == 0 {
                return Err(trouble());
            }
            leaving.1 = None;
        }
        match *weather.borrow() {
            Weather::Denied => Err(trouble()),
            Weather::Late if writes.is_some() => {
                self.late.lock().extend(writes);
                Err(trouble())
            }
            _ => Ok(()),
        }
    }

    fn after<T>(&self, done: Result<T>) -> Result<T> {
        match *self.weather.borrow() {
            Weather::Lost => done.and(Err(trouble())),
            _ => done,
        }
    }
}

/// Of what is written, that which is late when this is dropped.
struct Leaving<'a>(&'a TestStore, Option<Write>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.late.lock().extend(self.1.take());
        self.0.waiting.send_modify(|n| *n -= 1);
    }
}

fn trouble() -> Error {
    Error::Generic {
        store: "test",
        source: "the connection was closed".into(),
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestStore")
    }
}

#[async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.puts.fetch_add(1, SeqCst);
        let write = (key.clone(), payload.clone(), options.mode.clone());
        self.before(Some(write)).await?;
        let one_less = |n: usize| n.checked_sub(1);
        if options.mode != PutMode::Overwrite && self.conflicts.fetch_update(SeqCst, SeqCst, one_less).is_ok()
        {
            let (path, source) = (key.to_string(), "another request is under way".into());
            return Err(match options.mode {
                PutMode::Create => Error::AlreadyExists { path, source },
                _ => Error::Precondition { path, source },
            });
        }
        self.after(self.place.put(key, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.before(None).await?;
        self.place.objects.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> Result<GetResult> {
        self.before(None).await?;
        let got = self.place.objects.get_opts(key, options).await?;
        self.bytes.fetch_add(got.range.end - got.range.start, SeqCst);
        Ok(got)
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.place.objects.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.lists.fetch_add(1, SeqCst);
        self.place.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.place.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.place.objects.copy_opts(from, to, options).await
    }
}

/// The database that a bucket has at a transaction, or at its end, and which transaction that is: read from all objects, in their order, by a
/// reader that knows the format of files and the names, and nothing else.
pub(crate) async fn database_in(store: &TestStore, until: Option<u64>) -> (u64, Vec<Bytes>) {
    let objects: Vec<_> = store.place.objects.list(None).try_collect().await.unwrap();
    let files = objects.into_iter().filter_map(|object| {
        let ids = object.location.filename().and_then(TxRange::of_file_name)?;
        Some((ids, object.location))
    });
    let files: Vec<_> = files
        .filter(|(ids, _)| until.is_none_or(|until| ids.max().get() <= until))
        .collect();
    let (mut pages, mut end): (Vec<Bytes>, Option<TxId>) = (Vec::new(), None);
    while let Some((ids, key)) = files
        .iter()
        .filter(|(ids, _)| ids.continues(end))
        .max_by_key(|(ids, _)| ids.max())
    {
        let file = store.place.objects.get(key).await.unwrap().bytes().await.unwrap();
        let mut reader = Reader::new(&file[..]).unwrap();
        let size = reader.header().page_size.as_usize();
        pages.resize(reader.header().commit.0 as usize, Bytes::from(vec![0; size]));
        while let Some((page, bytes)) = reader.next_page().unwrap() {
            pages[page.get() as usize - 1] = Bytes::copy_from_slice(bytes);
        }
        reader.finish().unwrap();
        end = Some(ids.max());
    }
    (end.map_or(0, TxId::get), pages)
}

pub(crate) fn replication(store: &Arc<TestStore>) -> Replication {
    let store = store.clone();
    Replication::in_buckets(move |_| Ok(store.bucket())).writer_url("https://writer.example")
}

pub(crate) async fn try_serve(
    path: &Path,
    store: &Arc<TestStore>,
) -> std::result::Result<ServerHandle, ServerError> {
    Server::builder(path)
        .replicate(replication(store))
        .listen("127.0.0.1:0")
        .await
}

pub(crate) async fn serve(path: &Path, store: &Arc<TestStore>) -> ServerHandle {
    try_serve(path, store).await.unwrap()
}

/// Two databases are the same; they are not shown if they are not.
pub(crate) fn assert_same(found: &[Bytes], expected: &[Bytes], what: impl fmt::Display) {
    assert_eq!(found.len(), expected.len(), "pages, {what}");
    let differ: Vec<_> = (1..)
        .zip(found.iter().zip(expected))
        .filter(|(_, (a, b))| a != b)
        .collect();
    let differ: Vec<u32> = differ.into_iter().map(|(page, _)| page).collect();
    assert!(differ.is_empty(), "pages {differ:?} differ, {what}");
}

pub(crate) async fn serve_async(path: &Path, store: &Arc<TestStore>) -> ServerHandle {
    let replication = replication(store).durability(Durability::Async);
    let server = Server::builder(path).replicate(replication);
    server.listen("127.0.0.1:0").await.unwrap()
}

/// Runs one statement; the error's code if there is one.
pub(crate) async fn sql(client: &Client, sql: &str) -> std::result::Result<Value, String> {
    let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
    let request = client.http.post(format!("{}/v2/pipeline", client.url));
    let answer = request.body(body.to_string()).send().await.unwrap();
    let status = answer.status();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let code = |error: &Value| error["code"].as_str().unwrap_or_default().to_owned();
    if status != 200 {
        return Err(code(&answer));
    }
    match &answer["results"][0] {
        failed if failed["type"] == "error" => Err(code(&failed["error"])),
        done => Ok(done["response"]["result"].clone()),
    }
}

/// The id in a revision.
pub(crate) fn id_of(revision: &partial_sync_core::Revision) -> u64 {
    revision.as_str().split_once('-').unwrap().1.parse().unwrap()
}

/// Copies what a killed server leaves: the files as they are at this moment.
pub(crate) fn copy_of(path: &Path, to: &Path) {
    for suffix in ["", "-wal", "-history", "-history-wal"] {
        let named = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        };
        match std::fs::copy(named(path), named(to)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let _ = std::fs::remove_file(named(to));
            }
            copied => drop(copied.unwrap()),
        }
    }
}
