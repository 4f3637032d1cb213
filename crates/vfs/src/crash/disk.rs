//! What is on the disk: for each file what was written and what of it was synced, for the folder which names there are and
//! which of them were synced, and what a crash leaves of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::Trouble;

/// Power loss tears writes at sectors of this size.
const SECTOR: usize = 512;

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

pub(super) type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Disk {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) synced_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<Name>,
    pub(super) operations: u64,
    /// What each operation was.
    pub(super) trace: Vec<String>,
    pub(super) trouble: Option<Trouble>,
    pub(super) stopped: bool,
    pub(super) hooks: Vec<(String, Hook)>,
    /// Operations before which to keep an image, and the images.
    pub(super) wanted: BTreeSet<u64>,
    pub(super) images: Vec<Image>,
    pub(super) locked: bool,
    /// Open files.
    pub(super) open: usize,
}

/// What was on a disk right before an operation.
#[derive(Clone)]
pub struct Image {
    /// The number of the operation.
    pub at: u64,
    /// What the operation was going to be.
    pub operation: String,
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) synced_names: BTreeMap<String, usize>,
    pub(super) pending_names: Vec<Name>,
}

impl Disk {
    pub(super) fn image(&self, operation: String) -> Image {
        Image {
            at: self.operations,
            operation,
            inodes: self.inodes.clone(),
            names: self.names.clone(),
            synced_names: self.synced_names.clone(),
            pending_names: self.pending_names.clone(),
        }
    }

    /// Counts an operation that changes something.
    pub(super) fn operation(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.alive()?;
        self.operations += 1;
        let what = what();
        if self.wanted.remove(&self.operations) {
            let image = self.image(what.clone());
            self.images.push(image);
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

    pub(super) fn alive(&self) -> io::Result<()> {
        match self.stopped {
            true => Err(io::Error::other("the world has stopped")),
            false => Ok(()),
        }
    }

    pub(super) fn name(&mut self, name: Name) {
        name.apply(&mut self.names);
        self.pending_names.push(name);
    }
}

pub(super) fn survive_in_part(change: &Change, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
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
