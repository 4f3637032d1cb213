//! The files beside a replica's database, by name. The VFS names two more: `Replica::wal_path` and `Replica::map_path`.

use std::path::{Path, PathBuf};

use partial_sync_vfs::Replica;
pub(crate) use partial_sync_vfs::side_file_path;

/// What the replica knows of itself.
pub(crate) const INFO: &str = "-info";
/// What the commit of a pull means.
pub(crate) const CHANGES: &str = "-changes";
/// The pages that a pull brought.
pub(crate) const STAGED: &str = "-staged";
/// The database on which a pull puts local changes back.
pub(crate) const PREVIEW: &str = "-preview";

/// The files of the database on which local changes are put back.
pub(crate) fn preview_files(path: &Path) -> Vec<PathBuf> {
    let preview = side_file_path(path, PREVIEW);
    vec![Replica::wal_path(&preview), preview]
}

/// What a pull that was cut off may have left, besides its intent. All of it can go.
pub(crate) fn temporary_files(path: &Path) -> Vec<PathBuf> {
    let mut files = preview_files(path);
    files.push(side_file_path(path, STAGED));
    files
}
