//! Settles what became of a batch that got no answer: a fence on the remote, after which it does not land any more.

use partial_sync_core::ChangeId;

use super::{confirm::take_out, error::unclear, request::execute};
use crate::{
    change::position::{fence, is_fenced, read},
    error::{Error, Result},
    log::Log,
    open::session::Session,
};

/// Sees to it that no batch lands any more that was sent and of which nothing was heard: after a pull, it would speak of
/// rows by keys that they had before. What has landed leaves the log. For the holder of the turn of `lock_sync`, before
/// whatever is `operation`. True when there was something to do.
///
/// A remote at another url may be the same one under another name, so it is settled there too.
pub(crate) fn settle(session: &Session<'_>, operation: &'static str) -> Result<bool> {
    let info = session.info.lock().clone();
    if !info.is_unsettled() {
        return Ok(false);
    }
    let url = session.checked_url()?;
    let answer = execute(session, fence(&info.client_id), operation)?;
    is_fenced(&answer, ChangeId(info.sent)).map_err(|why| {
        let then = match why.to_ascii_lowercase().contains("readonly") {
            true => "try once with a token that may write",
            false => "try again later",
        };
        unclear(format!(
            "a push got no answer, and the remote could not settle what became of it, which has to come before {operation}: {why}; \
             nothing is lost, {then}"
        ))
    })?;
    session.adopt(url)?;
    match read(&answer, 0).map(|position| take_out(session, &Log::new(&session.engine_conn), position)) {
        // Nothing there is this replica's. Whether that is in the way is for the push or pull to say.
        Err(_) | Ok(Err(Error::Position(_))) => {}
        Ok(taken) => taken?,
    }
    session.update_info(|info| {
        info.in_doubt = false;
        info.landed = None;
    })?;
    Ok(true)
}
