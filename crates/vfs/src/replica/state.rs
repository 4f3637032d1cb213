//! What a replica is made of, and the lock order of its parts.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use partial_sync_core::{Epoch, PageMap, PageSize, Planner, PlannerConfig, SegmentSize};
use roaring::RoaringBitmap;

use super::{
    bases::Bases,
    flight::{Flights, PrivatePages},
    hidden::{HeaderKind, header_kind},
    instance::Instance,
};
use crate::{
    locks::{HEAD_LEN, MainLock, WalIndex},
    source::{Base, PageSource},
    storage::{Storage, StorageFile},
    sync::{Condvar, Mutex, MutexGuard, RwLock},
};

/// What a replica is opened with.
pub struct ReplicaConfig {
    /// Where its files are.
    pub storage: Arc<dyn Storage>,
    /// The database file; the side files' names are this with `-pages`, `-wal` appended. Absolute.
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

/// One replica; shared by its connections. Registered under its path while it lives.
pub struct Replica {
    pub(super) me: Weak<Self>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) path: PathBuf,
    pub(super) page_size: PageSize,
    pub(super) main: Arc<dyn StorageFile>,
    /// Size of the main file as SQLite is told.
    pub(super) size: AtomicU64,
    pub(super) map: PageMap,
    pub(super) source: Arc<dyn PageSource>,
    pub(super) wait: Duration,
    pub(super) prefetch: AtomicBool,
    pub(super) segment: SegmentSize,
    pub(super) planner: Mutex<Planner>,
    /// Lock order: `fill`, `wal_index`, then any of these.
    pub(super) bases: RwLock<Bases>,
    /// Held by anyone who changes what the main file holds: a fetch, a checkpoint, a pull.
    pub(super) fill: Mutex<()>,
    pub(super) flights: Mutex<Flights>,
    /// Pages that could not go to the main file, for the readers of one epoch.
    pub(super) private_pages: Mutex<PrivatePages>,
    pub(crate) main_lock: Mutex<MainLock>,
    pub(super) wal_index: Mutex<WalIndex>,
    pub(super) gate_opened: Condvar,
    pub(super) fetched_extra: AtomicU64,
    pub(super) used_extra: AtomicU64,
    /// Pages that the planner added, until they are read.
    pub(super) extra: Mutex<RoaringBitmap>,
    pub(super) saving: Mutex<()>,
    /// Whether the WAL's name was made durable since the WAL was made.
    pub(super) wal_is_named: AtomicBool,
    pub(crate) instance: Arc<Instance>,
    /// See [`Replica::failed_commit_may_come_back`].
    pub(super) may_come_back: AtomicBool,
    /// Every page is here and nothing is tracked; see [`Replica::register_whole`].
    pub(super) whole: bool,
    /// Its page map is not saved.
    pub(super) temporary: bool,
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
    /// Opens the main file. `whole`: nothing is tracked. For [`Replica::register`], which makes the name known to the VFS.
    pub(crate) fn new(config: ReplicaConfig, whole: bool) -> io::Result<Arc<Self>> {
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
        Ok(replica)
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

    pub(super) fn base_of(&self, epoch: Epoch) -> Option<Base> {
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

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The start of the wal-index, which SQLite keeps in a file beside a database that several processes share; `None` before the
    /// first connection read the WAL.
    pub fn wal_index_head(&self) -> Option<[u8; HEAD_LEN]> {
        self.wal_index().head()
    }

    pub(crate) fn wal_index(&self) -> MutexGuard<'_, WalIndex> {
        self.wal_index.lock()
    }
}
