//! Sets of page ids.

use partial_sync_core::{PageCount, PageNo};
use roaring::RoaringBitmap;

/// Page ids below a size.
pub(crate) fn ids_below(size: PageCount) -> RoaringBitmap {
    let mut ids = RoaringBitmap::new();
    ids.insert_range(0..size.0);
    ids
}

/// Page numbers as page ids.
pub(crate) fn ids_of(pages: &RoaringBitmap) -> RoaringBitmap {
    pages
        .iter()
        .filter_map(PageNo::new)
        .map(|page| page.id().0)
        .collect()
}

/// The ids from that of a page on.
pub(crate) fn not_before(ids: &RoaringBitmap, page: PageNo) -> RoaringBitmap {
    let mut ids = ids.clone();
    ids.remove_range(..page.id().0);
    ids
}
