//! The header: the first 100 bytes of a file.
//!
//! Its fields are read and written here and nowhere else. A [`Header`] that contradicts itself cannot be made from bytes; one
//! that was put together by hand is checked before it is written.

use partial_sync_core::{PageCount, PageSize};

use crate::{
    checksum::Checksum,
    error::LtxError,
    ids::{TxId, TxRange},
};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 100;

const MAGIC: &[u8; 4] = b"LTX1";
const NO_CHECKSUM: u32 = 0x2;
/// The most pages of a database (`SQLITE_MAX_PAGE_COUNT` at its largest).
const MOST_PAGES: PageCount = PageCount(0xffff_fffe);

const FLAGS_AT: usize = 4;
const PAGE_SIZE_AT: usize = 8;
const COMMIT_AT: usize = 12;
const MIN_AT: usize = 16;
const MAX_AT: usize = 24;
const TIMESTAMP_AT: usize = 32;
const PRE_APPLY_AT: usize = 40;
const WAL_OFFSET_AT: usize = 48;
const WAL_SIZE_AT: usize = 56;
const WAL_SALTS_AT: usize = 64;
const NODE_AT: usize = 72;
const RESERVED_AT: usize = 80;

/// What a file says of the database before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of a page.
    pub page_size: PageSize,
    /// The size of the database after the file's transactions; it may be less than before.
    pub commit: PageCount,
    /// Which transactions these are.
    pub ids: TxRange,
    /// When they were committed: milliseconds since 1970 began, UTC.
    pub timestamp: i64,
    /// The checksum of the database before the file.
    pub pre_apply: PreApply,
    /// Which frames of a WAL the file was made from, if from one, and not from other files.
    pub wal: Option<Wal>,
    /// Who made the file; 0 = not said.
    pub node: u64,
}

/// The checksum of a database before a file is applied to it; and whether the file has checksums of the database at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreApply {
    /// The file has no checksums of the database, before or after it. Litestream's files are so.
    Untracked,
    /// There was nothing before: the file is a snapshot. It has the checksum of the database after it.
    Nothing,
    /// The file is not a snapshot and continues a database with this checksum. It has that of the database after it.
    Of(Checksum),
}

/// A part of a SQLite WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wal {
    /// Where it begins, in bytes; at least 1, at most `i64::MAX`.
    pub offset: u64,
    /// How many bytes it has; at most `i64::MAX`.
    pub size: u64,
    /// The salts in the header of the WAL.
    pub salts: [u32; 2],
}

impl Header {
    /// Reads the header at the start of `file`.
    ///
    /// ```
    /// use partial_sync_ltx::{Header, LtxError};
    /// assert!(matches!(Header::parse(b"LTX1"), Err(LtxError::Cut { at: 4, .. })));
    /// ```
    pub fn parse(file: &[u8]) -> Result<Self, LtxError> {
        let Some(bytes) = file.first_chunk::<HEADER_LEN>() else {
            let (at, part) = (file.len() as u64, "the header");
            return Err(LtxError::Cut { at, part });
        };
        if !bytes.starts_with(MAGIC) {
            return Err(LtxError::Magic);
        }
        let flags = u32_at(bytes, FLAGS_AT);
        if flags & !NO_CHECKSUM != 0 {
            return Err(LtxError::HeaderFlags(flags));
        }
        let (min, max) = (u64_at(bytes, MIN_AT), u64_at(bytes, MAX_AT));
        let ids = TxId::new(min)
            .zip(TxId::new(max))
            .and_then(|(min, max)| TxRange::new(min, max));
        let header = Self {
            page_size: PageSize::new(u32_at(bytes, PAGE_SIZE_AT))?,
            commit: PageCount(u32_at(bytes, COMMIT_AT)),
            ids: ids.ok_or(LtxError::Ids { min, max })?,
            timestamp: u64_at(bytes, TIMESTAMP_AT).cast_signed(),
            pre_apply: pre_apply(flags, u64_at(bytes, PRE_APPLY_AT))?,
            wal: wal(bytes),
            node: u64_at(bytes, NODE_AT),
        };
        if let Some(n) = bytes[RESERVED_AT..].iter().position(|byte| *byte != 0) {
            let at = (RESERVED_AT + n) as u64;
            return Err(LtxError::Reserved { at });
        }
        header.check()?;
        Ok(header)
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> Result<[u8; HEADER_LEN], LtxError> {
        self.check()?;
        let (flags, pre_apply) = match self.pre_apply {
            PreApply::Untracked => (NO_CHECKSUM, 0),
            PreApply::Nothing => (0, 0),
            PreApply::Of(checksum) => (0, checksum.get()),
        };
        let wal = self.wal.unwrap_or(Wal {
            offset: 0,
            size: 0,
            salts: [0; 2],
        });
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, MAGIC);
        put(FLAGS_AT, &flags.to_be_bytes());
        put(PAGE_SIZE_AT, &self.page_size.bytes().to_be_bytes());
        put(COMMIT_AT, &self.commit.0.to_be_bytes());
        put(MIN_AT, &self.ids.min().get().to_be_bytes());
        put(MAX_AT, &self.ids.max().get().to_be_bytes());
        put(TIMESTAMP_AT, &self.timestamp.to_be_bytes());
        put(PRE_APPLY_AT, &pre_apply.to_be_bytes());
        put(WAL_OFFSET_AT, &wal.offset.to_be_bytes());
        put(WAL_SIZE_AT, &wal.size.to_be_bytes());
        put(WAL_SALTS_AT, &wal.salts[0].to_be_bytes());
        put(WAL_SALTS_AT + 4, &wal.salts[1].to_be_bytes());
        put(NODE_AT, &self.node.to_be_bytes());
        Ok(bytes)
    }

    /// Whether the file has checksums of the database.
    pub const fn is_tracked(&self) -> bool {
        !matches!(self.pre_apply, PreApply::Untracked)
    }

    /// The rules that a value of this type can break.
    fn check(&self) -> Result<(), LtxError> {
        if self.commit > MOST_PAGES {
            return Err(LtxError::Commit(self.commit));
        }
        let at = PRE_APPLY_AT as u64;
        match self.pre_apply {
            PreApply::Of(checksum) if self.ids.is_snapshot() => {
                let (stored, why) = (checksum.get(), "before the first transaction there is none");
                return Err(LtxError::DatabaseChecksum { at, stored, why });
            }
            PreApply::Nothing if !self.ids.is_snapshot() => {
                let (stored, why) = (0, "a file with checksums that is not a snapshot needs one");
                return Err(LtxError::DatabaseChecksum { at, stored, why });
            }
            _ => {}
        }
        if let Some(wal) = self.wal {
            if wal.offset == 0 {
                let (at, why) = (WAL_OFFSET_AT as u64, "it says a size or salts, but no offset");
                return Err(LtxError::Wal { at, why });
            }
            for (at, value) in [(WAL_OFFSET_AT, wal.offset), (WAL_SIZE_AT, wal.size)] {
                if value > i64::MAX as u64 {
                    let (at, why) = (at as u64, "a number is negative");
                    return Err(LtxError::Wal { at, why });
                }
            }
        }
        Ok(())
    }
}

fn pre_apply(flags: u32, stored: u64) -> Result<PreApply, LtxError> {
    let wrong = |why| {
        let at = PRE_APPLY_AT as u64;
        Err(LtxError::DatabaseChecksum { at, stored, why })
    };
    match (flags & NO_CHECKSUM != 0, stored) {
        (true, 0) => Ok(PreApply::Untracked),
        (true, _) => wrong("the header says that there is none"),
        (false, 0) => Ok(PreApply::Nothing),
        (false, _) => Checksum::of_stored(stored)
            .map_or_else(|| wrong("its highest bit is not set"), |c| Ok(PreApply::Of(c))),
    }
}

fn wal(bytes: &[u8; HEADER_LEN]) -> Option<Wal> {
    let wal = Wal {
        offset: u64_at(bytes, WAL_OFFSET_AT),
        size: u64_at(bytes, WAL_SIZE_AT),
        salts: [u32_at(bytes, WAL_SALTS_AT), u32_at(bytes, WAL_SALTS_AT + 4)],
    };
    bytes[WAL_OFFSET_AT..NODE_AT]
        .iter()
        .any(|byte| *byte != 0)
        .then_some(wal)
}

const fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

const fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    (u32_at(bytes, at) as u64) << 32 | u32_at(bytes, at + 4) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            page_size: PageSize::DEFAULT,
            commit: PageCount(9),
            ids: TxRange::one(TxId::new(2).unwrap()),
            timestamp: -1,
            pre_apply: PreApply::Of(Checksum::EMPTY),
            wal: Some(Wal {
                offset: 32,
                size: 4120,
                salts: [1, u32::MAX],
            }),
            node: u64::MAX,
        }
    }

    /// The header's bytes with other ones at `at`.
    fn with(at: usize, field: &[u8]) -> Result<Header, LtxError> {
        let mut bytes = header().encode().unwrap();
        bytes[at..at + field.len()].copy_from_slice(field);
        Header::parse(&bytes)
    }

    #[test]
    fn fields_are_where_the_format_has_them() {
        let bytes = header().encode().unwrap();
        assert_eq!(bytes[..16], *b"LTX1\0\0\0\0\0\0\x10\0\0\0\0\x09");
        assert_eq!(bytes[16..32], *b"\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x02");
        assert_eq!(bytes[32..40], [0xff; 8]);
        assert_eq!(bytes[40..48], [0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[48..64], *b"\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\x10\x18");
        assert_eq!(bytes[64..72], [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[72..80], [0xff; 8]);
        assert_eq!(bytes[80..], [0; 20]);
        let untracked = Header {
            pre_apply: PreApply::Untracked,
            ..header()
        };
        assert_eq!(untracked.encode().unwrap()[4..8], [0, 0, 0, 2]);
    }

    #[test]
    fn every_rule_of_the_header_is_checked() {
        assert!(matches!(with(0, b"SQLi"), Err(LtxError::Magic)));
        assert!(matches!(with(3, b"2"), Err(LtxError::Magic)));
        assert!(matches!(with(4, &[0, 0, 0, 1]), Err(LtxError::HeaderFlags(1))));
        assert!(matches!(with(4, &[0, 0, 0, 6]), Err(LtxError::HeaderFlags(6))));
        for size in [0u32, 1, 256, 513, 4095, 131_072, u32::MAX] {
            assert!(
                matches!(with(8, &size.to_be_bytes()), Err(LtxError::PageSize(_))),
                "{size}"
            );
        }
        assert!(matches!(with(12, &[0xff; 4]), Err(LtxError::Commit(_))));
        assert!(with(12, &0xffff_fffe_u32.to_be_bytes()).is_ok());
        assert!(matches!(with(16, &[0; 8]), Err(LtxError::Ids { min: 0, .. })));
        assert!(matches!(with(24, &[0; 8]), Err(LtxError::Ids { max: 0, .. })));
        assert!(matches!(
            with(24, &1_u64.to_be_bytes()),
            Err(LtxError::Ids { min: 2, max: 1 })
        ));
        // A snapshot continues nothing; anything else with checksums needs one, of the right form.
        assert!(matches!(
            with(16, &1_u64.to_be_bytes()),
            Err(LtxError::DatabaseChecksum { at: 40, .. })
        ));
        assert!(matches!(
            with(40, &[0; 8]),
            Err(LtxError::DatabaseChecksum { at: 40, .. })
        ));
        assert!(matches!(
            with(40, &[0x7f; 8]),
            Err(LtxError::DatabaseChecksum { at: 40, .. })
        ));
        assert!(matches!(
            with(4, &[0, 0, 0, 2]),
            Err(LtxError::DatabaseChecksum { at: 40, .. })
        ));
        assert!(matches!(with(48, &[0; 8]), Err(LtxError::Wal { at: 48, .. })));
        assert!(matches!(with(48, &[0; 16]), Err(LtxError::Wal { at: 48, .. })));
        assert!(matches!(with(48, &[0x80]), Err(LtxError::Wal { at: 48, .. })));
        assert!(matches!(with(56, &[0x80]), Err(LtxError::Wal { at: 56, .. })));
        assert_eq!(with(48, &[0; 24]).unwrap().wal, None);
        for at in RESERVED_AT..HEADER_LEN {
            assert!(matches!(with(at, &[1]), Err(LtxError::Reserved { at: found }) if found == at as u64));
        }
    }

    #[test]
    fn a_header_that_is_not_all_there_says_how_much_is() {
        let bytes = header().encode().unwrap();
        for len in 0..HEADER_LEN {
            assert!(
                matches!(Header::parse(&bytes[..len]), Err(LtxError::Cut { at, .. }) if at == len as u64)
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_that_is_written_as_they_are_or_an_error(
            mut bytes in prop::collection::vec(any::<u8>(), HEADER_LEN),
            of in 0..HEADER_LEN,
        ) {
            bytes[..of].copy_from_slice(&header().encode().unwrap()[..of]);
            bytes[RESERVED_AT..].fill(0);
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(&header.encode().unwrap()[..], &bytes[..]);
            }
        }
    }
}
