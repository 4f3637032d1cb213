//! The pages that a pull brought, in a temporary file: as they are at the new revision, by id. Nothing here survives a
//! crash, and nothing needs to: until the pull commits, it has not happened.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use partial_sync_core::{Arrivals, PageId, PageSize, admit::admit};
use partial_sync_vfs::{Base, Stay, Storage, StorageFile};
use roaring::RoaringBitmap;

use crate::{
    error::{Error, Result},
    open::{
        session::Session,
        side_files::{STAGED, side_file_path},
    },
};

/// What errors say was going on.
pub(super) const OPERATION: &str = "a pull";

/// An answer that is staged.
pub(crate) struct Asked {
    /// The new revision.
    pub base: Base,
    /// Pages that are in it what they were at the base: those that the question spoke of and that did not come, or all that the
    /// remote does not list as changed.
    pub stay: Stay,
    /// The pages that the question spoke of (0-based ids), where no others can stay.
    pub about: Option<RoaringBitmap>,
    pub staged: Staged,
}

impl Asked {
    /// Whether pages came here that would stay if the question had spoken of them.
    pub(super) fn is_late(&self, arrivals: &Arrivals<'_>) -> bool {
        let about = self.about.as_ref();
        about.is_some_and(|about| !arrivals.ids().is_subset(about))
    }
}

/// See the module. Shared by the pull and by the fetches that its preview starts.
pub(crate) struct Staged {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    page_size: PageSize,
    file: Arc<dyn StorageFile>,
    /// Where each page's bytes lie, by 0-based id.
    at: Mutex<BTreeMap<u32, u64>>,
}

impl Staged {
    pub(crate) fn begin(session: &Session<'_>) -> Result<Self> {
        let storage = &session.storage;
        let path = side_file_path(session.replica.name(), STAGED);
        storage
            .remove(&path)
            .map_err(|e| Error::storage("remove", &path, e))?;
        let file = storage
            .open(&path, true)
            .map_err(|e| Error::storage("create", &path, e))?;
        Ok(Self {
            storage: storage.clone(),
            path,
            page_size: session.replica.page_size(),
            file,
            at: Mutex::default(),
        })
    }

    /// Stages a page; of one that comes twice the later copy counts.
    pub(crate) fn put(&self, id: PageId, data: &[u8]) -> Result<()> {
        let Some(page) = id.no() else { return Ok(()) };
        let admitted = admit(page, data, self.page_size).map_err(|e| Error::UnusableDatabase {
            why: format!(
                "its pages now have {} bytes, the replica's have {}; delete the replica and connect again",
                e.got, e.expected
            ),
        })?;
        let Some(data) = admitted else { return Ok(()) };
        let mut at = self.at.lock();
        let end = at.len() as u64 * u64::from(self.page_size.bytes());
        let offset = at.get(&id.0).copied().unwrap_or(end);
        self.file
            .write_at(&data, offset)
            .map_err(|e| self.failed("write", e))?;
        at.insert(id.0, offset);
        Ok(())
    }

    pub(crate) fn has(&self, id: PageId) -> bool {
        self.at.lock().contains_key(&id.0)
    }

    /// 0-based ids of the pages staged so far.
    pub(crate) fn ids(&self) -> RoaringBitmap {
        self.at.lock().keys().copied().collect()
    }

    pub(crate) fn read(&self, id: PageId) -> Result<Option<Vec<u8>>> {
        let Some(offset) = self.at.lock().get(&id.0).copied() else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.page_size.as_usize()];
        match self.file.read_at(&mut bytes, offset) {
            Ok(n) if n == bytes.len() => Ok(Some(bytes)),
            Ok(_) => Err(self.failed("read", std::io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    fn failed(&self, operation: &'static str, error: std::io::Error) -> Error {
        Error::storage(operation, &self.path, error)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = self.storage.remove(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the file of a pull could not be removed; the next one does it");
        }
    }
}
