//! The states of a database: what is the latest, which are kept, their pages, and what changed between them.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use bytes::Bytes;
use futures_util::{TryStreamExt, stream::FuturesUnordered};
use partial_sync_core::{PageNo, PageSize};
use partial_sync_ltx::{Header, TxId};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    catalog::{Catalog, Known, State, is_commit},
    contents::Frame,
    files::{Files, lock},
    following::{AT_ONCE, Seen, TRIES, check_size, gather, page_size, with_commits},
    index::Indexed,
    listing,
    options::ReadOptions,
};
use crate::{bucket::Bucket, error::StoreError, head::Head, layout::FileName};

/// What is known of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The state after it is kept.
    Kept(State),
    /// It was there, and is not kept any more.
    Gone,
    /// There is no such transaction, so far as is known here: [`Reader::advance`] may bring it.
    Unknown,
}

/// Reads a log. Copies of it are the same reader.
#[derive(Clone)]
pub struct Reader(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) files: Arc<Files>,
    lineage: String,
    /// What is known now.
    catalog: Mutex<Arc<Catalog>>,
    /// What was read last beside files.
    seen: Mutex<Seen>,
    /// Who changes the two above holds it.
    turn: tokio::sync::Mutex<()>,
    /// Why this is not the history any more that is there.
    void: OnceLock<String>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("bucket", &self.0.files.bucket)
            .field("latest", &self.latest())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a database. Three requests in sequence, if nothing changes meanwhile, bring the first page: the head; the indexes and the
    /// commits behind them, side by side; a range with the page.
    ///
    /// A bucket without a head that Litestream writes is listed, here and about once a minute in [`advance`](Self::advance). Its states are
    /// those at which its files end. Its lineage is made of its place and its oldest snapshot, and so is another one at the next opening
    /// if that was removed.
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`] if there is none; [`StoreError::File`] if a file is damaged; others if requests fail.
    pub async fn open(bucket: Bucket, options: ReadOptions) -> Result<Self, StoreError> {
        let mut tries = TRIES;
        loop {
            match Self::try_open(&bucket, &options).await {
                // A compaction and a collection came between.
                Err(error) if error.is_missing() && tries > 0 => tries -= 1,
                Err(error) => return Err(error),
                Ok((reader, more)) => {
                    if more || reader.is_look_due() {
                        reader.advance().await?;
                    }
                    return Ok(reader);
                }
            }
        }
    }

    /// The reader, and whether there is more than it has looked at.
    async fn try_open(bucket: &Bucket, options: &ReadOptions) -> Result<(Self, bool), StoreError> {
        let at = bucket.clock().mark();
        let no_database = || StoreError::NoDatabase { store: bucket.name() };
        let (files, lineage, catalog, more, head) = match bucket.head().await? {
            Some((head, _)) => {
                let size = page_size(bucket, &head)?;
                let files = Files::new(bucket.clone(), size, &head.lineage, options);
                let (catalog, more) = gather(&files, &head, AT_ONCE).await?;
                (files, head.lineage.clone(), catalog, more, Some(head))
            }
            None => {
                let found = listing::find(bucket).await?.ok_or_else(no_database)?;
                let files = Files::new(found.bucket, found.page_size, &found.lineage, options);
                let catalog = listing::gather(&files).await?;
                (files, found.lineage, catalog, true, None)
            }
        };
        let reader = Self(Arc::new(Inner {
            files,
            lineage,
            catalog: Mutex::new(Arc::new(catalog)),
            seen: Mutex::new(Seen { head, at }),
            turn: tokio::sync::Mutex::new(()),
            void: OnceLock::new(),
        }));
        Ok((reader, more))
    }

    /// Bytes of a page, the same in all states.
    pub fn page_size(&self) -> PageSize {
        self.0.files.page_size()
    }

    /// Names the history: ids count within it.
    pub fn lineage(&self) -> &str {
        &self.0.lineage
    }

    /// The first part of the revisions of this history: the number that a lineage of this crate is; any other text has one too.
    pub fn generation(&self) -> u64 {
        let number = Some(&*self.0.lineage).filter(|text| text.len() == 16);
        let number = number.and_then(|text| u64::from_str_radix(text, 16).ok());
        number.unwrap_or_else(|| xxh3_64(self.0.lineage.as_bytes()))
    }

    /// The latest state that is known: at opening, and after each [`advance`](Self::advance).
    pub fn latest(&self) -> State {
        self.catalog().last
    }

    /// Where the writer takes SQL, as the head said when it was read last.
    pub fn writer(&self) -> Option<String> {
        self.catalog().writer.clone()
    }

    /// Counts the writers, as the head said when it was read last.
    pub fn epoch(&self) -> u64 {
        self.catalog().epoch
    }

    /// Bytes of memory that are taken for indexes and contents.
    pub fn memory(&self) -> u64 {
        self.0.files.memory()
    }

    /// Fails when what is in the bucket is not the history any more that was opened.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`].
    pub fn check_open(&self) -> Result<(), StoreError> {
        match self.0.void.get() {
            None => Ok(()),
            Some(why) => Err(self.other_history(why.clone())),
        }
    }

    fn other_history(&self, why: String) -> StoreError {
        let store = self.0.files.bucket.name();
        let why = self.0.void.get_or_init(|| why).clone();
        StoreError::OtherHistory { store, why }
    }

    pub(crate) fn gone(&self, id: TxId) -> StoreError {
        let store = self.0.files.bucket.name();
        StoreError::Gone { store, id }
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        lock(&self.0.catalog).clone()
    }

    fn publish(&self, catalog: Catalog) {
        *lock(&self.0.catalog) = Arc::new(catalog);
    }

    /// Looks for new commits, and gives the latest state. One request if there are none, and the head was read less than a quarter of
    /// the retention ago.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`] if the bucket went back to an older state, or holds another database: every revision of this reader
    /// is void, and each of its calls gives this from now on. Others if requests fail; then it can be called again.
    pub async fn advance(&self) -> Result<State, StoreError> {
        self.check_open()?;
        let _turn = self.0.turn.lock().await;
        let files = &self.0.files;
        let mut most = 1;
        loop {
            let catalog = self.catalog();
            let found = files.commits(catalog.last.id, most).await?;
            let next = with_commits(files, &catalog, &found)?;
            let (last, other_writer) = (next.last.id, next.newest.node != catalog.node);
            let full = !found.is_empty() && found.len() as u64 == most;
            // After the files were read, and before they count.
            if (full && most > 1) || (other_writer && !found.is_empty()) || self.is_look_due() {
                self.look(next).await?;
            } else if !found.is_empty() {
                self.publish(next);
            }
            // Behind what compactions hold there may be more.
            let jumped = self.latest().id > last;
            if !full && !jumped {
                return Ok(self.latest());
            }
            most = AT_ONCE;
        }
    }

    /// Reads the head, or lists, and makes a catalog of it; `next` is what is known without it.
    async fn look(&self, next: Catalog) -> Result<(), StoreError> {
        let mut tries = TRIES;
        loop {
            let at = self.0.files.bucket.clock().mark();
            let before = lock(&self.0.seen).head.clone();
            let looked = match &before {
                Some(before) => self.look_at_head(before).await,
                None => self.look_at_list().await.map(|catalog| (catalog, None)),
            };
            let (found, head) = match looked {
                Err(error) if error.is_missing() && tries > 0 => {
                    tries -= 1;
                    continue;
                }
                looked => looked?,
            };
            // Files of level 0 that were read count if they are above the floor.
            let catalog = match next.last.id > found.last.id && found.floor.is_some() {
                true => Catalog {
                    last: next.last,
                    newest: next.newest,
                    ..found
                },
                false => found,
            };
            *lock(&self.0.seen) = Seen { head, at };
            self.publish(catalog);
            return Ok(());
        }
    }

    async fn look_at_head(&self, before: &Head) -> Result<(Catalog, Option<Head>), StoreError> {
        let files = &self.0.files;
        let Some((there, _)) = files.bucket.head().await? else {
            return Err(self.other_history("head.json is gone".to_owned()));
        };
        self.check_continues(&there, before).await?;
        let (catalog, _) = gather(files, &there, 0).await?;
        Ok((catalog, Some(there)))
    }

    async fn look_at_list(&self) -> Result<Catalog, StoreError> {
        let known = self.catalog();
        let catalog = match listing::gather(&self.0.files).await {
            Err(StoreError::NoDatabase { .. }) => {
                return Err(self.other_history("its files are gone".to_owned()));
            }
            gathered => gathered?,
        };
        let (id, now) = (known.last.id, catalog.last.id);
        if now < id {
            return Err(self.other_history(format!("its last transaction is {now}, and was {id}")));
        }
        // What was read may be there under its name.
        if catalog.files.iter().any(|file| file.name == FileName::commit(id)) {
            self.check_commit(&known.newest).await?;
        }
        Ok(catalog)
    }

    /// Whether a head is a later one of the same history.
    async fn check_continues(&self, there: &Head, before: &Head) -> Result<(), StoreError> {
        let why = if there.lineage != self.0.lineage {
            format!("its lineage is {}, and was {}", there.lineage, self.0.lineage)
        } else if there.page_size != before.page_size {
            "its pages have another size".to_owned()
        } else if there.epoch < before.epoch {
            format!("its epoch went back from {} to {}", before.epoch, there.epoch)
        } else if there.l0_floor < before.l0_floor || there.compacted() < before.compacted() {
            "its files went back to fewer transactions".to_owned()
        } else {
            return self.check_newest(there).await;
        };
        Err(self.other_history(why))
    }

    /// Whether the last commit that is known is still there, and the same.
    async fn check_newest(&self, there: &Head) -> Result<(), StoreError> {
        let newest = self.catalog().newest;
        let id = newest.ids.max();
        let is_collected = |head: &Head| head.l0_floor >= Some(id);
        if is_collected(there) || newest.ids.min() != id {
            return Ok(());
        }
        match self.check_commit(&newest).await {
            Err(error) if error.is_missing() => {
                let now = self.0.files.bucket.head().await?;
                match now.is_some_and(|(head, _)| is_collected(&head)) {
                    true => Ok(()),
                    false => Err(self.other_history(format!("transaction {id} is not there any more"))),
                }
            }
            checked => checked,
        }
    }

    /// Whether a commit has the header that was read of it.
    async fn check_commit(&self, newest: &Header) -> Result<(), StoreError> {
        let id = newest.ids.max();
        if newest.ids.min() != id {
            return Ok(());
        }
        match self.0.files.bucket.header(FileName::commit(id)).await? == *newest {
            true => Ok(()),
            false => Err(self.other_history(format!("transaction {id} is another one than it was"))),
        }
    }

    /// The state after a transaction.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`] as of [`advance`](Self::advance); others if requests fail, or a file is damaged.
    pub async fn state(&self, id: TxId) -> Result<Found, StoreError> {
        if let Some(found) = self.state_at_once(id) {
            self.check_open()?;
            return Ok(found);
        }
        match self.chain(id).await {
            Ok(chain) => match chain.last() {
                Some(newest) => Ok(Found::Kept(State::after(&newest.header))),
                None => Ok(Found::Gone),
            },
            Err(StoreError::Gone { .. }) => Ok(Found::Gone),
            Err(error) => Err(error),
        }
    }

    /// The state after a transaction, if that can be told without waiting for anything.
    pub fn state_at_once(&self, id: TxId) -> Option<Found> {
        let catalog = self.catalog();
        if id > catalog.last.id {
            return Some(Found::Unknown);
        }
        if id == catalog.last.id {
            return Some(Found::Kept(catalog.last));
        }
        let Some(chain) = catalog.chain(id) else {
            return Some(Found::Gone);
        };
        let newest = self.0.files.at_once(chain.last()?.name)?;
        Some(Found::Kept(State::after(&newest.header)))
    }

    /// The indexes of the files that make the state after a transaction, the oldest first.
    pub(crate) async fn chain(&self, id: TxId) -> Result<Vec<Arc<Indexed>>, StoreError> {
        let of = |catalog: &Catalog| catalog.chain(id).ok_or_else(|| self.gone(id));
        self.indexes(of).await
    }

    /// The indexes of files that a catalog names. Where one of them is gone, a compaction has swallowed it: a newer head is read.
    async fn indexes(
        &self,
        of: impl Fn(&Catalog) -> Result<Vec<Known>, StoreError>,
    ) -> Result<Vec<Arc<Indexed>>, StoreError> {
        let files = &self.0.files;
        let mut tries = TRIES;
        loop {
            self.check_open()?;
            let known = of(&self.catalog())?;
            let loads = known
                .iter()
                .any(|file| is_commit(file) && files.at_once(file.name).is_none());
            match files.all_indexed(&known).await {
                Ok(indexes) if !loads || !self.is_look_due() => return Ok(indexes),
                // What was read now counts only if it is above the floor.
                Ok(indexes) => {
                    self.look_again().await?;
                    if of(&self.catalog())? == known {
                        return Ok(indexes);
                    }
                }
                Err(error) if error.is_missing() && tries > 0 => {
                    tries -= 1;
                    self.look_again().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn is_look_due(&self) -> bool {
        lock(&self.0.seen).is_old(&self.0.files.bucket)
    }

    pub(crate) async fn look_again(&self) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        let next = (*self.catalog()).clone();
        self.look(next).await
    }

    /// Pages of a state, in the order asked. They must lie within its size.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the state was collected; [`StoreError::NoPage`] for a page that the state does not have;
    /// [`StoreError::OtherHistory`] as of [`advance`](Self::advance); [`StoreError::File`] if a file is damaged; others if requests fail.
    pub async fn pages(&self, at: State, pages: &[PageNo]) -> Result<Vec<Bytes>, StoreError> {
        let mut tries = TRIES;
        loop {
            match self.try_pages(at, pages).await {
                Err(error) if tries > 0 => {
                    match error.root() {
                        StoreError::Replaced { .. } => {
                            for file in self.catalog().chain(at.id).unwrap_or_default() {
                                self.0.files.forget(file.name);
                            }
                        }
                        StoreError::Missing { .. } => self.look_again().await?,
                        _ => return Err(error),
                    }
                    tries -= 1;
                }
                result => {
                    self.check_open()?;
                    return result;
                }
            }
        }
    }

    async fn try_pages(&self, at: State, pages: &[PageNo]) -> Result<Vec<Bytes>, StoreError> {
        let (files, size) = (&self.0.files, self.page_size());
        let no_page = |page: PageNo| StoreError::NoPage {
            store: files.bucket.name(),
            page,
            id: at.id,
        };
        if let Some(page) = pages.iter().find(|page| !at.size.contains(**page)) {
            return Err(no_page(*page));
        }
        let chain = self.chain(at.id).await?;
        let mut wanted: Vec<_> = pages.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|page| !page.is_lock_byte_page(size));
        let mut parts: Vec<(Arc<Indexed>, Vec<Frame>)> = Vec::new();
        for indexed in chain.into_iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let mut frames = Vec::new();
            wanted.retain(|page| match indexed.index.range(*page) {
                Some(range) => {
                    frames.push((*page, range));
                    false
                }
                None => true,
            });
            if !frames.is_empty() {
                parts.push((indexed, frames));
            }
        }
        if let Some(page) = wanted.first() {
            return Err(no_page(*page));
        }
        let each = parts
            .into_iter()
            .map(|(indexed, frames)| async move { files.pages(&indexed, frames).await });
        let read: Vec<_> = each.collect::<FuturesUnordered<_>>().try_collect().await?;
        let mut read: Vec<(PageNo, Bytes)> = read.into_iter().flatten().collect();
        read.sort_unstable_by_key(|(page, _)| *page);
        let one = |page: &PageNo| match page.is_lock_byte_page(size) {
            true => Ok(Bytes::from(vec![0; size.as_usize()])),
            false => read
                .binary_search_by_key(page, |(page, _)| *page)
                .map(|n| read[n].1.clone())
                .map_err(|_| no_page(*page)),
        };
        pages.iter().map(one).collect()
    }

    /// The ids of the pages that differ between two states, and perhaps of some that do not: those that files after `since` up to `until`
    /// have, and those that only one of the states has.
    ///
    /// # Errors
    /// As of [`pages`](Self::pages).
    pub async fn changed(&self, since: State, until: State) -> Result<RoaringBitmap, StoreError> {
        let indexes = self.indexes(|catalog| self.cover(catalog, since, until)).await?;
        self.union(since, until, &indexes)
    }

    /// The same, if it can be told without waiting for anything.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if `since` was collected; [`StoreError::OtherHistory`] as of [`advance`](Self::advance).
    pub fn changed_at_once(&self, since: State, until: State) -> Result<Option<RoaringBitmap>, StoreError> {
        self.check_open()?;
        let catalog = self.catalog();
        let cover = self.cover(&catalog, since, until)?;
        let indexes: Option<Vec<_>> = cover.iter().map(|file| self.0.files.at_once(file.name)).collect();
        indexes
            .map(|indexes| self.union(since, until, &indexes))
            .transpose()
    }

    fn cover(&self, catalog: &Catalog, since: State, until: State) -> Result<Vec<Known>, StoreError> {
        let (first, last) = (since.id.min(until.id), since.id.max(until.id));
        let kept = catalog.chain(first).is_some() && last <= catalog.last.id;
        let cover = kept.then(|| catalog.cover(first, last)).flatten();
        cover.ok_or_else(|| self.gone(first))
    }

    fn union(
        &self,
        since: State,
        until: State,
        indexes: &[Arc<Indexed>],
    ) -> Result<RoaringBitmap, StoreError> {
        let pages = indexes.iter().map(|indexed| indexed.index.len()).sum::<u64>();
        let (earlier, later) = match since.id <= until.id {
            true => (since, until),
            false => (until, since),
        };
        check_size(&self.0.files, later, pages + u64::from(earlier.size.0))?;
        let mut changed = RoaringBitmap::new();
        for indexed in indexes {
            changed |= indexed.index.ids();
        }
        let (least, most) = (since.size.min(until.size).0, since.size.max(until.size).0);
        changed.insert_range(least..most);
        changed.remove_range(most..);
        Ok(changed)
    }
}
