//! What a database can tell about itself.

use std::io::ErrorKind;

use serde::Serialize;

use crate::{
    error::{Error, Result},
    log::Log,
    open::{
        replica::OpenReplica,
        side_files::{STAGED, side_file_path},
    },
};

/// Counters and sizes of a database. A plain local database has zeros.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Local changes that were not pushed.
    pub cdc_operations: u64,
    /// Bytes of the WAL.
    pub main_wal_size: u64,
    /// Bytes of the file of a pull under way.
    pub revert_wal_size: u64,
    /// When the last pull (or the bootstrap) learned how the remote is, also when nothing had changed there; in seconds
    /// since 1970.
    pub last_pull_unix_time: Option<i64>,
    /// When the last push was confirmed, in seconds since 1970.
    pub last_push_unix_time: Option<i64>,
    /// The base revision; `None` while nothing was fetched from the remote.
    pub revision: Option<String>,
    /// Bytes of request bodies since the database was opened.
    pub network_sent_bytes: u64,
    /// Bytes of answer bodies since the database was opened.
    pub network_received_bytes: u64,
    /// HTTP requests since the database was opened.
    pub requests: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database.
    pub pages_total: u32,
    /// Pages that are here.
    pub pages_present: u32,
    /// Pages that local transactions wrote since the base revision.
    pub pages_dirty: u32,
    /// Pages that prefetch added and a query read later.
    pub prefetch_hits: u64,
    /// Pages that prefetch added and no query has read.
    pub prefetch_wasted: u64,
}

pub(crate) fn stats(open: &OpenReplica) -> Result<Stats> {
    let path = open.replica.name();
    let info = open.info.lock().clone();
    let counts = open.replica.counts();
    let transferred = open.remote.transferred();
    let staged = side_file_path(path, STAGED);
    // A pull may remove it at any moment.
    let staged_bytes = || match open.storage.open(&staged, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        file => file?.len(),
    };
    Ok(Stats {
        cdc_operations: match open.may_have_log() {
            true => Log::new(&open.reader).count()?,
            false => 0,
        },
        main_wal_size: open
            .replica
            .wal_bytes()
            .map_err(|e| Error::storage("read the WAL of", path, e))?,
        revert_wal_size: staged_bytes().map_err(|e| Error::storage("read", &staged, e))?,
        last_pull_unix_time: info.last_pull,
        last_push_unix_time: info.last_push,
        revision: Some(info.base_revision).filter(|text| !text.is_empty()),
        network_sent_bytes: transferred.bytes_sent,
        network_received_bytes: transferred.bytes_received,
        requests: transferred.requests,
        page_size: open.replica.page_size().bytes(),
        pages_total: counts.total,
        pages_present: counts.present,
        pages_dirty: counts.dirty,
        prefetch_hits: counts.prefetch_hits,
        prefetch_wasted: counts.prefetch_unused,
    })
}
