//! One database while it is open: opening it, looking after it, and letting go of it.
//!
//! It belongs to the file that was at the path when it was opened. When the path leads elsewhere it is over: nothing is
//! recorded any more, everybody who uses it is told, and what is at the path then is another database with a new page
//! history. Nothing here knows names or other databases.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};

use crate::{
    access::{CommitListener, DatabaseHandle, NotCommitted, SqlEndpoint},
    beside::{remove_all, remove_file_first},
    clock::Clock,
    descriptors::close_unused_descriptors,
    error::{HistoryError, ServerError},
    follow::{Follower, LoggedStates, Place, SourceFiles},
    history::{History, HistorySize, Retention, SqliteHistory},
    lock::DatabaseLock,
    replicate::Replicator,
    restoring,
    states::States,
};

/// How often a database is looked at for commits of other programs.
const LOOK_BUSY: Duration = Duration::from_millis(25);
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// A database that was asked for this long ago is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// How often old revisions are looked for, and the pause between two steps of removing them.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
const PRUNE_PAUSE: Duration = Duration::from_millis(5);
/// Between two steps of comparing a database with its page history, and how many databases do one at a time.
const COMPARE_PAUSE: Duration = Duration::from_millis(5);
static COMPARERS: Semaphore = Semaphore::const_new(2);
/// Between two warnings that the history is too short.
const WARN_EVERY: Duration = Duration::from_secs(60 * 60);
/// After a failure, before the next look.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Opens the page history of the database at a path.
pub(crate) type OpenHistory = Arc<dyn Fn(&Path) -> Result<Arc<dyn History>, HistoryError> + Send + Sync>;

/// How the databases of a server are opened.
pub(crate) struct Opener {
    pub retention: Retention,
    pub clock: Clock,
    pub history: OpenHistory,
    pub sql: Arc<dyn SqlEndpoint>,
    /// Where every commit goes too.
    pub replicator: Option<Arc<Replicator>>,
    /// Whether each database is looked after without being asked.
    pub watched: bool,
}

impl Opener {
    fn unix_ms(&self) -> i64 {
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
    }

    /// How old the oldest revision is that is kept.
    pub(crate) fn reach(&self, history: &HistorySize) -> Duration {
        let oldest = history.oldest_unix_ms.unwrap_or(i64::MAX);
        let reach = self.unix_ms().saturating_sub(oldest);
        Duration::from_millis(u64::try_from(reach).unwrap_or(0))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Database {
    handle: DatabaseHandle,
    follower: Arc<Follower>,
    /// `None` when nothing can be written beside the file. After the follower: given back when all is closed.
    lock: Mutex<Option<DatabaseLock>>,
    started: Instant,
    /// Milliseconds after `started`.
    asked: AtomicU64,
    watcher: Mutex<Option<JoinHandle<()>>>,
    /// Looks after its log.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    /// Opens the file, which is made if it is missing.
    pub(crate) async fn open(
        opener: &Arc<Opener>,
        name: Arc<str>,
        path: PathBuf,
    ) -> Result<Arc<Self>, ServerError> {
        let (history, clock) = (Arc::clone(&opener.history), opener.clock.clone());
        let attach = opener
            .replicator
            .as_ref()
            .map(|replicator| replicator.attach(&name));
        let attach = attach.transpose()?;
        let opening = Arc::clone(opener);
        let open = move || {
            restoring::finish(&path)?;
            // Nobody else serves the file, or makes it. Given back last.
            let lock = match DatabaseLock::take(&path) {
                Err(error @ ServerError::InUse { .. }) => return Err(error),
                lock => lock,
            };
            let is_new = !std::fs::metadata(&path).is_ok_and(|meta| meta.len() > 0);
            let lock = match attach.as_ref().filter(|_| is_new) {
                Some(attach) => {
                    let lock = lock?;
                    attach.adopt(&path, opening.unix_ms(), &*history)?;
                    Ok(lock)
                }
                None => lock,
            };
            let files = SourceFiles::open(&path)?;
            let lock = match lock {
                Ok(lock) => Some(lock),
                Err(_) if files.read_only() => None,
                Err(error) => return Err(error),
            };
            let history = match history(&path) {
                Ok(history) => history,
                Err(error) if files.read_only() => {
                    tracing::warn!(path = %path.display(), %error, "old pages are kept in memory only");
                    Arc::new(SqliteHistory::in_memory()?) as Arc<dyn History>
                }
                Err(error) => return Err(error.into()),
            };
            if attach.is_some() && files.read_only() {
                return Err(ServerError::ReadOnlyFile { path });
            }
            let follower =
                Follower::open_with(files, history, clock, attach.as_ref().map(|attach| attach as _))?;
            Ok((Arc::new(follower), lock))
        };
        let (follower, lock) = tokio::task::spawn_blocking(open)
            .await
            .map_err(|_| ServerError::Stopping)??;
        tracing::info!(path = %follower.files().path().display(), revision = %follower.current().seq, "opened");
        Ok(Self::of(name, follower, lock))
    }

    /// One whose file is followed already.
    pub(crate) fn of(name: Arc<str>, follower: Arc<Follower>, lock: Option<DatabaseLock>) -> Arc<Self> {
        let database = Arc::new(Self {
            handle: DatabaseHandle {
                name,
                path: Arc::clone(follower.files().path()),
                read_only: follower.files().read_only(),
                listener: Arc::new(Listener(Arc::clone(&follower))),
            },
            follower,
            lock: Mutex::new(lock),
            started: Instant::now(),
            asked: AtomicU64::new(0),
            watcher: Mutex::default(),
            keeper: Mutex::default(),
        });
        if let Some(log) = database.follower.log() {
            *database.keeper.lock() = Some(tokio::spawn(Arc::clone(log).keep()));
        }
        database
    }

    /// Looks after it until it is closed; when the path leads elsewhere, does `ended` instead.
    pub(crate) fn watch(
        self: &Arc<Self>,
        opener: Arc<Opener>,
        ended: impl Future<Output = ()> + Send + 'static,
    ) {
        let looking = Arc::downgrade(self);
        let watcher = tokio::spawn(async move {
            if let Looked::Ended = watch(looking, opener).await {
                // A task of its own, which may stop this one.
                tokio::spawn(ended);
            }
        });
        *self.watcher.lock() = Some(watcher);
    }

    /// What the SQL endpoint gets.
    pub(crate) fn handle(&self) -> &DatabaseHandle {
        &self.handle
    }

    /// Its states, as they are served.
    pub(crate) fn states(&self) -> Arc<dyn States> {
        match self.follower.log() {
            None => self.follower.clone(),
            Some(log) => Arc::new(LoggedStates::new(Arc::clone(&self.follower), Arc::clone(log))),
        }
    }

    /// Its revisions.
    pub(crate) fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// Whether it is still what the path leads to.
    pub(crate) fn is_good(&self) -> bool {
        is_good(&self.follower)
    }

    /// Whether its place is to be taken by another one. Looked for now and then, not with every request.
    pub(crate) fn has_to_go(&self) -> bool {
        !self.is_good() || (self.follower.log().is_none() && restoring::waits(self.follower.files().path()))
    }

    /// Somebody asks for it.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(now, Relaxed);
    }

    /// When it was asked for last.
    pub(crate) fn asked(&self) -> Instant {
        self.started + Duration::from_millis(self.asked.load(Relaxed))
    }

    fn is_busy(&self) -> bool {
        self.asked().elapsed() < IDLE_AFTER || self.follower.has_waiters()
    }

    /// Whether somebody works with it, or comes back to it with a baton. The caller has one reference.
    pub(crate) fn is_in_use(self: &Arc<Self>, sql: &dyn SqlEndpoint) -> bool {
        // The follower is held here and by the listener; an answer under way holds it too, and SQL holds the listener.
        Arc::strong_count(self) > 1
            || Arc::strong_count(&self.follower) > 2
            || Arc::strong_count(&self.handle.listener) > 1
            || self.follower.has_waiters()
            || sql.is_using(&self.handle)
    }

    /// Sees the last commits, notes where it stands, and closes it.
    pub(crate) async fn close(self: Arc<Self>, sql: &dyn SqlEndpoint) {
        if !self.is_good() {
            // What is left beside the file that has taken its place would spoil that one.
            if let Err(error) = self.leave(sql).await {
                tracing::error!(path = %self.handle.path.display(), %error, "a replaced database may lack its last commits");
            }
        }
        self.unwatch().await;
        sql.release(&self.handle).await;
        if let Err(error) = self.follower.stop().await {
            tracing::warn!(path = %self.handle.path.display(), %error, "left without noting where it stands");
        }
        // Closing files blocks. It fails only if the runtime is going down, and then all is dropped anyway.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    /// Ends a database that is not good any more. `false` = nothing that could take its place is there, and the file has
    /// not been deleted: it has all of its commits, may be put back, and is kept until it is known.
    pub(crate) async fn retire(self: &Arc<Self>, sql: &dyn SqlEndpoint) -> Result<bool, ServerError> {
        self.close_log();
        self.follower.end().await;
        sql.release(&self.handle).await;
        let follower = Arc::clone(&self.follower);
        let ended = tokio::task::spawn_blocking(move || {
            let files = follower.files();
            // Claimed first: what is taken away below is gone, and nobody may take the new one back then.
            let claimed = match follower.log() {
                None => restoring::claim(files.path())?,
                // The log would not have it.
                Some(_) => None,
            };
            if let Some(claimed) = claimed {
                forget(&follower);
                // For another program that opens it before the new one has its name.
                if let Err(error) = files.fold() {
                    tracing::debug!(path = %files.path().display(), %error, "the file that is replaced stays as it is");
                }
                restoring::complete(files.path(), &claimed)?;
                return Ok(true);
            }
            match files.place() {
                Place::Same if follower.history().is_in_place() => {}
                // The same file, but its history was taken away.
                Place::Same => forget(&follower),
                Place::Missing { deleted: false } => {
                    if !files.complete() {
                        tracing::error!(
                            path = %files.path().display(),
                            "the file that was moved away lacks its last commits, because another program reads it: they are in the \
                             WAL that is left at this path"
                        );
                    }
                    return Ok::<_, ServerError>(false);
                }
                Place::Missing { deleted: true } | Place::Other => {
                    files.leave()?;
                    forget(&follower);
                }
            }
            Ok(true)
        });
        let ended = ended.await.map_err(|_| ServerError::Stopping)??;
        if ended {
            self.unwatch().await;
            // The next one needs it; what is left of this one records nothing.
            self.unlock();
        }
        Ok(ended)
    }

    /// The same, and one whose file is somewhere else is not waited for any more.
    pub(crate) async fn leave(self: &Arc<Self>, sql: &dyn SqlEndpoint) -> Result<(), ServerError> {
        if self.retire(sql).await? {
            return Ok(());
        }
        let follower = Arc::clone(&self.follower);
        let left = tokio::task::spawn_blocking(move || follower.files().leave());
        left.await.map_err(|_| ServerError::Stopping)??;
        self.unwatch().await;
        self.unlock();
        Ok(())
    }

    /// Ends it, and removes its files. Fails while another program has it open, and then nothing of it is lost; it has ended all
    /// the same, and is opened again by who asks for it.
    pub(crate) async fn delete(self: &Arc<Self>, sql: &dyn SqlEndpoint) -> Result<(), ServerError> {
        self.close_log();
        self.follower.end().await;
        self.unwatch().await;
        sql.release(&self.handle).await;
        let this = Arc::clone(self);
        let deleted = tokio::task::spawn_blocking(move || {
            let files = this.follower.files();
            let path = files.path();
            match files.fold() {
                Ok(()) => {
                    // What is killed from here on is the database without revisions, until it has no name.
                    this.follower.history().remove()?;
                    remove_all(path)?;
                }
                // Nobody else has it open: that was found out before anything was written.
                Err(error) if error.is_full() => {
                    tracing::debug!(path = %path.display(), %error, "deleted without its last commits in its file");
                    this.follower.history().remove()?;
                    remove_file_first(path)?;
                }
                Err(error) => return Err(error),
            }
            tracing::info!(path = %path.display(), "deleted");
            this.unlock();
            close_unused_descriptors();
            Ok(())
        });
        deleted.await.map_err(|_| ServerError::Stopping)?
    }

    /// Lets another server serve it.
    pub(crate) fn unlock(&self) {
        self.lock.lock().take();
    }

    /// A step that waits for the bucket ends soon.
    fn close_log(&self) {
        if let Some(log) = self.follower.log() {
            log.close();
        }
    }

    async fn unwatch(&self) {
        self.close_log();
        for task in [&self.watcher, &self.keeper] {
            let task = task.lock().take();
            if let Some(task) = task {
                task.abort();
                // Cancelled, or it had nothing more to do.
                let _ = task.await;
            }
        }
    }
}

fn is_good(follower: &Follower) -> bool {
    follower.check_open().is_ok()
        && follower.files().check_in_place().is_ok()
        && follower.history().is_in_place()
}

fn forget(follower: &Follower) {
    if let Err(error) = follower.history().forget() {
        // Then its pages are compared with those that are found: what differs is a new revision.
        tracing::warn!(path = %follower.files().path().display(), %error, "the page history continues");
    }
}

/// Why nobody looks any more.
enum Looked {
    Closed,
    /// The path leads elsewhere.
    Ended,
}

/// Looks for commits of other programs, keeps the WAL short, and lets go of old revisions.
async fn watch(database: Weak<Database>, opener: Arc<Opener>) -> Looked {
    let mut pruned = Instant::now();
    let mut warned = None;
    let mut pause = LOOK_BUSY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(database) = database.upgrade() else {
            return Looked::Closed;
        };
        if database.has_to_go() {
            let path = &database.handle.path;
            tracing::warn!(path = %path.display(), "the database was moved, removed, replaced or restored");
            return Looked::Ended;
        }
        let follower = &database.follower;
        if database.handle.listener.is_taken_over() {
            pause = LOOK_IDLE;
            continue;
        }
        let looked = async {
            follower.refresh().await?;
            let tended = follower.tend().await?;
            let compared = match COMPARERS.try_acquire() {
                Ok(_turn) => follower.compare().await?,
                Err(_) => false,
            };
            let soon = tended || follower.comparing().is_some();
            Ok(match compared {
                true => Some(COMPARE_PAUSE),
                false => soon.then_some(LOOK_BUSY),
            })
        };
        let mut looked = looked.await;
        // Also when following fails: a full disk may be what fails it.
        if pruned.elapsed() >= PRUNE_EVERY {
            let done = prune(follower, &opener).await;
            if let Ok(Some(reach)) = done
                && warned.is_none_or(|at: Instant| at.elapsed() >= WARN_EVERY)
            {
                tracing::warn!(
                    path = %database.handle.path.display(),
                    "the page history is full ({} bytes) and reaches back {} s, not {} s: a replica that pulls less often \
                     must be made again; keep more bytes (--retain-bytes)",
                    opener.retention.bytes, reach.as_secs(), opener.retention.age.as_secs()
                );
                warned = Some(Instant::now());
            }
            looked = looked.and_then(|pause| done.map(|_| pause));
            pruned = Instant::now();
        }
        pause = match looked {
            Ok(Some(pause)) => pause,
            Ok(None) if database.is_busy() => LOOK_BUSY,
            Ok(None) => LOOK_IDLE,
            Err(error) => {
                tracing::error!(path = %database.handle.path.display(), %error, "cannot follow the database");
                AFTER_FAILURE
            }
        };
    }
}

/// Lets go of what need not be kept. `Some` = revisions went before their time: how far back the others reach.
async fn prune(follower: &Arc<Follower>, opener: &Opener) -> Result<Option<Duration>, ServerError> {
    let (retention, now) = (opener.retention, opener.unix_ms());
    let mut early = false;
    loop {
        let history = Arc::clone(follower.history());
        let step = tokio::task::spawn_blocking(move || {
            let step = history.prune(&retention, now)?;
            early |= step.early;
            let size = (early && !step.more).then(|| history.size()).transpose()?;
            Ok::<_, HistoryError>((step, size))
        });
        let (step, size) = step.await.map_err(|_| ServerError::Stopping)??;
        early |= step.early;
        if !step.more {
            return Ok(size.map(|size| opener.reach(&size)));
        }
        tokio::time::sleep(PRUNE_PAUSE).await;
    }
}

#[derive(Debug)]
struct Listener(Arc<Follower>);

impl CommitListener for Listener {
    fn committed(&self) -> BoxFuture<'static, Result<(), NotCommitted>> {
        let follower = Arc::clone(&self.0);
        Box::pin(async move {
            let log = follower.log().cloned();
            // What is not waited for gets its revision when the database is looked at next.
            if log.as_ref().is_none_or(|log| log.is_durable()) {
                let Err(error) = follower.refresh().await else {
                    // A revision is of what is on the disk, and in the bucket.
                    return Ok(());
                };
                tracing::error!(%error, "a commit has no revision yet");
                match log {
                    Some(log) if log.is_fenced() => return Err(NotCommitted::TakenOver),
                    Some(_) => return Err(NotCommitted::Bucket(error.into())),
                    // The commit stands whatever happened; anyone who asks for the latest revision tries again and is told.
                    None => {}
                }
            }
            let synced = tokio::task::spawn_blocking(move || follower.files().sync());
            Ok(synced.await.map_err(std::io::Error::other)??)
        })
    }

    fn is_taken_over(&self) -> bool {
        self.0.log().is_some_and(|log| log.is_fenced())
    }

    fn makes_durable(&self) -> bool {
        true
    }

    fn wal_bytes(&self) -> u64 {
        self.0.files().wal_bytes()
    }

    fn waits_for_bucket(&self) -> bool {
        self.0.is_unshipped()
    }

    fn room(&self, most: u64, patience: Duration) -> BoxFuture<'static, ()> {
        let follower = Arc::clone(&self.0);
        Box::pin(async move { follower.wait_for_room(most, patience).await })
    }

    fn is_in_place(&self) -> bool {
        is_good(&self.0)
    }
}
