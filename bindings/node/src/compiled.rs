//! A compiled statement and the rows that are read of it.

use std::collections::VecDeque;

use napi_derive::napi;
use parking_lot::Mutex;
use partial_sync_vfs::sqlite::{self, codes};
use rusqlite::types::Value;

use crate::codec::{self, Heap, Shape};

/// A batch for another thread ends at about this many bytes.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// The engine's statement; empty when it was closed.
pub(crate) type Slot = Mutex<Option<Compiled>>;

/// A compiled statement, and whether it is in the middle of its rows. SQLite itself would start over after the end, and
/// batches that were asked for ahead of it would run the statement again.
pub(crate) struct Compiled {
    pub(crate) statement: partial_sync::Statement,
    rows: Reading,
    /// The number of the read that was begun last.
    read: u64,
    /// How often SQLite had compiled it when its columns were told last.
    seen: i32,
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
    pub(crate) fn new(statement: partial_sync::Statement) -> Self {
        Self {
            seen: statement.reprepares(),
            statement,
            rows: Reading::Ended,
            read: 0,
        }
    }

    /// Begins read number `read` with these values.
    pub(crate) fn begin(&mut self, values: Vec<Value>, read: u64) -> partial_sync::Result<()> {
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
    pub(crate) fn step(&mut self) -> partial_sync::Result<bool> {
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

    pub(crate) fn reset(&mut self) {
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

    /// The columns as they are now.
    pub(crate) fn columns(&self) -> partial_sync::Result<Vec<Column>> {
        (0..self.statement.column_count())
            .map(|i| {
                Ok(Column {
                    name: self.statement.column_name(i)?,
                    decltype: self.statement.column_decltype(i)?,
                })
            })
            .collect()
    }

    /// How many values of a row are wanted.
    pub(crate) fn width(&self, shape: Shape) -> usize {
        let columns = self.statement.column_count();
        if shape.pluck { columns.min(1) } else { columns }
    }

    /// Whether SQLite compiled the statement again, because the schema had changed: then it may have other columns.
    pub(crate) fn recompiled(&mut self) -> bool {
        let now = self.statement.reprepares();
        std::mem::replace(&mut self.seen, now) != now
    }

    /// The next rows, and what ended them before the end: rows that came before a failure are told with it.
    pub(crate) fn read_batch(
        &mut self,
        from: Option<(Vec<Value>, u64)>,
        shape: Shape,
        limit: u32,
        batches: &Mutex<Batches>,
    ) -> partial_sync::Result<(Batch, Option<partial_sync::Error>)> {
        let from_start = from.is_some();
        if let Some((values, number)) = from {
            *batches.lock() = Batches::default();
            self.begin(values, number)?;
        }
        let mut words = batches.lock().spare.pop().unwrap_or_default();
        let mut heap = Heap::default();
        let mut rows = 0;
        let mut done = false;
        let mut failure = None;
        while rows < limit && words.len() * 8 + heap.len() < BATCH_BYTES {
            let row = self.step().and_then(|is_row| {
                let columns = self.width(shape);
                if is_row && rows == 0 {
                    words.reserve((limit as usize).min(4096) * columns * 3 / 2);
                }
                if is_row {
                    codec::encode_row(&self.statement, columns, shape, &mut words, &mut heap)?;
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
        let columns = (from_start && self.recompiled())
            .then(|| self.columns())
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
pub(crate) struct Batches {
    ready: VecDeque<(Vec<i64>, Heap)>,
    spare: Vec<Vec<i64>>,
}

impl Batches {
    /// Copies the rows of the batch that was read first and not taken into `words`, and gives the rest of them.
    pub(crate) fn take(&mut self, words: &mut [i64]) -> Option<Heap> {
        let (mut read, heap) = self.ready.pop_front()?;
        words[..read.len()].copy_from_slice(&read);
        read.clear();
        self.spare.push(read);
        Some(heap)
    }
}
