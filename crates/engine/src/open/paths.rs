//! Under which path a database is known in this process.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::error::{Error, Result};

/// A path that no file has, and no other database in memory.
pub(crate) fn memory_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = if cfg!(windows) {
        "C:\\partial-sync-memory"
    } else {
        "/:memory:"
    };
    Path::new(folder).join(format!("{}.db", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// The path that names the file whatever the current folder is and however its folder is spelled.
pub(crate) fn full_path(path: &Path) -> Result<PathBuf> {
    let failed = |e| Error::storage("find", path, e);
    let full = std::path::absolute(path).map_err(failed)?;
    match (full.parent(), full.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize().map_err(failed)?.join(name)),
        _ => Err(Error::not_a_replica(path, "the path names no file".into())),
    }
}
