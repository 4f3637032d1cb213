//! What of a replica survives a crash: the page map on disk, and how far the WAL is accounted for in it. The map is written
//! only after the data it speaks of was synced, and always before SQLite may forget the WAL that made a page dirty.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use partial_sync_core::{
    PageCount, PageMap, PageSize, Save, SaveTo, SavedPageMap,
    wal::{self, FrameHeader, Salts},
};

use super::state::Replica;
use crate::{
    error::ReadError,
    storage::{Storage, StorageFile, read_whole, side_file_path, write_whole},
};

/// A page map larger than this is not a page map: twice what all pages that there can be take at worst.
const MAP_BYTES: u64 = if cfg!(target_pointer_width = "64") {
    5 << 29
} else {
    1 << 30
};

/// How far a WAL was accounted for: frames up to here, of the WAL with these salts, are in the saved dirty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalMark {
    /// The two salts of the WAL's header.
    pub salts: [u32; 2],
    /// Bytes of the WAL file.
    pub bytes: u64,
}

/// Saves what changed in the page map of the replica at `path`: one saver at a time. `sync_pages` makes durable what it
/// speaks of.
pub fn save_page_map(
    storage: &dyn Storage,
    path: &Path,
    map: &PageMap,
    page_size: PageSize,
    size: PageCount,
    sync_pages: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let path = Replica::map_path(path);
    loop {
        // Taken before the sync: a page that becomes present after it is not claimed.
        let save = Save::of(map, page_size, size);
        sync_pages()?;
        match &save.file {
            SaveTo::Whole(bytes) => write_whole(storage, &path, bytes)?,
            SaveTo::Append { end, first, then } => {
                let file = match storage.open(&path, false) {
                    // It is written as a whole next time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file?,
                };
                if file.len()? < *end {
                    continue;
                }
                for (offset, bytes) in first {
                    file.write_at(bytes, *offset)?;
                }
                file.sync()?;
                file.write_at(&then.1, then.0)?;
                file.sync()?;
            }
        }
        save.succeeded(map);
        return Ok(());
    }
}

impl Replica {
    /// The page map file of the replica at `path`.
    pub fn map_path(path: &Path) -> PathBuf {
        side_file_path(path, "-pages")
    }

    /// What a replica at `path` knows of itself: by this file another database tells that it is one.
    pub fn info_path(path: &Path) -> PathBuf {
        side_file_path(path, "-info")
    }

    /// The WAL of the replica at `path`. Not where SQLite would look without us: another program that finds a WAL there
    /// copies it into the database file and removes it, even when it then refuses the file.
    pub fn wal_path(path: &Path) -> PathBuf {
        side_file_path(path, "-replica-wal")
    }

    /// The WAL of this one.
    pub(crate) fn wal_file(&self) -> PathBuf {
        match self.whole {
            true => side_file_path(&self.path, "-wal"),
            false => Self::wal_path(&self.path),
        }
    }

    /// Reads the saved page map, but for pages from `end` on; `None` when there is none. An error of the kind `InvalidData` is
    /// the map's own complaint.
    pub fn load_map(storage: &dyn Storage, path: &Path, end: PageCount) -> io::Result<Option<SavedPageMap>> {
        let file = Self::map_path(path);
        let Some(bytes) = read_whole(storage, &file, MAP_BYTES)? else {
            return Ok(None);
        };
        // A process that was killed may have written it, or given it its name, and not come to the sync. What is believed from here
        // on, and continued, is what a power failure leaves.
        storage.open(&file, false)?.sync()?;
        storage.sync_folder(&file)?;
        SavedPageMap::decode(&bytes, end)
            .map(Some)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Makes the page map durable, and before it the data it speaks of. Does nothing when nothing changed since.
    pub fn save_map(&self) -> io::Result<()> {
        if self.whole || !self.map.changed_since_saved() {
            return Ok(());
        }
        self.claim().map_err(io::Error::other)?;
        self.save_claimed_map()
    }

    /// The same where the file cannot be an ordinary one.
    pub(crate) fn save_claimed_map(&self) -> io::Result<()> {
        if self.whole || self.temporary {
            return Ok(());
        }
        let _saving = self.saving.lock();
        if !self.map.changed_since_saved() {
            return Ok(());
        }
        let size = self.base().size;
        save_page_map(
            &*self.storage,
            &self.path,
            &self.map,
            self.page_size,
            size,
            || self.main.sync(),
        )
    }

    /// Marks what the WAL says since `mark`: the pages of its frames, and those that its commits cut off, are dirty. For a replica
    /// that is being opened.
    pub fn account_for_wal(&self, mark: Option<WalMark>) -> io::Result<()> {
        let path = self.wal_file();
        if !self.storage.exists(&path)? {
            return Ok(());
        }
        let file = self.storage.open(&path, false)?;
        let mut header = [0; wal::HEADER_LEN];
        if file.read_at(&mut header, 0)? < header.len() {
            return Ok(());
        }
        let salts = Salts::of_header(&header);
        let skip = mark.filter(|m| m.salts == salts.numbers()).map_or(0, |m| {
            m.bytes.saturating_sub(wal::HEADER_LEN as u64) / wal::frame_len(self.page_size)
        });
        let mut header = [0; wal::FRAME_HEADER_LEN];
        let mut end = PageCount(u32::MAX);
        for index in skip.. {
            let read = file.read_at(&mut header, wal::frame_offset(index, self.page_size))?;
            let Some(frame) = FrameHeader::of(&header[..read]).filter(|frame| frame.salts() == salts) else {
                break;
            };
            if let Some(page) = frame.page() {
                self.map.set_dirty(page);
            }
            end = frame.commits().map_or(end, |size| end.min(size));
        }
        self.map.cut_off(end);
        Ok(())
    }

    /// How far the WAL goes now: up to its last commit, which is durable when this returns. Frames after it do not count
    /// even if they are there: those of a transaction that was rolled back are overwritten by the next one.
    pub fn wal_mark(&self) -> io::Result<Option<WalMark>> {
        let Some((salts, frames)) = self.wal_index.lock().committed() else {
            return Ok(None);
        };
        self.sync_wal()?;
        Ok(Some(WalMark {
            salts,
            bytes: wal::frame_offset(frames.into(), self.page_size),
        }))
    }

    /// Makes sure that a COMMIT that failed does not come back: SQLite leaves its frames in the WAL, and where only the
    /// sync failed they are complete, so that the next recovery would take them. For the handle that holds the write
    /// lock, before it gives it back. When that fails too, a crash may bring the commit back, whole; the file that says
    /// what it means is still there then.
    pub(crate) fn forget_uncommitted(&self) {
        let cut = self.cut_wal_at_last_commit();
        self.may_come_back.store(cut.is_err(), Ordering::Release);
        if let Err(error) = cut {
            tracing::warn!(%error, path = %self.path.display(), "a commit that failed could not be taken out of the WAL");
        }
    }

    /// Whether the last commit that failed on a connection that [never fetches](crate::sqlite::Conn::never_fetch) may come
    /// back after a crash.
    pub fn failed_commit_may_come_back(&self) -> bool {
        self.may_come_back.load(Ordering::Acquire)
    }

    fn cut_wal_at_last_commit(&self) -> io::Result<()> {
        let path = self.wal_file();
        let Some((salts, frames)) = self.wal_index.lock().committed() else {
            return Ok(());
        };
        if !self.storage.exists(&path)? {
            return Ok(());
        }
        let file = self.storage.open(&path, false)?;
        let at = wal::frame_offset(frames.into(), self.page_size);
        let mut header = [0; wal::FRAME_HEADER_LEN];
        let read = file.read_at(&mut header, at)?;
        if FrameHeader::of(&header[..read]).is_none_or(|frame| frame.salts().numbers() != salts) {
            return Ok(());
        }
        // A frame without salts ends the WAL.
        file.write_at(&[0; wal::FRAME_HEADER_LEN], at)?;
        file.sync()
    }

    /// Bytes of the WAL file.
    pub fn wal_bytes(&self) -> io::Result<u64> {
        self.open_wal()?.map_or(Ok(0), |wal| wal.len())
    }

    /// The WAL, if there is one. The last connection that closes removes it, at any moment.
    fn open_wal(&self) -> io::Result<Option<Arc<dyn StorageFile>>> {
        match self.storage.open(&self.wal_file(), false) {
            Ok(wal) => Ok(Some(wal)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes every commit so far durable, whatever `PRAGMA synchronous` says.
    pub fn sync_wal(&self) -> io::Result<()> {
        self.open_wal()?.map_or(Ok(()), |wal| self.sync_wal_file(&*wal))
    }

    /// The same for commits that a checkpoint has moved to the main file meanwhile: where `PRAGMA synchronous` says so, it
    /// syncs nothing either.
    pub fn sync_commits(&self) -> io::Result<()> {
        // The WAL first: what leaves it after that is synced on its way out.
        self.sync_wal()?;
        self.main.sync()
    }

    /// Syncs the WAL, and its name when that is new: a file without a name is lost in a power failure.
    pub(crate) fn sync_wal_file(&self, wal: &dyn StorageFile) -> io::Result<()> {
        wal.sync()?;
        if !self.wal_is_named.load(Ordering::Acquire) {
            self.storage.sync_folder(&self.path)?;
            self.wal_is_named.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The WAL is about to be made or was deleted.
    pub(crate) fn wal_has_no_name(&self) {
        self.wal_is_named.store(false, Ordering::Release);
    }

    /// SQLite writes to the WAL: whatever page a frame names is dirty from now on, committed or not. So is what a commit cuts off,
    /// although SQLite writes nothing of it: a checkpoint passes by the copies of it that are in the WAL, and nobody sees them
    /// there afterwards.
    pub(crate) fn note_wal_write(&self, data: &[u8], offset: u64) -> Result<(), ReadError> {
        if self.whole {
            return Ok(());
        }
        if offset == 0 {
            // A new header, and the old frames are overwritten.
            return self.before_wal_goes();
        }
        let Some(in_frames) = offset.checked_sub(wal::HEADER_LEN as u64) else {
            return Ok(());
        };
        let first = in_frames.div_ceil(wal::frame_len(self.page_size));
        for frame in first.. {
            let at = (wal::frame_offset(frame, self.page_size) - offset) as usize;
            let Some(header) = data.get(at..) else { break };
            if let Some(page) = wal::page_of_frame(header) {
                self.map.set_dirty(page);
            }
            if let Some(size) = FrameHeader::of(header).and_then(FrameHeader::commits)
                && size.bytes(self.page_size) < self.file_size()
            {
                self.map.cut_off(size);
            }
        }
        Ok(())
    }
}
