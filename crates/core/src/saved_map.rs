//! The form of a page map on disk (`app.db-pages`).
//!
//! All numbers are little-endian.
//!
//! ```text
//! offset  bytes  what
//!      0      8  magic: the ASCII letters "PSYNCMAP"
//!      8      4  format version: 1
//!     12      4  page size in bytes, a power of two from 512 to 65536
//!     16      4  size of the database in pages, as the one who saved it knew it
//!     20      4  p: length of the present set in bytes
//!     24      4  d: length of the dirty set in bytes
//!     28      p  the present set: 0-based page ids, portable Roaring format
//! 28 + p      d  the dirty set, the same
//!  ... +      8  XXH3, 64 bits, seed 0, over every byte before it
//! ```
//!
//! Nothing follows. A file that breaks any of this is refused whole: a replica that trusted half a map would read holes
//! as data. Decoding allocates no more than in proportion to the length of the input. What this file must never do:
//! guess, repair, or drop an id because it lies beyond the database's size (a dirty page may).

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    page_map::PageMap,
    types::{Epoch, InvalidPageSize, PageCount, PageSize},
};

const MAGIC: &[u8; 8] = b"PSYNCMAP";
const VERSION: u32 = 1;
const HEADER: usize = 28;
const CHECKSUM: usize = 8;

/// Which pages a replica had and which it had changed, as saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPageMap {
    /// The page size of the database.
    pub page_size: PageSize,
    /// The size of the database when it was saved.
    pub db_size: PageCount,
    /// 0-based ids of the pages that are here.
    pub present: RoaringBitmap,
    /// 0-based ids of the pages written locally since the base revision.
    pub dirty: RoaringBitmap,
}

/// Why bytes are not a page map. In every case what to do is the same: see each text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageMapError {
    /// The magic is not there.
    #[error("this is not a page map: it does not begin with PSYNCMAP; is the path right?")]
    Magic,
    /// Written by another version of the format.
    #[error("the page map has format version {0}, this program reads version {VERSION}: use a newer program")]
    Version(u32),
    /// The length is not what the header says.
    #[error(
        "the page map is {actual} bytes long but should be {expected}: it was cut or overwritten; restore the replica or start a new one"
    )]
    Length {
        /// What the header says, or the least length of any map.
        expected: u64,
        /// How long it is.
        actual: u64,
    },
    /// The checksum does not fit.
    #[error("the page map's checksum does not fit: it is damaged; restore the replica or start a new one")]
    Checksum,
    /// The page size is not one of SQLite's.
    #[error("the page map is damaged: {0}")]
    PageSize(#[from] InvalidPageSize),
    /// One of the sets is not a Roaring bitmap, or holds an id that no page has.
    #[error("the page map is damaged: its set of {0} pages is malformed")]
    Set(&'static str),
}

impl SavedPageMap {
    /// The sets of a map at this moment. Take [`PageMap::version`] before it.
    pub fn of(map: &PageMap, page_size: PageSize, db_size: PageCount) -> Self {
        Self {
            page_size,
            db_size,
            present: map.present(),
            dirty: map.dirty(),
        }
    }

    /// A runtime map with these sets, every present page valid since `epoch`, and nothing to save.
    pub fn to_map(&self, epoch: Epoch) -> PageMap {
        PageMap::from_sets(&self.present, &self.dirty, epoch)
    }

    /// The bytes of the format above.
    pub fn encode(&self) -> Vec<u8> {
        let (present, dirty) = (set_bytes(&self.present), set_bytes(&self.dirty));
        let mut out = Vec::with_capacity(HEADER + present.len() + dirty.len() + CHECKSUM);
        out.extend_from_slice(MAGIC);
        let lengths = [present.len(), dirty.len()].map(|n| {
            u32::try_from(n).expect("a set of 32-bit ids takes at most 512 MiB and 1 MiB of headers")
        });
        for number in [
            VERSION,
            self.page_size.bytes(),
            self.db_size.0,
            lengths[0],
            lengths[1],
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&present);
        out.extend_from_slice(&dirty);
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out
    }

    /// Reads the bytes of [`SavedPageMap::encode`]; any other bytes are an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, PageMapError> {
        if !bytes.starts_with(MAGIC) {
            return Err(PageMapError::Magic);
        }
        let actual = bytes.len() as u64;
        let least = (HEADER + CHECKSUM) as u64;
        let number = |at: usize| {
            let field = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
            field.map(u32::from_le_bytes).ok_or(PageMapError::Length {
                expected: least,
                actual,
            })
        };
        let version = number(8)?;
        if version != VERSION {
            return Err(PageMapError::Version(version));
        }
        let (page_size, db_size) = (number(12)?, PageCount(number(16)?));
        let (present_len, dirty_len) = (number(20)?, number(24)?);
        let expected = least + u64::from(present_len) + u64::from(dirty_len);
        if actual != expected {
            return Err(PageMapError::Length { expected, actual });
        }
        let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
        if xxh3_64(body).to_le_bytes() != checksum {
            return Err(PageMapError::Checksum);
        }
        let (present, dirty) = body[HEADER..].split_at(present_len as usize);
        Ok(Self {
            page_size: PageSize::new(page_size)?,
            db_size,
            present: set(present).ok_or(PageMapError::Set("present"))?,
            dirty: set(dirty).ok_or(PageMapError::Set("dirty"))?,
        })
    }
}

fn set_bytes(set: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(set.serialized_size());
    set.serialize_into(&mut bytes)
        .expect("writing to a Vec does not fail");
    bytes
}

/// A set that fills all of `bytes` and names only pages that can exist (the last id has no page number).
fn set(mut bytes: &[u8]) -> Option<RoaringBitmap> {
    let set = RoaringBitmap::deserialize_from(&mut bytes).ok()?;
    (bytes.is_empty() && set.max() != Some(u32::MAX)).then_some(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sets() -> impl Strategy<Value = (Vec<u32>, Vec<u32>, Vec<(u32, u32)>)> {
        let near = || prop::collection::vec(prop_oneof![9 => 0..100_000_u32, 1 => 0..u32::MAX], 0..60);
        (
            near(),
            near(),
            prop::collection::vec((0..100_000_u32, 0..30_000_u32), 0..4),
        )
    }

    fn saved((present, dirty, runs): (Vec<u32>, Vec<u32>, Vec<(u32, u32)>)) -> SavedPageMap {
        let mut present = RoaringBitmap::from_iter(present);
        for (start, len) in runs {
            present.insert_range(start..start + len);
        }
        let dirty = RoaringBitmap::from_iter(dirty);
        SavedPageMap {
            page_size: PageSize::DEFAULT,
            db_size: PageCount(300_000),
            present,
            dirty,
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_header_comment() {
        let map = saved((vec![0, 1], vec![], vec![]));
        let bytes = map.encode();
        assert_eq!(&bytes[..8], b"PSYNCMAP");
        assert_eq!(
            bytes[8..28],
            [
                1, 0, 0, 0, 0, 0x10, 0, 0, 0xe0, 0x93, 4, 0, 20, 0, 0, 0, 8, 0, 0, 0
            ]
        );
        assert_eq!(
            bytes[28..48],
            [0x3a, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 16, 0, 0, 0, 0, 0, 1, 0]
        );
        assert_eq!(bytes[48..56], [0x3a, 0x30, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[56..], xxh3_64(&bytes[..56]).to_le_bytes());
    }

    #[test]
    fn every_kind_of_damage_has_its_error() {
        let good = saved((vec![0, 1], vec![9], vec![])).encode();
        let sealed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            let end = bytes.len() - CHECKSUM;
            let sum = xxh3_64(&bytes[..end]).to_le_bytes();
            bytes[end..].copy_from_slice(&sum);
            SavedPageMap::decode(&bytes).unwrap_err()
        };
        assert_eq!(SavedPageMap::decode(b"").unwrap_err(), PageMapError::Magic);
        assert_eq!(sealed(0, b'X'), PageMapError::Magic);
        assert_eq!(sealed(8, 2), PageMapError::Version(2));
        assert_eq!(sealed(12, 1), PageMapError::PageSize(InvalidPageSize(4097)));
        assert!(matches!(sealed(20, 21), PageMapError::Length { .. }));
        assert_eq!(sealed(28, 0), PageMapError::Set("present"));
        assert_eq!(sealed(48, 0), PageMapError::Set("dirty"));
        let mut flipped = good.clone();
        flipped[44] ^= 1;
        assert_eq!(
            SavedPageMap::decode(&flipped).unwrap_err(),
            PageMapError::Checksum
        );
    }

    #[test]
    fn the_id_that_is_no_page_is_refused() {
        let mut map = saved((vec![], vec![], vec![]));
        map.dirty.insert(u32::MAX);
        assert_eq!(
            SavedPageMap::decode(&map.encode()).unwrap_err(),
            PageMapError::Set("dirty")
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_becomes_a_map_with_the_same_sets(sets in sets()) {
            let saved = saved(sets);
            prop_assert_eq!(SavedPageMap::decode(&saved.encode()).unwrap(), saved.clone());
            {
                let map = saved.to_map(Epoch(3));
                prop_assert!(!map.changed_since_saved());
                prop_assert_eq!(SavedPageMap::of(&map, saved.page_size, saved.db_size), saved);
            }
        }

        #[test]
        fn invariant_11_a_cut_or_changed_map_is_an_error(sets in sets(), cut: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = saved(sets).encode();
            let at = cut.index(bytes.len());
            prop_assert!(SavedPageMap::decode(&bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(SavedPageMap::decode(&bytes).is_err());
        }

        #[test]
        fn invariant_11_any_bytes_with_a_good_checksum_are_a_map_or_an_error(
            body in prop::collection::vec(any::<u8>(), 0..300), cookie in 0..3_usize, split: prop::sample::Index,
        ) {
            let mut body = body;
            for (at, byte) in [[].as_slice(), &[0x3a, 0x30, 0, 0, 2, 0, 0, 0], &[0x3b, 0x30, 1, 0, 3]][cookie].iter().enumerate() {
                if let Some(place) = body.get_mut(at) {
                    *place = *byte;
                }
            }
            let split = split.index(body.len() + 1) as u32;
            let mut bytes = MAGIC.to_vec();
            for number in [VERSION, 4096, 10, split, body.len() as u32 - split] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&body);
            bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
            if let Ok(saved) = SavedPageMap::decode(&bytes) {
                prop_assert_eq!(SavedPageMap::decode(&saved.encode()).unwrap(), saved);
            }
        }
    }
}
