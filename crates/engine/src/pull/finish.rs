//! The last step of a pull: what has committed is written down, in the page map, then in the info file; then its intent goes.
//! Anyone who pulls, pushes or discards after a pull that could not do it does it first.

use partial_sync_core::PageCount;
use partial_sync_vfs::{Base, NextBase, Stay};
use roaring::RoaringBitmap;

use super::intent;
use crate::{
    error::{Error, Result},
    open::{info::now, session::Session},
};

/// Writes down where a pull that has committed has brought the replica; for the holder of the turn of `lock_sync`. Where that
/// failed (a full disk), the sealed intent says so after a crash, and anyone who pulls, pushes or discards next does it first.
pub(crate) fn finish_earlier(session: &Session<'_>) -> Result<()> {
    let unfinished = *session.unfinished.lock();
    let Some(pull) = unfinished else { return Ok(()) };
    finish(session, &session.replica.base(), pull.cookie, pull.has_log)?;
    *session.unfinished.lock() = None;
    Ok(())
}

/// Can be done again, whatever of it was done.
pub(super) fn finish(session: &Session<'_>, base: &Base, cookie: u32, has_log: bool) -> Result<()> {
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

/// Moves the base of a replica that is being opened to that of a pull whose commit is there.
pub(super) fn move_base_at_open(
    session: &Session<'_>,
    base: &Base,
    stay: Stay,
    committed: RoaringBitmap,
) -> Result<()> {
    // What is dirty on top of the new base is not known exactly: everything that may be, is, and so is what its commit cut off.
    // A dirty page that the pull did not speak of was written after it, and a checkpoint may have left its only copy in the main
    // file.
    let dirty = session.replica.map().dirty();
    let next = NextBase {
        base: base.clone(),
        stay,
        committed: committed | &dirty,
        dirty,
        end: PageCount(u32::MAX),
    };
    session.replica.move_base(&next, || Ok(()))
}
