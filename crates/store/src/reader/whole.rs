//! Whole states and whole files: restoring a database, and verifying every file of a log.
//!
//! Files are read one after the other, each from its beginning to its end, and the checksum of each is compared. What must never happen
//! here: that a file is left in place of a database which is not all of the state.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use futures_util::StreamExt;
use partial_sync_core::PageNo;
use partial_sync_ltx::{Contents, LtxError, Reader as LtxReader, TxId};
use roaring::RoaringBitmap;
use tokio::runtime::Handle;

use super::{
    catalog::{Known, State, is_commit},
    files::waiting,
    following::TRIES,
    states::{Found, Reader},
};
use crate::{error::StoreError, pieces::Pieces};

/// What a verification has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The pages in them.
    pub pages: u64,
}

/// Takes the pages of a file.
type PutPage<'a> = dyn FnMut(PageNo, &[u8]) -> io::Result<()> + Send + 'a;

impl Reader {
    /// The ids of the states that are kept, ascending: the ends of larger files, then all above the floor.
    pub fn kept(&self) -> impl DoubleEndedIterator<Item = TxId> + use<> {
        let catalog = self.catalog();
        let ends = catalog.ends();
        let first = catalog.floor.map_or(u64::MAX, |floor| floor.get() + 1);
        ends.into_iter()
            .chain((first..=catalog.last.id.get()).filter_map(TxId::new))
    }

    /// The last state that was committed at `time` or before, in milliseconds since 1970; `None` if that is not kept. Times are those of
    /// the writers' clocks, and taken to ascend.
    ///
    /// # Errors
    /// As of [`state`](Self::state).
    pub async fn state_at(&self, time: i64) -> Result<Option<State>, StoreError> {
        let mut found = None;
        let ids: Vec<_> = self.kept().collect();
        let (mut from, mut to) = (0, ids.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.state(ids[middle]).await? {
                Found::Kept(state) if state.time > time => to = middle,
                Found::Kept(state) => {
                    found = Some(state);
                    from = middle + 1;
                }
                // Collected meanwhile: what is left is later.
                Found::Gone | Found::Unknown => from = middle + 1,
            }
        }
        Ok(found)
    }

    /// Writes the database of a state to the file `to`, which must not be there: under another name beside it first, which is
    /// renamed when all of it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is something; [`StoreError::Io`] if it cannot be written; others as of [`pages`](Self::pages).
    pub async fn restore(&self, at: State, to: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Io {
            path: to.to_owned(),
            source,
        };
        if to.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(to.to_owned()));
        }
        let partial = Partial::new(to).map_err(failed)?;
        let mut tries = TRIES;
        loop {
            match self.write_state(at, &partial).await {
                Err(error) if error.is_missing() && tries > 0 => {
                    tries -= 1;
                    self.look_again().await?;
                }
                written => {
                    written?;
                    break;
                }
            }
        }
        self.check_open()?;
        let to = to.to_owned();
        waiting(move || partial.keep(&to)).await?.map_err(failed)
    }

    async fn write_state(&self, at: State, partial: &Partial) -> Result<(), StoreError> {
        let chain = self.catalog().chain(at.id).ok_or_else(|| self.gone(at.id))?;
        let size = self.page_size();
        let mut written = RoaringBitmap::new();
        for known in chain {
            let mut file = partial
                .file
                .try_clone()
                .map_err(|source| partial.failed(source))?;
            let put = move |page: PageNo, bytes: &[u8]| {
                file.seek(SeekFrom::Start(page.offset(size)))?;
                file.write_all(bytes)
            };
            let contents = self.read_whole(known, put).await?;
            for (page, _) in contents.index.iter() {
                written.insert(page.id().0);
            }
        }
        let missing = at
            .size
            .iter()
            .find(|page| !page.is_lock_byte_page(size) && !written.contains(page.id().0));
        if let Some(page) = missing {
            let store = self.0.files.bucket.name();
            return Err(StoreError::NoPage {
                store,
                page,
                id: at.id,
            });
        }
        let set = partial.file.set_len(at.size.bytes(size));
        set.map_err(|source| partial.failed(source))
    }

    /// Reads every file of the log that is named or follows from what is, compares its checksum, and whether the files make the latest
    /// state without a gap.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let catalog = self.catalog();
        let mut files = catalog.files.clone();
        if let Some(floor) = catalog.floor {
            let ids = floor.get() + 1..=catalog.last.id.get();
            files.extend(ids.filter_map(TxId::new).map(Known::commit));
        }
        let mut verified = Verified::default();
        for known in files {
            let put = |_: PageNo, _: &[u8]| Ok(());
            match self.read_whole(known, put).await {
                Ok(contents) => {
                    verified.files += 1;
                    verified.bytes += contents.len;
                    verified.pages += contents.index.len() as u64;
                }
                // It may have been collected since: then the head does not name it any more.
                Err(error) if error.is_missing() => {
                    self.look_again().await?;
                    let now = self.catalog();
                    if now.files.iter().any(|file| file.name == known.name)
                        || now
                            .floor
                            .is_some_and(|floor| floor < known.name.ids.min() && is_commit(&known))
                    {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let latest = self.latest();
        let chain = self.chain(latest.id).await?;
        let mut pages = RoaringBitmap::new();
        for indexed in chain {
            pages |= indexed.index.ids();
        }
        let size = self.page_size();
        let missing = latest
            .size
            .iter()
            .find(|page| !page.is_lock_byte_page(size) && !pages.contains(page.id().0));
        match missing {
            None => Ok(verified),
            Some(page) => Err(StoreError::NoPage {
                store: self.0.files.bucket.name(),
                page,
                id: latest.id,
            }),
        }
    }

    /// Reads a file from its beginning to its end.
    async fn read_whole(
        &self,
        known: Known,
        mut put: impl FnMut(PageNo, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Contents, StoreError> {
        let files = self.0.files.clone();
        let place = files.place(known.name);
        let (_, stream) = place.stream(known.name).await?;
        let pieces = Pieces::new(stream.boxed(), Handle::current());
        let read = move || read(pieces, &mut put);
        let contents = waiting(read).await?;
        let contents = contents.map_err(|error| place.wrong_file(known.name, error))?;
        files.check_header(known.name, &contents.header)?;
        Ok(contents)
    }
}

fn read(pieces: Pieces, put: &mut PutPage<'_>) -> Result<Contents, LtxError> {
    let mut reader = LtxReader::new(pieces)?;
    while let Some((page, bytes)) = reader.next_page()? {
        put(page, bytes).map_err(|source| LtxError::Write { at: 0, source })?;
    }
    reader.finish()
}

/// A file that is not done; it is removed unless it is kept.
struct Partial {
    path: PathBuf,
    file: File,
    done: bool,
}

impl Partial {
    fn new(to: &Path) -> io::Result<Self> {
        let name = to
            .file_name()
            .ok_or(io::ErrorKind::InvalidInput)?
            .to_string_lossy();
        let path = to.with_file_name(format!(".{name}.{:016x}.new", fastrand::u64(..)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let done = false;
        Ok(Self { path, file, done })
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Io {
            path: self.path.clone(),
            source,
        }
    }

    /// Gives it its name, when all of it is on the disk. A file that came there meanwhile stays.
    fn keep(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        match fs::hard_link(&self.path, to) {
            Ok(()) => fs::remove_file(&self.path)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // A file system without links.
            Err(_) => fs::rename(&self.path, to)?,
        }
        self.done = true;
        #[cfg(unix)]
        if let Some(folder) = to.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}
