//! Which instance of a replica has which path. SQLite names files by their path and nothing else, so an instance keeps
//! its path until the last of its files is closed: whatever SQLite does to a path is done by a connection of the instance
//! that has it.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    error::ReadError,
    replica::{Instance, Replica},
};

static REPLICAS: LazyLock<Mutex<HashMap<PathBuf, Registered>>> = LazyLock::new(Mutex::default);
/// A file was closed.
static CLOSED: Condvar = Condvar::new();

/// Who has a path.
struct Registered {
    replica: Weak<Replica>,
    instance: Arc<Instance>,
}

/// Makes a replica's path known. Fails when a living replica has it; one that was closed is waited for until no
/// connection of it is left, at most so long.
pub(crate) fn register(replica: &Arc<Replica>, wait: Duration) -> io::Result<()> {
    let path = replica.name();
    let deadline = Instant::now() + wait;
    let mut replicas = REPLICAS.lock();
    while let Some(other) = replicas.get(path).filter(|r| r.replica.strong_count() > 0) {
        let handles = other.instance.handles();
        if !other.instance.is_closed() {
            let message = format!("{} is open already in this process", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        if handles == 0 {
            break;
        }
        if CLOSED.wait_until(&mut replicas, deadline).timed_out() {
            let path = path.to_owned();
            let left = ReadError::LeftOpen { path, handles };
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, left));
        }
    }
    let registered = Registered {
        replica: Arc::downgrade(replica),
        instance: replica.instance.clone(),
    };
    replicas.retain(|_, other| other.replica.strong_count() > 0);
    replicas.insert(path.to_owned(), registered);
    Ok(())
}

impl Replica {
    /// Waits until no connection has a file of the replica open, at most so long. How many files there are still.
    pub fn wait_until_unused(&self, wait: Duration) -> usize {
        let deadline = Instant::now() + wait;
        let mut replicas = REPLICAS.lock();
        while self.instance.handles() > 0 && !CLOSED.wait_until(&mut replicas, deadline).timed_out() {}
        self.instance.handles()
    }
}

pub(crate) fn registered(path: &Path) -> Option<Arc<Replica>> {
    REPLICAS.lock().get(path)?.replica.upgrade()
}

/// The replica that owns a file name of SQLite's, and which of its files that is.
pub(crate) fn owner(path: &Path) -> Option<(Arc<Replica>, Side)> {
    let text = path.as_os_str().as_encoded_bytes();
    let stem = |suffix: &str| {
        let stem = text.strip_suffix(suffix.as_bytes())?;
        // SAFETY: the bytes come from an OsStr and are cut just before an ASCII suffix, which is a valid boundary.
        Some(PathBuf::from(unsafe {
            OsStr::from_encoded_bytes_unchecked(stem)
        }))
    };
    if let Some(replica) = registered(path) {
        return Some((replica, Side::Main));
    }
    if let Some(replica) = stem("-wal").and_then(|p| registered(&p)) {
        return Some((replica, Side::Wal));
    }
    stem("-journal")
        .and_then(|p| registered(&p))
        .map(|replica| (replica, Side::Journal))
}

/// Whether a database file is a replica: one that is open here, under whatever name, or one that is not.
pub(crate) fn is_replica(path: &Path) -> bool {
    if registered(path).is_some() || Replica::info_path(path).exists() {
        return true;
    }
    let Some(file) = file_id(path) else { return false };
    let open: Vec<PathBuf> = REPLICAS
        .lock()
        .iter()
        .filter(|(_, registered)| registered.replica.strong_count() > 0)
        .map(|(path, _)| path.clone())
        .collect();
    open.iter().any(|open| file_id(open).as_ref() == Some(&file))
}

/// What a file is, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

#[cfg(unix)]
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    Some(FileId((file.dev(), file.ino())))
}

#[cfg(not(unix))]
pub(crate) fn file_id(path: &Path) -> Option<FileId> {
    std::fs::canonicalize(path).ok().map(FileId)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Main,
    Wal,
    Journal,
}

impl Side {
    /// Where the file is that SQLite knows by the name `path`.
    pub(crate) fn file(self, replica: &Replica, path: &Path) -> PathBuf {
        match self {
            Self::Wal => replica.wal_file(),
            Self::Main | Self::Journal => path.to_owned(),
        }
    }
}

/// A file that SQLite has open.
pub(crate) struct InUse(Arc<Instance>);

impl InUse {
    /// One more, of an instance that is not closed.
    pub(crate) fn of(instance: &Arc<Instance>) -> Result<Self, ReadError> {
        // Under the lock, so that anyone who found none and takes the path is not surprised by one.
        let _replicas = REPLICAS.lock();
        if instance.is_closed() {
            return Err(ReadError::Closed);
        }
        instance.handles.fetch_add(1, Ordering::AcqRel);
        Ok(Self(instance.clone()))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let _replicas = REPLICAS.lock();
        self.0.handles.fetch_sub(1, Ordering::AcqRel);
        CLOSED.notify_all();
    }
}
