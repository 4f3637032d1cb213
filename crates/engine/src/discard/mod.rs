//! Giving up local changes: one that the remote refuses, alone or with those that depend on it. And listing them.
//!
//! What a discarded change did is still in the replica's pages. That it must go is noted in the info file before the log
//! forgets the change, so that the next pull builds the remote's state again, whether the remote has news or not, with what
//! is left of the log on top.

mod dependents;
mod given_up;
mod names;
mod needs;
mod rows;
mod text;

use partial_sync_core::ChangeId;

use self::dependents::changes_to_give_up;
use crate::{
    change::refused::what, error::Result, log::Log, open::session::Session, pull::finish::finish_earlier,
    push::settle,
};

const OPERATION: &str = "discarding a change";

/// A local change that was not pushed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalChange {
    /// Its number: what [`crate::Database::discard_change`] takes, and what the error of a push or pull names.
    pub id: ChangeId,
    /// The number of the first change of its transaction.
    pub transaction: ChangeId,
    /// The number of the first change of those that are given up with it, because one thing did them all: a row that a
    /// statement changed, and what triggers, foreign-key actions and conflict clauses then did.
    pub unit: ChangeId,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// What it did, for people: `insert into "notes" (id = 7)`, or the statement.
    pub what: String,
}

/// See [`crate::Database::local_changes`].
pub(crate) fn list(session: &Session<'_>, after: ChangeId, limit: usize) -> Result<Vec<LocalChange>> {
    let mut found = vec![];
    if !session.may_have_log() {
        return Ok(found);
    }
    // What a push could not take out of the log, because somebody was writing, is pushed.
    let after = after.max(ChangeId(session.info.lock().acknowledged));
    let mut chunks = Log::new(&session.reader).chunks_after(after)?;
    while found.len() < limit
        && let Some(chunk) = chunks.next()?
    {
        let transaction = chunk.txn;
        let wanted = chunk.changes()?.into_iter().filter(|change| change.id > after);
        found.extend(wanted.map(|change| LocalChange {
            id: change.id,
            transaction,
            unit: change.unit(),
            time: change.time,
            what: what(&change),
        }));
    }
    found.truncate(limit);
    Ok(found)
}

/// See [`crate::Database::discard_change`] and [`crate::Database::discard_change_with_dependents`]. The changes that have
/// left the log.
pub(crate) fn discard(
    session: &Session<'_>,
    change: ChangeId,
    with_dependents: bool,
) -> Result<Vec<ChangeId>> {
    let _sync = session.lock_sync(OPERATION)?;
    finish_earlier(session)?;
    if !session.may_have_log() {
        return Ok(vec![]);
    }
    // What the remote has, or may have before long, is not given up.
    settle(session, OPERATION)?;
    let conn = &session.engine_conn;
    session.begin_immediate()?;
    let done = in_transaction(session, change, with_dependents);
    if done.is_err() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    done
}

fn in_transaction(session: &Session<'_>, change: ChangeId, with_dependents: bool) -> Result<Vec<ChangeId>> {
    let conn = &session.engine_conn;
    let log = Log::new(conn);
    log.delete_through(ChangeId(session.info.lock().acknowledged))?;
    let wanted = changes_to_give_up(conn, &log, change, with_dependents)?;
    let gone: Vec<ChangeId> = log.discard(&wanted)?.into_iter().map(|c| c.id).collect();
    if !gone.is_empty() {
        let newest = log.last()?.max(gone.last().copied());
        session.update_info(|info| {
            // So that its number is not given again when it was the newest one.
            info.highest_used_id = info.highest_used_id.max(newest.map_or(0, |id| id.0));
            info.rebuild = true;
        })?;
    }
    conn.execute_batch("COMMIT")?;
    Ok(gone)
}
