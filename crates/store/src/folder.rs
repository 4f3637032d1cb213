//! A folder as an object store: `object_store`'s, with the compare-and-swap that it lacks.
//!
//! A process that replaces an object under a condition holds a lock of the operating system meanwhile, and gives it a later time than the one
//! before it had, so that no two versions of it have the same tag. This holds on one machine, and on network file systems that
//! have such locks.
//!
//! What must never happen here: that the lock is given back while an object may still be replaced, also where nobody waits for that any
//! more.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    path::{Path as FilePath, PathBuf},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    local::LocalFileSystem, path::Path,
};

const STORE: &str = "folder";

/// A folder.
#[derive(Debug)]
pub struct Folder {
    files: LocalFileSystem,
    lock: PathBuf,
}

impl Folder {
    /// The folder at `path`, which is made if it is not there. What is answered for as written is on the disk.
    pub fn new(path: &FilePath) -> Result<Self> {
        fs::create_dir_all(path).map_err(failed)?;
        Ok(Self {
            files: LocalFileSystem::new_with_prefix(path)?.with_fsync(true),
            lock: path.join(".partial-sync.lock"),
        })
    }

    async fn update(
        &self,
        location: &Path,
        payload: PutPayload,
        expected: Option<String>,
    ) -> Result<PutResult> {
        let lock = self.lock.clone();
        // Released when it is closed.
        let locked = blocking(move || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(lock)?;
            file.lock()?;
            Ok(file)
        })
        .await?;
        let before = match self.files.head(location).await {
            Err(Error::NotFound { path, source }) => return Err(Error::Precondition { path, source }),
            other => other?,
        };
        if expected.is_none() || before.e_tag != expected {
            return Err(Error::Precondition {
                path: location.to_string(),
                source: "it was replaced".into(),
            });
        }
        let staged = Path::from(format!("{location}.{:016x}.new", fastrand::u64(..)));
        let (from, to) = (
            self.files.path_to_filesystem(&staged)?,
            self.files.path_to_filesystem(location)?,
        );
        self.files.put(&staged, payload).await?;
        // Whoever replaces the object has the lock: this continues where its caller does not wait any more.
        let _locked = blocking(move || {
            let before = fs::metadata(&to)?.modified()?;
            let file = File::open(&from).and_then(|_| OpenOptions::new().write(true).open(&from))?;
            file.set_modified(SystemTime::now().max(before + Duration::from_millis(1)))?;
            file.sync_all()?;
            fs::rename(&from, &to)?;
            #[cfg(unix)]
            if let Some(folder) = to.parent() {
                File::open(folder)?.sync_all()?;
            }
            Ok(locked)
        })
        .await?;
        let after = self.files.head(location).await?;
        Ok(PutResult {
            e_tag: after.e_tag,
            version: None,
            extensions: Default::default(),
        })
    }
}

fn failed(source: io::Error) -> Error {
    Error::Generic {
        store: STORE,
        source: source.into(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?.map_err(failed)
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Update(version) => self.update(location, payload, version.e_tag).await,
            _ => self.files.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}
