//! A database as `lib/` has it: what begins with a job's number runs on a worker, on the strand of queries or on the one for
//! what goes between the database and its remote.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use napi::bindgen_prelude::{FnArgs, Function, Uint8Array, Unknown};
use napi_derive::napi;
use parking_lot::Mutex;
use partial_sync::{CancelHandle, ChangeId, Connection, HydrateProgress};

use crate::{
    codec::{self, Shape},
    compiled::Compiled,
    error::Failure,
    mailbox::Mailbox,
    messages::{Answer, Hydration, Outcome, Question, Ran, Reply},
    options::Options,
    pool::{self, Strand},
    shared::{STEPS_HERE, Shared},
    statement::Statement,
};

/// SQLite's own 2 MB of pages are few for one connection that does all of a program's work.
const CACHE: &str = "PRAGMA cache_size = -16000";
/// How often JavaScript is told how far a hydration is.
const BETWEEN_TELLING: Duration = Duration::from_millis(50);

/// What the database at a path is known by in this process: one file may be spelled in several ways.
#[napi]
pub(crate) fn full_path(path: String) -> String {
    // Where its folder is not there, opening it fails.
    partial_sync::Database::full_path(&path).map_or(path, |full| full.to_string_lossy().into_owned())
}

/// A database.
#[napi(js_name = "Database")]
pub struct NativeDatabase {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    sync: Strand,
    cancel: CancelHandle,
    options: Mutex<Option<Options>>,
}

impl NativeDatabase {
    /// Runs a job that uses the connection, for at most `timeout` milliseconds.
    fn query(
        &self,
        job: u32,
        timeout: Option<u32>,
        work: impl FnOnce(&Connection) -> Result<Outcome, Failure> + Send + 'static,
    ) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared
            .run(move || mailbox.settle(job, || shared.with_connection(timeout, work)));
    }

    /// Runs a job that uses a statement.
    fn with_statement(
        &self,
        job: u32,
        statement: &Statement,
        timeout: Option<u32>,
        work: impl FnOnce(&mut Compiled, &Connection) -> partial_sync::Result<Outcome> + Send + 'static,
    ) {
        let slot = statement.slot.clone();
        self.query(job, timeout, move |connection| {
            let _held = connection.hold();
            match &mut *slot.lock() {
                Some(compiled) => Ok(work(compiled, connection)?),
                None => Err(Failure::misuse("the statement is closed")),
            }
        });
    }

    fn synchronise(
        &self,
        job: u32,
        work: impl FnOnce(&partial_sync::Database) -> partial_sync::Result<Outcome> + Send + 'static,
    ) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.sync
            .run(move || mailbox.settle(job, || Ok(work(&shared.opened()?.database)?)));
    }
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
            shared: Arc::default(),
            mailbox: Mailbox::new(&settled, &asked)?,
            sync: Strand::default(),
            cancel: CancelHandle::new(),
            options: Mutex::new(Some(options)),
        })
    }

    /// Opens it. After a failure it may be tried again.
    #[napi]
    pub fn connect(&self, job: u32) {
        let Some(options) = self.options.lock().clone() else {
            return;
        };
        let (shared, mailbox, cancel) = (self.shared.clone(), self.mailbox.clone(), self.cancel.clone());
        self.shared.run(move || {
            mailbox.settle(job, || {
                let builder = options.builder(&mailbox, cancel);
                let database = builder.connect()?;
                let connection = database.connection()?;
                // It reads the schema, for which a replica may have to wait; then it is left as it is.
                let _ = connection.without_waiting(STEPS_HERE, || connection.execute_batch(CACHE));
                shared.open(database, connection);
                Ok(Outcome::default())
            });
        });
    }

    /// Compiles a statement on a worker.
    #[napi]
    pub fn prepare(&self, job: u32, sql: String) {
        let shared = self.shared.clone();
        self.query(job, None, move |connection| {
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
        self.query(job, timeout, move |connection| {
            connection.execute_batch(&sql)?;
            Ok(Outcome::default())
        });
    }

    /// Rolls back the transaction that is open, if one is; where that is interrupted, before the next statement.
    #[napi]
    pub fn undo_transaction(&self, job: u32) {
        self.query(job, None, |connection| {
            connection.undo_transaction();
            Ok(Outcome::default())
        });
    }

    /// Undoes what came after a savepoint, and ends it; where that is interrupted, before the next statement.
    #[napi]
    pub fn undo_after(&self, job: u32, savepoint: String) {
        self.query(job, None, move |connection| {
            connection.undo_after(&savepoint);
            Ok(Outcome::default())
        });
    }

    /// Reads the next rows of a statement, at most `limit`; with parameters (`count` not negative) from the beginning.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn read(
        &self,
        job: u32,
        statement: &Statement,
        words: &[i64],
        count: i32,
        bits: u32,
        limit: u32,
        timeout: Option<u32>,
        texts: Option<Vec<String>>,
        blobs: Option<Vec<Uint8Array>>,
    ) -> napi::Result<()> {
        let values = match u32::try_from(count) {
            Ok(count) => Some(codec::decode(words, count, texts, blobs)?),
            Err(_) => None,
        };
        let from = values.map(|values| (values, self.shared.next_read()));
        let batches = statement.batches.clone();
        self.with_statement(job, statement, timeout, move |compiled, _| {
            let read = compiled.read_batch(from, Shape::of(bits), limit, &batches);
            if !matches!(read, Ok((_, None))) {
                compiled.reset();
            }
            let (batch, failure) = read?;
            Ok(Outcome {
                batch: Some(batch),
                error: failure.map(Failure::from),
                ..Outcome::default()
            })
        });
        Ok(())
    }

    /// Runs a statement to its end.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &self,
        job: u32,
        statement: &Statement,
        words: &[i64],
        count: u32,
        timeout: Option<u32>,
        texts: Option<Vec<String>>,
        blobs: Option<Vec<Uint8Array>>,
    ) -> napi::Result<()> {
        let values = codec::decode(words, count, texts, blobs)?;
        self.with_statement(job, statement, timeout, move |compiled, connection| {
            let changes = compiled.statement.execute(values);
            compiled.reset();
            Ok(Outcome {
                ran: Some(Ran {
                    changes: changes?.cast_signed(),
                    last_insert_rowid: connection.last_insert_rowid(),
                }),
                ..Outcome::default()
            })
        });
        Ok(())
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

    /// Fetches absent pages: all, or those that a query touches. Tells JavaScript how far it is, under this number, if it has
    /// one.
    #[napi]
    pub fn hydrate(&self, job: u32, query: Option<String>, number: Option<u32>) {
        let mailbox = self.mailbox.clone();
        let mut told = Instant::now();
        let tell = move |at: HydrateProgress| {
            // Every page would be more than JavaScript could take.
            if number.is_none() || (at.fetched != at.total && told.elapsed() < BETWEEN_TELLING) {
                return;
            }
            told = Instant::now();
            mailbox.tell(Question {
                kind: "hydrated".into(),
                about: number,
                progress: Some(Hydration {
                    fetched: at.fetched,
                    other: at.total,
                }),
                ..Question::default()
            });
        };
        self.synchronise(job, move |database| {
            let done = match query {
                None => database.hydrate(tell)?,
                Some(query) => database.hydrate_query(&query, tell)?,
            };
            Ok(Outcome {
                hydrated: Some(Hydration {
                    fetched: done.fetched,
                    other: done.absent,
                }),
                ..Outcome::default()
            })
        });
    }

    /// Counters. They do not wait for a query or a pull.
    #[napi]
    pub fn stats(&self, job: u32) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        pool::run(Box::new(move || {
            mailbox.settle(job, || {
                let stats = shared.opened()?.database.stats()?;
                Ok(Outcome {
                    stats: serde_json::to_string(&stats).ok(),
                    ..Outcome::default()
                })
            });
        }));
    }

    /// Breaks what runs on the connection now, and ends the reads that are in the middle of their rows.
    #[napi]
    pub fn interrupt(&self) {
        self.shared.interrupt();
    }

    /// Breaks a pull, a push or a first connect that runs now.
    #[napi]
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Whether a transaction was open when the last statement had run.
    #[napi(getter)]
    pub fn in_transaction(&self) -> bool {
        self.shared.in_transaction()
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
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.sync.run(move || {
            let after = shared.clone();
            shared.run(move || {
                mailbox.settle(job, || {
                    after.release();
                    mailbox.close();
                    Ok(Outcome::default())
                });
            });
        });
    }

    /// Answers a question.
    #[napi]
    pub fn answer(&self, id: u32, reply: Reply) -> napi::Result<()> {
        self.mailbox.answer(id, reply.answered()?);
        Ok(())
    }

    /// Answers a `read` with a piece of a body; an empty one ends it.
    #[napi]
    pub fn answer_chunk(&self, id: u32, chunk: &[u8]) {
        let chunk = bytes::Bytes::copy_from_slice(chunk);
        self.mailbox.answer(id, Ok(Answer::Chunk(chunk)));
    }
}

impl Drop for NativeDatabase {
    fn drop(&mut self) {
        // Here on JavaScript's thread; jobs may keep the mailbox for longer.
        self.mailbox.release();
        if !self.shared.close() {
            return;
        }
        // It was not closed: it was forgotten, or its thread is ending in the middle of something. What still runs is broken
        // off, for nobody is there to learn how it ends, and nobody answers. Closing can write to the disk, which is not work
        // for this thread.
        self.mailbox.close();
        self.cancel.cancel();
        if let Some(connection) = self.shared.connection() {
            connection.interrupt();
        }
        let shared = self.shared.clone();
        self.shared.run(move || shared.release());
    }
}
