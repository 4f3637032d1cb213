//! A file of pages of this machine, of a fixed size, which is written round and round; and beside it what is in it, for the next start.
//!
//! Each page has a checksum over its database and number, which is kept elsewhere: what was overwritten, cut off or damaged meanwhile is
//! found out when it is read, and is not there. So neither file has to be written in any order with the other, nor is synced. The index
//! says of which revision of which database the pages are; whether they still are those of the latest one, the origin is asked. One process
//! at a time has the folder.

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::ServerError;

const PAGES: &str = "origin-pages";
const INDEX: &str = "origin-index";
/// They hold what the database does.
const MODE: u32 = 0o600;
/// Another one's index is none.
const FORMAT: u32 = 1;

/// Where a page is, and what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) sum: u64,
}

/// The open files.
#[derive(Debug)]
pub(super) struct Disk {
    pages: File,
    index: PathBuf,
}

/// Where the next page goes, and which places are taken, the oldest first.
#[derive(Debug)]
pub(super) struct Ring<K> {
    len: u64,
    head: u64,
    taken: VecDeque<(u64, u32, K)>,
}

/// What an index says.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Index {
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// Where the next page goes.
    #[prost(uint64, tag = "2")]
    pub(super) head: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) databases: Vec<Stored>,
}

/// The pages of a database at a revision.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Stored {
    /// Its url.
    #[prost(string, tag = "1")]
    pub(super) url: String,
    #[prost(string, tag = "2")]
    pub(super) revision: String,
    #[prost(uint32, repeated, tag = "3")]
    pub(super) pages: Vec<u32>,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) offsets: Vec<u64>,
    #[prost(uint32, repeated, tag = "5")]
    pub(super) lens: Vec<u32>,
    #[prost(fixed64, repeated, tag = "6")]
    pub(super) sums: Vec<u64>,
}

impl Stored {
    pub(super) fn put(&mut self, page: u32, spot: Spot) {
        self.pages.push(page);
        self.offsets.push(spot.offset);
        self.lens.push(spot.len);
        self.sums.push(spot.sum);
    }

    pub(super) fn spots(&self) -> impl Iterator<Item = (u32, Spot)> {
        let places = self.offsets.iter().zip(&self.lens).zip(&self.sums);
        let spots = places.map(|((&offset, &len), &sum)| Spot { offset, len, sum });
        self.pages.iter().copied().zip(spots)
    }
}

impl Disk {
    /// The files of a folder, which is made if it is not there, and what the index says.
    pub(super) fn open(folder: &Path) -> Result<(Self, Index), ServerError> {
        let path = folder.join(PAGES);
        let failed = |operation, path: &Path, source| ServerError::Io {
            operation,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(|source| failed("made", folder, source))?;
        let mut options = File::options();
        let pages = options.read(true).write(true).create(true).truncate(false);
        let pages = pages
            .mode(MODE)
            .open(&path)
            .map_err(|source| failed("opened", &path, source))?;
        match pages.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ServerError::CacheInUse {
                    path: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("locked", &path, source)),
        }
        let this = Self {
            pages,
            index: folder.join(INDEX),
        };
        let index = this.read_index().unwrap_or_default();
        Ok((this, index))
    }

    fn read_index(&self) -> Option<Index> {
        let bytes = fs::read(&self.index).ok()?;
        let (sum, bytes) = bytes.split_first_chunk()?;
        let is_whole = u64::from_le_bytes(*sum) == xxh3_64(bytes);
        let index = is_whole.then(|| Index::decode(bytes).ok())??;
        (index.format == FORMAT).then_some(index)
    }

    /// Says what is in the file.
    pub(super) fn write_index(&self, mut index: Index) -> io::Result<()> {
        index.format = FORMAT;
        let bytes = index.encode_to_vec();
        let mut all = xxh3_64(&bytes).to_le_bytes().to_vec();
        all.extend(bytes);
        let partial = self.index.with_extension("new");
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(true).mode(MODE);
        options.open(&partial)?.write_all(&all)?;
        fs::rename(partial, &self.index)
    }

    /// Another one may have the folder. To be read it may be still: what is there is compared.
    pub(super) fn let_go(&self) {
        // It is let go at the end of the process anyway.
        let _ = self.pages.unlock();
    }

    /// Writes a page.
    pub(super) fn write(&self, spot: Spot, data: &[u8]) -> io::Result<()> {
        self.pages.write_all_at(data, spot.offset)
    }

    /// Reads a page; `None` = it is not there any more.
    pub(super) fn read(&self, url: &str, page: u32, spot: Spot) -> Option<Bytes> {
        let mut data = vec![0; spot.len as usize];
        self.pages.read_exact_at(&mut data, spot.offset).ok()?;
        (sum(url, page, &data) == spot.sum).then(|| data.into())
    }
}

/// What a page of a database has to be.
pub(super) fn sum(url: &str, page: u32, data: &[u8]) -> u64 {
    xxh3_64_with_seed(data, xxh3_64(url.as_bytes()) ^ u64::from(page))
}

impl<K> Ring<K> {
    /// Of so many bytes, from where it was left.
    pub(super) fn new(len: u64, head: u64) -> Self {
        Self {
            len,
            head: if head < len { head } else { 0 },
            taken: VecDeque::new(),
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Places that were taken before.
    pub(super) fn restore(&mut self, mut taken: Vec<(u64, u32, K)>) {
        taken.retain(|(offset, len, _)| {
            offset
                .checked_add(u64::from(*len))
                .is_some_and(|end| end <= self.len)
        });
        taken.sort_by_key(|(offset, ..)| (*offset < self.head, *offset));
        self.taken = taken.into();
    }

    /// The place of the next page, and those whose place that was; `None` = it is larger than the file.
    pub(super) fn take(&mut self, len: u32, key: K) -> Option<(u64, Vec<K>)> {
        if u64::from(len) > self.len {
            return None;
        }
        let mut gone = Vec::new();
        if self.head + u64::from(len) > self.len {
            // What is behind it is the oldest, and is not written again before the rest.
            let head = std::mem::take(&mut self.head);
            while let Some((.., key)) = self.taken.pop_front_if(|(offset, ..)| *offset >= head) {
                gone.push(key);
            }
        }
        let offset = self.head;
        let end = offset + u64::from(len);
        let overlaps =
            |(start, len, _): &mut (u64, u32, K)| *start < end && offset < *start + u64::from(*len);
        while let Some((.., key)) = self.taken.pop_front_if(overlaps) {
            gone.push(key);
        }
        self.taken.push_back((offset, len, key));
        self.head = end;
        Some((offset, gone))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_place_is_given_again_when_the_file_has_been_written_once_round_and_never_before() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..100 {
            let len = random.u64(600..9000);
            let mut ring = Ring::new(len, random.u64(..10_000));
            let mut live: Vec<(u64, u64, u32)> = Vec::new();
            for key in 0..200 {
                let bytes = 512 << random.u32(0..3);
                let Some((offset, gone)) = ring.take(bytes, key) else {
                    assert!(u64::from(bytes) > len);
                    continue;
                };
                let end = offset + u64::from(bytes);
                assert!(end <= len);
                live.retain(|(.., key)| !gone.contains(key));
                assert!(
                    live.iter()
                        .all(|(start, stop, _)| *stop <= offset || end <= *start),
                    "{live:?} {offset} {end}"
                );
                live.push((offset, end, key));
                if random.u8(..50) == 0 {
                    // Some of it, after a restart.
                    live.retain(|_| random.bool());
                    ring = Ring::new(len, ring.head());
                    ring.restore(
                        live.iter()
                            .map(|(start, end, key)| (*start, (end - start) as u32, *key))
                            .collect(),
                    );
                }
            }
        }
    }

    #[test]
    fn what_was_overwritten_damaged_or_is_of_another_page_or_database_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, index) = Disk::open(folder.path()).unwrap();
        assert_eq!(index, Index::default());
        let data = vec![7; 512];
        let spot = Spot {
            offset: 1024,
            len: 512,
            sum: sum("a", 3, &data),
        };
        disk.write(spot, &data).unwrap();
        assert_eq!(disk.read("a", 3, spot).unwrap(), data);
        assert!(disk.read("a", 4, spot).is_none() && disk.read("b", 3, spot).is_none());
        let mut index = Index {
            head: 1536,
            ..Index::default()
        };
        let mut stored = Stored {
            url: "a".to_owned(),
            revision: "r".to_owned(),
            ..Stored::default()
        };
        stored.put(3, spot);
        index.databases.push(stored);
        disk.write_index(index.clone()).unwrap();
        assert!(matches!(
            Disk::open(folder.path()).unwrap_err(),
            ServerError::CacheInUse { .. }
        ));
        drop(disk);
        for name in [PAGES, INDEX] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, MODE, "{name}");
        }
        let (disk, found) = Disk::open(folder.path()).unwrap();
        assert_eq!(found.databases, index.databases);
        assert_eq!(found.databases[0].spots().collect::<Vec<_>>(), [(3, spot)]);
        disk.write(Spot { offset: 1200, ..spot }, &[8]).unwrap();
        assert!(disk.read("a", 3, spot).is_none());
        drop(disk);
        let path = folder.path().join(INDEX);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(Disk::open(folder.path()).unwrap().1, Index::default());
    }
}
