//! Where rows got other keys on the remote: finding free ones, and following them through what is sent.

use std::collections::{BTreeSet, HashSet};

use partial_sync_core::ChangeId;
use partial_sync_transport::hrana::{self, Batch, Step, Stmt, StmtResult};

use super::{
    error::{pull_first, unclear},
    local_keys::{COUNTER, highest, references},
    remote_state::{RemoteState, summary_of},
    request::{OPERATION, execute},
};
use crate::{
    change::{
        Change,
        keys::{self, Keys},
        sql::quoted,
    },
    error::{Error, Result},
    log::Log,
    open::session::Session,
};

/// Keys asked for in one statement.
const ASKED_AT_ONCE: usize = 500;

/// The key that SQLite gave to the row of `change` is another row's on the remote. Finds which of the keys that it gave to
/// new rows of that table are, and others for them. False when none is.
pub(super) fn find_keys(
    session: &Session<'_>,
    log: &Log,
    read: &[Vec<Change>],
    change: ChangeId,
    remote: &mut RemoteState,
) -> Result<bool> {
    let keys = &mut remote.keys;
    let summary = summary_of(log, remote.after)?;
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
        stmt: Stmt::new(COUNTER, vec![hrana::Value::Text { value: table.clone() }]),
    };
    let questions = Batch {
        steps: [max, counter].into_iter().chain(taken).collect(),
        ..Batch::default()
    };
    let mut answer = execute(session, questions, OPERATION)?;
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
        .max(highest(&session.engine_conn, table, key)?)
        .max(rows.iter().map(|(_, _, to)| *to).max().unwrap_or(0));
    if keys.is_empty() {
        keys.refer(references(&session.engine_conn)?);
    }
    let mut found = false;
    for (change, from, _) in rows.into_iter().filter(|(_, _, to)| taken.contains(to)) {
        let free = next.checked_add(1);
        next = free.unwrap_or(next);
        // Where there is no higher key, SQLite takes one at random; so many are free that it is one of them.
        let to = free.unwrap_or_else(|| session.random.lock().i64(1..i64::MAX / 2));
        keys.moved(table, from, change, to);
        found = true;
    }
    Ok(found)
}

/// What a row got as its key there is found in the changes by what tables and columns are called now, and a row whose key
/// was chosen must not take the place of one of this client's own. A put-back goes through the log change by change.
pub(super) fn follow_keys(session: &Session<'_>, read: &[Vec<Change>], keys: &mut Keys) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if read.iter().flatten().any(keys::extends) {
        keys.refer(references(&session.engine_conn)?);
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

fn integer(value: &hrana::Value) -> Option<i64> {
    match value {
        hrana::Value::Integer { value } => Some(*value),
        _ => None,
    }
}
