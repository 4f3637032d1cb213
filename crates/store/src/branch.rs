//! Branches: a database that begins with a state of another one and reads that one's files, until it has a snapshot of its own.
//!
//! ```text
//! branch   1  the head of the branch, of a database that is not there yet, with a new lineage
//!          2  a pin with that lineage in the head of each place whose files make the state; that of the parent last
//!          3  the head of the branch has parents and a floor: it is a database
//! detach   1  a snapshot up to the floor, in the branch's own place, unless there is one
//!          2  the head of the branch has no parents
//!          3  the pins go
//! ```
//!
//! Each step is a compare-and-swap. Who makes a branch, also where that was cut off before, takes the head of step 1 with a lineage of
//! its own, so that step 3 of everybody else fails. A pin is put after the head with its lineage: if that head has another lineage, or is gone,
//! or does not name the place, then no branch will ever read what the pin keeps, and it can go at any time.
//!
//! In between, files do not go: what makes the state by the head that is swapped for one with the pin is of use by that head, and
//! collection removes only what is of no use by a head that was there. A parent that is a branch itself reads the files of its own parents
//! until its head is swapped; by then they have the new branch's pins too.
//!
//! What must never happen here: that a branch is there whose files are not kept.

use partial_sync_core::PageSize;
use partial_sync_ltx::{TxId, TxRange};

use crate::{
    bucket::{Bucket, HeadVersion, Swapped},
    error::StoreError,
    head::{Head, MOST_PARENTS},
    layout::{FileName, Level},
    places::Places,
    reader::{Reader, State},
    run::{HeadFile, Parent, Pin},
};

/// How often a head is read again that others changed meanwhile.
const TRIES: usize = 16;
/// The most branches of a database that are not detached: each is some KiB of its head.
const MOST_PINS: usize = 64;

/// A branch that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branched {
    /// The transaction that it began behind.
    pub id: TxId,
    /// Names its history.
    pub lineage: String,
    /// It was there before.
    pub was_there: bool,
}

/// A branch as the database knows it that it is a branch of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its place.
    pub url: String,
    /// The last transaction of the files that it reads here.
    pub id: Option<TxId>,
    /// What became of it.
    pub standing: Standing,
}

/// What became of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, and reads files.
    Reads,
    /// It is being made, or that was cut off.
    Begun,
    /// It is not there, or reads no files any more.
    Gone,
    /// Its place cannot be read.
    Unknown(String),
}

impl Reader {
    /// Makes the database `to` a branch: it begins with the state `at`, which this reader has found kept, and then has its own log. No
    /// page is copied: it reads the files of this one, which keeps them for it. `again` is whether a branch of another state that is
    /// there already is good enough: which one is not asked for.
    ///
    /// Cut off anywhere, it can be called again.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] if something is there; [`StoreError::Branch`] if there can be none; [`StoreError::Gone`] if the state is
    /// not kept any more; others if requests fail.
    pub async fn branch(&self, at: State, again: bool, to: &Bucket) -> Result<Branched, StoreError> {
        let from = &self.0.files.bucket;
        self.check_can_branch(to)?;
        let Some((head, _)) = from.head().await? else {
            let why = "Litestream writes this database, and keeps nothing for branches. Restore it, and serve that with --replicate";
            return Err(self.no_branch(to, why));
        };
        to.probe().await?;
        let begun = match to.head().await? {
            Some((there, _)) if there.l0_floor.is_some() => {
                let parent = there
                    .parents
                    .last()
                    .filter(|parent| parent.lineage == head.lineage);
                let found = parent.and_then(Parent::id).filter(|id| again || *id == at.id);
                let (store, what) = (to.name(), "a database".to_owned());
                let id = found.ok_or(StoreError::NotEmpty { store, what })?;
                return Ok(Branched {
                    id,
                    lineage: there.lineage,
                    was_there: true,
                });
            }
            found => begin(to, &head, found).await?,
        };
        let (begun, version) = begun;
        let (parents, cut_off) = self.pin(at.id, to, &begun.lineage).await?;
        let mut next = begun.edited();
        (next.parents, next.l0_floor) = (parents, Some(at.id));
        if let Swapped::Lost = to.swap_head(&next, version).await? {
            return Err(begins_elsewhere(to));
        }
        // What earlier ones that were cut off have left. Nothing depends on it.
        if cut_off {
            let _ = from.release(|pin| pin.name == to.name()).await;
        }
        Ok(Branched {
            id: at.id,
            lineage: next.lineage,
            was_there: false,
        })
    }

    fn no_branch(&self, to: &Bucket, why: &str) -> StoreError {
        StoreError::Branch {
            store: self.0.files.bucket.name(),
            branch: to.name(),
            why: why.to_owned(),
        }
    }

    fn check_can_branch(&self, to: &Bucket) -> Result<(), StoreError> {
        let scheme = |bucket: &Bucket| bucket.name().split("://").next().map(str::to_owned);
        match scheme(&self.0.files.bucket) == scheme(to) {
            true => Ok(()),
            false => Err(self.no_branch(
                to,
                "a branch is in the same kind of store, so that who reads the one can read the other",
            )),
        }
    }

    /// Puts the pins of a branch. Gives the places that have them, and whether there is one of another branch at its url.
    async fn pin(&self, id: TxId, to: &Bucket, lineage: &str) -> Result<(Vec<Parent>, bool), StoreError> {
        let from = &self.0.files.bucket;
        let pin = |parent: &Parent| Pin::new(to.name(), lineage.to_owned(), parent.run.clone());
        for _ in 0..TRIES {
            let (head, version) = from.head().await?.ok_or_else(|| no_database(from))?;
            if head.lineage != self.lineage() {
                let (store, why) = (from.name(), format!("its lineage is {}", head.lineage));
                return Err(StoreError::OtherHistory { store, why });
            }
            let (mut parents, own) = head.runs(id).ok_or_else(|| self.gone(id))?;
            if own.check().is_err() {
                let why = "too many transactions are not compacted yet; wait until its server has done that";
                return Err(self.no_branch(to, why));
            }
            if parents.len() >= MOST_PARENTS {
                let why = format!("it reads the files of {MOST_PARENTS} databases: detach it first");
                return Err(self.no_branch(to, &why));
            }
            for parent in &parents {
                let place = from.other(&parent.url)?;
                place
                    .edit_head(|head| self.with_pin(head, to, pin(parent)).map(Some))
                    .await?;
            }
            parents.push(Parent::new(from.name(), head.lineage.clone(), own));
            let own = parents.last().ok_or_else(|| self.gone(id))?;
            let next = self.with_pin(&head, to, pin(own))?;
            if let Swapped::Done = from.swap_head(&next, version).await? {
                let is_other = |pin: &Pin| pin.name == to.name() && pin.lineage != lineage;
                return Ok((parents, head.pins.iter().any(is_other)));
            }
        }
        Err(busy(from))
    }

    fn with_pin(&self, head: &Head, to: &Bucket, pin: Pin) -> Result<Head, StoreError> {
        let mut next = head.edited();
        next.pins.retain(|there| there.lineage != pin.lineage);
        if next.pins.len() >= MOST_PINS {
            let why =
                format!("it has {MOST_PINS} branches already: detach some, or prune those that are gone");
            return Err(self.no_branch(to, &why));
        }
        next.pins.push(pin);
        Ok(next)
    }
}

/// The head of a branch that is not there yet, in a place where nothing is, or where making one was cut off.
async fn begin(
    to: &Bucket,
    parent: &Head,
    before: Option<(Head, HeadVersion)>,
) -> Result<(Head, HeadVersion), StoreError> {
    let node = fastrand::u64(1..);
    let (head, swapped) = match before {
        None => {
            to.check_empty().await?;
            let head = Head::first(node).of_branch(parent);
            let created = to.create_head(&head).await?;
            (head, created)
        }
        // Who begins a database of its own may still write a snapshot.
        Some((before, _)) if before.begun().is_some() => return Err(begins_elsewhere(to)),
        Some((before, version)) => {
            let mut head = before.edited().of_branch(parent);
            (head.node, head.epoch) = (node, before.epoch.saturating_add(1));
            let swapped = to.swap_head(&head, version).await?;
            (head, swapped)
        }
    };
    if let Swapped::Lost = swapped {
        return Err(begins_elsewhere(to));
    }
    let there = to.head().await?.filter(|(there, _)| there.edit == head.edit);
    there.ok_or_else(|| begins_elsewhere(to))
}

fn begins_elsewhere(to: &Bucket) -> StoreError {
    StoreError::NotEmpty {
        store: to.name(),
        what: "a database that another program begins".to_owned(),
    }
}

fn no_database(bucket: &Bucket) -> StoreError {
    StoreError::NoDatabase { store: bucket.name() }
}

fn busy(bucket: &Bucket) -> StoreError {
    StoreError::Busy { store: bucket.name() }
}

impl Bucket {
    /// Fails if a file of a log is here.
    pub(crate) async fn check_empty(&self) -> Result<(), StoreError> {
        for level in (0..=9).filter_map(Level::new) {
            if let Some(file) = self.list(level, None).await?.first() {
                let (store, what) = (self.name(), format!("a file of another program, {}", file.ids));
                return Err(StoreError::NotEmpty { store, what });
            }
        }
        Ok(())
    }

    /// Replaces the head by what `edit` makes of it, if that is something; `false` if it was nothing, or there is no head.
    async fn edit_head(
        &self,
        edit: impl Fn(&Head) -> Result<Option<Head>, StoreError>,
    ) -> Result<bool, StoreError> {
        for _ in 0..TRIES {
            let Some((head, version)) = self.head().await? else {
                return Ok(false);
            };
            let Some(next) = edit(&head)? else {
                return Ok(false);
            };
            if let Swapped::Done = self.swap_head(&next, version).await? {
                return Ok(true);
            }
        }
        Err(busy(self))
    }

    /// Makes a branch a database that reads no other one's files; `false` if it is none. A writer may be at it meanwhile. The states from
    /// before the floor are not kept. Cut off anywhere, it can be called again; a pin that is left so is
    /// [`Gone`](Standing::Gone) for [`prune`](Self::prune).
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`]; others if requests fail, or a file is damaged.
    pub async fn detach(&self) -> Result<bool, StoreError> {
        let mut made = None;
        for _ in 0..TRIES {
            let (head, version) = self.head().await?.ok_or_else(|| no_database(self))?;
            let floor = head.l0_floor.ok_or_else(|| no_database(self))?;
            if head.parents.is_empty() {
                return Ok(false);
            }
            let mut next = head.edited();
            if !head.read_from().is_empty() {
                let file = match made.take().filter(|(until, _)| *until == floor) {
                    Some((_, file)) => file,
                    None => self.make_base(&head, floor).await?,
                };
                next.files.push(file.clone());
                made = Some((floor, file));
            }
            next.parents.clear();
            if let Swapped::Lost = self.swap_head(&next, version).await? {
                continue;
            }
            for parent in &head.parents {
                let without = |there: &Head| {
                    let mut next = there.edited();
                    next.pins.retain(|pin| pin.lineage != head.lineage);
                    Ok((next.pins.len() < there.pins.len()).then_some(next))
                };
                self.other(&parent.url)?.edit_head(without).await?;
            }
            return Ok(true);
        }
        Err(busy(self))
    }

    /// The snapshot of the state of the floor.
    async fn make_base(&self, head: &Head, floor: TxId) -> Result<HeadFile, StoreError> {
        let page_size = PageSize::new(head.page_size);
        let page_size = page_size.map_err(|error| StoreError::Head {
            store: self.name(),
            why: error.to_string(),
        })?;
        let ids = TxRange::new(TxId::FIRST, floor).ok_or_else(|| no_database(self))?;
        let level = Level::SNAPSHOTS;
        let places = Places::of(self, head)?;
        places
            .join(&head.chain(floor), FileName { level, ids }, page_size)
            .await
    }

    /// The branches of this database that it keeps files for.
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`]; others if requests fail.
    pub async fn branches(&self) -> Result<Vec<Branch>, StoreError> {
        let (head, _) = self.head().await?.ok_or_else(|| no_database(self))?;
        let mut branches = Vec::new();
        for pin in &head.pins {
            branches.push(Branch {
                url: pin.name.clone(),
                id: pin.id(),
                standing: self.standing(&head, pin).await,
            });
        }
        Ok(branches)
    }

    /// Keeps files no longer for branches that are gone; gives how many those were.
    ///
    /// # Errors
    /// As of [`branches`](Self::branches).
    pub async fn prune(&self) -> Result<usize, StoreError> {
        self.release(|_| true).await
    }

    /// The same, of some.
    async fn release(&self, of: impl Fn(&Pin) -> bool) -> Result<usize, StoreError> {
        for _ in 0..TRIES {
            let (head, version) = self.head().await?.ok_or_else(|| no_database(self))?;
            let mut next = head.edited();
            // Looked at after the pin was there.
            for pin in head.pins.iter().filter(|pin| of(pin)) {
                if self.standing(&head, pin).await == Standing::Gone {
                    next.pins.retain(|there| there != pin);
                }
            }
            let gone = head.pins.len() - next.pins.len();
            if gone == 0 {
                return Ok(0);
            }
            if let Swapped::Done = self.swap_head(&next, version).await? {
                return Ok(gone);
            }
        }
        Err(busy(self))
    }

    /// What became of the branch with a pin of this database, whose head is `head`.
    async fn standing(&self, head: &Head, pin: &Pin) -> Standing {
        let there = async { self.other(&pin.name)?.head().await };
        match there.await {
            Err(error) => Standing::Unknown(error.to_string()),
            Ok(Some((there, _))) if there.lineage == pin.lineage => {
                let reads = |parent: &Parent| parent.lineage == head.lineage;
                let reads = there.read_from().iter().any(reads);
                match (there.l0_floor, reads) {
                    (None, _) => Standing::Begun,
                    (Some(_), true) => Standing::Reads,
                    (Some(_), false) => Standing::Gone,
                }
            }
            Ok(_) => Standing::Gone,
        }
    }
}
