//! A push: sends the change log to the remote, batch by batch, each a transaction there. What was confirmed is first
//! noted in the info file, then removed from the log, so that a change id is never used twice.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::Batch;

use crate::{
    change::{
        Change,
        position::{ask, read, resume_after},
        push::{PushBatch, PushLimits, PushOptions, PushOutcome, build, look, was_made},
    },
    error::{Error, Result},
    info::now,
    log::{Chunk, Log},
    session::Session,
};

const DOING: &str = "a push";
/// Bytes of the log that are decoded at once, unless one transaction has more.
const READ_AHEAD: usize = 8 << 20;
/// How often a batch is tried when the remote is busy or another request of ours arrived late.
const ATTEMPTS: usize = 5;

/// See [`crate::Database::push`].
pub(crate) fn push(open: &Session<'_>) -> Result<()> {
    let _sync = open.lock_sync(DOING)?;
    crate::pull::recover(open)?;
    let log = Log::new(&open.keeper);
    let info = open.info.lock().clone();
    if log.last()?.is_none() {
        return Ok(());
    }
    let url = open.checked_url()?;
    let mut after = ask_position(open, &log, url.as_ref())?;
    let limits = PushLimits {
        statements: open
            .options
            .push_threshold
            .unwrap_or(PushLimits::default().statements),
        ..PushLimits::default()
    };
    let mut skip = BTreeSet::new();
    let mut attempts = 0;
    loop {
        let transactions = read_transactions(&log, after)?;
        let options = PushOptions {
            client_id: &info.client_id,
            pull_gen: info.pulls as i64,
            after,
            limits,
            skip: &skip,
            transform: open.options.transform.as_deref(),
            ask_position: false,
        };
        let Some(PushBatch { batch, plan }) =
            build(&transactions, &options).map_err(|e| Error::Unsendable {
                change: Some(e.change_id),
                message: e.to_string(),
            })?
        else {
            return Ok(());
        };
        // A change that the remote has must not vanish here in a power failure, and commits need not have been synced:
        // those of this batch are by now, whatever was committed before it was read.
        open.replica
            .sync_commits()
            .map_err(|e| Error::storage("sync", open.replica.name(), e))?;
        let sent = open.wait(DOING, async {
            Ok(open.remote.execute(batch, Some(open.options.timeout)).await?)
        })?;
        attempts += 1;
        match plan.outcome(&sent) {
            PushOutcome::Committed => {
                attempts = 0;
                after = Some(plan.last);
                confirm(open, plan.last)?;
            }
            PushOutcome::Skip(change) => {
                skip.insert(change);
            }
            PushOutcome::PerhapsMade(refused, made) => {
                let answer = open.wait(DOING, async {
                    Ok(open
                        .remote
                        .execute(look(&made), Some(open.options.timeout))
                        .await?)
                })?;
                if !was_made(&made, &answer) {
                    return Err(Error::PushRefused(refused));
                }
                skip.insert(made.change_id);
            }
            PushOutcome::Refused(refused) => return Err(Error::PushRefused(refused)),
            outcome
                if attempts < ATTEMPTS
                    && (outcome.is_busy()
                        || matches!(outcome, PushOutcome::Moved | PushOutcome::Unclear)) =>
            {
                after = ask_position(open, &log, url.as_ref())?;
            }
            PushOutcome::Failed { what, message, code } => {
                let code = code.map(|c| format!(" [{c}]")).unwrap_or_default();
                return Err(unclear(format!(
                    "the remote did not take the changes: {what} failed with {message}{code}; nothing landed and nothing is lost, push again later"
                )));
            }
            PushOutcome::Moved | PushOutcome::Unclear => {
                return Err(unclear(
                    "the remote's answers do not tell whether the changes landed; nothing is lost, push again later".into(),
                ));
            }
        }
    }
}

/// An end of a push that no change is to blame for.
fn unclear(message: String) -> Error {
    Error::Unsendable {
        change: None,
        message,
    }
}

/// Asks the remote how far it is, and removes from the log what it has.
fn ask_position(open: &Session<'_>, log: &Log, url: Option<&String>) -> Result<Option<ChangeId>> {
    let client_id = open.info.lock().client_id.clone();
    let batch = Batch {
        steps: vec![ask(&client_id, None)],
    };
    let answer = open.wait(DOING, async {
        Ok(open.remote.execute(batch, Some(open.options.timeout)).await?)
    })?;
    let remote = read(&answer, 0)?.map(|p| p.change_id);
    // Before it is held against what was acknowledged, by another remote perhaps.
    open.adopt(url.cloned())?;
    let acknowledged = Some(ChangeId(open.info.lock().acknowledged)).filter(|id| id.0 > 0);
    let after = resume_after(remote, acknowledged, newest_given(open, log.last()?))?;
    if let Some(id) = after {
        confirm(open, id)?;
    }
    Ok(after)
}

/// The highest id that was ever given to a change. Newer ones than those in the log may have left it: discarded ones.
pub(crate) fn newest_given(open: &Session<'_>, in_log: Option<ChangeId>) -> Option<ChangeId> {
    let floor = ChangeId(open.floor.load(Ordering::Acquire));
    in_log.max(Some(floor).filter(|id| id.0 > 0))
}

/// The remote has every change up to `id`.
fn confirm(open: &Session<'_>, id: ChangeId) -> Result<()> {
    if open.info.lock().acknowledged < id.0 {
        open.update_info(|info| {
            info.acknowledged = id.0;
            info.last_push = Some(now());
        })?;
    }
    let keeper = &open.keeper;
    let deleted = begin_immediate(open).and_then(|()| {
        Log::new(keeper).delete_through(id)?;
        Ok(keeper.execute_batch("COMMIT")?)
    });
    if deleted.is_err() && !keeper.is_autocommit() {
        let _ = keeper.execute_batch("ROLLBACK");
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

/// Begins a transaction of the keeper's. An application may have the write lock for long: a cancel ends the wait.
pub(crate) fn begin_immediate(open: &Session<'_>) -> Result<()> {
    let _broken_by_cancel = open.interrupts(&open.keeper);
    Ok(open.keeper.execute_batch("BEGIN IMMEDIATE")?)
}

/// The next transactions of the log, each as its changes.
fn read_transactions(log: &Log, after: Option<ChangeId>) -> Result<Vec<Vec<Change>>> {
    let mut chunks = log.chunks_after(after.unwrap_or(ChangeId(i64::MIN)))?;
    let mut transactions: Vec<(ChangeId, Vec<Change>)> = vec![];
    let mut bytes = 0;
    while let Some(chunk) = chunks.next()? {
        let Chunk { txn, .. } = chunk;
        bytes += chunk.body.len();
        match transactions.last_mut() {
            Some((last, changes)) if *last == txn => changes.extend(chunk.changes()?),
            Some(_) if bytes > READ_AHEAD => break,
            _ => transactions.push((txn, chunk.changes()?)),
        }
    }
    Ok(transactions.into_iter().map(|(_, changes)| changes).collect())
}
