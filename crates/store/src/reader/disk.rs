//! Blocks of files in a folder of this machine, up to so many bytes, for one reader or many of several processes.
//!
//! `<place>/<file>/<block>`: the place is the database and its lineage, the file its level, its transactions and its checksum, so a block
//! never changes. It is followed by a checksum of its own, written under another name and then renamed: one that was cut off, damaged, or
//! put where another belongs is found out, and removed. What was used longest ago goes first, as the times of the files tell, which
//! a reader sets. That the folder cannot be written or read only makes more requests.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::index::Indexed;

/// Bytes of a block's checksum.
const SUM: usize = 8;
/// What is being written has this at its end.
const PARTIAL: &str = ".new";
/// How long it may take to write a block; after that it was given up.
const ABANDONED: Duration = Duration::from_secs(3600);
/// After which part of the limit was written it is counted what is there: others write too.
const PART: u64 = 16;

/// A folder of blocks.
#[derive(Debug)]
pub(crate) struct Disk {
    /// That of all databases: its limit is for all of them.
    root: PathBuf,
    folder: PathBuf,
    limit: u64,
    /// Bytes written since it was counted what is there.
    written: AtomicU64,
    /// Held by the one who counts.
    counting: Mutex<()>,
}

impl Disk {
    /// The blocks of the database that `place` names.
    pub(crate) fn new(root: &Path, limit: u64, place: &str) -> Self {
        let place = xxh3_64_with_seed(place.as_bytes(), 0);
        Self {
            root: root.to_owned(),
            folder: root.join(format!("{place:016x}")),
            limit,
            written: AtomicU64::new(u64::MAX / 2),
            counting: Mutex::new(()),
        }
    }

    fn path(&self, file: &Indexed, block: u64) -> PathBuf {
        let name = file.name;
        let folder = format!("{}-{}-{}", name.level, name.ids, file.checksum);
        self.folder.join(folder).join(block.to_string())
    }

    /// A block of `len` bytes, if it is here.
    pub(crate) fn read(&self, file: &Indexed, block: u64, len: usize) -> Option<Vec<u8>> {
        let path = self.path(file, block);
        let mut stored = File::open(&path).ok()?;
        let mut bytes = Vec::with_capacity(len + SUM + 1);
        // One more than it should have, so that it is seen.
        let read = (&mut stored).take((len + SUM + 1) as u64).read_to_end(&mut bytes);
        let sum = bytes.split_off(bytes.len().min(len));
        if read.is_err() || sum != checksum(file, block, &bytes) {
            let _ = fs::remove_file(&path);
            return None;
        }
        // It was used now.
        let _ = stored.set_modified(SystemTime::now());
        Some(bytes)
    }

    /// Keeps a block.
    pub(crate) fn write(&self, file: &Indexed, block: u64, bytes: &[u8]) {
        let path = self.path(file, block);
        if put(&path, bytes, &checksum(file, block, bytes)).is_err() {
            return;
        }
        let len = bytes.len() as u64;
        let written = self.written.fetch_add(len, Ordering::Relaxed) + len;
        if written > self.limit / PART
            && let Ok(_counting) = self.counting.try_lock()
        {
            self.written.store(0, Ordering::Relaxed);
            // Room for what is written until it is counted again.
            let _ = clear(&self.root, self.limit - self.limit / PART * 2);
        }
    }
}

fn checksum(file: &Indexed, block: u64, bytes: &[u8]) -> [u8; SUM] {
    xxh3_64_with_seed(bytes, file.checksum.get() ^ block).to_be_bytes()
}

fn put(path: &Path, bytes: &[u8], sum: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let partial = path.with_extension(format!("{:016x}{PARTIAL}", fastrand::u64(..)));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        file.write_all(bytes)?;
        file.write_all(sum)?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&partial)))
}

/// Removes what was used longest ago until at most `limit` bytes are left.
fn clear(root: &Path, limit: u64) -> io::Result<()> {
    let now = SystemTime::now();
    let mut blocks = Vec::new();
    for place in fs::read_dir(root)? {
        for file in fs::read_dir(place?.path()).into_iter().flatten() {
            let folder = file?.path();
            for block in fs::read_dir(&folder).into_iter().flatten() {
                let block = block?;
                // Another process may have removed it.
                let Ok(meta) = block.metadata() else { continue };
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let path = block.path();
                let partial = path.to_string_lossy().ends_with(PARTIAL);
                if partial && now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
                    let _ = fs::remove_file(&path);
                } else {
                    blocks.push((used, meta.len(), path));
                }
            }
            // It fails unless it is empty.
            let _ = fs::remove_dir(&folder);
        }
    }
    let mut total: u64 = blocks.iter().map(|(_, len, _)| len).sum();
    blocks.sort_unstable();
    for (_, len, path) in blocks {
        if total <= limit {
            break;
        }
        total -= len;
        let _ = fs::remove_file(path);
    }
    Ok(())
}
