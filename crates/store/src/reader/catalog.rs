//! Which files there are, and which of them make a state.
//!
//! A catalog is of one moment and does not change. Files of level 0 behind the floor have names that follow from their ids, so they are
//! not in it; what it does not have is not there, or counts for nothing.

use partial_sync_core::PageCount;
use partial_sync_ltx::{Header, TxId};

use crate::{
    head::Head,
    layout::{FileName, Level},
    run::HeadFile,
};

/// After how many commits that are asked for one by one a larger file that has some more is better.
const FEW: u64 = 64;

/// A committed state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its last transaction.
    pub id: TxId,
    /// Pages of the database.
    pub size: PageCount,
    /// When it was committed, by the writer's clock: milliseconds since 1970.
    pub time: i64,
}

impl State {
    /// The state that a file leaves.
    pub(crate) fn after(header: &Header) -> Self {
        Self {
            id: header.ids.max(),
            size: header.commit,
            time: header.timestamp,
        }
    }
}

/// A file, and what is said of it; what is not said is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) name: FileName,
    /// Bytes.
    pub(crate) size: Option<u64>,
    /// Where the last frame ends.
    pub(crate) tail_at: Option<u64>,
}

impl Known {
    pub(crate) fn commit(id: TxId) -> Self {
        Self {
            name: FileName::commit(id),
            size: None,
            tail_at: None,
        }
    }

    fn min(&self) -> u64 {
        self.name.ids.min().get()
    }

    fn max(&self) -> u64 {
        self.name.ids.max().get()
    }
}

/// The files of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    /// Those of all levels; of level 0 only where `floor` is `None`, and those of parents.
    pub(crate) files: Vec<Known>,
    /// Files of level 0 are there behind this id, up to `last`.
    pub(crate) floor: Option<TxId>,
    pub(crate) epoch: u64,
    pub(crate) node: u64,
    pub(crate) writer: Option<String>,
    pub(crate) last: State,
    /// The header of the file that `last` is after.
    pub(crate) newest: Header,
}

impl Catalog {
    /// The files that a head names.
    pub(crate) fn files_of(head: &Head) -> Vec<Known> {
        let known = |file: &HeadFile| {
            Some(Known {
                name: file.name()?,
                size: Some(file.size),
                tail_at: Some(file.tail_at),
            })
        };
        let runs = || head.read_from().iter().map(|parent| &parent.run);
        let elsewhere = runs().flat_map(|run| run.files());
        let commits = runs().flat_map(|run| run.names());
        let commits = commits.filter(|name| name.level == Level::COMMITS);
        let files = head.files.iter().chain(elsewhere).filter_map(known);
        files
            .chain(commits.map(|name| Known::commit(name.ids.max())))
            .collect()
    }

    /// The files that make the state after `id`, the oldest first; `None` if that is not kept.
    pub(crate) fn chain(&self, id: TxId) -> Option<Vec<Known>> {
        let mut chain = chain(&self.files, id);
        let end = chain.last().map(|file| file.name.ids.max())?;
        if end == id {
            return Some(chain);
        }
        (self.floor? <= end && id <= self.last.id).then_some(())?;
        let commits = (end.get() + 1..=id.get()).filter_map(TxId::new);
        chain.extend(commits.map(Known::commit));
        Some(chain)
    }

    /// The ids at or below the floor whose states are kept, ascending.
    pub(crate) fn ends(&self) -> Vec<TxId> {
        let mut ends: Vec<_> = self.files.iter().map(|file| file.name.ids.max()).collect();
        ends.sort_unstable();
        ends.dedup();
        ends.retain(|end| self.floor.is_none_or(|floor| *end <= floor) && self.chain(*end).is_some());
        ends
    }

    /// Files that have every page that changed after the state `since` up to the state `until`, and perhaps others.
    pub(crate) fn cover(&self, since: TxId, until: TxId) -> Option<Vec<Known>> {
        let mut cover = Vec::new();
        let mut end = since;
        while end < until {
            let continues =
                |file: &&Known| file.name.ids.continues(Some(end)) && file.name.ids.max() <= until;
            let deltas = || self.files.iter().filter(continues).filter(|file| file.min() > 1);
            let exact = deltas()
                .filter(|file| file.min() == end.get() + 1)
                .max_by_key(|file| (file.max(), file.name.level));
            let with_more = deltas().max_by_key(|file| (file.max(), file.min(), file.name.level));
            let commit = self.floor.filter(|floor| *floor <= end);
            let next = match (exact, with_more, commit) {
                (Some(file), _, _) => *file,
                (None, Some(file), Some(_)) if file.max() - end.get() > FEW => *file,
                (None, _, Some(_)) => Known::commit(end.next()?),
                (None, Some(file), None) => *file,
                (None, None, None) => *self
                    .files
                    .iter()
                    .filter(continues)
                    .max_by_key(|file| file.max())?,
            };
            end = next.name.ids.max();
            cover.push(next);
        }
        Some(cover)
    }
}

/// Those of the files that make the state after `until`, or that before it which they can, the oldest first.
pub(crate) fn chain(files: &[Known], until: TxId) -> Vec<Known> {
    let mut chain: Vec<Known> = Vec::new();
    loop {
        let end = chain.last().map(|file| file.name.ids.max());
        let next = files
            .iter()
            .filter(|file| file.name.ids.max() <= until && file.name.ids.continues(end))
            .max_by_key(|file| (file.max(), file.name.level));
        match next {
            Some(file) => chain.push(*file),
            None => return chain,
        }
    }
}

/// A file of level 0.
pub(crate) fn is_commit(file: &Known) -> bool {
    file.name.level == Level::COMMITS
}
