//! Pages of a database as the parser and the walk of `inspect` see them.

use partial_sync::fuzzing::{self, PageAt};
use partial_sync_core::{
    PageNo, PageSize, Planner, PlannerConfig, SegmentSize,
    btree::{BTreePage, local_payload, next_overflow_page},
    header::DatabaseHeader,
};

use crate::input::Input;

/// Any page is read within its bounds; what the parser says of cells and children fits together, and the planner takes
/// the page as it is.
pub(crate) fn btree_page(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let reserved = u32::from(input.byte());
    let bytes = input.rest();
    let page = if flags & 1 == 0 {
        PageNo::FIRST
    } else {
        PageNo::new(2).expect("not 0")
    };
    let usable = if flags & 2 == 0 {
        bytes.len() as u32
    } else {
        (bytes.len() as u32).saturating_sub(reserved)
    };
    if let Ok(header) = DatabaseHeader::parse(bytes) {
        assert!(header.usable_size() >= 480 && header.usable_size() <= header.page_size.bytes());
        let mut changed = bytes.to_vec();
        DatabaseHeader::set_wal(&mut changed);
        DatabaseHeader::set_schema_cookie(&mut changed, 77);
        let again = DatabaseHeader::parse(&changed).expect("it was a header before");
        assert!(again.is_wal());
        assert_eq!(again.schema_cookie, 77);
        assert_eq!(
            (again.page_size, again.reserved),
            (header.page_size, header.reserved)
        );
    }
    let _ = next_overflow_page(bytes);
    let mut planner = Planner::new(PlannerConfig {
        prefetch: true,
        ..PlannerConfig::new(PageSize::DEFAULT, SegmentSize::DEFAULT)
    });
    if Planner::is_interesting(page, bytes) {
        planner.observe_page(page, bytes);
    }
    let Ok(parsed) = BTreePage::parse(page, bytes, usable) else {
        return;
    };
    let count = parsed.cells().len();
    assert!(count <= bytes.len() / 2);
    if let Ok(unused) = parsed.unused() {
        assert!(unused <= usable);
    }
    let interior = parsed.kind().is_interior();
    assert_eq!(parsed.children().count(), if interior { count + 1 } else { 0 });
    for (cell, child) in parsed.cells().zip(parsed.children()) {
        if let (Ok(cell), Ok(child)) = (cell, child) {
            assert_eq!(cell.left_child, Some(child));
        }
    }
    for cell in parsed.cells().flatten() {
        assert_eq!(cell.left_child.is_some(), interior);
        if let Some(payload) = cell.payload {
            assert_eq!(
                payload.local.len() as u32,
                local_payload(parsed.kind(), payload.len, usable)
            );
            assert_eq!(payload.overflow.is_some(), payload.overflow_pages(usable) > 0);
        }
    }
}

/// The walk over a database of any bytes ends, gives every page at most one owner, and counts right.
pub(crate) fn schema_walk(data: &[u8]) {
    let mut input = Input(data);
    let absent = input.byte();
    let size = PageSize::new(512 << (input.byte() % 4)).expect("a power of two");
    let bytes = input.rest();
    let mut pages: Vec<Vec<u8>> = bytes
        .chunks(size.as_usize())
        .take(64)
        .map(<[u8]>::to_vec)
        .collect();
    if let Some(last) = pages.last_mut() {
        last.resize(size.as_usize(), 0);
    }
    // Of every eight pages, those whose bit is set are absent.
    let is_absent = |n: usize| n > 0 && absent >> (n % 8) & 1 == 1;
    let (owners, views) = fuzzing::walk(&pages, size, is_absent);
    assert_eq!(views.len(), pages.len());
    let mut counts = vec![[0_u32; 3]; owners.len()];
    for (n, view) in views.iter().enumerate() {
        assert_eq!(view.at == PageAt::Absent, is_absent(n));
        if let Some(owner) = view.owner() {
            counts[owner][match view.at {
                PageAt::Absent => 0,
                PageAt::Present => 1,
                PageAt::Dirty => 2,
            }] += 1;
        }
    }
    for (owner, counted) in owners.iter().zip(counts) {
        assert_eq!([owner.absent, owner.present, owner.dirty], counted);
        assert!(!(owner.complete && owner.absent > 0 && owner.name == "sqlite_schema"));
    }
}
