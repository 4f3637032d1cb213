//! Segment math: which pages travel together when one of them is absent.
//!
//! A segment is an aligned run of whole pages: page 6 of 4 KiB pages in 16 KiB segments lies in 5-8. This file only
//! counts; it must never know which pages are here, and never name a page beyond the end of the database.

use std::{fmt, ops::RangeInclusive};

use crate::types::{PageCount, PageNo, PageSize};

/// How many bytes of the database are fetched together, 1 byte to 64 MiB; a segment always has at least one page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

/// A segment size outside the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} bytes is not a segment size: it must be at least 1 and at most {max} bytes (64 MiB)",
    max = SegmentSize::MAX.bytes()
)]
pub struct InvalidSegmentSize(pub u64);

impl SegmentSize {
    /// 128 KiB.
    pub const DEFAULT: SegmentSize = SegmentSize(128 * 1024);

    /// 64 MiB, the largest segment size.
    pub const MAX: SegmentSize = SegmentSize(64 * 1024 * 1024);

    /// Checks a size in bytes.
    ///
    /// ```
    /// use partial_sync_core::SegmentSize;
    /// assert_eq!(SegmentSize::new(16 * 1024).unwrap().bytes(), 16384);
    /// assert!(SegmentSize::new(0).is_err());
    /// ```
    pub const fn new(bytes: u64) -> Result<Self, InvalidSegmentSize> {
        if bytes >= 1 && bytes <= Self::MAX.0 as u64 {
            Ok(Self(bytes as u32))
        } else {
            Err(InvalidSegmentSize(bytes))
        }
    }

    /// The size in bytes, as configured.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// How many pages a segment has: the size rounded down to whole pages, and never less than one page.
    pub const fn pages(self, page_size: PageSize) -> u32 {
        let pages = self.0 / page_size.bytes();
        if pages == 0 { 1 } else { pages }
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes a segment", self.0)
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pages of one segment, in page order. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    first: PageNo,
    last: PageNo,
}

impl Segment {
    /// The first page.
    pub const fn first(self) -> PageNo {
        self.first
    }

    /// The last page.
    pub const fn last(self) -> PageNo {
        self.last
    }

    /// How many pages it has.
    pub const fn page_count(self) -> u32 {
        self.last.get() - self.first.get() + 1
    }

    /// Whether the page lies in it.
    pub fn contains(self, page: PageNo) -> bool {
        (self.first..=self.last).contains(&page)
    }

    /// First and last page.
    pub const fn range(self) -> RangeInclusive<PageNo> {
        self.first..=self.last
    }

    /// Its pages in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PageNo> {
        (self.first.get()..=self.last.get()).filter_map(PageNo::new)
    }
}

/// The segment that holds `page`, cut at the end of the database; `None` when the database has no such page.
///
/// ```
/// use partial_sync_core::{segment_of, PageCount, PageNo, PageSize, SegmentSize};
/// let size = SegmentSize::new(16 * 1024).unwrap();
/// let six = PageNo::new(6).unwrap();
/// let segment = segment_of(six, PageSize::DEFAULT, size, PageCount(100)).unwrap();
/// assert_eq!((segment.first().get(), segment.last().get()), (5, 8));
/// ```
pub fn segment_of(
    page: PageNo,
    page_size: PageSize,
    segment: SegmentSize,
    db_size: PageCount,
) -> Option<Segment> {
    if !db_size.contains(page) {
        return None;
    }
    let pages = segment.pages(page_size);
    let first_id = page.id().0 / pages * pages;
    let last = first_id.saturating_add(pages).min(db_size.0);
    Some(Segment {
        first: PageNo::new(first_id.saturating_add(1))?,
        last: PageNo::new(last)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(n: u32) -> PageNo {
        PageNo::new(n).unwrap()
    }

    fn bounds(n: u32, page_size: u32, segment: u64, db: u32) -> Option<(u32, u32)> {
        let segment = SegmentSize::new(segment).unwrap();
        segment_of(page(n), PageSize::new(page_size).unwrap(), segment, PageCount(db))
            .map(|s| (s.first().get(), s.last().get()))
    }

    #[test]
    fn page_6_of_4_kib_pages_in_16_kib_segments_lies_in_5_to_8() {
        assert_eq!(bounds(6, 4096, 16384, 100), Some((5, 8)));
        assert_eq!(bounds(1, 4096, 16384, 100), Some((1, 4)));
        assert_eq!(bounds(8, 4096, 16384, 100), Some((5, 8)));
        assert_eq!(bounds(9, 4096, 16384, 100), Some((9, 12)));
    }

    #[test]
    fn the_last_segment_ends_with_the_database() {
        assert_eq!(bounds(6, 4096, 16384, 7), Some((5, 7)));
        assert_eq!(bounds(7, 4096, 16384, 6), None);
        assert_eq!(
            bounds(u32::MAX, 512, 1 << 26, u32::MAX),
            Some((u32::MAX - 131_070, u32::MAX))
        );
    }

    #[test]
    fn a_segment_smaller_than_a_page_is_one_page_and_a_broken_one_is_rounded_down() {
        assert_eq!(bounds(6, 4096, 1, 100), Some((6, 6)));
        assert_eq!(bounds(6, 65536, 4096, 100), Some((6, 6)));
        assert_eq!(bounds(6, 4096, 12_287, 100), Some((5, 6)));
    }

    #[test]
    fn sizes_outside_the_limits_are_refused_with_the_limits() {
        for bytes in [0, (64 << 20) + 1, u64::MAX] {
            let error = SegmentSize::new(bytes).unwrap_err();
            assert_eq!(error, InvalidSegmentSize(bytes));
            assert!(
                error.to_string().contains("at least 1 and at most 67108864"),
                "{error}"
            );
        }
        assert_eq!(SegmentSize::new(64 << 20).unwrap(), SegmentSize::MAX);
        assert_eq!(SegmentSize::default().bytes(), 131_072);
    }

    proptest! {
        #[test]
        fn segments_tile_the_database(
            n in 1..=u32::MAX, db in 1..=u32::MAX, shift in 9..=16_u32, bytes in 1..=(64_u64 << 20),
        ) {
            let page_size = PageSize::new(1 << shift).unwrap();
            let size = SegmentSize::new(bytes).unwrap();
            let Some(segment) = segment_of(page(n), page_size, size, PageCount(db)) else {
                prop_assert!(n > db);
                return Ok(());
            };
            prop_assert!(segment.contains(page(n)));
            prop_assert!(segment.page_count() <= size.pages(page_size));
            prop_assert!(PageCount(db).contains(segment.last()));
            prop_assert_eq!(segment.first().id().0 % size.pages(page_size), 0);
            for other in [segment.first(), segment.last()] {
                prop_assert_eq!(segment_of(other, page_size, size, PageCount(db)), Some(segment));
            }
            if let Some(next) = segment.last().next().filter(|p| PageCount(db).contains(*p)) {
                let next = segment_of(next, page_size, size, PageCount(db)).unwrap();
                prop_assert_eq!(next.first().get(), segment.last().get() + 1);
                prop_assert_eq!(segment.page_count(), size.pages(page_size));
            }
        }
    }
}
