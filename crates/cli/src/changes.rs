//! `changes` and `discard`: the local changes that were not pushed, and giving one up that the remote refuses.

use std::io::{self, Write};

use partial_sync::ChangeId;
use serde::Serialize;

use crate::{
    arguments::{Discard, OnReplica},
    error::CliError,
    replica,
    units::counted,
};

/// Changes that are held in memory at once.
const PAGE: usize = 1000;

#[derive(Serialize)]
struct Listed<'a> {
    id: i64,
    transaction: i64,
    time: i64,
    what: &'a str,
}

#[derive(Serialize)]
struct Discarded {
    discarded: Vec<i64>,
}

pub(crate) fn list(on: &OnReplica) -> Result<(), CliError> {
    let database = replica::open(on)?;
    let mut out = io::stdout().lock();
    let mut after = ChangeId(0);
    loop {
        let changes = database.local_changes(after, PAGE)?;
        let Some(last) = changes.last() else { return Ok(()) };
        after = last.id;
        for change in &changes {
            if on.json {
                let listed = Listed {
                    id: change.id.0,
                    transaction: change.transaction.0,
                    time: change.time,
                    what: &change.what,
                };
                serde_json::to_writer(&mut out, &listed).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                let line = change.what.split_whitespace().collect::<Vec<_>>().join(" ");
                writeln!(out, "{:>8}  {line}", change.id.0)?;
            }
        }
    }
}

pub(crate) fn discard(arguments: Discard) -> Result<(), CliError> {
    let on = OnReplica {
        replica: arguments.replica,
        remote: arguments.remote,
        json: arguments.json,
    };
    let database = replica::open(&on)?;
    let change = ChangeId(arguments.change);
    let discarded = match arguments.with_dependents {
        true => database.discard_change_with_dependents(change)?,
        false => match database.discard_change(change)? {
            true => vec![change],
            false => vec![],
        },
    };
    if discarded.is_empty() {
        return Err(CliError::NoChange(change.0));
    }
    let mut out = io::stdout().lock();
    if on.json {
        let discarded = discarded.iter().map(|id| id.0).collect();
        serde_json::to_writer(&mut out, &Discarded { discarded }).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "gave up {}; the next pull makes the replica what the remote and the other changes say",
            counted(discarded.len() as u64, "change")
        )?;
    }
    Ok(())
}
