//! What is on the disk: for each file what was written and what of it was synced, for the folder which names there are and
//! which of them were synced, and what a crash leaves of both.

use std::{collections::BTreeMap, io};

/// Power loss tears writes at sectors of this size.
const SECTOR: usize = 512;

/// What a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// The process was killed: everything written.
    Written,
    /// The power failed: what was synced and nothing else.
    Synced,
    /// The power failed: what was synced, and by chance parts of the rest.
    SyncedAndSome(u64),
}

/// What happens at an operation instead of it.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// This operation and every later one fail.
    Stop(u64),
    /// Operations from the first up to (not including) the second fail with this kind; then all is well again.
    Fail(u64, u64, io::ErrorKind),
}

#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Change::Length(len) => bytes.resize(*len as usize, 0),
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) written: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) pending: Vec<Change>,
}

#[derive(Clone)]
pub(super) enum Name {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

impl Name {
    pub(super) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Name::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Name::Unlink(name) => {
                names.remove(name);
            }
            Name::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

/// What an operation did.
#[derive(Clone)]
pub(super) enum Event {
    Made(String),
    Changed(usize, Change),
    Synced(usize),
    Named(Name),
    NamesSynced,
}

/// Files and names.
#[derive(Clone, Default)]
pub(super) struct Contents {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) synced_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<Name>,
}

impl Contents {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Made(name) => {
                self.inodes.push(Inode::default());
                self.apply(Event::Named(Name::Link(name, self.inodes.len() - 1)));
            }
            Event::Changed(inode, change) => {
                change.apply(&mut self.inodes[inode].written);
                self.inodes[inode].pending.push(change);
            }
            Event::Synced(inode) => {
                let inode = &mut self.inodes[inode];
                inode.synced = inode.written.clone();
                inode.pending.clear();
            }
            Event::Named(name) => {
                name.apply(&mut self.names);
                self.pending_names.push(name);
            }
            Event::NamesSynced => {
                self.synced_names = self.names.clone();
                self.pending_names.clear();
            }
        }
    }

    /// What a crash leaves: each file by its name.
    pub(super) fn after_crash(&self, survives: Survives) -> BTreeMap<String, Vec<u8>> {
        let mut random = match survives {
            Survives::SyncedAndSome(seed) => fastrand::Rng::with_seed(seed),
            _ => fastrand::Rng::with_seed(0),
        };
        let names = match survives {
            Survives::Written => self.names.clone(),
            Survives::Synced => self.synced_names.clone(),
            Survives::SyncedAndSome(_) => {
                // A folder is a journal: what survives of it is a beginning.
                let mut names = self.synced_names.clone();
                let kept = random.usize(..=self.pending_names.len());
                self.pending_names[..kept]
                    .iter()
                    .for_each(|n| n.apply(&mut names));
                names
            }
        };
        let mut survivor = |inode: &Inode| match survives {
            Survives::Written => inode.written.clone(),
            Survives::Synced => inode.synced.clone(),
            Survives::SyncedAndSome(_) => {
                let mut bytes = inode.synced.clone();
                for change in &inode.pending {
                    survive_in_part(change, &mut bytes, &mut random);
                }
                bytes
            }
        };
        let mut left: Vec<Vec<u8>> = self.inodes.iter().map(&mut survivor).collect();
        names
            .into_iter()
            .map(|(name, inode)| (name, std::mem::take(&mut left[inode])))
            .collect()
    }
}

/// Everything that happened on a disk since a moment.
pub struct Film {
    start: Contents,
    /// What each operation was going to be, and what it did.
    operations: Vec<(String, Option<Event>)>,
}

impl Film {
    /// How many operations there were.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// What the operation of this number, from 0, was going to be.
    pub fn operation(&self, n: usize) -> &str {
        &self.operations[n].0
    }

    /// What a crash right before the operation of this number leaves.
    pub fn crash(&self, n: usize, survives: Survives) -> Remains {
        let mut contents = self.start.clone();
        for (_, event) in &self.operations[..n] {
            event.iter().cloned().for_each(|event| contents.apply(event));
        }
        Remains(contents.after_crash(survives))
    }
}

/// The files that a crash has left.
#[derive(PartialEq, Eq, Hash)]
pub struct Remains(pub(super) BTreeMap<String, Vec<u8>>);

pub(super) type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) contents: Contents,
    pub(super) operations: u64,
    /// What each operation was.
    pub(super) trace: Vec<String>,
    pub(super) trouble: Option<Trouble>,
    pub(super) stopped: bool,
    pub(super) hooks: Vec<(String, Hook)>,
    pub(super) film: Option<Film>,
    pub(super) locked: bool,
    /// Open files.
    pub(super) open: usize,
}

impl Disk {
    pub(super) fn roll(&mut self) {
        let start = &self.contents;
        self.film.get_or_insert_with(|| Film {
            start: start.clone(),
            operations: vec![],
        });
    }

    /// Counts an operation that changes something.
    pub(super) fn operation(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.alive()?;
        self.operations += 1;
        let what = what();
        if let Some(film) = &mut self.film {
            film.operations.push((what.clone(), None));
        }
        self.trace.push(what);
        match self.trouble {
            Some(Trouble::Stop(at)) if self.operations >= at => {
                self.stopped = true;
                Err(io::Error::other("the world has stopped"))
            }
            Some(Trouble::Fail(from, to, kind)) if (from..to).contains(&self.operations) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// Does what the operation that was counted last is to do.
    pub(super) fn apply(&mut self, event: Event) {
        if let Some((_, did)) = self.film.as_mut().and_then(|film| film.operations.last_mut()) {
            *did = Some(event.clone());
        }
        self.contents.apply(event);
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        match self.stopped {
            true => Err(io::Error::other("the world has stopped")),
            false => Ok(()),
        }
    }
}

fn survive_in_part(change: &Change, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    match change {
        Change::Length(_) if random.bool() => change.apply(bytes),
        Change::Length(_) => {}
        Change::Write(offset, data) => match random.u8(..3) {
            0 => {}
            1 => change.apply(bytes),
            _ => {
                for (n, sector) in data.chunks(SECTOR).enumerate() {
                    if random.bool() {
                        Change::Write(offset + (n * SECTOR) as u64, sector.to_vec()).apply(bytes);
                    }
                }
            }
        },
    }
}
