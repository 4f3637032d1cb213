//! Pages of the replica that are as at the new revision: here when the question was asked, not in the answer, and clean.
//! They are read from a snapshot, so later local writes do not touch them, and never fetched.

use parking_lot::Mutex;
use partial_sync_core::PageId;
use partial_sync_transport::ApplyMode;
use roaring::RoaringBitmap;

use super::staged::Asked;
use crate::{
    error::Result,
    open::{
        plain::{DbpageReader, integer, open_without_fetching},
        session::Session,
    },
};

/// See the module. The put-back and the fetches of its preview share it.
pub(super) struct Unchanged {
    pub(super) ids: RoaringBitmap,
    reader: Mutex<DbpageReader>,
}

impl Unchanged {
    /// Of a replica that is being pulled.
    pub(super) fn of(session: &Session<'_>, asked: &Asked) -> Result<Self> {
        let snapshot = open_without_fetching(&session.replica, session.options.timeout)?;
        snapshot.execute_batch("BEGIN; PRAGMA schema_version")?;
        // What is wrong with a schema that is not all here comes out once.
        let reader = DbpageReader::new(&snapshot).or_else(|_| DbpageReader::new(&snapshot))?;
        let size = integer(&snapshot, "PRAGMA page_count")?;
        // After the snapshot began: whatever it shows of local writes is dirty by now.
        let map = session.replica.map();
        let mut ids = match asked.mode {
            ApplyMode::Incremental => (&asked.present & map.present()) - map.dirty(),
            ApplyMode::ReplaceBase => RoaringBitmap::new(),
        };
        ids -= asked.staged.ids();
        // Pages that were cut off locally are there no more as the snapshot sees it.
        ids.remove_range(u32::try_from(size).unwrap_or(u32::MAX).min(asked.base.size.0)..);
        Ok(Self {
            ids,
            reader: Mutex::new(reader),
        })
    }

    pub(super) fn has(&self, id: PageId) -> bool {
        self.ids.contains(id.0)
    }

    pub(super) fn read(&self, id: PageId) -> Result<Option<Vec<u8>>> {
        match id.no().filter(|_| self.has(id)) {
            // Through SQLite, because the newest copy of a page may be in the WAL: an earlier pull wrote it there.
            Some(page) => Ok(self.reader.lock().read(page)?.map(<[u8]>::to_vec)),
            None => Ok(None),
        }
    }
}
