//! The page history: for every revision that is still kept, the old bytes of the pages that later revisions changed.
//!
//! [`History`] is the seam for where they are kept; [`SqliteHistory`] keeps them in a SQLite file beside the database, and
//! `KeptElsewhere` none, where a log has them all.
//! A page at revision r is the oldest pre-image kept after r, else the current page; what changed between two revisions
//! is the set of pages with a pre-image between them. A history never reads the database that it is of, and a revision
//! that it has given out is never given out again for another state.

mod api;
mod comparing;
mod elsewhere;
mod recent;
pub(crate) mod revision;
mod sqlite;

pub use api::{
    Before, Change, Changes, Comparison, History, HistorySize, Kept, KeptRevision, Position, Pruned,
    Retention, page_hash,
};
pub(crate) use elsewhere::KeptElsewhere;
pub use revision::{Generation, RevisionRecord, Seq};
pub use sqlite::SqliteHistory;
