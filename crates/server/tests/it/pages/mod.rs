//! Page history, `/pull-updates` and serving, over real HTTP.
//!
//! The oracle is SQLite itself: the pages of a state are read through `sqlite_dbpage` in a read transaction. The database
//! file is never opened by other means here: closing it would drop the locks of the server in the same process.

mod at_once;
mod comparing;
mod conformance;
mod following;
mod guarded;
mod history;
mod http;
pub(crate) mod restart;
mod restored;
mod serving;
mod stress;
pub(crate) mod support;
