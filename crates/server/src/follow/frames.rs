//! Which frame of the WAL holds which page: an index in memory over one life of the WAL, from one reset to the next.
//!
//! It grows as commits are followed and is shared by all snapshots of that life; each looks only at frames up to its
//! own last one. Format of the file: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. Frames that a
//! snapshot covers are committed and do not change, so checksums need no second look; the salts get one.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt};

use parking_lot::RwLock;
use partial_sync_core::{
    PageNo, PageSize,
    wal::{FRAME_HEADER_LEN, FrameHeader, Salts, frame_offset},
};
use roaring::RoaringBitmap;

/// A frame number, from 1 up; 0 = none.
pub(super) type Frame = u32;

/// The pages of the frames `(base, known]` of one life of the WAL.
#[derive(Debug)]
pub(super) struct WalFrames {
    salts: Salts,
    page_size: PageSize,
    index: RwLock<Index>,
}

#[derive(Debug)]
struct Index {
    /// Frames up to this one are not indexed: they were in the main file when the index was made.
    base: Frame,
    /// Page and the frame before it that has the same page, for each frame after `base`.
    frames: Vec<(u32, Frame)>,
    latest: HashMap<u32, Frame>,
}

impl WalFrames {
    /// An index that knows nothing, over frames after `base`.
    pub(super) fn new(salts: Salts, page_size: PageSize, base: Frame) -> Self {
        let index = RwLock::new(Index {
            base,
            frames: Vec::new(),
            latest: HashMap::new(),
        });
        Self {
            salts,
            page_size,
            index,
        }
    }

    /// The life of the WAL that this index is of.
    pub(super) fn salts(&self) -> Salts {
        self.salts
    }

    /// Indexes the frames up to `to`. The caller holds a lock that keeps the WAL from being reset. `false` = a frame of
    /// another life was met, so it was reset all the same.
    pub(super) fn extend(&self, wal: &File, to: Frame) -> io::Result<bool> {
        let (base, known) = {
            let index = self.index.read();
            (index.base, index.base + index.frames.len() as u32)
        };
        let mut read = Vec::new();
        for frame in known + 1..=to {
            let mut header = [0; FRAME_HEADER_LEN];
            wal.read_exact_at(&mut header, self.offset(frame))?;
            let Some(header) = FrameHeader::of(&header).filter(|header| header.salts() == self.salts) else {
                return Ok(false);
            };
            read.push(header.page().map_or(0, PageNo::get));
        }
        let mut index = self.index.write();
        for (page, frame) in read.into_iter().zip(known + 1..) {
            debug_assert_eq!(frame, base + index.frames.len() as u32 + 1);
            let before = index.latest.insert(page, frame).unwrap_or(0);
            index.frames.push((page, before));
        }
        Ok(true)
    }

    /// The last frame up to `max` that has the page.
    pub(super) fn find(&self, page: PageNo, max: Frame) -> Option<Frame> {
        let index = self.index.read();
        let mut frame = index.latest.get(&page.get()).copied()?;
        while frame > max {
            frame = index.frames[(frame - index.base - 1) as usize].1;
        }
        (frame > 0).then_some(frame)
    }

    /// The pages of the frames `(after, to]`, as page numbers.
    pub(super) fn pages_between(&self, after: Frame, to: Frame) -> RoaringBitmap {
        let index = self.index.read();
        let from = after.saturating_sub(index.base) as usize;
        let to = (to.saturating_sub(index.base) as usize).min(index.frames.len());
        index
            .frames
            .get(from..to)
            .unwrap_or_default()
            .iter()
            .map(|(page, _)| *page)
            .collect()
    }

    /// Reads the page in a frame.
    pub(super) fn read(&self, wal: &File, frame: Frame, to: &mut [u8]) -> io::Result<()> {
        wal.read_exact_at(to, self.page_offset(frame))
    }

    /// Where the page of a frame is in the WAL.
    pub(super) fn page_offset(&self, frame: Frame) -> u64 {
        self.offset(frame) + FRAME_HEADER_LEN as u64
    }

    fn offset(&self, frame: Frame) -> u64 {
        frame_offset(u64::from(frame - 1), self.page_size)
    }
}
