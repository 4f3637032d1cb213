//! Files of the LTX format, version 3: the pages that one or more transactions changed in a SQLite database, as Litestream
//! keeps them in a bucket.
//!
//! [`Writer`] makes a file, [`Reader`] reads one from its beginning to its end and checks all of it, and [`PageIndex`] finds
//! single pages of one by ranges of its bytes. What the format says, and what is refused, is in `docs/ltx.md`.
//!
//! Nothing here opens, waits, or is unsafe: bytes come from a [`std::io::Read`] or a slice and go to a [`std::io::Write`], and
//! everything that is not bytes is a value. Any bytes are read as a file or give an [`LtxError`]; none of them panic. Memory is
//! taken for one page, its compressed bytes, and the place of each page that the file really has; never because a file says a size.
//!
//! ```
//! use partial_sync_core::{PageCount, PageNo, PageSize};
//! use partial_sync_ltx::{Header, LtxError, PreApply, Reader, TxId, TxRange, Writer};
//!
//! # fn main() -> Result<(), LtxError> {
//! let header = Header {
//!     page_size: PageSize::DEFAULT,
//!     commit: PageCount(1),
//!     ids: TxRange::one(TxId::FIRST),
//!     timestamp: 1_700_000_000_000,
//!     pre_apply: PreApply::Nothing,
//!     wal: None,
//!     node: 0,
//! };
//! let mut writer = Writer::new(Vec::new(), header)?;
//! writer.page(PageNo::FIRST, &[7; 4096])?;
//! let (file, written) = writer.finish(None)?;
//!
//! let mut reader = Reader::new(&file[..])?;
//! while let Some((page, bytes)) = reader.next_page()? {
//!     assert_eq!((page.get(), bytes[0]), (1, 7));
//! }
//! // Only now is it known that the pages are what was written.
//! assert_eq!(reader.finish()?, written);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod checksum;
mod contents;
mod error;
mod frame;
mod header;
mod ids;
mod index;
mod input;
mod lz4_frame;
mod order;
mod position;
mod reader;
mod trailer;
mod writer;

pub use checksum::Checksum;
pub use contents::Contents;
pub use error::LtxError;
pub use frame::decode_frame;
pub use header::{HEADER_LEN, Header, PreApply, Wal};
pub use ids::{TxId, TxRange};
pub use index::{PageIndex, read_tail};
pub use position::Position;
pub use reader::Reader;
pub use trailer::{TRAILER_LEN, Trailer};
pub use writer::Writer;
