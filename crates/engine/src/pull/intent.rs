//! The `-changes` file: what a pull that is about to commit means for the replica. It is small: the new base, which pages are
//! what they were on top of it and which the commit has, and the schema cookie by which the commit is recognised. The commit itself, with pages and
//! change log, is one SQLite transaction.
//!
//! After a crash it says all. The database has the cookie: the pull has happened, and the base is to be moved. It has not:
//! the pull never happened. Either way nothing is fetched and nothing is run again. Which pages stay is said of all that may be
//! here by then: a commit that failed may come back after a crash, and pages of the old base may have come since.
//!
//! Format: 8 bytes of magic, the intent in postcard's encoding, its xxh3-64 (8 bytes, little-endian). Written as a whole.

use std::{path::PathBuf, sync::Arc};

use partial_sync_core::PageCount;
use partial_sync_vfs::{Base, Stay, Storage, read_whole, write_whole};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, Result},
    open::{
        info,
        session::Session,
        side_files::{CHANGES, side_file_path},
    },
};

const MAGIC: &[u8; 8] = b"PSpulled";
/// Larger than any intent: a bitmap of every page that a database can have takes 512 MiB at worst, and there are two.
const LIMIT: u64 = 5 << 28;
/// A cookie is this far ahead of the one before, at least: fewer schema changes than that lie between two pulls.
const STEP: u32 = 1 << 30;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Intent {
    pub base: Base,
    /// Which pages stay on top of it.
    pub stay: Stay,
    /// 0-based ids of the pages that are in the commit.
    pub committed: RoaringBitmap,
    /// Schema cookie of the commit.
    pub cookie: u32,
    /// Whether the commit has local changes that were put back.
    pub has_log: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredIntent {
    revision: String,
    size: u32,
    cookie: u32,
    has_log: bool,
    /// Whether all but these pages stay, or these only.
    all_but: bool,
    these: Vec<u8>,
    committed: Vec<u8>,
}

/// A cookie that no connection can have seen before, so that each reads the schema again, and that tells the commit that it
/// belongs to. `random` keeps it from coming back when the numbers wrap around.
pub(crate) fn cookie_after(local: u32, random: u32) -> u32 {
    local.wrapping_add(STEP).wrapping_add(random % (STEP / 2))
}

impl Intent {
    /// Whether a database with this schema cookie has the commit. Local schema changes since have raised it by one each.
    pub(crate) fn is_committed(&self, cookie: u32) -> bool {
        cookie.wrapping_sub(self.cookie) < STEP
    }

    /// Makes it durable. From here on the commit counts as a pull.
    pub(crate) fn seal(&self, session: &Session<'_>) -> Result<()> {
        let path = path(session);
        let failed = |e| Error::storage("write", &path, e);
        write_whole(&*session.storage, &path, &self.encode()).map_err(failed)
    }

    /// What is sealed; `None`: nothing, or nothing complete.
    pub(crate) fn load(session: &Session<'_>) -> Result<Option<Self>> {
        let path = path(session);
        let bytes =
            read_whole(&*session.storage, &path, LIMIT).map_err(|e| Error::storage("read", &path, e))?;
        bytes
            .and_then(|bytes| Self::decode(&bytes))
            .map(|stored| {
                let ids = |bytes: &[u8]| {
                    RoaringBitmap::deserialize_from(bytes).map_err(|e| Error::storage("read", &path, e))
                };
                let these = ids(&stored.these)?;
                Ok(Self {
                    base: Base {
                        revision: info::revision(&stored.revision, session.replica.name())?,
                        size: PageCount(stored.size),
                    },
                    stay: match stored.all_but {
                        true => Stay::AllBut(these),
                        false => Stay::Only(these),
                    },
                    committed: ids(&stored.committed)?,
                    cookie: stored.cookie,
                    has_log: stored.has_log,
                })
            })
            .transpose()
    }

    fn encode(&self) -> Vec<u8> {
        let bytes = |ids: &RoaringBitmap| {
            let mut bytes = Vec::with_capacity(ids.serialized_size());
            ids.serialize_into(&mut bytes)
                .expect("writing to memory does not fail");
            bytes
        };
        let (all_but, these) = match &self.stay {
            Stay::Only(ids) => (false, ids),
            Stay::AllBut(ids) => (true, ids),
        };
        let stored = StoredIntent {
            revision: self.base.revision.as_str().to_owned(),
            size: self.base.size.0,
            cookie: self.cookie,
            has_log: self.has_log,
            all_but,
            these: bytes(these),
            committed: bytes(&self.committed),
        };
        let body = postcard::to_stdvec(&stored).expect("strings, numbers and bytes have an encoding");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(&body);
        bytes.extend(xxh3_64(&body).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<StoredIntent> {
        let body = bytes.strip_prefix(MAGIC)?;
        let (body, sum) = body.split_at_checked(body.len().checked_sub(8)?)?;
        (xxh3_64(body).to_le_bytes() == *sum)
            .then(|| postcard::from_bytes(body).ok())
            .flatten()
    }
}

/// Removes the file, durably.
pub(crate) fn remove(session: &Session<'_>) -> Result<()> {
    let path = path(session);
    let failed = |e| Error::storage("remove", &path, e);
    let storage: &Arc<dyn Storage> = &session.storage;
    if storage.exists(&path).map_err(failed)? {
        storage.remove(&path).map_err(failed)?;
        storage.sync_folder(&path).map_err(failed)?;
    }
    Ok(())
}

/// Where it is.
pub(crate) fn path(session: &Session<'_>) -> PathBuf {
    side_file_path(session.replica.name(), CHANGES)
}
