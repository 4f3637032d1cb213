//! The databases of a server: one file, or every `*.db` of a folder, opened when first asked for and kept open.
//!
//! A name is checked before it becomes part of a path. Nothing here answers requests.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{sync::OnceCell, task::JoinHandle, time::Instant};

use crate::{
    access::{CommitListener, DatabaseHandle},
    clock::Clock,
    error::{HistoryError, ServerError},
    follow::{Follower, SourceFiles},
    history::{History, Retention, SqliteHistory},
};

/// How often a database is looked at for commits of other programs.
const LOOK_BUSY: Duration = Duration::from_millis(25);
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// A database that was asked for this long ago is idle.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// How often old revisions are looked for, and the pause between two steps of removing them.
const PRUNE_EVERY: Duration = Duration::from_secs(1);
const PRUNE_PAUSE: Duration = Duration::from_millis(5);
/// After a failure, before the next look.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const LONGEST_NAME: usize = 200;

/// One open database.
#[derive(Debug)]
pub(crate) struct Database {
    handle: DatabaseHandle,
    follower: Arc<Follower>,
    started: Instant,
    /// Milliseconds after `started`.
    asked: AtomicU64,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    /// What the SQL endpoint gets.
    pub(crate) fn handle(&self) -> &DatabaseHandle {
        &self.handle
    }

    /// Its revisions.
    pub(crate) fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.asked.store(now, Relaxed);
    }

    fn is_busy(&self) -> bool {
        let asked = self.started + Duration::from_millis(self.asked.load(Relaxed));
        asked.elapsed() < IDLE_AFTER || self.follower.has_waiters()
    }
}

/// What a path on disk serves.
#[derive(Debug)]
enum Root {
    File(PathBuf),
    Folder(PathBuf),
    /// A database in a folder that goes away with the server.
    Memory(tempfile::TempDir),
}

/// See the module.
pub(crate) struct Databases {
    open: Mutex<HashMap<String, Arc<OnceCell<Arc<Database>>>>>,
    retention: Retention,
    clock: Clock,
    history: OpenHistory,
    root: Root,
    /// Whether each database is looked after without being asked.
    watched: bool,
}

/// Opens the page history of the database at a path.
pub(crate) type OpenHistory = Arc<dyn Fn(&Path) -> Result<Arc<dyn History>, HistoryError> + Send + Sync>;

/// [`SqliteHistory::open`].
pub(crate) fn default_history() -> OpenHistory {
    Arc::new(|path| Ok(Arc::new(SqliteHistory::open(path)?)))
}

impl Databases {
    /// Serves a file (made if it is missing), or the files of a folder; without a path, a database that is gone when
    /// the server stops.
    pub(crate) fn new(
        path: Option<&Path>,
        retention: Retention,
        clock: Clock,
        history: OpenHistory,
    ) -> Result<Self, ServerError> {
        let bad = |path: &Path, reason: &str| ServerError::BadPath {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let root = match path {
            None => Root::Memory(
                tempfile::Builder::new()
                    .prefix("partial-sync-")
                    .tempdir()
                    .map_err(|e| {
                        bad(
                            &std::env::temp_dir(),
                            &format!("no temporary folder can be made in it: {e}"),
                        )
                    })?,
            ),
            Some(path) if path.is_dir() => Root::Folder(absolute(path)?),
            Some(path) if path.file_name().is_none() => return Err(bad(path, "it names no file")),
            Some(path) => {
                let path = absolute(path)?;
                if !path.parent().is_some_and(Path::is_dir) {
                    return Err(bad(&path, "the folder that it should be in does not exist"));
                }
                // SQLite keeps the WAL beside the file that a link leads to.
                Root::File(std::fs::canonicalize(&path).unwrap_or(path))
            }
        };
        Ok(Self {
            open: Mutex::default(),
            retention,
            clock,
            history,
            root,
            watched: true,
        })
    }

    /// The same, with databases that change nothing of themselves unless they are told to.
    pub(crate) fn unwatched(self) -> Self {
        Self {
            watched: false,
            ..self
        }
    }

    /// Whether there is one database, without a name.
    pub(crate) fn is_single(&self) -> bool {
        !matches!(self.root, Root::Folder(_))
    }

    /// The database of that name; `None` = there is none. The single database has the empty name.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Arc<Database>>, ServerError> {
        let Some(path) = self.file(name) else {
            return Ok(None);
        };
        let cell = Arc::clone(self.open.lock().entry(name.to_owned()).or_default());
        let database = match cell.get() {
            Some(database) => Arc::clone(database),
            None => {
                let (name, retention, clock) = (Arc::from(name), self.retention, self.clock.clone());
                let (history, watched) = (Arc::clone(&self.history), self.watched);
                // A task of its own: a client that gives up does not undo what may take long.
                let opening = tokio::spawn(async move {
                    let opened =
                        cell.get_or_try_init(|| open_file(name, path, retention, clock, history, watched));
                    opened.await.cloned()
                });
                opening.await.map_err(|_| ServerError::Stopping)??
            }
        };
        database.follower.files().check_in_place()?;
        database.touch();
        Ok(Some(database))
    }

    /// Whether a name names a database.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    /// The databases that are open now.
    pub(crate) fn opened(&self) -> Vec<Arc<Database>> {
        let open = self.open.lock();
        let mut databases: Vec<_> = open.values().filter_map(|cell| cell.get().cloned()).collect();
        databases.sort_by(|a, b| a.handle.name.cmp(&b.handle.name));
        databases
    }

    /// Sees the last commits, notes where each database stands, and closes them.
    pub(crate) async fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        for database in open.into_values().filter_map(|cell| cell.get().cloned()) {
            let watcher = database.watcher.lock().take();
            if let Some(watcher) = watcher {
                watcher.abort();
                // Cancelled: that is the only way in which it ends.
                let _ = watcher.await;
            }
            if let Err(error) = database.follower.stop().await {
                tracing::warn!(path = %database.handle.path.display(), %error, "left without noting where it stands");
            }
        }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        match &self.root {
            Root::File(path) => name.is_empty().then(|| path.clone()),
            Root::Memory(folder) => name.is_empty().then(|| folder.path().join("memory.db")),
            Root::Folder(folder) => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                let good = !name.is_empty()
                    && name.len() <= LONGEST_NAME
                    && !name.starts_with('.')
                    && name.bytes().all(plain);
                let path = folder.join(format!("{name}.db"));
                // Not a link: it could lead out of the folder, or be a second name of a database.
                (good && path.symlink_metadata().is_ok_and(|meta| meta.is_file())).then_some(path)
            }
        }
    }
}

async fn open_file(
    name: Arc<str>,
    path: PathBuf,
    retention: Retention,
    clock: Clock,
    history: OpenHistory,
    watched: bool,
) -> Result<Arc<Database>, ServerError> {
    let for_revisions = clock.clone();
    let open = move || {
        let files = SourceFiles::open(&path)?;
        let history = match history(&path) {
            Ok(history) => history,
            Err(error) if files.read_only() => {
                tracing::warn!(path = %path.display(), %error, "old pages are kept in memory only");
                Arc::new(SqliteHistory::in_memory()?) as Arc<dyn History>
            }
            Err(error) => return Err(error.into()),
        };
        Follower::open(files, history, for_revisions).map(Arc::new)
    };
    let follower = tokio::task::spawn_blocking(open)
        .await
        .map_err(|_| ServerError::Stopping)??;
    tracing::info!(path = %follower.files().path().display(), revision = %follower.current().seq, "opened");
    let database = Arc::new(Database {
        handle: DatabaseHandle {
            name,
            path: Arc::clone(follower.files().path()),
            read_only: follower.files().read_only(),
            listener: Arc::new(Listener(Arc::clone(&follower))),
        },
        follower,
        started: Instant::now(),
        asked: AtomicU64::new(0),
        watcher: Mutex::default(),
    });
    if watched {
        let watcher = tokio::spawn(watch(Arc::downgrade(&database), retention, clock));
        *database.watcher.lock() = Some(watcher);
    }
    Ok(database)
}
/// Looks for commits of other programs, keeps the WAL short, and lets go of old revisions.
async fn watch(database: std::sync::Weak<Database>, retention: Retention, clock: Clock) {
    let mut pruned = Instant::now();
    let mut pause = LOOK_BUSY;
    loop {
        tokio::time::sleep(pause).await;
        let Some(database) = database.upgrade() else {
            return;
        };
        let follower = &database.follower;
        let looked = async {
            follower.files().check_in_place()?;
            follower.refresh().await?;
            follower.tend().await
        };
        let mut looked = looked.await;
        // Also when following fails: a full disk may be what fails it.
        if pruned.elapsed() >= PRUNE_EVERY {
            let done = prune(follower, retention, &clock).await;
            looked = looked.and_then(|soon| done.map(|()| soon));
            pruned = Instant::now();
        }
        pause = match looked {
            Ok(soon) if soon || database.is_busy() => LOOK_BUSY,
            Ok(_) => LOOK_IDLE,
            Err(error) => {
                tracing::error!(path = %database.handle.path.display(), %error, "cannot follow the database");
                AFTER_FAILURE
            }
        };
    }
}

async fn prune(follower: &Arc<Follower>, retention: Retention, clock: &Clock) -> Result<(), ServerError> {
    let now = clock
        .now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    loop {
        let history = Arc::clone(follower.history());
        let step = tokio::task::spawn_blocking(move || history.prune(&retention, now));
        if !step.await.map_err(|_| ServerError::Stopping)?? {
            return Ok(());
        }
        tokio::time::sleep(PRUNE_PAUSE).await;
    }
}

#[derive(Debug)]
struct Listener(Arc<Follower>);

impl CommitListener for Listener {
    fn committed(&self) -> BoxFuture<'static, ()> {
        let follower = Arc::clone(&self.0);
        Box::pin(async move {
            // The commit stands whatever happens here; anyone who asks for the latest revision tries again and is told.
            if let Err(error) = follower.refresh().await {
                tracing::error!(%error, "a commit has no revision yet");
            }
        })
    }

    fn wal_bytes(&self) -> u64 {
        self.0.files().wal_bytes()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, ServerError> {
    std::path::absolute(path).map_err(|e| ServerError::BadPath {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU32, Ordering::SeqCst},
        mpsc,
    };

    use super::*;

    /// Was red: anyone who asked first opened the database, and when that client gave up, all the work began again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_gives_up_does_not_undo_the_opening_of_a_database() {
        let folder = tempfile::tempdir().unwrap();
        rusqlite::Connection::open(folder.path().join("one.db"))
            .unwrap()
            .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            .unwrap();
        let (entered, mut opening) = tokio::sync::mpsc::unbounded_channel();
        let (release, held) = mpsc::channel::<()>();
        let (opened, held) = (Arc::new(AtomicU32::new(0)), Mutex::new(held));
        let count = opened.clone();
        // A database is stamped once while it is opened; the first time takes until it is released.
        let clock = Clock::new(move || {
            if count.fetch_add(1, SeqCst) == 0 {
                entered.send(()).unwrap();
                held.lock().recv().unwrap();
            }
            SystemTime::now()
        });
        let databases =
            Databases::new(Some(folder.path()), Default::default(), clock, default_history()).unwrap();
        tokio::select! {
            _ = databases.get("one") => panic!("it is held"),
            _ = opening.recv() => {}
        }
        release.send(()).unwrap();
        assert!(databases.get("one").await.unwrap().is_some());
        assert_eq!(opened.load(SeqCst), 1);
        databases.close().await;
    }
}
