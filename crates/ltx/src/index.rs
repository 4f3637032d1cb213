//! The page index: where in a file the frame of each page is.
//!
//! Frames follow each other from the header on without gaps, so the end of each is all that is kept of them: an index in which
//! frames overlap, or lead elsewhere, cannot be built.

use std::ops::Range;

use partial_sync_core::PageNo;

use crate::{
    error::LtxError,
    frame,
    header::{HEADER_LEN, Header},
    input::Input,
    order::Order,
    trailer::{TRAILER_LEN, Trailer},
};

/// What follows the entries: how many bytes they have.
const LENGTH_LEN: usize = 8;
/// The least between the header and the end: the end of the frames, the end of the index, its length, and the trailer.
const LEAST: usize = frame::END.len() + 1 + LENGTH_LEN + TRAILER_LEN;

/// Where the frames of a file are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageIndex {
    pages: Vec<PageNo>,
    /// Where the frame of each ends, which is where the next one begins.
    ends: Vec<u64>,
}

impl PageIndex {
    /// How many bytes at the end of a file [`parse_tail`](Self::parse_tail) needs, at most: `end` are the file's last bytes, at
    /// least 24 of them, and `file_len` is how many it has in all, as the store that keeps it says. It may be nearly all of the file:
    /// who asks for it has a limit of their own.
    ///
    /// # Errors
    /// [`LtxError`] if `end` says an index that does not fit into the file.
    pub fn tail_len(file_len: u64, end: &[u8]) -> Result<u64, LtxError> {
        let Some(length_at) = end.len().checked_sub(TRAILER_LEN + LENGTH_LEN) else {
            let (at, part) = (file_len, "the page index");
            return Err(LtxError::Cut { at, part });
        };
        let mut length = [0; LENGTH_LEN];
        length.copy_from_slice(&end[length_at..length_at + LENGTH_LEN]);
        let length = u64::from_be_bytes(length);
        let around = (HEADER_LEN + LEAST - 1) as u64;
        if length == 0 || file_len.checked_sub(around).is_none_or(|room| length > room) {
            let at = file_len.saturating_sub((TRAILER_LEN + LENGTH_LEN) as u64);
            let why = "its length does not fit into the file";
            return Err(LtxError::Index { at, why });
        }
        Ok(length + (frame::END.len() + LENGTH_LEN + TRAILER_LEN) as u64)
    }

    /// The index and the trailer of a file of `file_len` bytes, of which `header` and its last bytes `tail` are known;
    /// [`tail_len`](Self::tail_len) says how many these must be. More than that are ignored.
    ///
    /// Every rule is checked but the checksum of the file, which needs the pages.
    ///
    /// # Errors
    /// [`LtxError`] if this is not an index of such a file.
    pub fn parse_tail(header: &Header, file_len: u64, tail: &[u8]) -> Result<(Self, Trailer), LtxError> {
        let needed = Self::tail_len(file_len, tail)?;
        let Some(tail) = usize::try_from(needed).ok().and_then(|needed| {
            let from = tail.len().checked_sub(needed)?;
            tail.get(from..)
        }) else {
            let (at, part) = (file_len, "the page index");
            return Err(LtxError::Cut { at, part });
        };
        let mut index = Self::default();
        let each = |page, frame: Range<u64>| index.push(page, frame.end - frame.start);
        let trailer = read_tail(header, file_len, file_len - needed, tail, each)?;
        Ok((index, trailer))
    }

    /// How many pages the file has.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The pages that the file has, ascending.
    pub fn pages(&self) -> &[PageNo] {
        &self.pages
    }

    /// Which bytes of the file are the frame of `page`; `None` if it has none.
    pub fn range(&self, page: PageNo) -> Option<Range<u64>> {
        self.pages.binary_search(&page).ok().map(|n| self.nth(n))
    }

    /// Every page, ascending, and which bytes of the file are its frame.
    pub fn iter(&self) -> impl Iterator<Item = (PageNo, Range<u64>)> {
        self.pages
            .iter()
            .enumerate()
            .map(|(n, page)| (*page, self.nth(n)))
    }

    fn nth(&self, n: usize) -> Range<u64> {
        let start = match n.checked_sub(1) {
            Some(before) => self.ends[before],
            None => HEADER_LEN as u64,
        };
        start..self.ends[n]
    }

    /// Where the frames end, so far.
    pub(crate) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(HEADER_LEN as u64)
    }

    /// Takes the next frame, of `size` bytes.
    pub(crate) fn push(&mut self, page: PageNo, size: u64) {
        let end = self.end() + size;
        self.pages.push(page);
        self.ends.push(end);
    }

    /// The stored form, in pieces of some KiB, for `each`.
    pub(crate) fn encode<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        const PIECE: usize = 16 << 10;
        let (mut piece, mut length) = (Vec::with_capacity(PIECE), 0);
        for (page, range) in self.iter() {
            for number in [page.get().into(), range.start, range.end - range.start] {
                put_varint(number, &mut piece);
            }
            if piece.len() > PIECE - 3 * VARINT_LIMIT {
                length += piece.len() as u64;
                each(&piece)?;
                piece.clear();
            }
        }
        put_varint(0, &mut piece);
        length += piece.len() as u64;
        piece.extend_from_slice(&length.to_be_bytes());
        each(&piece)
    }
}

/// Reads the index and the trailer of a file of `file_len` bytes, whose header is `header` and whose frames end at `frames_end`: `read`
/// gives what is there and behind it, to the end of the file. Each page, ascending, and the range of its frame go to `each`. So
/// memory is taken for nothing but what `each` keeps.
///
/// Every rule is checked but the checksum of the file, which needs the pages. What `each` was given counts only if this succeeds.
///
/// # Errors
/// [`LtxError`] if this is not an index of such a file.
pub fn read_tail<R: std::io::Read>(
    header: &Header,
    file_len: u64,
    frames_end: u64,
    read: R,
    mut each: impl FnMut(PageNo, Range<u64>),
) -> Result<Trailer, LtxError> {
    let mut input = Input::new(read, frames_end);
    if input.array("the end of the frames")? != frame::END {
        let (at, why) = (frames_end, "what ends the frames is not before it");
        return Err(LtxError::Index { at, why });
    }
    let begin = input.at();
    let mut order = Order::of(header);
    let mut end = HEADER_LEN as u64;
    loop {
        let at = input.at();
        let Some(entry) = read_entry(&mut input, &mut |_: &[u8]| {})? else {
            break;
        };
        order.accept(entry.page, at)?;
        if !(frame::LEAST..=frame::most(header.page_size)).contains(&entry.size) {
            let why = "a frame cannot have that size";
            return Err(LtxError::Index { at, why });
        }
        if entry.offset != end {
            let why = "a frame does not begin where the one before it ends";
            return Err(LtxError::Index { at, why });
        }
        end += entry.size;
        if end > frames_end {
            let why = "a frame ends behind the end of the frames";
            return Err(LtxError::Index { at, why });
        }
        each(entry.page, entry.offset..end);
    }
    order.end(input.at())?;
    if end != frames_end {
        let (at, why) = (begin, "it does not begin where the frames end");
        return Err(LtxError::Index { at, why });
    }
    // What is behind the entries is the end of the file, and not something that looks like it.
    if input.at() + ((LENGTH_LEN + TRAILER_LEN) as u64) != file_len {
        let (at, why) = (input.at(), "it ends before its length says");
        return Err(LtxError::Index { at, why });
    }
    read_length(&mut input, begin)?;
    let at = input.at();
    let (trailer, _) = Trailer::parse(&input.array("the trailer")?, at, header)?;
    Ok(trailer)
}

/// What the index says of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) page: PageNo,
    offset: u64,
    size: u64,
}

impl Entry {
    pub(crate) fn is(&self, page: PageNo, range: &Range<u64>) -> bool {
        self.page == page && self.offset == range.start && self.size == range.end - range.start
    }
}

/// The next entry; `None` is the end. Every byte of it is also given to `each`.
pub(crate) fn read_entry<R: std::io::Read>(
    input: &mut Input<R>,
    each: &mut impl FnMut(&[u8]),
) -> Result<Option<Entry>, LtxError> {
    let at = input.at();
    let page = match read_varint(input, each)? {
        0 => return Ok(None),
        page => u32::try_from(page).ok().and_then(PageNo::new),
    };
    let Some(page) = page else {
        let why = "there is no page with that number";
        return Err(LtxError::Index { at, why });
    };
    Ok(Some(Entry {
        page,
        offset: read_varint(input, each)?,
        size: read_varint(input, each)?,
    }))
}

/// The length behind the entries, which began at `begin`.
pub(crate) fn read_length<R: std::io::Read>(
    input: &mut Input<R>,
    begin: u64,
) -> Result<[u8; LENGTH_LEN], LtxError> {
    let at = input.at();
    let bytes = input.array("the length of the page index")?;
    match u64::from_be_bytes(bytes) == at - begin {
        true => Ok(bytes),
        false => {
            let why = "its length is not that of its entries";
            Err(LtxError::Index { at, why })
        }
    }
}

/// Most bytes of a varint.
const VARINT_LIMIT: usize = 10;

fn put_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn read_varint<R: std::io::Read>(
    input: &mut Input<R>,
    each: &mut impl FnMut(&[u8]),
) -> Result<u64, LtxError> {
    let at = input.at();
    let mut value = 0;
    for n in 0..VARINT_LIMIT {
        let [byte] = input.array("the page index")?;
        each(&[byte]);
        if n == VARINT_LIMIT - 1 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(LtxError::Varint { at })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, LtxError> {
        read_varint(&mut Input::new(bytes, 5), &mut |_| {})
    }

    #[test]
    fn a_number_that_does_not_end_or_is_too_large_is_refused() {
        assert!(matches!(read(&[0xff; 10]), Err(LtxError::Varint { at: 5 })));
        assert!(matches!(read(&[0x80; 9]), Err(LtxError::Cut { at: 14, .. })));
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(read(&largest).unwrap(), u64::MAX);
        let mut larger = largest;
        larger[9] = 2;
        assert!(matches!(read(&larger), Err(LtxError::Varint { at: 5 })));
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, shift in 0..64) {
            let mut bytes = Vec::new();
            put_varint(value >> shift, &mut bytes);
            prop_assert_eq!(read(&bytes).unwrap(), value >> shift);
        }

        #[test]
        fn pages_are_found_where_they_were_put(sizes in prop::collection::vec((1u32..1000, 11u64..5000), 0..40)) {
            let mut index = PageIndex::default();
            let (mut page, mut start) = (0, HEADER_LEN as u64);
            let mut expected = Vec::new();
            for (step, size) in sizes {
                page += step;
                let no = PageNo::new(page).unwrap();
                index.push(no, size);
                expected.push((no, start..start + size));
                start += size;
            }
            for (no, range) in &expected {
                prop_assert_eq!(index.range(*no), Some(range.clone()));
                if !expected.iter().any(|(other, _)| Some(*other) == no.next()) {
                    prop_assert_eq!(index.range(no.next().unwrap()), None);
                }
            }
            prop_assert_eq!(index.iter().collect::<Vec<_>>(), expected);
        }
    }
}
