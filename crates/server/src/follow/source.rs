//! The files of one database that is being served: descriptors for positional reads, one SQLite connection that lives as
//! long as they do, and a pool of connections for read transactions.
//!
//! The resident connection keeps SQLite from deleting the WAL and the wal-index under the descriptors. Nothing here
//! writes to the database, except that opening puts it into WAL mode and [`SourceFiles::checkpoint`] moves the WAL's
//! pages into it.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_core::{
    PageCount, PageNo, PageSize,
    header::{HEADER_LEN, stated_page_size},
};
use partial_sync_vfs::{Replica, VFS_NAME, side_file_path};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{header::WalIndexHeader, partial::PartialFile};
use crate::{
    beside::set_aside, descriptors::Descriptor, error::ServerError, file_id::FileId, history::RevisionRecord,
};

/// Bytes of a frame of the WAL before its page.
const FRAME_HEADER: u64 = 24;
const BUSY: Duration = Duration::from_secs(5);
/// Connections kept for the next snapshot: one is held while the next is taken.
const POOLED: usize = 2;
const BETWEEN_TRIES: Duration = Duration::from_micros(50);
/// How often a file that is given up is asked to take its last commits, and the pause between two tries.
const LAST_TRIES: u32 = 20;
const BETWEEN_LAST_TRIES: Duration = Duration::from_millis(50);
/// The mode with which SQLite creates files.
const MODE: u32 = 0o644;

/// See the module. Fields are dropped in order: connections first, then descriptors.
#[derive(Debug)]
pub struct SourceFiles {
    reads: Mutex<Reads>,
    ended: AtomicBool,
    syncs: AtomicU64,
    /// Open until the file is given up: SQLite keeps the WAL and the wal-index.
    resident: Mutex<Option<Connection>>,
    path: Arc<PathBuf>,
    read_only: bool,
    /// See [`SourceFiles::is_immutable`].
    immutable: bool,
    main: Descriptor,
    id: FileId,
    /// `None` when the database cannot be written and is not in WAL mode: then nobody changes it while it is open here.
    wal: Option<(Descriptor, WalIndex)>,
}

/// Where the wal-index is.
#[derive(Debug)]
enum WalIndex {
    /// In the file beside the WAL.
    File(Descriptor),
    /// In memory, and the main file lacks pages.
    Of(PartialFile),
}

/// The connections of read transactions.
#[derive(Debug, Default)]
struct Reads {
    /// For the next ones.
    pool: Vec<Connection>,
    /// Those that are open, by a number of their own.
    open: HashMap<u64, Connection>,
    begun: u64,
}

/// What the path leads to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file that is open.
    Same,
    /// Another file.
    Other,
    /// No file, or the beginning of one that is being copied.
    Missing {
        /// The file that is open has no name any more.
        deleted: bool,
    },
}

/// What identifies the content of the main file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Inode.
    pub inode: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified: i128,
    /// Last change of the content or the inode, in nanoseconds since 1970.
    pub changed: i128,
}

impl SourceFiles {
    /// Opens a database, creates it if it is missing, and puts it into WAL mode if it can be written.
    pub fn open(path: &Path) -> Result<Arc<Self>, ServerError> {
        let bad = |source| ServerError::Open {
            path: path.to_owned(),
            source,
        };
        let io = |operation| {
            move |source| ServerError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            // Opening a pipe would wait for who writes to it.
            return Err(ServerError::BadPath {
                path: path.to_owned(),
                reason: "it is not a file".to_owned(),
            });
        }
        let open = |path: &Path| Descriptor::open(path).map_err(io("opened"));
        // Not by SQLite, so that all that is opened can be shown to be of one file. An empty file is an empty database.
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(path);
        drop(created);
        let main = open(path)?;
        let meta = main.file().metadata().map_err(io("read"))?;
        let id = FileId::of(&meta);
        if meta.nlink() > 1 {
            // SQLite would give it a WAL for each of its names, in whatever folders they are, and who serves it a lock and a history.
            return Err(ServerError::TwoNames {
                path: path.to_owned(),
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut resident = Connection::open_with_flags(path, flags)
            .or_else(|_| Connection::open_with_flags(path, read_flags()))
            .map_err(bad)?;
        resident.busy_timeout(BUSY).map_err(bad)?;
        let mut read_only = resident.is_readonly("main").map_err(bad)?;
        let mut mode = journal_mode(&resident, read_only);
        let is_refused = mode
            .as_ref()
            .is_err_and(|error| error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly));
        if is_refused && !read_only {
            // The file could be written, and nothing can be made beside it.
            resident = Connection::open_with_flags(path, read_flags()).map_err(bad)?;
            resident.busy_timeout(BUSY).map_err(bad)?;
            read_only = true;
            mode = journal_mode(&resident, read_only);
        }
        let in_wal = match mode {
            Ok(mode) if mode == "wal" => start_reading(&resident).is_ok(),
            Ok(_) if read_only => false,
            Ok(mode) => {
                let path = path.to_owned();
                return Err(ServerError::NotWal { path, mode });
            }
            Err(_) if read_only => false,
            Err(source) => return Err(bad(source)),
        };
        if !in_wal && !read_only {
            start_reading(&resident).map_err(bad)?;
        }
        let mut immutable = false;
        if !in_wal {
            // Nobody can write here, so holding the shared lock for good disturbs nobody, and keeps out who can.
            if resident
                .execute_batch("BEGIN")
                .and_then(|()| start_reading(&resident))
                .is_err()
            {
                // An immutable database is read without its WAL.
                if std::fs::metadata(side_file_path(path, "-wal")).is_ok_and(|wal| wal.len() > 0) {
                    return Err(ServerError::BadPath {
                        path: path.to_owned(),
                        reason: "it cannot be written, and commits are waiting in its WAL: open it once with SQLite \
                                 where it can be written, or serve a copy"
                            .to_owned(),
                    });
                }
                resident = Connection::open_with_flags(as_immutable(path), read_flags()).map_err(bad)?;
                start_reading(&resident).map_err(bad)?;
                immutable = true;
            }
        }
        let wal = match in_wal {
            true => Some((
                open(&side_file_path(path, "-wal"))?,
                WalIndex::File(open(&side_file_path(path, "-shm"))?),
            )),
            false => None,
        };
        let this = Self {
            reads: Mutex::default(),
            ended: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            resident: Mutex::new(Some(resident)),
            path: Arc::new(path.to_owned()),
            read_only,
            immutable,
            main,
            id,
            wal,
        };
        // SQLite opens the WAL by its name, when it is first read: until then the file may have been replaced.
        if let Err(error) = this.check_in_place() {
            this.leave()?;
            return Err(error);
        }
        Ok(Arc::new(this))
    }

    /// A file that lacks pages, which nobody else opens.
    pub(crate) fn open_partial(file: PartialFile) -> Result<Arc<Self>, ServerError> {
        let path = file.replica().name().to_owned();
        let io = |source| ServerError::Io {
            operation: "opened",
            path: path.clone(),
            source,
        };
        let sqlite = |source| ServerError::Open {
            path: path.clone(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let resident = Connection::open_with_flags_and_vfs(&path, flags, VFS_NAME).map_err(sqlite)?;
        resident
            .busy_timeout(BUSY)
            .and_then(|()| start_reading(&resident))
            .map_err(sqlite)?;
        let main = Descriptor::open(&path).map_err(io)?;
        let id = FileId::of(&main.file().metadata().map_err(io)?);
        let wal = Descriptor::open(&Replica::wal_path(&path)).map_err(io)?;
        Ok(Arc::new(Self {
            reads: Mutex::default(),
            ended: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            resident: Mutex::new(Some(resident)),
            path: Arc::new(path),
            read_only: false,
            immutable: false,
            main,
            id,
            wal: Some((wal, WalIndex::Of(file))),
        }))
    }

    /// The main file, if it lacks pages.
    fn partial(&self) -> Option<&PartialFile> {
        match &self.wal {
            Some((_, WalIndex::Of(partial))) => Some(partial),
            _ => None,
        }
    }

    /// The database file.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    /// The file cannot be written.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// SQLite cannot open it as it is, because it cannot make what it needs beside it: its pages are read as those of a file that
    /// nobody changes, and SQL cannot be run on it.
    pub fn is_immutable(&self) -> bool {
        self.immutable
    }

    /// The wal-index header as it is now; `None` while somebody writes it.
    pub fn header(&self) -> Result<Option<WalIndexHeader>, ServerError> {
        match &self.wal {
            Some((_, WalIndex::File(shm))) => {
                WalIndexHeader::read(shm.file()).map_err(|e| self.io("read", e))
            }
            Some((_, WalIndex::Of(partial))) => {
                let head = partial.replica().wal_index_head();
                Ok(head.and_then(|head| WalIndexHeader::of_head(&head)))
            }
            None => Ok(Some(WalIndexHeader::STILL)),
        }
    }

    /// How many frames of the WAL are in the main file; see [`WalIndexHeader::read_backfill`].
    pub fn backfill(&self) -> Result<u32, ServerError> {
        match &self.wal {
            Some((_, WalIndex::File(shm))) => {
                WalIndexHeader::read_backfill(shm.file()).map_err(|e| self.io("read", e))
            }
            Some((_, WalIndex::Of(partial))) => {
                let head = partial.replica().wal_index_head();
                Ok(head.map_or(0, |head| WalIndexHeader::backfill_of_head(&head)))
            }
            None => Ok(0),
        }
    }

    /// Bytes of commits in the WAL, if not all of them are in the main file too.
    pub fn wal_bytes(&self) -> u64 {
        // Where it cannot be told now, it can be the next time.
        let (Ok(Some(header)), Ok(backfill)) = (self.header(), self.backfill()) else {
            return 0;
        };
        match header.page_size() {
            Some(size) if header.max_frame() > backfill => {
                u64::from(header.max_frame()) * (size.as_usize() as u64 + FRAME_HEADER)
            }
            _ => 0,
        }
    }

    /// The WAL, for frames that a snapshot covers.
    pub(super) fn wal(&self) -> Option<&std::fs::File> {
        self.wal.as_ref().map(|(wal, _)| wal.file())
    }

    /// The main file, unless it lacks pages.
    pub(super) fn whole(&self) -> Option<&std::fs::File> {
        self.partial().is_none().then(|| self.main.file())
    }

    /// Reads a page of the main file; what is beyond its end is zero, as SQLite has it.
    pub(super) fn read_main(&self, page: PageNo, size: PageSize) -> Result<Vec<u8>, ServerError> {
        match self.partial() {
            Some(partial) => partial
                .replica()
                .read_page(page)
                .map_err(|e| self.io("read", std::io::Error::other(e))),
            None => self.read_whole(page, size).map_err(|e| self.io("read", e)),
        }
    }

    /// The same; `None` if the page is not here.
    pub(super) fn read_main_here(
        &self,
        page: PageNo,
        size: PageSize,
    ) -> Result<Option<Vec<u8>>, ServerError> {
        let read = match self.partial() {
            Some(partial) => partial.replica().read_present(page),
            None => self.read_whole(page, size).map(Some),
        };
        read.map_err(|e| self.io("read", e))
    }

    fn read_whole(&self, page: PageNo, size: PageSize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; size.as_usize()];
        let (mut to, mut at) = (&mut *bytes, page.offset(size));
        while !to.is_empty() {
            match self.main.file().read_at(to, at) {
                Ok(0) => break,
                Ok(n) => {
                    to = &mut to[n..];
                    at += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bytes)
    }

    /// Pages of the main file.
    pub(super) fn pages(&self, size: PageSize) -> Result<PageCount, ServerError> {
        if let Some(partial) = self.partial() {
            return Ok(partial.pages());
        }
        let meta = self.main.file().metadata().map_err(|e| self.io("read", e))?;
        Ok(PageCount(
            u32::try_from(size.pages_for(meta.len())).unwrap_or(u32::MAX - 1),
        ))
    }

    /// All commits up to a state are in the main file, and everybody who reads it is at that state.
    pub(super) fn all_is_in_main(&self, at: RevisionRecord) {
        if let Some(partial) = self.partial() {
            partial.all_is_in_file(at);
        }
    }

    /// The page size in the main file's header; the default for a file that is still empty.
    pub(super) fn page_size(&self) -> Result<PageSize, ServerError> {
        if let Some(partial) = self.partial() {
            return Ok(partial.replica().page_size());
        }
        let mut header = [0; HEADER_LEN];
        match self.main.file().read_exact_at(&mut header, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(PageSize::DEFAULT),
            Err(e) => return Err(self.io("read", e)),
        }
        stated_page_size(&header)
            .unwrap_or(Ok(PageSize::DEFAULT))
            .map_err(|e| ServerError::BadPath {
                path: self.path.as_ref().clone(),
                reason: e.to_string(),
            })
    }

    /// What tells it from others, whatever its name.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Fails if the path leads to another file now. SQLite opens by path: new connections would write into that file through
    /// the WAL of this one.
    pub fn check_in_place(&self) -> Result<(), ServerError> {
        match FileId::at(&self.path) {
            Ok(found) if found == self.id => Ok(()),
            _ => Err(self.replaced()),
        }
    }

    /// Makes the commits that are in the WAL survive a power cut.
    pub fn sync(&self) -> std::io::Result<()> {
        // What a file that lacks pages has alone is not needed after this process.
        let Some((wal, WalIndex::File(_))) = &self.wal else {
            return Ok(());
        };
        self.syncs.fetch_add(1, Relaxed);
        wal.file().sync_data()
    }

    /// How often that was done.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Relaxed)
    }

    /// What the path leads to now.
    pub fn place(&self) -> Place {
        match std::fs::metadata(self.path.as_path()) {
            Ok(found) if FileId::of(&found) == self.id => Place::Same,
            Ok(found) if may_be_database(&found) => Place::Other,
            _ => Place::Missing {
                deleted: self.is_deleted(),
            },
        }
    }

    /// Ends all reading for good: read transactions that are open keep nothing from being overwritten any more, and what is
    /// read is refused.
    pub fn end(&self) {
        self.ended.store(true, SeqCst);
        let reads = std::mem::take(&mut *self.reads.lock());
        // Closed without the lock.
        drop(reads);
    }

    /// Fails after [`SourceFiles::end`]. What was read before this succeeds was read rightly.
    pub fn check_open(&self) -> Result<(), ServerError> {
        match self.ended.load(SeqCst) {
            false => Ok(()),
            true => Err(self.replaced()),
        }
    }

    /// Takes all commits into the file, when reading has ended and other connections of this process are closed: it may be somewhere else
    /// by now, and be opened there without its WAL. Says whether that was all.
    pub fn complete(&self) -> bool {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.checkpoint() {
                Ok(true) => break,
                _ if self.is_deleted() => return true,
                // Another process reads what was there before.
                _ if tries < LAST_TRIES => std::thread::sleep(BETWEEN_LAST_TRIES),
                _ => return false,
            }
        }
        if let Some(resident) = &*self.resident.lock() {
            // Another file that comes to this path would be read through what is left there. Where others read it, it stays.
            let emptied = resident
                .busy_timeout(Duration::ZERO)
                .and_then(|()| resident.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
            if let Err(error) = emptied {
                tracing::debug!(path = %self.path.display(), %error, "the WAL is not emptied");
            }
        }
        true
    }

    /// Gives up the file, when the path leads elsewhere, reading has ended and other connections of this process are closed. It may live on
    /// under another name, and gets all its commits; nothing of it stays beside what is in its place, where SQLite would take
    /// its WAL for the other's.
    pub fn leave(&self) -> Result<(), ServerError> {
        let Some((wal, WalIndex::File(shm))) = &self.wal else {
            return Ok(());
        };
        let complete = self.resident.lock().is_some() && self.complete();
        if let Some(resident) = self.resident.lock().take() {
            // SQLite would remove the files of these names, whose they may be then.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            let kept = resident.set_db_config(keep, true);
            kept.map_err(|e| self.sqlite(e))?;
        }
        for (ours, suffix) in [(wal, "-wal"), (shm, "-shm")] {
            let path = side_file_path(&self.path, suffix);
            let ours = ours.file().metadata().map(|meta| FileId::of(&meta));
            if !ours.is_ok_and(|ours| FileId::at(&path).is_ok_and(|found| found == ours)) {
                continue;
            }
            let gone = match suffix {
                "-wal" if !complete => self.set_aside(&path),
                _ => std::fs::remove_file(&path),
            };
            gone.map_err(|e| self.io("moved out of the way", e))?;
        }
        Ok(())
    }

    /// Takes all commits into the file, and its WAL away, after which the file alone is the database. Fails while anybody else
    /// has it open.
    pub fn fold(&self) -> Result<(), ServerError> {
        self.check_in_place()?;
        if self.wal.is_none() {
            return Ok(());
        }
        let resident = self.resident.lock();
        let resident = resident.as_ref().ok_or_else(|| self.replaced())?;
        let mode = resident.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get::<_, String>(0));
        let open_elsewhere = || ServerError::OpenElsewhere {
            path: self.path.as_ref().clone(),
        };
        match mode {
            Ok(mode) if mode == "delete" => Ok(()),
            Ok(_) => Err(open_elsewhere()),
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                Err(open_elsewhere())
            }
            Err(e) => Err(self.sqlite(e)),
        }
    }

    /// Keeps the WAL of a file that has not all its commits.
    fn set_aside(&self, wal: &Path) -> std::io::Result<()> {
        let inode = self.main.file().metadata()?.ino();
        let aside = set_aside(&self.path, inode);
        std::fs::rename(wal, &aside)?;
        tracing::error!(
            path = %self.path.display(), wal = %aside.display(),
            "the file that was replaced lacks its last commits, because another program reads it: before it is opened, \
             give this WAL the name of that file and `-wal`"
        );
        Ok(())
    }

    fn is_deleted(&self) -> bool {
        self.main.file().metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// A connection to this file and no other: one that was opened by its path may be to what has taken its place, and
    /// must not read then, because it would do so through the WAL of this one; and when it reads first, it opens by its name
    /// what may be the WAL of the other.
    fn connect(&self, flags: OpenFlags) -> Result<Connection, ServerError> {
        let connection = match self.partial() {
            Some(_) => Connection::open_with_flags_and_vfs(self.path.as_path(), flags, VFS_NAME),
            None => Connection::open_with_flags(self.path.as_path(), flags),
        };
        let connection = connection.map_err(|e| self.sqlite(e))?;
        self.check_in_place()?;
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .and_then(|_| connection.busy_timeout(BUSY))
            .and_then(|()| start_reading(&connection))
            .map_err(|e| self.sqlite(e))?;
        self.check_in_place()?;
        Ok(connection)
    }

    /// What the main file looks like from outside.
    pub fn stamp(&self) -> Result<FileStamp, ServerError> {
        let meta = self.main.file().metadata().map_err(|e| self.io("read", e))?;
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Ok(FileStamp {
            inode: meta.ino(),
            bytes: meta.size(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Copies what no reader needs from the WAL into the main file, without waiting for anybody. Says whether that was all:
    /// if not, the main file without the WAL is of no state.
    pub fn checkpoint(&self) -> Result<bool, ServerError> {
        let frames = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let resident = self.resident.lock();
        let resident = resident.as_ref().ok_or_else(|| self.replaced())?;
        let done = resident.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], frames);
        let (in_wal, in_main) = done.map_err(|e| self.sqlite(e))?;
        Ok(in_wal == in_main)
    }

    /// Runs `work` while nobody can commit; `None` if the write lock is not to be had now.
    pub fn with_writers_waiting<T>(&self, work: impl FnOnce() -> T) -> Result<Option<T>, ServerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writer = self.connect(flags)?;
        // SQLite's own waiting sleeps for so long between two tries that a writer without pauses always wins.
        writer.busy_timeout(Duration::ZERO).map_err(|e| self.sqlite(e))?;
        let deadline = Instant::now() + BUSY;
        while writer.execute_batch("BEGIN IMMEDIATE").is_err() {
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        let done = work();
        writer.execute_batch("ROLLBACK").map_err(|e| self.sqlite(e))?;
        Ok(Some(done))
    }

    pub(super) fn io(&self, operation: &'static str, source: std::io::Error) -> ServerError {
        ServerError::Io {
            operation,
            path: self.path.as_ref().clone(),
            source,
        }
    }

    fn replaced(&self) -> ServerError {
        ServerError::Replaced {
            path: self.path.as_ref().clone(),
        }
    }

    fn sqlite(&self, source: rusqlite::Error) -> ServerError {
        ServerError::Sqlite {
            path: self.path.as_ref().clone(),
            source,
        }
    }
}

/// An open read transaction on a pooled connection; it ends when this is dropped, or with [`SourceFiles::end`].
#[derive(Debug)]
pub(super) struct ReadTransaction {
    number: u64,
    files: Arc<SourceFiles>,
}

impl ReadTransaction {
    /// Begins a read transaction that sees the state of this moment.
    pub(super) fn begin(files: &Arc<SourceFiles>) -> Result<Self, ServerError> {
        let pooled = files.reads.lock().pool.pop();
        let connection = match (pooled, &files.wal) {
            (Some(connection), _) => connection,
            (None, Some(_)) => files.connect(read_flags())?,
            // The resident connection holds the lock that matters; this connection is only a place in the pool.
            (None, None) => Connection::open_in_memory().map_err(|e| files.sqlite(e))?,
        };
        connection
            .execute_batch("BEGIN")
            .and_then(|()| start_reading(&connection))
            .map_err(|e| files.sqlite(e))?;
        let number = {
            let mut reads = files.reads.lock();
            // Under the lock: [`SourceFiles::end`] finds it.
            files.check_open()?;
            reads.begun += 1;
            let number = reads.begun;
            reads.open.insert(number, connection);
            number
        };
        Ok(Self {
            number,
            files: Arc::clone(files),
        })
    }
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        let Some(connection) = self.files.reads.lock().open.remove(&self.number) else {
            return;
        };
        // A connection that cannot end its transaction is closed instead, which ends it.
        if connection.execute_batch("COMMIT").is_err() {
            return;
        }
        let mut reads = self.files.reads.lock();
        if reads.pool.len() < POOLED && self.files.check_open().is_ok() {
            reads.pool.push(connection);
        }
    }
}

/// Whether a file may have taken the place of a database: one without a whole page is still being copied. SQLite would
/// take one of no or one byte for an empty database and write into it, and the rest of a page for zeros; that whole pages
/// are missing it sees itself.
pub(crate) fn may_be_database(file: &std::fs::Metadata) -> bool {
    const SMALLEST_PAGE: u64 = 512;
    file.len() >= SMALLEST_PAGE && file.len().is_multiple_of(SMALLEST_PAGE)
}

/// Makes SQLite take its read lock. Reads the header only: no schema is parsed, so a database whose schema this SQLite
/// does not understand can be served.
fn start_reading(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))
}

/// The one it is in, or where it can be written, WAL mode.
fn journal_mode(connection: &Connection, read_only: bool) -> rusqlite::Result<String> {
    let pragma = if read_only {
        "PRAGMA journal_mode"
    } else {
        "PRAGMA journal_mode=WAL"
    };
    connection.query_row(pragma, [], |row| row.get(0))
}

fn read_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
}

/// A file that nobody changes, as SQLite opens it without its WAL.
pub(crate) fn as_immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}
