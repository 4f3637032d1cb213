//! `verify URL FILE`: reads every file of a database in a bucket, and compares its latest state with a database file, page by page.
//!
//! The file is read first, in one read transaction, and only hashes are kept of it: nobody waits for the bucket. Where a server commits
//! meanwhile, the bucket has another state by then, and the file is read again.

use std::{io::Write, path::Path, time::Duration};

use partial_sync_core::PageNo;
use partial_sync_server::history::page_hash;
use partial_sync_store::{Reader, State};
use serde::Serialize;
use serde_json::json;

use crate::{
    bucket,
    error::CliError,
    file_pages,
    units::{LISTED, counted, shown_bytes},
};

/// Pages that are asked for at once.
const AT_A_TIME: usize = 256;
/// How often the file is read again when the bucket has a new state.
const TRIES: usize = 3;

/// A page, and its hash at either side; none where there is no such page.
#[derive(Serialize)]
struct Differing {
    page: u32,
    here: Option<String>,
    bucket: Option<String>,
}

pub(crate) fn run(url: &str, file: &Path, timeout: Duration, json: bool) -> Result<(), CliError> {
    let (verified, state, differing) = bucket::with(url, |reader| async move {
        let verified = reader.verify().await?;
        let mut tries = TRIES;
        loop {
            let mut here = Vec::new();
            file_pages::read(file, timeout, |_, page| {
                here.push(page_hash(page));
                Ok(())
            })?;
            let state = reader.advance().await?;
            let differing = compare(&reader, state, &here).await?;
            if differing.is_empty() || tries == 0 || reader.advance().await? == state {
                return Ok((verified, state, differing));
            }
            tries -= 1;
        }
    })?;
    let mut out = std::io::stdout().lock();
    if json {
        let told = json!({
            "files": verified.files, "bytes": verified.bytes, "pages": verified.pages,
            "latest": state.id.to_string(), "differing": differing
        });
        writeln!(out, "{told}")?;
    } else {
        let (files, bytes) = (counted(verified.files, "file"), shown_bytes(verified.bytes));
        writeln!(out, "read {files}, {bytes}, and all of it is sound")?;
        let pages = counted(state.size.0.into(), "page");
        writeln!(out, "compared {pages} with transaction {}", state.id)?;
        for Differing { page, here, bucket } in differing.iter().take(LISTED) {
            let or_absent = |hash: &Option<String>| hash.clone().unwrap_or_else(|| "absent".to_owned());
            let (here, bucket) = (or_absent(here), or_absent(bucket));
            writeln!(out, "page {page} differs: {here} here, {bucket} in the bucket")?;
        }
        if differing.len() > LISTED {
            writeln!(out, "... and {} more", differing.len() - LISTED)?;
        }
        if differing.is_empty() {
            writeln!(out, "equal")?;
        }
    }
    match differing.is_empty() {
        true => Ok(()),
        false => Err(CliError::FileDiffers),
    }
}

/// The pages of which the file has other hashes than those of the state.
async fn compare(reader: &Reader, state: State, here: &[u64]) -> Result<Vec<Differing>, CliError> {
    let mut differing = Vec::new();
    let mut hashes = here.iter();
    let mut differ = |page: u32, here: Option<u64>, bucket: Option<u64>| {
        let text = |hash: u64| format!("{hash:016x}");
        if here != bucket {
            let (here, bucket) = (here.map(text), bucket.map(text));
            differing.push(Differing { page, here, bucket });
        }
    };
    let all: Vec<PageNo> = state.size.iter().collect();
    for pages in all.chunks(AT_A_TIME) {
        let there = reader.pages(state, pages).await?;
        for (page, bytes) in pages.iter().zip(there) {
            differ(page.get(), hashes.next().copied(), Some(page_hash(&bytes)));
        }
    }
    for (page, hash) in (state.size.0 + 1..).zip(hashes) {
        differ(page, Some(*hash), None);
    }
    Ok(differing)
}
