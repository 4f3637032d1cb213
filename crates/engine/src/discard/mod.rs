//! Giving up local changes: one that the remote refuses, alone or with those that depend on it. And listing them.
//!
//! What a discarded change did is still in the replica's pages. That it must go is noted in the info file before the log
//! forgets the change, so that the next pull builds the remote's state again, whether the remote has news or not, with what
//! is left of the log on top.

mod given_up;
mod names;
mod rows;
mod text;

use std::collections::BTreeSet;

use partial_sync_core::ChangeId;
use partial_sync_vfs::sqlite::Conn;

use self::{given_up::GivenUp, names::Names, text::objects};
use crate::{
    change::{Cause, Change, ChangeKind, StatementKind, refused::what},
    error::Result,
    log::{Log, LogError},
    open::session::Session,
    pull::finish::finish_earlier,
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
    let wanted = units(conn, &log, change, with_dependents)?;
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

/// The change's unit, and with dependents those after it that cannot stay without it: later ones of the same row, rows that
/// refer to it, what could be written only because a row was gone, and for a schema change everything later about what it
/// made or altered. Empty when there is no such change.
fn units(conn: &Conn, log: &Log, change: ChangeId, with_dependents: bool) -> Result<BTreeSet<ChangeId>> {
    let Some(chunk) = log.chunks_after(ChangeId(change.0.saturating_sub(1)))?.next()? else {
        return Ok(BTreeSet::new());
    };
    let (txn, changes) = (chunk.txn, chunk.changes()?);
    let Some(unit) = changes.iter().find(|at| at.id == change).map(Change::unit) else {
        return Ok(BTreeSet::new());
    };
    let mut units = BTreeSet::from([unit]);
    let mut names = match with_dependents {
        true => Names::read(log, ChangeId(unit.0.saturating_sub(1)))?,
        false => Names::default(),
    };
    loop {
        let mut found = BTreeSet::new();
        let mut given_up = GivenUp::default();
        let mut again = false;
        let mut chunks = log.chunks_after(ChangeId(unit.0.saturating_sub(1)))?;
        let mut read = || -> Result<_> {
            let chunk = chunks.next()?;
            Ok(chunk
                .map(|chunk| Ok::<_, LogError>((chunk.txn, chunk.changes()?)))
                .transpose()?)
        };
        let mut next = read()?;
        while let Some((in_txn, changes)) = next.take() {
            // A unit lies in one transaction.
            if !with_dependents && in_txn > txn {
                break;
            }
            next = read()?;
            let goes_on = next
                .as_ref()
                .and_then(|(_, changes)| changes.first())
                .map(Change::unit);
            for (i, at) in changes.iter().enumerate() {
                if found.contains(&at.id) {
                    continue;
                }
                let now = names.today(at);
                let idles = || {
                    with_dependents
                        && given_up.is_idle(&now)
                        && goes_on != Some(at.unit())
                        && fires_nothing(&changes, at.unit())
                };
                if units.contains(&at.unit()) || idles() {
                    if with_dependents {
                        given_up.add(conn, &now)?;
                        given_up.add_objects(at);
                    }
                    found.insert(at.id);
                } else if with_dependents && (given_up.names(at) || given_up.is_needed_by(conn, &now)?) {
                    // What came before it in its unit goes, too, and what that is needed by.
                    units.insert(at.unit());
                    again |= at.unit() < changes[0].id;
                    let from = changes.partition_point(|earlier| earlier.id < at.unit());
                    for earlier in changes[from..=i].iter().filter(|c| c.unit() == at.unit()) {
                        given_up.add(conn, &names.today(earlier))?;
                        given_up.add_objects(earlier);
                        found.insert(earlier.id);
                    }
                } else if with_dependents {
                    given_up.keep(&now);
                    if let ChangeKind::Statement(statement) = &at.kind
                        && statement.kind == StatementKind::DropTable
                    {
                        for table in objects(statement).0 {
                            given_up.dropped(&names.name(at.id, &table));
                        }
                    }
                }
            }
        }
        if !again {
            return Ok(found);
        }
    }
}

/// Whether nothing of a unit is a trigger's: it may be one that followed from any of the other changes.
fn fires_nothing(changes: &[Change], unit: ChangeId) -> bool {
    let from = changes.partition_point(|change| change.id < unit);
    let mut of_unit = changes[from..].iter().filter(|change| change.unit() == unit);
    of_unit.all(|change| {
        let by_trigger = |cause: &Cause| matches!(cause, Cause::Trigger | Cause::Unrepeatable);
        matches!(&change.kind, ChangeKind::Row { cause, .. } if !by_trigger(cause))
    })
}
