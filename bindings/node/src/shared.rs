//! An open database as its objects in JavaScript and its jobs on other threads share it: one connection with its statements
//! and its strand of queries.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use partial_sync::Connection;

use crate::{compiled::Slot, error::Failure, pool::Strand};

/// Virtual machine steps that may be spent on what must not wait: well under a millisecond.
pub(crate) const STEPS_HERE: u32 = 20_000;
/// How long closing waits for pages that are still coming in.
const SETTLE: Duration = Duration::from_millis(250);

/// What is open.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) database: partial_sync::Database,
    pub(crate) connection: Connection,
}

/// What a database's objects in JavaScript and its jobs on other threads share.
#[derive(Default)]
pub(crate) struct Shared {
    queries: Strand,
    open: Mutex<Option<Open>>,
    closed: AtomicBool,
    statements: Mutex<HashMap<u32, Weak<Slot>>>,
    next: AtomicU32,
    /// How many reads JavaScript has begun.
    reads: AtomicU64,
    /// Whether a transaction was open when the last statement had run. SQLite itself tells that under a lock which a statement
    /// has for as long as it waits for a page, and JavaScript's thread must not wait for that.
    in_transaction: AtomicBool,
}

impl Shared {
    /// The connection, while it is open.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.open.lock().as_ref().map(|open| open.connection.clone())
    }

    /// Now it is open.
    pub(crate) fn open(&self, database: partial_sync::Database, connection: Connection) {
        *self.open.lock() = Some(Open { database, connection });
    }

    /// What is open; fails where nothing is, or no longer.
    pub(crate) fn opened(&self) -> Result<Open, Failure> {
        let open = self.open.lock().clone();
        open.filter(|_| !self.closed.load(Ordering::Acquire))
            .ok_or_else(|| Failure::misuse("The database connection is not open"))
    }

    /// Keeps track of a statement, so that closing the database closes it.
    pub(crate) fn register(&self, slot: &Arc<Slot>) -> u32 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.statements.lock().insert(id, Arc::downgrade(slot));
        id
    }

    /// Whether a transaction was open when the last statement had run.
    pub(crate) fn in_transaction(&self) -> bool {
        self.in_transaction.load(Ordering::Acquire)
    }

    /// A statement has run on the connection.
    pub(crate) fn ran(&self, connection: &Connection) {
        self.in_transaction
            .store(!connection.is_autocommit(), Ordering::Release);
    }

    /// The number of a read that begins.
    pub(crate) fn next_read(&self) -> u64 {
        self.reads.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The statement is closed.
    pub(crate) fn forget(&self, id: u32) {
        self.statements.lock().remove(&id);
    }

    /// Runs something on the strand of queries.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.queries.run(work);
    }

    /// Uses the connection for at most `timeout` milliseconds.
    pub(crate) fn with_connection<T>(
        &self,
        timeout: Option<u32>,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let open = self.opened()?;
        let limit = timeout.map(|ms| Duration::from_millis(ms.into()));
        open.connection.within(limit, || {
            let result = work(&open.connection);
            self.ran(&open.connection);
            result
        })
    }

    /// Breaks what runs on the connection now, and ends the reads that are in the middle of their rows, after what runs now.
    /// SQLite takes an interrupt to be for all that begins until everything has ended that had begun before: a read that goes
    /// on later, or never, would break the rest. A read that is begun from now on is left alone.
    pub(crate) fn interrupt(self: &Arc<Self>) {
        if let Some(connection) = self.connection() {
            connection.interrupt();
        }
        let shared = self.clone();
        let last = self.reads.load(Ordering::Relaxed);
        self.run(move || {
            let statements = shared.statements.lock();
            let slots: Vec<_> = statements.values().filter_map(Weak::upgrade).collect();
            drop(statements);
            for slot in slots {
                if let Some(compiled) = &mut *slot.lock() {
                    compiled.interrupt(last);
                }
            }
        });
    }

    /// Nothing begins any more. False: that was so before.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Gives everything back, on the calling thread.
    pub(crate) fn release(&self) {
        self.close();
        let statements = std::mem::take(&mut *self.statements.lock());
        for slot in statements.values().filter_map(Weak::upgrade) {
            drop(slot.lock().take());
        }
        if let Some(open) = self.open.lock().take() {
            self.in_transaction.store(false, Ordering::Release);
            // Pages that are still coming in are kept when they come soon; they were paid for.
            open.database.settle(SETTLE);
        }
    }
}
