//! Compaction and collection, which go on beside the writer and never on the way of a commit.
//!
//! *Compaction* makes one file of several that follow each other, writes it, and then names it in the head. A file's content follows from its
//! transactions, so a late or a second writer of the same name changes nothing. Nothing is compacted into a level twice: what
//! comes next begins where the level, and those above it, end.
//!
//! *Collection* first raises the floor of the head, then removes files of level 0 up to it; and it takes files that larger ones hold out
//! of the head before it removes them. It raises the floor to the end of a compacted file only, over transactions that are older than
//! the retention, as the store's own clock tells: their age is the time between their writing and that of the newest file.
//!
//! What must never happen here: that something is removed which the head that is there names or needs, or that a keeper whose writer was
//! replaced changes the head.

use std::time::Duration;

use partial_sync_core::PageSize;
use partial_sync_ltx::{TxId, TxRange};

use crate::{
    bucket::{Bucket, HeadVersion, Listed, Swapped},
    error::StoreError,
    head::Head,
    layout::{FileName, Level},
    places::Places,
};

/// How many files are made one.
const FAN: usize = 16;
/// How many files of level 0 are made one at most; each is a request.
const MOST_COMMITS: u64 = 64;

/// Keeps a log in order for its writer.
#[derive(Clone, Debug)]
pub struct Keeper {
    bucket: Bucket,
    epoch: u64,
    node: u64,
    page_size: PageSize,
}

impl Keeper {
    pub(crate) fn new(bucket: Bucket, epoch: u64, node: u64, page_size: PageSize) -> Self {
        Self {
            bucket,
            epoch,
            node,
            page_size,
        }
    }

    async fn head(&self) -> Result<(Head, HeadVersion), StoreError> {
        let head = self.bucket.head().await?;
        head.filter(|(head, _)| head.is_of(self.epoch, self.node))
            .ok_or_else(|| self.fenced())
    }

    fn fenced(&self) -> StoreError {
        StoreError::Fenced {
            store: self.bucket.name(),
        }
    }

    /// Makes the next larger file, if it is time for one; `last` is the last transaction that is committed. `false` if there was nothing
    /// to do. One thing at a time: a second keeper of the same writer does the same work again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the writer is not the head's any more; others if requests fail, or a file is damaged.
    pub async fn compact(&self, last: TxId) -> Result<bool, StoreError> {
        let (head, version) = self.head().await?;
        let Some(job) = Job::next(&head, last) else {
            return Ok(false);
        };
        let places = Places::of(&self.bucket, &head)?;
        let file = places.join(&job.inputs, job.output, self.page_size).await?;
        let mut next = head.edited();
        next.files.push(file);
        match self.bucket.swap_head(&next, version).await? {
            Swapped::Done => Ok(true),
            // A takeover, or another keeper of this writer: the file is of no use, or will be made again.
            Swapped::Lost => self.head().await.map(|_| true),
        }
    }

    /// Removes what is not needed any more; `last` is the last transaction that is committed. It lists all levels, so it is for every
    /// some hours.
    ///
    /// # Errors
    /// As of [`compact`](Self::compact).
    pub async fn collect(&self, last: TxId) -> Result<usize, StoreError> {
        let (head, version) = self.head().await?;
        let Some(floor) = head.l0_floor else {
            return Ok(0);
        };
        let commits = self.bucket.list(Level::COMMITS, None).await?;
        let mut next = head.edited();
        next.raise_floor(floor, oldest_that_stays(&commits, floor, last, head.retention()));
        next.drop_held();
        if next.l0_floor != head.l0_floor || next.files.len() != head.files.len() {
            if let Swapped::Lost = self.bucket.swap_head(&next, version).await? {
                return self.head().await.map(|_| 0);
            }
        } else {
            next = head;
        }
        // From here on only what is of no use by a head that was there, and so by every later one.
        let mut useless: Vec<_> = commits
            .iter()
            .filter(|file| Some(file.ids.max()) <= next.l0_floor)
            .map(|file| FileName {
                level: Level::COMMITS,
                ids: file.ids,
            })
            .filter(|name| !next.is_pinned(*name))
            .collect();
        for level in (1..=9).filter_map(Level::new) {
            let files = self.bucket.list(level, None).await?.into_iter();
            let names = files.map(|file| FileName { level, ids: file.ids });
            useless.extend(names.filter(|name| next.is_useless(*name)));
        }
        let removed = useless.len();
        self.bucket.delete(useless).await?;
        Ok(removed)
    }
}

/// The first transaction of level 0 behind the floor that is too young to be removed, or else the last one.
fn oldest_that_stays(commits: &[Listed], floor: TxId, last: TxId, retention: Duration) -> TxId {
    let newest = commits.iter().map(|file| file.modified).max().unwrap_or_default();
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    commits
        .iter()
        .filter(|file| file.ids.min() > floor && file.ids.max() < last)
        .find(|file| newest.saturating_sub(file.modified) <= retention)
        .map_or(last, |file| file.ids.min())
}

/// Files that are made one.
#[derive(Debug, PartialEq, Eq)]
struct Job {
    output: FileName,
    inputs: Vec<FileName>,
}

impl Job {
    /// The next one, if it is time for one.
    fn next(head: &Head, last: TxId) -> Option<Self> {
        let chain = head.chain(last);
        let end = chain.last()?.ids.max();
        let (snapshot, deltas) = chain.split_first()?;
        let size = |name: &FileName| head.size_of(*name).unwrap_or_default();
        // As much again has changed: a new reader reads twice what there is, at most.
        if !deltas.is_empty() && deltas.iter().map(size).sum::<u64>() >= size(snapshot) {
            return Some(Self {
                output: FileName {
                    level: Level::SNAPSHOTS,
                    ids: TxRange::new(TxId::FIRST, end)?,
                },
                inputs: chain,
            });
        }
        let levels = (1..)
            .map_while(Level::new)
            .filter_map(|level| Some((level, level.above()?)));
        for (level, above) in levels {
            let done = head
                .names()
                .filter(|file| file.level >= above)
                .map(|file| file.ids.max())
                .max();
            let mut inputs: Vec<_> = head
                .names()
                .filter(|file| file.level == level && Some(file.ids.min()) > done)
                .collect();
            inputs.sort_by_key(|file| file.ids.min());
            if inputs.len() >= FAN {
                let (first, last) = (inputs.first()?, inputs.last()?);
                return Some(Self {
                    output: FileName {
                        level: above,
                        ids: TxRange::new(first.ids.min(), last.ids.max())?,
                    },
                    inputs,
                });
            }
        }
        if last.get() - end.get() < FAN as u64 {
            return None;
        }
        let first = end.next()?;
        let to = last.min(TxId::new(end.get() + MOST_COMMITS)?);
        Some(Self {
            output: FileName {
                level: Level::new(1)?,
                ids: TxRange::new(first, to)?,
            },
            inputs: (first.get()..=to.get())
                .filter_map(TxId::new)
                .map(FileName::commit)
                .collect(),
        })
    }
}

impl Head {
    /// Raises the floor to the end of a file, as far as that is before `below`.
    fn raise_floor(&mut self, floor: TxId, below: TxId) {
        let ends = |id: TxId| self.chain(id).last().is_some_and(|file| file.ids.max() == id);
        let raised = self
            .names()
            .map(|file| file.ids.max())
            .filter(|end| *end > floor && *end < below && ends(*end))
            .max();
        if raised.is_some() {
            self.l0_floor = raised;
        }
    }

    /// Whether a larger file has all of a file's transactions.
    fn holds(&self, name: FileName) -> bool {
        self.names().any(|file| {
            let larger = match file.level == name.level {
                true => file.level == Level::SNAPSHOTS && file.ids.max() > name.ids.max(),
                false => file.level > name.level,
            };
            larger && file.ids.min() <= name.ids.min() && name.ids.max() <= file.ids.max()
        })
    }

    /// Whether a file that is there is of no use, by this head and by every later one.
    fn is_useless(&self, name: FileName) -> bool {
        // One that `detach` has made, and that a later head names.
        let may_be_base = !self.parents.is_empty()
            && name.level == Level::SNAPSHOTS
            && Some(name.ids.max()) >= self.l0_floor;
        let is_named = self.names().any(|there| there == name);
        !is_named && !may_be_base && self.holds(name) && !self.is_pinned(name)
    }

    /// Takes out the files that larger ones hold, and that make no revision which has to be read soon: those of the floor and of the end,
    /// and for replicas that lag the last ones of each level. What branches read is named by their pins.
    fn drop_held(&mut self) {
        let ends = self.l0_floor.into_iter().chain(self.compacted());
        let mut needed: Vec<_> = ends.flat_map(|end| self.chain(end)).collect();
        for level in (1..9).filter_map(Level::new) {
            let mut files: Vec<_> = self.names().filter(|file| file.level == level).collect();
            files.sort_by_key(|file| std::cmp::Reverse(file.ids.max()));
            needed.extend(
                files
                    .into_iter()
                    .take(4 * FAN)
                    .filter(|file| Some(file.ids.max()) > self.l0_floor),
            );
        }
        let held: Vec<_> = self
            .names()
            .filter(|name| !needed.contains(name) && self.holds(*name))
            .collect();
        self.files
            .retain(|file| file.name().is_none_or(|name| !held.contains(&name)));
    }
}
