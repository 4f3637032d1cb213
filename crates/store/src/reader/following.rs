//! Follows a log: the next names, and from time to time the head.
//!
//! A file of level 0 counts if its id is above the floor. A name that was used, collected and written again by a writer that slept would
//! not; so the head is read after files of level 0 were read, unless that was done less than a quarter of the retention ago, as a writer
//! does it (`docs/object-storage.md`).

use std::{sync::Arc, time::Duration};

use partial_sync_core::PageSize;
use partial_sync_ltx::TxId;

use super::{
    catalog::{Catalog, Known, State, chain},
    files::Files,
    index::Indexed,
};
use crate::{bucket::Bucket, clock::Mark, error::StoreError, head::Head};

/// Which part of the retention a look at the head is good for.
const LOOK_PART: u32 = 4;
/// How many names are asked for at once where some more are expected.
pub(crate) const AT_ONCE: u64 = 24;
/// How often it is tried again when files went while they were read.
pub(crate) const TRIES: usize = 5;

/// How long a listing is good for, where there is no head.
const LIST_EVERY: Duration = Duration::from_secs(60);

/// What was seen of a bucket beside its files, and when.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `None` if it has none, and was listed.
    pub(crate) head: Option<Head>,
    pub(crate) at: Mark,
}

impl Seen {
    /// Whether it is time to look again.
    pub(crate) fn is_old(&self, bucket: &Bucket) -> bool {
        let good_for = self
            .head
            .as_ref()
            .map_or(LIST_EVERY, |head| head.retention() / LOOK_PART);
        let passed = bucket.clock().mark().since(self.at);
        passed.is_none_or(|passed| passed >= good_for)
    }
}

pub(crate) fn page_size(bucket: &Bucket, head: &Head) -> Result<PageSize, StoreError> {
    PageSize::new(head.page_size).map_err(|error| StoreError::Head {
        store: bucket.name(),
        why: error.to_string(),
    })
}

/// What a head and the files of level 0 behind it make: the catalog, and whether more of these may follow.
pub(crate) async fn gather(
    files: &Arc<Files>,
    head: &Head,
    most: u64,
) -> Result<(Catalog, bool), StoreError> {
    let all = TxId::new(u64::MAX).unwrap_or(TxId::FIRST);
    let known = Catalog::files_of(head);
    let base = chain(&known, all);
    let Some(end) = base.last().map(|file| file.name.ids.max()) else {
        return Err(StoreError::NoDatabase {
            store: files.bucket.name(),
        });
    };
    files.keep(base.iter().map(|file| file.name).collect());
    let places = files.places_of(head)?;
    let ((), indexes, commits) =
        futures_util::future::try_join3(places.check(), files.all_indexed(&base), files.commits(end, most))
            .await?;
    let newest = commits.last().or(indexes.last());
    let Some(newest) = newest.map(|indexed| indexed.header) else {
        return Err(StoreError::NoDatabase {
            store: files.bucket.name(),
        });
    };
    let pages = indexes
        .iter()
        .chain(&commits)
        .map(|indexed| indexed.index.len())
        .sum();
    check_size(files, State::after(&newest), pages)?;
    let catalog = Catalog {
        files: known,
        floor: head.l0_floor,
        epoch: head.epoch,
        node: head.node,
        writer: head.writer.clone(),
        last: State::after(&newest),
        newest,
    };
    Ok((catalog, commits.len() as u64 == most))
}

/// Whether a database can have as many pages as it says, when its files have `pages`; that of the locks is in none.
pub(crate) fn check_size(files: &Files, state: State, pages: u64) -> Result<(), StoreError> {
    match u64::from(state.size.0) > pages + 1 {
        false => Ok(()),
        true => Err(StoreError::Head {
            store: files.bucket.name(),
            why: format!(
                "the database has {} pages after transaction {}, and its files only {pages}",
                state.size, state.id
            ),
        }),
    }
}

/// The catalog after some more commits.
pub(crate) fn with_commits(
    files: &Files,
    catalog: &Catalog,
    commits: &[Arc<Indexed>],
) -> Result<Catalog, StoreError> {
    let mut next = catalog.clone();
    for commit in commits {
        let state = State::after(&commit.header);
        check_size(files, state, u64::from(next.last.size.0) + commit.index.len())?;
        (next.last, next.newest) = (state, commit.header);
        if next.floor.is_none() {
            next.files.push(Known {
                size: Some(commit.len),
                ..Known::commit(state.id)
            });
        }
    }
    Ok(next)
}
