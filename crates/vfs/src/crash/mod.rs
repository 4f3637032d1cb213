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
use disk::{Change, Contents, Disk, Event, Inode, Name};

mod disk;

pub use disk::{Film, Remains, Survives, Trouble};

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
        Self::from_remains(&self.remains(survives), base)
    }

    /// What a crash now would leave.
    pub fn remains(&self, survives: Survives) -> Remains {
        Remains(self.disk.lock().contents.after_crash(survives))
    }

    /// A disk with what a crash has left, for a replica at `base`.
    pub fn from_remains(remains: &Remains, base: &Path) -> Self {
        let mut contents = Contents::default();
        for (inode, (name, bytes)) in remains.0.iter().enumerate() {
            contents.names.insert(name.clone(), inode);
            contents.inodes.push(Inode {
                synced: bytes.clone(),
                written: bytes.clone(),
                pending: vec![],
            });
        }
        contents.synced_names = contents.names.clone();
        Self {
            base: base.to_owned(),
            disk: Arc::new(Mutex::new(Disk {
                contents,
                ..Disk::default()
            })),
        }
    }

    /// From now on everything that happens is filmed.
    pub fn film(&self) {
        self.disk.lock().roll();
    }

    /// What was filmed. Nothing more is.
    pub fn take_film(&self) -> Option<Film> {
        self.disk.lock().film.take()
    }

    /// Files that somebody has open.
    pub fn open_files(&self) -> usize {
        self.disk.lock().open
    }

    /// A whole file, for looking at it; `None` when it is not there. `suffix` is `""`, `-wal`, `-info`, ...
    pub fn file(&self, suffix: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = *disk.contents.names.get(suffix)?;
        Some(disk.contents.inodes[inode].written.clone())
    }

    /// The names of the files, as suffixes.
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().contents.names.keys().cloned().collect()
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
        let bytes = &disk.contents.inodes[self.inode].written;
        let from = (offset as usize).min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.storage.hook(&format!("write {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("write {} {}+{}", self.suffix, offset, data.len()))?;
        disk.apply(Event::Changed(self.inode, Change::Write(offset, data.to_vec())));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.hook(&format!("sync {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("sync {}", self.suffix))?;
        disk.apply(Event::Synced(self.inode));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.hook(&format!("set_len {}", self.suffix));
        let mut disk = self.storage.disk.lock();
        disk.operation(|| format!("set_len {} {len}", self.suffix))?;
        disk.apply(Event::Changed(self.inode, Change::Length(len)));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk.lock();
        disk.alive()?;
        Ok(disk.contents.inodes[self.inode].written.len() as u64)
    }
}

impl Storage for CrashStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let suffix = self.suffix(path);
        let mut disk = self.disk.lock();
        disk.alive()?;
        let inode = match disk.contents.names.get(&suffix) {
            Some(&inode) => inode,
            None if create => {
                disk.operation(|| format!("create {suffix}"))?;
                disk.apply(Event::Made(suffix.clone()));
                disk.contents.inodes.len() - 1
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
        Ok(disk.contents.names.contains_key(&suffix))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let suffix = self.suffix(path);
        self.hook(&format!("remove {suffix}"));
        let mut disk = self.disk.lock();
        disk.alive()?;
        if disk.contents.names.contains_key(&suffix) {
            disk.operation(|| format!("remove {suffix}"))?;
            disk.apply(Event::Named(Name::Unlink(suffix)));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.suffix(from), self.suffix(to));
        let mut disk = self.disk.lock();
        disk.operation(|| format!("rename {from} {to}"))?;
        if !disk.contents.names.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.apply(Event::Named(Name::Rename(from, to)));
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operation(|| "sync_folder".to_owned())?;
        disk.apply(Event::NamesSynced);
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

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: [Survives; 3] = [Survives::Written, Survives::Synced, Survives::SyncedAndSome(7)];

    #[test]
    fn a_film_knows_what_a_crash_before_each_operation_would_have_left() {
        let base = Path::new("/r.db");
        let storage = CrashStorage::new(base);
        let file = storage.open(base, true).unwrap();
        file.write_at(b"before", 0).unwrap();
        storage.film();
        let left = || OUTCOMES.map(|outcome| storage.remains(outcome));
        let mut expected = vec![left()];
        let info = Path::new("/r.db-info.tmp");
        let steps: [&dyn Fn(); 7] = [
            &|| file.write_at(&[1; 1500], 3).unwrap(),
            &|| drop(storage.open(info, true).unwrap()),
            &|| file.sync().unwrap(),
            &|| storage.rename(info, Path::new("/r.db-info")).unwrap(),
            &|| file.set_len(700).unwrap(),
            &|| storage.sync_folder(base).unwrap(),
            &|| storage.remove(Path::new("/r.db-info")).unwrap(),
        ];
        for step in steps {
            step();
            expected.push(left());
        }
        let film = storage.take_film().unwrap();
        assert_eq!(film.len(), steps.len());
        for (n, expected) in expected[..steps.len()].iter().enumerate() {
            for (outcome, expected) in OUTCOMES.into_iter().zip(expected) {
                assert!(
                    film.crash(n, outcome) == *expected,
                    "{outcome:?} before {}",
                    film.operation(n)
                );
            }
        }
        assert!(storage.take_film().is_none());
    }
}
