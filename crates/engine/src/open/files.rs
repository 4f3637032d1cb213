//! The files of a replica: where they are, the lock over them, and how they are made, read and, when the first connect
//! fails, removed. Nothing here opens a SQLite connection.

use std::{
    any::Any,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use partial_sync_core::{Epoch, PageMap, PageSize};
use partial_sync_transport::{Remote, RemoteErrorKind};
use partial_sync_vfs::{Base, HeaderKind, Replica, Storage, StorageFile, WalMark, header_kind, hide_file};

use crate::{
    error::{Error, Result},
    fetch::initial::InitialPages,
    open::{
        bootstrap,
        info::{self, Info},
        options::{Builder, PartialSync},
        side_files::{side_file_path, temporary_files},
    },
    options::{PREFETCH, SEGMENT_SIZE},
    runtime::Moment,
};

/// What is known of it, which pages are here, and how far the WAL was looked at.
type Loaded = (Info, PageMap, Option<WalMark>);

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
    let loaded = match Info::load(&*storage, &path)? {
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
    let mut saved = Replica::load_map(&**storage, path)
        .map_err(|e| not_a_replica(path, format!("its page map cannot be read: {e}")))?
        .ok_or_else(|| not_a_replica(path, "its page map (the -pages file) is missing".into()))?;
    if saved.page_size.bytes() != info.page_size {
        return Err(not_a_replica(
            path,
            "its page map does not fit its database file".into(),
        ));
    }
    let pages_in_file =
        main.len().map_err(|e| Error::storage("read", path, e))? / u64::from(info.page_size.max(1));
    // The process was killed after it had cut the file and before it had saved the map: what lies beyond the end is absent,
    // and was cut off here.
    let mut cut_off = saved.present.clone();
    cut_off.remove_range(..u32::try_from(pages_in_file).unwrap_or(u32::MAX));
    saved.present -= &cut_off;
    saved.dirty |= cut_off;
    let PartialSync {
        segment_size,
        prefetch,
        ..
    } = options.partial.clone().unwrap_or_default();
    let wanted = (
        segment_size.unwrap_or(info.segment_size),
        prefetch.unwrap_or(info.prefetch),
    );
    if wanted != (info.segment_size, info.prefetch) {
        (info.segment_size, info.prefetch) = wanted;
        info.save(&**storage, path)?;
    }
    let mut mark = info.wal_mark.map(WalMark::from);
    // A dirty page past both ends is in the WAL or nowhere; then the WAL tells. A damaged or forged map that names
    // billions of them costs nothing.
    let end = pages_in_file.max(u64::from(info.base_size));
    if saved.dirty.max().is_some_and(|id| u64::from(id) >= end) {
        saved.dirty.remove_range(u32::try_from(end).unwrap_or(u32::MAX)..);
        mark = None;
    }
    Ok((info, saved.to_map(Epoch(0)), mark))
}

/// Makes the files of a replica of version 0.1.0 what this version expects. Can be done again after a kill at any point.
/// The WAL moves first: another program that finds one at its old place copies it into the file and removes it, also
/// when it then refuses the file.
fn convert(storage: &dyn Storage, path: &Path, main: &dyn StorageFile, info: &mut Info) -> Result<()> {
    let (old, new) = (side_file_path(path, "-wal"), Replica::wal_path(path));
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
        ("-journal", "it was interrupted and left a rollback journal"),
        ("-wal", "it left a WAL"),
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

/// Makes a replica where there is none, or where a first connect was cut off: then it continues where that was, if what it
/// left is of this remote and the revision is still kept.
fn make_new(
    storage: &Arc<dyn Storage>,
    path: &Path,
    unfinished: Option<Info>,
    remote: &Arc<dyn Remote>,
    options: &Builder,
    begun: Moment,
) -> Result<Loaded> {
    let main = storage
        .open(path, true)
        .map_err(|e| Error::storage("open", path, e))?;
    if unfinished.is_none() && !main.is_empty().map_err(|e| Error::storage("read", path, e))? {
        return Err(not_a_replica(
            path,
            "there is a file already that was not made by a connect to a remote; move it away or choose another path".into(),
        ));
    }
    let url = remote.known_url();
    let wanted = InitialPages::of(options);
    let mut left = match &unfinished {
        Some(info) if options.bootstrap_if_empty && url.as_ref() == Some(&info.remote_url) => {
            bootstrap::resumable(&**storage, path, info, &wanted)?
        }
        _ => None,
    };
    let mut random = options
        .seed
        .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
    let mut info = Info::new(url.unwrap_or_default());
    info.client_id = format!("{}-{:032x}", options.client_name, random.u128(..));
    let partial = options.partial.clone().unwrap_or_default();
    info.bootstrap = partial.bootstrap;
    info.segment_size = (partial.segment_size).unwrap_or(SEGMENT_SIZE.default_number());
    info.prefetch = partial.prefetch.unwrap_or(PREFETCH.default_flag());
    let made = loop {
        // What an earlier replica of this name left must not be taken for this one's: the page map before the info file
        // that speaks of another revision.
        let files: &[_] = match &left {
            Some(_) => &["-wal", "-shm", "-changes"],
            None => &["-pages", "-wal", "-shm", "-changes"],
        };
        let files = files.iter().map(|suffix| side_file_path(path, suffix));
        for file in files.chain([Replica::wal_path(path)]) {
            storage
                .remove(&file)
                .map_err(|e| Error::storage("remove", &file, e))?;
        }
        match &left {
            Some(left) => note(&mut info, &left.base, left.page_size),
            None => {
                main.set_len(0).map_err(|e| Error::storage("empty", path, e))?;
                (info.base_revision, info.base_size) = (String::new(), 0);
            }
        }
        info.save(&**storage, path)?;
        if !options.bootstrap_if_empty {
            break bootstrap::empty(storage, path)?;
        }
        let resumes = left.is_some();
        let mut noting = |base: &Base, page_size| {
            note(&mut info, base, page_size);
            info.save(&**storage, path)
        };
        let fetching = bootstrap::download(
            &**remote,
            storage,
            path,
            &wanted,
            options.timeout,
            left.take(),
            &mut noting,
        );
        match options.cancel.wait(begun, "the first connect", fetching) {
            Err(Error::Remote(e))
                if resumes
                    && matches!(
                        e.kind,
                        RemoteErrorKind::RevisionExpired | RemoteErrorKind::RevisionUnknown
                    ) =>
            {
                tracing::info!(error = %e, "the first connect begins again: its revision is gone");
            }
            // The first pull brings it.
            Err(Error::Remote(e)) if e.kind == RemoteErrorKind::Paused => {
                (info.base_revision, info.base_size) = (String::new(), 0);
                break bootstrap::empty(storage, path)?;
            }
            made => break made?,
        }
    };
    info.ready = true;
    info.page_size = made.page_size.bytes();
    if let Some(base) = &made.base {
        note(&mut info, base, made.page_size);
        info.last_pull = Some(info::now());
    }
    info.remote_hydrates = made.hydrates;
    info.save(&**storage, path)?;
    Ok((info, made.map, None))
}

fn note(info: &mut Info, base: &Base, page_size: PageSize) {
    info.base_revision = base.revision.as_str().to_owned();
    info.base_size = base.size.0;
    info.page_size = page_size.bytes();
}

/// Whether what a first connect that failed has left is worth going on from: the network failed, and not everything was in
/// vain.
fn is_worth_keeping(storage: &dyn Storage, path: &Path, error: &Error) -> bool {
    error.is_transient() && storage.exists(&side_file_path(path, "-pages")).unwrap_or(false)
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

/// Removes what a first connect that failed has made. The info file goes last, and only when the rest went: while it
/// is there, and says that the replica is not ready, the next connect starts over.
pub(crate) fn remove_files(storage: &dyn Storage, path: &Path) {
    let info = info::file(path);
    let said_ready = Info::load(storage, path).is_ok_and(|info| info.is_some_and(|info| info.ready));
    let mut files = [
        "",
        "-wal",
        "-shm",
        "-pages",
        "-pages.tmp",
        "-changes",
        "-info.tmp",
    ]
    .map(|suffix| side_file_path(path, suffix))
    .to_vec();
    files.push(Replica::wal_path(path));
    files.extend(temporary_files(path));
    // Only making the name of a complete info file durable can have failed: as long as it is there all must stay.
    files.insert(if said_ready { 0 } else { files.len() }, info);
    for file in files {
        if let Err(error) = storage.remove(&file) {
            tracing::warn!(%error, file = %file.display(), "files of a replica that could not be made were left behind");
            return;
        }
    }
}

/// What is at the path cannot be used.
pub(crate) fn not_a_replica(path: &Path, why: String) -> Error {
    Error::NotAReplica {
        path: path.to_owned(),
        why,
    }
}

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

/// The path that names the file whatever the current folder is.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |e| Error::storage("find", path, e);
    let full = std::path::absolute(path).map_err(failed)?;
    match (full.parent(), full.file_name()) {
        (Some(folder), Some(name)) => Ok(folder.canonicalize().map_err(failed)?.join(name)),
        _ => Err(not_a_replica(path, "the path names no file".into())),
    }
}
