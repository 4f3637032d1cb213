//! A push: sends the change log to the remote, batch by batch, each a transaction there. What was confirmed is first
//! noted in the info file, then removed from the log, so that a change id is never used twice.

use std::{
    collections::{BTreeSet, HashSet},
    sync::atomic::Ordering,
};

use partial_sync_core::ChangeId;
use partial_sync_transport::{
    RemoteError, RemoteErrorKind,
    hrana::{self, Batch, BatchResult, Step, Stmt, StmtResult},
};

use crate::{
    change::{
        Change, Mode,
        keys::{self, Keys, Summary},
        position::{
            RemotePosition, ask, ask_keys, ask_rows, fence, is_fenced, may_not_write as may_not_write_there,
            read, read_keys, resume_after,
        },
        push::{PushBatch, PushLimits, PushOptions, PushOutcome, build, look, was_made},
        sql::quoted,
    },
    error::{Error, Result},
    info::{Info, now},
    log::Log,
    pull::finish::finish_earlier,
    putback,
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
    finish_earlier(open)?;
    let log = Log::new(&open.keeper);
    let info = open.info.lock().clone();
    if !open.may_have_log() || log.last()?.is_none() {
        return Ok(());
    }
    let url = open.checked_url()?;
    let mut there = ask_remote(open, &log, url.as_ref(), info.is_unsettled())?;
    let pushed = send(open, &log, url.as_ref(), &mut there);
    if pushed.is_err() && !there.in_doubt {
        // Where that cannot be noted, the next pull settles what is settled.
        let noted = open.update_info_if(Info::is_unsettled, |info| info.in_doubt = false);
        if let Err(error) = noted {
            tracing::debug!(%error, "the end of a push could not be noted");
        }
    }
    pushed
}

/// Sends what is in the log, batch by batch.
fn send(open: &Session<'_>, log: &Log, url: Option<&String>, there: &mut There) -> Result<()> {
    let info = open.info.lock().clone();
    let limits = PushLimits {
        statements: open
            .options
            .push_threshold
            .unwrap_or(PushLimits::default().statements),
        ..PushLimits::default()
    };
    let mut skip = BTreeSet::new();
    let mut moved = BTreeSet::new();
    // Since a batch landed, or something was found out that the next one needs.
    let mut attempts = 0;
    loop {
        let (mode, read) = read_transactions(log, there.after.change_id, there.rows)?;
        follow_keys(open, &read, &mut there.keys)?;
        let mut rewritten;
        let transactions = if there.keys.is_empty() {
            &read
        } else {
            rewritten = read.clone();
            for change in rewritten.iter_mut().flatten() {
                there.keys.rewrite(change);
            }
            &rewritten
        };
        let options = PushOptions {
            client_id: &info.client_id,
            pull_gen: info.pulls as i64,
            after: there.after,
            limits,
            skip: &skip,
            mode,
            keys: &there.keys,
            noted: there.noted,
            transform: open.options.transform.as_deref(),
            ask_position: false,
        };
        let Some(PushBatch { batch, plan }) =
            build(transactions, &options).map_err(|e| Error::Unsendable {
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
        let newest = log.last()?.map_or(plan.last, |last| last.max(plan.last)).0;
        open.update_info_if(
            |info| !info.in_doubt || info.sent < plan.last.0,
            |info| info.sends(newest),
        )?;
        let in_doubt = std::mem::replace(&mut there.in_doubt, true);
        let steps = batch.steps.len();
        let sent = execute(open, batch, DOING).map_err(|error| {
            there.in_doubt = in_doubt || !is_refused_unread(&error);
            match plan.transactions {
                1 => if_too_large(error, steps),
                _ => error,
            }
        })?;
        attempts += 1;
        let outcome = plan.outcome(&sent);
        there.in_doubt = match outcome {
            PushOutcome::Committed => false,
            PushOutcome::Unclear => true,
            _ => in_doubt,
        };
        match outcome {
            PushOutcome::Committed => {
                attempts = 0;
                if plan.notes_keys {
                    there.noted = Some(plan.last);
                }
                there.after = RemotePosition {
                    pull_gen: Some(info.pulls as i64),
                    change_id: Some(plan.last),
                };
                confirm(open, plan.last)?;
            }
            PushOutcome::Skip(change) => {
                skip.insert(change);
                attempts = 0;
            }
            PushOutcome::PerhapsMade(refused, made) => {
                if !was_made(&made, &execute(open, look(&made), DOING)?) {
                    return Err(Error::PushRefused(refused));
                }
                skip.insert(made.change_id);
                attempts = 0;
            }
            PushOutcome::KeyTaken(change, refused) => {
                let found = find_keys(open, log, &read, change, there)?;
                if found && moved.insert(change) {
                    attempts = 0;
                } else if attempts >= ATTEMPTS {
                    return Err(Error::PushRefused(refused));
                }
            }
            PushOutcome::Refused(refused) => return Err(Error::PushRefused(refused)),
            outcome
                if attempts < ATTEMPTS
                    && (outcome.is_busy()
                        || matches!(outcome, PushOutcome::Moved | PushOutcome::Unclear)) =>
            {
                *there = ask_remote(open, log, url, there.in_doubt)?;
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

/// Sees to it that no batch lands any more that was sent and of which nothing was heard: after a pull, it would speak of
/// rows by keys that they had before. For the holder of the turn of `lock_sync`. True when there was something to do.
pub(crate) fn settle(open: &Session<'_>) -> Result<bool> {
    let info = open.info.lock().clone();
    if !info.is_unsettled() {
        return Ok(false);
    }
    let answer = execute(open, fence(&info.client_id), "a pull")?;
    is_fenced(&answer, ChangeId(info.sent)).map_err(|why| {
        let then = match why.to_ascii_lowercase().contains("readonly") {
            true => "pull once with a token that may write",
            false => "try again later",
        };
        unclear(format!(
            "a push got no answer, and the remote could not settle what became of it, which has to come before a pull: {why}; \
             nothing is lost, {then}"
        ))
    })?;
    open.update_info(|info| info.in_doubt = false)?;
    Ok(true)
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

fn may_not_write() -> Error {
    Error::Remote(RemoteError::new(
        RemoteErrorKind::Unauthorized,
        "pushing changes: the token may not write, or the remote's database is for reading only; nothing landed and nothing \
         is lost: push with a token that may write",
    ))
}

/// An end of a push that no change is to blame for.
fn unclear(message: String) -> Error {
    Error::Unsendable {
        change: None,
        message,
    }
}

/// What a push has to know of the remote.
struct There {
    /// How far it is.
    after: RemotePosition,
    /// Which rows have other keys there.
    keys: Keys,
    /// Those that changes up to this one made are noted there.
    noted: Option<ChangeId>,
    /// Whether it takes rows as they came out.
    rows: bool,
    /// Whether a batch that was sent may still land.
    in_doubt: bool,
}

/// Asks the remote how far it is, and removes from the log what it has. `in_doubt`: a batch was sent that may still land; if
/// anything landed since, it cannot.
fn ask_remote(open: &Session<'_>, log: &Log, url: Option<&String>, in_doubt: bool) -> Result<There> {
    let (client_id, pulls) = {
        let info = open.info.lock();
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
    let answer = execute(open, batch, DOING)?;
    let position = read(&answer, 0)?;
    let mut keys = read_keys(&answer, 1)?;
    let rows = answer.step_results.get(2).is_some_and(Option::is_some);
    // Before it is held against what was acknowledged, by another remote perhaps.
    open.adopt(url.cloned())?;
    let acknowledged = Some(ChangeId(open.info.lock().acknowledged)).filter(|id| id.0 > 0);
    resume_after(position.change_id, acknowledged, open.newest_sent(log.last()?))?;
    if let Some(id) = position.change_id {
        confirm(open, id)?;
    }
    if may_not_write_there(&answer, 2) {
        return Err(may_not_write());
    }
    if !keys.is_empty() {
        if let Some(change) = summary_of(log, position)?.reshaped() {
            return Err(pull_first(change));
        }
        keys.refer(putback::references(&open.keeper)?);
    }
    Ok(There {
        after: position,
        noted: keys.iter().map(|(_, _, moved)| moved.since).max(),
        keys,
        rows,
        in_doubt: in_doubt && position.change_id <= acknowledged,
    })
}

fn execute(open: &Session<'_>, batch: Batch, doing: &'static str) -> Result<BatchResult> {
    open.wait(doing, async {
        Ok(open.remote.execute(batch, Some(open.options.timeout)).await?)
    })
}

/// Keys asked for in one statement.
const ASKED_AT_ONCE: usize = 500;

/// The key that SQLite gave to the row of `change` is another row's on the remote. Finds which of the keys that it gave to
/// new rows of that table are, and others for them. False when none is.
fn find_keys(
    open: &Session<'_>,
    log: &Log,
    read: &[Vec<Change>],
    change: ChangeId,
    there: &mut There,
) -> Result<bool> {
    let keys = &mut there.keys;
    let summary = summary_of(log, there.after)?;
    if let Some(change) = summary.reshaped() {
        return Err(pull_first(change));
    }
    let all = || read.iter().flatten();
    let Some((table, key, _)) = all().find(|c| c.id == change).and_then(keys::added) else {
        return Ok(false);
    };
    // Change, key in the log, key as it is sent now.
    let mut rows: Vec<(ChangeId, i64, i64)> = Vec::new();
    let mut seen = HashSet::new();
    for change in all() {
        let mut sent = change.clone();
        keys.rewrite(&mut sent);
        if let (Some((of, _, from)), Some((_, _, to))) = (keys::added(change), keys::added(&sent))
            && of.name.eq_ignore_ascii_case(&table.name)
            && seen.insert((from, to))
        {
            rows.push((change.id, from, to));
        }
    }
    let (table, key) = (&table.name, &table.columns[key].name);
    let (name, column) = (quoted(table), quoted(key));
    let max = Step {
        condition: None,
        stmt: Stmt::new(format!("SELECT max({column}) FROM {name}"), vec![]),
    };
    let taken = rows.chunks(ASKED_AT_ONCE).map(|rows| {
        let marks = vec!["?"; rows.len()].join(", ");
        let sql = format!("SELECT {column} FROM {name} WHERE {column} IN ({marks})");
        let args = rows.iter().map(|(_, _, to)| hrana::Value::Integer { value: *to });
        Step {
            condition: None,
            stmt: Stmt::new(sql, args.collect()),
        }
    });
    let counter = Step {
        condition: None,
        stmt: Stmt::new(
            putback::COUNTER,
            vec![hrana::Value::Text { value: table.clone() }],
        ),
    };
    let questions = Batch {
        steps: [max, counter].into_iter().chain(taken).collect(),
        ..Batch::default()
    };
    let mut answer = execute(open, questions, DOING)?;
    // Where nothing is AUTOINCREMENT there is no such table.
    if let Some(error) = answer.step_errors.get_mut(1)
        && error
            .as_ref()
            .is_some_and(|e| e.message.to_ascii_lowercase().contains("no such table"))
    {
        *error = None;
    }
    if let Some(error) = answer.step_errors.iter().flatten().next() {
        return Err(unclear(format!(
            "the remote could not tell which keys of table {table:?} are taken: {}; nothing landed and nothing is \
             lost, push again later",
            error.message
        )));
    }
    let integers = |result: &Option<StmtResult>| -> Vec<i64> {
        let rows = result.iter().flat_map(|result| &result.rows);
        rows.flatten().filter_map(integer).collect()
    };
    let (first, asked) = answer.step_results.split_at(answer.step_results.len().min(2));
    let highest_there = first.iter().flat_map(integers).max().unwrap_or(0);
    let taken: BTreeSet<i64> = asked.iter().flat_map(integers).collect();
    let mut next = highest_there
        .max(summary.highest(table))
        .max(keys.highest(table))
        .max(putback::highest(&open.keeper, table, key)?)
        .max(rows.iter().map(|(_, _, to)| *to).max().unwrap_or(0));
    if keys.is_empty() {
        keys.refer(putback::references(&open.keeper)?);
    }
    let mut found = false;
    for (change, from, _) in rows.into_iter().filter(|(_, _, to)| taken.contains(to)) {
        let free = next.checked_add(1);
        next = free.unwrap_or(next);
        // Where there is no higher key, SQLite takes one at random; so many are free that it is one of them.
        let to = free.unwrap_or_else(|| open.random.lock().i64(1..i64::MAX / 2));
        keys.moved(table, from, change, to);
        found = true;
    }
    Ok(found)
}

/// What a row got as its key there is found in the changes by what tables and columns are called now, and a row whose key
/// was chosen must not take the place of one of this client's own. A put-back goes through the log change by change.
fn follow_keys(open: &Session<'_>, read: &[Vec<Change>], keys: &mut Keys) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if read.iter().flatten().any(keys::extends) {
        keys.refer(putback::references(&open.keeper)?);
    }
    keys.rewind();
    for transaction in read {
        let first = transaction.first().map_or(ChangeId(i64::MIN), |change| change.id);
        for change in transaction {
            keys.follow(change, first).map_err(|stray| Error::Unsendable {
                change: Some(change.id),
                message: format!("change {} cannot be sent: {stray}", change.id),
            })?;
            if keys::reshapes(change) || keys.meets_own(change) {
                return Err(pull_first(change.id));
            }
        }
    }
    Ok(())
}

/// What is not pushed yet says of keys.
fn summary_of(log: &Log, after: RemotePosition) -> Result<Summary> {
    Ok(log.summary_after(after.change_id.unwrap_or(ChangeId(i64::MIN)))?)
}

fn pull_first(change: ChangeId) -> Error {
    Error::Unsendable {
        change: Some(change),
        message: format!(
            "change {change} cannot be sent as it is, because new rows of this replica have other keys on the remote than \
             here; nothing is lost: pull first, then push again"
        ),
    }
}

fn integer(value: &hrana::Value) -> Option<i64> {
    match value {
        hrana::Value::Integer { value } => Some(*value),
        _ => None,
    }
}

/// The remote has every change up to `id`.
fn confirm(open: &Session<'_>, id: ChangeId) -> Result<()> {
    if open.info.lock().acknowledged < id.0 {
        open.update_info(|info| {
            info.acknowledged = id.0;
            info.last_push = Some(now());
        })?;
    }
    open.confirmed.fetch_add(1, Ordering::AcqRel);
    let keeper = &open.keeper;
    let deleted = open.begin_immediate().and_then(|()| {
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
