//! The header of SQLite's wal-index, the first 136 bytes of the `-shm` file: what a snapshot is known by.
//!
//! Format: <https://www.sqlite.org/walformat.html#the_wal_index_file_format>. Two equal copies of 48 bytes, in the byte
//! order of the machine, then the checkpoint information. Only read here; never written, never locked.

use std::{fs::File, io, os::unix::fs::FileExt};

use partial_sync_core::{PageCount, PageSize, wal::Salts};
use partial_sync_vfs::WAL_INDEX_HEAD_LEN;

const COPY: usize = 48;
const BACKFILL: usize = 96;

/// One committed state of a database, as the wal-index names it. Two equal headers name the same state, and every
/// commit changes the header. (A checkpoint does not; a reset of the WAL does, without a commit.)
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct WalIndexHeader([u8; COPY]);

impl WalIndexHeader {
    /// Stands for a database that has no wal-index and does not change.
    pub const STILL: WalIndexHeader = WalIndexHeader([0; COPY]);

    /// Reads the header; `None` when it is being written right now or was never written.
    pub fn read(shm: &File) -> io::Result<Option<Self>> {
        let mut both = [0; COPY * 2];
        match shm.read_exact_at(&mut both, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        }
        Ok(Self::of(&both))
    }

    /// The same of a wal-index in memory, of which this is the start.
    pub(super) fn of_head(head: &[u8; WAL_INDEX_HEAD_LEN]) -> Option<Self> {
        Self::of(head.first_chunk().expect("136 bytes have 96"))
    }

    fn of(both: &[u8; COPY * 2]) -> Option<Self> {
        let (first, second) = both.split_at(COPY);
        let header = Self(first.try_into().expect("a half of 96 bytes is 48 bytes"));
        let initialized = first[12] == 1;
        (first == second && initialized).then_some(header)
    }

    /// How many frames of the WAL have been copied into the main file. It only grows until the WAL is reset, and the
    /// header changes before it is set back: read the header again after this.
    pub fn read_backfill(shm: &File) -> io::Result<u32> {
        let mut bytes = [0; 4];
        shm.read_exact_at(&mut bytes, BACKFILL as u64)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// The same of a wal-index in memory, of which this is the start.
    pub(super) fn backfill_of_head(head: &[u8; WAL_INDEX_HEAD_LEN]) -> u32 {
        let bytes = head[BACKFILL..].first_chunk().expect("136 bytes have 100");
        u32::from_ne_bytes(*bytes)
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("4 bytes of 48"))
    }

    /// Number of the last valid frame of the WAL; 0 when it is empty.
    pub fn max_frame(&self) -> u32 {
        self.u32_at(16)
    }

    /// Size of the database; 0 when the size of the main file says it.
    pub fn db_size(&self) -> PageCount {
        PageCount(self.u32_at(20))
    }

    /// Page size, when the WAL was written to since the wal-index was made.
    pub fn page_size(&self) -> Option<PageSize> {
        let raw = u32::from(u16::from_ne_bytes([self.0[14], self.0[15]]));
        PageSize::new((raw & 0xfe00) + ((raw & 1) << 16)).ok()
    }

    /// The life of the WAL.
    pub fn salts(&self) -> Salts {
        Salts(self.0[32..40].try_into().expect("8 bytes of 48"))
    }
}

impl std::fmt::Debug for WalIndexHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalIndexHeader")
            .field("max_frame", &self.max_frame())
            .field("db_size", &self.db_size())
            .field("salts", &self.salts())
            .finish_non_exhaustive()
    }
}
