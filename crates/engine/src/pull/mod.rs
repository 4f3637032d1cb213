//! A pull: the remote's changes in, with local changes that were not pushed on top. The next state is built aside, kept,
//! and committed once; whatever happens before the commit, the pull has not happened, and once it is there, it has.
//!
//! Where it is not known whether a push has landed, it must not land after the pull, which may give its rows other keys:
//! that is settled first ([`push::settle`]).
//!
//! 1. *Ask* ([`ask`]) what changed since the base revision, of the pages that are here. No lock is held.
//! 2. *Build* ([`next`], [`preview`]) the new state with the unpushed changes put back, in temporary files. The network,
//!    the length of the log and changes that cannot be put back are this step's matter; readers and writers go on.
//! 3. *Catch up* with what was committed locally meanwhile, until nothing is left.
//! 4. *Commit* ([`commit`]) in one SQLite transaction, after a small [`intent`] was sealed; move the base in the instant in
//!    which the commit becomes visible.
//! 5. Save the page map, then the info file with the new base, then remove the intent.
//!
//! After a crash, opening needs no network and runs nothing again ([`recover`]).

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use partial_sync_core::PageCount;
use partial_sync_vfs::{Base, NextBase, Replica};
use roaring::RoaringBitmap;

use crate::{
    error::{Error, Result},
    info::{beside, now},
    push,
    session::Session,
};

pub(crate) mod ask;
mod commit;
mod first;
pub(crate) mod intent;
mod legacy;
mod next;
mod preview;
mod staged;

const DOING: &str = "a pull";
/// The pages that a pull brought.
pub(crate) const STAGED: &str = "-staged";
/// The database on which it puts local changes back.
const PREVIEW: &str = "-preview";

/// See [`crate::Database::pull`].
pub(crate) fn pull(session: &Session<'_>, long_poll: Option<Duration>) -> Result<bool> {
    let _pulling = session.lock_pulls(DOING)?;
    if session.unfinished.lock().is_some() {
        let _sync = session.lock_sync(DOING)?;
        finish_earlier(session)?;
    }
    let url = session.checked_url()?;
    if session.info.lock().is_unsettled() && !session.info.lock().is_elsewhere(url.as_deref()) {
        let _sync = session.lock_sync(DOING)?;
        push::settle(session)?;
    }
    let confirmed = || session.confirmed.load(Ordering::Acquire);
    let confirmed_before = confirmed();
    let asked = match ask::ask(session, long_poll, url.as_deref()) {
        Err(Error::Remote(error)) if session.move_away(&error)? => ask::ask(session, None, url.as_deref())?,
        asked => asked?,
    };
    session.adopt(url.clone())?;
    let _sync = session.lock_sync(DOING)?;
    let asked = match asked {
        // The answer does not have what a push took out of the log meanwhile, nor what one may have brought without knowing,
        // nor says whether pages that were fetched during a long poll have changed.
        asked
            if push::settle(session)?
                || (asked.is_some() && confirmed() != confirmed_before)
                || (long_poll.is_some() && asked.as_ref().is_some_and(|asked| asked.is_late(session))) =>
        {
            drop(asked);
            ask::ask(session, None, url.as_deref())?
        }
        asked => asked,
    };
    let Some(asked) = asked else {
        // It says how fresh the replica is, not when something was new.
        session.update_info(|info| info.last_pull = Some(now()))?;
        return Ok(false);
    };
    let mut next = next::Next::of(session, asked)?;
    commit::commit(session, &mut next)?;
    drop(next);
    finish_earlier(session)?;
    Ok(true)
}

/// A pull that has committed and is not in the files yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Schema cookie of its commit.
    pub cookie: u32,
    /// Whether local changes were put back.
    pub has_log: bool,
}

/// Writes down where a pull that has committed has brought the replica; for the holder of the turn of `lock_sync`. Where that
/// failed (a full disk), the sealed intent says so after a crash, and whoever pulls, pushes or discards next does it first.
pub(crate) fn finish_earlier(session: &Session<'_>) -> Result<()> {
    let unfinished = *session.unfinished.lock();
    let Some(pull) = unfinished else { return Ok(()) };
    finish(session, &session.replica.base(), pull.cookie, pull.has_log)?;
    *session.unfinished.lock() = None;
    Ok(())
}

/// Can be done again, whatever of it was done.
fn finish(session: &Session<'_>, base: &Base, cookie: u32, has_log: bool) -> Result<()> {
    let failed = |e| Error::storage("save the page map of", session.replica.name(), e);
    // The mark first: a frame written after it is not under it, one written before is in the map.
    let mark = session.replica.wal_mark().map_err(failed)?;
    session.replica.save_map().map_err(failed)?;
    session.update_info(|info| {
        info.base_revision = base.revision.as_str().to_owned();
        info.base_size = base.size.0;
        info.moved = false;
        info.rebuild = false;
        info.pulls += u64::from(info.pulled != Some(cookie));
        info.wal_mark = mark.map(Into::into);
        info.last_pull = Some(now());
        info.has_log = has_log || session.log_began();
        info.pulled = Some(cookie);
    })?;
    intent::remove(session)
}

/// Sees to what a pull left that was cut off. For a replica that is being opened; needs no network.
pub(crate) fn recover(session: &Session<'_>) -> Result<()> {
    let path = session.replica.name();
    for file in temporary_files(path) {
        session
            .storage
            .remove(&file)
            .map_err(|e| Error::storage("remove", &file, e))?;
    }
    let sealed = intent::path(session);
    let Some(intent) = intent::Intent::load(session)? else {
        return match session.storage.exists(&sealed) {
            Ok(true) => legacy::finish_pull(session, &sealed),
            Ok(false) => Ok(()),
            Err(error) => Err(Error::storage("look for", &sealed, error)),
        };
    };
    let cookie = commit::integer(&session.keeper, "PRAGMA schema_version")? as u32;
    let noted = session.info.lock().pulled;
    if !intent.is_committed(cookie) || noted == Some(intent.cookie) {
        return intent::remove(session);
    }
    move_base_at_open(session, &intent.base, intent.keep)?;
    let began_since = session.info.lock().log_since == Some(intent.cookie);
    finish(
        session,
        &intent.base,
        intent.cookie,
        intent.has_log || began_since,
    )
}

/// Moves the base of a replica that is being opened to that of a pull whose commit is there.
fn move_base_at_open(session: &Session<'_>, base: &Base, keep: RoaringBitmap) -> Result<()> {
    // What is dirty on top of the new base is not known exactly: everything that may be, is. A dirty page that the pull did
    // not speak of was written after it, and a checkpoint may have left its only copy in the main file.
    let dirty = session.replica.map().dirty();
    let next = NextBase {
        base: base.clone(),
        keep: keep | &dirty,
        dirty,
        end: PageCount::ZERO,
    };
    session.replica.move_base(&next, || Ok(()))
}

/// The files of the database on which local changes are put back.
fn preview_files(path: &Path) -> Vec<PathBuf> {
    let preview = beside(path, PREVIEW);
    vec![Replica::wal_path(&preview), preview]
}

/// What a pull that was cut off may have left, besides its intent. All of it can go.
pub(crate) fn temporary_files(path: &Path) -> Vec<PathBuf> {
    let mut files = preview_files(path);
    files.push(beside(path, STAGED));
    files
}
