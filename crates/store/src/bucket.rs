//! The objects of one database: every request to the store is made here, and checked.
//!
//! What must never happen here: that a part of an object is taken for all of it, that an object of another size is taken for the one
//! that was meant, or that an answer of any size is read into memory.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    Error as ObjectError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion,
    path::{Path, PathPart},
};
use partial_sync_ltx::{HEADER_LEN, Header, TxId, TxRange};

#[cfg(feature = "remote")]
use crate::counted::{Counted, Counts};
use crate::{
    clock::{Clock, LocalClock},
    error::StoreError,
    head::Head,
    layout::{FileName, Layout, Level},
};

/// The most bytes of a head that are read.
const HEAD_LIMIT: u64 = 4 << 20;
/// What is written beside the files of Litestream.
const FOLDER: &str = "partial-sync";

/// Where a database is kept.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    layout: Layout,
    name: Arc<str>,
    clock: Arc<dyn Clock>,
    others: Arc<Open>,
}

/// Opens the place that a url names.
type Open = dyn Fn(&str) -> Result<Bucket, StoreError> + Send + Sync;

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.name).finish()
    }
}

/// What became of an object that was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now.
    Done,
    /// There was one of that name.
    Exists,
}

/// A file of the log, as a listing tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its transactions.
    pub ids: TxRange,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the store's clock: milliseconds since 1970.
    pub modified: i64,
}

/// A file, or how large it is.
#[derive(Debug)]
pub(crate) enum Got {
    /// All of it.
    Whole(Bytes),
    /// It has more bytes than were to be read: that many.
    Larger(u64),
}

/// Bytes of a file, of which more than these may be there.
pub(crate) struct Part {
    /// How many bytes the whole file has, as the store says.
    pub(crate) file_len: u64,
    /// Which version of the object this is, if the store tells.
    pub(crate) tag: Option<String>,
    /// The bytes asked for; it is not known yet that they are all there.
    pub(crate) bytes: BoxStream<'static, Result<Bytes, ObjectError>>,
}

/// Which head was read: it can be replaced as long as it is that one.
#[derive(Clone, Debug)]
pub(crate) struct HeadVersion(UpdateVersion);

/// What became of a head that was to be written.
pub(crate) enum Swapped {
    /// It is there now.
    Done,
    /// Another one was written meanwhile.
    Lost,
}

impl Bucket {
    /// The place `prefix` in `store`, whose name in errors is `name`: a url without secrets.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, layout: Layout, name: impl Into<Arc<str>>) -> Self {
        Self {
            store,
            prefix,
            layout,
            name: name.into(),
            clock: Arc::new(LocalClock::new()),
            others: Arc::new(|url| {
                Err(StoreError::Url {
                    url: url.to_owned(),
                    why: "it was not said how other places are opened from here".to_owned(),
                })
            }),
        }
    }

    /// The same place, and how others are opened that its head names: those of its parents and branches.
    #[must_use]
    pub fn with_others(
        self,
        open: impl Fn(&str) -> Result<Self, StoreError> + Send + Sync + 'static,
    ) -> Self {
        let others = Arc::new(open);
        Self { others, ..self }
    }

    /// The place that a url in the head names.
    pub(crate) fn other(&self, url: &str) -> Result<Self, StoreError> {
        (self.others)(url)
    }

    /// The same place, with other clocks.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The same place, and those that its head names, with requests that are counted.
    #[cfg(feature = "remote")]
    pub(crate) fn counted(self, counts: &Arc<Counts>) -> Self {
        let (others, of_others) = (self.others, Arc::clone(counts));
        Self {
            store: Arc::new(Counted::new(self.store, Arc::clone(counts))),
            others: Arc::new(move |url| Ok(others(url)?.counted(&of_others))),
            ..self
        }
    }

    /// The same place, with files that are called otherwise.
    pub(crate) fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Its name in errors.
    pub fn name(&self) -> String {
        self.name.as_ref().to_owned()
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    fn under(&self, key: &str) -> Path {
        // What a url calls the place is not written in another way.
        let parts = self.prefix.parts();
        parts.chain(key.split('/').map(PathPart::from)).collect()
    }

    pub(crate) fn path(&self, name: FileName) -> Path {
        self.under(&self.layout.file(name))
    }

    /// An object of this crate.
    pub(crate) fn own(&self, name: &str) -> Path {
        self.under(&format!("{FOLDER}/{name}"))
    }

    pub(crate) fn failed(&self, what: impl fmt::Display, source: ObjectError) -> StoreError {
        let (store, what) = (self.name(), what.to_string());
        match source {
            ObjectError::NotFound { .. } => StoreError::Missing { store, what },
            source => StoreError::Request { store, what, source },
        }
    }

    /// Writes a file that must not be there yet.
    pub async fn create(&self, name: FileName, file: Bytes) -> Result<Created, StoreError> {
        self.create_object(&self.path(name), file, &name).await
    }

    pub(crate) async fn create_object(
        &self,
        path: &Path,
        object: Bytes,
        what: &(dyn fmt::Display + Sync),
    ) -> Result<Created, StoreError> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(path, object.into(), options).await {
            Ok(_) => Ok(Created::Done),
            // Azure says the one, S3 the other.
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.failed(format_args!("writing {what}"), error)),
        }
    }

    /// How many bytes a file has; `None` if it is not there.
    pub async fn size(&self, name: FileName) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.path(name)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(format_args!("looking for {name}"), error)),
        }
    }

    /// Exactly these bytes of a file.
    pub async fn range(&self, name: FileName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let what = format_args!("reading bytes {} to {} of {name}", range.start, range.end).to_string();
        let part = self.part(name, range.clone()).await?;
        self.exactly(part.bytes, range.end - range.start, &what).await
    }

    /// A file, if it is there, and if it has at most `limit` bytes: one request.
    pub(crate) async fn get(&self, name: FileName, limit: u64) -> Result<Option<Got>, StoreError> {
        let what = format!("reading {name}");
        let answer = match self.store.get(&self.path(name)).await {
            Ok(answer) => answer,
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(what, error)),
        };
        let size = answer.meta.size;
        if size > limit {
            return Ok(Some(Got::Larger(size)));
        }
        let bytes = self.exactly(answer.into_stream(), size, &what).await?;
        Ok(Some(Got::Whole(bytes)))
    }

    /// These bytes of a file as they come, with what the store tells of the file.
    pub(crate) async fn part(&self, name: FileName, range: Range<u64>) -> Result<Part, StoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&self.path(name), options).await;
        let what = || format!("reading bytes {} to {} of {name}", range.start, range.end);
        let answer = answer.map_err(|error| self.failed(what(), error))?;
        Ok(Part {
            file_len: answer.meta.size,
            tag: answer.meta.e_tag.clone(),
            bytes: answer.into_stream(),
        })
    }

    /// The bytes of a stream, which must be `len`; more are not read.
    pub(crate) async fn exactly(
        &self,
        mut pieces: BoxStream<'static, Result<Bytes, ObjectError>>,
        len: u64,
        what: &str,
    ) -> Result<Bytes, StoreError> {
        let other_size = || StoreError::Request {
            store: self.name(),
            what: what.to_owned(),
            source: ObjectError::Generic {
                store: "answer",
                source: "the answer has another length".into(),
            },
        };
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.failed(what, error))?;
            if piece.len() as u64 > len - bytes.len() as u64 {
                return Err(other_size());
            }
            bytes.extend_from_slice(&piece);
        }
        match bytes.len() as u64 == len {
            true => Ok(bytes.into()),
            false => Err(other_size()),
        }
    }

    /// A file from its beginning to its end, as it comes, and how many bytes it has.
    pub(crate) async fn stream(
        &self,
        name: FileName,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, ObjectError>>), StoreError> {
        let answer = self.store.get(&self.path(name)).await;
        let answer = answer.map_err(|error| self.failed(format_args!("reading {name}"), error))?;
        Ok((answer.meta.size, answer.into_stream()))
    }

    /// The header of a file, which must say what its name says.
    pub async fn header(&self, name: FileName) -> Result<Header, StoreError> {
        let bytes = self.range(name, 0..HEADER_LEN as u64).await?;
        self.parse_header(name, &bytes)
    }

    pub(crate) fn parse_header(&self, name: FileName, bytes: &[u8]) -> Result<Header, StoreError> {
        let header = Header::parse(bytes).map_err(|error| self.wrong_file(name, error))?;
        match header.ids == name.ids {
            true => Ok(header),
            false => Err(self.wrong_file(
                name,
                partial_sync_ltx::LtxError::Position {
                    ids: header.ids,
                    why: "its name says other transactions",
                },
            )),
        }
    }

    pub(crate) fn wrong_file(&self, name: FileName, source: partial_sync_ltx::LtxError) -> StoreError {
        StoreError::File {
            store: self.name(),
            what: name.to_string(),
            source,
        }
    }

    /// The files of a level whose names are after those that begin with `after`, in the order of their names. This asks the store
    /// for a listing, which is slow and costs: nothing that happens for each commit or each read does it.
    pub async fn list(&self, level: Level, after: Option<TxId>) -> Result<Vec<Listed>, StoreError> {
        let folder = self.under(&self.layout.folder(level));
        let objects = match after {
            // Behind every name that begins with this id.
            Some(after) => {
                let offset = self.under(&format!("{}/{after}-g", self.layout.folder(level)));
                self.store.list_with_offset(Some(&folder), &offset)
            }
            None => self.store.list(Some(&folder)),
        };
        let listed = objects.try_filter_map(|object| async move {
            let ids = object.location.filename().and_then(TxRange::of_file_name);
            Ok(ids.map(|ids| Listed {
                ids,
                size: object.size,
                modified: object.last_modified.timestamp_millis(),
            }))
        });
        let mut listed: Vec<_> = listed
            .try_collect()
            .await
            .map_err(|error| self.failed(format_args!("listing level {level}"), error))?;
        listed.sort_by_key(|file: &Listed| (file.ids.min(), file.ids.max()));
        Ok(listed)
    }

    /// Removes files; one that is not there is no error.
    pub(crate) async fn delete(&self, names: Vec<FileName>) -> Result<(), StoreError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(*name))).collect();
        let mut results = self
            .store
            .delete_stream(futures_util::stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(ObjectError::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("removing files", error)),
            }
        }
        Ok(())
    }

    /// The head, and which it is; `None` if there is none.
    pub(crate) async fn head(&self) -> Result<Option<(Head, HeadVersion)>, StoreError> {
        let answer = match self.store.get(&self.own("head.json")).await {
            Ok(answer) => answer,
            Err(ObjectError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("reading head.json", error)),
        };
        let version = HeadVersion(UpdateVersion {
            e_tag: answer.meta.e_tag.clone(),
            version: answer.meta.version.clone(),
        });
        let size = answer.meta.size;
        if size > HEAD_LIMIT {
            let why = format!("it has {size} bytes, at most {HEAD_LIMIT} are read");
            return Err(StoreError::Head {
                store: self.name(),
                why,
            });
        }
        let bytes = self
            .exactly(answer.into_stream(), size, "reading head.json")
            .await?;
        Ok(Some((Head::parse(&bytes, &self.name)?, version)))
    }

    /// Writes the first head.
    pub(crate) async fn create_head(&self, head: &Head) -> Result<Swapped, StoreError> {
        self.write_head(head, PutMode::Create).await
    }

    /// Replaces the head that was read as `version`. A lost answer is settled: every head that is written has a number of its own.
    pub(crate) async fn swap_head(&self, head: &Head, version: HeadVersion) -> Result<Swapped, StoreError> {
        self.write_head(head, PutMode::Update(version.0)).await
    }

    async fn write_head(&self, head: &Head, mode: PutMode) -> Result<Swapped, StoreError> {
        let bytes = head.to_bytes();
        let path = self.own("head.json");
        let put = self.store.put_opts(&path, bytes.into(), PutOptions::from(mode));
        let error = match put.await {
            Ok(_) => return Ok(Swapped::Done),
            Err(error) => error,
        };
        // It may be there all the same: the answer was lost, or came to a second try of the store's client.
        let there = self.head().await;
        if there
            .as_ref()
            .is_ok_and(|there| there.as_ref().is_some_and(|(there, _)| there.edit == head.edit))
        {
            return Ok(Swapped::Done);
        }
        match error {
            ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. } => {
                there.map(|_| Swapped::Lost)
            }
            // This one may still arrive; the next head that is written makes it fail.
            error => Err(self.failed("writing head.json", error)),
        }
    }
}
