//! The files beside a replica's database, by name. The VFS names three more: `Replica::wal_path`, `Replica::map_path` and
//! `Replica::info_path`.

use std::path::{Path, PathBuf};

pub(crate) use partial_sync_vfs::side_file_path;
use partial_sync_vfs::{Replica, temporary_path};

/// What the commit of a pull means.
pub(crate) const CHANGES: &str = "-changes";
/// The pages that a pull brought.
pub(crate) const STAGED: &str = "-staged";
/// The database on which a pull puts local changes back.
pub(crate) const PREVIEW: &str = "-preview";
/// SQLite's WAL of an ordinary database. Another program, or a replica of version 0.1.0, has left one.
pub(crate) const WAL: &str = "-wal";
/// SQLite's wal-index of an ordinary database.
pub(crate) const WAL_INDEX: &str = "-shm";
/// SQLite's rollback journal of an ordinary database.
pub(crate) const JOURNAL: &str = "-journal";

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

/// What an earlier replica of this name may have left that belongs to its pages, all but the page map.
pub(crate) fn files_of_pages(path: &Path) -> Vec<PathBuf> {
    let mut files = [WAL, WAL_INDEX, CHANGES]
        .map(|suffix| side_file_path(path, suffix))
        .to_vec();
    files.push(Replica::wal_path(path));
    files
}

/// All that a first connect can have made, but the info file itself.
pub(crate) fn all_but_info(path: &Path) -> Vec<PathBuf> {
    let (map, info) = (Replica::map_path(path), Replica::info_path(path));
    let mut files = vec![path.to_owned(), temporary_path(&map), map, temporary_path(&info)];
    files.extend(files_of_pages(path));
    files.extend(temporary_files(path));
    files
}
