//! The newest committed copy of a page that is here: from the WAL, else from the database file.
//!
//! Reads the WAL itself (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>) instead of asking SQLite, because
//! a connection would read the schema first and fetch what is absent of it. Takes no lock: while somebody writes, a page
//! may be a moment old or, between two moments, unreadable.

use std::{collections::HashMap, sync::Arc};

use partial_sync_core::{
    PageNo, PageSize,
    wal::{self, FRAME_HEADER_LEN, FrameHeader, HEADER_LEN, Salts},
};
use partial_sync_vfs::{Replica, StorageFile};

use super::view::ReadPage;
use crate::{
    error::{Error, Result},
    open::replica::OpenReplica,
};

/// See the module.
pub(crate) struct Pages<'r> {
    replica: &'r Replica,
    wal: Option<Wal>,
}

struct Wal {
    file: Arc<dyn StorageFile>,
    salts: Salts,
    /// Where the newest committed frame of a page begins.
    frames: HashMap<PageNo, u64>,
}

impl<'r> Pages<'r> {
    pub(crate) fn open(open: &'r OpenReplica) -> Result<Self> {
        let replica = &*open.replica;
        let path = Replica::wal_path(replica.name());
        let wal = match open.storage.exists(&path) {
            Ok(true) => open
                .storage
                .open(&path, false)
                .and_then(|file| Wal::read(file, replica.page_size())),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let wal = wal.map_err(|e| Error::storage("read", &path, e))?;
        Ok(Self { replica, wal })
    }
}

impl ReadPage for Pages<'_> {
    fn read(&mut self, page: PageNo) -> Option<Vec<u8>> {
        let size = self.replica.page_size().as_usize();
        match self.wal.as_ref().and_then(|wal| wal.page(page, size)) {
            Some(bytes) => Some(bytes),
            None => self.replica.read_present(page).ok().flatten(),
        }
    }
}

impl Wal {
    /// Finds the frames up to the last commit; `None` for a WAL without any.
    fn read(file: Arc<dyn StorageFile>, page_size: PageSize) -> std::io::Result<Option<Self>> {
        let mut header = [0; HEADER_LEN];
        if file.read_at(&mut header, 0)? < header.len() {
            return Ok(None);
        }
        let mut found = Self {
            file,
            salts: Salts::of_header(&header),
            frames: HashMap::new(),
        };
        let mut transaction = Vec::new();
        let mut at = wal::frame_offset(0, page_size);
        while let Some((page, commits)) = found.frame(at)? {
            transaction.push((page, at));
            if commits {
                found.frames.extend(transaction.drain(..));
            }
            at += wal::frame_len(page_size);
        }
        Ok((!found.frames.is_empty()).then_some(found))
    }

    /// The page of the frame at an offset and whether it ends a transaction; `None` = no frame of this WAL is there.
    fn frame(&self, at: u64) -> std::io::Result<Option<(PageNo, bool)>> {
        let mut header = [0; FRAME_HEADER_LEN];
        let read = self.file.read_at(&mut header, at)?;
        let frame = FrameHeader::of(&header[..read]).filter(|frame| frame.salts() == self.salts);
        Ok(frame.and_then(|frame| Some((frame.page()?, frame.commits().is_some()))))
    }

    fn page(&self, page: PageNo, size: usize) -> Option<Vec<u8>> {
        let &at = self.frames.get(&page)?;
        let mut bytes = vec![0; size];
        let read = self.file.read_at(&mut bytes, at + FRAME_HEADER_LEN as u64).ok()?;
        // The WAL may have been started over meanwhile.
        let still_there = matches!(self.frame(at), Ok(Some((found, _))) if found == page);
        (read == size && still_there).then_some(bytes)
    }
}
