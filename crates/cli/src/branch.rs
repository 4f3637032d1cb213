//! `branch`, `branches` and `detach`: databases in a bucket that begin with a state of another one.

use std::io::{self, Write};

use partial_sync_store::Standing;
use serde_json::json;

use crate::{
    arguments::{Branch, Branches, Detach},
    bucket,
    error::CliError,
    units::counted,
};

/// `branch`.
pub(crate) fn branch(arguments: &Branch) -> Result<(), CliError> {
    let (url, to) = (
        &arguments.url,
        partial_sync_store::open(&arguments.new_url, partial_sync_store::environment())?,
    );
    let branched = bucket::with(url, |reader| async move {
        let at = arguments.at.as_ref();
        let state = bucket::state(&reader, url, at).await?;
        Ok(reader.branch(state, at.is_none(), &to).await?)
    })?;
    let mut out = io::stdout().lock();
    let id = branched.id.to_string();
    if arguments.json {
        let told = json!({ "id": id, "lineage": branched.lineage, "was_there": branched.was_there });
        writeln!(out, "{told}")?;
    } else {
        let what = match branched.was_there {
            true => "is a branch already",
            false => "is a branch now",
        };
        writeln!(
            out,
            "{} {what}, from transaction {id} on; `partial-sync serve FILE --replicate {} --take-over` writes to it",
            arguments.new_url, arguments.new_url
        )?;
    }
    Ok(())
}

/// `branches`.
pub(crate) fn list(arguments: &Branches) -> Result<(), CliError> {
    let database = partial_sync_store::open_existing(&arguments.url)?;
    let (pruned, branches) = bucket::wait(async {
        let pruned = match arguments.prune {
            true => database.prune().await?,
            false => 0,
        };
        Ok((pruned, database.branches().await?))
    })?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let told = branches.iter().map(|branch| {
            let id = branch.id.map(|id| id.to_string());
            json!({ "url": branch.url, "id": id, "standing": word(&branch.standing) })
        });
        let told: serde_json::Value = told.collect();
        writeln!(out, "{}", json!({ "branches": told, "pruned": pruned }))?;
        return Ok(());
    }
    for branch in branches {
        let id = branch.id.map_or_else(String::new, |id| id.to_string());
        let why = match &branch.standing {
            Standing::Reads => String::new(),
            Standing::Begun => "  not made yet: if nobody is at it, run `branch` again".to_owned(),
            Standing::Gone => {
                "  gone, or needs no file any more: `branches --prune` keeps none for it".to_owned()
            }
            Standing::Unknown(error) => format!("  cannot be read: {error}"),
        };
        writeln!(out, "{id}  {}{why}", branch.url)?;
    }
    if arguments.prune {
        writeln!(out, "removed {}", counted(pruned as u64, "pin"))?;
    }
    Ok(())
}

fn word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Reads => "reads",
        Standing::Begun => "begun",
        Standing::Gone => "gone",
        Standing::Unknown(_) => "unknown",
    }
}

/// `detach`.
pub(crate) fn detach(arguments: &Detach) -> Result<(), CliError> {
    let database = partial_sync_store::open_existing(&arguments.url)?;
    let detached = bucket::wait(async { Ok(database.detach().await?) })?;
    let mut out = io::stdout().lock();
    match (arguments.json, detached) {
        (true, detached) => writeln!(out, "{}", json!({ "detached": detached }))?,
        (false, true) => writeln!(out, "{} needs no other database any more", arguments.url)?,
        (false, false) => writeln!(out, "{} needs no other database: nothing was done", arguments.url)?,
    }
    Ok(())
}
