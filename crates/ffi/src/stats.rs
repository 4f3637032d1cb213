//! Counters and sizes in a plain struct, which may grow: the caller says how much of it it knows.

use std::mem;

use crate::{
    boundary::{handle, misuse},
    call::call,
    database::PartialSyncDatabase,
    error::{PartialSyncCode, PartialSyncError},
};

/// Counters and sizes of a database; zeros for a plain local one. Counters count from the moment it was opened.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PartialSyncStats {
    /// `sizeof(PartialSyncStats)`, set by the caller.
    pub size: usize,
    /// Local changes that were not pushed.
    pub cdc_operations: u64,
    /// Bytes of the write-ahead log.
    pub main_wal_size: u64,
    /// Bytes of the file of a pull under way.
    pub revert_wal_size: u64,
    /// When the last pull brought something (or the bootstrap was), in seconds since 1970; 0 when never.
    pub last_pull_unix_time: i64,
    /// When the last push was confirmed, in seconds since 1970; 0 when never.
    pub last_push_unix_time: i64,
    /// Bytes of request bodies.
    pub network_sent_bytes: u64,
    /// Bytes of answer bodies.
    pub network_received_bytes: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Pages that prefetch added and a query read later.
    pub prefetch_hits: u64,
    /// Pages that prefetch added and no query has read.
    pub prefetch_wasted: u64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database.
    pub pages_total: u32,
    /// Pages that are here.
    pub pages_present: u32,
    /// Pages that local transactions wrote since the last pull.
    pub pages_dirty: u32,
}

/// Fills in `*stats`, whose `size` the caller has set; the text of the revision is `partial_sync_revision`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn partial_sync_stats(
    database: *const PartialSyncDatabase,
    stats: *mut PartialSyncStats,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        if stats.is_null() {
            return misuse("stats is NULL: there is nowhere to put the answer");
        }
        // SAFETY: not null, and every version of the struct begins with the size.
        let size = unsafe { stats.cast::<usize>().read() };
        if size < mem::size_of::<usize>() {
            return misuse(format!(
                "stats.size is {size}: set it to sizeof(PartialSyncStats)"
            ));
        }
        // SAFETY: by the rules of the boundary.
        let now = unsafe { handle(database, "database")? }.enter()?.stats()?;
        let now = PartialSyncStats {
            size,
            cdc_operations: now.cdc_operations,
            main_wal_size: now.main_wal_size,
            revert_wal_size: now.revert_wal_size,
            last_pull_unix_time: now.last_pull_unix_time.unwrap_or(0),
            last_push_unix_time: now.last_push_unix_time.unwrap_or(0),
            network_sent_bytes: now.network_sent_bytes,
            network_received_bytes: now.network_received_bytes,
            requests: now.requests,
            prefetch_hits: now.prefetch_hits,
            prefetch_wasted: now.prefetch_wasted,
            page_size: now.page_size,
            pages_total: now.pages_total,
            pages_present: now.pages_present,
            pages_dirty: now.pages_dirty,
        };
        let known = size.min(mem::size_of::<PartialSyncStats>());
        // SAFETY: the caller's struct has `size` bytes, ours has `known` at least, and they do not overlap; there is no
        // padding: the fields are 8 bytes each, then four of 4.
        unsafe { std::ptr::copy_nonoverlapping((&raw const now).cast::<u8>(), stats.cast(), known) };
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}
