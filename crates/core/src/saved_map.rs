//! The form of a page map on disk (`app.db-pages`): records, each of which says what some chunks of the map hold now. The
//! first holds all of them. A save appends what changed; when that has become more than the whole, the whole is written again.
//!
//! All numbers are little-endian.
//!
//! ```text
//! offset  bytes  what
//!      0     64  the head
//!   4096     64  the head once more
//!   8192         records, up to where the head says
//!
//! head                                                   record
//!  0  8  magic: the ASCII letters "PSYNCMAP"              0  4  n: length of what follows, without the checksum
//!  8  4  format version: 2                                4  n  entries
//! 12  4  page size in bytes, a power of two         4 + n  8  XXH3, 64 bits, of the record so far, with the checksum
//! 16  4  size of the database in pages, as the                of the record before it as the seed; 0 for the first
//!        one who saved it knew it
//! 20  4  zeros                                            entry
//! 24  8  saves: goes up by one with each                  0  4  the first chunk, of 4096 page ids
//! 32  8  where the records end                            4  4  how many chunks of the same kind follow each other
//! 40  8  the checksum of the last record                  8  1  its present pages: 0 none, 1 all, 2 bits, 3 runs
//! 48  8  where the first record ends                      9  1  its dirty pages, the same
//! 56  8  XXH3, 64 bits, seed 0, of the head so far       10     512 bytes of bits, or a 16-bit number of runs and for each
//!                                                               two 16-bit numbers, its first and last page; first those
//!                                                               of the present pages, then those of the dirty ones
//! ```
//!
//! # A save that was cut off, and damage
//!
//! A save writes its record and the first head, syncs, then writes the second head and syncs. It has succeeded when all of that
//! is done, and then *both* heads speak of it. So:
//!
//! - The second head is one save behind: the save was cut off. What the first says is taken if its records are whole, what the
//!   second says if they are not, or if the first head is torn. Either is a state that a saver wrote and may be in the file.
//! - One head of a save that succeeded is damaged: the other one says the same.
//! - Anything else is damage, and refused: no head of an older save is left that could be taken for the newest.
//!
//! What a process reads it first makes durable, and the name of the file too: both heads may be what a killed process wrote and did
//! not come to sync, and a save that continued them would leave heads that are two saves apart.
//!
//! After a save that was cut off the file is not continued but written as a whole, under another name that then takes its
//! place, as it is where there is none or one of version 1: two Roaring bitmaps with a checksum, which is still read.
//!
//! A replica that trusted half a map would read holes as data. What this file must never do: guess, repair, or say of a
//! page that it is here when the last save that succeeded did not, and a later one was not about to.

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    chunk::{Bits, CHUNK_PAGES, CHUNK_WORDS, CHUNKS, Chunk},
    page_map::{PageMap, Position},
    types::{InvalidPageSize, PageCount, PageSize},
};

const MAGIC: &[u8; 8] = b"PSYNCMAP";
const VERSION: u32 = 2;
/// Two Roaring bitmaps behind a head of 28 bytes: magic, version, page size, size of the database, and their lengths.
const OLD_VERSION: u32 = 1;
const OLD_HEAD: usize = 28;
const CHECKSUM: usize = 8;
const HEAD: usize = 64;
/// Where the heads are: in blocks of the disk of their own.
const HEADS: [usize; 2] = [0, 4096];
const RECORDS: usize = 8192;
/// What was saved after the whole may take so much, if that is not smaller.
const LEAST_JOURNAL: u64 = 64 << 10;
/// With more runs than that their bits are shorter.
const MOST_RUNS: usize = 127;
const BIT_BYTES: usize = CHUNK_WORDS * 8;

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
    /// The length is not what the head says.
    #[error(
        "the page map is {actual} bytes long but should be {expected}: it was cut or overwritten; restore the replica or start a new one"
    )]
    Length {
        /// What the head says, or the least length of any map.
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
    /// One of the sets is malformed, or holds an id that no page has.
    #[error("the page map is damaged: its set of {0} pages is malformed")]
    Set(&'static str),
}

/// A map that was saved.
#[derive(Debug)]
pub struct SavedPageMap {
    /// The page size of the database.
    pub page_size: PageSize,
    /// The size of the database when it was saved.
    pub db_size: PageCount,
    /// What was saved; every page that is present is so for all readers.
    pub map: PageMap,
    /// Whether it named pages beyond what was asked for.
    pub beyond: bool,
}

/// What is to be written so that a map is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Save {
    /// A whole file or a part of one.
    pub file: SaveTo,
    at: Position,
}

/// See [`Save`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveTo {
    /// These bytes take the place of the file.
    Whole(Vec<u8>),
    /// Goes into the file.
    Append {
        /// Where the file ends as far as it counts; it is not shorter.
        end: u64,
        /// What is written, with the offset of each: first these, then a sync,
        first: [(u64, Vec<u8>); 2],
        /// then this, and a sync.
        then: (u64, Vec<u8>),
    },
}

impl Save {
    /// What changed in a map since its last save, or all of it where that is shorter or needed. For one saver of a map at
    /// a time, who calls [`Save::succeeded`] when it is on disk.
    pub fn of(map: &PageMap, page_size: PageSize, db_size: PageCount) -> Self {
        let (chunks, at) = map.begin_save();
        if let Some(save) = at.and_then(|at| Self::append(&chunks, at, page_size, db_size)) {
            return save;
        }
        let (bytes, at) = whole(&map.all_chunks(), page_size, db_size);
        Self {
            file: SaveTo::Whole(bytes),
            at,
        }
    }

    fn append(chunks: &[Chunk], at: Position, page_size: PageSize, db_size: PageCount) -> Option<Self> {
        let (record, chain) = record(chunks, at.chain);
        let end = at.end + record.len() as u64;
        let whole = at.whole_end - RECORDS as u64;
        if end - at.whole_end > LEAST_JOURNAL.max(whole) {
            return None;
        }
        let next = Position {
            saves: at.saves + 1,
            end,
            chain,
            ..at
        };
        let head = head(&next, page_size, db_size);
        Some(Self {
            file: SaveTo::Append {
                end: at.end,
                first: [(at.end, record), (HEADS[0] as u64, head.to_vec())],
                then: (HEADS[1] as u64, head.to_vec()),
            },
            at: next,
        })
    }

    /// It is on disk.
    pub fn succeeded(self, map: &PageMap) {
        map.mark_saved(self.at);
    }
}

/// A file that holds these chunks, and where it ends.
pub fn whole(chunks: &[Chunk], page_size: PageSize, db_size: PageCount) -> (Vec<u8>, Position) {
    around(record(chunks, 0), page_size, db_size)
}

fn around((record, chain): (Vec<u8>, u64), page_size: PageSize, db_size: PageCount) -> (Vec<u8>, Position) {
    let end = (RECORDS + record.len()) as u64;
    let at = Position {
        saves: 1,
        end,
        chain,
        whole_end: end,
    };
    let head = head(&at, page_size, db_size);
    let mut bytes = vec![0; RECORDS];
    for offset in HEADS {
        bytes[offset..offset + HEAD].copy_from_slice(&head);
    }
    bytes.extend_from_slice(&record);
    (bytes, at)
}

/// A file whose only record has this body, whatever it is, and everything around it right.
pub fn sealed(body: &[u8], page_size: PageSize, db_size: PageCount) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(body);
    around(seal(bytes, 0), page_size, db_size).0
}

fn head(at: &Position, page_size: PageSize, db_size: PageCount) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    for (offset, number) in [(8, VERSION), (12, page_size.bytes()), (16, db_size.0)] {
        head[offset..offset + 4].copy_from_slice(&number.to_le_bytes());
    }
    for (offset, number) in [(24, at.saves), (32, at.end), (40, at.chain), (48, at.whole_end)] {
        head[offset..offset + 8].copy_from_slice(&number.to_le_bytes());
    }
    let sum = xxh3_64(&head[..HEAD - CHECKSUM]);
    head[HEAD - CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// A record, and its checksum.
fn record(chunks: &[Chunk], chain: u64) -> (Vec<u8>, u64) {
    let mut bytes = vec![0; 4];
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.first.to_le_bytes());
        bytes.extend_from_slice(&chunk.count.to_le_bytes());
        let kinds = bytes.len();
        bytes.extend_from_slice(&[0; 2]);
        for (nth, bits) in [&chunk.present, &chunk.dirty].into_iter().enumerate() {
            bytes[kinds + nth] = encode_bits(bits, &mut bytes);
        }
    }
    seal(bytes, chain)
}

/// Puts length and checksum around what is between them.
fn seal(mut bytes: Vec<u8>, chain: u64) -> (Vec<u8>, u64) {
    let length = u32::try_from(bytes.len() - 4).expect("2^20 chunks take less than 1.1 GiB");
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    let sum = xxh3_64_with_seed(&bytes, chain);
    bytes.extend_from_slice(&sum.to_le_bytes());
    (bytes, sum)
}

fn encode_bits(bits: &Bits, bytes: &mut Vec<u8>) -> u8 {
    let words = match bits {
        Bits::Empty => return 0,
        Bits::Full => return 1,
        Bits::Some(words) => words,
    };
    match runs(bits) {
        Some(runs) => {
            bytes.extend_from_slice(&(runs.len() as u16).to_le_bytes());
            for number in runs.into_iter().flatten() {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            3
        }
        None => {
            for word in &**words {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            2
        }
    }
}

/// First and last page of each run, if they are few.
fn runs(bits: &Bits) -> Option<Vec<[u16; 2]>> {
    let starts = (0..CHUNK_WORDS).map(|nth| {
        let before = nth.checked_sub(1).map_or(0, |before| bits.word(before) >> 63);
        (bits.word(nth) & !(bits.word(nth) << 1 | before)).count_ones() as usize
    });
    if starts.sum::<usize>() > MOST_RUNS {
        return None;
    }
    let mut runs: Vec<[u16; 2]> = Vec::new();
    for page in (0..CHUNK_PAGES).filter(|page| bits.contains(*page)) {
        let page = page as u16;
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == page => *last = page,
            _ => runs.push([page, page]),
        }
    }
    Some(runs)
}

/// Takes numbers off the front of bytes.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn chunk(&mut self) -> Result<Chunk, PageMapError> {
        let malformed = PageMapError::Set("present");
        let numbers = (|| Some((self.u32()?, self.u32()?, self.array::<2>()?)))();
        let (first, count, kinds) = numbers.ok_or(malformed)?;
        let end = first.checked_add(count).filter(|end| count > 0 && *end <= CHUNKS);
        let end = end.ok_or(malformed)?;
        let mut bits = |kind, what| self.bits(kind).ok_or(PageMapError::Set(what));
        let (present, dirty) = (bits(kinds[0], "present")?, bits(kinds[1], "dirty")?);
        for (set, what) in [(&present, "present"), (&dirty, "dirty")] {
            let names_no_page = end == CHUNKS && set.contains(CHUNK_PAGES - 1);
            if names_no_page || (count > 1 && matches!(set, Bits::Some(_))) {
                return Err(PageMapError::Set(what));
            }
        }
        Ok(Chunk {
            first,
            count,
            present,
            dirty,
        })
    }

    fn bits(&mut self, kind: u8) -> Option<Bits> {
        let mut words = [0; CHUNK_WORDS];
        match kind {
            0 => return Some(Bits::Empty),
            1 => return Some(Bits::Full),
            2 => {
                let bytes = self.take(BIT_BYTES)?;
                for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
                    *word = u64::from_le_bytes(bytes.try_into().ok()?);
                }
            }
            3 => {
                let mut least = 0;
                for _ in 0..self.u16()? {
                    let (first, last) = (u32::from(self.u16()?), u32::from(self.u16()?));
                    if first < least || last < first || last >= CHUNK_PAGES {
                        return None;
                    }
                    for page in first..=last {
                        words[(page / 64) as usize] |= 1 << (page % 64);
                    }
                    least = last + 2;
                }
            }
            _ => return None,
        }
        Some(Bits::of(words))
    }
}

/// What a head says, if it is whole.
struct Head {
    page_size: u32,
    db_size: u32,
    at: Position,
}

impl Head {
    fn of(bytes: &[u8], offset: usize) -> Option<Self> {
        let head = bytes.get(offset..offset + HEAD)?;
        let mut reader = Reader(head);
        if reader.array()? != *MAGIC || reader.u32()? != VERSION {
            return None;
        }
        let (page_size, db_size) = (reader.u32()?, reader.u32()?);
        reader.u32()?;
        let at = Position {
            saves: reader.u64()?,
            end: reader.u64()?,
            chain: reader.u64()?,
            whole_end: reader.u64()?,
        };
        let is_whole = reader.u64()? == xxh3_64(&head[..HEAD - CHECKSUM]);
        // Nobody saves so often.
        (is_whole && at.saves < u64::MAX).then_some(Self {
            page_size,
            db_size,
            at,
        })
    }

    /// The bodies of its records, if they are what was written.
    fn records<'b>(&self, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, PageMapError> {
        let length = || PageMapError::Length {
            expected: self.at.end,
            actual: bytes.len() as u64,
        };
        let end = usize::try_from(self.at.end).map_err(|_| length())?;
        let mut rest = Reader(bytes.get(RECORDS..end).ok_or_else(length)?);
        let (mut chain, mut bodies) = (0, Vec::new());
        let mut at = RECORDS as u64;
        let mut whole_ends = false;
        while !rest.0.is_empty() {
            let record = rest.0;
            let body = rest.u32().and_then(|length| rest.take(length as usize));
            let (Some(body), Some(sum)) = (body, rest.u64()) else {
                return Err(PageMapError::Checksum);
            };
            if xxh3_64_with_seed(&record[..4 + body.len()], chain) != sum {
                return Err(PageMapError::Checksum);
            }
            chain = sum;
            bodies.push(body);
            at += (record.len() - rest.0.len()) as u64;
            whole_ends |= at == self.at.whole_end;
        }
        let whole = self.at.whole_end.wrapping_sub(RECORDS as u64);
        let is_short = || end as u64 - self.at.whole_end <= LEAST_JOURNAL.max(whole);
        match chain == self.at.chain && whole_ends && is_short() {
            true => Ok(bodies),
            false => Err(PageMapError::Checksum),
        }
    }
}

/// A head whose records are to be taken, those, and whether the file can be continued.
type Chosen<'b> = (Head, Vec<&'b [u8]>, bool);

/// Which of the heads counts. See the module.
fn choose(bytes: &[u8]) -> Result<Chosen<'_>, PageMapError> {
    let [first, second] = HEADS.map(|offset| Head::of(bytes, offset));
    let (first, second) = match (first, second) {
        (None, None) => return Err(PageMapError::Checksum),
        (Some(only), None) | (None, Some(only)) => {
            let records = only.records(bytes)?;
            return Ok((only, records, false));
        }
        (Some(first), Some(second)) => (first, second),
    };
    let same =
        first.at == second.at && first.db_size == second.db_size && first.page_size == second.page_size;
    let is_behind = second.at.saves.checked_add(1) == Some(first.at.saves) && second.at.end < first.at.end;
    match first.records(bytes) {
        Ok(records) if same || is_behind => Ok((first, records, same)),
        Err(_) if is_behind => {
            let records = second.records(bytes)?;
            Ok((second, records, false))
        }
        Ok(_) => Err(PageMapError::Checksum),
        Err(error) => Err(error),
    }
}

impl SavedPageMap {
    /// Reads a file; any bytes that no saver has left are an error. Pages from `end` on are left out: memory is bounded by
    /// it and the length of the input.
    pub fn decode(bytes: &[u8], end: PageCount) -> Result<Self, PageMapError> {
        match version(bytes) {
            Some(OLD_VERSION) => return decode_old(bytes, end),
            Some(VERSION) | None => {}
            // The whole of a head that says so, or it would be damage to one of this version.
            Some(other) if Head::of(bytes, HEADS[1]).is_none() => return Err(PageMapError::Version(other)),
            Some(_) => {}
        }
        if bytes.len() < RECORDS {
            return Err(match bytes.starts_with(MAGIC) {
                true => PageMapError::Length {
                    expected: RECORDS as u64,
                    actual: bytes.len() as u64,
                },
                false => PageMapError::Magic,
            });
        }
        if version(bytes).is_none() && Head::of(bytes, HEADS[1]).is_none() {
            return Err(PageMapError::Magic);
        }
        let (head, records, is_whole) = choose(bytes)?;
        let (map, mut beyond) = (PageMap::new(), false);
        // The last one that says something of a chunk counts: no chunk is looked at twice, whatever the records are.
        let mut loaded = RoaringBitmap::new();
        for body in records.into_iter().rev() {
            let mut reader = Reader(body);
            let mut next = 0;
            while !reader.0.is_empty() {
                let chunk = reader.chunk()?;
                if chunk.first < next {
                    return Err(PageMapError::Set("present"));
                }
                next = chunk.first + chunk.count;
                let mut new = RoaringBitmap::new();
                new.insert_range(chunk.first..next);
                new -= &loaded;
                loaded |= &new;
                beyond |= map.load(&chunk, &new, end);
            }
        }
        // What was read of a save that was cut off may have been written and not synced.
        map.as_loaded(is_whole.then_some(head.at), beyond || !is_whole);
        Ok(Self {
            page_size: PageSize::new(head.page_size)?,
            db_size: PageCount(head.db_size),
            map,
            beyond,
        })
    }
}

/// What a file that begins with the magic says of its version.
fn version(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader(bytes);
    (reader.array()? == *MAGIC).then(|| reader.u32()).flatten()
}

fn decode_old(bytes: &[u8], end: PageCount) -> Result<SavedPageMap, PageMapError> {
    let actual = bytes.len() as u64;
    let least = (OLD_HEAD + CHECKSUM) as u64;
    let mut reader = Reader(bytes);
    let numbers = (|| {
        reader.take(MAGIC.len() + 4)?;
        Some([reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?])
    })();
    let [page_size, db_size, present_len, dirty_len] = numbers.ok_or(PageMapError::Length {
        expected: least,
        actual,
    })?;
    let expected = least + u64::from(present_len) + u64::from(dirty_len);
    if actual != expected {
        return Err(PageMapError::Length { expected, actual });
    }
    let (body, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if xxh3_64(body).to_le_bytes() != checksum {
        return Err(PageMapError::Checksum);
    }
    let (present, dirty) = body[OLD_HEAD..].split_at(present_len as usize);
    let mut present = old_set(present).ok_or(PageMapError::Set("present"))?;
    let mut dirty = old_set(dirty).ok_or(PageMapError::Set("dirty"))?;
    let beyond = present.max().max(dirty.max()).is_some_and(|id| id >= end.0);
    present.remove_range(end.0..);
    dirty.remove_range(end.0..);
    let map = PageMap::from_sets(&present, &dirty);
    map.as_loaded(None, beyond);
    Ok(SavedPageMap {
        page_size: PageSize::new(page_size)?,
        db_size: PageCount(db_size),
        map,
        beyond,
    })
}

/// A set that fills all of `bytes` and names only pages that can exist (the last id has no page number).
fn old_set(mut bytes: &[u8]) -> Option<RoaringBitmap> {
    let set = RoaringBitmap::deserialize_from(&mut bytes).ok()?;
    (bytes.is_empty() && set.max() != Some(u32::MAX)).then_some(set)
}
