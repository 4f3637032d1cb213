//! The `-changes` file: a pull that is being applied. What is in it is enough to apply the pull again after a crash,
//! without the remote.
//!
//! A sequence of frames: kind (1 byte), length (4 bytes, little-endian), that many bytes, their xxh3-64 (8 bytes). Kinds:
//! page (id in 4 bytes, then the page), base (JSON), keep (Roaring bitmap), log (last, first, txn, time, count as 8 bytes
//! each, then the chunk), end (the pull's id). A page or the base may come twice; the later one counts. The file is complete when its
//! last frame is an end frame and every checksum fits; anything else is a pull that never began to change the database.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use partial_sync_vfs::{Storage, StorageFile};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, Result},
    log::Chunk,
};

const PAGE: u8 = 1;
const BASE: u8 = 2;
const KEEP: u8 = 3;
const LOG: u8 = 4;
const END: u8 = 5;
const FRAME: u64 = 1 + 4 + 8;

/// What the replica will be based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedBase {
    pub revision: String,
    pub size: u32,
    pub page_size: u32,
}

/// A `-changes` file being written or replayed.
pub(crate) struct Staged {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    end: u64,
    pages: StagedPages,
    pub base: StagedBase,
}

/// The staged pages; a clone is a view of those staged so far.
#[derive(Clone)]
pub(crate) struct StagedPages {
    file: Arc<dyn StorageFile>,
    /// Where each page's bytes lie, by 0-based id.
    at: BTreeMap<u32, u64>,
    page_len: usize,
}

impl StagedPages {
    pub(crate) fn has(&self, id: u32) -> bool {
        self.at.contains_key(&id)
    }

    pub(crate) fn ids(&self) -> RoaringBitmap {
        self.at.keys().copied().collect()
    }

    pub(crate) fn read(&self, id: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(&at) = self.at.get(&id) else {
            return Ok(None);
        };
        let mut bytes = vec![0; self.page_len];
        if self.file.read_at(&mut bytes, at)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(bytes))
    }
}

/// A complete file.
pub(crate) struct Replay {
    pub staged: Staged,
    /// Pages that are valid at the new base, staged ones included.
    pub keep: RoaringBitmap,
    /// Local changes to put back.
    pub log: Vec<Chunk>,
    /// Names the pull; the marker in the database.
    pub pull: u64,
}

impl Staged {
    pub(crate) fn begin(storage: &Arc<dyn Storage>, path: PathBuf, base: StagedBase) -> Result<Self> {
        storage
            .remove(&path)
            .map_err(|e| Error::storage("remove", &path, e))?;
        let file = storage
            .open(&path, true)
            .map_err(|e| Error::storage("create", &path, e))?;
        let pages = StagedPages {
            file,
            at: BTreeMap::new(),
            page_len: base.page_size as usize,
        };
        let mut staged = Self {
            storage: storage.clone(),
            path,
            end: 0,
            pages,
            base: base.clone(),
        };
        staged.set_base(base)?;
        Ok(staged)
    }

    /// Says on what the replica will be based, where that was not known when the file was begun.
    pub(crate) fn set_base(&mut self, base: StagedBase) -> Result<()> {
        let json = serde_json::to_vec(&base).expect("a StagedBase has string keys: it is always JSON");
        self.base = base;
        self.frame(BASE, &json)
    }

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(body.len() + FRAME as usize);
        bytes.push(kind);
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        bytes.extend(xxh3_64(body).to_le_bytes());
        self.pages
            .file
            .write_at(&bytes, self.end)
            .map_err(|e| Error::storage("write", &self.path, e))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn put_page(&mut self, id: u32, data: &[u8]) -> Result<()> {
        if data.len() != self.base.page_size as usize {
            return Err(Error::UnusableDatabase {
                why: format!(
                    "its pages now have {} bytes, the replica's have {}; delete the replica and connect anew",
                    data.len(),
                    self.base.page_size
                ),
            });
        }
        let at = self.end + 5 + 4;
        let mut body = Vec::with_capacity(4 + data.len());
        body.extend(id.to_le_bytes());
        body.extend(data);
        self.frame(PAGE, &body)?;
        self.pages.at.insert(id, at);
        Ok(())
    }

    pub(crate) fn pages(&self) -> &StagedPages {
        &self.pages
    }

    /// Makes the file complete and durable. From here on a crash applies the pull.
    pub(crate) fn seal(&mut self, keep: &RoaringBitmap, log: &[Chunk], pull: u64) -> Result<()> {
        let mut bitmap = Vec::with_capacity(keep.serialized_size());
        keep.serialize_into(&mut bitmap)
            .map_err(|e| Error::storage("write", &self.path, e))?;
        self.frame(KEEP, &bitmap)?;
        for chunk in log {
            let mut body = Vec::with_capacity(chunk.body.len() + 40);
            for number in [
                chunk.last.0,
                chunk.first.0,
                chunk.txn.0,
                chunk.time,
                chunk.count as i64,
            ] {
                body.extend(number.to_le_bytes());
            }
            body.extend(&chunk.body);
            self.frame(LOG, &body)?;
        }
        self.frame(END, &pull.to_le_bytes())?;
        self.pages
            .file
            .sync()
            .map_err(|e| Error::storage("sync", &self.path, e))?;
        self.storage
            .sync_folder(&self.path)
            .map_err(|e| Error::storage("sync", &self.path, e))
    }

    /// Reads the file at `path`: `None` when there is none or it is incomplete.
    pub(crate) fn load(storage: &Arc<dyn Storage>, path: PathBuf) -> Result<Option<Replay>> {
        let failed = |e| Error::storage("read", &path, e);
        if !storage.exists(&path).map_err(failed)? {
            return Ok(None);
        }
        let file = storage.open(&path, false).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        let (mut pages, mut base, mut keep, mut log, mut pull) = (BTreeMap::new(), None, None, vec![], None);
        let mut at = 0;
        while at + FRAME <= len {
            let mut head = [0; 5];
            file.read_at(&mut head, at).map_err(failed)?;
            let size = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            if at + FRAME + size > len {
                return Ok(None);
            }
            let mut body = vec![0; size as usize + 8];
            file.read_at(&mut body, at + 5).map_err(failed)?;
            let sum = body.split_off(size as usize);
            if xxh3_64(&body).to_le_bytes() != sum[..] {
                return Ok(None);
            }
            match (head[0], &body[..]) {
                (PAGE, [a, b, c, d, ..]) => {
                    pages.insert(u32::from_le_bytes([*a, *b, *c, *d]), at + 5 + 4);
                }
                (BASE, json) => base = serde_json::from_slice::<StagedBase>(json).ok(),
                (KEEP, bytes) => keep = RoaringBitmap::deserialize_from(bytes).ok(),
                (LOG, bytes) if bytes.len() >= 40 => log.push(chunk(bytes)),
                (END, bytes) => pull = bytes.try_into().map(u64::from_le_bytes).ok(),
                _ => return Ok(None),
            }
            at += FRAME + size;
        }
        match (base, keep, pull) {
            (Some(base), Some(keep), Some(pull)) if at == len => {
                let page_len = base.page_size as usize;
                let pages = StagedPages {
                    file,
                    at: pages,
                    page_len,
                };
                let staged = Self {
                    storage: storage.clone(),
                    path,
                    end: len,
                    pages,
                    base,
                };
                Ok(Some(Replay {
                    staged,
                    keep,
                    log,
                    pull,
                }))
            }
            _ => Ok(None),
        }
    }
}

fn chunk(bytes: &[u8]) -> Chunk {
    let number = |i: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[i * 8..i * 8 + 8]);
        i64::from_le_bytes(eight)
    };
    Chunk {
        last: partial_sync_core::ChangeId(number(0)),
        first: partial_sync_core::ChangeId(number(1)),
        txn: partial_sync_core::ChangeId(number(2)),
        time: number(3),
        count: number(4) as u64,
        body: bytes[40..].to_vec(),
    }
}

/// Removes the file.
pub(crate) fn discard(storage: &Arc<dyn Storage>, path: &Path) -> Result<()> {
    let failed = |e| Error::storage("remove", path, e);
    storage.remove(path).map_err(failed)?;
    storage.sync_folder(path).map_err(failed)
}
