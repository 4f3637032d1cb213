//! A disk in memory that can stop the world: it keeps, for each file, what was written and what of it was synced, and,
//! for the folder, which names there are and which of them were synced. After operation N every operation fails; what
//! survives is then opened again as another disk. What it must never do: let anything unsynced survive a power loss by
//! luck of the order in which files happened to be synced. Syncing a file does not sync its name.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use partial_sync_vfs::{Storage, StorageFile};

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
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
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
struct Inode {
    written: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Name {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

impl Name {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
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

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    pending_names: Vec<Name>,
    operations: u64,
    /// What each operation was.
    trace: Vec<String>,
    trouble: Option<Trouble>,
    stopped: bool,
    hooks: Vec<(String, Hook)>,
}

impl Disk {
    /// Counts an operation that changes something.
    fn operation(&mut self, what: impl FnOnce() -> String) -> io::Result<()> {
        self.alive()?;
        self.operations += 1;
        self.trace.push(what());
        match self.trouble {
            Some(Trouble::Stop(at)) if self.operations >= at => {
                self.stopped = true;
                Err(io::Error::other("the world has stopped"))
            }
            Some(Trouble::Fail(from, to, kind)) if (from..to).contains(&self.operations) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        match self.stopped {
            true => Err(io::Error::other("the world has stopped")),
            false => Ok(()),
        }
    }

    fn name(&mut self, name: Name) {
        name.apply(&mut self.names);
        self.pending_names.push(name);
    }
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

    pub fn trouble(&self, trouble: Option<Trouble>) {
        self.disk.lock().unwrap().trouble = trouble;
    }

    pub fn operations(&self) -> u64 {
        self.disk.lock().unwrap().operations
    }

    pub fn stop_now(&self) {
        self.disk.lock().unwrap().stopped = true;
    }

    pub fn has_stopped(&self) -> bool {
        self.disk.lock().unwrap().stopped
    }

    /// The last operations, for the message of a test that fails.
    pub fn tail(&self) -> String {
        let disk = self.disk.lock().unwrap();
        let from = disk.trace.len().saturating_sub(8);
        disk.trace[from..].join("; ")
    }

    pub fn trace(&self) -> Vec<String> {
        self.disk.lock().unwrap().trace.clone()
    }

    /// Runs `hook` once, on the thread that does it, before the next operation whose name (`write -wal`, `sync -info.tmp`,
    /// `remove -changes`, ...) is `operation`.
    pub fn before(&self, operation: &str, hook: impl FnOnce() + Send + 'static) {
        self.disk
            .lock()
            .unwrap()
            .hooks
            .push((operation.to_owned(), Box::new(hook)));
    }

    fn hook(&self, operation: &str) {
        let hook = {
            let mut disk = self.disk.lock().unwrap();
            let at = disk.hooks.iter().position(|(name, _)| name == operation);
            at.map(|at| disk.hooks.remove(at).1)
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    /// The disk that is found after a crash now, for a replica at `base`.
    pub fn after_crash(&self, survives: Survives, base: &Path) -> Self {
        let disk = self.disk.lock().unwrap();
        let mut random = match survives {
            Survives::SyncedAndSome(seed) => fastrand::Rng::with_seed(seed),
            _ => fastrand::Rng::with_seed(0),
        };
        let names = match survives {
            Survives::Written => disk.names.clone(),
            Survives::Synced => disk.synced_names.clone(),
            Survives::SyncedAndSome(_) => {
                // A folder is a journal: what survives of it is a beginning.
                let mut names = disk.synced_names.clone();
                let kept = random.usize(..=disk.pending_names.len());
                disk.pending_names[..kept]
                    .iter()
                    .for_each(|n| n.apply(&mut names));
                names
            }
        };
        let inodes = disk
            .inodes
            .iter()
            .map(|inode| {
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
            })
            .collect();
        Self {
            base: base.to_owned(),
            disk: Arc::new(Mutex::new(Disk {
                inodes,
                synced_names: names.clone(),
                names,
                ..Disk::default()
            })),
        }
    }

    /// A whole file, for looking at it; `None` when it is not there. `suffix` is `""`, `-wal`, `-info`, ...
    pub fn file(&self, suffix: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock().unwrap();
        disk.names.get(suffix).map(|&i| disk.inodes[i].written.clone())
    }

    pub fn names(&self) -> Vec<String> {
        self.disk.lock().unwrap().names.keys().cloned().collect()
    }

    fn suffix(&self, path: &Path) -> String {
        let path = path.as_os_str().to_str().unwrap();
        let base = self.base.as_os_str().to_str().unwrap();
        path.strip_prefix(base)
            .unwrap_or_else(|| panic!("{path} is no file of {base}"))
            .to_owned()
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

struct CrashFile {
    storage: CrashStorage,
    inode: usize,
    suffix: String,
}

impl StorageFile for CrashFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.storage.disk.lock().unwrap();
        disk.alive()?;
        let bytes = &disk.inodes[self.inode].written;
        let from = (offset as usize).min(bytes.len());
        let n = buf.len().min(bytes.len() - from);
        buf[..n].copy_from_slice(&bytes[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.storage.hook(&format!("write {}", self.suffix));
        let mut disk = self.storage.disk.lock().unwrap();
        disk.operation(|| format!("write {} {}+{}", self.suffix, offset, data.len()))?;
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut disk.inodes[self.inode].written);
        disk.inodes[self.inode].pending.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.hook(&format!("sync {}", self.suffix));
        let mut disk = self.storage.disk.lock().unwrap();
        disk.operation(|| format!("sync {}", self.suffix))?;
        let inode = &mut disk.inodes[self.inode];
        inode.synced = inode.written.clone();
        inode.pending.clear();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.hook(&format!("set_len {}", self.suffix));
        let mut disk = self.storage.disk.lock().unwrap();
        disk.operation(|| format!("set_len {} {len}", self.suffix))?;
        let change = Change::Length(len);
        change.apply(&mut disk.inodes[self.inode].written);
        disk.inodes[self.inode].pending.push(change);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk.lock().unwrap();
        disk.alive()?;
        Ok(disk.inodes[self.inode].written.len() as u64)
    }
}

impl Storage for CrashStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let suffix = self.suffix(path);
        let mut disk = self.disk.lock().unwrap();
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
        Ok(Arc::new(CrashFile {
            storage: self.clone(),
            inode,
            suffix,
        }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let suffix = self.suffix(path);
        let disk = self.disk.lock().unwrap();
        disk.alive()?;
        Ok(disk.names.contains_key(&suffix))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let suffix = self.suffix(path);
        self.hook(&format!("remove {suffix}"));
        let mut disk = self.disk.lock().unwrap();
        disk.alive()?;
        if disk.names.contains_key(&suffix) {
            disk.operation(|| format!("remove {suffix}"))?;
            disk.name(Name::Unlink(suffix));
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.suffix(from), self.suffix(to));
        let mut disk = self.disk.lock().unwrap();
        disk.operation(|| format!("rename {from} {to}"))?;
        if !disk.names.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.name(Name::Rename(from, to));
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.operation(|| "sync_folder".to_owned())?;
        disk.synced_names = disk.names.clone();
        disk.pending_names.clear();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.hook("lock");
        Ok(Box::new(()))
    }
}
