//! A push: sends the change log to the remote, batch by batch, each a transaction there. What was confirmed is first
//! noted in the info file, then removed from the log, so that a change id is never used twice.

mod confirm;
mod error;
mod keys;
pub(crate) mod local_keys;
mod remote_state;
mod request;
mod settle;

use std::collections::BTreeSet;

use partial_sync_core::ChangeId;
use partial_sync_transport::RemoteErrorKind;

pub(crate) use self::settle::settle;
use self::{
    confirm::confirm,
    error::{may_not_write, unclear},
    keys::{find_keys, follow_keys},
    remote_state::{RemoteState, ask_remote, believe},
    request::{OPERATION, execute},
};
use crate::{
    change::{
        Change, Mode,
        position::{Mark, RemotePosition},
        push::{PushBatch, PushLimits, PushOptions, PushOutcome, build, look, was_made},
    },
    error::{Error, Result},
    log::Log,
    open::{info::Info, session::Session},
    pull::finish::finish_earlier,
};

/// Bytes of the log that are decoded at once, unless one transaction has more.
const READ_AHEAD: usize = 8 << 20;
/// How often a batch is tried when the remote is busy or another request of ours arrived late.
const ATTEMPTS: usize = 5;

/// See [`crate::Database::push`].
pub(crate) fn push(session: &Session<'_>) -> Result<()> {
    let _sync = session.lock_sync(OPERATION)?;
    finish_earlier(session)?;
    let log = Log::new(&session.engine_conn);
    if !session.may_have_log() {
        return Ok(());
    }
    let Some(until) = log.last()? else {
        return Ok(());
    };
    let url = session.checked_url()?;
    // So that what has landed was sent with the mark that is noted here.
    settle(session, OPERATION)?;
    let mut remote = match believe(session, url.as_ref()) {
        Some(remote) => remote,
        None => ask_remote(session, &log, url.as_ref(), false)?,
    };
    let pushed = send(session, &log, until, url.as_ref(), &mut remote);
    if !remote.in_doubt {
        // Where that cannot be noted, the next push or pull settles what is settled.
        let noted = session.update_info_if(Info::is_unsettled, |info| info.in_doubt = false);
        if let Err(error) = noted {
            tracing::debug!(%error, "the end of a push could not be noted");
        }
    }
    pushed
}

/// Sends what is in the log up to change `until`, batch by batch. The last batch takes along what was committed meanwhile; more
/// would keep a push going for as long as somebody writes.
fn send(
    session: &Session<'_>,
    log: &Log,
    until: ChangeId,
    url: Option<&String>,
    remote: &mut RemoteState,
) -> Result<()> {
    let info = session.info.lock().clone();
    let limits = PushLimits {
        statements: session
            .options
            .push_threshold
            .unwrap_or(PushLimits::default().statements),
        ..PushLimits::default()
    };
    let mark = Mark::draw(&mut session.random.lock());
    let mut skip = BTreeSet::new();
    let mut moved = BTreeSet::new();
    // Since a batch landed, or something was found out that the next one needs.
    let mut attempts = 0;
    loop {
        let (mode, read) = read_transactions(log, remote.after.change_id, remote.rows)?;
        follow_keys(session, &read, &mut remote.keys)?;
        let mut rewritten;
        let transactions = if remote.keys.is_empty() {
            &read
        } else {
            rewritten = read.clone();
            for change in rewritten.iter_mut().flatten() {
                remote.keys.rewrite(change);
            }
            &rewritten
        };
        let options = PushOptions {
            client_id: &info.client_id,
            mark,
            pulls: info.pulls as i64,
            after: remote.after,
            limits,
            skip: &skip,
            mode,
            keys: &remote.keys,
            noted: remote.noted,
            transform: session.options.transform.as_deref(),
        };
        let Some(PushBatch { batch, plan }) =
            build(transactions, &options).map_err(|e| Error::Unsendable {
                change: Some(e.change_id),
                message: e.to_string(),
            })?
        else {
            // What an earlier push could not take out of the log is all that is there.
            return remote
                .after
                .change_id
                .map_or(Ok(()), |id| confirm(session, id, None));
        };
        // A change that the remote has must not vanish here in a power failure, and commits need not have been synced:
        // those of this batch are by now, whatever was committed before it was read.
        session
            .replica
            .sync_commits()
            .map_err(|e| Error::storage("sync", session.replica.name(), e))?;
        let newest = log.last()?.map_or(plan.last, |last| last.max(plan.last)).0;
        session.update_info_if(
            |info| !info.in_doubt || info.sent < plan.last.0 || info.mark != Some(mark.get()),
            |info| info.sends(newest, mark),
        )?;
        let in_doubt = std::mem::replace(&mut remote.in_doubt, true);
        let steps = batch.steps.len();
        let sent = execute(session, batch, OPERATION).map_err(|error| {
            remote.in_doubt = in_doubt || !is_refused_unread(&error);
            match plan.transactions {
                1 => if_too_large(error, steps),
                _ => error,
            }
        })?;
        attempts += 1;
        let outcome = plan.outcome(&sent);
        remote.in_doubt = match outcome {
            // It is settled when that is noted.
            PushOutcome::Committed | PushOutcome::Unclear => true,
            _ => in_doubt,
        };
        match outcome {
            PushOutcome::Committed => {
                attempts = 0;
                if plan.notes_keys {
                    remote.noted = Some(plan.last);
                }
                remote.after = RemotePosition {
                    pull_gen: Some(mark.get()),
                    change_id: Some(plan.last),
                };
                confirm(session, plan.last, remote.keys.is_empty().then_some(mark))?;
                remote.in_doubt = false;
                if plan.last >= until {
                    return Ok(());
                }
            }
            PushOutcome::Skip(change) => {
                skip.insert(change);
                attempts = 0;
            }
            PushOutcome::PerhapsMade(refused, made) => {
                if !was_made(&made, &execute(session, look(&made), OPERATION)?) {
                    return Err(Error::PushRefused(refused));
                }
                skip.insert(made.change_id);
                attempts = 0;
            }
            PushOutcome::KeyTaken(change, refused) => {
                let found = find_keys(session, log, &read, change, remote)?;
                if found && moved.insert(change) {
                    attempts = 0;
                } else if attempts >= ATTEMPTS {
                    return Err(Error::PushRefused(refused));
                }
            }
            PushOutcome::Refused(refused) => return Err(Error::PushRefused(refused)),
            outcome if asks_again(&outcome, remote, attempts) => {
                *remote = ask_remote(session, log, url, remote.in_doubt)?;
            }
            outcome if outcome.is_read_only() => return Err(may_not_write()),
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

/// Whether the remote is to be asked how far it is, and the batch to be sent once more.
fn asks_again(outcome: &PushOutcome, remote: &RemoteState, attempts: usize) -> bool {
    let was_wrong = !remote.asked && matches!(outcome, PushOutcome::Failed { .. });
    was_wrong
        || attempts < ATTEMPTS
            && (outcome.is_busy() || matches!(outcome, PushOutcome::Moved | PushOutcome::Unclear))
}

/// Whether a request failed so that nothing of it was run.
fn is_refused_unread(error: &Error) -> bool {
    use RemoteErrorKind::{InvalidUrl, NotFound, Paused, Unauthorized};
    matches!(error, Error::Remote(error) if matches!(error.kind, InvalidUrl | NotFound | Paused | Unauthorized))
}

/// A request that is refused as a whole is most likely too large; a user cannot make it smaller.
fn if_too_large(error: Error, steps: usize) -> Error {
    match error {
        Error::Remote(mut error) if error.kind == RemoteErrorKind::Refused => {
            error.message.push_str(&format!(
                ". The request was one local transaction, which is never split, in {steps} steps: if that is too large for \
                 the remote, raise its limits; until then nothing is lost and everything after it waits"
            ));
            Error::Remote(error)
        }
        other => other,
    }
}

/// The next transactions of the log, each as its changes, and how they are to be run on a remote that takes rows as they
/// came out, or does not. What release 0.1 recorded goes in batches of its own.
fn read_transactions(log: &Log, after: Option<ChangeId>, rows: bool) -> Result<(Mode, Vec<Vec<Change>>)> {
    let after = after.unwrap_or(ChangeId(i64::MIN));
    let mut chunks = log.chunks_after(after)?;
    let mut transactions: Vec<(ChangeId, Vec<Change>)> = vec![];
    let mut mode = None;
    let mut bytes = 0;
    while let Some(chunk) = chunks.next()? {
        let Some(chunk) = chunk.after(after)? else {
            continue;
        };
        let of = if rows { chunk.mode() } else { Mode::Triggers };
        bytes += chunk.body.len();
        match transactions.last_mut() {
            Some((last, changes)) if *last == chunk.txn => changes.extend(chunk.changes()?),
            Some(_) if bytes > READ_AHEAD || mode != Some(of) => break,
            _ => {
                mode = Some(of);
                transactions.push((chunk.txn, chunk.changes()?));
            }
        }
    }
    let transactions = transactions.into_iter().map(|(_, changes)| changes).collect();
    Ok((mode.unwrap_or_default(), transactions))
}
