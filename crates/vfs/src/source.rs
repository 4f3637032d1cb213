//! Where absent pages come from, as the VFS sees it. The VFS never names HTTP: it hands a [`Miss`] and a [`PageSink`] to a
//! [`PageSource`] and waits, with a deadline, for its own page.

use partial_sync_core::{Epoch, PageCount, PageNo, Revision};
use roaring::RoaringBitmap;

use crate::error::ReadError;
pub use crate::error::SourceError;

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
    /// The SQL text, with its values, of the statement that is running, when it is known and not long.
    pub statement: Option<String>,
}

/// Fetches pages. Called on the thread of the query that waits.
pub trait PageSource: Send + Sync {
    /// Starts (or does) the fetch: gives each page to `sink` as it arrives, and ends with [`PageSink::finish`]. May
    /// return before that. Must end by itself: the readers' deadlines do not stop it.
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>);
}

/// Takes the pages of one [`Miss`] as they arrive. Dropped without [`PageSink::finish`], the readers get an error.
pub trait PageSink: Send + Sync {
    /// A page has arrived, asked for or not. It becomes present unless it is already, or the epoch moved on, or the disk
    /// refuses it: then only the readers that wait for it get it.
    fn page(&self, page: PageNo, data: &[u8]) -> Result<(), ReadError>;

    /// Pages that are here (0-based ids), and need not be sent, as far as a few KiB can say: all of them if they are few runs of
    /// pages, else those around the first that is fetched, and at the start of the file, where the roots of its trees are.
    fn have(&self) -> RoaringBitmap;

    /// Those of some pages that are here.
    fn present_among(&self, ids: &RoaringBitmap) -> RoaringBitmap;

    /// Whether a page is here and stays.
    fn has(&self, page: PageNo) -> bool;

    /// Whether pages that come now stay, for the epoch has not moved since they were asked for.
    fn fills(&self) -> bool;

    /// The fetch is over. Readers whose page did not come fail with the error, or, after `Ok`, with one that says so.
    fn finish(self: Box<Self>, result: Result<(), SourceError>);
}
