//! What a push knows of the remote and how it asks: how far the remote is, what it confirmed, and whether something may still land
//! there.

use std::sync::atomic::Ordering;

use partial_sync_core::ChangeId;
use partial_sync_transport::{
    RemoteError, RemoteErrorKind,
    hrana::{Batch, BatchResult},
};

use super::local_keys::references;
use crate::{
    change::{
        keys::{Keys, Summary},
        position::{
            RemotePosition, ask, ask_keys, ask_rows, fence, is_fenced, may_not_write as may_not_write_there,
            read, read_keys, resume_after,
        },
    },
    error::{Error, Result},
    log::Log,
    open::{info::now, session::Session},
};

pub(super) const OPERATION: &str = "a push";

/// What a push has to know of the remote.
pub(super) struct There {
    /// How far it is.
    pub(super) after: RemotePosition,
    /// Which rows have other keys there.
    pub(super) keys: Keys,
    /// Those that changes up to this one made are noted there.
    pub(super) noted: Option<ChangeId>,
    /// Whether it takes rows as they came out.
    pub(super) rows: bool,
    /// Whether a batch that was sent may still land.
    pub(super) in_doubt: bool,
}

/// Asks the remote how far it is, and removes from the log what it has. `in_doubt`: a batch was sent that may still land; if
/// anything landed since, it cannot.
pub(super) fn ask_remote(
    session: &Session<'_>,
    log: &Log,
    url: Option<&String>,
    in_doubt: bool,
) -> Result<There> {
    let (client_id, pulls) = {
        let info = session.info.lock();
        (info.client_id.clone(), info.pulls)
    };
    let batch = Batch {
        steps: vec![
            ask(&client_id, None),
            ask_keys(&client_id, pulls as i64),
            ask_rows(),
        ],
        rows: true,
        ..Batch::default()
    };
    let answer = execute(session, batch, OPERATION)?;
    let position = read(&answer, 0)?;
    let mut keys = read_keys(&answer, 1)?;
    let rows = answer.step_results.get(2).is_some_and(Option::is_some);
    // Before it is held against what was acknowledged, by another remote perhaps.
    session.adopt(url.cloned())?;
    let acknowledged = acknowledged(session);
    take_out(session, log, position)?;
    if may_not_write_there(&answer, 2) {
        return Err(may_not_write());
    }
    if !keys.is_empty() {
        if let Some(change) = summary_of(log, position)?.reshaped() {
            return Err(pull_first(change));
        }
        keys.refer(references(&session.engine_conn)?);
    }
    Ok(There {
        after: position,
        noted: keys.iter().map(|(_, _, moved)| moved.since).max(),
        keys,
        rows,
        in_doubt: in_doubt && position.change_id <= acknowledged,
    })
}

pub(super) fn execute(session: &Session<'_>, batch: Batch, operation: &'static str) -> Result<BatchResult> {
    session.wait(operation, async {
        Ok(session
            .remote
            .execute(batch, Some(session.options.timeout))
            .await?)
    })
}

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
    session.update_info(|info| info.in_doubt = false)?;
    Ok(true)
}

/// Removes from the log what the remote has.
fn take_out(session: &Session<'_>, log: &Log, position: RemotePosition) -> Result<()> {
    resume_after(position, acknowledged(session), session.sent(log.last()?))?;
    position.change_id.map_or(Ok(()), |id| confirm(session, id))
}

fn acknowledged(session: &Session<'_>) -> Option<ChangeId> {
    Some(ChangeId(session.info.lock().acknowledged)).filter(|id| id.0 > 0)
}

pub(super) fn may_not_write() -> Error {
    Error::Remote(RemoteError::new(
        RemoteErrorKind::Unauthorized,
        "pushing changes: the token may not write, or the remote's database is for reading only; nothing landed and nothing \
         is lost: push with a token that may write",
    ))
}

/// An end of a push that no change is to blame for.
pub(super) fn unclear(message: String) -> Error {
    Error::Unsendable {
        change: None,
        message,
    }
}

/// What is not pushed yet says of keys.
pub(super) fn summary_of(log: &Log, after: RemotePosition) -> Result<Summary> {
    Ok(log.summary_after(after.change_id.unwrap_or(ChangeId(i64::MIN)))?)
}

pub(super) fn pull_first(change: ChangeId) -> Error {
    Error::Unsendable {
        change: Some(change),
        message: format!(
            "change {change} cannot be sent as it is, because new rows of this replica have other keys on the remote than \
             here; nothing is lost: pull first, then push again"
        ),
    }
}

/// The remote has every change up to `id`.
pub(super) fn confirm(session: &Session<'_>, id: ChangeId) -> Result<()> {
    if session.info.lock().acknowledged < id.0 {
        session.update_info(|info| {
            info.acknowledged = id.0;
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
