//! A replica that is open: what it is made of, and what it knows of itself. How it is given back
//! is in [`close`](crate::open::close). What can be done with it is
//! in [`crate::push`], [`crate::pull`] and the rest; each does it on a [`Session`](crate::open::session::Session).

use std::{
    any::Any,
    io::ErrorKind,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use partial_sync_core::{ChangeId, PageSize, SegmentSize};
use partial_sync_transport::{Remote, ReplaceableToken};
use partial_sync_vfs::{Replica, ReplicaConfig, Storage, VFS_NAME, sqlite::Conn};
use tokio::sync::watch;

use crate::{
    capture::CaptureOptions,
    change::position::{Mark, Sent},
    error::{Error, Result},
    fetch::{
        source::{RemoteSource, base_is_elsewhere},
        statement_prefetch::StatementPrefetch,
    },
    open::{
        files::ReplicaFiles,
        first_connect::remove_files,
        info::Info,
        options::Builder,
        plain::open_plain,
        remote::ReplicaRemote,
        sharing::{Reservation, Sharing},
    },
    sql::{connection::Connection, shared_connection::ConnectionOptions},
};

/// The replicas that this process has open.
pub(crate) static OPEN: Sharing<OpenReplica> = Sharing::new();

/// A replica that is open. [`OpenReplica::give_back`] says how it ends; then the lock goes.
pub(crate) struct OpenReplica {
    /// Keeps the WAL alive between connections, and does the engine's own reads and writes. No capture.
    pub(crate) engine_conn: EngineConn,
    /// For statistics, which must disturb nothing: a checkpoint fails on a connection that is reading. No capture.
    pub(crate) reader: EngineConn,
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
    pub(crate) highest_used_id: Arc<AtomicI64>,
    pub(crate) random: Mutex<fastrand::Rng>,
    /// What every request of the remote is authorized with.
    pub(crate) token: ReplaceableToken,
    /// What it was opened with; of this, every other handle must have the same.
    pub(crate) timeout: Duration,
    pub(crate) is_offline: bool,
    pub(crate) accepts_new_url: bool,
    pub(crate) encryption: Option<(String, Option<String>)>,
    _lock: Box<dyn Any + Send + Sync>,
    /// Last: who waits for it finds the files closed.
    reservation: Option<Reservation<OpenReplica>>,
}

/// A pull that has committed and is not in the files yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Schema cookie of its commit.
    pub cookie: u32,
    /// Whether local changes were put back.
    pub has_log: bool,
}

/// A connection that is closed before the rest of what it stands on.
pub(crate) struct EngineConn(pub(super) Option<Conn>);

impl Deref for EngineConn {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.0
            .as_ref()
            .expect("only OpenReplica::give_back takes it, and nothing is done after that")
    }
}

/// Makes the replica's files known to the VFS.
fn register(config: ReplicaConfig) -> Result<Arc<Replica>> {
    let path = config.path.clone();
    Replica::register(config).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => Error::InUse { path },
        ErrorKind::ResourceBusy => Error::LeftOpen {
            path,
            what: "connections of an earlier open",
        },
        _ => Error::storage("open", &path, e),
    })
}

impl OpenReplica {
    /// Registers the files with the VFS and opens the engine's own connections.
    pub(crate) fn open(
        options: &Builder,
        files: ReplicaFiles,
        access: ReplicaRemote,
        reservation: Option<Reservation<Self>>,
    ) -> Result<Self> {
        let ReplicaFiles {
            storage,
            path,
            info,
            map,
            wal_mark,
            lock,
            is_new,
            is_made: _,
        } = files;
        let ReplicaRemote {
            remote,
            token,
            is_offline,
        } = access;
        let page_size =
            PageSize::new(info.page_size).map_err(|e| Error::not_a_replica(&path, e.to_string()))?;
        let base = info.base(&path)?;
        let (segment, prefetch) = (SegmentSize::new(info.segment_size)?, info.prefetch);
        let hydrates = (prefetch != Some(false)).then_some(info.remote_hydrates);
        let highest_used_id = info.highest_used_id.max(info.acknowledged);
        let info = Arc::new(Mutex::new(info));
        let source = Arc::new(RemoteSource {
            remote: remote.clone(),
            info: info.clone(),
            page_size,
            deadline: options.timeout,
            prefetch: hydrates.map(|hydrates| Arc::new(StatementPrefetch::new(hydrates))),
            lives: watch::Sender::default(),
        });
        let replica = register(ReplicaConfig {
            storage: storage.clone(),
            path: path.clone(),
            page_size,
            base,
            map,
            source,
            segment,
            prefetch: prefetch == Some(true),
            wait: options.timeout,
            temporary: false,
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
        let (engine_conn, reader) = keep().inspect_err(|error: &Error| {
            replica.close();
            if is_new && error.is_interrupted() {
                // A connect that was cancelled leaves nothing, however far it had come.
                remove_files(&*storage, &path);
            }
        })?;
        Ok(Self {
            engine_conn: EngineConn(Some(engine_conn)),
            reader: EngineConn(Some(reader)),
            replica,
            remote,
            storage,
            highest_used_id: Arc::new(AtomicI64::new(highest_used_id)),
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
            is_offline,
            accepts_new_url: options.accept_new_url,
            encryption: options.encryption.clone(),
            _lock: lock,
            reservation,
        })
    }

    /// A new connection, which records what it changes.
    pub(crate) fn connection(self: &Arc<Self>, busy_timeout: Duration) -> Result<Connection> {
        let logged = self.clone();
        Connection::open(ConnectionOptions {
            path: self.replica.name().to_owned(),
            vfs: Some(VFS_NAME.into()),
            capture: Some(CaptureOptions {
                highest_used_id: self.highest_used_id.clone(),
                before_log: Arc::new(move || logged.begin_log()),
                ..CaptureOptions::default()
            }),
            busy_timeout,
            keep_alive: Some(self.clone()),
        })
    }

    /// Says that it can be joined.
    pub(crate) fn share(self: &Arc<Self>) {
        if let Some(reservation) = &self.reservation {
            reservation.fill(self);
        }
    }

    /// Up to which change anything was ever sent, or at least given a number. Newer ones than those in the log may have left
    /// it: discarded ones.
    pub(crate) fn sent(&self, in_log: Option<ChangeId>) -> Sent {
        let highest_used_id = self.highest_used_id.load(Ordering::Acquire);
        let given = in_log.map_or(highest_used_id, |id| id.0.max(highest_used_id));
        let info = self.info.lock();
        Sent {
            newest: Some(ChangeId(given.min(info.sent))).filter(|id| id.0 > 0),
            mark: info.mark.map(Mark::of),
        }
    }

    /// Refuses what only makes sense once something of this remote's database is here.
    pub(crate) fn check_pulled(&self, operation: &'static str) -> Result<()> {
        let info = self.info.lock();
        if info.is_unpulled() {
            return Err(Error::NotPulledYet { operation });
        }
        match base_is_elsewhere(&*self.remote, &info) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The first local change is about to be recorded, in a transaction that is open: from now on a pull reads the log, for
    /// which the pages of the schema must be here, also after a crash.
    pub(crate) fn begin_log(&self) -> Result<()> {
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
        self.highest_used_id
            .fetch_max(next.highest_used_id.max(next.acknowledged), Ordering::AcqRel);
        *info = next;
        Ok(())
    }
}
