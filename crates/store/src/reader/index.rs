//! Where the pages of a file are, in some 2 bytes a page: a snapshot of millions of pages is kept in memory so.
//!
//! The pages are a bitmap. Frames follow each other without gaps from the header on, so only their sizes are kept, as varints, and for
//! each run of [`STEP`] frames where the first of them is.

use std::ops::Range;

use partial_sync_core::PageNo;
use partial_sync_ltx::{Checksum, Header, LtxError};
use roaring::RoaringBitmap;

use crate::{bucket::Bucket, error::StoreError, layout::FileName};

/// Every how many frames it is kept where one is.
const STEP: u64 = 64;

/// Where the pages of a file are.
#[derive(Debug)]
pub(crate) struct Indexed {
    pub(crate) header: Header,
    pub(crate) index: Index,
    pub(crate) name: FileName,
    /// Bytes.
    pub(crate) len: u64,
    /// Which version of the object it is, if the store tells.
    pub(crate) tag: Option<String>,
    /// The checksum of the file.
    pub(crate) checksum: Checksum,
    /// It is read whole.
    pub(crate) whole: bool,
}

impl Indexed {
    /// An error about the file's bytes.
    pub(crate) fn wrong(&self, bucket: &Bucket, error: LtxError) -> StoreError {
        bucket.wrong_file(self.name, error)
    }
}

/// The page index of a file.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Page ids.
    pages: RoaringBitmap,
    sizes: Vec<u8>,
    places: Vec<Place>,
    count: u64,
}

/// Where a run of frames begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    in_file: u64,
    in_sizes: u64,
}

impl Index {
    /// Takes the next frame; pages ascend.
    pub(crate) fn push(&mut self, page: PageNo, frame: &Range<u64>) {
        if self.count.is_multiple_of(STEP) {
            self.places.push(Place {
                in_file: frame.start,
                in_sizes: self.sizes.len() as u64,
            });
        }
        self.pages.insert(page.id().0);
        let mut size = frame.end - frame.start;
        while size >= 0x80 {
            self.sizes.push(size as u8 | 0x80);
            size >>= 7;
        }
        self.sizes.push(size as u8);
        self.count += 1;
    }

    /// No frame comes any more: gives memory back.
    pub(crate) fn finish(mut self) -> Self {
        self.pages.optimize();
        self.sizes.shrink_to_fit();
        self.places.shrink_to_fit();
        self
    }

    /// The ids of the pages that the file has.
    pub(crate) fn ids(&self) -> &RoaringBitmap {
        &self.pages
    }

    /// How many pages it has.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Which bytes of the file are the frame of `page`; `None` if it has none.
    pub(crate) fn range(&self, page: PageNo) -> Option<Range<u64>> {
        let id = page.id().0;
        if !self.pages.contains(id) {
            return None;
        }
        let n = self.pages.rank(id) - 1;
        let place = self.places.get((n / STEP) as usize)?;
        let mut sizes = self.sizes.get(place.in_sizes as usize..)?.iter();
        let mut next = || {
            let (mut size, mut shift) = (0, 0);
            loop {
                let byte = *sizes.next()?;
                size |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return Some(size);
                }
            }
        };
        let mut start = place.in_file;
        for _ in 0..n % STEP {
            start += next()?;
        }
        Some(start..start + next()?)
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> u64 {
        let places = self.places.capacity() * size_of::<Place>();
        (self.pages.serialized_size() + self.sizes.capacity() + places + size_of::<Self>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use partial_sync_ltx::HEADER_LEN;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_are_found_where_they_were_put(frames in prop::collection::vec((1u32..3, 11u64..140_000), 0..400)) {
            let (mut index, mut expected) = (Index::default(), Vec::new());
            let (mut page, mut start) = (0, HEADER_LEN as u64);
            for (step, size) in frames {
                page += step;
                let no = PageNo::new(page).unwrap();
                index.push(no, &(start..start + size));
                expected.push((no, start..start + size));
                start += size;
            }
            let index = index.finish();
            prop_assert_eq!(index.len(), expected.len() as u64);
            for no in (1..=page + 2).filter_map(PageNo::new) {
                let there = expected.iter().find(|(other, _)| *other == no).map(|(_, range)| range.clone());
                prop_assert_eq!(index.range(no), there);
            }
        }
    }

    #[test]
    fn a_snapshot_of_ten_gigabytes_takes_less_than_ten_megabytes() {
        let (mut index, mut start) = (Index::default(), HEADER_LEN as u64);
        for n in 1..=2_621_440 {
            let (no, size) = (PageNo::new(n).unwrap(), u64::from(200 + n % 3900));
            if no.is_lock_byte_page(partial_sync_core::PageSize::DEFAULT) {
                continue;
            }
            index.push(no, &(start..start + size));
            start += size;
        }
        let index = index.finish();
        assert!(index.bytes() < 10_000_000, "{} bytes", index.bytes());
        let last = index.range(PageNo::new(2_621_440).unwrap()).unwrap();
        assert_eq!(last.end, start);
    }
}
