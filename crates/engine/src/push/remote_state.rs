//! What a push knows of the remote: how far it is, which rows have other keys there, and whether something may still land.
//!
//! Most pushes know it from the one before, or from never having sent anything, and need no request to ask. That is a belief
//! only: each batch is checked there against the position that it continues from, and one that meets anything unexpected
//! makes the push ask.

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::Batch;

use super::{
    confirm::{acknowledged, take_out},
    error::{may_not_write, pull_first},
    local_keys::references,
    request::{OPERATION, execute},
};
use crate::{
    change::{
        keys::{Keys, Summary},
        position::{
            RemotePosition, ask, ask_keys, ask_rows, may_not_write as may_not_write_there, read, read_keys,
        },
    },
    error::Result,
    log::Log,
    open::session::Session,
};

/// What a push has to know of the remote.
pub(super) struct RemoteState {
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
    /// It has said so in this push.
    pub(super) asked: bool,
}

/// What is known without a request; `None` when that is too little. For a push that has nothing unsettled behind it.
///
/// Only of a remote that has said that it takes changes: of ours, then, which takes rows as they came out, and with a token that may
/// write, since what became of a batch without an answer could be settled with no other. Keys that were noted there are not known
/// here, and after a push that noted some the position counts as unknown.
pub(super) fn believe(session: &Session<'_>, url: Option<&String>) -> Option<RemoteState> {
    let info = session.info.lock();
    let after = match (info.landed, info.sent) {
        (Some(landed), _) => RemotePosition {
            pull_gen: Some(landed),
            change_id: Some(ChangeId(info.acknowledged)),
        },
        (None, 0) => RemotePosition::default(),
        (None, _) => return None,
    };
    let is_known = info.remote_takes_changes && !info.moved && url == Some(&info.remote_url);
    is_known.then(|| RemoteState {
        after,
        keys: Keys::default(),
        noted: None,
        rows: true,
        in_doubt: false,
        asked: false,
    })
}

/// Asks the remote how far it is, and removes from the log what it has. `in_doubt`: a batch was sent that may still land; if
/// anything landed since, it cannot.
pub(super) fn ask_remote(
    session: &Session<'_>,
    log: &Log,
    url: Option<&String>,
    in_doubt: bool,
) -> Result<RemoteState> {
    let (client_id, pulls) = {
        let info = session.info.lock();
        (info.client_id.clone(), info.pulls)
    };
    let batch = Batch {
        steps: vec![ask(&client_id), ask_keys(&client_id, pulls as i64), ask_rows()],
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
    Ok(RemoteState {
        after: position,
        noted: keys.iter().map(|(_, _, moved)| moved.since).max(),
        keys,
        rows,
        in_doubt: in_doubt && position.change_id <= acknowledged,
        asked: true,
    })
}

/// What is not pushed yet says of keys.
pub(super) fn summary_of(log: &Log, after: RemotePosition) -> Result<Summary> {
    Ok(log.summary_after(after.change_id.unwrap_or(ChangeId(i64::MIN)))?)
}
