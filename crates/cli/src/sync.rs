//! `pull`, `push`, `checkpoint` and `stats`.

use std::io::{self, Write};

use partial_sync::{Database, Stats};
use serde::Serialize;

use crate::{
    arguments::OnReplica,
    error::CliError,
    interrupt, replica,
    units::{counted, grouped, shown_bytes},
};

/// What `pull` prints as JSON.
#[derive(Serialize)]
struct Pulled {
    changed: bool,
    #[serde(flatten)]
    stats: Stats,
}

/// What `push` prints as JSON.
#[derive(Serialize)]
struct Pushed {
    pushed: u64,
    #[serde(flatten)]
    stats: Stats,
}

pub(crate) fn pull(on: OnReplica) -> Result<(), CliError> {
    let database = open(&on)?;
    let changed = database.pull()?;
    let stats = database.stats()?;
    let revision = stats.revision.clone().unwrap_or_default();
    let text = match changed {
        true => format!("now at revision {revision} ({})", traffic(&stats)),
        false => format!("nothing new; at revision {revision}"),
    };
    say(&on, &text, &Pulled { changed, stats })
}

pub(crate) fn push(on: OnReplica) -> Result<(), CliError> {
    let database = open(&on)?;
    let before = database.stats()?.cdc_operations;
    database.push()?;
    let stats = database.stats()?;
    let pushed = before.saturating_sub(stats.cdc_operations);
    let text = match pushed {
        0 => "nothing to push".to_owned(),
        n => format!("pushed {} ({})", counted(n, "change"), traffic(&stats)),
    };
    say(&on, &text, &Pushed { pushed, stats })
}

pub(crate) fn checkpoint(on: OnReplica) -> Result<(), CliError> {
    let database = open(&on)?;
    let before = database.stats()?.main_wal_size;
    database.checkpoint()?;
    let stats = database.stats()?;
    let text = format!(
        "the WAL had {} and has {}",
        shown_bytes(before),
        shown_bytes(stats.main_wal_size)
    );
    say(&on, &text, &stats)
}

pub(crate) fn stats(on: OnReplica) -> Result<(), CliError> {
    let database = replica::open(&on)?;
    let stats = database.stats()?;
    let pages = u64::from(stats.pages_total);
    let part = 100.0 * f64::from(stats.pages_present) / f64::from(stats.pages_total.max(1));
    let lines = [
        (
            "pages",
            format!("{} of {}", grouped(pages), shown_bytes(stats.page_size.into())),
        ),
        (
            "present",
            format!("{} ({part:.1} %)", grouped(stats.pages_present.into())),
        ),
        ("dirty", grouped(stats.pages_dirty.into())),
        ("unpushed changes", grouped(stats.cdc_operations)),
        ("WAL", shown_bytes(stats.main_wal_size)),
        ("revision", stats.revision.clone().unwrap_or_default()),
        ("remote", Database::remote_of(&on.replica)?.unwrap_or_default()),
        ("last pull", ago(stats.last_pull_unix_time)),
        ("last push", ago(stats.last_push_unix_time)),
    ];
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{name:18}{value}"))
        .collect();
    say(&on, &lines.join("\n"), &stats)
}

fn open(on: &OnReplica) -> Result<Database, CliError> {
    let database = replica::open(on)?;
    let cancel = database.cancel_handle()?;
    interrupt::on_ctrl_c(move || cancel.cancel());
    Ok(database)
}

fn traffic(stats: &Stats) -> String {
    format!(
        "{}, {} received",
        counted(stats.requests, "request"),
        shown_bytes(stats.network_received_bytes)
    )
}

fn ago(time: Option<i64>) -> String {
    let Some(time) = time else { return "never".into() };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
    match now.saturating_sub(time).max(0) {
        s @ 0..120 => format!("{s} seconds ago"),
        s @ 120..7200 => format!("{} minutes ago", s / 60),
        s @ 7200..172_800 => format!("{} hours ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

fn say(on: &OnReplica, text: &str, outcome: &impl Serialize) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    if on.json {
        serde_json::to_writer(&mut out, outcome).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{text}")?;
    }
    Ok(())
}
