//! The files of a replica, and the lock over them: those that are there are read and checked, else they are made
//! ([`first_connect`](crate::open::first_connect)). Nothing here opens a SQLite connection.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use partial_sync_core::{PageCount, PageMap};
use partial_sync_transport::Remote;
use partial_sync_vfs::{HeaderKind, Replica, Storage, StorageFile, WalMark, header_kind, hide_file};

use crate::{
    error::{Error, Result},
    open::{
        first_connect::{Loaded, is_worth_keeping, make_new, remove_files},
        info::Info,
        options::{Builder, PartialSync},
        side_files::{JOURNAL, WAL, side_file_path},
    },
    runtime::Moment,
};

/// The files of a replica, which are this process's for as long as the lock lives.
pub(crate) struct ReplicaFiles {
    pub storage: Arc<dyn Storage>,
    pub path: PathBuf,
    pub info: Info,
    /// Which pages are here.
    pub map: PageMap,
    /// How far the WAL was looked at.
    pub wal_mark: Option<WalMark>,
    pub lock: Box<dyn Any + Send + Sync>,
    /// Whether there was no database file before.
    pub is_new: bool,
    /// Whether they were made by this connect.
    pub is_made: bool,
}

/// Reads the replica that is there, or makes it from the remote.
pub(crate) fn open_or_make(
    storage: Arc<dyn Storage>,
    path: PathBuf,
    remote: &Arc<dyn Remote>,
    options: &Builder,
    begun: Moment,
) -> Result<ReplicaFiles> {
    let is_new = !storage
        .exists(&path)
        .map_err(|e| Error::storage("look for", &path, e))?;
    let lock = take_lock(&*storage, &path)?;
    // Only now, that nobody else writes it: another process may just have finished its first connect.
    let there = Info::load(&*storage, &path)?;
    let is_made = !there.as_ref().is_some_and(|info| info.ready);
    let loaded = match there {
        Some(info) if info.ready => open_existing(&storage, &path, info, remote, options),
        unfinished => {
            let begun_before = unfinished.is_some();
            make_new(&storage, &path, unfinished, remote, options, begun).inspect_err(|error| {
                if (is_new || begun_before) && !is_worth_keeping(&*storage, &path, error) {
                    remove_files(&*storage, &path);
                }
            })
        }
    };
    let (info, map, wal_mark) = loaded.inspect_err(|_| {
        // Taking the lock made an empty file where there was none.
        let is_empty = || {
            storage
                .open(&path, false)
                .is_ok_and(|f| f.is_empty().unwrap_or(false))
        };
        if is_new && is_empty() {
            let _ = storage.remove(&path);
        }
    })?;
    Ok(ReplicaFiles {
        storage,
        path,
        info,
        map,
        wal_mark,
        lock,
        is_new,
        is_made,
    })
}

/// Reads the replica that is there.
fn open_existing(
    storage: &Arc<dyn Storage>,
    path: &Path,
    mut info: Info,
    remote: &Arc<dyn Remote>,
    options: &Builder,
) -> Result<Loaded> {
    if !options.accept_new_url {
        info.check_url(remote.known_url().as_deref(), path)?;
    }
    let main = storage
        .open(path, false)
        .map_err(|e| Error::storage("open", path, e))?;
    if info.is_of_0_1() {
        convert(&**storage, path, &*main, &mut info)?;
    }
    check_untouched(&**storage, path, &*main, &info)?;
    let pages_in_file =
        main.len().map_err(|e| Error::storage("read", path, e))? / u64::from(info.page_size.max(1));
    let pages_in_file = PageCount(u32::try_from(pages_in_file).unwrap_or(u32::MAX));
    // A dirty page past both ends is in the WAL or nowhere; then the WAL tells. A damaged or forged map that names
    // billions of them costs nothing.
    let end = PageCount(pages_in_file.0.max(info.base_size));
    let saved = Replica::load_map(&**storage, path, end)
        .map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => {
                Error::not_a_replica(path, format!("its page map cannot be read: {e}"))
            }
            // The disk is full, or does not do what it should.
            _ => Error::storage("read", &Replica::map_path(path), e),
        })?
        .ok_or_else(|| Error::not_a_replica(path, "its page map (the -pages file) is missing".into()))?;
    if saved.page_size.bytes() != info.page_size {
        return Err(Error::not_a_replica(
            path,
            "its page map does not fit its database file".into(),
        ));
    }
    // The process was killed after it had cut the file and before it had saved the map: what lies beyond the end is absent,
    // and was cut off here.
    saved.map.truncate(pages_in_file);
    let PartialSync {
        segment_size,
        prefetch,
        ..
    } = options.partial.clone().unwrap_or_default();
    let wanted = (
        segment_size.unwrap_or(info.segment_size),
        prefetch.or(info.prefetch),
    );
    if wanted != (info.segment_size, info.prefetch) {
        (info.segment_size, info.prefetch) = wanted;
        info.save(&**storage, path)?;
    }
    let mark = info.wal_mark.map(WalMark::from).filter(|_| !saved.beyond);
    Ok((info, saved.map, mark))
}

/// Makes the files of a replica of version 0.1.0 what this version expects. Can be done again after a kill at any point.
/// The WAL moves first: another program that finds one at its old place copies it into the file and removes it, also
/// when it then refuses the file.
fn convert(storage: &dyn Storage, path: &Path, main: &dyn StorageFile, info: &mut Info) -> Result<()> {
    let (old, new) = (side_file_path(path, WAL), Replica::wal_path(path));
    let failed = |e| Error::storage("rename", &old, e);
    if storage.exists(&old).map_err(failed)? {
        if !is_empty(storage, &new)? {
            return Err(changed(path, "it left a WAL", None));
        }
        storage.rename(&old, &new).map_err(failed)?;
    }
    storage.sync_folder(path).map_err(failed)?;
    hide_file(main).map_err(|e| Error::storage("write", path, e))?;
    info.is_converted();
    info.save(storage, path)
}

/// Refuses a replica to which another program wrote. It can only have done so while the file was an ordinary one.
fn check_untouched(storage: &dyn Storage, path: &Path, main: &dyn StorageFile, info: &Info) -> Result<()> {
    let unpushed = info.ordinary.map(|mark| mark.unpushed);
    for (suffix, how) in [
        (JOURNAL, "it was interrupted and left a rollback journal"),
        (WAL, "it left a WAL"),
    ] {
        if !is_empty(storage, &side_file_path(path, suffix))? {
            return Err(changed(path, how, unpushed));
        }
    }
    match header_kind(main).map_err(|e| Error::storage("read", path, e))? {
        Some(HeaderKind::Hidden) => Ok(()),
        Some(HeaderKind::Ordinary(mark)) if info.ordinary.is_some_and(|noted| noted.is(mark)) => Ok(()),
        Some(HeaderKind::Ordinary(_)) => Err(changed(path, "its change counter has moved on", unpushed)),
        Some(HeaderKind::Other) => Err(changed(path, "its journal mode was changed", unpushed)),
        None => Err(changed(path, "it is empty, or no database any more", unpushed)),
    }
}

fn is_empty(storage: &dyn Storage, file: &Path) -> Result<bool> {
    let len = match storage.exists(file) {
        Ok(true) => storage.open(file, false).and_then(|file| file.len()),
        Ok(false) => Ok(0),
        Err(error) => Err(error),
    };
    Ok(len.map_err(|e| Error::storage("look for", file, e))? == 0)
}

fn changed(path: &Path, how: &'static str, unpushed: Option<u64>) -> Error {
    Error::ChangedElsewhere {
        path: path.to_owned(),
        how,
        unpushed,
    }
}

/// The lock of the database file, which is made (empty) when it is not there.
fn take_lock(storage: &dyn Storage, path: &Path) -> Result<Box<dyn Any + Send + Sync>> {
    storage
        .open(path, true)
        .map_err(|e| Error::storage("open", path, e))?;
    storage.lock(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse {
            path: path.to_owned(),
        },
        _ => Error::storage("lock", path, e),
    })
}
