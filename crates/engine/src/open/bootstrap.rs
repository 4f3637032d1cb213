//! The first connect: makes a replica of a remote database out of nothing. Everything is streamed to the file; the
//! `-info` file that says "ready" is written last. Before that it names the revision, and the page map is saved now and
//! then, so that a download that was cut off continues where it was ([`Begun`]), at the same revision.
//!
//! A replica can also be made without the remote ([`empty`]). What the first connect would have brought, the first pull
//! then brings: the same [`fetch`], into the pull's file.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use partial_sync_core::{
    Epoch, PageCount, PageMap, PageNo, PageSize, SavedPageMap,
    admit::admit,
    header::{Page1, empty_page_1},
};
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{Base, Replica, Storage, StorageFile, hidden, write_whole};
use roaring::RoaringBitmap;

use crate::{
    error::{Error, Result},
    fetch::request::pinned,
    open::{
        info::Info,
        options::{Bootstrap, Builder},
    },
};

/// Most pages of the first request, when the size of the database is not known: 256 MiB of 4096 bytes each. The rest is
/// asked for when it is.
const MOST_AT_FIRST: u32 = 1 << 16;
/// A first connect that is cut off downloads at most so much again,
const SAVE_BYTES: u64 = 8 << 20;
/// or what came in so long.
const SAVE_TIME: Duration = Duration::from_secs(5);

/// A replica that was made.
pub(crate) struct Bootstrapped {
    /// `None`: made without the remote.
    pub base: Option<Base>,
    pub page_size: PageSize,
    pub map: PageMap,
    /// Whether the remote sends along what a statement will touch.
    pub hydrates: bool,
}

/// What a first connect that was cut off has left: pages of one revision.
pub(crate) struct Begun {
    pub base: Base,
    pub page_size: PageSize,
    /// 0-based ids.
    pub present: RoaringBitmap,
}

/// What to fetch.
pub(crate) enum Plan {
    /// Everything, in requests of about so many bytes (`None` = one request).
    Everything { chunk: Option<u64> },
    /// See [`Bootstrap`]; `None` = page 1.
    Partial(Option<Bootstrap>),
}

impl Plan {
    pub(crate) fn of(options: &Builder) -> Self {
        match &options.partial {
            None => Self::Everything {
                chunk: options.pull_threshold,
            },
            Some(partial) => Self::Partial(partial.bootstrap.clone()),
        }
    }
}

/// What a fetch brought, besides the pages.
pub(crate) struct Fetched {
    pub base: Base,
    /// `None` when the remote's database is empty.
    pub page_size: Option<PageSize>,
    pub hydrates: bool,
}

/// Takes a page; page 1 says "WAL mode" already.
pub(crate) type Put<'a> = &'a mut (dyn FnMut(PageNo, &[u8]) -> Result<()> + Send);

/// Takes what a fetch brings.
trait Sink: Send {
    /// The revision and the page size are known: before the first page, once.
    fn begin(&mut self, base: &Base, page_size: PageSize) -> Result<()>;
    /// A page; page 1 says "WAL mode" already.
    fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()>;
    /// An answer has come whole.
    fn answered(&mut self) -> Result<()>;
}

/// Pages alone.
struct Pages<'a>(Put<'a>);

impl Sink for Pages<'_> {
    fn begin(&mut self, _: &Base, _: PageSize) -> Result<()> {
        Ok(())
    }

    fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        (self.0)(page, data)
    }

    fn answered(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Pages go to the file, and the page map is saved in a bounded rhythm.
struct Download<'a> {
    storage: &'a Arc<dyn Storage>,
    path: &'a Path,
    file: Arc<dyn StorageFile>,
    map: PageMap,
    /// Once they are known.
    of: Option<(PageSize, PageCount)>,
    /// Notes them in the info file.
    note: &'a mut (dyn FnMut(&Base, PageSize) -> Result<()> + Send),
    unsaved: u64,
    saved: Instant,
}

impl Download<'_> {
    fn save(&mut self) -> Result<()> {
        let Some((page_size, size)) = self.of.filter(|_| self.unsaved > 0) else {
            return Ok(());
        };
        save(self.storage, self.path, &*self.file, &self.map, page_size, size)?;
        self.unsaved = 0;
        self.saved = Instant::now();
        Ok(())
    }
}

impl Sink for Download<'_> {
    fn begin(&mut self, base: &Base, page_size: PageSize) -> Result<()> {
        self.of = Some((page_size, base.size));
        (self.note)(base, page_size)
    }

    fn page(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        let offset = (u64::from(page.get()) - 1) * data.len() as u64;
        let hidden = (page == PageNo::FIRST).then(|| hidden(data));
        self.file
            .write_at(hidden.as_deref().unwrap_or(data), offset)
            .map_err(|e| Error::storage("write", self.path, e))?;
        self.map.set_present(page, Epoch(0));
        self.unsaved += data.len() as u64;
        match self.unsaved >= SAVE_BYTES || self.saved.elapsed() >= SAVE_TIME {
            true => self.save(),
            false => Ok(()),
        }
    }

    fn answered(&mut self) -> Result<()> {
        self.save()
    }
}

/// Fetches into the file at `path`, and its page map. `note` writes down, before a page map does, which revision it is of.
pub(crate) async fn run(
    remote: &dyn Remote,
    storage: &Arc<dyn Storage>,
    path: &Path,
    plan: &Plan,
    deadline: Duration,
    begun: Option<Begun>,
    note: &mut (dyn FnMut(&Base, PageSize) -> Result<()> + Send),
) -> Result<Bootstrapped> {
    let mut download = Download {
        storage,
        path,
        file: open(storage, path)?,
        map: match &begun {
            Some(begun) => PageMap::from_sets(&begun.present, &RoaringBitmap::new(), Epoch(0)),
            None => PageMap::new(),
        },
        of: begun.as_ref().map(|begun| (begun.page_size, begun.base.size)),
        note,
        unsaved: 0,
        saved: Instant::now(),
    };
    let Fetched {
        base,
        page_size,
        hydrates,
    } = fetch_into(remote, plan, deadline, begun, &mut download).await?;
    let page_size = page_size.unwrap_or(PageSize::DEFAULT);
    let Download { file, map, .. } = download;
    finish(storage, path, &*file, &map, page_size, base.size)?;
    Ok(Bootstrapped {
        base: Some(base),
        page_size,
        map,
        hydrates,
    })
}

/// Reads what a first connect that was cut off has left at `path`, as far as a download by this plan can continue from it.
pub(crate) fn begun(storage: &dyn Storage, path: &Path, info: &Info, plan: &Plan) -> Result<Option<Begun>> {
    let resumes = match plan {
        Plan::Everything { .. } => true,
        Plan::Partial(bootstrap) => matches!(bootstrap, Some(Bootstrap::Prefix { .. })),
    };
    if !resumes || info.is_unpulled() || info.base_size == 0 {
        return Ok(None);
    }
    // What cannot be read is started over.
    let (Ok(Some(saved)), Ok(page_size)) = (Replica::load_map(storage, path), PageSize::new(info.page_size))
    else {
        return Ok(None);
    };
    if saved.page_size != page_size || saved.db_size.0 != info.base_size {
        return Ok(None);
    }
    let file = storage
        .open(path, false)
        .map_err(|e| Error::storage("open", path, e))?;
    let in_file = file.len().map_err(|e| Error::storage("read", path, e))? / u64::from(page_size.bytes());
    let mut present = saved.present;
    present.remove_range(u32::try_from(in_file).unwrap_or(u32::MAX).min(info.base_size)..);
    Ok(Some(Begun {
        base: info.base(path)?,
        page_size,
        present,
    }))
}

/// Makes a replica without the remote: a database without tables, as of an empty remote.
pub(crate) fn empty(storage: &Arc<dyn Storage>, path: &Path) -> Result<Bootstrapped> {
    let file = open(storage, path)?;
    file.set_len(0).map_err(|e| Error::storage("empty", path, e))?;
    let (map, page_size) = (PageMap::new(), PageSize::DEFAULT);
    finish(storage, path, &*file, &map, page_size, PageCount::ZERO)?;
    Ok(Bootstrapped {
        base: None,
        page_size,
        map,
        hydrates: false,
    })
}

fn open(storage: &Arc<dyn Storage>, path: &Path) -> Result<Arc<dyn StorageFile>> {
    storage
        .open(path, true)
        .map_err(|e| Error::storage("create", path, e))
}

/// Makes data and map durable.
fn finish(
    storage: &Arc<dyn Storage>,
    path: &Path,
    file: &dyn StorageFile,
    map: &PageMap,
    page_size: PageSize,
    size: PageCount,
) -> Result<()> {
    let failed = |e| Error::storage("write", path, e);
    if size == PageCount::ZERO {
        // An empty remote: a database without tables, which the first push creates there.
        file.write_at(&hidden(&empty_page_1(page_size)), 0)
            .map_err(failed)?;
        map.set_present(PageNo::FIRST, Epoch(0));
        map.set_dirty(PageNo::FIRST);
    } else {
        file.set_len(size.bytes(page_size)).map_err(failed)?;
    }
    save(storage, path, file, map, page_size, size)
}

/// Makes what is here durable, and then the map that says so.
fn save(
    storage: &Arc<dyn Storage>,
    path: &Path,
    file: &dyn StorageFile,
    map: &PageMap,
    page_size: PageSize,
    size: PageCount,
) -> Result<()> {
    let generation = map.generation();
    let saved = SavedPageMap::of(map, page_size, size);
    file.sync().map_err(|e| Error::storage("write", path, e))?;
    let map_path = Replica::map_path(path);
    write_whole(&**storage, &map_path, &saved.encode()).map_err(|e| Error::storage("write", &map_path, e))?;
    map.mark_saved(generation);
    Ok(())
}

/// Fetches what `plan` says, all of one revision.
pub(crate) async fn fetch(
    remote: &dyn Remote,
    plan: &Plan,
    deadline: Duration,
    put: Put<'_>,
) -> Result<Fetched> {
    fetch_into(remote, plan, deadline, None, &mut Pages(put)).await
}

async fn fetch_into(
    remote: &dyn Remote,
    plan: &Plan,
    deadline: Duration,
    begun: Option<Begun>,
    sink: &mut dyn Sink,
) -> Result<Fetched> {
    let mut filling = Filling {
        sink,
        came: RoaringBitmap::new(),
        page_size: None,
        wanted_bytes: None,
        hydrates: false,
    };
    if let Some(begun) = begun {
        filling.came = begun.present;
        filling.page_size = Some(begun.page_size);
        filling.complete(remote, plan, &begun.base, deadline).await?;
        return Ok(Fetched {
            base: begun.base,
            page_size: filling.page_size,
            hydrates: filling.hydrates,
        });
    }
    let guess = u64::from(PageSize::DEFAULT.bytes());
    let mut request = PagesRequest {
        deadline: Some(deadline),
        ..PagesRequest::default()
    };
    match plan {
        Plan::Everything { chunk: None } => {}
        Plan::Everything { chunk: Some(bytes) } => request.select = first_ids(bytes / guess),
        Plan::Partial(None) => request.select = first_ids(1),
        Plan::Partial(Some(Bootstrap::Prefix { length })) => {
            // The page size is not known yet; 4096 is what nearly every database has.
            request.select = first_ids(length / guess);
            filling.wanted_bytes = Some(*length);
        }
        Plan::Partial(Some(Bootstrap::Query { query })) => request.query = Some(query.clone()),
    }
    let is_query = request.query.is_some();
    let base = filling
        .fetch(remote, request)
        .await
        .map_err(|error| match error {
            Error::Remote(e) if is_query && e.kind == RemoteErrorKind::Refused => {
                Error::BootstrapQuery { message: e.message }
            }
            other => other,
        })?;
    filling.complete(remote, plan, &base, deadline).await?;
    Ok(Fetched {
        base,
        page_size: filling.page_size,
        hydrates: filling.hydrates,
    })
}

fn first_ids(pages: u64) -> PageSelector {
    let pages = u32::try_from(pages).unwrap_or(u32::MAX).clamp(1, MOST_AT_FIRST);
    PageSelector::Ids((0..pages).collect())
}

struct Filling<'a> {
    sink: &'a mut dyn Sink,
    /// 0-based ids of the pages that came.
    came: RoaringBitmap,
    page_size: Option<PageSize>,
    /// Stop after so many bytes from the file's start, once the page size is known.
    wanted_bytes: Option<u64>,
    hydrates: bool,
}

impl Filling<'_> {
    async fn fetch(&mut self, remote: &dyn Remote, request: PagesRequest) -> Result<Base> {
        let mut answer = remote.pages(request).await?;
        self.hydrates = answer.header.features.hydrate;
        let base = Base {
            revision: answer.header.revision.clone(),
            size: answer.header.db_size,
        };
        while let Some(page) = answer.pages.next().await {
            let page = page?;
            let Some(number) = page.id.no() else { continue };
            let size = match self.page_size {
                Some(size) => size,
                None => {
                    let size = PageSize::new(page.data.len() as u32).map_err(|e| unusable(e.to_string()))?;
                    self.sink.begin(&base, size)?;
                    *self.page_size.insert(size)
                }
            };
            if let Some(bytes) = self.wanted_bytes
                && number != PageNo::FIRST
                && number.offset(size) + u64::from(size.bytes()) > bytes
            {
                // Larger pages than guessed: the rest was asked for by mistake.
                continue;
            }
            self.put(number, &page.data, size)?;
        }
        self.sink.answered()?;
        Ok(base)
    }

    fn put(&mut self, page: PageNo, data: &[u8], size: PageSize) -> Result<()> {
        let admitted = admit(page, data, size).map_err(|e| unusable(e.to_string()))?;
        let Some(data) = admitted else { return Ok(()) };
        if page == PageNo::FIRST && Page1::of(&data).is_err() {
            return Err(unusable(
                "its first page has no SQLite header; is it encrypted, or no database?".into(),
            ));
        }
        self.sink.page(page, &data)?;
        self.came.insert(page.id().0);
        Ok(())
    }

    /// Fetches what the first answer could not hold, all at the first answer's revision.
    async fn complete(
        &mut self,
        remote: &dyn Remote,
        plan: &Plan,
        base: &Base,
        deadline: Duration,
    ) -> Result<()> {
        if base.size == PageCount::ZERO {
            return Ok(());
        }
        if self.page_size.is_none() {
            // A query that touched nothing.
            self.fetch(
                remote,
                PagesRequest {
                    revision: Some(base.revision.clone()),
                    ..page_1(deadline)
                },
            )
            .await?;
        }
        let Some(page_size) = self.page_size else {
            return Err(Error::Remote(RemoteError::new(
                RemoteErrorKind::Protocol,
                format!(
                    "{} said that its database has {} pages but sent none",
                    remote.url(),
                    base.size
                ),
            )));
        };
        let pages = |bytes| usize::try_from(bytes / u64::from(page_size.bytes())).unwrap_or(usize::MAX);
        let (last, chunk) = match plan {
            Plan::Everything { chunk } => (base.size.0, chunk.map_or(usize::MAX, pages)),
            Plan::Partial(Some(Bootstrap::Prefix { length })) => (
                u32::try_from(pages(*length))
                    .unwrap_or(u32::MAX)
                    .clamp(1, base.size.0),
                usize::MAX,
            ),
            Plan::Partial(_) => (1, usize::MAX),
        };
        let missing: Vec<PageNo> = PageCount(last)
            .iter()
            .filter(|&p| !self.came.contains(p.id().0) && !p.is_lock_byte_page(page_size))
            .collect();
        for pages in missing.chunks(chunk.max(1)) {
            self.fetch(remote, pinned(base, pages, page_size, deadline))
                .await?;
        }
        if !self.came.contains(0) {
            return Err(unusable("the remote did not send its first page".into()));
        }
        Ok(())
    }
}

fn page_1(deadline: Duration) -> PagesRequest {
    PagesRequest {
        select: PageSelector::Ids(RoaringBitmap::from_iter([0])),
        deadline: Some(deadline),
        ..PagesRequest::default()
    }
}

fn unusable(why: String) -> Error {
    Error::UnusableDatabase { why }
}
