//! The file of the page history, and its connections: one writes, reads take others from a pool.
//!
//! synchronous=FULL: a revision that a client has seen survives a power cut, so that its number never comes to mean
//! another state; nor does it when this file is restored from a backup, because the numbers leap at every start.

use std::{
    any::Any,
    fs::Permissions,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use partial_sync_vfs::{Replica, Storage, VFS_NAME, side_file_path};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::tables;
use crate::{error::HistoryError, file_id::FileId};

/// Connections that read at the same time; others wait.
const MOST_READERS: usize = 8;
/// Connections that are kept for the next read.
const IDLE_READERS: usize = 2;

/// See the module.
pub(super) struct Store {
    /// `None` = in memory: the one connection writes and reads.
    path: Option<PathBuf>,
    /// The file, its WAL and its wal-index; empty when it is in memory or in a storage.
    ids: Vec<(PathBuf, FileId)>,
    writer: Mutex<Connection>,
    readers: Mutex<Readers>,
    /// A reader is done.
    reader_done: Condvar,
    /// The files, where they are not SQLite's own business. Behind the connections, which are closed first.
    files: Option<Files>,
}

/// The connections that read.
#[derive(Default)]
struct Readers {
    idle: Vec<Connection>,
    /// Those that are reading.
    busy: usize,
}

/// The history's files in a [`Storage`].
struct Files {
    database: Arc<Replica>,
    _lock: Box<dyn Any + Send + Sync>,
}

impl Store {
    /// Opens the history of the database at `database`, or makes an empty one; a file that is damaged or of another
    /// format is replaced by an empty one.
    pub(super) fn open(database: &Path) -> Result<Self, HistoryError> {
        let path = side_file_path(database, "-history");
        keep_private(&path, database)?;
        let connection = match Self::connect(&path, None) {
            Ok(connection) => connection,
            Err(e) if is_damage(&e) => {
                tracing::warn!(path = %path.display(), error = %e, "the page history cannot be used; starting a new one");
                for suffix in ["", "-wal", "-shm"] {
                    // What cannot be removed shows when it is opened again.
                    let _ = std::fs::remove_file(side_file_path(&path, suffix));
                }
                keep_private(&path, database)?;
                Self::connect(&path, None)?
            }
            Err(e) => return Err(e),
        };
        let ids = ["", "-wal", "-shm"].map(|suffix| {
            let path = side_file_path(&path, suffix);
            let id = FileId::at(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => HistoryError::Moved,
                _ => error.into(),
            });
            Ok((path, id?))
        });
        Ok(Self {
            ids: ids.into_iter().collect::<Result<_, HistoryError>>()?,
            ..Self::of(connection, Some(path))
        })
    }

    /// A history that is gone with the process, for where no file can be written.
    pub(super) fn in_memory() -> Result<Self, HistoryError> {
        let connection = Connection::open_in_memory()?;
        tables::make(&connection)?;
        Ok(Self::of(connection, None))
    }

    /// The same with every file operation going through `storage`. One process at a time; a damaged file is an error.
    pub(super) fn open_in(storage: Arc<dyn Storage>, database: &Path) -> Result<Self, HistoryError> {
        let path = side_file_path(database, "-history");
        storage.open(&path, true)?;
        let lock = storage.lock(&path)?;
        let files = Files {
            database: Replica::register_whole(storage, path.clone())?,
            _lock: lock,
        };
        let connection = Self::connect(&path, Some(&files))?;
        Ok(Self {
            files: Some(files),
            ..Self::of(connection, Some(path))
        })
    }

    fn of(writer: Connection, path: Option<PathBuf>) -> Self {
        Self {
            path,
            ids: Vec::new(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            files: None,
        }
    }

    fn connection(path: &Path, files: Option<&Files>) -> Result<Connection, HistoryError> {
        let connection = match files {
            None => Connection::open(path)?,
            Some(files) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags_and_vfs(files.database.name(), flags, VFS_NAME)?
            }
        };
        Ok(connection)
    }

    fn connect(path: &Path, files: Option<&Files>) -> Result<Connection, HistoryError> {
        let connection = Self::tune(Self::connection(path, files)?)?;
        connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;")?;
        tables::make(&connection)?;
        Ok(connection)
    }

    fn tune(connection: Connection) -> Result<Connection, HistoryError> {
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA cache_size=-4096; PRAGMA foreign_keys=OFF; PRAGMA temp_store=FILE;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }

    /// The connection that writes.
    pub(super) fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock()
    }

    /// Whether the file is still where it was.
    pub(super) fn is_in_place(&self) -> bool {
        let main = self.ids.first();
        main.is_none_or(|(path, id)| FileId::at(path).is_ok_and(|found| found == *id))
    }

    /// Ends the life of what is in the file.
    pub(super) fn forget(&self) -> Result<(), HistoryError> {
        if self.is_in_place() {
            self.writer()
                .execute("DELETE FROM meta WHERE key = 'generation'", [])?;
            return Ok(());
        }
        // The file is gone already. SQLite would take what is left beside it for the next one's.
        for (path, id) in self.ids.iter().skip(1) {
            if FileId::at(path).is_ok_and(|found| found == *id) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes the file. Nothing is written for it: the disk may be full.
    pub(super) fn remove(&self) -> Result<(), HistoryError> {
        let (Some(path), None) = (&self.path, &self.files) else {
            // In a storage, the file is its own business.
            return self.forget();
        };
        // The file first: what is left beside it without it is nothing to SQLite.
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match std::fs::remove_file(side_file_path(path, suffix)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Where it is, for messages.
    pub(super) fn place(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "memory".to_owned(),
        }
    }

    /// Runs `work` in one read transaction.
    pub(super) fn reading<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, HistoryError>,
    ) -> Result<T, HistoryError> {
        let Some(path) = &self.path else {
            return work(&self.writer.lock());
        };
        let turn = ReaderTurn::begin(self);
        let mut connection = match turn.idle() {
            Some(connection) => connection,
            None => {
                let connection = Self::connection(path, self.files.as_ref())?;
                // Before anything is read: another file would be read through the WAL of this one.
                if !self.is_in_place() {
                    return Err(HistoryError::Moved);
                }
                Self::tune(connection)?
            }
        };
        let transaction = connection.transaction()?;
        let done = work(&transaction);
        transaction.finish()?;
        turn.give_back(connection);
        done
    }
}

/// The right to read with one connection.
struct ReaderTurn<'h>(&'h Store);

impl<'h> ReaderTurn<'h> {
    /// Waits until fewer than the most are reading.
    fn begin(history: &'h Store) -> Self {
        let mut readers = history.readers.lock();
        while readers.busy >= MOST_READERS {
            history.reader_done.wait(&mut readers);
        }
        readers.busy += 1;
        Self(history)
    }

    fn idle(&self) -> Option<Connection> {
        self.0.readers.lock().idle.pop()
    }

    fn give_back(self, connection: Connection) {
        let mut readers = self.0.readers.lock();
        if readers.idle.len() < IDLE_READERS {
            readers.idle.push(connection);
        }
    }
}

impl Drop for ReaderTurn<'_> {
    fn drop(&mut self) {
        self.0.readers.lock().busy -= 1;
        self.0.reader_done.notify_one();
    }
}

/// The history has pages of the database: those who may not read the database may not read it either. A new file gets the database's mode,
/// and SQLite gives it to the WAL; of an old one, and what was left beside it, what the database does not allow is taken away.
fn keep_private(path: &Path, database: &Path) -> Result<(), HistoryError> {
    let Ok(allowed) = std::fs::metadata(database).map(|it| it.permissions().mode() & 0o666) else {
        return Ok(());
    };
    let mut new = std::fs::OpenOptions::new();
    let new = new.write(true).create_new(true).mode(0o600).open(path);
    let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode));
    if new.is_ok() {
        return Ok(set(path, allowed)?);
    }
    // What cannot be made now shows when it is opened.
    for suffix in ["", "-wal", "-shm"] {
        let path = side_file_path(path, suffix);
        let Ok(mode) = std::fs::metadata(&path).map(|it| it.permissions().mode() & 0o777) else {
            continue;
        };
        if mode & !allowed != 0
            && let Err(error) = set(&path, mode & allowed)
        {
            tracing::warn!(path = %path.display(), %error, "others can read the page history, but not the database");
        }
    }
    Ok(())
}

fn is_damage(error: &HistoryError) -> bool {
    match error {
        HistoryError::Damaged(_) => true,
        HistoryError::Sqlite(e) => {
            matches!(e.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
                // A table of that name with other columns.
                || matches!(e, rusqlite::Error::SqliteFailure(f, _) if f.extended_code == 1)
                || matches!(e, rusqlite::Error::SqlInputError { .. })
        }
        _ => false,
    }
}
