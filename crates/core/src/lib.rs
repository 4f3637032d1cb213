//! The pure heart of partial-sync: types for page numbers, counts and revisions, the page map, segment math, the SQLite
//! B-tree page parser and the prefetch planner.
//!
//! Nothing here does I/O, waits, or is unsafe; everything can be tested with values alone.
#![forbid(unsafe_code)]

pub mod types;

pub use types::{ChangeId, Epoch, InvalidPageSize, PageCount, PageId, PageNo, PageSize, Revision};
