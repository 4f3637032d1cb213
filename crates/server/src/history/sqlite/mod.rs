//! The page history in a SQLite file of its own, by default beside the database with `-history` after its name.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | what a [`History`] does |
//! | `store.rs` | the file and its connections |
//! | `tables.rs` | its tables |
//! | `prune.rs` | what is let go of |

mod prune;
mod store;
mod tables;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_vfs::Storage;
use roaring::RoaringBitmap;
use rusqlite::{OptionalExtension, TransactionBehavior, params};
use zstd::bulk::Compressor;

use super::{
    api::{
        Before, Changes, Comparison, History, HistorySize, Kept, KeptRevision, Position, Pruned, Retention,
        page_hash,
    },
    comparing::{self, Comparing, comparison},
    recent::{self, Recent},
    revision::{Generation, RevisionRecord, Seq},
};
use crate::error::HistoryError;
use prune::{cut, oldest_kept, vacuum};
use store::Store;
use tables::{
    COMPRESSION, FORMAT, SET_HASH, UNSET_HASH, add_revision, before, check_latest, damaged, kept, latest,
    meta, move_revision, pages, record_of, set_meta, set_size, squeeze, unsqueeze,
};

/// Far more than the revisions that a server makes between two starts; half a million leaps fit into a number.
const LONGEST_LEAP: u64 = 1 << 44;

/// See the module.
pub struct SqliteHistory {
    store: Store,
    /// Numbers that the next revision leaves out.
    leap: AtomicU64,
    recent: Recent,
}

impl std::fmt::Debug for SqliteHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteHistory")
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

impl SqliteHistory {
    /// Opens the history of the database at `database`, or makes an empty one; a file that is damaged or of another
    /// format is replaced by an empty one.
    pub fn open(database: &Path) -> Result<Self, HistoryError> {
        Ok(Self::of(Store::open(database)?))
    }

    /// A history that is gone with the process, for where no file can be written.
    pub fn in_memory() -> Result<Self, HistoryError> {
        Ok(Self::of(Store::in_memory()?))
    }

    /// The same with every file operation going through `storage`. One process at a time; a damaged file is an error.
    pub fn open_in(storage: Arc<dyn Storage>, database: &Path) -> Result<Self, HistoryError> {
        Ok(Self::of(Store::open_in(storage, database)?))
    }

    fn of(store: Store) -> Self {
        Self {
            store,
            leap: AtomicU64::default(),
            recent: Recent::default(),
        }
    }

    fn seq_after(&self, latest: RevisionRecord) -> Seq {
        Seq(latest.seq.next().0 + self.leap.load(Relaxed))
    }
}

impl History for SqliteHistory {
    fn generation(&self) -> Result<Option<(Generation, PageSize)>, HistoryError> {
        self.store.reading(|db| {
            let generation: Option<i64> = meta(db, "generation")?;
            let page_size: Option<u32> = meta(db, "page_size")?;
            Ok(generation
                .zip(page_size)
                .and_then(|(g, size)| Some((Generation(g as u64), PageSize::new(size).ok()?))))
        })
    }

    fn begin_as(
        &self,
        generation: Generation,
        first: Seq,
        page_size: PageSize,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<(), HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        db.execute_batch(
            "DELETE FROM meta; DELETE FROM revisions; DELETE FROM preimages; DELETE FROM hashes;
             DELETE FROM comparison; DELETE FROM gaps;",
        )?;
        set_meta(&db, "format", FORMAT)?;
        set_meta(&db, "generation", generation.0 as i64)?;
        set_meta(&db, "page_size", page_size.bytes())?;
        add_revision(&db, first, unix_ms, db_size, 0)?;
        comparing::begin(&db, first)?;
        db.commit()?;
        self.recent.clear();
        Ok(())
    }

    fn resume(
        &self,
        after: RevisionRecord,
        seq: Option<Seq>,
        db_size: PageCount,
        unix_ms: i64,
    ) -> Result<RevisionRecord, HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_latest(&db, after)?;
        let seq = seq.unwrap_or_else(|| self.seq_after(after));
        match seq == after.seq {
            true => set_size(&db, seq, unix_ms, db_size)?,
            false => add_revision(&db, seq, unix_ms, db_size, 0)?,
        }
        comparing::begin(&db, seq)?;
        db.commit()?;
        self.recent.clear();
        self.leap.store(0, Relaxed);
        Ok(RevisionRecord { seq, db_size })
    }

    fn pass(&self, fence: Seq, unix_ms: i64) -> Result<(), HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last = latest(&db)?;
        if last.seq == fence {
            let before = before(&db, fence)?.ok_or(HistoryError::Expired(fence))?;
            move_revision(&db, fence, fence.next())?;
            add_revision(&db, fence, unix_ms, before.db_size, 0)?;
        }
        for seq in last.seq.next().0..=fence.0 {
            add_revision(&db, Seq(seq), unix_ms, last.db_size, 0)?;
        }
        db.commit()?;
        self.recent.clear();
        Ok(())
    }

    fn changed_by(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.store
            .reading(|db| pages(db, "SELECT page FROM preimages WHERE seq = ?", [seq.0 as i64]))
    }

    fn log_nodes(&self) -> Result<Vec<u64>, HistoryError> {
        let nodes: Option<Vec<u8>> = self.store.reading(|db| meta(db, "log_nodes"))?;
        let nodes = nodes.unwrap_or_default();
        let (nodes, _) = nodes.as_chunks();
        Ok(nodes.iter().copied().map(u64::from_be_bytes).collect())
    }

    fn set_log_nodes(&self, nodes: &[u64]) -> Result<(), HistoryError> {
        let nodes: Vec<u8> = nodes.iter().flat_map(|node| node.to_be_bytes()).collect();
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set_meta(&db, "log_nodes", nodes)?;
        Ok(db.commit()?)
    }

    fn comparison(&self) -> Result<Option<Comparison>, HistoryError> {
        self.store.reading(comparison)
    }

    fn compare(
        &self,
        latest: RevisionRecord,
        at: Comparison,
        hashes: &[Option<u64>],
    ) -> Result<Option<Comparison>, HistoryError> {
        let mut writer = self.store.writer();
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
        self.store.forget()
    }

    fn remove(&self) -> Result<(), HistoryError> {
        self.recent.clear();
        self.store.remove()
    }

    fn is_in_place(&self) -> bool {
        self.store.is_in_place()
    }

    fn latest(&self) -> Result<RevisionRecord, HistoryError> {
        self.store.reading(latest)
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
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_latest(&db, after)?;
        let seq = self.seq_after(after);
        let (mut count, mut bytes, mut pages) = (0u64, 0u64, Vec::new());
        {
            let mut comparing = Comparing::of(&db)?;
            let mut keep = db.prepare_cached("INSERT INTO preimages(page, seq, data) VALUES (?, ?, ?)")?;
            let mut hash = db.prepare_cached(SET_HASH)?;
            let mut gone = db.prepare_cached(UNSET_HASH)?;
            let mut zstd = Compressor::new(COMPRESSION).map_err(damaged)?;
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
        self.store.reading(|db| kept(db, seq))
    }

    fn pages_at(&self, seq: Seq, pages: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        let life = self.recent.life();
        let found: Vec<Kept> = self.store.reading(|db| {
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
        self.store.reading(|db| {
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
        self.store.reading(|db| {
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
        self.store.reading(|db| {
            let seq: Option<i64> = meta(db, "position_seq")?;
            let position: Option<Vec<u8>> = meta(db, "position")?;
            Ok(seq.map(|seq| Seq(seq as u64)).zip(position))
        })
    }

    fn set_position(&self, seq: Seq, position: &Position) -> Result<(), HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        set_meta(&db, "position_seq", seq.0 as i64)?;
        set_meta(&db, "position", position.as_slice())?;
        Ok(db.commit()?)
    }

    fn prune(&self, retention: &Retention, unix_ms: i64) -> Result<Pruned, HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (oldest, early) = oldest_kept(&db, retention, unix_ms)?;
        let (gone, more) = cut(&db, oldest)?;
        db.commit()?;
        self.recent.forget_before(oldest);
        if gone > 0 {
            vacuum(&writer)?;
        }
        Ok(Pruned { more, early })
    }

    fn drop_before(&self, seq: Seq) -> Result<bool, HistoryError> {
        let mut writer = self.store.writer();
        let db = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let kept = kept(&db, seq)?;
        let (_, more) = cut(&db, kept.seq)?;
        db.commit()?;
        self.recent.forget_before(kept.seq);
        vacuum(&writer)?;
        Ok(more)
    }

    fn list(&self, before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError> {
        self.store.reading(|db| {
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
        self.store.reading(|db| {
            // The last one by its number: a clock may have been set back.
            let mut find = db.prepare_cached(
                "SELECT seq, db_size FROM revisions WHERE time <= ?1 AND NOT EXISTS (
                     SELECT 1 FROM gaps WHERE first <= seq AND until > seq) ORDER BY seq DESC LIMIT 1",
            )?;
            Ok(find.query_row([unix_ms], record_of).optional()?)
        })
    }

    fn size(&self) -> Result<HistorySize, HistoryError> {
        self.store.reading(|db| {
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
        self.store.place()
    }
}
