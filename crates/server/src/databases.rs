//! The databases of a server: one file, or every `*.db` of a folder, opened when first asked for. The ones that were not
//! asked for the longest are closed when more are open than allowed.
//!
//! A name is checked before it becomes part of a path. Nothing here answers requests.

mod making;
pub(crate) mod serving;

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    database::{Database, OpenHistory, Opener},
    descriptors::close_unused_descriptors,
    error::ServerError,
    file_id::FileId,
    follow::may_be_database,
    front::descriptors_allowed,
    history::SqliteHistory,
};

/// Descriptors that an open database has when somebody uses it.
const DESCRIPTORS: usize = 16;
/// Of the descriptors of the process, a database in use may count on one in so many.
const DESCRIPTORS_FOR_EACH: usize = 64;
const LEAST_IN_USE: usize = 16;
/// Databases that are opened at the same time.
const OPENED_AT_ONCE: usize = 8;
/// How long a database waits until one that is used can be closed, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LONGEST_NAME: usize = 200;
/// Databases that are closed at the same time when the server stops.
const CLOSED_AT_ONCE: usize = 32;

/// What a path on disk serves.
#[derive(Debug)]
enum Root {
    File(PathBuf),
    Folder(PathBuf),
    /// A database in a folder that goes away with the server.
    Memory(tempfile::TempDir),
}

/// The place of one name.
#[derive(Default)]
struct Slot {
    /// While it is open.
    database: Mutex<Option<Arc<Database>>>,
    /// One opens or closes at a time. `true` = the server has stopped.
    turn: tokio::sync::Mutex<bool>,
    /// It was open before: a file that is missing now was taken away, and is not made.
    served: AtomicBool,
}

/// See the module.
pub(crate) struct Databases {
    /// `None` when the server has stopped.
    slots: Mutex<Option<HashMap<String, Arc<Slot>>>>,
    opener: Arc<Opener>,
    root: Root,
    /// See [`Databases::known_as`].
    single_name: Option<String>,
    most_open: usize,
    /// Also when all of them are used: the process has no descriptors for more.
    most_in_use: usize,
    opening: Semaphore,
}

/// [`SqliteHistory::open`].
pub(crate) fn default_history() -> OpenHistory {
    Arc::new(|path| Ok(Arc::new(SqliteHistory::open(path)?)))
}

impl Databases {
    /// Serves a file (made if it is missing), or the files of a folder; without a path, a database that is gone when
    /// the server stops. Of a folder, at most `most_open` are open when nobody uses more.
    pub(crate) fn new(path: Option<&Path>, opener: Opener, most_open: usize) -> Result<Self, ServerError> {
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
            slots: Mutex::new(Some(HashMap::new())),
            opener: Arc::new(opener),
            single_name: path.filter(|_| matches!(root, Root::File(_))).and_then(stem),
            root,
            most_open: most_open.max(1),
            most_in_use: most_in_use(),
            opening: Semaphore::new(OPENED_AT_ONCE),
        })
    }

    /// Whether there is one database, without a name.
    pub(crate) fn is_single(&self) -> bool {
        !matches!(self.root, Root::Folder(_))
    }

    /// What tokens call the database of that name: the single one goes by the file that was given, without its ending.
    pub(crate) fn known_as<'a>(&'a self, name: &'a str) -> &'a str {
        self.single_name.as_deref().unwrap_or(name)
    }

    /// The database of that name; `None` = there is none. The single database has the empty name.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Arc<Database>>, ServerError> {
        let Some(path) = self.file(name) else {
            return Ok(None);
        };
        let slot = self.slot(name)?;
        if let Some(database) = slot.good() {
            return Ok(Some(database));
        }
        // Nobody closes it.
        let _opening = self.opening.acquire().await.map_err(|_| ServerError::Stopping)?;
        let until = Instant::now() + PATIENCE;
        while slot.database.lock().is_none() && self.opened().len() >= self.most_in_use {
            let closed = self.close_surplus(self.most_in_use - 1).await;
            if closed > 0 || self.opener.sql.end_idle().await {
                continue;
            }
            if Instant::now() >= until {
                let most = self.most_in_use;
                return Err(ServerError::ManyInUse { most });
            }
            // What uses them may be done soon.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let database = match self.open(&slot, name, &path).await {
            // It was deleted while this waited for its turn.
            Err(ServerError::Missing { .. }) if !self.has(name) => return Ok(None),
            Err(error) if descriptors_are_short() => {
                let fewer = self.opened().len() / 2;
                match self.close_surplus(fewer).await {
                    0 => return Err(error),
                    _ => self.open(&slot, name, &path).await?,
                }
            }
            opened => opened?,
        };
        self.close_surplus(self.most_open).await;
        Ok(Some(database))
    }

    /// The database of that name, if it is open.
    pub(crate) fn open_now(&self, name: &str) -> Option<Arc<Database>> {
        let slot = self.slots.lock().as_ref()?.get(name).map(Arc::clone);
        slot?.good()
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>, ServerError> {
        match &mut *self.slots.lock() {
            Some(slots) => Ok(Arc::clone(slots.entry(name.to_owned()).or_default())),
            None => Err(ServerError::Stopping),
        }
    }

    async fn open(&self, slot: &Arc<Slot>, name: &str, path: &Path) -> Result<Arc<Database>, ServerError> {
        self.check_name(name, path).await?;
        let (slot, opener) = (Arc::clone(slot), Arc::clone(&self.opener));
        let (name, path) = (Arc::from(name), path.to_owned());
        // A task of its own: a client that gives up does not undo what may take long.
        let opening = tokio::spawn(async move { slot.open(&opener, name, path).await });
        opening.await.map_err(|_| ServerError::Stopping)?
    }

    /// Lets go of a file of the folder that had another name, and is open by that. Fails if it has that one still: SQLite would give it a
    /// WAL for each.
    async fn check_name(&self, name: &str, path: &Path) -> Result<(), ServerError> {
        let (Root::Folder(_), Ok(file)) = (&self.root, path.symlink_metadata()) else {
            return Ok(());
        };
        let id = FileId::of(&file);
        let is_it = |open: &Arc<Database>| *open.handle().name != *name && open.follower().files().id() == id;
        let Some(open) = self.opened().into_iter().find(is_it) else {
            return Ok(());
        };
        let slot = self.slot(&open.handle().name)?;
        drop(open);
        slot.leave(&self.opener).await?;
        // As where a file system takes capital letters for small ones.
        match slot.database.lock().is_some() {
            true => Err(ServerError::TwoNames {
                path: path.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Whether a name names a database.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    /// How they are opened.
    pub(crate) fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    /// The databases that are open now.
    pub(crate) fn opened(&self) -> Vec<Arc<Database>> {
        let slots = self.slots.lock();
        let mut databases: Vec<_> = slots
            .iter()
            .flat_map(HashMap::values)
            .filter_map(|slot| slot.database.lock().clone())
            .collect();
        databases.sort_by(|a, b| a.handle().name.cmp(&b.handle().name));
        databases
    }

    /// Lets others serve the databases, whatever is still under way here.
    pub(crate) fn unlock(&self) {
        self.opened().iter().for_each(|database| database.unlock());
    }

    /// Sees the last commits, notes where each database stands, and closes them. None is opened after it.
    pub(crate) async fn close(&self) {
        let slots = self.slots.lock().take().unwrap_or_default();
        futures_util::stream::iter(slots.into_values())
            .for_each_concurrent(CLOSED_AT_ONCE, async |slot| {
                let mut closed = slot.turn.lock().await;
                *closed = true;
                let open = slot.database.lock().take();
                if let Some(database) = open {
                    database.close(&*self.opener.sql).await;
                }
            })
            .await;
        close_unused().await;
    }

    /// Closes databases that nobody uses, the one that was asked for longest ago first, until no more are open than these.
    /// Says how many it closed.
    async fn close_surplus(&self, most_open: usize) -> usize {
        let mut open: Vec<_> = {
            let slots = self.slots.lock();
            let open = slots.iter().flatten().filter_map(|(name, slot)| {
                let asked = slot.database.lock().as_ref()?.asked();
                Some((asked, name.clone(), Arc::clone(slot)))
            });
            open.collect()
        };
        let Some(surplus) = open.len().checked_sub(most_open).filter(|n| *n > 0) else {
            return 0;
        };
        open.sort_by_key(|(asked, ..)| *asked);
        let mut closed = 0;
        for (_, name, slot) in open {
            if closed == surplus {
                break;
            }
            let opener = Arc::clone(&self.opener);
            let closing = Arc::clone(&slot);
            // A task of its own, as for opening.
            let closing = tokio::spawn(async move { closing.close_unused(&opener).await });
            if closing.await.unwrap_or(false) {
                closed += 1;
            }
            self.forget(&name, &slot);
        }
        closed
    }

    /// Forgets the place of a name that nobody uses.
    fn forget(&self, name: &str, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        // Nobody else has it or waits for its turn: who takes one from the map does so under this lock.
        if let Some(slots) = &mut *slots
            && Arc::strong_count(slot) == 2
            && slot.database.lock().is_none()
        {
            slots.remove(name);
        }
    }

    /// Where the database of that name is; `None` = there is none.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        match &self.root {
            Root::File(path) => name.is_empty().then(|| path.clone()),
            Root::Memory(folder) => name.is_empty().then(|| folder.path().join("memory.db")),
            Root::Folder(folder) => {
                let path = folder.join(format!("{name}.db"));
                // Not a link: it could lead out of the folder, or be a second name of a database.
                (is_name(name) && path.symlink_metadata().is_ok_and(|meta| meta.is_file())).then_some(path)
            }
        }
    }
}

impl Slot {
    fn good(&self) -> Option<Arc<Database>> {
        // Looked at without the lock: it takes the system a while, and every request comes by here.
        let found = self.database.lock().clone()?;
        found.is_good().then(|| {
            found.touch();
            found
        })
    }

    async fn open(
        self: &Arc<Self>,
        opener: &Arc<Opener>,
        name: Arc<str>,
        path: PathBuf,
    ) -> Result<Arc<Database>, ServerError> {
        let stopped = self.turn.lock().await;
        if *stopped {
            return Err(ServerError::Stopping);
        }
        // Somebody else may have opened it while this waited for its turn.
        if let Some(database) = self.good() {
            return Ok(database);
        }
        let old = self.database.lock().clone();
        if let Some(old) = old {
            if !old.retire(&*opener.sql).await? {
                return Err(ServerError::Missing { path });
            }
            self.database.lock().take();
        }
        if self.served.load(Relaxed) && !std::fs::metadata(&path).is_ok_and(|meta| may_be_database(&meta)) {
            return Err(ServerError::Missing { path });
        }
        let opened = Database::open(opener, name, path).await;
        if opened.is_err() {
            close_unused().await;
        }
        let database = opened?;
        self.served.store(true, Relaxed);
        *self.database.lock() = Some(Arc::clone(&database));
        if opener.watched {
            let (slot, opener) = (Arc::downgrade(self), Arc::clone(opener));
            database.watch(Arc::clone(&opener), async move {
                if let Some(slot) = slot.upgrade() {
                    slot.let_go(&opener).await;
                }
            });
        }
        Ok(database)
    }

    /// Lets go of a database that is not good any more, so that a deleted file takes no room.
    async fn let_go(&self, opener: &Opener) {
        let _turn = self.turn.lock().await;
        let old = self
            .database
            .lock()
            .clone()
            .filter(|database| database.has_to_go());
        let Some(old) = old else { return };
        match old.retire(&*opener.sql).await {
            Ok(true) => drop(self.database.lock().take()),
            // It stays, for it may come back.
            Ok(false) => return,
            // Whoever asks next tries again.
            Err(error) => {
                tracing::error!(database = %old.handle().name, %error, "cannot be let go of");
                return;
            }
        }
        drop(old);
        close_unused().await;
    }

    /// Lets go of a database whose file has another name now.
    async fn leave(&self, opener: &Opener) -> Result<(), ServerError> {
        let _turn = self.turn.lock().await;
        let old = self.database.lock().clone().filter(|old| !old.is_good());
        if let Some(old) = old {
            old.leave(&*opener.sql).await?;
            self.database.lock().take();
            drop(old);
            close_unused().await;
        }
        Ok(())
    }

    /// Closes the database unless it is used.
    async fn close_unused(&self, opener: &Opener) -> bool {
        let Ok(_turn) = self.turn.try_lock() else {
            return false;
        };
        let unused = {
            let mut open = self.database.lock();
            match open.as_ref().is_some_and(|it| !it.is_in_use(&*opener.sql)) {
                true => open.take(),
                false => None,
            }
        };
        match unused {
            Some(database) => database.close(&*opener.sql).await,
            None => return false,
        }
        close_unused().await;
        true
    }
}

/// Closes what files that are open no more have left.
async fn close_unused() {
    // It fails only if the runtime is going down.
    let _ = tokio::task::spawn_blocking(close_unused_descriptors).await;
}

fn most_in_use() -> usize {
    let allowed = descriptors_allowed().and_then(|allowed| usize::try_from(allowed).ok());
    allowed.map_or(usize::MAX, |all| (all / DESCRIPTORS_FOR_EACH).max(LEAST_IN_USE))
}

pub(crate) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('.') && name.bytes().all(plain)
}

/// Whether this process cannot have as many more descriptors as a database needs.
fn descriptors_are_short() -> bool {
    let more: std::io::Result<Vec<_>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    more.is_err()
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)
}

fn absolute(path: &Path) -> Result<PathBuf, ServerError> {
    std::path::absolute(path).map_err(|e| ServerError::BadPath {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicU32, Ordering::SeqCst},
            mpsc,
        },
        time::SystemTime,
    };

    use super::*;
    use crate::{clock::Clock, history::Retention, hrana::Hrana};

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
        let opener = Opener {
            retention: Retention::default(),
            clock,
            history: default_history(),
            sql: Arc::new(Hrana::default()),
            replicator: None,
            watched: true,
        };
        let databases = Databases::new(Some(folder.path()), opener, 10).unwrap();
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
