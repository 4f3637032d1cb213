//! The first connect: makes a replica of a remote database out of nothing. Everything is streamed to the file; the
//! `-info` file that says "ready" is written last. Before that it names the revision, and the page map is saved now and
//! then, so that a download that was cut off continues where it was ([`PartialDownload`]), at the same revision.
//!
//! A replica can also be made without the remote ([`empty`]). What the first connect would have brought, the first pull
//! then brings: the same [`fetch_initial`](crate::fetch::initial::fetch_initial), into the pull's file.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync_core::{Epoch, PageCount, PageMap, PageNo, PageSize, header::empty_page_1};
use partial_sync_transport::{Features, Remote};
use partial_sync_vfs::{Base, Replica, Storage, StorageFile, hidden, save_page_map};
use roaring::RoaringBitmap;

use crate::{
    error::{Error, Result},
    fetch::initial::{Fetched, InitialPages, PartialDownload, Receiver, fetch_initial_into},
    open::{info::Info, options::Bootstrap},
};

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
    /// What the remote can do.
    pub features: Features,
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

impl Receiver for Download<'_> {
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
pub(crate) async fn download(
    remote: &dyn Remote,
    storage: &Arc<dyn Storage>,
    path: &Path,
    wanted: &InitialPages,
    deadline: Duration,
    left: Option<PartialDownload>,
    note: &mut (dyn FnMut(&Base, PageSize) -> Result<()> + Send),
) -> Result<Bootstrapped> {
    let mut download = Download {
        storage,
        path,
        file: open(storage, path)?,
        map: match &left {
            Some(left) => PageMap::from_sets(&left.present, &RoaringBitmap::new()),
            None => PageMap::new(),
        },
        of: left.as_ref().map(|left| (left.page_size, left.base.size)),
        note,
        unsaved: 0,
        saved: Instant::now(),
    };
    let Fetched {
        base,
        page_size,
        features,
    } = fetch_initial_into(remote, wanted, deadline, left, &mut download).await?;
    let page_size = page_size.unwrap_or(PageSize::DEFAULT);
    let Download { file, map, .. } = download;
    finish(storage, path, &*file, &map, page_size, base.size)?;
    Ok(Bootstrapped {
        base: Some(base),
        page_size,
        map,
        features,
    })
}

/// Reads what a first connect that was cut off has left at `path`, if a download of these pages can continue from it.
pub(crate) fn resumable(
    storage: &dyn Storage,
    path: &Path,
    info: &Info,
    wanted: &InitialPages,
) -> Result<Option<PartialDownload>> {
    let resumes = match wanted {
        InitialPages::Everything { .. } => true,
        InitialPages::Partial(bootstrap) => matches!(bootstrap, Some(Bootstrap::Prefix { .. })),
    };
    if !resumes || info.is_unpulled() || info.base_size == 0 {
        return Ok(None);
    }
    let Ok(page_size) = PageSize::new(info.page_size) else {
        return Ok(None);
    };
    let file = storage
        .open(path, false)
        .map_err(|e| Error::storage("open", path, e))?;
    let in_file = file.len().map_err(|e| Error::storage("read", path, e))? / u64::from(page_size.bytes());
    let end = PageCount(u32::try_from(in_file).unwrap_or(u32::MAX).min(info.base_size));
    let saved = match Replica::load_map(storage, path, end) {
        Ok(Some(saved)) => saved,
        // What is damaged is started over; a disk that cannot be read now may be read later.
        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
            return Err(Error::storage("read the page map of", path, error));
        }
        Ok(None) | Err(_) => return Ok(None),
    };
    if saved.page_size != page_size || saved.db_size.0 != info.base_size {
        return Ok(None);
    }
    Ok(Some(PartialDownload {
        base: info.base(path)?,
        page_size,
        present: saved.map.present(),
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
        features: Features::default(),
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
    save_page_map(&**storage, path, map, page_size, size, || file.sync())
        .map_err(|e| Error::storage("save the page map of", path, e))
}
