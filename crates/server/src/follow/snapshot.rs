//! One committed state of a database, readable page by page by any number of threads without SQLite and without locks.
//!
//! A snapshot is an open SQLite read transaction together with the wal-index header that this transaction sees. While
//! the transaction is open, SQLite's locks promise that
//! - the frames of the WAL up to the header's last one are not overwritten, if some of them were not in the main file
//!   when it began (the transaction then holds one of the read marks 1 to 4);
//! - no frame after the header's last one reaches the main file.
//!
//! So a page is in the last frame up to the header's last one that has it, else in the main file. When every frame was
//! in the main file already, the WAL is never looked at: then it may be reset at any moment.

use std::{fs::File, io::IoSliceMut, sync::Arc};

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};

use super::{
    frames::{Frame, WalFrames},
    header::WalIndexHeader,
    source::{ReadTransaction, SourceFiles},
};
use crate::error::ServerError;

const TRIES: u32 = 10_000;

/// See the module. The read transaction ends when the last clone of the `Arc` around it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    header: WalIndexHeader,
    page_size: PageSize,
    db_size: PageCount,
    frames: Arc<WalFrames>,
    /// Whether every frame was in the main file when this began.
    main_only: bool,
    /// The frames that lead here could not all be read; see [`Snapshot::pages_changed_after`].
    frames_complete: bool,
    _transaction: ReadTransaction,
    files: Arc<SourceFiles>,
}

impl Snapshot {
    /// Takes a snapshot of the latest state. `previous`, still held, lends its index of the WAL.
    pub fn take(files: &Arc<SourceFiles>, previous: Option<&Snapshot>) -> Result<Self, ServerError> {
        for tries in 0..TRIES {
            if tries > 10 {
                std::thread::yield_now();
            }
            let Some(before) = files.header()? else { continue };
            let transaction = ReadTransaction::begin(files)?;
            // Equal before and after: this header is what the transaction sees. The number of frames in the main file
            // is set back after the header changes, when the WAL is reset: unchanged again, it belongs to this header.
            if files.header()? != Some(before) {
                continue;
            }
            let backfill = files.backfill()?;
            if files.header()? != Some(before) {
                continue;
            }
            return Self::bind(
                files,
                before,
                backfill >= before.max_frame(),
                transaction,
                previous,
            );
        }
        Err(ServerError::NoSnapshot {
            path: files.path().as_ref().clone(),
            tries: TRIES,
        })
    }

    fn bind(
        files: &Arc<SourceFiles>,
        header: WalIndexHeader,
        main_only: bool,
        transaction: ReadTransaction,
        previous: Option<&Snapshot>,
    ) -> Result<Self, ServerError> {
        let last = header.max_frame();
        let page_size = match header.page_size().filter(|_| last > 0) {
            Some(size) => size,
            None => files.page_size()?,
        };
        let db_size = match header.db_size() {
            PageCount::ZERO => files.pages(page_size)?,
            size => size,
        };
        let frames = match previous
            .map(|p| &p.frames)
            .filter(|f| f.salts() == header.salts())
        {
            Some(frames) => Arc::clone(frames),
            None => {
                let base = if previous.is_none() && main_only { last } else { 0 };
                Arc::new(WalFrames::new(header.salts(), page_size, base))
            }
        };
        let frames_complete = match files.wal() {
            Some(wal) if last > 0 => frames.extend(wal, last).map_err(|e| files.io("read", e))?,
            _ => true,
        };
        if !frames_complete && !main_only {
            return Err(ServerError::WalMoved {
                path: files.path().as_ref().clone(),
            });
        }
        Ok(Self {
            header,
            page_size,
            db_size,
            frames,
            main_only,
            frames_complete,
            _transaction: transaction,
            files: Arc::clone(files),
        })
    }

    /// What names this state.
    pub fn header(&self) -> WalIndexHeader {
        self.header
    }

    /// The page size.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The size of the database.
    pub fn db_size(&self) -> PageCount {
        self.db_size
    }

    /// Whether this reads the main file only, so that the WAL may be reset while it is held.
    pub fn is_main_only(&self) -> bool {
        self.main_only
    }

    /// Pages that may differ between `earlier` and this, which was taken while `earlier` was held. A superset, never a
    /// subset.
    pub fn pages_changed_after(&self, earlier: &Snapshot) -> roaring::RoaringBitmap {
        let (small, large) = match self.db_size <= earlier.db_size {
            true => (self.db_size, earlier.db_size),
            false => (earlier.db_size, self.db_size),
        };
        if !self.frames_complete {
            return (1..=large.0).collect();
        }
        // `earlier` kept the WAL from being reset twice: other salts mean that all frames are new.
        let after = match earlier.header.salts() == self.header.salts() {
            true => earlier.header.max_frame(),
            false => 0,
        };
        let mut pages = self.frames.pages_between(after, self.header.max_frame());
        pages.remove_range(large.0.saturating_add(1)..);
        pages.insert_range(small.0.saturating_add(1)..large.0.saturating_add(1));
        pages
    }

    /// Reads a page of the database. Bytes beyond the end of the main file are zero, as SQLite has it.
    pub fn read(&self, page: PageNo) -> Result<Bytes, ServerError> {
        let data = match self.place(page)? {
            (frame, Some(wal)) => self.read_frame(wal, frame)?,
            (_, None) => self.files.read_main(page, self.page_size)?,
        };
        self.check_read()?;
        Ok(data.into())
    }

    /// The same; `None` if the file lacks the page.
    pub(super) fn read_here(&self, page: PageNo) -> Result<Option<Bytes>, ServerError> {
        let data = match self.place(page)? {
            (frame, Some(wal)) => Some(self.read_frame(wal, frame)?),
            (_, None) => self.files.read_main_here(page, self.page_size)?,
        };
        self.check_read()?;
        Ok(data.map(Bytes::from))
    }

    fn read_frame(&self, wal: &File, frame: Frame) -> Result<Vec<u8>, ServerError> {
        let mut data = vec![0; self.page_size.as_usize()];
        let read = self.frames.read(wal, frame, &mut data);
        read.map_err(|e| self.files.io("read", e))?;
        Ok(data)
    }

    /// Reads pages, if that does not wait for a disk; `false` where it would, or where that cannot be told. To be followed by
    /// [`Snapshot::check_read`].
    pub fn read_at_once(&self, pages: &[PageNo], to: &mut [IoSliceMut<'_>]) -> Result<bool, ServerError> {
        let size = self.page_size.as_usize() as u64;
        let mut done = 0;
        let Some(main) = self.files.whole() else {
            return Ok(false);
        };
        while let Some(page) = pages.get(done) {
            let (frame, wal) = self.place(*page)?;
            let (file, at, count) = match wal {
                Some(wal) => (wal, self.frames.page_offset(frame), 1),
                None => {
                    // Neighbours in the main file are read by one call.
                    let mut count = 1;
                    while let Some(next) = pages.get(done + count)
                        && next.get() - page.get() == count as u32
                        && self.place(*next)?.1.is_none()
                    {
                        count += 1;
                    }
                    (main, page.offset(self.page_size), count)
                }
            };
            // Up to the end of the main file: a page that is not whole is left to the other way.
            if !at_once::read(file, &mut to[done..done + count], at, count as u64 * size) {
                return Ok(false);
            }
            done += count;
        }
        Ok(true)
    }

    /// What was read before this succeeds was read while the transaction was open.
    pub fn check_read(&self) -> Result<(), ServerError> {
        self.files.check_open()
    }

    /// The frame and the WAL, or no WAL: it is in the main file.
    fn place(&self, page: PageNo) -> Result<(Frame, Option<&File>), ServerError> {
        if !self.db_size.contains(page) {
            return Err(ServerError::NoSuchPage {
                page,
                size: self.db_size,
            });
        }
        let frame = match self.main_only {
            true => None,
            false => self.frames.find(page, self.header.max_frame()),
        };
        Ok(match (frame, self.files.wal()) {
            (Some(frame), Some(wal)) => (frame, Some(wal)),
            _ => (0, None),
        })
    }
}

/// Reading that waits for no disk.
mod at_once {
    use std::{fs::File, io::IoSliceMut};

    #[cfg(target_os = "linux")]
    pub(super) fn read(file: &File, to: &mut [IoSliceMut<'_>], at: u64, bytes: u64) -> bool {
        use rustix::io::{ReadWriteFlags, preadv2};
        preadv2(file, to, at, ReadWriteFlags::NOWAIT).is_ok_and(|read| read as u64 == bytes)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(_: &File, _: &mut [IoSliceMut<'_>], _: u64, _: u64) -> bool {
        false
    }
}
