//! What the remote has is noted in the info file, then leaves the log.

use std::sync::atomic::Ordering;

use partial_sync_core::ChangeId;

use crate::{
    change::position::{Mark, RemotePosition, resume_after},
    error::Result,
    log::Log,
    open::{info::now, session::Session},
};

/// Removes from the log what the remote has.
pub(super) fn take_out(session: &Session<'_>, log: &Log, position: RemotePosition) -> Result<()> {
    resume_after(position, acknowledged(session), session.sent(log.last()?))?;
    position.change_id.map_or(Ok(()), |id| confirm(session, id, None))
}

/// The last change that the remote is known to have.
pub(super) fn acknowledged(session: &Session<'_>) -> Option<ChangeId> {
    Some(ChangeId(session.info.lock().acknowledged)).filter(|id| id.0 > 0)
}

/// The remote has every change up to `id`, and its row says `landed` beside that if it is known to say nothing else.
pub(super) fn confirm(session: &Session<'_>, id: ChangeId, landed: Option<Mark>) -> Result<()> {
    if session.info.lock().acknowledged < id.0 {
        session.update_info(|info| {
            info.acknowledged = id.0;
            info.landed = landed.map(Mark::get);
            info.last_push = Some(now());
        })?;
    }
    session.confirmed.fetch_add(1, Ordering::AcqRel);
    let conn = &session.engine_conn;
    let deleted = session.begin_immediate().and_then(|()| {
        Log::new(conn).delete_through(id)?;
        Ok(conn.execute_batch("COMMIT")?)
    });
    if deleted.is_err() && !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    match deleted {
        // An application's transaction is open. The remote's word is noted; the next push or pull removes the rows.
        Err(error) if error.is_transient() => {
            tracing::debug!(%error, "what was pushed stays in the change log for now");
            Ok(())
        }
        other => other,
    }
}
