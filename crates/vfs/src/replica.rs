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
//! - a *pull* moves the epoch: pages that were filled since it asked "what changed" become absent again.
//!
//! A reader belongs to the epoch in which its snapshot began. It may use a present page only if that page became present
//! in its epoch or before ([`PageMap`]), and checks after reading that this is still so; otherwise it fetches the page at
//! its own revision. `fill` serialises the three writers; readers take no lock.
//!
//! # What is durable when
//!
//! The page map is written only after the data it speaks of was synced, and always before SQLite may forget the WAL that
//! made a page dirty (its reset, truncation or deletion).

use std::{
    collections::HashMap,
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use partial_sync_core::{
    Epoch, FetchView, PageCount, PageId, PageMap, PageNo, PageSize, Planner, PlannerConfig, Revision,
    SavedPageMap, SegmentSize, segment_of,
};
use roaring::RoaringBitmap;

use crate::{
    error::ReadError,
    locks::{HeldSlots, MainLock, WalIndex},
    shim,
    source::{Base, Miss, PageSource, SourceError},
    sqlite::context,
    storage::{Storage, StorageFile, read_whole, write_whole},
};

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
    /// How long a read waits for an absent page, and a new snapshot for a pull.
    pub wait: Duration,
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
    epoch: AtomicU32,
    /// Bases of the current epoch and of older ones that still have readers.
    bases: RwLock<HashMap<Epoch, Base>>,
    /// Held by whoever changes what the main file holds: a fetch, a checkpoint, a pull.
    fill: Mutex<()>,
    flights: Mutex<Flights>,
    /// Pages fetched for readers of older epochs, within `OLD_PAGES_BYTES`.
    old_pages: Mutex<OldPages>,
    pub(crate) main_lock: Mutex<MainLock>,
    wal_index: Mutex<WalIndex>,
    gate_opened: Condvar,
    /// Why no statement may run any more, once a pull could not be finished.
    poisoned: Mutex<Option<SourceError>>,
    fetched_extra: AtomicU64,
    used_extra: AtomicU64,
    /// Pages that the planner added, until they are read.
    extra: Mutex<RoaringBitmap>,
    saving: Mutex<()>,
    /// Whether the WAL's name was made durable since the WAL was made.
    wal_is_named: AtomicBool,
    /// No fetch may write to the main file any more: its lock is about to go. Changes under `fill`.
    closed: AtomicBool,
    /// Every page is here and nothing is tracked; see [`Replica::register_whole`].
    whole: bool,
}

/// Most bytes kept of pages that only readers of older epochs can use.
const OLD_PAGES_BYTES: usize = 32 << 20;
/// How often a wait looks whether its statement was interrupted.
const INTERRUPT_POLL: Duration = Duration::from_millis(10);
/// A page map larger than this is no page map.
const MAP_BYTES: u64 = 1 << 30;

/// One request under way.
#[derive(Default)]
struct Flight {
    /// Whether its pages were to fill the map when it started.
    fills: bool,
    state: Mutex<FlightState>,
    arrived: Condvar,
}

#[derive(Default)]
struct FlightState {
    /// Pages that came but may not fill the map.
    private: HashMap<PageNo, Arc<[u8]>>,
    done: Option<Result<(), SourceError>>,
}

type OldPages = HashMap<(Epoch, PageNo), Arc<[u8]>>;
type Flights = HashMap<(Epoch, PageNo), Arc<Flight>>;

/// What the planner sees of a replica while it plans.
struct View<'a> {
    replica: &'a Replica,
    epoch: Epoch,
    size: PageCount,
    flights: &'a Flights,
}

impl FetchView for View<'_> {
    fn db_size(&self) -> PageCount {
        self.size
    }

    fn wants(&self, page: PageNo) -> bool {
        let map = &self.replica.map;
        !map.state(page).visible_to(self.epoch)
            && !map.is_dirty(page)
            && !self.flights.contains_key(&(self.epoch, page))
    }
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

/// How far a WAL was accounted for: frames up to here, of the WAL with these salts, are in the saved dirty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalMark {
    /// The two salts of the WAL's header.
    pub salts: [u32; 2],
    /// Bytes of the WAL file.
    pub bytes: u64,
}

impl Replica {
    /// Opens the replica's files and makes its name known to the VFS. The storage must have the main file.
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
            epoch: AtomicU32::new(0),
            bases: RwLock::new(HashMap::from([(Epoch(0), config.base)])),
            fill: Mutex::default(),
            flights: Mutex::default(),
            old_pages: Mutex::default(),
            main_lock: Mutex::default(),
            wal_index: Mutex::default(),
            gate_opened: Condvar::new(),
            poisoned: Mutex::default(),
            fetched_extra: AtomicU64::new(0),
            used_extra: AtomicU64::new(0),
            extra: Mutex::default(),
            saving: Mutex::default(),
            wal_is_named: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            whole,
        });
        shim::register(&replica).map(|()| replica)
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
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The remote state that absent pages belong to now.
    pub fn base(&self) -> Base {
        self.base_of(self.epoch())
            .expect("the current epoch always has a base")
    }

    fn base_of(&self, epoch: Epoch) -> Option<Base> {
        self.bases.read().get(&epoch).cloned()
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

    /// The page map file of the replica at `path`.
    pub fn map_path(path: &Path) -> PathBuf {
        beside(path, "-pages")
    }

    /// Reads the saved page map; `None` when there is none. The inner result is the map's own complaint.
    pub fn load_map(storage: &dyn Storage, path: &Path) -> io::Result<Option<SavedPageMap>> {
        let Some(bytes) = read_whole(storage, &Self::map_path(path), MAP_BYTES)? else {
            return Ok(None);
        };
        SavedPageMap::decode(&bytes)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Makes the page map durable, and before it the data it speaks of. Does nothing when nothing changed since.
    pub fn save_map(&self) -> io::Result<()> {
        if self.whole {
            return Ok(());
        }
        let _saving = self.saving.lock();
        if !self.map.changed_since_saved() {
            return Ok(());
        }
        // Taken before the sync: a page that becomes present after it is not claimed.
        let generation = self.map.generation();
        let saved = SavedPageMap::of(&self.map, self.page_size, self.base().size);
        self.main.sync()?;
        write_whole(&*self.storage, &Self::map_path(&self.path), &saved.encode())?;
        self.map.mark_saved(generation);
        Ok(())
    }

    /// Marks every page in the WAL as dirty, except those up to `mark`. For a replica that is being opened.
    pub fn account_for_wal(&self, mark: Option<WalMark>) -> io::Result<()> {
        let path = beside(&self.path, "-wal");
        if !self.storage.exists(&path)? {
            return Ok(());
        }
        let file = self.storage.open(&path, false)?;
        let mut header = [0; 32];
        if file.read_at(&mut header, 0)? < header.len() {
            return Ok(());
        }
        let salts = [be32(&header, 16), be32(&header, 20)];
        let step = 24 + self.page_size.as_usize() as u64;
        let skip = mark
            .filter(|m| m.salts == salts)
            .map_or(0, |m| m.bytes.saturating_sub(32) / step);
        let mut frame = [0; 24];
        for index in skip.. {
            if file.read_at(&mut frame, 32 + index * step)? < frame.len() {
                break;
            }
            if [be32(&frame, 8), be32(&frame, 12)] != salts {
                break;
            }
            if let Some(page) = PageNo::new(be32(&frame, 0)) {
                self.map.set_dirty(page);
            }
        }
        Ok(())
    }

    /// How far the WAL goes now: up to its last commit, which is durable when this returns. Frames behind it do not count
    /// even if they are there: those of a transaction that was rolled back are overwritten by the next one.
    pub fn wal_mark(&self) -> io::Result<Option<WalMark>> {
        let Some((salts, frames)) = self.wal_index.lock().committed() else {
            return Ok(None);
        };
        self.sync_wal()?;
        Ok(Some(WalMark {
            salts,
            bytes: self.frame_offset(frames),
        }))
    }

    fn frame_offset(&self, frames: u32) -> u64 {
        32 + u64::from(frames) * (24 + self.page_size.as_usize() as u64)
    }

    /// Makes sure that a COMMIT that failed does not come back: SQLite leaves its frames in the WAL, and where only the
    /// sync failed they are complete, so that the next recovery would take them. For the thread that holds the write
    /// lock, before it gives it back.
    pub fn forget_failed_commit(&self) -> io::Result<()> {
        let path = beside(&self.path, "-wal");
        let Some((_, frames)) = self.wal_index.lock().committed() else {
            return Ok(());
        };
        if !self.storage.exists(&path)? {
            return Ok(());
        }
        let file = self.storage.open(&path, false)?;
        let at = self.frame_offset(frames);
        if file.len()? <= at {
            return Ok(());
        }
        // A frame without salts ends the WAL.
        file.write_at(&[0; 24], at)?;
        file.sync()
    }

    /// Bytes of the WAL file.
    pub fn wal_bytes(&self) -> io::Result<u64> {
        let path = beside(&self.path, "-wal");
        if self.storage.exists(&path)? {
            self.storage.open(&path, false)?.len()
        } else {
            Ok(0)
        }
    }

    /// Makes every commit so far durable, whatever `PRAGMA synchronous` says.
    pub fn sync_wal(&self) -> io::Result<()> {
        let path = beside(&self.path, "-wal");
        match self.storage.exists(&path)? {
            true => self.sync_wal_file(&*self.storage.open(&path, false)?),
            false => Ok(()),
        }
    }

    /// Syncs the WAL, and its name when that is new: a file without a name is lost in a power failure.
    pub(crate) fn sync_wal_file(&self, wal: &dyn StorageFile) -> io::Result<()> {
        wal.sync()?;
        if !self.wal_is_named.load(Ordering::Acquire) {
            self.storage.sync_folder(&self.path)?;
            self.wal_is_named.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The WAL is about to be made or was deleted.
    pub(crate) fn wal_has_no_name(&self) {
        self.wal_is_named.store(false, Ordering::Release);
    }

    /// Ends the replica: no fetch that is still under way writes to its file any more. To be called before the lock of
    /// the file is given back; connections may still close after it.
    pub fn close(&self) {
        let _fill = self.fill.lock();
        self.closed.store(true, Ordering::Release);
    }

    /// Whether SQLite may be told that there is a rollback journal: a replica, always in WAL mode, has none.
    pub(crate) fn may_have_journal(&self) -> bool {
        self.whole
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Why this thread may not write now, if so. A transaction that began before a pull failed could otherwise go on to
    /// write, and finishing the pull would undo it.
    pub(crate) fn refuses_writes(&self) -> Option<ReadError> {
        if gate_is_bypassed(self) {
            return None;
        }
        let source = self.poisoned.lock().clone()?;
        Some(ReadError::Poisoned { source })
    }

    /// Lets no statement run any more; each fails with `why`.
    pub fn poison(&self, why: SourceError) {
        *self.poisoned.lock() = Some(why);
        self.gate_opened.notify_all();
    }

    /// Undoes [`Self::poison`].
    pub fn heal(&self) {
        *self.poisoned.lock() = None;
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
    pub(crate) fn read(&self, epoch: Epoch, buf: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        if self.whole {
            return Ok(self.main.read_at(buf, offset)?);
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
            if state.visible_to(epoch) && self.main.read_at(buf, offset)? == page_len && cell.is_still(state)
            {
                return Ok(page_len);
            }
        }
        let mut done = 0;
        while done < available {
            let position = offset + done as u64;
            let page = PageNo::containing(position, self.page_size).ok_or(ReadError::BeyondEnd)?;
            let within = (position % page_len as u64) as usize;
            let n = (page_len - within).min(available - done);
            self.read_in_page(epoch, page, within, &mut buf[done..done + n])?;
            done += n;
        }
        Ok(available)
    }

    fn read_in_page(
        &self,
        epoch: Epoch,
        page: PageNo,
        within: usize,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut deadline = None;
        loop {
            let state = self.map.state(page);
            if !state.visible_to(epoch) {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.wait);
                if let Some(bytes) = self.obtain(epoch, page, deadline)? {
                    buf.copy_from_slice(&bytes[within..within + buf.len()]);
                    self.observe(page, within, buf);
                    return Ok(());
                }
                continue;
            }
            let n = self
                .main
                .read_at(buf, page.offset(self.page_size) + within as u64)?;
            buf[n..].fill(0);
            if self.map.is_still(page, state) {
                self.observe(page, within, buf);
                return Ok(());
            }
        }
    }

    /// Tells the planner, where it is in use, what SQLite reads.
    fn observe(&self, page: PageNo, within: usize, data: &[u8]) {
        if !self.prefetch.load(Ordering::Relaxed) || within != 0 || data.len() != self.page_size.as_usize() {
            return;
        }
        if self.map.present_count()
            >= self
                .bases
                .read()
                .get(&self.epoch())
                .map_or(PageCount::ZERO, |b| b.size)
        {
            return;
        }
        {
            let mut extra = self.extra.lock();
            if !extra.is_empty() && extra.remove(page.id().0) {
                self.used_extra.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut planner = self.planner.lock();
        if Planner::is_interesting(page, data) {
            planner.observe_page(page, data);
        }
        planner.observe_read(page);
    }

    /// Waits until `page` is visible to `epoch` or hands out a private copy; `None`: look at the map again.
    fn obtain(&self, epoch: Epoch, page: PageNo, deadline: Instant) -> Result<Option<Arc<[u8]>>, ReadError> {
        if epoch != self.epoch()
            && let Some(bytes) = self.old_pages.lock().get(&(epoch, page))
        {
            return Ok(Some(bytes.clone()));
        }
        let base = self.base_of(epoch).ok_or(ReadError::NoBase)?;
        if !base.size.contains(page) {
            // The local file is larger than the remote database and SQLite never wrote this page: it has no content
            // (a free page of a transaction that grew the file), as in a plain file.
            return Ok(Some(vec![0; self.page_size.as_usize()].into()));
        }
        let (flight, to_fetch) = {
            let mut flights = self.flights.lock();
            if self.map.state(page).visible_to(epoch) {
                return Ok(None);
            }
            match flights.get(&(epoch, page)) {
                Some(flight) => (flight.clone(), None),
                None => {
                    let pages = self.plan(epoch, page, &base, &flights);
                    let flight = Arc::new(Flight {
                        fills: epoch == self.epoch(),
                        ..Flight::default()
                    });
                    flights.extend(pages.iter().map(|&p| ((epoch, p), flight.clone())));
                    (flight, Some(pages))
                }
            }
        };
        let joined = to_fetch.is_none();
        if let Some(pages) = to_fetch {
            self.note_extra(page, &pages, &base);
            let sink = PageSink {
                replica: self.me.upgrade().ok_or(ReadError::Closed)?,
                flight: flight.clone(),
                epoch,
                asked: pages.clone(),
                finished: false,
            };
            let statement = context::current_statement_sql();
            self.source.fetch(
                Miss {
                    wanted: page,
                    pages,
                    base,
                    epoch,
                    statement,
                },
                sink,
            );
        }
        match self.wait_for(&flight, epoch, page, deadline) {
            // Somebody else's fetch, begun under other circumstances, failed; this reader still has time for its own.
            Err(ReadError::Source { .. } | ReadError::NotSent { .. })
                if joined && Instant::now() < deadline =>
            {
                Ok(None)
            }
            result => result,
        }
    }

    fn plan(&self, epoch: Epoch, page: PageNo, base: &Base, flights: &Flights) -> Vec<PageNo> {
        if epoch == self.epoch() {
            self.planner.lock().plan(
                page,
                &View {
                    replica: self,
                    epoch,
                    size: base.size,
                    flights,
                },
            )
        } else {
            vec![page]
        }
    }

    /// Counts the pages that the planner added beyond the segment.
    fn note_extra(&self, wanted: PageNo, pages: &[PageNo], base: &Base) {
        if !self.prefetch.load(Ordering::Relaxed) {
            return;
        }
        let segment = segment_of(wanted, self.page_size, self.segment, base.size);
        let mut extra = self.extra.lock();
        for page in pages
            .iter()
            .filter(|&&p| p != wanted && !segment.is_some_and(|s| s.contains(p)))
        {
            if extra.insert(page.id().0) {
                self.fetched_extra.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Begins a fetch that no query waits for: of `pages`, those that are absent and not in flight are to be fetched at
    /// the base that is returned, and given to the sink.
    pub fn begin_fetch(
        &self,
        pages: impl IntoIterator<Item = PageNo>,
    ) -> Result<(Base, Vec<PageNo>, PageSink), ReadError> {
        let epoch = self.epoch();
        let base = self.base_of(epoch).ok_or(ReadError::NoBase)?;
        let flight = Arc::new(Flight {
            fills: true,
            ..Flight::default()
        });
        let mut flights = self.flights.lock();
        let pages: Vec<PageNo> = {
            let view = View {
                replica: self,
                epoch,
                size: base.size,
                flights: &flights,
            };
            pages
                .into_iter()
                .filter(|&p| base.size.contains(p) && !p.is_lock_byte_page(self.page_size) && view.wants(p))
                .collect()
        };
        flights.extend(pages.iter().map(|&p| ((epoch, p), flight.clone())));
        drop(flights);
        let replica = self.me.upgrade().ok_or(ReadError::Closed)?;
        Ok((
            base,
            pages.clone(),
            PageSink {
                replica,
                flight,
                epoch,
                asked: pages,
                finished: false,
            },
        ))
    }

    /// Waits until the fetches that are under way now have ended, at most so long: a query goes on as soon as its own
    /// page has come, while the rest still streams in. False when they have not ended in time.
    pub fn settle(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let flights: Vec<Arc<Flight>> = self.flights.lock().values().cloned().collect();
        flights.iter().all(|flight| {
            let mut state = flight.state.lock();
            while state.done.is_none() {
                if flight.arrived.wait_until(&mut state, deadline).timed_out() {
                    return state.done.is_some();
                }
            }
            true
        })
    }

    /// The main file's copy of a page that is present; `None` when it is absent. The WAL may hold a newer one, of a local
    /// write or of a pull.
    pub fn read_present(&self, page: PageNo) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.page_size.as_usize()];
        loop {
            let state = self.map.state(page);
            if state.is_absent() {
                return Ok(None);
            }
            let n = self.main.read_at(&mut bytes, page.offset(self.page_size))?;
            bytes[n..].fill(0);
            if self.map.is_still(page, state) {
                return Ok(Some(bytes));
            }
        }
    }

    fn wait_for(
        &self,
        flight: &Flight,
        epoch: Epoch,
        page: PageNo,
        deadline: Instant,
    ) -> Result<Option<Arc<[u8]>>, ReadError> {
        let mut state = flight.state.lock();
        loop {
            if let Some(bytes) = state.private.get(&page) {
                return Ok(Some(bytes.clone()));
            }
            if self.map.state(page).visible_to(epoch) {
                return Ok(None);
            }
            match &state.done {
                Some(Err(source)) => {
                    return Err(ReadError::Source {
                        page,
                        source: source.clone(),
                    });
                }
                Some(Ok(())) => {
                    // A pull takes pages out of the map before it moves the epoch; wait until it has done both.
                    drop(self.fill.lock());
                    let moved = flight.fills && epoch != self.epoch();
                    if moved || self.map.state(page).visible_to(epoch) {
                        // When it moved after the page had filled the map: start over at this reader's own revision.
                        return Ok(None);
                    }
                    return Err(ReadError::NotSent { page });
                }
                None => {}
            }
            if context::is_interrupted() {
                return Err(ReadError::Interrupted { page });
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ReadError::TimedOut {
                    page,
                    waited: self.wait,
                });
            }
            flight
                .arrived
                .wait_until(&mut state, deadline.min(now + INTERRUPT_POLL));
        }
    }

    /// A checkpoint writes to the main file.
    pub(crate) fn write_main(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let _fill = self.fill.lock();
        self.main.write_at(data, offset)?;
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

    pub(crate) fn truncate_main(&self, len: u64) -> io::Result<()> {
        let _fill = self.fill.lock();
        if !self.whole {
            self.map.truncate(PageCount(self.page_size.pages_for(len) as u32));
        }
        self.main.set_len(len)?;
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    pub(crate) fn sync_main(&self) -> io::Result<()> {
        self.main.sync()?;
        self.save_map()
    }

    /// SQLite writes to the WAL: whatever page a frame names is dirty from now on, committed or not.
    pub(crate) fn note_wal_write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if self.whole {
            return Ok(());
        }
        if offset == 0 {
            // A new header: what the old frames made dirty must be on disk before they are overwritten.
            return self.save_map();
        }
        let step = 24 + self.page_size.as_usize() as u64;
        if offset < 32 {
            return Ok(());
        }
        let mut frame = (offset - 32).div_ceil(step);
        loop {
            let at = (32 + frame * step - offset) as usize;
            if at + 4 > data.len() {
                return Ok(());
            }
            if let Some(page) = PageNo::new(be32(data, at)) {
                self.map.set_dirty(page);
            }
            frame += 1;
        }
    }

    /// A connection takes a read mark: its snapshot begins, in the current epoch. Waits while a pull is between its two
    /// commits. `Ok(false)` = busy.
    pub(crate) fn begin_snapshot(&self, held: &mut HeldSlots, slot: usize) -> Result<bool, ReadError> {
        let mut index = self.wal_index.lock();
        if !gate_is_bypassed(self) {
            let deadline = Instant::now() + self.wait;
            loop {
                if let Some(source) = &*self.poisoned.lock() {
                    return Err(ReadError::Poisoned {
                        source: source.clone(),
                    });
                }
                if !index.gate_closed {
                    break;
                }
                if context::is_interrupted() {
                    return Err(ReadError::InterruptedByUser);
                }
                let now = Instant::now();
                if now >= deadline {
                    return Err(ReadError::PullUnderWay { waited: self.wait });
                }
                self.gate_opened
                    .wait_until(&mut index, deadline.min(now + INTERRUPT_POLL));
            }
        }
        Ok(index.lock_shared(held, slot, self.epoch()))
    }

    pub(crate) fn wal_index(&self) -> MutexGuard<'_, WalIndex> {
        self.wal_index.lock()
    }

    /// A read transaction ended; `last` = it was the last of its epoch.
    pub(crate) fn end_snapshot(&self, epoch: Epoch, last: bool) {
        if last && epoch != self.epoch() {
            self.old_pages.lock().retain(|(e, _), _| *e != epoch);
            if !self.wal_index.lock().has_readers(epoch) {
                self.bases.write().remove(&epoch);
            }
        }
    }

    /// Closes the gate for new snapshots; the calling thread passes until the guard is dropped.
    pub fn close_gate(self: &Arc<Self>) -> Gate {
        self.wal_index.lock().gate_closed = true;
        BYPASS.set(Arc::as_ptr(self) as usize);
        Gate {
            replica: self.clone(),
            this_thread: PhantomData,
        }
    }
}

thread_local! {
    /// Address of the replica whose gate this thread passes; 0 = none.
    static BYPASS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn gate_is_bypassed(replica: &Replica) -> bool {
    BYPASS.get() == std::ptr::from_ref(replica) as usize
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Drop for Replica {
    fn drop(&mut self) {
        shim::unregister(&self.path);
    }
}

/// Held by a pull from the commit of the remote's pages to the commit of the put-back. No snapshot begins meanwhile,
/// except on the thread that made it. Not `Send`: it speaks of its thread.
pub struct Gate {
    replica: Arc<Replica>,
    this_thread: PhantomData<*const ()>,
}

impl Gate {
    /// The base revision is `base` from now on. Pages that are present but not in `keep` (0-based ids) were filled too
    /// late to be known to be valid at `base`: they become absent. Nothing is dirty but those of `keep` that the main file
    /// does not have, and those beyond the end that may be in the WAL.
    pub fn move_base(&self, base: Base, keep: &RoaringBitmap) {
        let replica = &self.replica;
        let _fill = replica.fill.lock();
        let old = replica.epoch();
        let epoch = old.next();
        let mut cut_off = replica.map.present() | replica.map.dirty();
        cut_off.remove_range(..base.size.0);
        for id in replica.map.present() - keep {
            if let Some(page) = PageId(id).no() {
                replica.map.clear_present(page);
            }
        }
        replica.map.clear_all_dirty();
        // Pages beyond the end may still have frames in the WAL. When the database grows over them again SQLite would
        // read those; the pull that makes it grow must bring them.
        for id in cut_off {
            if let Some(page) = PageId(id).no() {
                replica.map.set_dirty(page);
            }
        }
        // What is only in the WAL (SQLite had allocated it without reading it) must be brought by the next pull too.
        for id in keep - replica.map.present() {
            if let Some(page) = PageId(id).no() {
                replica.map.set_dirty(page);
            }
        }
        replica
            .size
            .fetch_max(base.size.bytes(replica.page_size), Ordering::AcqRel);
        let index = replica.wal_index.lock();
        {
            let mut bases = replica.bases.write();
            bases.insert(epoch, base);
            bases.retain(|&e, _| e == epoch || index.has_readers(e));
        }
        replica.epoch.store(epoch.0, Ordering::Release);
        drop(index);
        replica.planner.lock().reset();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        BYPASS.set(0);
        self.replica.wal_index.lock().gate_closed = false;
        self.replica.gate_opened.notify_all();
    }
}

/// Takes the pages of one [`Miss`] as they arrive. Dropped without [`PageSink::finish`], the readers get an error.
pub struct PageSink {
    replica: Arc<Replica>,
    flight: Arc<Flight>,
    epoch: Epoch,
    asked: Vec<PageNo>,
    finished: bool,
}

impl PageSink {
    /// A page has arrived, asked for or not. It becomes present unless it is already, or the epoch moved on, or the disk
    /// refuses it: then only the readers that wait for it get it.
    pub fn page(&self, page: PageNo, data: &[u8]) -> Result<(), ReadError> {
        let replica = &self.replica;
        if data.len() != replica.page_size.as_usize() {
            return Err(ReadError::PageSize {
                page,
                got: data.len(),
                expected: replica.page_size,
            });
        }
        if page.is_lock_byte_page(replica.page_size) {
            return Ok(());
        }
        let patched = if page == PageNo::FIRST {
            Some(as_wal_mode(data))
        } else {
            None
        };
        let data = patched.as_deref().unwrap_or(data);
        let mut is_new = false;
        let filled = {
            let _fill = replica.fill.lock();
            if replica.is_closed() {
                return Err(ReadError::Closed);
            }
            if self.epoch != replica.epoch() {
                false
            } else if !replica.map.state(page).is_absent() {
                // It became present meanwhile; that copy is at least as good as this one.
                true
            } else {
                match replica.main.write_at(data, page.offset(replica.page_size)) {
                    Ok(()) => {
                        replica.map.set_present(page, self.epoch);
                        is_new = true;
                        true
                    }
                    Err(error) => {
                        tracing::warn!(%page, %error, "a fetched page could not be stored; the query goes on without");
                        false
                    }
                }
            }
        };
        if filled && replica.prefetch.load(Ordering::Relaxed) {
            if Planner::is_interesting(page, data) {
                replica.planner.lock().observe_page(page, data);
            }
            if is_new && !self.asked.contains(&page) {
                if replica.extra.lock().insert(page.id().0) {
                    replica.fetched_extra.fetch_add(1, Ordering::Relaxed);
                }
                // Somebody else's fetch may be waiting for what came along with this one.
                let waiting = replica.flights.lock().get(&(self.epoch, page)).cloned();
                if let Some(waiting) = waiting {
                    drop(waiting.state.lock());
                    waiting.arrived.notify_all();
                }
            }
        }
        let mut state = self.flight.state.lock();
        if !filled {
            let bytes: Arc<[u8]> = data.into();
            if self.epoch != replica.epoch() {
                let mut old = replica.old_pages.lock();
                if old.len() * data.len() < OLD_PAGES_BYTES {
                    old.insert((self.epoch, page), bytes.clone());
                }
            }
            state.private.insert(page, bytes);
        }
        drop(state);
        self.flight.arrived.notify_all();
        Ok(())
    }

    /// The pages that are here (0-based ids), and need not be sent.
    pub fn present(&self) -> RoaringBitmap {
        self.replica.map.present()
    }

    /// Whether a page is here and stays.
    pub fn has(&self, page: PageNo) -> bool {
        self.fills() && self.replica.map.state(page).visible_to(self.epoch)
    }

    /// Whether pages that come now stay, for the epoch has not moved since they were asked for.
    pub fn fills(&self) -> bool {
        self.epoch == self.replica.epoch()
    }

    /// The fetch is over. Readers whose page did not come fail with the error, or, after `Ok`, with one that says so.
    pub fn finish(mut self, result: Result<(), SourceError>) {
        self.land(result);
    }

    fn land(&mut self, result: Result<(), SourceError>) {
        self.finished = true;
        {
            let mut flights = self.replica.flights.lock();
            for &page in &self.asked {
                if flights
                    .get(&(self.epoch, page))
                    .is_some_and(|f| Arc::ptr_eq(f, &self.flight))
                {
                    flights.remove(&(self.epoch, page));
                }
            }
        }
        self.flight.state.lock().done = Some(result);
        self.flight.arrived.notify_all();
    }
}

impl Drop for PageSink {
    fn drop(&mut self) {
        if !self.finished {
            self.land(Err(Arc::new(ReadError::Abandoned)));
        }
    }
}

/// Page 1 with the read and write versions (bytes 18 and 19) of a database in WAL mode, which every replica is in.
pub fn as_wal_mode(page_1: &[u8]) -> Vec<u8> {
    let mut page = page_1.to_vec();
    if let Some(versions) = page.get_mut(18..20) {
        versions.fill(2);
    }
    page
}
