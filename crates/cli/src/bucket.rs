//! Databases in a bucket: their states are listed, verified, and fetched to be restored.

use std::{
    fs,
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use partial_sync_store::{Found, ReadOptions, Reader, State, open_existing};
use serde_json::json;

use crate::{
    arguments::BucketLog,
    error::CliError,
    units::{At, counted, shown_bytes},
};

/// The url, if it is one and not the path of a file.
pub(crate) fn url(text: &Path) -> Option<&str> {
    text.to_str().filter(|text| text.contains("://"))
}

/// Does something with buckets.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}

/// Does something with the reader of a bucket.
pub(crate) fn with<T, F: Future<Output = Result<T, CliError>>>(
    url: &str,
    work: impl FnOnce(Reader) -> F,
) -> Result<T, CliError> {
    let bucket = open_existing(url)?;
    wait(async { work(Reader::open(bucket, ReadOptions::default()).await?).await })
}

/// The state that is asked for, or the latest.
pub(crate) async fn state(reader: &Reader, url: &str, at: Option<&At>) -> Result<State, CliError> {
    let no_state = |what| CliError::NoState {
        url: url.to_owned(),
        what,
    };
    match at {
        None => Ok(reader.latest()),
        Some(At::Id(id)) => match reader.state(*id).await? {
            Found::Kept(state) => Ok(state),
            _ => Err(no_state(id.to_string())),
        },
        Some(At::Time(time)) => {
            let state = reader.state_at(*time).await?;
            state.ok_or_else(|| no_state("of that time or before".to_owned()))
        }
    }
}

fn time(state: &State) -> String {
    let since = Duration::from_millis(state.time.max(0).cast_unsigned());
    UNIX_EPOCH.checked_add(since).map_or_else(
        || "?".to_owned(),
        |time| humantime::format_rfc3339_millis(time).to_string(),
    )
}

/// `log`: the states that are kept.
pub(crate) fn log(arguments: &BucketLog) -> Result<(), CliError> {
    let states = with(&arguments.url, |reader| async move {
        let mut states = Vec::new();
        for id in reader.kept().rev().take(arguments.limit) {
            // What was collected meanwhile is left out.
            if let Found::Kept(state) = reader.state(id).await? {
                states.push((state, state.size.bytes(reader.page_size())));
            }
        }
        Ok(states)
    })?;
    let mut out = io::stdout().lock();
    if arguments.json {
        let told = states.iter().map(|(state, bytes)| {
            json!({ "id": state.id.to_string(), "time": time(state), "pages": state.size.0, "bytes": bytes })
        });
        writeln!(out, "{}", serde_json::Value::from_iter(told))?;
    } else {
        for (state, bytes) in states {
            writeln!(out, "{}  {}  {:>10}", state.id, time(&state), shown_bytes(bytes))?;
        }
    }
    Ok(())
}

/// `verify` of a bucket.
pub(crate) fn verify(url: &str, json: bool) -> Result<(), CliError> {
    let (verified, latest) = with(url, |reader| async move {
        Ok((reader.verify().await?, reader.latest()))
    })?;
    let mut out = io::stdout().lock();
    if json {
        let told = json!({
            "files": verified.files, "bytes": verified.bytes, "pages": verified.pages, "latest": latest.id.to_string()
        });
        writeln!(out, "{told}")?;
    } else {
        let files = counted(verified.files, "file");
        let bytes = shown_bytes(verified.bytes);
        writeln!(
            out,
            "read {files}, {bytes}, and all of it is sound, up to transaction {}",
            latest.id
        )?;
    }
    Ok(())
}

/// A state of a bucket as a file, which is removed after it was used.
pub(crate) struct Fetched(PathBuf);

impl Fetched {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes a state beside the file `database`.
pub(crate) fn fetch(url: &str, at: Option<&At>, database: &Path) -> Result<Fetched, CliError> {
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    let to = database.with_file_name(format!(".{name}.{}.fetched", std::process::id()));
    with(url, |reader| async move {
        let state = state(&reader, url, at).await?;
        reader.restore(state, &to).await?;
        Ok(Fetched(to))
    })
}
