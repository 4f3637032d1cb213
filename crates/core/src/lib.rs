//! The pure heart of partial-sync: types for page numbers, counts and revisions, the page map, segment math, the SQLite
//! B-tree page parser and the prefetch planner.
//!
//! Nothing here does I/O, waits, or is unsafe; everything can be tested with values alone.
#![forbid(unsafe_code)]

pub mod admit;
pub mod btree;
pub mod chunk;
pub mod header;
mod known_trees;
pub mod page_map;
pub mod planner;
pub mod saved_map;
pub mod segment;
mod streams;
mod sync;
pub mod types;
pub mod wal;

pub use page_map::{Arrivals, PageMap, Seen};
pub use planner::{FetchView, Planner, PlannerConfig};
pub use saved_map::{PageMapError, Save, SaveTo, SavedPageMap};
pub use segment::{InvalidSegmentSize, Segment, SegmentSize, segment_of};
pub use types::{ChangeId, Epoch, InvalidPageSize, PageCount, PageId, PageNo, PageSize, Revision};
