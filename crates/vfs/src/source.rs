//! Where absent pages come from, as the VFS sees it. The VFS never names HTTP: it hands a [`Miss`] and a
//! [`PageSink`](crate::replica::PageSink) to a [`PageSource`] and waits, with a deadline, for its own page.

use std::{error::Error, sync::Arc};

use partial_sync_core::{Epoch, PageCount, PageNo, Revision};

use crate::replica::PageSink;

/// What a source failed with; it reaches the SQL caller unchanged, as the source of the query's error.
pub type SourceError = Arc<dyn Error + Send + Sync>;

/// The remote state at which absent pages are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its name.
    pub revision: Revision,
    /// Size of the remote database at that revision.
    pub size: PageCount,
}

/// A read of a page that is not here.
#[derive(Clone, Debug)]
pub struct Miss {
    /// The page that a query waits for.
    pub wanted: PageNo,
    /// Pages to fetch in one request, in the order in which they should come: `wanted` first, then what the planner
    /// added. All are absent and none is in flight already.
    pub pages: Vec<PageNo>,
    /// The state to fetch them at: that of the reader's snapshot.
    pub base: Base,
    /// The epoch of that state.
    pub epoch: Epoch,
    /// The SQL text, with its values, of the statement that is running, when it is known.
    pub statement: Option<String>,
}

/// Fetches pages. Called on the thread of the query that waits.
pub trait PageSource: Send + Sync {
    /// Starts (or does) the fetch: gives each page to `sink` as it arrives, and ends with [`PageSink::finish`]. May
    /// return before that. Must end by itself: the readers' deadlines do not stop it.
    fn fetch(&self, miss: Miss, sink: PageSink);
}
