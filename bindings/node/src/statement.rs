//! A prepared statement, read on JavaScript's thread as far as nothing has to be waited for; `database` runs it on a worker.
//!
//! `lib/` lets one operation at a time use a connection, so the locks here are never contended by two of them.

use std::sync::Arc;

use napi::bindgen_prelude::{BigInt64ArraySlice, Buffer, Uint8Array};
use napi_derive::napi;
use parking_lot::Mutex;
use partial_sync_transport::tokens;

use crate::{
    codec::{self, Heap, Scratch, Shape, WIDEST},
    compiled::{BATCH_BYTES, Batches, Column, Compiled, Slot},
    shared::{STEPS_HERE, Shared},
};

/// What queries begin with.
const QUERIES: [&str; 4] = ["SELECT", "WITH", "VALUES", "EXPLAIN"];

/// Whether there is a statement in SQL text.
#[napi]
pub(crate) fn has_statement(sql: String) -> bool {
    tokens::first(&sql).is_some()
}

/// A prepared statement.
#[napi]
pub struct Statement {
    shared: Arc<Shared>,
    pub(crate) slot: Arc<Slot>,
    id: u32,
    columns: Vec<Column>,
    parameters: Vec<String>,
    readonly: bool,
    is_query: bool,
    pub(crate) batches: Arc<Mutex<Batches>>,
    /// Blobs of the rows that JavaScript was given last.
    bytes: Mutex<Vec<u8>>,
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
        let parameters = (1..=statement.parameter_count())
            .map(|i| statement.parameter_name(i).unwrap_or_default())
            .collect();
        let readonly = statement.readonly();
        let is_query = readonly
            && tokens::first(&statement.sql()).is_some_and(|first| QUERIES.iter().any(|word| first.is(word)));
        let compiled = Compiled::new(statement);
        let columns = compiled.columns()?;
        let slot = Arc::new(Mutex::new(Some(compiled)));
        Ok(Self {
            id: shared.register(&slot),
            shared: shared.clone(),
            slot,
            columns,
            parameters,
            readonly,
            is_query,
            batches: Arc::default(),
            bytes: Mutex::default(),
        })
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

    /// Whether JavaScript's thread may run it. What else changes no rows, a COMMIT or a checkpoint, may wait for the disk.
    #[napi(getter)]
    pub fn is_query(&self) -> bool {
        self.is_query
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
        let shape = Shape::of((words[0] >> 32) as u32);
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
                columns = compiled.width(shape);
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
                if compiled.recompiled() {
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
        let Some(heap) = self.batches.lock().take(words) else {
            return String::new();
        };
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
        let now = self.slot.lock().as_ref().map(Compiled::columns);
        now.and_then(Result::ok).unwrap_or_default()
    }

    /// Ends a read that has not come to its end.
    #[napi]
    pub fn reset(&self) {
        let slot = self.slot.clone();
        self.shared.run(move || {
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
        self.shared.run(move || drop(slot.lock().take()));
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.close();
    }
}
