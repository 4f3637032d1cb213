//! The page history of a working copy whose log has all of its states: it counts the revisions, in memory, and keeps no page.

use parking_lot::Mutex;
use partial_sync_core::{PageCount, PageNo, PageSize};
use roaring::RoaringBitmap;

use super::{
    api::{Changes, Comparison, History, HistorySize, Kept, KeptRevision, Position, Pruned, Retention},
    revision::{Generation, RevisionRecord, Seq},
};
use crate::error::HistoryError;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeptElsewhere {
    generation: Generation,
    page_size: PageSize,
    latest: Mutex<RevisionRecord>,
}

impl KeptElsewhere {
    /// One that continues after a revision.
    pub(crate) fn new(generation: Generation, page_size: PageSize, latest: RevisionRecord) -> Self {
        Self {
            generation,
            page_size,
            latest: Mutex::new(latest),
        }
    }

    fn conflict(&self, expected: Seq) -> HistoryError {
        HistoryError::Conflict {
            expected,
            found: self.latest.lock().seq,
        }
    }

    fn only_latest(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        let latest = *self.latest.lock();
        match seq == latest.seq {
            true => Ok(latest),
            false if seq < latest.seq => Err(HistoryError::Expired(seq)),
            false => Err(HistoryError::Unknown(seq)),
        }
    }
}

impl History for KeptElsewhere {
    fn generation(&self) -> Result<Option<(Generation, PageSize)>, HistoryError> {
        Ok(Some((self.generation, self.page_size)))
    }

    fn begin_as(
        &self,
        _: Generation,
        seq: Seq,
        _: PageSize,
        _: PageCount,
        _: i64,
    ) -> Result<(), HistoryError> {
        // It has begun.
        Err(self.conflict(seq))
    }

    fn resume(
        &self,
        after: RevisionRecord,
        _: Option<Seq>,
        _: PageCount,
        _: i64,
    ) -> Result<RevisionRecord, HistoryError> {
        self.only_latest(after.seq)
    }

    fn pass(&self, fence: Seq, _: i64) -> Result<(), HistoryError> {
        self.latest.lock().seq = fence;
        Ok(())
    }

    fn changed_by(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        Err(HistoryError::Expired(seq))
    }

    fn log_nodes(&self) -> Result<Vec<u64>, HistoryError> {
        Ok(Vec::new())
    }

    fn set_log_nodes(&self, _: &[u64]) -> Result<(), HistoryError> {
        Ok(())
    }

    fn comparison(&self) -> Result<Option<Comparison>, HistoryError> {
        Ok(None)
    }

    fn compare(
        &self,
        _: RevisionRecord,
        _: Comparison,
        _: &[Option<u64>],
    ) -> Result<Option<Comparison>, HistoryError> {
        Ok(None)
    }

    fn forget(&self) -> Result<(), HistoryError> {
        Ok(())
    }

    fn latest(&self) -> Result<RevisionRecord, HistoryError> {
        Ok(*self.latest.lock())
    }

    fn leap(&self) {}

    fn record(
        &self,
        after: RevisionRecord,
        db_size: PageCount,
        _: i64,
        changes: &mut Changes<'_>,
    ) -> Result<Option<RevisionRecord>, HistoryError> {
        if self.only_latest(after.seq).is_err() {
            return Err(self.conflict(after.seq));
        }
        // One is enough to know.
        if db_size == after.db_size && changes.next().transpose()?.is_none() {
            return Ok(None);
        }
        let next = RevisionRecord {
            seq: after.seq.next(),
            db_size,
        };
        *self.latest.lock() = next;
        Ok(Some(next))
    }

    fn revision(&self, seq: Seq) -> Result<RevisionRecord, HistoryError> {
        self.only_latest(seq)
    }

    fn pages_at(&self, seq: Seq, _: &[PageNo]) -> Result<Vec<Kept>, HistoryError> {
        Err(HistoryError::Expired(seq))
    }

    fn changed(&self, since: Seq, until: Seq) -> Result<RoaringBitmap, HistoryError> {
        match since == until {
            true => self.only_latest(since).map(|_| RoaringBitmap::new()),
            false => Err(HistoryError::Expired(since.min(until))),
        }
    }

    fn lost(&self, seq: Seq) -> Result<RoaringBitmap, HistoryError> {
        self.only_latest(seq)?;
        Ok(RoaringBitmap::new())
    }

    fn position(&self) -> Result<Option<(Seq, Position)>, HistoryError> {
        Ok(None)
    }

    fn set_position(&self, _: Seq, _: &Position) -> Result<(), HistoryError> {
        Ok(())
    }

    fn prune(&self, _: &Retention, _: i64) -> Result<Pruned, HistoryError> {
        Ok(Pruned::default())
    }

    fn drop_before(&self, _: Seq) -> Result<bool, HistoryError> {
        Ok(false)
    }

    fn list(&self, before: Option<Seq>, limit: usize) -> Result<Vec<KeptRevision>, HistoryError> {
        let record = *self.latest.lock();
        let is_listed = limit > 0 && before.is_none_or(|before| record.seq < before);
        Ok(Vec::from_iter(is_listed.then_some(KeptRevision {
            record,
            unix_ms: 0,
            bytes: 0,
        })))
    }

    fn at_time(&self, _: i64) -> Result<Option<RevisionRecord>, HistoryError> {
        Ok(None)
    }

    fn size(&self) -> Result<HistorySize, HistoryError> {
        Ok(HistorySize::default())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}
