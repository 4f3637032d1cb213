//! Why bytes are not an LTX file, or cannot be made one; and where.

use std::io;

use partial_sync_core::{InvalidPageSize, PageCount, PageNo, PageSize};

use crate::{checksum::Checksum, ids::TxRange};

/// What is wrong with a file, or with what was to be written. `at` is the offset in the file, in bytes, at which the wrong part
/// begins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LtxError {
    /// What the bytes come from gave an error.
    #[error("byte {at} of the LTX file cannot be read: {source}")]
    Read {
        /// Where.
        at: u64,
        /// The error.
        source: io::Error,
    },
    /// What the bytes go to gave an error.
    #[error("byte {at} of the LTX file cannot be written: {source}")]
    Write {
        /// Where, at the latest.
        at: u64,
        /// The error.
        source: io::Error,
    },
    /// A reader or a writer is used after it gave an error.
    #[error("the LTX file had an error before and cannot be continued: begin it from the start")]
    Failed,
    /// The file ends too soon.
    #[error("the LTX file ends at byte {at}, within {part}: it was cut off, get it again")]
    Cut {
        /// Where it ends.
        at: u64,
        /// In the middle of what.
        part: &'static str,
    },
    /// Bytes follow the trailer.
    #[error(
        "the LTX file continues at byte {at}, behind its trailer: it is damaged, or was joined with another"
    )]
    Continues {
        /// The first byte that should not be there.
        at: u64,
    },
    /// The magic is not there.
    #[error("this is not an LTX file: it does not begin with \"LTX1\"")]
    Magic,
    /// A flag of the header that is not known.
    #[error("the LTX header has the flags {0:#010x}, of which only 0x00000002 is known: use a newer program")]
    HeaderFlags(u32),
    /// The page size is not one of SQLite's.
    #[error("the LTX header is damaged: {0}")]
    PageSize(#[from] InvalidPageSize),
    /// More pages than a database can have.
    #[error("the LTX header says a database of {0} pages, more than SQLite allows")]
    Commit(PageCount),
    /// The transaction ids are not a range.
    #[error(
        "the LTX header says the transactions {min} to {max}: ids count from 1, and the first is not after the last"
    )]
    Ids {
        /// The first as stored.
        min: u64,
        /// The last as stored.
        max: u64,
    },
    /// What is said of the WAL contradicts itself.
    #[error("the LTX header is wrong about the WAL at byte {at}: {why}")]
    Wal {
        /// Where.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The checksum of the database before or after the file is not what such a file has.
    #[error("byte {at} of the LTX file: the checksum of the database is {stored:016x}, but {why}")]
    DatabaseChecksum {
        /// Where.
        at: u64,
        /// As stored; 0 is none.
        stored: u64,
        /// The rule.
        why: &'static str,
    },
    /// A byte that has no meaning yet is not 0.
    #[error(
        "byte {at} of the LTX header has no meaning in version 3 and is not 0: use a newer program, or the file is damaged"
    )]
    Reserved {
        /// Where.
        at: u64,
    },
    /// A frame as version 2 has it.
    #[error("byte {at} of the LTX file begins a frame of version 2 of the format; only version 3 is read")]
    Version2 {
        /// The frame.
        at: u64,
    },
    /// A flag of a frame that is not known, or a frame of page 0.
    #[error(
        "byte {at} of the LTX file begins a frame of page {page} with the flags {flags:#06x}, which is none"
    )]
    FrameHead {
        /// The frame.
        at: u64,
        /// Its page as stored.
        page: u32,
        /// Its flags.
        flags: u16,
    },
    /// A page is not behind the one before it.
    #[error("byte {at} of the LTX file: page {page} follows page {before}, but pages are in ascending order")]
    Order {
        /// The frame, or the entry of the index.
        at: u64,
        /// The page.
        page: PageNo,
        /// The one before it.
        before: PageNo,
    },
    /// A page past the end of the database.
    #[error("byte {at} of the LTX file: page {page} is not in a database of {commit} pages")]
    Beyond {
        /// The frame, or the entry of the index.
        at: u64,
        /// The page.
        page: PageNo,
        /// The size of the database.
        commit: PageCount,
    },
    /// The page of SQLite's locks.
    #[error("byte {at} of the LTX file: page {page} is that of SQLite's locks, which is never stored")]
    LockPage {
        /// The frame, or the entry of the index.
        at: u64,
        /// The page.
        page: PageNo,
    },
    /// A snapshot without a page.
    #[error(
        "byte {at} of the LTX file: page {page} should come here; a file from transaction 1 on has every page"
    )]
    Missing {
        /// Where it is missing.
        at: u64,
        /// The page.
        page: PageNo,
    },
    /// A compressed page that no compressor makes so large, or one of no bytes.
    #[error("byte {at} of the LTX file: page {page} has {size} compressed bytes; 1 to {limit} are read")]
    FrameSize {
        /// The frame.
        at: u64,
        /// The page.
        page: PageNo,
        /// The size said; or more than the limit, of a frame that does not say it.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A page that is not what its compression says.
    #[error("byte {at} of the LTX file: page {page} cannot be decompressed: {why}")]
    Compressed {
        /// The frame.
        at: u64,
        /// The page.
        page: PageNo,
        /// What LZ4 says.
        why: String,
    },
    /// A page that does not have the bytes of a page.
    #[error("byte {at} of the LTX file: page {page} has {got} bytes in place of {page_size}")]
    PageLength {
        /// The frame.
        at: u64,
        /// The page.
        page: PageNo,
        /// How many it has.
        got: usize,
        /// How many it should have.
        page_size: PageSize,
    },
    /// A number of the index that does not end, or is too large.
    #[error("byte {at} of the LTX file: a number of the page index is not a varint of at most 64 bits")]
    Varint {
        /// Where.
        at: u64,
    },
    /// An entry of the index that does not say where the frame is.
    #[error("byte {at} of the LTX file: the page index is wrong, {why}")]
    Index {
        /// The entry.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The checksum of the file is none.
    #[error(
        "the LTX file is damaged: byte {at} should begin its checksum, but {stored:016x} has not the highest bit set"
    )]
    NoFileChecksum {
        /// Where.
        at: u64,
        /// As stored.
        stored: u64,
    },
    /// The checksum of the file is not that of its content.
    #[error(
        "the LTX file is damaged: its checksum at byte {at} is {stored:016x}, that of its content {computed}"
    )]
    FileChecksum {
        /// Where.
        at: u64,
        /// As stored.
        stored: u64,
        /// That of what was read.
        computed: Checksum,
    },
    /// The frame of a page that is not the one that was asked for.
    #[error("byte {at} of the LTX file should begin the frame of page {page}: get the page index again")]
    OtherFrame {
        /// Where it should be.
        at: u64,
        /// The page.
        page: PageNo,
    },
    /// The file does not continue a database.
    #[error("the LTX file of the transactions {ids} does not continue the database: {why}")]
    Position {
        /// The file.
        ids: TxRange,
        /// What is wrong.
        why: &'static str,
    },
}
