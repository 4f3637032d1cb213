//! A replica's database file as SQLite sees it through the VFS: pages that are here are read, pages that are not are
//! asked of the [`PageSource`], and nothing that is here is ever overwritten by a fetch.
//!
//! # Who may see which copy of a page
//!
//! The main file holds, for each present page, its content at the base revision (or a newer local one that a checkpoint
//! put there). Three parties touch it:
//!
//! - a *fetch* fills a page that is absent, if the replica is still in the fetch's epoch; otherwise its readers keep the
//!   copy to themselves;
//! - a *checkpoint* writes pages from the WAL, which SQLite only does when no reader needs the older copy;
//! - a *pull* moves the epoch: pages that were filled since it asked "what changed", and pages that the database has no
//!   more, become absent for new readers, and stay as they are for those that began before.
//!
//! A reader belongs to the epoch in which its snapshot began. It may use a present page only if that page became present
//! in its epoch or before ([`PageMap`]), and checks after reading that this is still so; otherwise it fetches the page at
//! its own revision. `fill` serialises the three writers; readers take no lock.
//!
//! This file opens a replica and reads and writes its main file; `fetch` obtains what is absent, `durable` says what
//! survives a crash, `gate` is where snapshots begin and the base moves.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use partial_sync_core::{
    Epoch, PageCount, PageId, PageMap, PageNo, PageSize, Planner, PlannerConfig, Revision, SegmentSize,
};
use roaring::RoaringBitmap;

use crate::{
    error::ReadError,
    locks::{MainLock, WalIndex},
    registry, shim,
    source::{Base, Miss, PageSource},
    storage::{Storage, StorageFile},
    sync::{Condvar, Mutex, MutexGuard, RwLock},
};

mod durable;
mod fetch;
mod gate;
mod instance;
#[cfg(all(test, feature = "shuttle"))]
mod interleavings;
mod ordinary;

pub use durable::WalMark;
pub use fetch::PageSink;
use fetch::{Flights, PrivatePages};
use gate::Bases;
pub use gate::NextBase;
pub(crate) use instance::Instance;
use instance::Standing;
pub use ordinary::{HeaderKind, OrdinaryMark, header_kind, hidden, hide_file};

/// What a replica is opened with.
pub struct ReplicaConfig {
    /// Where its files are.
    pub storage: Arc<dyn Storage>,
    /// The database file; the side files' names are this with `-pages`, `-wal` behind it. Absolute.
    pub path: PathBuf,
    /// Page size of the remote database.
    pub page_size: PageSize,
    /// The remote state that absent pages belong to.
    pub base: Base,
    /// Which pages are here.
    pub map: PageMap,
    /// Where absent pages come from.
    pub source: Arc<dyn PageSource>,
    /// How much is fetched around an absent page.
    pub segment: SegmentSize,
    /// Whether the planner may add pages that it expects to be wanted next.
    pub prefetch: bool,
    /// How long a read waits for an absent page, a new snapshot for a pull, and a registration for the connections of
    /// an earlier instance.
    pub wait: Duration,
    /// Whether nothing of it needs to survive a crash.
    pub temporary: bool,
}

/// There is nothing to wait for in a whole database.
const WHOLE_WAIT: Duration = Duration::from_secs(30);

/// The source of a whole database, which is never asked.
struct NoSource;

impl PageSource for NoSource {
    fn fetch(&self, _miss: Miss, sink: PageSink) {
        sink.finish(Err(Arc::new(ReadError::Abandoned)));
    }
}

/// What a read of a page that is not here gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The page, fetched.
    #[default]
    Fetch,
    /// Zeros: the handle only overwrites pages, or reads those that are here. See
    /// [`Conn::never_fetch`](crate::sqlite::Conn::never_fetch).
    Zeros,
}

/// One replica; shared by its connections. Registered under its path while it lives.
pub struct Replica {
    me: Weak<Self>,
    storage: Arc<dyn Storage>,
    path: PathBuf,
    page_size: PageSize,
    main: Arc<dyn StorageFile>,
    /// Size of the main file as SQLite is told.
    size: AtomicU64,
    map: PageMap,
    source: Arc<dyn PageSource>,
    wait: Duration,
    prefetch: AtomicBool,
    segment: SegmentSize,
    planner: Mutex<Planner>,
    /// Lock order: `fill`, `wal_index`, then any of these.
    bases: RwLock<Bases>,
    /// Held by whoever changes what the main file holds: a fetch, a checkpoint, a pull.
    fill: Mutex<()>,
    flights: Mutex<Flights>,
    /// Pages that could not go to the main file, for the readers of one epoch.
    private_pages: Mutex<PrivatePages>,
    /// Pages (0-based ids) whose copy in the main file is for readers of epochs before the key only.
    retired: Mutex<BTreeMap<Epoch, RoaringBitmap>>,
    pub(crate) main_lock: Mutex<MainLock>,
    wal_index: Mutex<WalIndex>,
    gate_opened: Condvar,
    fetched_extra: AtomicU64,
    used_extra: AtomicU64,
    /// Pages that the planner added, until they are read.
    extra: Mutex<RoaringBitmap>,
    saving: Mutex<()>,
    /// Whether the WAL's name was made durable since the WAL was made.
    wal_is_named: AtomicBool,
    pub(crate) instance: Arc<Instance>,
    /// See [`Replica::failed_commit_may_come_back`].
    may_come_back: AtomicBool,
    /// Every page is here and nothing is tracked; see [`Replica::register_whole`].
    whole: bool,
    /// Its page map is not saved.
    temporary: bool,
}

/// How many pages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// Pages of the database: of the base, or of the local file if that is larger.
    pub total: u32,
    /// Pages that are here.
    pub present: u32,
    /// Pages that local transactions wrote since the base revision.
    pub dirty: u32,
    /// Pages that prefetch added and a query then read.
    pub prefetch_hits: u64,
    /// Pages that prefetch added and no query has read so far.
    pub prefetch_unused: u64,
}

impl Replica {
    /// Opens the replica's files and makes its name known to the VFS. The storage must have the main file.
    /// [`io::ErrorKind::WouldBlock`] when the name is taken; [`io::ErrorKind::ResourceBusy`], with a
    /// [`ReadError::LeftOpen`] in it, when who had it before is closed but has connections left.
    pub fn register(config: ReplicaConfig) -> io::Result<Arc<Self>> {
        Self::register_as(config, false)
    }

    fn register_as(config: ReplicaConfig, whole: bool) -> io::Result<Arc<Self>> {
        let main = config.storage.open(&config.path, true)?;
        let page_size = config.page_size;
        let size = main.len()?.max(config.base.size.bytes(page_size));
        let planner = Planner::new(PlannerConfig {
            prefetch: config.prefetch,
            ..PlannerConfig::new(page_size, config.segment)
        });
        let replica = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            storage: config.storage,
            path: config.path,
            page_size,
            main,
            size: AtomicU64::new(size),
            map: config.map,
            source: config.source,
            wait: config.wait,
            prefetch: AtomicBool::new(config.prefetch),
            segment: config.segment,
            planner: Mutex::new(planner),
            bases: RwLock::new(Bases::new(config.base)),
            fill: Mutex::default(),
            flights: Mutex::default(),
            private_pages: Mutex::default(),
            retired: Mutex::default(),
            main_lock: Mutex::default(),
            wal_index: Mutex::default(),
            gate_opened: Condvar::new(),
            fetched_extra: AtomicU64::new(0),
            used_extra: AtomicU64::new(0),
            extra: Mutex::default(),
            saving: Mutex::default(),
            wal_is_named: AtomicBool::new(false),
            instance: Arc::default(),
            may_come_back: AtomicBool::new(false),
            whole,
            temporary: config.temporary,
        });
        if !whole && let Some(HeaderKind::Ordinary(_)) = header_kind(&*replica.main)? {
            replica.instance.is_ordinary();
        }
        shim::register_vfs()?;
        registry::register(&replica, config.wait).map(|()| replica)
    }

    /// A plain database file whose operations go through `storage`: every page is here, there is no map and no source. For
    /// databases that one process keeps beside something else, so that tests can stop them at any operation too.
    pub fn register_whole(storage: Arc<dyn Storage>, path: PathBuf) -> io::Result<Arc<Self>> {
        let revision = Revision::new("whole").ok_or(io::ErrorKind::InvalidInput)?;
        let config = ReplicaConfig {
            storage,
            path,
            page_size: PageSize::DEFAULT,
            base: Base {
                revision,
                size: PageCount::ZERO,
            },
            map: PageMap::new(),
            source: Arc::new(NoSource),
            segment: SegmentSize::DEFAULT,
            prefetch: false,
            wait: WHOLE_WAIT,
            temporary: false,
        };
        Self::register_as(config, true)
    }

    /// The name to open with the VFS [`crate::VFS_NAME`].
    pub fn name(&self) -> &Path {
        &self.path
    }

    /// The page size.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Which pages are here and which are dirty.
    pub fn map(&self) -> &PageMap {
        &self.map
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.bases.read().epoch
    }

    /// The remote state that absent pages belong to now.
    pub fn base(&self) -> Base {
        self.bases.read().base.clone()
    }

    fn base_of(&self, epoch: Epoch) -> Option<Base> {
        self.bases.read().of(epoch).cloned()
    }

    /// Counters.
    pub fn counts(&self) -> PageCounts {
        let in_file = self.page_size.pages_for(self.size.load(Ordering::Acquire)) as u32;
        let total = in_file.max(self.base().size.0);
        let used = self.used_extra.load(Ordering::Relaxed);
        PageCounts {
            total,
            present: self.map.present_count().0,
            dirty: self.map.dirty_count().0,
            prefetch_hits: used,
            prefetch_unused: self.fetched_extra.load(Ordering::Relaxed).saturating_sub(used),
        }
    }

    /// Whether SQLite may be told that there is a rollback journal: a replica, always in WAL mode, has none.
    pub(crate) fn may_have_journal(&self) -> bool {
        self.whole
    }

    // ---- what the shim calls ----

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub(crate) fn file_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Reads bytes of the main file for a handle whose read transaction belongs to `epoch`. Returns how many bytes lie
    /// within the file.
    pub(crate) fn read(
        &self,
        epoch: Epoch,
        absent: Absent,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, ReadError> {
        let read = self.read_hidden(epoch, absent, buf, offset)?;
        if !self.whole {
            ordinary::show(&mut buf[..read], offset);
        }
        Ok(read)
    }

    fn read_hidden(
        &self,
        epoch: Epoch,
        absent: Absent,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        if self.whole {
            return self.read_main(buf, offset);
        }
        let available = self.file_size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let page_len = self.page_size.as_usize();
        // Nearly every read is one whole page that is here; page sizes are powers of two.
        if available == page_len
            && offset & (page_len as u64 - 1) == 0
            && !self.prefetch.load(Ordering::Relaxed)
            && let Some(page) = u32::try_from(offset >> page_len.trailing_zeros())
                .ok()
                .and_then(|id| PageId(id).no())
            && let Some(cell) = self.map.cell(page)
        {
            let state = cell.state();
            if state.visible_to(epoch) && self.read_main(buf, offset)? == page_len && cell.is_still(state) {
                return Ok(page_len);
            }
        }
        let mut done = 0;
        while done < available {
            let position = offset + done as u64;
            let page = PageNo::containing(position, self.page_size).ok_or(ReadError::BeyondEnd)?;
            let within = (position % page_len as u64) as usize;
            let n = (page_len - within).min(available - done);
            self.read_in_page(epoch, absent, page, within, &mut buf[done..done + n])?;
            done += n;
        }
        Ok(available)
    }

    fn read_main(&self, buf: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        self.main
            .read_at(buf, offset)
            .map_err(ReadError::io("read", &self.path))
    }

    fn read_in_page(
        &self,
        epoch: Epoch,
        absent: Absent,
        page: PageNo,
        within: usize,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut deadline = None;
        loop {
            let state = self.map.state(page);
            if !state.visible_to(epoch) && !self.is_kept_for(epoch, page, state) {
                if absent == Absent::Zeros {
                    buf.fill(0);
                    return Ok(());
                }
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.wait);
                if let Some(bytes) = self.obtain(epoch, page, deadline)? {
                    buf.copy_from_slice(&bytes[within..within + buf.len()]);
                    self.observe(page, within, buf);
                    return Ok(());
                }
                continue;
            }
            let n = self.read_main(buf, page.offset(self.page_size) + within as u64)?;
            buf[n..].fill(0);
            if self.map.is_still(page, state) {
                self.observe(page, within, buf);
                return Ok(());
            }
        }
    }

    /// The main file's copy of a page that is present; `None` when it is absent. The WAL may hold a newer one, of a local
    /// write or of a pull.
    pub fn read_present(&self, page: PageNo) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.page_size.as_usize()];
        loop {
            let state = self.map.state(page);
            if !state.is_present() {
                return Ok(None);
            }
            let n = self.main.read_at(&mut bytes, page.offset(self.page_size))?;
            bytes[n..].fill(0);
            if self.map.is_still(page, state) {
                ordinary::show(&mut bytes, page.offset(self.page_size));
                return Ok(Some(bytes));
            }
        }
    }

    /// A checkpoint writes to the main file.
    pub(crate) fn write_main(&self, data: &[u8], offset: u64) -> Result<(), ReadError> {
        let _fill = self.fill.lock();
        let hidden = if self.whole {
            None
        } else {
            ordinary::hide(data, offset)
        };
        self.main
            .write_at(hidden.as_deref().unwrap_or(data), offset)
            .map_err(ReadError::io("write", &self.path))?;
        let page_len = self.page_size.as_usize() as u64;
        // SQLite writes whole pages; a part of one would not make it present.
        if !self.whole
            && offset.is_multiple_of(page_len)
            && data.len() as u64 == page_len
            && let Some(page) = PageNo::containing(offset, self.page_size)
        {
            // No reader needs an older copy, or SQLite would not checkpoint the page: visible to every epoch.
            self.map.set_present_if_absent(page, Epoch(0));
        }
        self.size.fetch_max(offset + data.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) fn truncate_main(&self, len: u64) -> Result<(), ReadError> {
        let _fill = self.fill.lock();
        if !self.whole {
            self.map.truncate(PageCount(self.page_size.pages_for(len) as u32));
        }
        self.main
            .set_len(len)
            .map_err(ReadError::io("truncate", &self.path))?;
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    pub(crate) fn sync_main(&self) -> Result<(), ReadError> {
        self.main.sync().map_err(ReadError::io("sync", &self.path))?;
        self.save_map_for_sqlite()
    }

    /// SQLite is about to forget the WAL: what its frames made dirty, and what they held, must be on disk. A checkpoint does
    /// not see to that where `PRAGMA synchronous` is off.
    pub(crate) fn before_wal_goes(&self) -> Result<(), ReadError> {
        match self.whole {
            true => Ok(()),
            false => self.sync_main(),
        }
    }

    /// As [`Self::save_map`], naming the file when it fails.
    fn save_map_for_sqlite(&self) -> Result<(), ReadError> {
        self.save_claimed_map()
            .map_err(ReadError::io("save", &Self::map_path(&self.path)))
    }

    pub(crate) fn wal_index(&self) -> MutexGuard<'_, WalIndex> {
        self.wal_index.lock()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        registry::unregister(&self.path);
    }
}
