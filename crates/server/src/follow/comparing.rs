//! Comparing the pages of a snapshot with what the page history knows of them, some at a time.

use partial_sync_core::PageNo;

use super::snapshot::Snapshot;
use crate::{
    error::ServerError,
    history::{Comparison, History, RevisionRecord, page_hash},
};

/// Pages, and bytes, that are compared in one step: as long as that, commits wait for their revisions.
const PAGES: u32 = 1024;
const BYTES: u32 = 8 << 20;

/// Compares the next pages of the latest revision, which is that of the snapshot. Returns what is left.
pub(crate) fn compare_some(
    history: &dyn History,
    snapshot: &Snapshot,
    latest: RevisionRecord,
    at: Comparison,
) -> Result<Option<Comparison>, ServerError> {
    let most = PAGES.min(BYTES / snapshot.page_size().bytes());
    let pages = (at.next.get()..).take(most.min(at.left()) as usize);
    let hash = |page| match snapshot.db_size().contains(page) {
        true => Ok(Some(page_hash(&snapshot.read(page)?))),
        false => Ok(None),
    };
    let hashes: Result<Vec<_>, ServerError> = pages.filter_map(PageNo::new).map(hash).collect();
    Ok(history.compare(latest, at, &hashes?)?)
}

/// Compares all that is left.
pub(crate) fn compare_all(
    history: &dyn History,
    snapshot: &Snapshot,
    latest: RevisionRecord,
) -> Result<(), ServerError> {
    let mut left = history.comparison()?;
    while let Some(at) = left {
        left = compare_some(history, snapshot, latest, at)?;
    }
    Ok(())
}
