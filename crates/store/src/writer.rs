//! The writer of a log: one file for a commit, one PUT in flight, and the end of it when another has taken over.
//!
//! ```text
//!          append                     created, and looked where that was due
//!  Ready ---------> Pending(id, file) ------------------------------------> Ready
//!                      |  answer lost: the same PUT again                      
//!                      |  the name exists, with the same bytes: that was us    
//!                      v                                                       
//!                   Fenced   the name exists with other bytes; or the head is another's; or the id is at or below its floor
//! ```
//!
//! A transaction whose fate is not known stays pending, also when the caller gives up waiting for it: nothing is ever written under its
//! id but the same bytes. After the file is there the head is looked at, unless that was done less than a quarter of the retention
//! ago: what another writer put under this name meanwhile could not have been removed by then, so the name would have
//! been taken. Why that is enough, and what a takeover has to do: `docs/object-storage.md`; `tests/it/model.rs` shows it.
//!
//! What must never happen here: that [`Writer::append`] or [`Writer::settle`] says that a transaction is committed which is not in
//! the log, or that two files are tried under one id.

use std::{num::NonZeroU64, time::Duration};

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_ltx::{
    HEADER_LEN, Header, LtxError, PreApply, TRAILER_LEN, TxId, TxRange, Writer as LtxWriter,
};

use crate::{
    bucket::{Bucket, Created, Swapped},
    clock::Mark,
    error::StoreError,
    head::Head,
    keeper::Keeper,
    layout::{FileName, Level},
    places::Places,
    upload::PutPage,
};

/// Which part of the retention a look at the head is good for.
const LOOK_PART: u32 = 4;
/// How often a PUT is tried again that met another one of the same name, or another version of the head.
const CONFLICTS: usize = 4;

/// Who begins to write, and what for.
#[derive(Clone, Debug)]
pub struct Begin {
    /// Tells this writer from all others: random, never used before. It is kept where the writer keeps its file, so that it can
    /// show after a restart that the log is its own.
    pub node: NonZeroU64,
    /// Where it takes SQL.
    pub url: Option<String>,
    /// What a new database is.
    pub new: New,
    /// When it begins: milliseconds since 1970.
    pub now: i64,
}

/// What is decided when a database begins, and never again.
#[derive(Clone, Copy, Debug)]
pub struct New {
    /// Names the history that the ids are of: random, never used before.
    pub lineage: NonZeroU64,
    /// The last number that its states have had elsewhere: the ids begin behind it.
    pub after: Option<TxId>,
    /// How long a transaction's own file is kept.
    pub retention: Duration,
}

/// Whose log a writer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// That which one of these nodes wrote last: those that this writer has begun with, also where the beginning failed.
    Own(Vec<NonZeroU64>),
    /// Anybody's. Two servers that both say this take it from each other, and one of them ends as fenced.
    TakeOver,
}

/// Writes to a log.
#[derive(Debug)]
pub struct Writer {
    bucket: Bucket,
    lineage: String,
    node: u64,
    epoch: u64,
    page_size: PageSize,
    retention: Duration,
    /// The last transaction that is committed.
    last: TxId,
    /// The size of the database after it.
    commit: PageCount,
    /// When a look at the head began that said that this writer is still its own.
    looked: Mark,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready,
    Pending(Pending),
    Fenced,
}

#[derive(Clone, Debug)]
struct Pending {
    id: TxId,
    file: Bytes,
    commit: PageCount,
    /// The file is there, and it is ours.
    created: bool,
}

impl Writer {
    /// Begins a database: `pages` gives all its pages, ascending and without that of SQLite's locks, to the function that it is
    /// given. The place must be empty, or one where a beginning was broken off.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] if something is there; others if requests fail, after which it can be tried again.
    pub async fn create(
        bucket: Bucket,
        begin: Begin,
        page_size: PageSize,
        commit: PageCount,
        pages: impl FnOnce(&mut PutPage<'_>) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let lost = || StoreError::NotEmpty {
            store: bucket.name(),
            what: "a database that another server begins".to_owned(),
        };
        let looked = bucket.clock().mark();
        let head = match bucket.head().await? {
            Some((head, _)) if head.l0_floor.is_some() => {
                let (store, what) = (bucket.name(), "a database".to_owned());
                return Err(StoreError::NotEmpty { store, what });
            }
            // Broken off. The one who began it may still be at it: its file has another name, and its head is replaced.
            Some((before, version)) => {
                let mut head = before.edited();
                head.take(&begin, &bucket)?;
                head.begin(begin.new, page_size, &bucket)?;
                swapped(bucket.swap_head(&head, version).await?, lost)?;
                head
            }
            None => {
                bucket.check_empty().await?;
                let mut head = Head::first(begin.node.get());
                head.begin(begin.new, page_size, &bucket)?;
                head.writer.clone_from(&begin.url);
                swapped(bucket.create_head(&head).await?, lost)?;
                head
            }
        };
        // No two beginnings have the same, so none writes over another's snapshot.
        let last = head.begun.ok_or_else(lost)?;
        let ids = TxRange::new(TxId::FIRST, last).ok_or_else(lost)?;
        let name = FileName {
            level: Level::SNAPSHOTS,
            ids,
        };
        let header = Header {
            page_size,
            commit,
            ids,
            timestamp: begin.now,
            pre_apply: PreApply::Untracked,
            wal: None,
            node: begin.node.get(),
        };
        let file = bucket.upload(name, header, pages).await?;
        let Some((there, version)) = bucket
            .head()
            .await?
            .filter(|(there, _)| there.is_of(head.epoch, begin.node.get()))
        else {
            return Err(lost());
        };
        let mut head = there.edited();
        head.files = vec![file];
        head.l0_floor = Some(last);
        swapped(bucket.swap_head(&head, version).await?, lost)?;
        Self::of(bucket, &head, last, commit, looked)
    }

    /// Becomes the writer of the database that is there: from now on no other's transaction is committed. Its last transaction and what
    /// it holds may be newer than what this writer has: [`last`](Self::last) says which it is.
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`], [`StoreError::Foreign`] if the claim does not allow it, [`StoreError::Fenced`] if another does the
    /// same at this moment; others if requests fail. It can be tried again with a new node.
    pub async fn take_over(bucket: Bucket, begin: Begin, claim: Claim) -> Result<Self, StoreError> {
        let store = bucket.name();
        let fenced = || StoreError::Fenced { store: bucket.name() };
        let mut tries = CONFLICTS;
        let (head, floor) = loop {
            let Some((before, version)) = bucket.head().await? else {
                return Err(StoreError::NoDatabase { store });
            };
            let Some(floor) = before.l0_floor else {
                return Err(StoreError::NoDatabase { store });
            };
            if matches!(&claim, Claim::Own(nodes) if nodes.iter().all(|node| node.get() != before.node)) {
                let url = before.writer.clone();
                return Err(StoreError::Foreign { store, url });
            }
            let mut head = before.edited();
            head.take(&begin, &bucket)?;
            match bucket.swap_head(&head, version).await? {
                Swapped::Done => break (head, floor),
                // Not by another writer: a branch was made, or the keeper of the writer before was at it.
                Swapped::Lost if tries > 0 && bucket.is_headed_by(&before).await? => tries -= 1,
                Swapped::Lost => return Err(fenced()),
            }
        };

        let last = bucket.last(floor).await?;
        let newest = match last == floor {
            false => FileName::commit(last),
            true => head.chain(floor).last().copied().ok_or_else(fenced)?,
        };
        let commit = match Places::of(&bucket, &head)?.at(newest).header(newest).await {
            // A later writer has removed it.
            Err(StoreError::Missing { .. }) if !bucket.is_headed_by(&head).await? => return Err(fenced()),
            header => header?.commit,
        };
        let mut writer = Self::of(bucket.clone(), &head, last, commit, Mark::default())?;
        // The others learn by this file that they are not the writer any more. Where one of them was faster, its transaction is
        // committed, and the next name is tried.
        loop {
            let id = writer.next()?;
            let file = writer.file(id, writer.commit, begin.now, |_| Ok(()))?;
            match writer.put(id, &file).await? {
                Put::Ours => {
                    writer.last = id;
                    break;
                }
                Put::Theirs => {
                    writer.commit = bucket.header(FileName::commit(id)).await?.commit;
                    writer.last = id;
                }
            }
        }
        // Files that were there before this writer's epoch may have been removed since, by one with a later epoch: then the
        // name that was free was not the end of the log.
        writer.look(writer.last).await?;
        Ok(writer)
    }

    fn of(
        bucket: Bucket,
        head: &Head,
        last: TxId,
        commit: PageCount,
        looked: Mark,
    ) -> Result<Self, StoreError> {
        let page_size = PageSize::new(head.page_size).map_err(|error| StoreError::Head {
            store: bucket.name(),
            why: error.to_string(),
        })?;
        Ok(Self {
            bucket,
            lineage: head.lineage.clone(),
            node: head.node,
            epoch: head.epoch,
            page_size,
            retention: head.retention(),
            last,
            commit,
            looked,
            state: State::Ready,
        })
    }

    /// The last transaction that is known to be committed.
    pub fn last(&self) -> TxId {
        self.last
    }

    /// The size of the database after it.
    pub fn commit(&self) -> PageCount {
        self.commit
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Names the history that the ids are of.
    pub fn lineage(&self) -> &str {
        &self.lineage
    }

    /// Counts the writers.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Compacts and collects beside this writer.
    pub fn keeper(&self) -> Keeper {
        Keeper::new(self.bucket.clone(), self.epoch, self.node, self.page_size)
    }

    /// Commits a transaction, or several as one: the pages that they changed, ascending, and the size of the database after them. Where it
    /// has grown, pages behind the old end that are not given are zeros, which is how SQLite reads them. The file that is made of them is
    /// in memory until it is settled.
    ///
    /// # Errors
    /// - Those of `pages`, and [`StoreError::File`] if they cannot be a file: nothing was written, and the next transaction can be another
    ///   one.
    /// - [`StoreError::Unsettled`] if it is not known whether it is committed: [`settle`](Self::settle) it. The same holds when this
    ///   future was dropped.
    /// - [`StoreError::NotSettled`] if an earlier one is still pending.
    /// - [`StoreError::Fenced`] if another writer has taken over: this one has ended. The transaction may be in the log all the same,
    ///   if it came in before the other's first one; who reads the log sees whether it is.
    pub async fn append<P: AsRef<[u8]>>(
        &mut self,
        pages: impl IntoIterator<Item = Result<(PageNo, P), StoreError>>,
        commit: PageCount,
        now: i64,
    ) -> Result<TxId, StoreError> {
        match &self.state {
            State::Ready => {}
            State::Pending(pending) => {
                let (store, id) = (self.bucket.name(), pending.id);
                return Err(StoreError::NotSettled { store, id });
            }
            State::Fenced => return Err(self.fenced()),
        }
        let id = self.next()?;
        let file = self.file(id, commit, now, |to| self.put_pages(id, pages, commit, to))?;
        self.state = State::Pending(Pending {
            id,
            file,
            commit,
            created: false,
        });
        self.settle().await?;
        Ok(id)
    }

    /// Finds out what became of the transaction that is pending, if one is; gives the last one that is committed.
    ///
    /// # Errors
    /// [`StoreError::Unsettled`] if it is still not known: try again later. [`StoreError::Fenced`] as of [`append`](Self::append).
    pub async fn settle(&mut self) -> Result<TxId, StoreError> {
        let pending = match &self.state {
            State::Ready => return Ok(self.last),
            State::Fenced => return Err(self.fenced()),
            State::Pending(pending) => pending.clone(),
        };
        let id = pending.id;
        if let Err(error) = self.try_settle(&pending).await {
            if matches!(error, StoreError::Fenced { .. }) {
                self.state = State::Fenced;
                return Err(error);
            }
            let (store, source) = (self.bucket.name(), Box::new(error));
            return Err(StoreError::Unsettled { store, id, source });
        }
        self.last = id;
        self.commit = pending.commit;
        self.state = State::Ready;
        Ok(id)
    }

    async fn try_settle(&mut self, pending: &Pending) -> Result<(), StoreError> {
        if !pending.created {
            match self.put(pending.id, &pending.file).await? {
                Put::Ours => {
                    self.state = State::Pending(Pending {
                        created: true,
                        ..pending.clone()
                    });
                }
                Put::Theirs => return Err(self.fenced()),
            }
        }
        let now = self.bucket.clock().mark();
        let passed = now.since(self.looked);
        match passed.is_some_and(|passed| passed < self.retention / LOOK_PART) {
            true => Ok(()),
            false => self.look(pending.id).await,
        }
    }

    /// Whether the head is still this writer's, and `id` counts.
    async fn look(&mut self, id: TxId) -> Result<(), StoreError> {
        let looked = self.bucket.clock().mark();
        let head = self.bucket.head().await?.map(|(head, _)| head);
        let ours = head.filter(|head| head.is_of(self.epoch, self.node) && head.l0_floor < Some(id));
        if ours.is_none() {
            return Err(self.fenced());
        }
        self.looked = looked;
        Ok(())
    }

    /// Writes the file of a transaction, or finds that it is there, and whose it is.
    async fn put(&self, id: TxId, file: &Bytes) -> Result<Put, StoreError> {
        let name = FileName::commit(id);
        let mut tries = CONFLICTS;
        loop {
            if self.bucket.create(name, file.clone()).await? == Created::Done {
                return Ok(Put::Ours);
            }
            match self.is_there(name, file).await {
                // Another PUT of this name was under way, and has not become a file. Or it was one, and was removed: that takes
                // longer than a look at the head is good for.
                Err(StoreError::Missing { .. }) if tries > 0 => tries -= 1,
                there => {
                    return there.map(|ours| match ours {
                        true => Put::Ours,
                        false => Put::Theirs,
                    });
                }
            }
        }
    }

    /// Whether the file that is there is this one: the header has the node, the trailer the checksum of everything.
    async fn is_there(&self, name: FileName, file: &Bytes) -> Result<bool, StoreError> {
        let len = file.len() as u64;
        let Some(size) = self.bucket.size(name).await? else {
            let (store, what) = (self.bucket.name(), name.to_string());
            return Err(StoreError::Missing { store, what });
        };
        if size != len {
            return Ok(false);
        }
        for part in [0..HEADER_LEN as u64, len - TRAILER_LEN as u64..len] {
            let there = self.bucket.range(name, part.clone()).await?;
            if there != file[part.start as usize..part.end as usize] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the pages of a commit, with every page behind the old end: `litestream restore` wants them, and an older copy of one
    /// would show through where the database was cut and grew again.
    fn put_pages<P: AsRef<[u8]>>(
        &self,
        id: TxId,
        pages: impl IntoIterator<Item = Result<(PageNo, P), StoreError>>,
        commit: PageCount,
        writer: &mut LtxWriter<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let wrong = |error| self.wrong(id, error);
        let zeros = vec![0; self.page_size.as_usize()];
        let mut due = PageNo::new(self.commit.0.saturating_add(1));
        let mut fill = |writer: &mut LtxWriter<Vec<u8>>, until: Option<PageNo>| {
            while let Some(page) =
                due.filter(|page| commit.contains(*page) && until.is_none_or(|until| *page < until))
            {
                if !page.is_lock_byte_page(self.page_size) {
                    writer.page(page, &zeros).map_err(wrong)?;
                }
                due = page.next();
            }
            if due.is_some() && due == until {
                due = due.and_then(PageNo::next);
            }
            Ok::<(), StoreError>(())
        };
        for page in pages {
            let (page, bytes) = page?;
            fill(writer, Some(page))?;
            writer.page(page, bytes.as_ref()).map_err(wrong)?;
        }
        fill(writer, None)
    }

    fn file(
        &self,
        id: TxId,
        commit: PageCount,
        now: i64,
        pages: impl FnOnce(&mut LtxWriter<Vec<u8>>) -> Result<(), StoreError>,
    ) -> Result<Bytes, StoreError> {
        let wrong = |error| self.wrong(id, error);
        let header = Header {
            page_size: self.page_size,
            commit,
            ids: TxRange::one(id),
            timestamp: now,
            pre_apply: PreApply::Untracked,
            wal: None,
            node: self.node,
        };
        let mut writer = LtxWriter::new(Vec::new(), header).map_err(wrong)?;
        pages(&mut writer)?;
        let (file, _) = writer.finish(None).map_err(wrong)?;
        Ok(file.into())
    }

    fn wrong(&self, id: TxId, error: LtxError) -> StoreError {
        self.bucket.wrong_file(FileName::commit(id), error)
    }

    fn next(&self) -> Result<TxId, StoreError> {
        self.last.next().ok_or_else(|| StoreError::IdsUsedUp {
            store: self.bucket.name(),
        })
    }

    fn fenced(&self) -> StoreError {
        StoreError::Fenced {
            store: self.bucket.name(),
        }
    }
}

/// Whose file has a name now.
enum Put {
    Ours,
    Theirs,
}

fn swapped(swapped: Swapped, lost: impl FnOnce() -> StoreError) -> Result<(), StoreError> {
    match swapped {
        Swapped::Done => Ok(()),
        Swapped::Lost => Err(lost()),
    }
}

impl Head {
    /// Makes it that of a database that begins here, under ids that no other beginning here has.
    fn begin(&mut self, new: New, page_size: PageSize, bucket: &Bucket) -> Result<(), StoreError> {
        self.lineage = format!("{:016x}", new.lineage);
        self.page_size = page_size.bytes();
        self.retention_ms = u64::try_from(new.retention.as_millis()).unwrap_or(u64::MAX);
        self.begun = match self.begun.max(new.after) {
            None => Some(TxId::FIRST),
            Some(used) => Some(
                used.next()
                    .ok_or_else(|| StoreError::IdsUsedUp { store: bucket.name() })?,
            ),
        };
        Ok(())
    }

    /// Makes it that of the next writer.
    fn take(&mut self, begin: &Begin, bucket: &Bucket) -> Result<(), StoreError> {
        self.epoch = self
            .epoch
            .checked_add(1)
            .ok_or_else(|| StoreError::IdsUsedUp { store: bucket.name() })?;
        self.node = begin.node.get();
        self.writer.clone_from(&begin.url);
        Ok(())
    }
}

impl Bucket {
    /// Whether the writer of `head` still is the one.
    async fn is_headed_by(&self, head: &Head) -> Result<bool, StoreError> {
        let there = self.head().await?;
        Ok(there.is_some_and(|(there, _)| there.is_of(head.epoch, head.node)))
    }

    /// The last file of level 0 after `floor`, or `floor` if there is none. They are there without a gap, so that it is found by asking
    /// for few names: at twice the distance each time, then between.
    pub(crate) async fn last(&self, floor: TxId) -> Result<TxId, StoreError> {
        let at = |n: u64| TxId::new(floor.get().saturating_add(n)).unwrap_or(floor);
        // Files are there up to `there` behind the floor; at `missing` there is none.
        let (mut there, mut step) = (0, 1);
        let mut missing = loop {
            let n = there + step;
            if floor.get().checked_add(n).is_none() || self.size(FileName::commit(at(n))).await?.is_none() {
                break n;
            }
            (there, step) = (n, step * 2);
        };
        while missing - there > 1 {
            let middle = there + (missing - there) / 2;
            match self.size(FileName::commit(at(middle))).await? {
                Some(_) => there = middle,
                None => missing = middle,
            }
        }
        Ok(at(there))
    }
}
