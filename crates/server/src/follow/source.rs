//! The files of one database that is being served: descriptors for positional reads, one SQLite connection that lives as
//! long as they do, and a pool of connections for read transactions.
//!
//! The resident connection keeps SQLite from deleting the WAL and the wal-index under the descriptors. Nothing here
//! writes to the database, except that opening puts it into WAL mode and [`SourceFiles::checkpoint`] moves the WAL's
//! pages into it.

use std::{
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use partial_sync_core::{
    PageSize,
    header::{HEADER_LEN, stated_page_size},
};
use partial_sync_vfs::side_file_path;
use rusqlite::{Connection, OpenFlags};

use super::{descriptors::Descriptor, header::WalIndexHeader};
use crate::{error::ServerError, file_id::FileId};

/// Bytes of a frame of the WAL before its page.
const FRAME_HEADER: u64 = 24;
const BUSY: Duration = Duration::from_secs(5);
/// Connections kept for the next snapshot: one is held while the next is taken.
const POOLED: usize = 2;
const BETWEEN_TRIES: Duration = Duration::from_micros(50);

/// See the module. Fields are dropped in order: connections first, then descriptors.
#[derive(Debug)]
pub struct SourceFiles {
    pool: Mutex<Vec<Connection>>,
    /// Open for as long as the files are: SQLite keeps the WAL and the wal-index.
    resident: Mutex<Connection>,
    path: Arc<PathBuf>,
    read_only: bool,
    main: Descriptor,
    id: FileId,
    /// `None` when the database cannot be written and is not in WAL mode: then nobody changes it while it is open here.
    wal: Option<(Descriptor, Descriptor)>,
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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut resident = Connection::open_with_flags(path, flags)
            .or_else(|_| Connection::open_with_flags(path, read_flags()))
            .map_err(bad)?;
        resident.busy_timeout(BUSY).map_err(bad)?;
        let read_only = resident.is_readonly("main").map_err(bad)?;
        let pragma = if read_only {
            "PRAGMA journal_mode"
        } else {
            "PRAGMA journal_mode=WAL"
        };
        let mode: rusqlite::Result<String> = resident.query_row(pragma, [], |row| row.get(0));
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
                resident = Connection::open_with_flags(immutable(path), read_flags()).map_err(bad)?;
                start_reading(&resident).map_err(bad)?;
            }
        }
        let open = |path: &Path| {
            Descriptor::open(path).map_err(|source| ServerError::Io {
                operation: "opened",
                path: path.to_owned(),
                source,
            })
        };
        let wal = match in_wal {
            true => Some((
                open(&side_file_path(path, "-wal"))?,
                open(&side_file_path(path, "-shm"))?,
            )),
            false => None,
        };
        let main = open(path)?;
        let id = main.file().metadata().map(|meta| FileId::of(&meta));
        let id = id.map_err(|source| ServerError::Io {
            operation: "read",
            path: path.to_owned(),
            source,
        })?;
        Ok(Arc::new(Self {
            pool: Mutex::default(),
            resident: Mutex::new(resident),
            path: Arc::new(path.to_owned()),
            read_only,
            main,
            id,
            wal,
        }))
    }

    /// The database file.
    pub fn path(&self) -> &Arc<PathBuf> {
        &self.path
    }

    /// The file cannot be written.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The wal-index header as it is now; `None` while somebody writes it.
    pub fn header(&self) -> Result<Option<WalIndexHeader>, ServerError> {
        match &self.wal {
            Some((_, shm)) => WalIndexHeader::read(shm.file()).map_err(|e| self.io("read", e)),
            None => Ok(Some(WalIndexHeader::STILL)),
        }
    }

    /// How many frames of the WAL are in the main file; see [`WalIndexHeader::read_backfill`].
    pub fn backfill(&self) -> Result<u32, ServerError> {
        match &self.wal {
            Some((_, shm)) => WalIndexHeader::read_backfill(shm.file()).map_err(|e| self.io("read", e)),
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

    /// The main file.
    pub(super) fn main(&self) -> &std::fs::File {
        self.main.file()
    }

    /// The page size in the main file's header; the default for a file that is still empty.
    pub(super) fn page_size(&self) -> Result<PageSize, ServerError> {
        let mut header = [0; HEADER_LEN];
        match self.main().read_exact_at(&mut header, 0) {
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

    /// Fails if the path leads to another file now. SQLite opens by path: new connections would write into that file through
    /// the WAL of this one.
    pub fn check_in_place(&self) -> Result<(), ServerError> {
        match FileId::at(&self.path) {
            Ok(found) if found == self.id => Ok(()),
            _ => Err(ServerError::Replaced {
                path: self.path.as_ref().clone(),
            }),
        }
    }

    /// What the path leads to now.
    pub fn place(&self) -> Place {
        match std::fs::metadata(self.path.as_path()) {
            Ok(found) if FileId::of(&found) == self.id => Place::Same,
            Ok(found) if may_be_database(&found) => Place::Other,
            _ => Place::Missing {
                deleted: self.main().metadata().is_ok_and(|meta| meta.nlink() == 0),
            },
        }
    }

    /// Removes the WAL and the wal-index beside a file that has taken this one's place, if they are still those of this
    /// one: SQLite would take them for the other's.
    pub fn remove_side_files(&self) {
        let Some((wal, shm)) = &self.wal else { return };
        for (ours, suffix) in [(wal, "-wal"), (shm, "-shm")] {
            let path = side_file_path(&self.path, suffix);
            let ours = ours.file().metadata().map(|meta| FileId::of(&meta));
            if ours.is_ok_and(|ours| FileId::at(&path).is_ok_and(|found| found == ours))
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::error!(path = %path.display(), %error, "a file of the replaced database cannot be removed");
            }
        }
    }

    /// A connection to this file and no other: one that was opened by its path may be to what has taken its place, and
    /// must not read then, because it would do so through the WAL of this one.
    fn connect(&self, flags: OpenFlags) -> Result<Connection, ServerError> {
        let connection =
            Connection::open_with_flags(self.path.as_path(), flags).map_err(|e| self.sqlite(e))?;
        self.check_in_place()?;
        Ok(connection)
    }

    /// What the main file looks like from outside.
    pub fn stamp(&self) -> Result<FileStamp, ServerError> {
        let meta = self.main().metadata().map_err(|e| self.io("read", e))?;
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Ok(FileStamp {
            inode: meta.ino(),
            bytes: meta.size(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Copies what no reader needs from the WAL into the main file, without waiting for anybody.
    pub fn checkpoint(&self) -> Result<(), ServerError> {
        self.resident
            .lock()
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(|e| self.sqlite(e))
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

    fn sqlite(&self, source: rusqlite::Error) -> ServerError {
        ServerError::Sqlite {
            path: self.path.as_ref().clone(),
            source,
        }
    }
}

/// An open read transaction on a pooled connection; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ReadTransaction {
    /// Never used while the transaction is open; the mutex makes that known to the compiler.
    connection: Mutex<Option<Connection>>,
    files: Arc<SourceFiles>,
}

impl ReadTransaction {
    /// Begins a read transaction that sees the state of this moment.
    pub(super) fn begin(files: &Arc<SourceFiles>) -> Result<Self, ServerError> {
        let connection = match files.pool.lock().pop() {
            Some(connection) => connection,
            None => {
                let connection = match files.wal {
                    Some(_) => files.connect(read_flags())?,
                    // The resident connection holds the lock that matters; this connection is only a place in the pool.
                    None => Connection::open_in_memory().map_err(|e| files.sqlite(e))?,
                };
                connection.busy_timeout(BUSY).map_err(|e| files.sqlite(e))?;
                connection
            }
        };
        let begun = connection
            .execute_batch("BEGIN")
            .and_then(|()| start_reading(&connection));
        let this = Self {
            connection: Mutex::new(Some(connection)),
            files: Arc::clone(files),
        };
        begun.map_err(|e| files.sqlite(e))?;
        Ok(this)
    }
}

impl Drop for ReadTransaction {
    fn drop(&mut self) {
        let Some(connection) = self.connection.get_mut().take() else {
            return;
        };
        // A connection that cannot end its transaction is closed instead, which ends it.
        if connection.execute_batch("COMMIT").is_err() {
            return;
        }
        let mut pool = self.files.pool.lock();
        if pool.len() < POOLED {
            pool.push(connection);
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

fn read_flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI
}

fn immutable(path: &Path) -> String {
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
