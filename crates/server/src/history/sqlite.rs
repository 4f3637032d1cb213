//! The page history in a SQLite file of its own, by default beside the database with `-history` after its name.
//!
//! ```text
//! meta(key, value)                        format, generation, page_size, position, position_seq
//! revisions(seq, time, db_size, bytes, lost)   the kept revisions; the lowest seq is the oldest that can be asked for
//! preimages(id, page, seq, data)          what `page` was before revision `seq`: its bytes, compressed when that makes
//!                                         them fewer; NULL when it was not there, or lost (revisions.lost)
//! hashes(page, hash)                      the pages of the latest revision; see `comparing`, whose tables are here too
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
    api::{
        Before, Changes, Comparison, History, HistorySize, Kept, KeptRevision, Position, Pruned, Retention,
        page_hash,
    },
    comparing::{self, Comparing, comparison, in_gap},
    recent::{self, Recent},
    revision::{Generation, RevisionRecord, Seq},
};
use crate::{error::HistoryError, file_id::FileId};

const FORMAT: i64 = 2;
/// Of 0.1.0, where every page was compared before a revision was made.
const FORMAT_WITHOUT_COMPARISONS: i64 = 1;
const PRUNE_STEP: u32 = 512;
/// Connections that read at the same time; others wait.
const MOST_READERS: usize = 8;
/// Connections that are kept for the next read.
const IDLE_READERS: usize = 2;
const COMPRESSION: i32 = 1;
/// Far more than the revisions that a server makes between two starts; half a million leaps fit into a number.
const LONGEST_LEAP: u64 = 1 << 44;
const SET_HASH: &str = "REPLACE INTO hashes(page, hash) VALUES (?, ?)";
const UNSET_HASH: &str = "DELETE FROM hashes WHERE page = ?";
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
    recent: Recent,
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
            path: Some(path),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            leap: AtomicU64::default(),
            recent: Recent::default(),
            files: None,
        })
    }

    /// A history that is gone with the process, for where no file can be written.
    pub fn in_memory() -> Result<Self, HistoryError> {
        let connection = Connection::open_in_memory()?;
        Self::make_tables(&connection)?;
        Ok(Self {
            path: None,
            ids: Vec::new(),
            writer: Mutex::new(connection),
            readers: Mutex::default(),
            reader_done: Condvar::new(),
            leap: AtomicU64::default(),
            recent: Recent::default(),
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
            recent: Recent::default(),
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
        Self::make_tables(&connection)?;
        match meta(&connection, "format")? {
            None | Some(FORMAT) => {}
            Some(FORMAT_WITHOUT_COMPARISONS) => set_meta(&connection, "format", FORMAT)?,
            Some(_) => return Err(HistoryError::Damaged(format!("its format is not {FORMAT}"))),
        }
        Ok(connection)
    }

    fn make_tables(connection: &Connection) -> Result<(), HistoryError> {
        connection.execute_batch(SCHEMA)?;
        Ok(connection.execute_batch(comparing::SCHEMA)?)
    }

    fn tune(connection: Connection) -> Result<Connection, HistoryError> {
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        connection.execute_batch(
            "PRAGMA synchronous=FULL; PRAGMA cache_size=-4096; PRAGMA foreign_keys=OFF; PRAGMA temp_store=FILE;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    }

    fn seq_after(&self, latest: RevisionRecord) -> Seq {
        Seq(latest.seq.next().0 + self.leap.load(Relaxed))
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
    ) -> Result<Generation, HistoryError> {
        let generation = Generation(fastrand::u64(1..));
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        db.execute_batch(
            "DELETE FROM meta; DELETE FROM revisions; DELETE FROM preimages; DELETE FROM hashes;
             DELETE FROM comparison; DELETE FROM gaps;",
        )?;
        set_meta(&db, "format", FORMAT)?;
        set_meta(&db, "generation", generation.0 as i64)?;
        set_meta(&db, "page_size", page_size.bytes())?;
        add_revision(&db, Seq::FIRST, unix_ms, db_size, 0)?;
        comparing::begin(&db, Seq::FIRST)?;
        db.commit()?;
        self.recent.clear();
        Ok(generation)
    }

    fn resume(
        &self,
        after: RevisionRecord,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<RevisionRecord, HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_latest(&db, after)?;
        let seq = self.seq_after(after);
        add_revision(&db, seq, unix_ms, db_size, 0)?;
        comparing::begin(&db, seq)?;
        db.commit()?;
        self.recent.clear();
        self.leap.store(0, Relaxed);
        Ok(RevisionRecord { seq, db_size })
    }

    fn comparison(&self) -> Result<Option<Comparison>, HistoryError> {
        self.reading(comparison)
    }

    fn compare(
        &self,
        latest: RevisionRecord,
        at: Comparison,
        hashes: &[Option<u64>],
    ) -> Result<Option<Comparison>, HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_latest(&db, latest)?;
        let Some(mut comparing) = Comparing::of(&db)? else {
            return Ok(None);
        };
        if comparing.at().next != at.next || comparing.at().seq != at.seq {
            return Ok(Some(comparing.at()));
        }
        {
            let mut set = db.prepare_cached(SET_HASH)?;
            let mut unset = db.prepare_cached(UNSET_HASH)?;
            for (page, hash) in (at.next.get()..).zip(hashes) {
                match comparing.differs(page, *hash)? {
                    false => 0,
                    true => match hash {
                        Some(hash) => set.execute(params![page, *hash as i64])?,
                        None => unset.execute([page])?,
                    },
                };
            }
        }
        let last = comparing.at().pages.0;
        comparing.finish()?;
        let next = u64::from(at.next.get()) + hashes.len() as u64;
        let next = u32::try_from(next).ok().filter(|next| *next <= last);
        comparing::advance(&db, next.and_then(PageNo::new))?;
        let left = comparison(&db)?;
        db.commit()?;
        Ok(left)
    }

    fn forget(&self) -> Result<(), HistoryError> {
        self.recent.clear();
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

    fn remove(&self) -> Result<(), HistoryError> {
        self.forget()?;
        // In a storage, the file is its own business.
        if let (Some(path), None) = (&self.path, &self.files) {
            // The file first: what is left beside it without it is nothing to SQLite.
            for suffix in ["", "-wal", "-shm", "-journal"] {
                match std::fs::remove_file(side_file_path(path, suffix)) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                    _ => {}
                }
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
        check_latest(&db, after)?;
        let seq = self.seq_after(after);
        let (mut count, mut bytes, mut pages) = (0u64, 0u64, Vec::new());
        {
            let mut comparing = Comparing::of(&db)?;
            let mut keep = db.prepare_cached("INSERT INTO preimages(page, seq, data) VALUES (?, ?, ?)")?;
            let mut hash = db.prepare_cached(SET_HASH)?;
            let mut gone = db.prepare_cached(UNSET_HASH)?;
            let mut zstd = zstd::bulk::Compressor::new(COMPRESSION).map_err(damaged)?;
            for change in changes {
                let change = change?;
                let page = change.page.get();
                count += 1;
                if pages.len() <= recent::MOST {
                    pages.push(change.page);
                }
                let before = match &change.before {
                    Before::Page(page) => Some(page),
                    Before::Absent => None,
                };
                if let Some(comparing) = &mut comparing {
                    comparing.differs(page, before.map(|page| page_hash(page)))?;
                }
                let data = before.map(|page| squeeze(&mut zstd, page));
                bytes += data.as_ref().map_or(0, |data| data.len() as u64);
                keep.execute(params![page, seq.0 as i64, data])?;
                match change.after {
                    Some(value) => hash.execute(params![page, value as i64])?,
                    None => gone.execute([page])?,
                };
            }
            comparing.map(Comparing::finish).transpose()?;
        }
        if count == 0 && db_size == after.db_size {
            return Ok(None);
        }
        add_revision(&db, seq, unix_ms, db_size, bytes)?;
        db.commit()?;
        self.leap.store(0, Relaxed);
        let new = RevisionRecord { seq, db_size };
        self.recent.add(after, new, &pages);
        Ok(Some(new))
    }

    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        self.reading(|db| kept(db, seq))
    }

    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        let life = self.recent.life();
        let found: Vec<Kept> = self.reading(|db| {
            // In the same transaction as the look-ups: what is read below has not been pruned.
            kept(db, seq)?;
            let page_size: u32 = meta(db, "page_size")?.unwrap_or_default();
            let comparing = comparison(db)?.filter(|comparing| comparing.seq > seq);
            let size = latest(db)?.db_size;
            let mut hash = db.prepare_cached("SELECT hash FROM hashes WHERE page = ?")?;
            let mut find = db.prepare_cached(
                "SELECT data FROM preimages WHERE page = ? AND seq > ? ORDER BY seq LIMIT 1",
            )?;
            let find = |page: &PageNo| {
                let found: Option<Option<Vec<u8>>> = find
                    .query_row(params![page.get(), seq.0 as i64], |row| row.get(0))
                    .optional()?;
                match found {
                    None if !size.contains(*page) => Ok(Kept::Lost),
                    None if comparing.is_some_and(|comparing| *page >= comparing.next) => {
                        let hash: Option<i64> = hash.query_row([page.get()], |row| row.get(0)).optional()?;
                        Ok(hash.map_or(Kept::Lost, |hash| Kept::UnchangedIf(hash as u64)))
                    }
                    None => Ok(Kept::Unchanged),
                    Some(Some(data)) => unsqueeze(data, page_size as usize).map(Kept::Page),
                    Some(None) => Ok(Kept::Lost),
                }
            };
            pages.iter().map(find).collect()
        })?;
        let old = pages.iter().zip(&found).filter_map(|(page, kept)| match kept {
            Kept::Page(data) => Some((*page, data)),
            _ => None,
        });
        self.recent.heard(life, seq, old);
        Ok(found)
    }

    fn revision_at_once(&self, seq: Seq) -> Option<RevisionRecord> {
        self.recent.revision(seq)
    }

    fn pages_at_once(&self, seq: Seq, pages: &[PageNo]) -> Option<Vec<Kept>> {
        self.recent.pages(seq, pages)
    }

    fn changed_at_once(&self, since: Seq, until: Seq) -> Option<RoaringBitmap> {
        self.recent.changed(since, until)
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
            let mut lost = pages(
                db,
                "SELECT gone.page FROM revisions AS r CROSS JOIN preimages AS gone ON gone.seq = r.seq
                 WHERE r.seq > ?1 AND r.lost AND gone.data IS NULL AND gone.page <= ?2 AND NOT EXISTS (
                     SELECT 1 FROM preimages AS older
                     WHERE older.page = gone.page AND older.seq > ?1 AND older.seq < gone.seq)",
                (seq.0 as i64, i64::from(db_size.0)),
            )?;
            let latest = latest(db)?.db_size;
            if db_size > latest {
                // What was there and is not any more was recorded, or nobody saw it go.
                let mut unseen = RoaringBitmap::from_iter(latest.0 + 1..=db_size.0);
                unseen -= pages(
                    db,
                    "SELECT page FROM preimages WHERE page > ?1 AND page <= ?2 AND seq > ?3",
                    params![latest.0, db_size.0, seq.0 as i64],
                )?;
                lost |= unseen;
            }
            Ok(lost)
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
        let (gone, more) = cut(&db, oldest_kept)?;
        db.commit()?;
        self.recent.forget_before(Seq(oldest_kept as u64));
        if gone > 0 {
            vacuum(&writer)?;
        }
        Ok(Pruned {
            more,
            early: by_bytes.is_some_and(|by_bytes| Some(by_bytes) > by_age && by_bytes > oldest),
        })
    }

    fn drop_before(&self, seq: Seq) -> Result<bool, HistoryError> {
        let mut writer = self.writer.lock();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let kept = kept(&db, seq)?;
        let (_, more) = cut(&db, kept.seq.0 as i64)?;
        db.commit()?;
        self.recent.forget_before(kept.seq);
        vacuum(&writer)?;
        Ok(more)
    }

    fn list(&self, before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError> {
        self.reading(|db| {
            let before = before
                .and_then(|seq| i64::try_from(seq.0).ok())
                .unwrap_or(i64::MAX);
            let mut find = db.prepare_cached(
                "SELECT seq, db_size, time, bytes FROM revisions WHERE seq < ?1 AND NOT EXISTS (
                     SELECT 1 FROM gaps WHERE first <= seq AND until > seq) ORDER BY seq DESC LIMIT ?2",
            )?;
            let rows = find.query_map(params![before, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(KeptRevision {
                    record: record_of(row)?,
                    unix_ms: row.get(2)?,
                    bytes: row.get::<_, i64>(3)? as u64,
                })
            })?;
            rows.map(|row| Ok(row?)).collect()
        })
    }

    fn at_time(&self, unix_ms: i64) -> Result<Option<RevisionRecord>, HistoryError> {
        self.reading(|db| {
            // The last one by its number: a clock may have been set back.
            let mut find = db.prepare_cached(
                "SELECT seq, db_size FROM revisions WHERE time <= ?1 AND NOT EXISTS (
                     SELECT 1 FROM gaps WHERE first <= seq AND until > seq) ORDER BY seq DESC LIMIT 1",
            )?;
            Ok(find.query_row([unix_ms], record_of).optional()?)
        })
    }

    fn size(&self) -> Result<HistorySize, HistoryError> {
        self.reading(|db| {
            Ok(db.query_row(
                "SELECT
                     (SELECT count(*) FROM revisions WHERE NOT EXISTS (
                         SELECT 1 FROM gaps WHERE first <= seq AND until > seq)),
                     (SELECT coalesce(sum(bytes), 0) FROM revisions),
                     (SELECT time FROM revisions WHERE NOT EXISTS (
                         SELECT 1 FROM gaps WHERE first <= seq AND until > seq) ORDER BY seq LIMIT 1)",
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

/// Lets go of a little of what is older than a revision. Says how many pages went, and whether there is more.
fn cut(db: &Connection, oldest_kept: i64) -> Result<(usize, bool), HistoryError> {
    db.execute("DELETE FROM revisions WHERE seq < ?", [oldest_kept])?;
    db.execute("DELETE FROM gaps WHERE until <= ?", [oldest_kept])?;
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
    Ok((gone, more))
}

fn vacuum(writer: &Connection) -> Result<(), HistoryError> {
    let mut vacuum = writer.prepare_cached("PRAGMA incremental_vacuum(512)")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
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

fn add_revision(
    db: &Connection,
    seq: Seq,
    unix_ms: i64,
    db_size: PageCount,
    bytes: u64,
) -> Result<(), HistoryError> {
    db.execute(
        "INSERT INTO revisions(seq, time, db_size, bytes, lost) VALUES (?, ?, ?, ?, 0)",
        params![seq.0 as i64, unix_ms, db_size.0, bytes as i64],
    )?;
    Ok(())
}

fn check_latest(db: &Connection, expected: RevisionRecord) -> Result<(), HistoryError> {
    let found = latest(db)?;
    match found == expected {
        true => Ok(()),
        false => Err(HistoryError::Conflict {
            expected: expected.seq,
            found: found.seq,
        }),
    }
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
        Some(_) if in_gap(db, wanted)? => Err(HistoryError::Expired(seq)),
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

/// The history has pages of the database: those who may not read the database may not read it either. A new file gets the database's mode,
/// and SQLite gives it to the WAL; of an old one, and what was left beside it, what the database does not allow is taken away.
fn keep_private(path: &Path, database: &Path) -> Result<(), HistoryError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

        let Ok(allowed) = std::fs::metadata(database).map(|it| it.permissions().mode() & 0o666) else {
            return Ok(());
        };
        let mut new = std::fs::OpenOptions::new();
        let new = new.write(true).create_new(true).mode(0o600).open(path);
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
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
    }
    #[cfg(not(unix))]
    let _ = (path, database);
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
