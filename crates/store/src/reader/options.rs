//! What a reader may use of this machine and of the store.

use std::path::PathBuf;

/// A folder for blocks of larger files. Several readers may have the same one, also of other databases and in other processes.
#[derive(Clone, Debug)]
pub struct CacheFolder {
    /// Where; it is made if it is not there. Nothing else may be in it.
    pub path: PathBuf,
    /// The most bytes of all that is in it.
    pub bytes: u64,
}

/// How much a [`Reader`](crate::Reader) may use.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Bytes of memory for contents of files; as much again for page indexes, beside those of the files that make the latest state, which
    /// take some 2 bytes for each page of the database.
    pub memory: u64,
    /// Requests that are under way at once.
    pub requests: usize,
    /// The most bytes of a page index that are read, as the file has it: 6 to 15 for each page.
    pub index: u64,
    /// Blocks of larger files are kept here too, over restarts.
    pub folder: Option<CacheFolder>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            requests: 32,
            index: 1 << 30,
            folder: None,
        }
    }
}
