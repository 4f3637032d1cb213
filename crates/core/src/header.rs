//! The database header: the first 100 bytes of page 1 (<https://www.sqlite.org/fileformat2.html#database_header>).
//!
//! It tells the page size and the usable size that every other page is read with. Its fields are read and written here and
//! nowhere else: single ones through [`Page1`], all of them, checked, through [`DatabaseHeader`]. What this file must never do:
//! let [`DatabaseHeader::parse`] accept what SQLite itself would call "not a database".

use std::ops::Range;

use crate::types::{InvalidPageSize, PageCount, PageSize};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 100;

/// The first 16 bytes of every database.
pub const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Offset of the page size, as [`PageSize::of_header`] reads it.
const PAGE_SIZE_AT: usize = 16;

/// Offset of the write version and, after it, of the read version: 1 = rollback journal, 2 = WAL.
pub const VERSIONS_AT: usize = 18;

/// Write and read version of a database in WAL mode, as every replica is for SQLite.
pub const WAL_MODE: [u8; 2] = [2, 2];

/// Offset of how many bytes at the end of each page SQLite leaves alone.
pub const RESERVED_AT: usize = 20;

/// Where the version of SQLite is noted that wrote last outside WAL mode; SQLite itself reads it nowhere.
pub const WRITER: Range<usize> = 96..100;

/// Offset of the file change counter, 4 bytes, big-endian.
const CHANGE_COUNTER_AT: usize = 24;

/// Offset of the schema cookie, 4 bytes, big-endian.
const SCHEMA_COOKIE_AT: usize = 40;

/// The least usable size that SQLite accepts.
pub const MIN_USABLE_SIZE: u32 = 480;

/// What the header of a database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseHeader {
    /// Bytes of a page; stored as 1 when it is 65536.
    pub page_size: PageSize,
    /// Bytes at the end of every page that SQLite leaves alone.
    pub reserved: u8,
    /// 1 = rollback journal, 2 = WAL; more: only to be read.
    pub write_version: u8,
    /// 1 = rollback journal, 2 = WAL.
    pub read_version: u8,
    /// Goes up with each transaction outside WAL mode.
    pub change_counter: u32,
    /// The size in pages, as stored; see [`DatabaseHeader::db_size`].
    pub stored_db_size: u32,
    /// First page of the freelist, or 0.
    pub first_free_page: u32,
    /// How many pages the freelist has.
    pub free_page_count: u32,
    /// Changes with the schema.
    pub schema_cookie: u32,
    /// Not 0: the database has pointer-map pages (auto-vacuum or incremental vacuum).
    pub largest_root: u32,
    /// 1 = UTF-8, 2 = UTF-16le, 3 = UTF-16be; 0 in a database without a schema.
    pub text_encoding: u32,
    /// `PRAGMA user_version`.
    pub user_version: u32,
    /// `PRAGMA application_id`.
    pub application_id: u32,
    /// The change counter when `stored_db_size` was written.
    pub version_valid_for: u32,
}

/// Why bytes are not a header of a SQLite database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Fewer than 100 bytes.
    #[error("a database header has {HEADER_LEN} bytes, got {0}: page 1 is incomplete")]
    Short(usize),
    /// The magic is not there.
    #[error(
        "this is not a SQLite database: it does not begin with \"SQLite format 3\" (an encrypted one does not either)"
    )]
    Magic,
    /// The page size is not one of SQLite's.
    #[error("the database header is damaged: {0}")]
    PageSize(#[from] InvalidPageSize),
    /// The reserved bytes leave too little of a page.
    #[error(
        "the database header is damaged: {reserved} reserved bytes leave less than 480 of a page of {page_size}"
    )]
    Reserved {
        /// The page size.
        page_size: PageSize,
        /// Byte 20 of the header.
        reserved: u8,
    },
    /// Written in a format that this SQLite cannot read.
    #[error(
        "the database has read version {0}; only 1 (rollback journal) and 2 (WAL) are known: use a newer program"
    )]
    ReadVersion(u8),
    /// The payload fractions are not the only allowed ones.
    #[error("the database header is damaged: its payload fractions are not 64, 32 and 32")]
    Fractions,
}

/// Single fields of a header of which nothing but the first 16 bytes is checked.
#[derive(Clone, Copy, Debug)]
pub struct Page1<'a>(&'a [u8; HEADER_LEN]);

impl<'a> Page1<'a> {
    /// The header at the start of `page_1`.
    pub fn of(page_1: &'a [u8]) -> Result<Self, HeaderError> {
        let header: &[u8; HEADER_LEN] = page_1.first_chunk().ok_or(HeaderError::Short(page_1.len()))?;
        match header.starts_with(MAGIC) {
            true => Ok(Self(header)),
            false => Err(HeaderError::Magic),
        }
    }

    const fn number(self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Write and read version.
    pub const fn versions(self) -> [u8; 2] {
        [self.0[VERSIONS_AT], self.0[VERSIONS_AT + 1]]
    }

    /// See [`DatabaseHeader::change_counter`].
    pub const fn change_counter(self) -> u32 {
        self.number(CHANGE_COUNTER_AT)
    }

    /// The size of the database, if the header knows: programs older than SQLite 3.7.0 leave a stale one behind.
    pub fn db_size(self) -> Option<PageCount> {
        valid_size(self.number(28), self.change_counter(), self.number(92))
    }

    /// See [`DatabaseHeader::schema_cookie`].
    pub const fn schema_cookie(self) -> u32 {
        self.number(SCHEMA_COOKIE_AT)
    }

    /// See [`DatabaseHeader::text_encoding`].
    pub const fn text_encoding(self) -> u32 {
        self.number(56)
    }
}

fn valid_size(stored: u32, change_counter: u32, valid_for: u32) -> Option<PageCount> {
    (stored > 0 && change_counter == valid_for).then_some(PageCount(stored))
}

/// The page size that page 1 states, whatever else it holds; `None` of bytes that are too short to state one.
pub fn stated_page_size(page_1: &[u8]) -> Option<Result<PageSize, InvalidPageSize>> {
    let bytes = page_1.get(PAGE_SIZE_AT..)?.first_chunk()?;
    Some(PageSize::of_header(*bytes))
}

/// Writes the versions into `bytes`, which begin at `offset` of a database file; only those of the two that they contain.
pub fn set_versions(bytes: &mut [u8], offset: u64, versions: [u8; 2]) {
    for (at, version) in (VERSIONS_AT as u64..).zip(versions) {
        if let Some(byte) = at
            .checked_sub(offset)
            .and_then(|at| bytes.get_mut(usize::try_from(at).ok()?))
        {
            *byte = version;
        }
    }
}

/// Page 1 of a database without tables, in WAL mode.
pub fn empty_page_1(size: PageSize) -> Vec<u8> {
    let mut page = vec![0; size.as_usize()];
    page[..16].copy_from_slice(MAGIC);
    page[PAGE_SIZE_AT..PAGE_SIZE_AT + 2].copy_from_slice(&size.in_header());
    set_versions(&mut page, 0, WAL_MODE);
    page[20..24].copy_from_slice(&[0, 64, 32, 32]);
    for (at, value) in [(24, 1u32), (28, 1), (44, 4), (56, 1), (92, 1), (96, 3_045_000)] {
        page[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    // An empty leaf of a table: no cells, content from the page's end, where 65536 does not fit into 2 bytes and is 0.
    page[100] = 13;
    page[105..107].copy_from_slice(&(size.bytes() as u16).to_be_bytes());
    page
}

impl DatabaseHeader {
    /// Reads the header at the start of `page_1`.
    ///
    /// ```
    /// use partial_sync_core::header::{DatabaseHeader, HeaderError};
    /// assert_eq!(DatabaseHeader::parse(b"no database"), Err(HeaderError::Short(11)));
    /// ```
    pub fn parse(page_1: &[u8]) -> Result<Self, HeaderError> {
        let page_1 = Page1::of(page_1)?;
        let header = page_1.0;
        let number = |at| page_1.number(at);
        let page_size = stated_page_size(header).ok_or(HeaderError::Short(header.len()))??;
        let reserved = header[RESERVED_AT];
        if page_size.bytes() - u32::from(reserved) < MIN_USABLE_SIZE {
            return Err(HeaderError::Reserved { page_size, reserved });
        }
        let [write_version, read_version] = page_1.versions();
        if !(1..=2).contains(&read_version) {
            return Err(HeaderError::ReadVersion(read_version));
        }
        if header[21..24] != [64, 32, 32] {
            return Err(HeaderError::Fractions);
        }
        Ok(Self {
            page_size,
            reserved,
            write_version,
            read_version,
            change_counter: page_1.change_counter(),
            stored_db_size: number(28),
            first_free_page: number(32),
            free_page_count: number(36),
            schema_cookie: page_1.schema_cookie(),
            largest_root: number(52),
            text_encoding: page_1.text_encoding(),
            user_version: number(60),
            application_id: number(68),
            version_valid_for: number(92),
        })
    }

    /// The bytes of a page that SQLite uses: page size without the reserved bytes.
    pub const fn usable_size(&self) -> u32 {
        self.page_size.bytes() - self.reserved as u32
    }

    /// The size of the database, if the header knows: programs older than SQLite 3.7.0 leave a stale one behind.
    pub fn db_size(&self) -> Option<PageCount> {
        valid_size(self.stored_db_size, self.change_counter, self.version_valid_for)
    }

    /// Whether the database says that it is in WAL mode.
    pub const fn is_wal(&self) -> bool {
        self.write_version == 2 && self.read_version == 2
    }

    /// Makes the header at the start of `page_1` say WAL, as every replica is; a remote may be in rollback mode.
    pub fn set_wal(page_1: &mut [u8]) {
        set_versions(page_1, 0, WAL_MODE);
    }

    /// Writes a schema cookie into the header at the start of `page_1`. Does nothing to bytes too short for a header.
    pub fn set_schema_cookie(page_1: &mut [u8], cookie: u32) {
        if let Some(bytes) = page_1.get_mut(SCHEMA_COOKIE_AT..SCHEMA_COOKIE_AT + 4) {
            bytes.copy_from_slice(&cookie.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut header = vec![0; HEADER_LEN];
        header[..16].copy_from_slice(MAGIC);
        header[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
        header
    }

    #[test]
    fn a_stored_page_size_of_1_means_65536() {
        let mut bytes = header();
        bytes[16..18].copy_from_slice(&[0, 1]);
        bytes[20] = 32;
        let header = DatabaseHeader::parse(&bytes).unwrap();
        assert_eq!(header.page_size.bytes(), 65536);
        assert_eq!(header.usable_size(), 65504);
    }

    #[test]
    fn what_sqlite_would_refuse_is_refused() {
        let broken = |at: usize, value: u8| {
            let mut bytes = header();
            bytes[at] = value;
            DatabaseHeader::parse(&bytes)
        };
        assert!(broken(16, 0x10).is_ok());
        assert_eq!(broken(0, b's'), Err(HeaderError::Magic));
        assert_eq!(broken(17, 1), Err(HeaderError::PageSize(InvalidPageSize(4097))));
        assert_eq!(broken(16, 0), Err(HeaderError::PageSize(InvalidPageSize(0))));
        assert_eq!(broken(19, 3), Err(HeaderError::ReadVersion(3)));
        assert_eq!(broken(22, 33), Err(HeaderError::Fractions));
        let mut small = header();
        small[16..18].copy_from_slice(&512_u16.to_be_bytes());
        small[20] = 33;
        let page_size = PageSize::new(512).unwrap();
        assert_eq!(
            DatabaseHeader::parse(&small),
            Err(HeaderError::Reserved {
                page_size,
                reserved: 33
            })
        );
    }

    #[test]
    fn a_stale_database_size_is_not_believed() {
        let mut bytes = header();
        bytes[28..32].copy_from_slice(&9_u32.to_be_bytes());
        assert_eq!(
            DatabaseHeader::parse(&bytes).unwrap().db_size(),
            Some(PageCount(9))
        );
        bytes[27] = 1;
        assert_eq!(DatabaseHeader::parse(&bytes).unwrap().db_size(), None);
    }

    #[test]
    fn wal_mode_and_cookie_are_written_where_sqlite_reads_them() {
        let mut bytes = header();
        assert!(!DatabaseHeader::parse(&bytes).unwrap().is_wal());
        DatabaseHeader::set_wal(&mut bytes);
        DatabaseHeader::set_schema_cookie(&mut bytes, 0x0102_0304);
        let header = DatabaseHeader::parse(&bytes).unwrap();
        assert!(header.is_wal());
        assert_eq!(header.schema_cookie, 0x0102_0304);
        let mut short = [0; 19];
        DatabaseHeader::set_wal(&mut short);
        assert_eq!(short[17..], [0, 2]);
        DatabaseHeader::set_schema_cookie(&mut [0; 43], 1);
    }

    #[test]
    fn versions_are_written_into_the_bytes_that_hold_them_and_into_no_others() {
        let whole: Vec<u8> = (0..40).map(|n| n + 100).collect();
        let mut expected = whole.clone();
        expected[18..20].copy_from_slice(&[7, 8]);
        for from in 0..whole.len() {
            for to in from..whole.len() {
                let mut part = whole[from..to].to_vec();
                set_versions(&mut part, from as u64, [7, 8]);
                assert_eq!(part, expected[from..to], "{from}..{to}");
            }
        }
    }

    #[test]
    fn page_1_of_an_empty_database_is_one_for_every_page_size() {
        for power in 9..=16 {
            let size = PageSize::new(1 << power).unwrap();
            let page_1 = empty_page_1(size);
            let header = DatabaseHeader::parse(&page_1).unwrap();
            assert_eq!((header.page_size, header.db_size()), (size, Some(PageCount(1))));
            assert!(header.is_wal());
            assert_eq!(page_1.len(), size.as_usize());
        }
    }

    proptest! {
        #[test]
        fn one_field_is_read_as_all_of_them_are(mut bytes in prop::collection::vec(any::<u8>(), HEADER_LEN), same: bool) {
            bytes[..24].copy_from_slice(&header()[..24]);
            if same {
                bytes.copy_within(24..28, 92);
            }
            let all = DatabaseHeader::parse(&bytes).unwrap();
            let page_1 = Page1::of(&bytes).unwrap();
            prop_assert_eq!(page_1.versions(), [all.write_version, all.read_version]);
            prop_assert_eq!(page_1.change_counter(), all.change_counter);
            prop_assert_eq!(page_1.schema_cookie(), all.schema_cookie);
            prop_assert_eq!(page_1.text_encoding(), all.text_encoding);
            prop_assert_eq!(page_1.db_size(), all.db_size());
        }

        #[test]
        fn invariant_11_any_bytes_are_a_header_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            if magic && bytes.len() >= 16 {
                bytes[..16].copy_from_slice(MAGIC);
            }
            if let Ok(header) = DatabaseHeader::parse(&bytes) {
                prop_assert!(header.usable_size() >= MIN_USABLE_SIZE);
            }
        }
    }
}
