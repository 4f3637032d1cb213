//! Files that live in memory: what `:memory:` replicas and query snapshots keep their pages in. Sparse: a database of
//! 2 GB of which ten pages were touched takes ten blocks.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use crate::storage::{Storage, StorageFile};

const BLOCK: usize = 65536;

#[derive(Default)]
struct SparseBytes {
    len: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

#[derive(Default)]
struct MemoryFile(RwLock<SparseBytes>);

impl StorageFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let contents = self.0.read();
        let available = contents.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for_each_block(offset, available, |block, within, at, n| {
            match contents.blocks.get(&block) {
                Some(bytes) => buf[at..at + n].copy_from_slice(&bytes[within..within + n]),
                None => buf[at..at + n].fill(0),
            }
        });
        Ok(available)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut contents = self.0.write();
        for_each_block(offset, data.len(), |block, within, at, n| {
            let bytes = contents
                .blocks
                .entry(block)
                .or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
            bytes[within..within + n].copy_from_slice(&data[at..at + n]);
        });
        contents.len = contents.len.max(offset + data.len() as u64);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.0.write();
        if len < contents.len {
            contents.blocks.split_off(&len.div_ceil(BLOCK as u64));
            if let Some(last) = contents.blocks.get_mut(&(len / BLOCK as u64)) {
                last[(len % BLOCK as u64) as usize..].fill(0);
            }
        }
        contents.len = len;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len)
    }
}

/// Calls `f(block, offset in the block, offset in the buffer, length)` for each block that a range touches.
fn for_each_block(offset: u64, len: usize, mut f: impl FnMut(u64, usize, usize, usize)) {
    let mut done = 0;
    while done < len {
        let position = offset + done as u64;
        let within = (position % BLOCK as u64) as usize;
        let n = (BLOCK - within).min(len - done);
        f(position / BLOCK as u64, within, done, n);
        done += n;
    }
}

/// A [`Storage`] of its own: nothing in it is seen outside, and it goes away with the last reference.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<HashMap<PathBuf, Arc<MemoryFile>>>>);

impl Storage for MemoryStorage {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut files = self.0.lock();
        match files.get(path) {
            Some(file) => Ok(file.clone()),
            None if create => {
                let file = Arc::new(MemoryFile::default());
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.0.lock().contains_key(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_file_behaves_like_a_sparse_file() {
        let storage = MemoryStorage::default();
        let file = storage.open(Path::new("a"), true).unwrap();
        file.write_at(b"hello", 3 * BLOCK as u64 - 2).unwrap();
        assert_eq!(file.len().unwrap(), 3 * BLOCK as u64 + 3);
        let mut buf = [1; 8];
        assert_eq!(file.read_at(&mut buf, 3 * BLOCK as u64 - 4).unwrap(), 7);
        assert_eq!(&buf[..7], b"\0\0hello");
        file.set_len(3 * BLOCK as u64 - 1).unwrap();
        file.set_len(4 * BLOCK as u64).unwrap();
        assert_eq!(file.read_at(&mut buf, 3 * BLOCK as u64 - 2).unwrap(), 8);
        assert_eq!(&buf, b"h\0\0\0\0\0\0\0");
        assert!(storage.open(Path::new("b"), false).is_err());
    }
}
