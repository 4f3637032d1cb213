//! The checksum of the format: CRC-64/GO-ISO with the highest bit set, so that no checksum is 0.
//!
//! That of a database is the exclusive or of those of its pages, so it can be kept up while single pages change. What must
//! never happen here: that the page of SQLite's locks is counted, which is in no file.

use std::fmt;

use crc::{CRC_64_GO_ISO, Crc, Digest, Table};
use partial_sync_core::PageNo;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// Set in every checksum.
const FLAG: u64 = 1 << 63;

/// A checksum of a page, of a database or of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(u64);

impl Checksum {
    /// That of a database without pages.
    pub const EMPTY: Self = Self(FLAG);

    /// A checksum as it is stored; `None` if the highest bit is not set, which is of none.
    pub const fn of_stored(stored: u64) -> Option<Self> {
        match stored & FLAG {
            0 => None,
            _ => Some(Self(stored)),
        }
    }

    /// As it is stored.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// That of a page: of its number and its bytes.
    pub fn of_page(page: PageNo, bytes: &[u8]) -> Self {
        let mut digest = FileDigest::new();
        digest.update(&page.get().to_be_bytes());
        digest.update(bytes);
        digest.finish()
    }

    /// That of the database when a page with the checksum `page` is added to it; or taken from it, which is the same. A page
    /// that changes is taken with its old bytes and added with its new ones. The page of SQLite's locks
    /// ([`PageNo::lock_byte`]) is never added.
    #[must_use]
    pub const fn toggled(self, page: Self) -> Self {
        Self(self.0 ^ page.0 | FLAG)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checksum {:016x}", self.0)
    }
}

/// The checksum of a file while it is read or written.
pub(crate) struct FileDigest(Digest<'static, u64, Table<16>>);

impl FileDigest {
    pub(crate) fn new() -> Self {
        Self(CRC.digest())
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Checksum {
        Checksum(self.0.finalize() | FLAG)
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileDigest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_go() {
        // The check value of CRC-64/GO-ISO in the catalogue of CRCs, where bit 63 is set already.
        let mut digest = FileDigest::new();
        digest.update(b"123456789");
        assert_eq!(digest.finish().get(), 0xb909_56c7_75a4_1001);
        assert_eq!(FileDigest::new().finish(), Checksum::EMPTY);
    }

    #[test]
    fn a_page_that_is_taken_leaves_what_was_before() {
        let page = |no, byte| Checksum::of_page(PageNo::new(no).unwrap(), &[byte; 512]);
        let one = Checksum::EMPTY.toggled(page(1, 7));
        assert_eq!(one, page(1, 7));
        let both = one.toggled(page(2, 7));
        assert_ne!(both, one.toggled(page(2, 8)));
        assert_eq!(both.toggled(page(2, 7)), one);
        assert_eq!(one.toggled(page(1, 7)), Checksum::EMPTY);
        assert_eq!(Checksum::of_stored(5), None);
        assert_eq!(Checksum::of_stored(FLAG | 5).unwrap().get(), FLAG | 5);
    }
}
