//! Pages of the replica that are as at the new revision: here when the question was asked, unchanged by what the answer says, and
//! clean. They are read from a snapshot, so later local writes do not touch them, and never fetched.

use std::sync::Arc;

use parking_lot::Mutex;
use partial_sync_core::{PageCount, PageId};
use partial_sync_vfs::{Replica, Stay};

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
    replica: Arc<Replica>,
    /// Without those that had been written locally when the snapshot began.
    stay: Stay,
    /// Of the new revision, and of what the snapshot sees: pages that were cut off locally are there no more.
    end: PageCount,
    reader: Mutex<DbpageReader>,
}

impl Unchanged {
    /// Of a replica that is being pulled.
    pub(super) fn of(session: &Session<'_>, asked: &Asked) -> Result<Self> {
        let snapshot = open_without_fetching(&session.replica, session.options.timeout)?;
        snapshot.execute_batch("BEGIN; PRAGMA schema_version")?;
        // What is wrong with a schema that is not all here comes out once.
        let reader = DbpageReader::new(&snapshot).or_else(|_| DbpageReader::new(&snapshot))?;
        let size = u32::try_from(integer(&snapshot, "PRAGMA page_count")?).unwrap_or(u32::MAX);
        Ok(Self {
            replica: session.replica.clone(),
            // After the snapshot began: whatever it shows of local writes is dirty by now.
            stay: asked.stay.without(&session.replica.map().dirty()),
            end: asked.base.size.min(PageCount(size)),
            reader: Mutex::new(reader),
        })
    }

    pub(super) fn has(&self, id: PageId) -> bool {
        // A page that came since may be one that the snapshot's connection has read as zeros.
        let was_here = |page| self.end.contains(page) && self.replica.map().was_here(page);
        self.stay.has(id) && id.no().is_some_and(was_here)
    }

    pub(super) fn read(&self, id: PageId) -> Result<Option<Vec<u8>>> {
        match id.no().filter(|_| self.has(id)) {
            // Through SQLite, because the newest copy of a page may be in the WAL: an earlier pull wrote it there.
            Some(page) => Ok(self.reader.lock().read(page)?.map(<[u8]>::to_vec)),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use partial_sync_transport::memory::MemoryRemote;

    use super::*;
    use crate::{Bootstrap, Database, PartialSync, pull::ask};

    fn pages(of: &rusqlite::Connection) -> Vec<Bytes> {
        let mut select = of
            .prepare("select data from sqlite_dbpage order by pgno")
            .unwrap();
        let rows = select.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        rows.map(|data| data.unwrap().into()).collect()
    }

    /// Compiling the statement that reads pages reads the schema: those of its pages that are not here are zeros in the cache of
    /// the snapshot's connection, and stay so when they come.
    #[test]
    fn pages_that_came_after_the_snapshot_are_not_taken_from_it() {
        let origin = rusqlite::Connection::open_in_memory().unwrap();
        let tables: String = (0..200)
            .map(|n| format!("create table wide_{n}(id, a_rather_long_name_of_a_column, b{n});"))
            .collect();
        origin.execute_batch(&tables).unwrap();
        let memory = MemoryRemote::new();
        memory.push_revision(pages(&origin));
        let folder = tempfile::tempdir().unwrap();
        let db = Database::builder(folder.path().join("a.db"))
            .remote_with(Arc::new(memory.clone()))
            .partial(PartialSync {
                bootstrap: Some(Bootstrap::prefix(4096)),
                segment_size: Some(4096),
                ..PartialSync::default()
            })
            .longest_question(0)
            .connect()
            .unwrap();
        origin.execute_batch("insert into wide_7(id) values (1)").unwrap();
        let new = pages(&origin);
        memory.push_revision(new.clone());
        let session = db.session("a test").unwrap();
        let map = session.replica.map();
        let _arrivals = map.note_arrivals();
        let url = session.checked_url().unwrap();
        let asked = ask::ask(&session, None, url.as_deref()).unwrap().unwrap();
        assert!(matches!(asked.stay, Stay::AllBut(_)));
        let here = map.present();
        let unchanged = Unchanged::of(&session, &asked).unwrap();
        db.hydrate(|_| {}).unwrap();
        assert!(map.present().len() > here.len() + 5);
        for (id, bytes) in (1..).map(PageId).zip(&new[1..]) {
            if let Some(read) = unchanged.read(id).unwrap() {
                assert!(read == *bytes, "page id {} is another", id.0);
            }
            assert_eq!(unchanged.has(id), here.contains(id.0), "page id {}", id.0);
        }
    }
}
