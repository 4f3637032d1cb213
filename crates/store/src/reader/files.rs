//! Files of the log, each asked for once: indexes in memory, small files whole, of large ones blocks.
//!
//! What must never happen here: that bytes of one object are read by the index of another that had its name before.

use std::{
    collections::HashSet,
    io::{BufReader, Cursor, Read},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use partial_sync_core::PageSize;
use partial_sync_ltx::{
    Checksum, HEADER_LEN, Header, LtxError, PageIndex, Reader as LtxReader, TRAILER_LEN, TxId, read_tail,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{
    ahead::Ahead,
    catalog::Known,
    disk::Disk,
    flights::Flights,
    index::{Index, Indexed},
    memory::Memory,
    options::{CacheFolder, ReadOptions},
};
use crate::{
    bucket::{Bucket, Got, Part},
    error::StoreError,
    head::Head,
    layout::FileName,
    pieces::Pieces,
    places::Places,
};

/// Files of levels 0 and 1 of at most so many bytes are read whole.
const WHOLE: u64 = 2 << 20;
/// Bytes at the end of a file of which nothing is known that are asked for first.
const GUESS: u64 = 64 << 10;
/// How many files are asked for at once; how many requests that are is limited elsewhere.
const ASKED: usize = 64;
/// From so many bytes on a file, or its index, is checked on a thread that may wait.
const LARGE: usize = 64 << 10;

/// What of a file is in memory: all of it, or a block. With the checksum of the file: another one may get its name.
pub(crate) type Kept = (FileName, Checksum, Option<u64>);

/// Blocks of a file that follow each other: the number of the first, and their bytes.
pub(crate) type Blocks = (u64, Bytes);

/// A file that was asked for: its index, and if it is read whole, all of it.
pub(crate) type Loaded = (Arc<Indexed>, Option<Bytes>);

/// The files of one database.
pub(crate) struct Files {
    pub(crate) bucket: Bucket,
    places: Mutex<Arc<Places>>,
    page_size: PageSize,
    index_limit: u64,
    requests: Arc<Semaphore>,
    pub(crate) disk: Option<Arc<Disk>>,
    indexes: Mutex<Memory<FileName, Arc<Indexed>>>,
    pub(crate) contents: Mutex<Memory<Kept, Bytes>>,
    loading: Flights<FileName, Option<Loaded>>,
    pub(crate) reading: Flights<Kept, Blocks>,
    pub(super) ahead: Mutex<Ahead<FileName>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// The files of the history `lineage`.
    pub(crate) fn new(
        bucket: Bucket,
        page_size: PageSize,
        lineage: &str,
        options: &ReadOptions,
    ) -> Arc<Self> {
        let place = format!("{} {lineage}", bucket.name());
        let disk = |folder: &CacheFolder| Arc::new(Disk::new(&folder.path, folder.bytes, &place));
        Arc::new(Self {
            disk: options.folder.as_ref().map(disk),
            places: Mutex::new(Arc::new(Places::one(&bucket))),
            bucket,
            page_size,
            index_limit: options.index,
            requests: Arc::new(Semaphore::new(options.requests.max(1))),
            indexes: Mutex::new(Memory::new(options.memory)),
            contents: Mutex::new(Memory::new(options.memory)),
            loading: Flights::new(),
            reading: Flights::new(),
            ahead: Mutex::new(Ahead::within(options.memory)),
        })
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Where the files are that a head names. One that has a name in another place now is another object, which is found out as where an
    /// object was replaced.
    pub(crate) fn places_of(&self, head: &Head) -> Result<Arc<Places>, StoreError> {
        let before = lock(&self.places).clone();
        if before.are_of(head) {
            return Ok(before);
        }
        let places = Arc::new(Places::of(&self.bucket, head)?);
        *lock(&self.places) = Arc::clone(&places);
        Ok(places)
    }

    /// Where a file is.
    pub(crate) fn place(&self, name: FileName) -> Bucket {
        lock(&self.places).at(name).clone()
    }

    /// Bytes of memory that indexes and contents take.
    pub(crate) fn memory(&self) -> u64 {
        lock(&self.indexes).bytes() + lock(&self.contents).bytes()
    }

    /// The indexes of these files stay in memory, in place of those of which that was said before.
    pub(crate) fn keep(&self, names: HashSet<FileName>) {
        lock(&self.indexes).keep(names);
    }

    /// What is kept of a file is of no use any more.
    pub(crate) fn forget(&self, name: FileName) {
        lock(&self.indexes).remove(&name);
        lock(&self.contents).remove_where(|(other, _, _)| *other == name);
    }

    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.requests.clone().acquire_owned().await.ok()
    }

    /// The index of a file, if it is in memory.
    pub(crate) fn at_once(&self, name: FileName) -> Option<Arc<Indexed>> {
        lock(&self.indexes).get(&name)
    }

    /// The index of a file; `None` if it is not there.
    pub(crate) async fn find(self: &Arc<Self>, file: Known) -> Result<Option<Arc<Indexed>>, StoreError> {
        if let Some(indexed) = self.at_once(file.name) {
            return Ok(Some(indexed));
        }
        Ok(self.loaded(file).await?.map(|(indexed, _)| indexed))
    }

    /// The same, from the bucket.
    pub(crate) async fn loaded(self: &Arc<Self>, file: Known) -> Result<Option<Loaded>, StoreError> {
        let files = self.clone();
        let load = || async move { files.load(file).await };
        self.loading.one(file.name, load).await
    }

    /// The index of a file that must be there.
    pub(crate) async fn indexed(self: &Arc<Self>, file: Known) -> Result<Arc<Indexed>, StoreError> {
        self.find(file).await?.ok_or_else(|| self.missing(file.name))
    }

    /// The indexes of several files, in their order.
    pub(crate) async fn all_indexed(
        self: &Arc<Self>,
        files: &[Known],
    ) -> Result<Vec<Arc<Indexed>>, StoreError> {
        let each = stream::iter(files.to_vec()).map(|file| self.indexed(file));
        let mut each = each.buffered(ASKED);
        let mut all = Vec::with_capacity(files.len());
        while let Some(indexed) = each.next().await {
            all.push(indexed?);
        }
        Ok(all)
    }

    /// The files of level 0 that are there behind `end`, without a gap, of `most` that are asked for at once.
    pub(crate) async fn commits(
        self: &Arc<Self>,
        end: TxId,
        most: u64,
    ) -> Result<Vec<Arc<Indexed>>, StoreError> {
        let ids = (1..=most).filter_map(|n| TxId::new(end.get().checked_add(n)?));
        let each = stream::iter(ids).map(|id| self.find(Known::commit(id)));
        let mut each = each.buffered(ASKED);
        let mut found = Vec::new();
        while let Some(indexed) = each.next().await {
            match indexed? {
                Some(indexed) => found.push(indexed),
                None => break,
            }
        }
        Ok(found)
    }

    async fn load(self: Arc<Self>, file: Known) -> Result<Option<Loaded>, StoreError> {
        let small = file.name.level.get() <= 1 && file.size.is_none_or(|size| size <= WHOLE);
        let mut file = file;
        if small {
            let permit = self.permit().await;
            match self.place(file.name).get(file.name, WHOLE).await? {
                None => return Ok(None),
                Some(Got::Whole(bytes)) => {
                    drop(permit);
                    return self.check_whole(file.name, bytes).await.map(Some);
                }
                Some(Got::Larger(size)) => file.size = Some(size),
            }
        }
        let indexed = match self.clone().load_tail(file).await {
            Ok(indexed) => indexed,
            Err(error) if error.is_missing() => return Ok(None),
            // What was said of it was of another that had its name.
            Err(StoreError::File { .. } | StoreError::Replaced { .. }) if file.tail_at.is_some() => {
                let file = Known {
                    size: None,
                    tail_at: None,
                    ..file
                };
                self.clone().load_tail(file).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Some((self.put(indexed), None)))
    }

    fn put(&self, indexed: Indexed) -> Arc<Indexed> {
        let (name, bytes) = (indexed.name, indexed.index.bytes() + size_of::<Indexed>() as u64);
        let indexed = Arc::new(indexed);
        lock(&self.indexes).insert(name, indexed.clone(), bytes);
        indexed
    }

    /// Checks a file of which all bytes are here, and keeps it.
    async fn check_whole(&self, name: FileName, bytes: Bytes) -> Result<Loaded, StoreError> {
        let wrong = |error| self.place(name).wrong_file(name, error);
        let read = {
            let bytes = bytes.clone();
            move || {
                let contents = LtxReader::new(&bytes[..])?.finish()?;
                let mut index = Index::default();
                for (page, frame) in contents.index.iter() {
                    index.push(page, &frame);
                }
                Ok((contents.header, contents.trailer.file, index.finish()))
            }
        };
        let read = match bytes.len() < LARGE {
            true => read(),
            false => waiting(read).await?,
        };
        let (header, checksum, index) = read.map_err(wrong)?;
        self.check_header(name, &header)?;
        let len = bytes.len() as u64;
        lock(&self.contents).insert((name, checksum, None), bytes.clone(), len);
        let indexed = self.put(Indexed {
            name,
            header,
            index,
            len,
            tag: None,
            checksum,
            whole: true,
        });
        Ok((indexed, Some(bytes)))
    }

    /// Whether a file is what its name says, and of this database.
    pub(crate) fn check_header(&self, name: FileName, header: &Header) -> Result<(), StoreError> {
        let why = match header.ids == name.ids {
            false => "its name says other transactions",
            true if header.page_size != self.page_size => "its pages have another size",
            true => return Ok(()),
        };
        let ids = header.ids;
        Err(self.place(name).wrong_file(name, LtxError::Position { ids, why }))
    }

    /// The index of a larger file: its header, and what is behind its frames.
    async fn load_tail(self: Arc<Self>, file: Known) -> Result<Indexed, StoreError> {
        let name = file.name;
        let place = self.place(name);
        let len = match file.size {
            Some(len) => len,
            None => {
                let _permit = self.permit().await;
                let size = place.size(name).await?;
                size.ok_or_else(|| self.missing(name))?
            }
        };
        let least = (HEADER_LEN + TRAILER_LEN) as u64;
        if len < least {
            let (at, part) = (len, "the header");
            return Err(place.wrong_file(name, LtxError::Cut { at, part }));
        }
        let header = async {
            let _permit = self.permit().await;
            let range = 0..HEADER_LEN as u64;
            let part = place.part(name, range.clone()).await?;
            self.check_version(name, &part, len, None)?;
            let bytes = place.exactly(part.bytes, range.end, "reading a header").await?;
            let header = place.parse_header(name, &bytes)?;
            self.check_header(name, &header)?;
            Ok::<_, StoreError>((header, part.tag))
        };
        let tail = async {
            match file.tail_at {
                Some(at) => self.tail_from(name, at, len).await,
                None => self.tail_of(name, len).await,
            }
        };
        let ((header, tag), tail) = futures_util::future::try_join(header, tail).await?;
        let (at, tail_tag, read, permit) = tail;
        if tag.is_some() && tail_tag.is_some() && tag != tail_tag {
            return Err(self.replaced(name));
        }
        let read = move || {
            let mut index = Index::default();
            let each = |page, frame: Range<u64>| index.push(page, &frame);
            let trailer = read_tail(&header, len, at, BufReader::new(read), each)?;
            drop(permit);
            Ok((trailer.file, index.finish()))
        };
        let read = match len - at < LARGE as u64 {
            true => read(),
            false => waiting(read).await?,
        };
        let (checksum, index) = read.map_err(|error| place.wrong_file(name, error))?;
        Ok(Indexed {
            name,
            header,
            index,
            len,
            tag,
            checksum,
            whole: false,
        })
    }

    /// What is behind the frames, which end at `at`.
    async fn tail_from(&self, name: FileName, at: u64, len: u64) -> Result<Tail, StoreError> {
        let size = len.saturating_sub(at);
        if size > self.index_limit {
            return Err(StoreError::TooLarge {
                store: self.place(name).name(),
                what: format!("the page index of {name}"),
                size,
                limit: self.index_limit,
            });
        }
        let permit = self.permit().await;
        let place = self.place(name);
        let part = place.part(name, at..len).await?;
        self.check_version(name, &part, len, None)?;
        let read: Box<dyn Read + Send> = match size < LARGE as u64 {
            true => {
                let what = format!("reading the end of {name}");
                let bytes = place.exactly(part.bytes, size, &what).await?;
                Box::new(Cursor::new(bytes))
            }
            false => Box::new(Pieces::new(part.bytes, Handle::current())),
        };
        Ok((at, part.tag, read, permit))
    }

    /// What is behind the frames, of a file of which it is not known where these end.
    async fn tail_of(&self, name: FileName, len: u64) -> Result<Tail, StoreError> {
        let range = len.saturating_sub(GUESS)..len;
        let permit = self.permit().await;
        let place = self.place(name);
        let part = place.part(name, range.clone()).await?;
        self.check_version(name, &part, len, None)?;
        let what = format!("reading the end of {name}");
        let size = range.end - range.start;
        let bytes = place.exactly(part.bytes, size, &what).await?;
        let tail = PageIndex::tail_len(len, &bytes).map_err(|error| place.wrong_file(name, error))?;
        match size.checked_sub(tail) {
            Some(from) => {
                let read = Box::new(Cursor::new(bytes.slice(from as usize..)));
                Ok((len - tail, part.tag, read, permit))
            }
            None => {
                drop(permit);
                self.tail_from(name, len - tail, len).await
            }
        }
    }

    /// Whether a part is of the object that is meant.
    pub(crate) fn check_version(
        &self,
        name: FileName,
        part: &Part,
        len: u64,
        tag: Option<&str>,
    ) -> Result<(), StoreError> {
        let other_tag = matches!((tag, part.tag.as_deref()), (Some(a), Some(b)) if a != b);
        match part.file_len != len || other_tag {
            true => Err(self.replaced(name)),
            false => Ok(()),
        }
    }

    pub(crate) fn missing(&self, name: FileName) -> StoreError {
        StoreError::Missing {
            store: self.place(name).name(),
            what: name.to_string(),
        }
    }

    pub(crate) fn replaced(&self, name: FileName) -> StoreError {
        StoreError::Replaced {
            store: self.place(name).name(),
            what: name.to_string(),
        }
    }
}

/// Where the frames end, which version of the object that is, what is behind them, and the right to read it.
type Tail = (
    u64,
    Option<String>,
    Box<dyn Read + Send>,
    Option<OwnedSemaphorePermit>,
);

/// Does what waits, or takes long, on a thread for that.
pub(crate) async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Source(error.into()))
}
