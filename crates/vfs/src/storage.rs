//! The few file operations that a replica needs, behind two small traits: [`Storage`] (names) and [`StorageFile`]
//! (bytes). [`OsStorage`] is the disk; `MemoryStorage` serves replicas that leave no file; crash tests wrap either and
//! stop the world at any operation. Everything that a replica keeps goes through here, its WAL included.

use std::{
    any::Any,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An open file. All methods may be called from many threads at once.
pub trait StorageFile: Send + Sync {
    /// Reads into `buf` from `offset`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at `offset`, growing the file where needed.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written before this call durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Where files are.
pub trait Storage: Send + Sync {
    /// Opens a file for reading and writing, creating it when `create` is set.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>>;
    /// Whether the file is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Removes a file; one that is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over another one, atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes names created, renamed or removed in the folder of `path` durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock that keeps other processes (and other replicas of this one) away from `path`, which exists.
    /// Held until the value is dropped. [`io::ErrorKind::WouldBlock`] when somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
}

/// The name of the file side_file_path `path` that has this at its end.
pub fn side_file_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file that [`write_whole`] writes before it takes the place of the one at `path`; a crash may leave it.
pub fn temporary_path(path: &Path) -> PathBuf {
    side_file_path(path, ".tmp")
}

/// Reads a whole file of at most `limit` bytes; `None` when it is not there.
pub fn read_whole(storage: &dyn Storage, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    if !storage.exists(path)? {
        return Ok(None);
    }
    let file = storage.open(path, false)?;
    let len = file.len()?;
    if len > limit {
        let message = format!(
            "{} has {len} bytes, more than the {limit} expected at most",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = vec![0; len as usize];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    Ok(Some(bytes))
}

/// Replaces a file as a whole: after a crash it has either the old bytes or the new ones. Temporary file, sync, rename,
/// sync of the folder.
pub fn write_whole(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    storage.remove(&temporary)?;
    let file = storage.open(&temporary, true)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    storage.rename(&temporary, path)?;
    storage.sync_folder(path)
}

/// Files on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsStorage;

struct OsFile(File);

impl StorageFile for OsFile {
    #[cfg(unix)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    #[cfg(windows)]
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < buf.len() {
            match self.0.seek_read(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    #[cfg(unix)]
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, data, offset)
    }

    #[cfg(windows)]
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt;
        let mut done = 0;
        while done < data.len() {
            done += self.0.seek_write(&data[done..], offset + done as u64)?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl Storage for OsStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // Windows has no folder sync; its renames are journaled.
        if cfg!(unix) {
            let folder = path
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        lock_file(&file)?;
        let process = std::process::id();
        Ok(Box::new(FileLock { file, process }))
    }
}

/// Belongs to the open file, which a forked child has too: it is given back by the process that took it, no matter who still
/// has the file open, and by no other.
struct FileLock {
    file: File,
    process: u32,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            unlock_file(&self.file);
        }
    }
}

/// A write lock over the whole file, of the kind that SQLite's own byte-range locks conflict with: while a replica is
/// open, the `sqlite3` shell gets "database is locked" instead of writing under it. An open-file-description lock, so
/// that it is not lost when another descriptor of the file is closed.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn lock_file(file: &File) -> io::Result<()> {
    set_lock(file, libc::F_WRLCK).map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn unlock_file(file: &File) {
    // It does not fail on an open file; if it did, the lock would go with the last descriptor.
    let _ = set_lock(file, libc::F_UNLCK);
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: `flock` is plain data for which all zeros is valid; the fields that matter are set below.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as _;
    range.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open for the duration of the call and `range` is a valid `flock`.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn lock_file(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(std::fs::TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unlock_file(file: &File) {
    let _ = file.unlock();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// A child that is forked has the parent's files open, and with them the lock.
    #[test]
    fn b7_a_lock_that_was_given_back_is_free_while_a_forked_child_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "").unwrap();
        let lock = OsStorage.lock(&path).unwrap();
        // SAFETY: the child does nothing that another thread's lock could keep from it.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: waits for a signal, nothing else.
                unsafe { libc::pause() };
            }
        }
        assert!(child > 0);
        drop(lock);
        let free = OsStorage.lock(&path).map(drop);
        // SAFETY: the process is our child, and is waited for once.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        free.unwrap();
    }

    /// What it does with what it inherited takes no lock from the parent.
    #[test]
    fn b7_a_forked_child_gives_no_lock_of_its_parent_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        std::fs::write(&path, "").unwrap();
        let lock = OsStorage.lock(&path).unwrap();
        // SAFETY: the child closes a file and ends, without a look at what other threads have locked.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(lock);
            // SAFETY: ends the child, and runs nothing of the parent's.
            unsafe { libc::_exit(0) };
        }
        // SAFETY: the process is our child, and is waited for once.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        let error = OsStorage.lock(&path).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(lock);
    }
}
