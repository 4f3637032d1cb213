//! The files of a replica at its first connect: made where there are none, continued where an earlier one was cut off, removed
//! when it failed and nothing of it is worth keeping.

use std::{path::Path, sync::Arc};

use partial_sync_core::{PageMap, PageSize};
use partial_sync_transport::{Remote, RemoteErrorKind};
use partial_sync_vfs::{Base, Replica, Storage, WalMark};

use crate::{
    error::{Error, Result},
    fetch::initial::InitialPages,
    open::{
        bootstrap,
        info::{self, Info},
        options::Builder,
        side_files::{all_but_info, files_of_pages},
    },
    options::SEGMENT_SIZE,
    runtime::Moment,
};

/// What is known of it, which pages are here, and how far the WAL was looked at.
pub(super) type Loaded = (Info, PageMap, Option<WalMark>);

/// Makes a replica where there is none, or where a first connect was cut off: then it continues where that was, if what it
/// left is of this remote and the revision is still kept.
pub(super) fn make_new(
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
        return Err(Error::not_a_replica(
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
    info.prefetch = partial.prefetch;
    let made = loop {
        // What an earlier replica of this name left must not be taken for this one's: the page map before the info file
        // that speaks of another revision.
        let map = left.is_none().then(|| Replica::map_path(path));
        for file in map.into_iter().chain(files_of_pages(path)) {
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
    info.note_features(made.features);
    info.save(&**storage, path)?;
    Ok((info, made.map, None))
}

fn note(info: &mut Info, base: &Base, page_size: PageSize) {
    info.base_revision = base.revision.as_str().to_owned();
    info.base_size = base.size.0;
    info.page_size = page_size.bytes();
}

/// Whether what a first connect that failed has left is worth keeping: the network failed, and not everything was in
/// vain.
pub(super) fn is_worth_keeping(storage: &dyn Storage, path: &Path, error: &Error) -> bool {
    error.is_transient() && storage.exists(&Replica::map_path(path)).unwrap_or(false)
}

/// Removes what a first connect that failed has made. The info file goes last, and only when the rest went: while it
/// is there, and says that the replica is not ready, the next connect starts over.
pub(crate) fn remove_files(storage: &dyn Storage, path: &Path) {
    let info = Replica::info_path(path);
    let said_ready = Info::load(storage, path).is_ok_and(|info| info.is_some_and(|info| info.ready));
    let mut files = all_but_info(path);
    // Only making the name of a complete info file durable can have failed: as long as it is there all must stay.
    files.insert(if said_ready { 0 } else { files.len() }, info);
    for file in files {
        if let Err(error) = storage.remove(&file) {
            tracing::warn!(%error, file = %file.display(), "files of a replica that could not be made were left behind");
            return;
        }
    }
}
