//! What is known of a file once all of it was read or written.

use crate::{header::Header, index::PageIndex, position::Position, trailer::Trailer};

/// All that a file has beside its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The header.
    pub header: Header,
    /// Where the pages are.
    pub index: PageIndex,
    /// The checksums.
    pub trailer: Trailer,
    /// How many bytes the file has.
    pub len: u64,
}

impl Contents {
    /// Where the frames end: what is there and behind it is all that [`PageIndex::parse_tail`] needs.
    pub fn tail_at(&self) -> u64 {
        self.index.end()
    }

    /// Where a database is to which the file was applied.
    pub fn position(&self) -> Position {
        Position {
            id: self.header.ids.max(),
            page_size: self.header.page_size,
            checksum: self.trailer.post_apply,
        }
    }
}
