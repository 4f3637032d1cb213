//! An open database: one connection with its strand of queries, and a strand for what goes between it and its remote.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use napi::bindgen_prelude::{FnArgs, Function, Unknown};
use napi_derive::napi;
use parking_lot::Mutex;
use partial_sync::{CancelHandle, ChangeId, Connection};

use crate::{
    error::Failure,
    mailbox::{Answer, Mailbox, Outcome, Question, Refused, Reply},
    options::Options,
    pool::{self, Strand},
    statement::{Slot, Statement},
    transform,
};

/// Counters and sizes, by the names that the published package uses, and this project's own.
#[napi(object, object_from_js = false)]
pub struct Counters {
    /// Local changes that were not pushed.
    pub cdc_operations: i64,
    /// Bytes of the WAL.
    pub main_wal_size: i64,
    /// Bytes of the file of a pull under way.
    pub revert_wal_size: i64,
    /// Seconds since 1970.
    pub last_pull_unix_time: Option<i64>,
    /// Seconds since 1970.
    pub last_push_unix_time: Option<i64>,
    /// The base revision.
    pub revision: Option<String>,
    /// Bytes of request bodies.
    pub network_sent_bytes: i64,
    /// Bytes of answer bodies.
    pub network_received_bytes: i64,
    /// HTTP requests.
    pub requests: i64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database.
    pub pages_total: u32,
    /// Pages that are here.
    pub pages_present: u32,
    /// Pages that local transactions wrote.
    pub pages_dirty: u32,
    /// Pages that prefetch added and a query read.
    pub prefetch_hits: i64,
    /// Pages that prefetch added and no query has read.
    pub prefetch_wasted: i64,
}

impl From<partial_sync::Stats> for Counters {
    fn from(stats: partial_sync::Stats) -> Self {
        Self {
            cdc_operations: stats.cdc_operations.cast_signed(),
            main_wal_size: stats.main_wal_size.cast_signed(),
            revert_wal_size: stats.revert_wal_size.cast_signed(),
            last_pull_unix_time: stats.last_pull_unix_time,
            last_push_unix_time: stats.last_push_unix_time,
            revision: stats.revision,
            network_sent_bytes: stats.network_sent_bytes.cast_signed(),
            network_received_bytes: stats.network_received_bytes.cast_signed(),
            requests: stats.requests.cast_signed(),
            page_size: stats.page_size,
            pages_total: stats.pages_total,
            pages_present: stats.pages_present,
            pages_dirty: stats.pages_dirty,
            prefetch_hits: stats.prefetch_hits.cast_signed(),
            prefetch_wasted: stats.prefetch_wasted.cast_signed(),
        }
    }
}

/// SQLite's own 2 MB of pages are few for one connection that does all of a program's work.
const CACHE: &str = "PRAGMA cache_size = -16000";
/// Virtual machine steps that may be spent on what must not wait: well under a millisecond.
pub(crate) const STEPS_HERE: u32 = 20_000;
/// How long closing waits for pages that are still coming in.
const SETTLE: Duration = Duration::from_millis(250);

/// What is open.
#[derive(Clone)]
pub(crate) struct Open {
    database: partial_sync::Database,
    connection: Connection,
}

/// What a database's objects in JavaScript and its jobs on other threads share.
pub(crate) struct Shared {
    mailbox: Arc<Mailbox>,
    queries: Strand,
    sync: Strand,
    open: Mutex<Option<Open>>,
    closed: AtomicBool,
    cancel: CancelHandle,
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

    fn opened(&self) -> Result<Open, Failure> {
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

    /// Runs something short on the strand of queries, whose end nobody waits for.
    pub(crate) fn aside(&self, work: impl FnOnce() + Send + 'static) {
        self.queries.run(work);
    }

    /// Runs a job that uses the connection, for at most `timeout` milliseconds.
    pub(crate) fn query(
        self: &Arc<Self>,
        job: u32,
        timeout: Option<u32>,
        work: impl FnOnce(&Connection) -> Result<Outcome, Failure> + Send + 'static,
    ) {
        let shared = self.clone();
        self.queries.run(move || {
            shared.settle(job, || {
                let open = shared.opened()?;
                let limit =
                    timeout.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms.into())));
                open.connection.set_deadline(limit)?;
                let outcome = work(&open.connection);
                shared.ran(&open.connection);
                open.connection.set_deadline(None)?;
                outcome
            });
        });
    }

    fn settle(&self, job: u32, work: impl FnOnce() -> Result<Outcome, Failure>) {
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Failure::panicked()));
        let mut outcome = outcome.unwrap_or_else(Outcome::failed);
        if let Some(failure) = &mut outcome.error
            && failure.paused
            && let Some(problem) = &*self.mailbox.url_problem.lock()
        {
            failure.message = format!("the url function failed: {problem} ({})", failure.message);
        }
        self.mailbox.settle(job, outcome);
    }

    /// Gives everything back, on the calling thread.
    fn release(&self) {
        self.closed.store(true, Ordering::Release);
        let statements = std::mem::take(&mut *self.statements.lock());
        for slot in statements.values().filter_map(Weak::upgrade) {
            drop(slot.lock().take());
        }
        if let Some(open) = self.open.lock().take() {
            self.in_transaction.store(false, Ordering::Release);
            // Pages that are still coming in are kept when they come soon; they were paid for.
            open.database.settle(SETTLE);
        }
        self.mailbox.close();
    }
}

/// A database.
#[napi(js_name = "Database")]
pub struct NativeDatabase {
    shared: Arc<Shared>,
    options: Mutex<Option<Options>>,
}

#[napi]
impl NativeDatabase {
    /// Opens nothing yet. `settled` learns how jobs end, `asked` is asked for what the application decides.
    #[napi(constructor)]
    pub fn new(
        options: Options,
        settled: Function<'_, FnArgs<(u32, Outcome)>, Unknown<'static>>,
        asked: Function<'_, FnArgs<(u32, Question)>, Unknown<'static>>,
    ) -> napi::Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                mailbox: Mailbox::new(&settled, &asked)?,
                queries: Strand::default(),
                sync: Strand::default(),
                open: Mutex::default(),
                closed: AtomicBool::new(false),
                cancel: CancelHandle::new(),
                statements: Mutex::default(),
                next: AtomicU32::new(0),
                reads: AtomicU64::new(0),
                in_transaction: AtomicBool::new(false),
            }),
            options: Mutex::new(Some(options)),
        })
    }

    /// Opens it. After a failure it may be tried again.
    #[napi]
    pub fn connect(&self, job: u32) {
        let Some(options) = self.options.lock().clone() else {
            return;
        };
        let shared = self.shared.clone();
        self.shared.queries.run(move || {
            shared.settle(job, || {
                let builder = options.builder(&shared.mailbox, shared.cancel.clone());
                let database = builder.connect()?;
                let connection = database.connection()?;
                // It reads the schema, for which a replica may have to wait; then it is left as it is.
                let _ = connection.without_waiting(STEPS_HERE, || connection.execute_batch(CACHE));
                *shared.open.lock() = Some(Open { database, connection });
                Ok(Outcome::default())
            });
        });
    }

    /// Compiles a statement on a worker.
    #[napi]
    pub fn prepare(&self, job: u32, sql: String) {
        let shared = self.shared.clone();
        self.shared.query(job, None, move |connection| {
            let statement = Statement::new(&shared, connection.prepare(&sql)?)?;
            Ok(Outcome {
                statement: Some(statement),
                ..Outcome::default()
            })
        });
    }

    /// Compiles a statement on this thread; `null` when that fails or would wait.
    #[napi]
    pub fn prepare_here(&self, sql: String) -> Option<Statement> {
        let connection = self.shared.connection()?;
        let statement = connection
            .without_waiting(STEPS_HERE, || connection.prepare(&sql))
            .ok()?;
        Statement::new(&self.shared, statement).ok()
    }

    /// Runs a script.
    #[napi]
    pub fn exec(&self, job: u32, sql: String, timeout: Option<u32>) {
        self.shared.query(job, timeout, move |connection| {
            connection.execute_batch(&sql)?;
            Ok(Outcome::default())
        });
    }

    /// Rolls back the transaction that is open, if one is; where that is interrupted, before the next statement.
    #[napi]
    pub fn undo_transaction(&self, job: u32) {
        self.shared.query(job, None, |connection| {
            connection.undo_transaction();
            Ok(Outcome::default())
        });
    }

    fn synchronise(
        &self,
        job: u32,
        work: impl FnOnce(&partial_sync::Database) -> partial_sync::Result<Outcome> + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.shared
            .sync
            .run(move || shared.settle(job, || Ok(work(&shared.opened()?.database)?)));
    }

    /// Brings the remote's changes.
    #[napi]
    pub fn pull(&self, job: u32) {
        self.synchronise(job, |database| {
            Ok(Outcome {
                flag: Some(database.pull()?),
                ..Outcome::default()
            })
        });
    }

    /// Sends local changes.
    #[napi]
    pub fn push(&self, job: u32) {
        self.synchronise(job, |database| database.push().map(|()| Outcome::default()));
    }

    /// Empties the WAL.
    #[napi]
    pub fn checkpoint(&self, job: u32) {
        self.synchronise(job, |database| database.checkpoint().map(|()| Outcome::default()));
    }

    /// Gives up a local change, alone or with those that depend on it.
    #[napi]
    pub fn discard_change(&self, job: u32, change: i64, with_dependents: bool) {
        self.synchronise(job, move |database| {
            let change = ChangeId(change);
            let count = match with_dependents {
                true => database.discard_change_with_dependents(change)?.len(),
                false => usize::from(database.discard_change(change)?),
            };
            Ok(Outcome {
                count: Some(u32::try_from(count).unwrap_or(u32::MAX)),
                ..Outcome::default()
            })
        });
    }

    /// Counters. They do not wait for a query or a pull.
    #[napi]
    pub fn stats(&self, job: u32) {
        let shared = self.shared.clone();
        pool::run(Box::new(move || {
            shared.settle(job, || {
                Ok(Outcome {
                    stats: Some(shared.opened()?.database.stats()?.into()),
                    ..Outcome::default()
                })
            });
        }));
    }

    /// Breaks what runs on the connection now, and ends the reads that are in the middle of their rows, after what runs now.
    /// SQLite takes an interrupt to be for all that begins until everything has ended that had begun before: a read that goes
    /// on later, or never, would break the rest. A read that is begun from now on is left alone.
    #[napi]
    pub fn interrupt(&self) {
        if let Some(connection) = self.shared.connection() {
            connection.interrupt();
        }
        let shared = self.shared.clone();
        let last = shared.reads.load(Ordering::Relaxed);
        self.shared.aside(move || {
            let slots: Vec<_> = shared
                .statements
                .lock()
                .values()
                .filter_map(Weak::upgrade)
                .collect();
            for slot in slots {
                if let Some(compiled) = &mut *slot.lock() {
                    compiled.interrupt(last);
                }
            }
        });
    }

    /// Breaks a pull, a push or a first connect that runs now.
    #[napi]
    pub fn cancel(&self) {
        self.shared.cancel.cancel();
    }

    /// Whether a transaction was open when the last statement had run.
    #[napi(getter)]
    pub fn in_transaction(&self) -> bool {
        self.shared.in_transaction.load(Ordering::Acquire)
    }

    /// Whether SQLite has rolled the transaction back by itself, and nobody has ended it since.
    #[napi(getter)]
    pub fn transaction_is_lost(&self) -> bool {
        self.shared.connection().is_some_and(|c| c.is_transaction_lost())
    }

    /// Closes it, after what was begun before.
    #[napi]
    pub fn close(&self, job: u32) {
        *self.options.lock() = None;
        let shared = self.shared.clone();
        self.shared.sync.run(move || {
            let after = shared.clone();
            shared.queries.run(move || {
                after.settle(job, || {
                    after.release();
                    Ok(Outcome::default())
                });
            });
        });
    }

    /// Answers a question.
    #[napi]
    pub fn answer(&self, id: u32, reply: Reply) -> napi::Result<()> {
        let answer = if let Some(message) = reply.error {
            let last = reply.last.unwrap_or(false);
            Err(Refused { message, last })
        } else if let Some(status) = reply.status {
            let headers = reply.headers.unwrap_or_default();
            let pair = |pair: Vec<String>| <[String; 2]>::try_from(pair).ok().map(|[n, v]| (n, v));
            let status = u16::try_from(status).unwrap_or(0);
            Ok(Answer::Head(
                status,
                headers.into_iter().filter_map(pair).collect(),
            ))
        } else if reply.decision.is_some() {
            Ok(Answer::Decision(transform::decision(reply)?))
        } else {
            Ok(Answer::Text(reply.text))
        };
        self.shared.mailbox.answer(id, answer);
        Ok(())
    }

    /// Answers a `read` with a piece of a body; an empty one ends it.
    #[napi]
    pub fn answer_chunk(&self, id: u32, chunk: &[u8]) {
        let chunk = bytes::Bytes::copy_from_slice(chunk);
        self.shared.mailbox.answer(id, Ok(Answer::Chunk(chunk)));
    }
}

impl Drop for NativeDatabase {
    fn drop(&mut self) {
        if self.shared.closed.load(Ordering::Acquire) {
            return;
        }
        // It was not closed: it was forgotten, or its thread is ending in the middle of something. What still runs is broken
        // off, for nobody is there to learn how it ends, and nobody answers. Closing can write to the disk, which is not work
        // for this thread.
        self.shared.closed.store(true, Ordering::Release);
        self.shared.mailbox.close();
        self.shared.cancel.cancel();
        if let Some(connection) = self.shared.connection() {
            connection.interrupt();
        }
        let shared = self.shared.clone();
        self.shared.queries.run(move || shared.release());
    }
}
