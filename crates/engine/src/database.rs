//! [`Database`]: a replica (or a plain local database), its files, its remote, and what can be done with them.

use std::{
    any::Any,
    io::ErrorKind,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_core::{ChangeId, PageSize, SegmentSize};
use partial_sync_transport::{AuthToken, HttpRemote, Remote, ReplaceableToken, UrlSource};
use partial_sync_vfs::{
    MemoryStorage, OpenFile, OrdinaryMark, OsStorage, Replica, ReplicaConfig, Storage, VFS_NAME,
    sqlite::{Conn, OpenOptions},
};

use crate::{
    capture::CaptureOptions,
    connection::{Connection, ConnectionOptions},
    discard::{self, LocalChange},
    error::{Error, Result},
    files::{
        absolute, is_worth_keeping, make_new, memory_path, not_a_replica, open_existing, remove_files,
        take_lock,
    },
    hydration::Hydration,
    info::{Info, SavedOrdinaryMark},
    log::Log,
    offline::Offline,
    options::{Builder, DEFAULT_TIMEOUT},
    pull::{self, Unfinished},
    push,
    runtime::CancelHandle,
    session::Session,
    sharing::{self, Place, Turn},
    source::{RemoteSource, base_is_elsewhere},
    stats::Stats,
};

/// SQLite's VFS of databases in memory that connections share by name.
const SHARED_MEMORY: &str = "memdb";

/// How long closing waits for what is still there.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// How often it looks.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// How long a checkpoint waits for readers so that it can empty the WAL.
const EMPTY_WAL_WAIT: Duration = Duration::from_millis(500);

/// An open database. Cheap to clone; the files are given back when the last clone and the last connection are gone.
///
/// A replica may be opened several times in a process: all share its files, pages and requests, and each has its own
/// deadlines, thresholds, transform and cancellation.
#[derive(Clone)]
pub struct Database {
    pub(crate) inner: Arc<Inner>,
    options: Arc<Builder>,
}

pub(crate) enum Inner {
    /// A plain SQLite file (or `:memory:`), without a remote.
    Local {
        path: PathBuf,
        /// Of a `:memory:` that its connections share: keeps its contents while there is no other connection.
        memory: Option<Conn>,
    },
    /// A replica.
    Replica(Box<OpenReplica>),
}

/// A replica that is open. [`OpenReplica::give_back`] says how it ends; then the lock goes.
pub(crate) struct OpenReplica {
    /// Keeps the WAL alive between connections, and does the engine's own reads and writes. No capture.
    pub(crate) keeper: Keeper,
    /// For statistics, which must disturb nothing: a checkpoint fails on a connection that is reading. No capture.
    pub(crate) reader: Keeper,
    pub(crate) replica: Arc<Replica>,
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) info: Arc<Mutex<Info>>,
    /// Held by a pull, also while it asks and waits for news.
    pub(crate) pulling: Mutex<()>,
    /// Held by a push, checkpoint or hydration, and by a pull that has news.
    pub(crate) sync: Mutex<()>,
    /// Whether a connection began the change log since a pull last looked; changes together with `info`.
    log_began: AtomicBool,
    /// A pull that has committed (or is about to) and is not in the files yet.
    pub(crate) unfinished: Mutex<Option<Unfinished>>,
    /// How many batches the remote has confirmed.
    pub(crate) confirmed: AtomicU64,
    /// No change id up to this one is given again.
    pub(crate) floor: Arc<AtomicI64>,
    pub(crate) random: Mutex<fastrand::Rng>,
    /// What every request of the remote is authorized with.
    token: ReplaceableToken,
    /// What it was opened with; of this, every other handle must have the same.
    timeout: Duration,
    offline: bool,
    pub(crate) accepts_new_url: bool,
    encryption: Option<(String, Option<String>)>,
    _lock: Box<dyn Any + Send + Sync>,
    /// Last: who waits for it finds the files closed.
    place: Option<Place>,
}

/// A connection that is closed before the rest of what it stands on.
pub(crate) struct Keeper(Option<Conn>);

impl Deref for Keeper {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.0
            .as_ref()
            .expect("only OpenReplica::give_back takes it, and nothing is done after that")
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Begins to say what to open. `:memory:` leaves no file.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref().to_owned())
    }

    pub(crate) fn connect(options: Builder) -> Result<Self> {
        let begun = options.cancel.moment();
        partial_sync_vfs::sqlite::check_build()?;
        let segment = options.checked_segment()?;
        let in_memory = options.path.as_os_str() == ":memory:";
        let storage: Arc<dyn Storage> = match &options.storage {
            Some(storage) => storage.clone(),
            None if in_memory => Arc::new(MemoryStorage::default()),
            None => Arc::new(OsStorage),
        };
        let path = if in_memory {
            memory_path()
        } else {
            absolute(&options.path)?
        };
        let token = ReplaceableToken::new(options.token.clone());
        let given = make_remote(&options, &token)?;
        let info = Info::load(&*storage, &path)?;
        if given.is_none() && info.is_none() {
            let (path, memory) = match in_memory {
                true if options.shared_memory => {
                    let memory = OpenOptions {
                        vfs: Some(SHARED_MEMORY.into()),
                        ..OpenOptions::default()
                    };
                    let memory = Conn::open(&path, &memory)?;
                    (path, Some(memory))
                }
                true => (options.path.clone(), None),
                false => (path, None),
            };
            partial_sync_vfs::register_vfs().map_err(|e| Error::storage("open", &path, e))?;
            return Ok(Self {
                inner: Arc::new(Inner::Local { path, memory }),
                options: Arc::new(options),
            });
        }
        let place = match options.storage.is_none() && !in_memory {
            true => match sharing::take_turn(&path, &options, begun)? {
                Turn::Join(inner) => return Self::join(inner, options, given),
                Turn::Open(place) => Some(place),
            },
            false => None,
        };
        let known = || known_remote(&options, &token, info.as_ref());
        let (remote, is_offline) = match given.or_else(known) {
            Some(remote) => (remote, false),
            None => (Arc::new(Offline) as Arc<dyn Remote>, true),
        };

        // Now and not at the first request: its threads inherit the signal mask of this one, which the C ABI relies on.
        crate::runtime::runtime();
        let is_new = !storage
            .exists(&path)
            .map_err(|e| Error::storage("look for", &path, e))?;
        let lock = take_lock(&*storage, &path)?;
        // Again, now that nobody else writes it: another process may have finished its first connect meanwhile.
        let info = Info::load(&*storage, &path)?;
        let opened = match info {
            Some(info) if info.ready => open_existing(&storage, &path, info, &remote, &options),
            unfinished => {
                let begun_before = unfinished.is_some();
                let result = make_new(&storage, &path, unfinished, &remote, &options, segment, begun);
                if let Err(error) = &result
                    && (is_new || begun_before)
                    && !is_worth_keeping(&*storage, &path, error)
                {
                    remove_files(&*storage, &path);
                }
                result
            }
        };
        let (info, map, wal_mark) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Taking the lock made an empty file where there was none.
                if is_new
                    && storage
                        .open(&path, false)
                        .is_ok_and(|f| f.is_empty().unwrap_or(false))
                {
                    let _ = storage.remove(&path);
                }
                return Err(error);
            }
        };
        let page_size = PageSize::new(info.page_size).map_err(|e| not_a_replica(&path, e.to_string()))?;
        let base = info.base(&path)?;
        let (segment, prefetch) = (SegmentSize::new(info.segment_size)?, info.prefetch);
        let hydrates = prefetch.then_some(info.remote_hydrates);
        let floor = info.change_floor.max(info.acknowledged);
        let info = Arc::new(Mutex::new(info));
        let source = Arc::new(RemoteSource {
            remote: remote.clone(),
            info: info.clone(),
            page_size,
            deadline: options.timeout,
            hydration: hydrates.map(|hydrates| Arc::new(Hydration::new(hydrates))),
        });
        let replica = Replica::register(ReplicaConfig {
            storage: storage.clone(),
            path: path.clone(),
            page_size,
            base,
            map,
            source,
            segment,
            prefetch,
            wait: options.timeout,
            temporary: false,
        })
        .map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => Error::InUse { path: path.clone() },
            ErrorKind::ResourceBusy => Error::LeftOpen {
                path: path.clone(),
                what: "connections of an earlier open",
            },
            _ => Error::storage("open", &path, e),
        })?;
        let keep = || {
            replica
                .account_for_wal(wal_mark)
                .map_err(|e| Error::storage("read the WAL of", &path, e))?;
            Ok((
                open_plain(&replica, options.timeout)?,
                open_plain(&replica, options.timeout)?,
            ))
        };
        // Who tries again must not find it open.
        let (keeper, reader) = keep().inspect_err(|error: &Error| {
            replica.close();
            if is_new && error.is_interrupted() {
                // A connect that was cancelled leaves nothing, however far it had come.
                remove_files(&*storage, &path);
            }
        })?;
        let opened = OpenReplica {
            keeper: Keeper(Some(keeper)),
            reader: Keeper(Some(reader)),
            replica,
            remote,
            storage,
            floor: Arc::new(AtomicI64::new(floor)),
            info,
            pulling: Mutex::default(),
            sync: Mutex::default(),
            log_began: AtomicBool::new(false),
            unfinished: Mutex::default(),
            confirmed: AtomicU64::new(0),
            random: Mutex::new(
                options
                    .seed
                    .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            ),
            token,
            timeout: options.timeout,
            offline: is_offline,
            accepts_new_url: options.accept_new_url,
            encryption: options.encryption.clone(),
            _lock: lock,
            place,
        };
        pull::recover(&Session::since(&opened, &options, begun))?;
        let inner = Arc::new(Inner::Replica(Box::new(opened)));
        if let Inner::Replica(open) = &*inner
            && let Some(place) = &open.place
        {
            place.fill(&inner);
        }
        Ok(Self {
            inner,
            options: Arc::new(options),
        })
    }

    /// A further handle of a replica that this process has open.
    fn join(inner: Arc<Inner>, options: Builder, given: Option<Arc<dyn Remote>>) -> Result<Self> {
        let Inner::Replica(open) = &*inner else {
            return Err(Error::InUse { path: options.path });
        };
        let path = || open.replica.name().to_owned();
        let otherwise = |option| Err(Error::OpenedOtherwise { path: path(), option });
        let info = open.info.lock().clone();
        if let Some(own) = &options.remote {
            if !Arc::ptr_eq(own, &open.remote) {
                return Err(Error::InUse { path: path() });
            }
        } else if let Some(url) = given.and_then(|remote| remote.known_url()) {
            // The one that is in use, which may be a new one that has not answered yet.
            let used = open.remote.known_url();
            if used.as_ref() != Some(&url) && !options.accept_new_url {
                check_url(Some(&url), &info, &path())?;
            }
            if open.offline || used.is_some_and(|used| used != url) {
                return otherwise("url");
            }
        }
        let partial = options.partial.clone().unwrap_or_default();
        if partial.segment_size.is_some_and(|s| s != info.segment_size) {
            return otherwise("segment size");
        }
        if partial.prefetch.is_some_and(|p| p != info.prefetch) {
            return otherwise("choice of prefetch");
        }
        if options.encryption.is_some() && options.encryption != open.encryption {
            return otherwise("remote encryption");
        }
        if ![DEFAULT_TIMEOUT, open.timeout].contains(&options.timeout) {
            return otherwise("timeout");
        }
        if let Some(token) = &options.token {
            open.token.replace(token.clone());
        }
        Ok(Self {
            inner,
            options: Arc::new(options),
        })
    }

    /// Gives this handle back and, when it was the last one, closes the replica: waits until its files are closed and
    /// says whether all of it went well. Dropping the last handle does the same without saying.
    ///
    /// [`Error::LeftOpen`] when other handles, connections or statements keep the replica open and do not go in time (the
    /// handle's timeout, at most 5 seconds); it closes with the last of them.
    pub fn close(self) -> Result<()> {
        let Self { inner, options } = self;
        let deadline = Instant::now() + options.timeout.min(CLOSE_WAIT);
        let left = Arc::downgrade(&inner);
        match Arc::into_inner(inner) {
            Some(Inner::Replica(mut open)) => return open.give_back(),
            Some(Inner::Local { .. }) => return Ok(()),
            None => {}
        }
        while left.strong_count() > 0 || sharing::is_there(&left) {
            if Instant::now() >= deadline {
                return Err(Error::LeftOpen {
                    path: options.path.clone(),
                    what: "other handles, connections or statements",
                });
            }
            std::thread::sleep(CLOSE_LOOK);
        }
        Ok(())
    }

    /// A new connection. Connections are for one thread at a time each; open as many as there are threads.
    pub fn connection(&self) -> Result<Connection> {
        match &*self.inner {
            Inner::Local { path, memory } => {
                let is_file = memory.is_none() && path.as_os_str() != ":memory:";
                let register = || match is_file {
                    true => OpenFile::register(path),
                    false => Ok(None),
                };
                // Before it is opened, and, as there may be no file yet, again afterwards.
                drop(register()?);
                let keep = Arc::new((self.inner.clone(), OnceLock::new()));
                let connection = Connection::open(ConnectionOptions {
                    path: path.clone(),
                    // Also here: it refuses to attach a replica.
                    vfs: Some(memory.as_ref().map_or(VFS_NAME, |_| SHARED_MEMORY).into()),
                    capture: None,
                    busy_timeout: self.options.busy_timeout,
                    keep_alive: Some(keep.clone()),
                })?;
                // It is dropped with the connection, after it.
                let _ = keep.1.set(register()?);
                Ok(connection)
            }
            Inner::Replica(open) => Connection::open(ConnectionOptions {
                path: open.replica.name().to_owned(),
                vfs: Some(VFS_NAME.into()),
                capture: Some(self.capture(open)),
                busy_timeout: self.options.busy_timeout,
                keep_alive: Some(self.inner.clone()),
            }),
        }
    }

    fn capture(&self, open: &OpenReplica) -> CaptureOptions {
        let inner = self.inner.clone();
        CaptureOptions {
            floor: open.floor.clone(),
            before_log: Arc::new(move || match &*inner {
                Inner::Replica(open) => open.begin_log(),
                Inner::Local { .. } => Ok(()),
            }),
            ..CaptureOptions::default()
        }
    }

    /// Where the database is; `:memory:` for one that leaves no file.
    pub fn path(&self) -> &Path {
        match &*self.inner {
            Inner::Local { memory: Some(_), .. } => &self.options.path,
            Inner::Local { path, .. } => path,
            Inner::Replica(_) => &self.options.path,
        }
    }

    /// Whether this is a replica (of a remote, reachable or not), and no plain local database.
    pub fn is_replica(&self) -> bool {
        matches!(&*self.inner, Inner::Replica(_))
    }

    pub(crate) fn open_replica(&self, doing: &'static str) -> Result<&OpenReplica> {
        match &*self.inner {
            Inner::Local { .. } => Err(Error::NoRemote { doing }),
            Inner::Replica(open) => Ok(open),
        }
    }

    pub(crate) fn session(&self, doing: &'static str) -> Result<Session<'_>> {
        Ok(Session::new(self.open_replica(doing)?, &self.options))
    }

    /// Brings the remote's changes and puts local ones that were not pushed back on top. True when something changed.
    pub fn pull(&self) -> Result<bool> {
        pull::pull(&self.session("a pull")?, self.options.long_poll)
    }

    /// The same, letting the remote wait this long for a change before it answers that there is none.
    pub fn pull_waiting(&self, wait: Duration) -> Result<bool> {
        pull::pull(&self.session("a pull")?, Some(wait))
    }

    /// Sends local changes to the remote, whole transactions in order. What the remote confirmed leaves the change log,
    /// also when a later batch fails.
    pub fn push(&self) -> Result<()> {
        push::push(&self.session("a push")?)
    }

    /// Gives up one local change: it is neither pushed nor put back. The way out when the remote refuses it. With it goes
    /// what one row's change came with: rows that triggers, foreign-key actions and conflict clauses wrote
    /// ([`LocalChange::unit`]). What it did is gone from here with the next pull. False when there is no such change.
    pub fn discard_change(&self, change: ChangeId) -> Result<bool> {
        let gone = discard::discard(&self.session("discarding a change")?, change, false)?;
        Ok(!gone.is_empty())
    }

    /// The same, with every later change that cannot stay without it: of the same rows, of rows that refer to them by a
    /// foreign key, what could be written only because a key or unique value was free, and for a schema change of whatever
    /// it made or altered. What a statement or trigger computed from other rows is not looked at. Gives the changes that
    /// were given up.
    pub fn discard_change_with_dependents(&self, change: ChangeId) -> Result<Vec<ChangeId>> {
        discard::discard(&self.session("discarding a change")?, change, true)
    }

    /// Local changes that were not pushed, in order: at most `limit` of those after `after` (from the first one on:
    /// `ChangeId(0)`).
    pub fn local_changes(&self, after: ChangeId, limit: usize) -> Result<Vec<LocalChange>> {
        discard::list(&self.session("listing changes")?, after, limit)
    }

    /// Moves what is in the WAL into the database file and empties the WAL, as far as readers allow.
    pub fn checkpoint(&self) -> Result<()> {
        match &*self.inner {
            Inner::Local { .. } => self
                .connection()?
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
            Inner::Replica(open) => {
                let session = self.session("a checkpoint")?;
                let _sync = session.lock_sync("a checkpoint")?;
                let _broken_by_cancel = session.interrupts(&open.keeper);
                open.keeper.checkpoint(false)?;
                // Emptying the WAL needs a moment without readers; one that does not come soon is no failure.
                open.keeper.busy_timeout(EMPTY_WAL_WAIT)?;
                let emptied = open.keeper.checkpoint(true);
                open.keeper.busy_timeout(open.timeout)?;
                emptied?;
                open.make_ordinary(open.unpushed())
            }
        }
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Result<Stats> {
        crate::stats::stats(self)
    }

    /// Breaks a pull, push, checkpoint or hydration that is under way, whatever it waits for, from any thread.
    pub fn cancel_handle(&self) -> Result<CancelHandle> {
        self.open_replica("cancelling")?;
        Ok(self.options.cancel.clone())
    }
}

impl OpenReplica {
    /// Refuses what only makes sense once something of this remote's database is here.
    pub(crate) fn check_pulled(&self, doing: &'static str) -> Result<()> {
        let info = self.info.lock();
        if info.is_unpulled() {
            return Err(Error::NotPulledYet { doing });
        }
        match base_is_elsewhere(&*self.remote, &info) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The first local change is about to be recorded, in a transaction that is open: from now on a pull reads the log, for
    /// which the pages of the schema must be here, also after a crash.
    fn begin_log(&self) -> Result<()> {
        self.replica
            .save_map()
            .map_err(|e| Error::storage("save the page map of", self.replica.name(), e))?;
        self.log_began.store(true, Ordering::Release);
        // The pull that dropped the log before may still be unfinished; after a crash it must not say that there is none.
        let since = self.unfinished.lock().as_ref().map(|pull| pull.cookie);
        self.update_info_if(
            |info| !info.has_log || (since.is_some() && info.log_since != since),
            |info| {
                info.has_log = true;
                info.log_since = since;
            },
        )
    }

    /// Whether there may be a change log. While not, nobody looks: the schema need not be here.
    pub(crate) fn may_have_log(&self) -> bool {
        self.info.lock().has_log
    }

    /// Whether a log was begun since [`forget_log_began`](Self::forget_log_began).
    pub(crate) fn log_began(&self) -> bool {
        self.log_began.load(Ordering::Acquire)
    }

    /// For a pull that holds the write lock, when it has seen the whole log.
    pub(crate) fn forget_log_began(&self) {
        self.log_began.store(false, Ordering::Release);
    }

    /// Changes the info file where `needed` says so.
    pub(crate) fn update_info_if(
        &self,
        needed: impl FnOnce(&Info) -> bool,
        change: impl FnOnce(&mut Info),
    ) -> Result<()> {
        let is_needed = needed(&self.info.lock());
        match is_needed {
            true => self.update_info(change),
            false => Ok(()),
        }
    }

    /// Changes the info file and then what is known of it.
    pub(crate) fn update_info(&self, change: impl FnOnce(&mut Info)) -> Result<()> {
        let mut info = self.info.lock();
        let mut next = info.clone();
        change(&mut next);
        next.save(&*self.storage, self.replica.name())?;
        self.floor
            .fetch_max(next.change_floor.max(next.acknowledged), Ordering::AcqRel);
        *info = next;
        Ok(())
    }
}

impl OpenReplica {
    /// How many local changes were not pushed, if the file may become an ordinary one; else nobody asks.
    fn unpushed(&self) -> Option<u64> {
        if !self.may_have_log() {
            return self.replica.may_be_whole().then_some(0);
        }
        let count = || Log::new(&self.keeper).count();
        match self
            .replica
            .may_be_whole()
            .then(|| self.keeper.without_waiting(u32::MAX, count))
        {
            Some(Ok((Ok(unpushed), _))) => Some(unpushed),
            _ => None,
        }
    }

    /// Makes the database file an ordinary one for other programs, if every page of it is here and the WAL is empty.
    fn make_ordinary(&self, unpushed: Option<u64>) -> Result<()> {
        let Some(unpushed) = unpushed else { return Ok(()) };
        let note = |mark: OrdinaryMark| {
            let mark = SavedOrdinaryMark {
                change_counter: mark.change_counter,
                bytes: mark.bytes,
                unpushed,
            };
            self.update_info(|info| info.ordinary = Some(mark))
                .map_err(std::io::Error::other)
        };
        self.replica
            .make_ordinary(note)
            .map_err(|e| Error::storage("finish", self.replica.name(), e))?;
        Ok(())
    }

    /// Closes every file: the last connection checkpoints, what a pull left behind is waited for, the page map is saved.
    /// Whatever is still there after that can do nothing to the files any more. The caller drops the lock and the place
    /// by dropping this.
    fn give_back(&mut self) -> Result<()> {
        // The keeper last: it checkpoints.
        drop(self.reader.0.take());
        if self.keeper.0.is_none() {
            return Ok(());
        }
        let unpushed = self.unpushed();
        self.keeper.0 = None;
        let left = self.replica.wait_until_unused(CLOSE_WAIT);
        let path = self.replica.name();
        let saved = self
            .replica
            .save_map()
            .map_err(|e| Error::storage("save the page map of", path, e))
            .and_then(|()| match left {
                0 => self.make_ordinary(unpushed),
                _ => Ok(()),
            });
        self.replica.close();
        saved?;
        match left {
            0 => Ok(()),
            _ => Err(Error::LeftOpen {
                path: path.to_owned(),
                what: "a pull that was given up",
            }),
        }
    }
}

impl Drop for OpenReplica {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::warn!(%error, "a replica could not be closed as it should; pages fetched lately may be fetched again");
        }
    }
}

/// A connection to the replica without capture, whose commits are durable when they return (SQLite's default). Reads nothing
/// yet: not even the schema need be here.
pub(crate) fn open_plain(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let conn = connect_plain(replica, busy_timeout)?;
    conn.execute_batch("PRAGMA foreign_keys=OFF")?;
    crate::connection::load_extras(&conn)?;
    Ok(conn)
}

/// A connection to the replica that asks the network for nothing: it overwrites pages, or reads those that are here.
pub(crate) fn open_without_fetching(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let conn = connect_plain(replica, busy_timeout)?;
    conn.never_fetch()?;
    Ok(conn)
}

fn connect_plain(replica: &Replica, busy_timeout: Duration) -> Result<Conn> {
    let options = OpenOptions {
        vfs: Some(VFS_NAME.into()),
        create: false,
        busy_timeout,
        ..OpenOptions::default()
    };
    Ok(Conn::open(replica.name(), &options)?)
}

/// The remote that was given.
fn make_remote(options: &Builder, token: &ReplaceableToken) -> Result<Option<Arc<dyn Remote>>> {
    match (&options.remote, &options.url) {
        (Some(remote), _) => Ok(Some(remote.clone())),
        (None, Some(url)) => Ok(Some(http_remote(options, token, url.clone())?)),
        (None, None) => Ok(None),
    }
}

/// The remote that a replica knows itself. `None` when it knows none, or one of a caller's own making.
fn known_remote(options: &Builder, token: &ReplaceableToken, info: Option<&Info>) -> Option<Arc<dyn Remote>> {
    let url = info
        .map(|info| info.remote_url.as_str())
        .filter(|url| !url.is_empty())?;
    http_remote(options, token, url.into()).ok()
}

fn http_remote(options: &Builder, token: &ReplaceableToken, url: UrlSource) -> Result<Arc<dyn Remote>> {
    let mut builder = HttpRemote::builder(url)
        .deadline(options.timeout)
        .auth_token(AuthToken::Replaceable(token.clone()));
    if let Some((key, cipher)) = &options.encryption {
        builder = builder.remote_encryption(key.clone(), cipher.as_deref());
    }
    if let Some(client) = &options.client {
        builder = builder.client(client.clone());
    }
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    Ok(Arc::new(builder.build()?))
}

/// Refuses the url of another remote than the replica's, as far as both are known.
pub(crate) fn check_url(url: Option<&str>, info: &Info, path: &Path) -> Result<()> {
    match url.filter(|_| info.is_elsewhere(url)) {
        Some(url) => Err(Error::OtherRemote {
            path: path.to_owned(),
            replica: info.remote_url.clone(),
            asked: url.to_owned(),
        }),
        None => Ok(()),
    }
}
