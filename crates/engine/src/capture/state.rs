//! What the recorder of a connection keeps: the buffer of the hook, the changes that wait, and what is known of the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{Conn, Stmt};

use super::{classify::internal, hook::Buffer, schema::SchemaCache};
use crate::{change::codec::Encoder, error::Result};

/// What a capturing connection shares with the rest of the replica.
#[derive(Clone)]
pub(crate) struct CaptureOptions {
    /// The last change id that is known to have been used, also by changes that have left the log. Anyone who deletes from
    /// the log raises it first.
    pub highest_used_id: Arc<AtomicI64>,
    /// Called before the log is made, in the transaction that will write its first change.
    pub before_log: Arc<dyn Fn() -> Result<()> + Send + Sync>,
    /// Seconds since 1970.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            highest_used_id: Arc::default(),
            before_log: Arc::new(|| Ok(())),
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_secs() as i64)
            }),
        }
    }
}

/// What the recorder shares with the hook and with its connection's SQL functions.
pub(super) struct Shared {
    pub buffer: Arc<Mutex<Buffer>>,
    pub counters: Arc<Counters>,
    pub options: CaptureOptions,
    /// The transaction could not be rolled back; see [`Capture::take_left`](super::Capture::take_left).
    pub is_left: AtomicBool,
}

/// What the recorder of one connection knows.
pub(super) struct RecorderState {
    pub begin: Stmt,
    pub commit: Stmt,
    pub rollback: Stmt,
    pub max_id: Option<Stmt>,
    pub insert: Option<Stmt>,
    /// How often `max_id` had been compiled when `schema` was last emptied.
    pub compiled: i32,
    pub schema: SchemaCache,
    pub temp_triggers: Option<Stmt>,
    /// Changes that wait to be written, as the chunk that they will be.
    pub waiting: Encoder,
    /// When the first of them was made.
    pub waiting_since: i64,
    /// The id that the next change gets; `None` until the write lock is held and the log was looked at.
    pub next_id: Option<i64>,
    /// First change id of the transaction, once it has one.
    pub txn: Option<i64>,
}

impl RecorderState {
    pub(super) fn new(conn: &Conn) -> Result<Self> {
        let prepare = |sql| internal(|| conn.prepare_one(sql));
        Ok(Self {
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            rollback: prepare("ROLLBACK")?,
            max_id: None,
            insert: None,
            compiled: 0,
            schema: SchemaCache::default(),
            temp_triggers: None,
            waiting: Encoder::default(),
            waiting_since: 0,
            next_id: None,
            txn: None,
        })
    }
}

/// Makes `changes()` and `total_changes()` answer as if the log did not exist.
#[derive(Default)]
pub(super) struct Counters {
    /// Rows of the log that `total_changes` has counted.
    pub hidden: AtomicU64,
    /// What `changes` was before something was last written that the user is not to see, and what the two counters were right after.
    pub changes: AtomicU64,
    pub total_after: AtomicU64,
    pub changes_after: AtomicU64,
}

impl Counters {
    pub(super) fn changes(&self, conn: &Conn) -> u64 {
        let (changes, total) = (conn.changes(), conn.total_changes());
        let untouched = total == self.total_after.load(Ordering::Relaxed)
            && changes == self.changes_after.load(Ordering::Relaxed);
        if untouched {
            self.changes.load(Ordering::Relaxed)
        } else {
            changes
        }
    }

    /// `changes` is this until SQLite counts again.
    pub(super) fn keep(&self, conn: &Conn, changes: u64) {
        self.changes.store(changes, Ordering::Relaxed);
        self.total_after.store(conn.total_changes(), Ordering::Relaxed);
        self.changes_after.store(conn.changes(), Ordering::Relaxed);
    }

    /// A statement that stands alone has changed nothing, and `total_changes` is what it was.
    pub(super) fn undone(&self, conn: &Conn, total: u64) {
        self.hidden
            .store(conn.total_changes().saturating_sub(total), Ordering::Relaxed);
        self.keep(conn, 0);
    }

    pub(super) fn total_changes(&self, conn: &Conn) -> u64 {
        conn.total_changes()
            .saturating_sub(self.hidden.load(Ordering::Relaxed))
    }
}
