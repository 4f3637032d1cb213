//! The page history in a SQLite file of its own, by default beside the database with `-history` after its name.
//!
//! ```text
//! meta(key, value)                        format, generation, page_size, position, position_seq
//! revisions(seq, time, db_size, bytes, lost)   the kept revisions; the lowest seq is the oldest that can be asked for
//! preimages(id, page, seq, data)          what `page` was before revision `seq`: its bytes, compressed when that makes
//!                                         them fewer; NULL when it was not there, or lost (revisions.lost)
//! hashes(page, hash)                      the pages of the latest revision
//! ```
//! synchronous=FULL: a revision that a client has seen survives a power cut, so that its number never comes to mean
//! another state; nor does it when this file is restored from a backup, because the numbers leap at every start. One
//! connection writes; reads take others from a pool.

use std::{
    any::Any,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_vfs::{Replica, Storage, VFS_NAME, side_file_path};
use roaring::RoaringBitmap;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{
    api::{Before, Changes, History, HistorySize, Kept, Position, Pruned, Retention},
    revision::{Generation, RevisionRecord, Seq},
};
use crate::{error::HistoryError, file_id::FileId};

const FORMAT: i64 = 1;
const PRUNE_STEP: u32 = 512;
/// Connections that read at the same time; others wait.
const MOST_READERS: usize = 8;
/// Connections that are kept for the next read.
const IDLE_READERS: usize = 2;
const COMPRESSION: i32 = 1;
/// Far more than the revisions that a server makes between two starts; half a million leaps fit into a number.
const LONGEST_LEAP: u64 = 1 << 44;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS revisions(
        seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, db_size INTEGER NOT NULL,
        bytes INTEGER NOT NULL, lost INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS revisions_by_time ON revisions(time);
    CREATE INDEX IF NOT EXISTS revisions_lost ON revisions(seq) WHERE lost;
    CREATE TABLE IF NOT EXISTS preimages(
        id INTEGER PRIMARY KEY, page INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB);
    CREATE UNIQUE INDEX IF NOT EXISTS preimages_by_page ON preimages(page, seq);
    CREATE INDEX IF NOT EXISTS preimages_by_seq ON preimages(seq, page);
    CREATE TABLE IF NOT EXISTS hashes(page INTEGER PRIMARY KEY, hash INTEGER NOT NULL);
";

/// See the module.
pub struct SqliteHistory {
    /// `None` = in memory: the one connection writes and reads.
    path: Option<PathBuf>,
    /// The file, its WAL and its wal-index; empty when it is in memory or in a storage.
    ids: Vec<(PathBuf, FileId)>,
    writer: Mutex<Connection>,
    readers: Mutex<Readers>,
    /// A reader is done.
    reader_done: Condvar,
    /// Numbers that the next revision leaves out.
    leap: AtomicU64,
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

impl std::fmt::Debug for SqliteHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteHistory")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteHistory {
    /// Opens the history of the database at `database`, or makes an empty one; a file that is damaged or of another
    /// format is replaced by an empty one.
    pub fn open(database: &Path) -> Result<Self, HistoryError> {
        let path = side_file_path(database, "-history");
        let connection = match Self::connect(&path, None) {
            Ok(connection) => connection,
            Err(e) if is_damage(&e) => {
                tracing::warn!(path = %path.display(), error = %e, "the page history cannot be used; starting a new one");
                for suffix in ["", "-wal", "-shm"] {
                    // What cannot be removed shows when it is opened again.
                    let _ = std::fs::remove_file(side_file_path(&path, suffix));
                }
                Self::connect(&path, None)?
            }
            Err(e) => return Err(e),
        };
        let ids = ["", "-wal", "-shm"].map(|suffix| {
            let path = side_file_path(&path, suffix);
            FileId::at(&path).map(|id| (path, id))
        });
        Ok(Self {
            ids: ids.into_iter().collect::<Result<_, _>>()?,
            path: Some(path),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            leap: AtomicU64::default(),
            files: None,
        })
    }

    /// A history that is gone with the process, for where no file can be written.
    pub fn in_memory() -> Result<Self, HistoryError> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self {
            path: None,
            ids: Vec::new(),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            leap: AtomicU64::default(),
            files: None,
        })
    }

    /// The same with every file operation going through `storage`. One process at a time; a damaged file is an error.
    pub fn open_in(storage: Arc<dyn Storage>, database: &Path) -> Result<Self, HistoryError> {
        let path = side_file_path(database, "-history");
        storage.open(&path, true)?;
        let lock = storage.lock(&path)?;
        let files = Files {
            database: Replica::register_whole(storage, path.clone())?,
            _lock: lock,
        };
        let connection = Self::connect(&path, Some(&files))?;
        Ok(Self {
            path: Some(path),
            ids: Vec::new(),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            leap: AtomicU64::default(),
            files: Some(files),
        })
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
        connection.execute_batch(SCHEMA)?;
        let format: Option<i64> = meta(&connection, "format")?;
        if format.is_some_and(|format| format != FORMAT) {
            return Err(HistoryError::Damaged(format!("its format is not {FORMAT}")));
        }
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

    /// Runs `work` in one read transaction.
    fn reading<T>(
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
struct ReaderTurn<'h>(&'h SqliteHistory);

impl<'h> ReaderTurn<'h> {
    /// Waits until fewer than the most are reading.
    fn begin(history: &'h SqliteHistory) -> Self {
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

impl History for SqliteHistory {
    fn generation(&self) -> Result<Option<(Generation, PageSize)>, HistoryError> {
        self.reading(|db| {
            let generation: Option<i64> = meta(db, "generation")?;
            let page_size: Option<u32> = meta(db, "page_size")?;
            Ok(generation
                .zip(page_size)
                .and_then(|(g, size)| Some((Generation(g as u64), PageSize::new(size).ok()?))))
        })
    }

    fn begin(
        &self,
        page_size: PageSize,
        db_size: PageCount,
        unix_ms: i64,
        hashes: &mut dyn Iterator<Item = Result<u64, HistoryError>>,
    ) -> Result<Generation, HistoryError> {
        let generation = Generation(fastrand::u64(1..));
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        db.execute_batch(
            "DELETE FROM meta; DELETE FROM revisions; DELETE FROM preimages; DELETE FROM hashes;",
        )?;
        set_meta(&db, "format", FORMAT)?;
        set_meta(&db, "generation", generation.0 as i64)?;
        set_meta(&db, "page_size", page_size.bytes())?;
        db.execute(
            "INSERT INTO revisions(seq, time, db_size, bytes, lost) VALUES (1, ?, ?, 0, 0)",
            params![unix_ms, db_size.0],
        )?;
        {
            let mut insert = db.prepare("INSERT INTO hashes(page, hash) VALUES (?, ?)")?;
            for (page, hash) in (1u32..).zip(hashes) {
                insert.execute(params![page, hash? as i64])?;
            }
        }
        db.commit()?;
        Ok(generation)
    }

    fn forget(&self) -> Result<(), HistoryError> {
        if self.is_in_place() {
            let writer = self.writer.lock();
            writer.execute("DELETE FROM meta WHERE key = 'generation'", [])?;
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

    fn is_in_place(&self) -> bool {
        let main = self.ids.first();
        main.is_none_or(|(path, id)| FileId::at(path).is_ok_and(|found| found == *id))
    }

    fn latest(&self) -> Result<RevisionRecord, HistoryError> {
        self.reading(latest)
    }

    fn leap(&self) {
        self.leap.store(fastrand::u64(1..LONGEST_LEAP), Relaxed);
    }

    fn record(
        &self,
        after: RevisionRecord,
        db_size: PageCount,
        unix_ms: i64,
        changes: &mut Changes<'_>,
    ) -> Result<Option<RevisionRecord>, HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = latest(&db)?;
        if found != after {
            return Err(HistoryError::Conflict {
                expected: after.seq,
                found: found.seq,
            });
        }
        let seq = Seq(after.seq.next().0 + self.leap.load(Relaxed));
        let (mut count, mut bytes, mut lost) = (0u64, 0u64, false);
        {
            let mut keep = db.prepare_cached("INSERT INTO preimages(page, seq, data) VALUES (?, ?, ?)")?;
            let mut hash = db.prepare_cached("REPLACE INTO hashes(page, hash) VALUES (?, ?)")?;
            let mut gone = db.prepare_cached("DELETE FROM hashes WHERE page = ?")?;
            let mut zstd = zstd::bulk::Compressor::new(COMPRESSION).map_err(damaged)?;
            for change in changes {
                let change = change?;
                let page = change.page.get();
                count += 1;
                let data = match &change.before {
                    Before::Page(page) => Some(squeeze(&mut zstd, page)),
                    Before::Absent => None,
                    Before::Lost => {
                        lost = true;
                        None
                    }
                };
                bytes += data.as_ref().map_or(0, |data| data.len() as u64);
                keep.execute(params![page, seq.0 as i64, data])?;
                match change.after {
                    Some(value) => hash.execute(params![page, value as i64])?,
                    None => gone.execute([page])?,
                };
            }
        }
        if count == 0 && db_size == after.db_size {
            return Ok(None);
        }
        db.execute(
            "INSERT INTO revisions(seq, time, db_size, bytes, lost) VALUES (?, ?, ?, ?, ?)",
            params![seq.0 as i64, unix_ms, db_size.0, bytes as i64, lost],
        )?;
        db.commit()?;
        self.leap.store(0, Relaxed);
        Ok(Some(RevisionRecord { seq, db_size }))
    }

    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        self.reading(|db| kept(db, seq))
    }

    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        self.reading(|db| {
            // In the same transaction as the look-ups: what is read below has not been pruned.
            kept(db, seq)?;
            let page_size: u32 = meta(db, "page_size")?.unwrap_or_default();
            let mut find = db.prepare_cached(
                "SELECT data FROM preimages WHERE page = ? AND seq > ? ORDER BY seq LIMIT 1",
            )?;
            let find = |page: &PageNo| {
                let found: Option<Option<Vec<u8>>> = find
                    .query_row(params![page.get(), seq.0 as i64], |row| row.get(0))
                    .optional()?;
                match found {
                    None => Ok(Kept::Unchanged),
                    Some(Some(data)) => unsqueeze(data, page_size as usize).map(Kept::Page),
                    Some(None) => Err(HistoryError::Lost { seq, page: *page }),
                }
            };
            pages.iter().map(find).collect()
        })
    }

    fn changed(&self, since: Seq, until: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.reading(|db| {
            kept(db, since)?;
            kept(db, until)?;
            pages(
                db,
                "SELECT page FROM preimages WHERE seq > ?1 AND seq <= ?2",
                (since.0 as i64, until.0 as i64),
            )
        })
    }

    fn lost(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.reading(|db| {
            let RevisionRecord { db_size, .. } = kept(db, seq)?;
            pages(
                db,
                "SELECT gone.page FROM revisions AS r CROSS JOIN preimages AS gone ON gone.seq = r.seq
                 WHERE r.seq > ?1 AND r.lost AND gone.data IS NULL AND gone.page <= ?2 AND NOT EXISTS (
                     SELECT 1 FROM preimages AS older
                     WHERE older.page = gone.page AND older.seq > ?1 AND older.seq < gone.seq)",
                (seq.0 as i64, i64::from(db_size.0)),
            )
        })
    }

    fn hashes(&self, from: PageNo, limit: u32) -> Result<Vec<u64>, HistoryError> {
        self.reading(|db| {
            let mut find =
                db.prepare_cached("SELECT hash FROM hashes WHERE page >= ? ORDER BY page LIMIT ?")?;
            let rows = find.query_map([from.get(), limit], |row| row.get::<_, i64>(0))?;
            rows.map(|hash| Ok(hash? as u64)).collect()
        })
    }

    fn position(&self) -> Result<Option<(Seq, Position)>, HistoryError> {
        self.reading(|db| {
            let seq: Option<i64> = meta(db, "position_seq")?;
            let position: Option<Vec<u8>> = meta(db, "position")?;
            Ok(seq.map(|seq| Seq(seq as u64)).zip(position))
        })
    }

    fn set_position(&self, seq: Seq, position: &Position) -> Result<(), HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set_meta(&db, "position_seq", seq.0 as i64)?;
        set_meta(&db, "position", position.as_slice())?;
        Ok(db.commit()?)
    }

    fn prune(&self, retention: &Retention, unix_ms: i64) -> Result<Pruned, HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let latest = latest(&db)?;
        let age = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
        // The revision before r was replaced at r's time. It goes when that was too long ago, or when it and the ones
        // after it need too many bytes.
        let by_age: Option<i64> = db.query_row(
            "SELECT max(seq) FROM revisions INDEXED BY revisions_by_time WHERE time < ?",
            [unix_ms.saturating_sub(age)],
            |row| row.get(0),
        )?;
        let by_bytes = too_many_bytes(&db, i64::try_from(retention.bytes).unwrap_or(i64::MAX))?;
        let oldest: i64 = db.query_row("SELECT min(seq) FROM revisions", [], |row| row.get(0))?;
        let oldest_kept = by_age
            .max(by_bytes)
            .unwrap_or(oldest)
            .clamp(oldest, latest.seq.0 as i64);
        db.execute("DELETE FROM revisions WHERE seq < ?", [oldest_kept])?;
        let gone = db.execute(
            "DELETE FROM preimages WHERE id IN (SELECT id FROM preimages WHERE seq <= ? LIMIT ?)",
            params![oldest_kept, PRUNE_STEP],
        )?;
        let more = gone == PRUNE_STEP as usize;
        if !more {
            db.execute(
                "UPDATE revisions SET bytes = 0, lost = 0 WHERE seq = ?",
                [oldest_kept],
            )?;
        }
        db.commit()?;
        if gone > 0 {
            let mut vacuum = writer.prepare_cached("PRAGMA incremental_vacuum(512)")?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(Pruned {
            more,
            early: by_bytes.is_some_and(|by_bytes| Some(by_bytes) > by_age && by_bytes > oldest),
        })
    }

    fn size(&self) -> Result<HistorySize, HistoryError> {
        self.reading(|db| {
            Ok(db.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0),
                     (SELECT time FROM revisions ORDER BY seq LIMIT 1) FROM revisions",
                [],
                |row| {
                    Ok(HistorySize {
                        revisions: row.get::<_, i64>(0)? as u64,
                        bytes: row.get::<_, i64>(1)? as u64,
                        oldest_unix_ms: row.get(2)?,
                    })
                },
            )?)
        })
    }

    fn place(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "memory".to_owned(),
        }
    }
}

/// The last revision that, with those after it, needs more bytes than this. Often asked, and mostly there is none.
fn too_many_bytes(db: &Connection, most: i64) -> Result<Option<i64>, HistoryError> {
    let mut find = db.prepare_cached("SELECT coalesce(sum(bytes), 0) FROM revisions")?;
    let mut left: i64 = find.query_row([], |row| row.get(0))?;
    let mut last = None;
    if left > most {
        let mut oldest = db.prepare_cached("SELECT seq, bytes FROM revisions ORDER BY seq")?;
        let mut rows = oldest.query([])?;
        while left > most
            && let Some(row) = rows.next()?
        {
            last = Some(row.get(0)?);
            left -= row.get::<_, i64>(1)?;
        }
    }
    Ok(last)
}

fn latest(db: &Connection) -> Result<RevisionRecord, HistoryError> {
    let mut find = db.prepare_cached("SELECT seq, db_size FROM revisions ORDER BY seq DESC LIMIT 1")?;
    Ok(find.query_row([], record_of)?)
}

fn kept(db: &Connection, seq: Seq) -> Result<RevisionRecord, HistoryError> {
    let Ok(wanted) = i64::try_from(seq.0) else {
        return Err(HistoryError::Unknown(seq));
    };
    let mut find = db.prepare_cached("SELECT seq, db_size FROM revisions WHERE seq = ?")?;
    match find.query_row([wanted], record_of).optional()? {
        Some(record) => Ok(record),
        None => {
            let oldest: i64 = db.query_row("SELECT min(seq) FROM revisions", [], |row| row.get(0))?;
            // A number that was left out was given out, if at all, by another copy of this history.
            Err(match wanted < oldest {
                true => HistoryError::Expired(seq),
                false => HistoryError::Unknown(seq),
            })
        }
    }
}

fn record_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<RevisionRecord> {
    Ok(RevisionRecord {
        seq: Seq(row.get::<_, i64>(0)? as u64),
        db_size: PageCount(row.get(1)?),
    })
}

fn pages(
    db: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<RoaringBitmap, HistoryError> {
    let mut find = db.prepare_cached(sql)?;
    let rows = find.query_map(parameters, |row| row.get::<_, u32>(0))?;
    rows.map(|page| Ok(page?)).collect()
}

fn meta<T: rusqlite::types::FromSql>(db: &Connection, key: &str) -> Result<Option<T>, HistoryError> {
    let mut find = db.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
    Ok(find.query_row([key], |row| row.get(0)).optional()?)
}

fn set_meta(db: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<(), HistoryError> {
    db.execute("REPLACE INTO meta(key, value) VALUES (?, ?)", params![key, value])?;
    Ok(())
}

/// Stored bytes are compressed exactly when they are fewer than a page.
fn squeeze(zstd: &mut zstd::bulk::Compressor<'_>, page: &Bytes) -> Vec<u8> {
    match zstd.compress(page) {
        Ok(small) if small.len() < page.len() => small,
        _ => page.to_vec(),
    }
}

fn unsqueeze(data: Vec<u8>, page_size: usize) -> Result<Bytes, HistoryError> {
    if data.len() == page_size {
        return Ok(data.into());
    }
    let page = zstd::bulk::decompress(&data, page_size).map_err(damaged)?;
    match page.len() == page_size {
        true => Ok(page.into()),
        false => Err(HistoryError::Damaged("a page of a wrong size".to_owned())),
    }
}

fn damaged(error: std::io::Error) -> HistoryError {
    HistoryError::Damaged(error.to_string())
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
