//! Reads B-tree pages and overflow pages as SQLite writes them (<https://www.sqlite.org/fileformat2.html>, 1.6).
//!
//! ```text
//! offset, from the start of the page (from byte 100 on page 1)
//!      0      1  kind: 2 interior index, 5 interior table, 10 leaf index, 13 leaf table
//!      1      2  first freeblock, or 0
//!      3      2  number of cells
//!      5      2  start of the cell content area; 0 means 65536
//!      7      1  fragmented free bytes
//!      8      4  right-most child, interior pages only
//! then 2 bytes a cell: where it begins, from the start of the page even on page 1
//!
//! cell             4 bytes left child | varint payload length | varint rowid | payload | 4 bytes first overflow page
//! interior table   x                                             x
//! leaf table                            x                        x              x         if not all is local
//! interior index   x                    x                                       x         if not all is local
//! leaf index                            x                                       x         if not all is local
//! ```
//!
//! A page is a view that borrows its bytes; nothing is copied or allocated. The bytes may be anything: every read is
//! checked, every iterator ends after at most as many cells as fit on a page. What this file must never do: panic,
//! follow a pointer to another page, or change a byte.

use crate::{
    header::{HEADER_LEN, MIN_USABLE_SIZE},
    types::PageNo,
};

/// The largest payload of SQLite, 2^31 - 1 bytes.
const MAX_PAYLOAD: u64 = i32::MAX as u64;

/// The four kinds of B-tree pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// Separates the pages of an index (or of a WITHOUT ROWID table) and holds entries itself.
    InteriorIndex,
    /// Separates the pages of a table by rowid.
    InteriorTable,
    /// Holds entries of an index (or rows of a WITHOUT ROWID table).
    LeafIndex,
    /// Holds rows.
    LeafTable,
}

impl PageKind {
    /// The kind that a page's first byte names (byte 100 of page 1).
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x02 => Some(Self::InteriorIndex),
            0x05 => Some(Self::InteriorTable),
            0x0a => Some(Self::LeafIndex),
            0x0d => Some(Self::LeafTable),
            _ => None,
        }
    }

    /// Whether pages of this kind have children.
    pub const fn is_interior(self) -> bool {
        matches!(self, Self::InteriorIndex | Self::InteriorTable)
    }

    const fn header_len(self) -> usize {
        if self.is_interior() { 12 } else { 8 }
    }
}

/// Why bytes are not a B-tree page, or a cell is not a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BTreeError {
    /// The first byte is not one of the four kinds: an overflow, freelist or pointer-map page, or damage.
    #[error("no B-tree page: its type byte is {0:#04x}")]
    Kind(u8),
    /// The page is shorter than its usable size, or the usable size is below SQLite's minimum.
    #[error("a page of {len} bytes cannot have {usable} usable bytes")]
    UsableSize {
        /// Bytes of the page.
        len: usize,
        /// Bytes that SQLite is said to use.
        usable: u32,
    },
    /// More cells than fit.
    #[error("the page claims {0} cells, more than fit")]
    CellCount(u16),
    /// A cell begins or ends outside the cell area.
    #[error("cell {0} does not lie within the page")]
    CellBounds(u16),
    /// A cell's payload is longer than SQLite allows.
    #[error("cell {0} claims a payload of more than 2147483647 bytes")]
    PayloadLength(u16),
    /// A child or overflow pointer is 0.
    #[error("a page pointer of cell {0} is 0")]
    NullPointer(u16),
    /// The list of free blocks leaves the page or goes backwards.
    #[error("the list of free blocks is damaged")]
    Freeblocks,
}

/// A B-tree page: its header checked, its cells read on demand.
#[derive(Clone, Copy, Debug)]
pub struct BTreePage<'a> {
    bytes: &'a [u8],
    header_at: usize,
    kind: PageKind,
    cell_count: u16,
}

/// One cell of a B-tree page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The child whose keys are less than or equal to this cell's; interior pages only.
    pub left_child: Option<PageNo>,
    /// The rowid; table pages only.
    pub rowid: Option<i64>,
    /// The row or the index entry; all but interior table pages.
    pub payload: Option<Payload<'a>>,
}

/// A record: the part on the page and where the rest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Length of the whole record in bytes, at most 2^31 - 1.
    pub len: u32,
    /// The bytes on the page.
    pub local: &'a [u8],
    /// The first page of the chain with the rest.
    pub overflow: Option<PageNo>,
}

impl Payload<'_> {
    /// How many overflow pages the record takes.
    pub fn overflow_pages(&self, usable_size: u32) -> u32 {
        (self.len - self.local.len() as u32).div_ceil(usable_size.saturating_sub(4).max(1))
    }
}

impl<'a> BTreePage<'a> {
    /// Checks the header of a B-tree page. `bytes` is the whole page, `usable_size` the page size without the reserved
    /// bytes ([`crate::header::DatabaseHeader::usable_size`]).
    pub fn parse(page: PageNo, bytes: &'a [u8], usable_size: u32) -> Result<Self, BTreeError> {
        let bytes = match bytes.get(..usable_size as usize) {
            Some(used) if usable_size >= MIN_USABLE_SIZE => used,
            _ => {
                return Err(BTreeError::UsableSize {
                    len: bytes.len(),
                    usable: usable_size,
                });
            }
        };
        let header_at = if page == PageNo::FIRST { HEADER_LEN } else { 0 };
        let kind = PageKind::from_byte(bytes[header_at]).ok_or(BTreeError::Kind(bytes[header_at]))?;
        let cell_count = read_u16(bytes, header_at + 3).unwrap_or(u16::MAX);
        let parsed = Self {
            bytes,
            header_at,
            kind,
            cell_count,
        };
        if parsed.cells_begin() > bytes.len() {
            return Err(BTreeError::CellCount(cell_count));
        }
        Ok(parsed)
    }

    /// The kind of the page.
    pub const fn kind(&self) -> PageKind {
        self.kind
    }

    /// How many cells it has. An interior page has one child more.
    pub const fn cell_count(&self) -> u16 {
        self.cell_count
    }

    /// The child after the last cell; `None` on a leaf, or when the pointer is 0.
    pub fn right_most_child(&self) -> Option<PageNo> {
        if !self.kind.is_interior() {
            return None;
        }
        read_u32(self.bytes, self.header_at + 8).and_then(PageNo::new)
    }

    /// Cell number `index`, from 0 up, in key order.
    pub fn cell(&self, index: u16) -> Result<Cell<'a>, BTreeError> {
        let mut rest = self.cell_bytes(index)?;
        let bounds = BTreeError::CellBounds(index);
        let mut cell = Cell {
            left_child: None,
            rowid: None,
            payload: None,
        };
        if self.kind.is_interior() {
            let child = take_u32(&mut rest).ok_or(bounds)?;
            cell.left_child = Some(PageNo::new(child).ok_or(BTreeError::NullPointer(index))?);
        }
        let mut payload_len = None;
        if self.kind != PageKind::InteriorTable {
            let len = take_varint(&mut rest).ok_or(bounds)?;
            payload_len = Some(u32::try_from(len).ok().filter(|n| u64::from(*n) <= MAX_PAYLOAD));
        }
        if matches!(self.kind, PageKind::InteriorTable | PageKind::LeafTable) {
            cell.rowid = Some(take_varint(&mut rest).ok_or(bounds)?.cast_signed());
        }
        if let Some(len) = payload_len {
            let len = len.ok_or(BTreeError::PayloadLength(index))?;
            let local_len = local_payload(self.kind, len, self.bytes.len() as u32);
            let local = take(&mut rest, local_len as usize).ok_or(bounds)?;
            let overflow = if local_len < len {
                let first = take_u32(&mut rest).ok_or(bounds)?;
                Some(PageNo::new(first).ok_or(BTreeError::NullPointer(index))?)
            } else {
                None
            };
            cell.payload = Some(Payload { len, local, overflow });
        }
        Ok(cell)
    }

    /// Every cell in key order; a damaged one is an error of its own and the next ones still come.
    pub fn cells(&self) -> impl ExactSizeIterator<Item = Result<Cell<'a>, BTreeError>> + use<'a> {
        let page = *self;
        (0..self.cell_count).map(move |index| page.cell(index))
    }

    /// Every child in key order, the right-most one last; nothing on a leaf. Cheaper than [`BTreePage::cells`]: of each
    /// cell only the pointer is read.
    pub fn children(&self) -> impl Iterator<Item = Result<PageNo, BTreeError>> + use<'a> {
        let page = *self;
        let interior = self.kind.is_interior();
        let cells = if interior { self.cell_count } else { 0 };
        let left = (0..cells).map(move |index| {
            let mut cell = page.cell_bytes(index)?;
            let child = take_u32(&mut cell).ok_or(BTreeError::CellBounds(index))?;
            PageNo::new(child).ok_or(BTreeError::NullPointer(index))
        });
        let last = interior.then(|| {
            self.right_most_child()
                .ok_or(BTreeError::NullPointer(self.cell_count))
        });
        left.chain(last)
    }

    /// The bytes that hold nothing, as `dbstat` counts them: between pointers and cells, free blocks and fragments.
    pub fn unused(&self) -> Result<u32, BTreeError> {
        let damaged = BTreeError::Freeblocks;
        let content = match read_u16(self.bytes, self.header_at + 5).ok_or(damaged)? {
            0 => 65536,
            at => usize::from(at),
        };
        let mut unused = content.checked_sub(self.cells_begin()).ok_or(damaged)?;
        unused += usize::from(self.bytes[self.header_at + 7]);
        let mut block = usize::from(read_u16(self.bytes, self.header_at + 1).ok_or(damaged)?);
        while block != 0 {
            let next = usize::from(read_u16(self.bytes, block).ok_or(damaged)?);
            unused += usize::from(read_u16(self.bytes, block + 2).ok_or(damaged)?);
            // A block is at least 4 bytes and the list goes up: so it ends.
            if next != 0 && next < block + 4 {
                return Err(damaged);
            }
            block = next;
        }
        u32::try_from(unused)
            .ok()
            .filter(|n| *n as usize <= self.bytes.len())
            .ok_or(damaged)
    }

    /// Where the cell pointers end and cells may begin.
    fn cells_begin(&self) -> usize {
        self.header_at + self.kind.header_len() + 2 * usize::from(self.cell_count)
    }

    /// The bytes from the start of a cell to the end of the page.
    fn cell_bytes(&self, index: u16) -> Result<&'a [u8], BTreeError> {
        let bounds = BTreeError::CellBounds(index);
        if index >= self.cell_count {
            return Err(bounds);
        }
        let pointer = self.header_at + self.kind.header_len() + 2 * usize::from(index);
        let at = usize::from(read_u16(self.bytes, pointer).ok_or(bounds)?);
        if at < self.cells_begin() {
            return Err(bounds);
        }
        self.bytes.get(at..).ok_or(bounds)
    }
}

/// The next page of an overflow chain, from the bytes of one of its pages; `None` on the last one.
pub fn next_overflow_page(bytes: &[u8]) -> Option<PageNo> {
    read_u32(bytes, 0).and_then(PageNo::new)
}

/// How many bytes of a record of `len` bytes stay on a page of this kind; the rest goes to overflow pages. `usable_size`
/// is at least 480 in any database; less gives no meaningful answer but no panic either.
pub const fn local_payload(kind: PageKind, len: u32, usable_size: u32) -> u32 {
    let usable = if usable_size < MIN_USABLE_SIZE {
        MIN_USABLE_SIZE
    } else {
        usable_size
    };
    let max = match kind {
        PageKind::LeafTable => usable - 35,
        PageKind::InteriorTable => return 0,
        PageKind::LeafIndex | PageKind::InteriorIndex => (usable - 12) * 64 / 255 - 23,
    };
    if len <= max {
        return len;
    }
    let min = (usable - 12) * 32 / 255 - 23;
    let fitted = min + (len - min) % (usable - 4);
    if fitted <= max { fitted } else { min }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    bytes.split_off(..len)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

/// Takes a varint of SQLite off the front: 7 bits a byte, high ones first, up to 8 bytes; a ninth gives 8 bits. `None` when
/// the bytes end before it does.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..9 {
        let byte = *bytes.split_off_first()?;
        if index == 8 {
            return Some(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn varints_have_one_to_nine_bytes() {
        let read = |mut bytes: &[u8]| take_varint(&mut bytes).map(|value| (value, bytes.len()));
        assert_eq!(read(&[0x7f, 9]), Some((127, 1)));
        assert_eq!(read(&[0x81, 0x00]), Some((128, 0)));
        assert_eq!(read(&[0xff; 9]), Some((u64::MAX, 0)));
        assert_eq!(read(&[0xff; 8]), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn a_page_that_claims_more_cells_than_fit_is_refused() {
        let mut bytes = [0; 512];
        bytes[0] = 0x0d;
        bytes[3..5].copy_from_slice(&253_u16.to_be_bytes());
        let page = PageNo::new(2).unwrap();
        assert_eq!(
            BTreePage::parse(page, &bytes, 512).unwrap_err(),
            BTreeError::CellCount(253)
        );
        assert!(BTreePage::parse(page, &bytes, 513).is_err());
        assert!(BTreePage::parse(page, &bytes, 479).is_err());
        bytes[4] = 252;
        let parsed = BTreePage::parse(page, &bytes, 512).unwrap();
        assert_eq!(parsed.cells().len(), 252);
        assert!(parsed.cells().all(|cell| cell.is_err()));
    }

    proptest! {
        #[test]
        fn invariant_11_any_bytes_are_read_without_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..5000),
            kind in prop::sample::select(vec![2_u8, 5, 10, 13, 0]),
            cells in 0..200_u16, page in 1..3_u32, usable in 0..5000_u32,
        ) {
            let page = PageNo::new(page).unwrap();
            let at = if page == PageNo::FIRST { 100 } else { 0 };
            if bytes.len() > at + 8 {
                bytes[at] = kind;
                bytes[at + 3..at + 5].copy_from_slice(&cells.to_be_bytes());
            }
            let _ = next_overflow_page(&bytes);
            if let Ok(parsed) = BTreePage::parse(page, &bytes, usable) {
                let _ = parsed.unused();
                let cells = parsed.cells().len();
                prop_assert!(cells <= bytes.len() / 2);
                for cell in parsed.cells().flatten() {
                    if let Some(payload) = cell.payload {
                        prop_assert!(payload.local.len() <= payload.len as usize);
                        prop_assert_eq!(payload.overflow.is_some(), payload.overflow_pages(usable) > 0);
                    }
                }
                let children = if parsed.kind().is_interior() { cells + 1 } else { 0 };
                prop_assert_eq!(parsed.children().count(), children);
            }
        }

        #[test]
        fn the_local_part_fits_on_the_page(len in 0..=i32::MAX as u32, usable in 480..=65536_u32) {
            for kind in [PageKind::LeafTable, PageKind::LeafIndex, PageKind::InteriorIndex] {
                let local = local_payload(kind, len, usable);
                prop_assert!(local <= len && local <= usable - 35);
            }
        }
    }
}
