//! Numbers that mean something have a type here, so that adding a page id to a page number does not compile.
//!
//! SQLite counts pages from 1 ([`PageNo`]); the wire counts them from 0 ([`PageId`]). [`PageNo::id`] and [`PageId::no`]
//! are the only places where one becomes the other.

use std::{fmt, num::NonZeroU32, sync::Arc};

/// A page number as SQLite counts: 1-based. Page 1 holds the database header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNo(NonZeroU32);

impl PageNo {
    /// Page 1, which starts with the 100-byte database header.
    pub const FIRST: PageNo = PageNo(NonZeroU32::MIN);

    /// The page number `n`; `None` for 0, which SQLite uses for "no page".
    pub const fn new(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The number, from 1 up.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The same page as the wire counts: 0-based.
    pub const fn id(self) -> PageId {
        PageId(self.0.get() - 1)
    }

    /// Byte offset of the page in the database file.
    pub const fn offset(self, size: PageSize) -> u64 {
        (self.0.get() as u64 - 1) * size.bytes() as u64
    }

    /// The page that holds the byte at `offset`; `None` past the largest database that SQLite allows.
    pub fn containing(offset: u64, size: PageSize) -> Option<Self> {
        u32::try_from(offset / size.bytes() as u64)
            .ok()?
            .checked_add(1)
            .and_then(Self::new)
    }

    /// The following page, if a database can be that large.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// The page that holds byte 2^30, where SQLite takes its locks; it never holds data, is never stored and never fetched.
    pub const fn lock_byte(size: PageSize) -> Self {
        PageId((1 << 30) / size.bytes())
            .no()
            .expect("2^30 is far before the last page")
    }

    /// True for the page of [`lock_byte`](Self::lock_byte).
    pub const fn is_lock_byte_page(self, size: PageSize) -> bool {
        self.get() == Self::lock_byte(size).get()
    }
}

impl fmt::Debug for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A page id as the wire counts: 0-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// The same page as SQLite counts; `None` for the one id that has no page number (`u32::MAX`).
    pub const fn no(self) -> Option<PageNo> {
        match self.0.checked_add(1) {
            Some(n) => PageNo::new(n),
            None => None,
        }
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number of pages; the size of a database when it is not said of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageCount(pub u32);

impl PageCount {
    /// No pages.
    pub const ZERO: PageCount = PageCount(0);

    /// Whether a database of this size has the page.
    pub const fn contains(self, page: PageNo) -> bool {
        page.get() <= self.0
    }

    /// The last page of a database of this size; `None` when it is empty.
    pub const fn last(self) -> Option<PageNo> {
        PageNo::new(self.0)
    }

    /// The size in bytes.
    pub const fn bytes(self, size: PageSize) -> u64 {
        self.0 as u64 * size.bytes() as u64
    }

    /// How many of them can be here: all but the page of SQLite's locks, which is never stored.
    pub const fn with_content(self, size: PageSize) -> Self {
        match self.contains(PageNo::lock_byte(size)) {
            true => Self(self.0 - 1),
            false => self,
        }
    }

    /// Every page of a database of this size, in order.
    pub fn iter(self) -> impl Iterator<Item = PageNo> {
        (1..=self.0).filter_map(PageNo::new)
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SQLite page size in bytes: a power of two from 512 to 65536.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

/// A page size that SQLite does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a SQLite page size: it must be a power of two from 512 to 65536")]
pub struct InvalidPageSize(pub u64);

impl PageSize {
    /// 4096 bytes, SQLite's default.
    pub const DEFAULT: PageSize = PageSize(4096);

    /// Checks a size in bytes.
    pub const fn new(bytes: u32) -> Result<Self, InvalidPageSize> {
        if bytes.is_power_of_two() && bytes >= 512 && bytes <= 65536 {
            Ok(Self(bytes))
        } else {
            Err(InvalidPageSize(bytes as u64))
        }
    }

    /// The size that a database header says: 1 stands for 65536.
    pub const fn of_header(raw: [u8; 2]) -> Result<Self, InvalidPageSize> {
        match u16::from_be_bytes(raw) {
            1 => Ok(Self(65536)),
            bytes => Self::new(bytes as u32),
        }
    }

    /// As a database header says it.
    pub const fn in_header(self) -> [u8; 2] {
        match self.0 {
            65536 => [0, 1],
            bytes => (bytes as u16).to_be_bytes(),
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, as a slice length.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// How many whole or partial pages `bytes` bytes take.
    pub fn pages_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.0))
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes a page", self.0)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An opaque name for one committed state of a remote; only the remote interprets it. Never empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Revision(Arc<str>);

impl Revision {
    /// Takes a revision as the remote wrote it; `None` for the empty string, which means "latest" on the wire.
    pub fn new(text: impl AsRef<str>) -> Option<Self> {
        let text = text.as_ref();
        (!text.is_empty()).then(|| Self(Arc::from(text)))
    }

    /// The revision as the remote wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}", self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts how often the base revision of a replica moved; a reader belongs to the epoch in which its snapshot began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Numbers the local changes of a replica. They only go up and are never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub i64);

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
