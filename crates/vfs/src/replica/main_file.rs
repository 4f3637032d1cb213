//! Reads and writes of a replica's main file, as SQLite does them. A page that is here is read from the file, without a lock; one
//! that is not is obtained (`fetch`). Nothing that is here is ever overwritten by a fetch.

use std::{io, sync::atomic::Ordering, time::Instant};

use partial_sync_core::{Epoch, PageCount, PageId, PageNo};

use super::{
    hidden::{hide, show},
    state::Replica,
};
use crate::error::ReadError;

/// What a read of a page that is not here gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The page, fetched.
    #[default]
    Fetch,
    /// Zeros: the handle only overwrites pages, or reads those that are here. See
    /// [`Conn::never_fetch`](crate::sqlite::Conn::never_fetch).
    Zeros,
}

impl Replica {
    /// Bytes of the main file, as SQLite is told.
    pub fn file_size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Reads bytes of the main file for a handle whose read transaction belongs to `epoch`. Returns how many bytes lie
    /// within the file.
    pub(crate) fn read(
        &self,
        epoch: Epoch,
        absent: Absent,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, ReadError> {
        let read = self.read_hidden(epoch, absent, buf, offset)?;
        if !self.whole {
            show(&mut buf[..read], offset);
        }
        Ok(read)
    }

    fn read_hidden(
        &self,
        epoch: Epoch,
        absent: Absent,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, ReadError> {
        if self.is_closed() {
            return Err(ReadError::Closed);
        }
        if self.whole {
            return self.read_main(buf, offset);
        }
        let available = self.file_size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let page_len = self.page_size.as_usize();
        // Nearly every read is one whole page that is here; page sizes are powers of two.
        if available == page_len
            && offset & (page_len as u64 - 1) == 0
            && !self.prefetch.load(Ordering::Relaxed)
            && let Some(page) = u32::try_from(offset >> page_len.trailing_zeros())
                .ok()
                .and_then(|id| PageId(id).no())
            && let Some(seen) = self.map.look(page, epoch)
            && self.read_main(buf, offset)? == page_len
            && seen.is_still()
        {
            return Ok(page_len);
        }
        let mut done = 0;
        while done < available {
            let position = offset + done as u64;
            let page = PageNo::containing(position, self.page_size).ok_or(ReadError::BeyondEnd)?;
            let within = (position % page_len as u64) as usize;
            let n = (page_len - within).min(available - done);
            self.read_in_page(epoch, absent, page, within, &mut buf[done..done + n])?;
            done += n;
        }
        Ok(available)
    }

    fn read_main(&self, buf: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        self.main
            .read_at(buf, offset)
            .map_err(ReadError::io("read", &self.path))
    }

    fn read_in_page(
        &self,
        epoch: Epoch,
        absent: Absent,
        page: PageNo,
        within: usize,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let mut deadline = None;
        loop {
            let seen = self.map.look(page, epoch);
            if seen.is_none() && self.map.is_absent_for(page, epoch) {
                if absent == Absent::Zeros {
                    buf.fill(0);
                    return Ok(());
                }
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.wait);
                if let Some(bytes) = self.obtain(epoch, page, deadline)? {
                    buf.copy_from_slice(&bytes[within..within + buf.len()]);
                    self.observe(page, within, buf);
                    return Ok(());
                }
                continue;
            }
            let n = self.read_main(buf, page.offset(self.page_size) + within as u64)?;
            buf[n..].fill(0);
            if seen.map_or_else(|| self.map.is_kept_for(page, epoch), |seen| seen.is_still()) {
                self.observe(page, within, buf);
                return Ok(());
            }
        }
    }

    /// The main file's copy of a page that is present; `None` when it is absent. The WAL may hold a newer one, of a local
    /// write or of a pull.
    pub fn read_present(&self, page: PageNo) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.page_size.as_usize()];
        loop {
            let Some(seen) = self.map.look_for_any(page) else {
                return Ok(None);
            };
            let n = self.main.read_at(&mut bytes, page.offset(self.page_size))?;
            bytes[n..].fill(0);
            if seen.is_still() {
                show(&mut bytes, page.offset(self.page_size));
                return Ok(Some(bytes));
            }
        }
    }

    /// The main file's copy of a page, as SQLite would read it now: fetched if it is absent.
    pub fn read_page(&self, page: PageNo) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; self.page_size.as_usize()];
        self.read(
            self.epoch(),
            Absent::Fetch,
            &mut bytes,
            page.offset(self.page_size),
        )?;
        Ok(bytes)
    }

    /// A checkpoint writes to the main file.
    pub(crate) fn write_main(&self, data: &[u8], offset: u64) -> Result<(), ReadError> {
        let _fill = self.fill.lock();
        let hidden = if self.whole { None } else { hide(data, offset) };
        self.main
            .write_at(hidden.as_deref().unwrap_or(data), offset)
            .map_err(ReadError::io("write", &self.path))?;
        let page_len = self.page_size.as_usize() as u64;
        // SQLite writes whole pages; a part of one would not make it present.
        if !self.whole
            && offset.is_multiple_of(page_len)
            && data.len() as u64 == page_len
            && let Some(page) = PageNo::containing(offset, self.page_size)
        {
            // No reader needs an older copy, or SQLite would not checkpoint the page: visible to every epoch.
            self.map.set_present(page, Epoch(0));
        }
        self.size.fetch_max(offset + data.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) fn truncate_main(&self, len: u64) -> Result<(), ReadError> {
        let _fill = self.fill.lock();
        if !self.whole {
            self.map.truncate(PageCount(self.page_size.pages_for(len) as u32));
        }
        self.main
            .set_len(len)
            .map_err(ReadError::io("truncate", &self.path))?;
        self.size.store(len, Ordering::Release);
        Ok(())
    }

    pub(crate) fn sync_main(&self) -> Result<(), ReadError> {
        self.main.sync().map_err(ReadError::io("sync", &self.path))?;
        self.save_map_for_sqlite()
    }

    /// SQLite is about to forget the WAL: what its frames made dirty, and what they held, must be on disk. A checkpoint does
    /// not see to that where `PRAGMA synchronous` is off.
    pub(crate) fn before_wal_goes(&self) -> Result<(), ReadError> {
        match self.whole {
            true => Ok(()),
            false => self.sync_main(),
        }
    }

    /// As [`Self::save_map`], naming the file when it fails.
    fn save_map_for_sqlite(&self) -> Result<(), ReadError> {
        self.save_claimed_map()
            .map_err(ReadError::io("save", &Self::map_path(&self.path)))
    }
}
