//! A disk in memory that can stop the world: it keeps, for each file, what was written and what of it was synced, and,
//! for the folder, which names there are and which of them were synced. After operation N every operation fails; what
//! survives is then opened again as another disk. What it must never do: let anything unsynced survive a power loss by
//! luck of the order in which files happened to be synced. Syncing a file does not sync its name.
//!
//! It is part of the library because the tests of several crates and the laboratory (`crates/torture`) share it.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::storage::{Storage, StorageFile};
use disk::{Change, Disk, Inode, Name, survive_in_part};

mod disk;

pub use disk::Image;

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

/// See the head of this file. Clones are the same disk.
#[derive(Clone)]
pub struct CrashStorage {
    base: PathBuf,
    disk: Arc<Mutex<Disk>>,
}

impl CrashStorage {
    /// An empty disk for the replica at `base`.
    pub fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            disk: Arc::default(),
        }
    }

    /// What happens from now on.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.disk.lock().trouble = trouble;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Every operation fails from now on.
    pub fn stop_now(&self) {
        self.disk.lock().stopped = true;
    }

    /// Whether the world has stopped.
    pub fn has_stopped(&self) -> bool {
        self.disk.lock().stopped
    }

    /// The last operations, for the message of a test that fails.
    pub fn tail(&self) -> String {
        let disk = self.disk.lock();
        let from = disk.trace.len().saturating_sub(8);
        disk.trace[from..].join("; ")
    }

    /// What each operation was.
    pub fn trace(&self) -> Vec<String> {
        self.disk.lock().trace.clone()
    }

    /// Runs `hook` once, on the thread that does it, before the next operation whose name (`write -wal`, `sync -info.tmp`,
    /// `remove -changes`, ...) is `operation`.
    pub fn before(&self, operation: &str, hook: impl FnOnce() + Send + 'static) {
        self.disk
            .lock()
            .hooks
            .push((operation.to_owned(), Box::new(hook)));
    }

    fn hook(&self, operation: &str) {
        let hook = {
            let mut disk = self.disk.lock();
            let at = disk.hooks.iter().position(|(name, _)| name == operation);
            at.map(|at| disk.hooks.remove(at).1)
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    /// The disk that is found after a crash now, for a replica at `base`.
    pub fn after_crash(&self, survives: Survives, base: &Path) -> Self {
        let image = self.disk.lock().image(String::new());
        Self::from_image(&image, survives, base)
    }

    /// The disk that is found after a crash at the moment of an image.
    pub fn from_image(image: &Image, survives: Survives, base: &Path) -> Self {
        let mut random = match survives {
            Survives::SyncedAndSome(seed) => fastrand::Rng::with_seed(seed),
            _ => fastrand::Rng::with_seed(0),
        };
        let names = match survives {
            Survives::Written => image.names.clone(),
            Survives::Synced => image.synced_names.clone(),
            Survives::SyncedAndSome(_) => {
                // A folder is a journal: what survives of it is a beginning.
                let mut names = image.synced_names.clone();
                let kept = random.usize(..=image.pending_names.len());
                image.pending_names[..kept]
                    .iter()
                    .for_each(|n| n.apply(&mut names));
                names
            }
        };
        let survivor = |inode: &Inode| {
            let mut bytes = match survives {
                Survives::Written => inode.written.clone(),
                _ => inode.synced.clone(),
            };
            if let Survives::SyncedAndSome(_) = survives {
                for change in &inode.pending {
                    survive_in_part(change, &mut bytes, &mut random);
                }
            }
            Inode {
                synced: bytes.clone(),
                written: bytes,
                pending: vec![],
            }
        };
        Self {
            base: base.to_owned(),
            disk: Arc::new(Mutex::new(Disk {
                inodes: image.inodes.iter().map(survivor).collect(),
                synced_names: names.clone(),
                names,
                ..Disk::default()
            })),
        }
    }

    /// Keeps an image of the disk before the `nth` operation from now (1 = the next one).
    pub fn keep_image(&self, nth: u64) {
        let mut disk = self.disk.lock();
        let at = disk.operations + nth;
        disk.wanted.insert(at);
    }

    /// The images kept so far; those wanted and not reached are wanted no longer.
    pub fn take_images(&self) -> Vec<Image> {
        let mut disk = self.disk.lock();
        disk.wanted.clear();
        std::mem::take(&mut disk.images)
    }

    /// Files that somebody has open.
    pub fn open_files(&self) -> usize {
        self.disk.lock().open
    }

    /// A whole file, for looking at it; `None` when it is not there. `suffix` is `""`, `-wal`, `-info`, ...
    pub fn file(&self, suffix: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(suffix).map(|&i| disk.inodes[i].written.clone())
    }

    /// The names of the files, as suffixes.
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }

    /// What a file's name adds to the replica's; a file of another replica keeps its whole path.
    fn suffix(&self, path: &Path) -> String {
        let path = path.to_string_lossy();
        let base = self.base.to_string_lossy();
        path.strip_prefix(&*base).unwrap_or(&path).to_owned()
    }
}

struct CrashFile {
    storage: CrashStorage,
    inode: usize,
    suffix: String,
}

impl Drop for CrashFile {
    fn drop(&mut self) {
        self.storage.disk.lock().open -= 1;
    }
}

impl StorageFile for CrashFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.storage.disk.lock();
        disk.alive()?;
        let bytes = &disk.inodes[self.inode].written;
        let from = (offset as usize).min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.storage.hook(&format!("write {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("write {} {}+{}", self.suffix, offset, data.len()))?;
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut disk.inodes[self.inode].written);
        disk.inodes[self.inode].pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.hook(&format!("sync {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("sync {}", self.suffix))?;
        let inode = &mut disk.inodes[self.inode];
        inode.synced = inode.written.clone();
        inode.pending.clear();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.hook(&format!("set_len {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("set_len {} {len}", self.suffix))?;
        let change = Change::Length(len);
        change.apply(&mut disk.inodes[self.inode].written);
        disk.inodes[self.inode].pending.push(change);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk.lock();
        disk.alive()?;
        Ok(disk.inodes[self.inode].written.len() as u64)
    }
}

impl Storage for CrashStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let suffix = self.suffix(path);
        let mut disk = self.disk.lock();
        disk.alive()?;
        let inode = match disk.names.get(&suffix) {
            Some(&inode) => inode,
            None if create => {
                disk.operation(|| format!("create {suffix}"))?;
                disk.inodes.push(Inode::default());
                let inode = disk.inodes.len() - 1;
                disk.name(Name::Link(suffix.clone(), inode));
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        disk.open += 1;
        Ok(Arc::new(CrashFile {
            storage: self.clone(),
            inode,
            suffix,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let suffix = self.suffix(path);
        let disk = self.disk.lock();
        disk.alive()?;
        Ok(disk.names.contains_key(&suffix))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let suffix = self.suffix(path);
        self.hook(&format!("remove {suffix}"));
        let mut disk = self.disk.lock();
        disk.alive()?;
        if disk.names.contains_key(&suffix) {
            disk.operation(|| format!("remove {suffix}"))?;
            disk.name(Name::Unlink(suffix));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.suffix(from), self.suffix(to));
        let mut disk = self.disk.lock();
        disk.operation(|| format!("rename {from} {to}"))?;
        if !disk.names.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.name(Name::Rename(from, to));
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(|| "sync_folder".to_owned())?;
        disk.synced_names = disk.names.clone();
        disk.pending_names.clear();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.hook("lock");
        let mut disk = self.disk.lock();
        disk.alive()?;
        match std::mem::replace(&mut disk.locked, true) {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(Box::new(Lock(self.disk.clone()))),
        }
    }
}

struct Lock(Arc<Mutex<Disk>>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.lock().locked = false;
    }
}
