//! A prepared statement: run on a worker thread, or, as far as nothing has to be waited for, on JavaScript's.
//!
//! `lib/` lets one operation at a time use a connection, so the locks here are never contended by two of them.

use std::{collections::VecDeque, sync::Arc};

use napi::bindgen_prelude::{BigInt64ArraySlice, Buffer, Uint8Array};
use napi_derive::napi;
use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, codes};
use rusqlite::types::Value;

use crate::{
    codec::{self, Heap, Scratch, Shape, WIDEST},
    database::{STEPS_HERE, Shared},
    error::Failure,
    mailbox::Outcome,
};

/// A batch for another thread ends at about this many bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// The engine's statement; empty when it was closed.
pub(crate) type Slot = Mutex<Option<Compiled>>;

/// A compiled statement, and whether it is in the middle of its rows. SQLite itself would start over after the end, and
/// batches that were asked for ahead of it would run the statement again.
pub(crate) struct Compiled {
    statement: partial_sync::Statement,
    rows: Reading,
    /// The number of the read that was begun last.
    read: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Reading {
    /// There is nothing to read.
    Ended,
    /// It is in the middle of its rows.
    Midway,
    /// An interrupt came in the middle of its rows; anyone who reads on is told.
    Interrupted,
}

impl Compiled {
    fn begin(&mut self, values: Vec<Value>, read: u64) -> partial_sync::Result<()> {
        self.rows = Reading::Ended;
        self.read = read;
        self.statement.reset()?;
        for (i, value) in values.into_iter().enumerate() {
            self.statement.bind(i + 1, value)?;
        }
        self.rows = Reading::Midway;
        Ok(())
    }

    /// The next row, if there is one.
    fn step(&mut self) -> partial_sync::Result<bool> {
        match std::mem::replace(&mut self.rows, Reading::Ended) {
            Reading::Ended => return Ok(false),
            Reading::Midway => {}
            Reading::Interrupted => {
                return Err(sqlite::Error::new(codes::INTERRUPT, "interrupted").into());
            }
        }
        if self.statement.step()? {
            self.rows = Reading::Midway;
        }
        Ok(self.rows == Reading::Midway)
    }

    fn reset(&mut self) {
        self.rows = Reading::Ended;
        // What a statement has written is committed, or has failed, before its first row.
        let _ = self.statement.reset();
    }

    /// Ends it when it is in the middle of the rows of a read up to this number. What a statement has changed is not undone by
    /// that, so the rows that tell of it come.
    pub(crate) fn interrupt(&mut self, last: u64) {
        if self.rows == Reading::Midway && self.read <= last && self.statement.readonly() {
            self.reset();
            self.rows = Reading::Interrupted;
        }
    }
}

/// Rows that a worker has read; `take_batch` gives them.
#[napi(object, object_from_js = false)]
pub struct Batch {
    /// How many words they are.
    pub words: u32,
    /// Whether there are blobs.
    pub bytes: bool,
    /// How many rows.
    pub rows: u32,
    /// Whether there are no more.
    pub done: bool,
    /// Names of the columns, when they are not those of the last time.
    pub columns: Option<Vec<Column>>,
}

/// Rows on their way to JavaScript. Their buffers are used again: memory that JavaScript must free costs it much more.
#[derive(Default)]
struct Batches {
    ready: VecDeque<(Vec<i64>, Heap)>,
    spare: Vec<Vec<i64>>,
}

/// What a statement did.
#[napi(object, object_from_js = false)]
pub struct Ran {
    /// Rows changed.
    pub changes: i64,
    /// Rowid of the last insert on the connection.
    pub last_insert_rowid: i64,
}

/// A column of a statement's rows.
#[napi(object, object_from_js = false)]
#[derive(Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The declared type of the table's column behind it.
    pub decltype: Option<String>,
}

/// A prepared statement.
#[napi]
pub struct Statement {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    id: u32,
    columns: Vec<Column>,
    parameters: Vec<String>,
    readonly: bool,
    seen: Arc<Mutex<i32>>,
    batches: Arc<Mutex<Batches>>,
    /// Blobs of the rows that JavaScript was given last.
    bytes: Mutex<Vec<u8>>,
}

fn columns(statement: &partial_sync::Statement) -> partial_sync::Result<Vec<Column>> {
    (0..statement.column_count())
        .map(|i| {
            Ok(Column {
                name: statement.column_name(i)?,
                decltype: statement.column_decltype(i)?,
            })
        })
        .collect()
}

fn shape(bits: u32) -> Shape {
    Shape {
        bigints: bits & 1 != 0,
        pluck: bits & 2 != 0,
    }
}

fn width(statement: &partial_sync::Statement, shape: Shape) -> usize {
    let columns = statement.column_count();
    if shape.pluck { columns.min(1) } else { columns }
}

/// Whether SQLite compiled the statement again, because the schema had changed: then it may have other columns.
fn recompiled(statement: &partial_sync::Statement, seen: &Mutex<i32>) -> bool {
    let mut seen = seen.lock();
    let now = statement.reprepares();
    std::mem::replace(&mut *seen, now) != now
}

/// Statuses of a read on JavaScript's thread.
mod status {
    pub(super) const DONE: i64 = 0;
    pub(super) const MORE: i64 = 1;
    pub(super) const WOULD_WAIT: i64 = 2;
}
const HAS_BYTES: i64 = 1;
const NEW_COLUMNS: i64 = 2;

impl Statement {
    /// Takes what `prepare` gave.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        statement: partial_sync::Statement,
    ) -> partial_sync::Result<Self> {
        let columns = columns(&statement)?;
        let parameters = (1..=statement.parameter_count())
            .map(|i| statement.parameter_name(i).unwrap_or_default())
            .collect();
        let (readonly, seen) = (statement.readonly(), statement.reprepares());
        let slot = Arc::new(Mutex::new(Some(Compiled {
            statement,
            rows: Reading::Ended,
            read: 0,
        })));
        Ok(Self {
            id: shared.register(&slot),
            shared: shared.clone(),
            slot,
            columns,
            parameters,
            readonly,
            seen: Arc::new(Mutex::new(seen)),
            batches: Arc::default(),
            bytes: Mutex::default(),
        })
    }

    /// Runs work with the statement on the connection's strand.
    fn job(
        &self,
        job: u32,
        timeout: Option<u32>,
        work: impl FnOnce(&mut Compiled) -> partial_sync::Result<Outcome> + Send + 'static,
    ) {
        let slot = self.slot.clone();
        self.shared.query(job, timeout, move |connection| {
            let _held = connection.hold();
            match &mut *slot.lock() {
                Some(compiled) => Ok(work(compiled)?),
                None => Err(Failure::misuse("the statement is closed")),
            }
        });
    }
}

#[napi]
impl Statement {
    /// Columns as they were when it was prepared.
    #[napi]
    pub fn columns(&self) -> Vec<Column> {
        self.columns.clone()
    }

    /// Names of the parameters with their prefix; empty for those without one.
    #[napi]
    pub fn parameters(&self) -> Vec<String> {
        self.parameters.clone()
    }

    /// Whether it changes nothing.
    #[napi(getter)]
    pub fn readonly(&self) -> bool {
        self.readonly
    }

    /// Reads on this thread. `words` has a header of two words (number and form of the values; most rows) and the values
    /// first, and then the answer: a header (the status with the number of rows; flags) and rows. Gives the texts.
    #[napi]
    pub fn read_here(
        &self,
        mut words: BigInt64ArraySlice<'_>,
        texts: Option<Vec<String>>,
        blobs: Option<Vec<Uint8Array>>,
    ) -> napi::Result<String> {
        // SAFETY: JavaScript made this buffer for this call's use alone, and does not run during it.
        let words = unsafe { words.as_mut() };
        let (count, limit) = (words[0] as u32, words[1]);
        let shape = shape((words[0] >> 32) as u32);
        let values = codec::decode(&words[2..], count, texts, blobs)?;
        let guard = self.slot.try_lock();
        let (Some(mut guard), Some(connection)) = (guard, self.shared.connection()) else {
            words[0] = status::WOULD_WAIT;
            return Ok(String::new());
        };
        let Some(compiled) = guard.as_mut() else {
            words[0] = status::WOULD_WAIT;
            return Ok(String::new());
        };
        let mut heap = Heap::default();
        let mut out = Scratch { words, at: 2 };
        let mut rows = 0;
        let read = connection.without_waiting(STEPS_HERE, || {
            let _held = connection.hold();
            compiled.begin(values, self.shared.next_read())?;
            let mut columns = 0;
            loop {
                let is_full = heap.len() > BATCH_BYTES || out.room() < WIDEST * columns;
                if rows == limit || (rows > 0 && is_full) {
                    return Ok((rows, status::MORE));
                }
                if !compiled.step()? {
                    return Ok((rows, status::DONE));
                }
                columns = width(&compiled.statement, shape);
                if out.room() < WIDEST * columns {
                    // Wider than before, because the schema has changed: a worker has room for it.
                    return Ok((0, status::WOULD_WAIT));
                }
                codec::encode_row(&compiled.statement, columns, shape, &mut out, &mut heap)?;
                rows += 1;
            }
        });
        self.shared.ran(&connection);
        match read {
            Ok((rows, mut ended)) => {
                if ended == status::MORE && limit == 1 {
                    ended = status::DONE;
                }
                if ended != status::MORE {
                    compiled.reset();
                }
                let mut flags = 0;
                if !heap.bytes.is_empty() {
                    flags |= HAS_BYTES;
                    *self.bytes.lock() = heap.bytes;
                }
                if recompiled(&compiled.statement, &self.seen) {
                    flags |= NEW_COLUMNS;
                }
                words[0] = ended | rows << 32;
                words[1] = flags;
                Ok(heap.text)
            }
            Err(_) => {
                compiled.reset();
                // A worker tells what really is wrong, together with the rows that come before it.
                words[0] = status::WOULD_WAIT;
                Ok(String::new())
            }
        }
    }

    /// Copies the rows of the batch that was read first and not taken into `words`, and gives their texts.
    #[napi]
    pub fn take_batch(&self, mut words: BigInt64ArraySlice<'_>) -> String {
        // SAFETY: JavaScript made this buffer for this call's use alone, and does not run during it.
        let words = unsafe { words.as_mut() };
        let mut batches = self.batches.lock();
        let Some((mut read, heap)) = batches.ready.pop_front() else {
            return String::new();
        };
        words[..read.len()].copy_from_slice(&read);
        read.clear();
        batches.spare.push(read);
        *self.bytes.lock() = heap.bytes;
        heap.text
    }

    /// The blobs of the rows that were given last.
    #[napi]
    pub fn take_bytes(&self) -> Buffer {
        Buffer::from(std::mem::take(&mut *self.bytes.lock()))
    }

    /// The columns as they are now.
    #[napi]
    pub fn columns_now(&self) -> Vec<Column> {
        let now = self.slot.lock().as_ref().map(|c| columns(&c.statement));
        now.and_then(Result::ok).unwrap_or_default()
    }

    /// Reads the next rows on a worker, at most `limit`; with parameters (`count` not negative) from the beginning.
    #[napi]
    #[allow(clippy::too_many_arguments)]
    pub fn read(
        &self,
        job: u32,
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
        let shape = shape(bits);
        let (seen, batches) = (self.seen.clone(), self.batches.clone());
        let number = self.shared.next_read();
        self.job(job, timeout, move |compiled| {
            let from = values.map(|values| (values, number));
            let read = read_batch(compiled, from, shape, limit, &seen, &batches);
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

    /// Runs it to its end on a worker.
    #[napi]
    pub fn run(
        &self,
        job: u32,
        words: &[i64],
        count: u32,
        timeout: Option<u32>,
        texts: Option<Vec<String>>,
        blobs: Option<Vec<Uint8Array>>,
    ) -> napi::Result<()> {
        let values = codec::decode(words, count, texts, blobs)?;
        let shared = self.shared.clone();
        self.job(job, timeout, move |compiled| {
            let changes = compiled.statement.execute(values);
            compiled.reset();
            let changes = changes?;
            let rowid = shared.connection().map_or(0, |c| c.last_insert_rowid());
            Ok(Outcome {
                ran: Some(Ran {
                    changes: changes.cast_signed(),
                    last_insert_rowid: rowid,
                }),
                ..Outcome::default()
            })
        });
        Ok(())
    }

    /// Ends a read that has not come to its end.
    #[napi]
    pub fn reset(&self) {
        let slot = self.slot.clone();
        self.shared.aside(move || {
            if let Some(compiled) = &mut *slot.lock() {
                compiled.reset();
            }
        });
    }

    /// Gives it back.
    #[napi]
    pub fn close(&self) {
        self.shared.forget(self.id);
        let slot = self.slot.clone();
        // SQLite takes a lock for this that a worker may hold for as long as it waits for a page.
        self.shared.aside(move || drop(slot.lock().take()));
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.close();
    }
}

/// The next rows, and what ended them before the end: rows that came before a failure are told with it.
fn read_batch(
    compiled: &mut Compiled,
    from: Option<(Vec<Value>, u64)>,
    shape: Shape,
    limit: u32,
    seen: &Mutex<i32>,
    batches: &Mutex<Batches>,
) -> partial_sync::Result<(Batch, Option<partial_sync::Error>)> {
    let from_start = from.is_some();
    if let Some((values, number)) = from {
        *batches.lock() = Batches::default();
        compiled.begin(values, number)?;
    }
    let mut words = batches.lock().spare.pop().unwrap_or_default();
    let mut heap = Heap::default();
    let mut rows = 0;
    let mut done = false;
    let mut failure = None;
    while rows < limit && words.len() * 8 + heap.len() < BATCH_BYTES {
        let row = compiled.step().and_then(|is_row| {
            let columns = width(&compiled.statement, shape);
            if is_row && rows == 0 {
                words.reserve((limit as usize).min(4096) * columns * 3 / 2);
            }
            if is_row {
                codec::encode_row(&compiled.statement, columns, shape, &mut words, &mut heap)?;
            }
            Ok(is_row)
        });
        match row {
            Ok(true) => rows += 1,
            Ok(false) => {
                done = true;
                break;
            }
            Err(error) if rows > 0 => {
                failure = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let columns = (from_start && recompiled(&compiled.statement, seen))
        .then(|| columns(&compiled.statement))
        .transpose()?;
    let batch = Batch {
        words: u32::try_from(words.len()).unwrap_or(u32::MAX),
        bytes: !heap.bytes.is_empty(),
        rows,
        done,
        columns,
    };
    let mut batches = batches.lock();
    if done {
        batches.spare.clear();
    }
    if rows > 0 {
        batches.ready.push_back((words, heap));
    }
    Ok((batch, failure))
}
