//! Rows that were read ahead: copied out of SQLite without the GIL, turned into Python objects with it.

use partial_sync::{Error, Statement};
use rusqlite::types::ValueRef;

#[derive(Clone, Copy)]
enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    /// Where the bytes begin and end.
    Text(usize, usize),
    Blob(usize, usize),
}

/// Rows of one width, in the order they came.
#[derive(Default)]
pub(crate) struct Rows {
    cells: Vec<Cell>,
    bytes: Vec<u8>,
    width: usize,
    /// The row to hand out next.
    next: usize,
}

impl Rows {
    /// Makes it empty, for rows of `width` values.
    pub(crate) fn clear(&mut self, width: usize) {
        self.cells.clear();
        self.bytes.clear();
        self.width = width;
        self.next = 0;
    }

    /// Copies the row that the statement is on.
    pub(crate) fn push(&mut self, statement: &Statement) -> Result<(), Error> {
        for column in 0..self.width {
            let cell = match statement.value(column)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(value) => Cell::Integer(value),
                ValueRef::Real(value) => Cell::Real(value),
                ValueRef::Text(text) => {
                    let (start, end) = self.keep(text);
                    Cell::Text(start, end)
                }
                ValueRef::Blob(blob) => {
                    let (start, end) = self.keep(blob);
                    Cell::Blob(start, end)
                }
            };
            self.cells.push(cell);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> (usize, usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        (start, self.bytes.len())
    }

    /// Bytes of text and blobs held.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Rows that were not handed out.
    pub(crate) fn remaining(&self) -> usize {
        match self.width {
            0 => 0,
            width => self.cells.len() / width - self.next,
        }
    }

    /// A value of the row to hand out next.
    pub(crate) fn value(&self, column: usize) -> ValueRef<'_> {
        match self.cells[self.next * self.width + column] {
            Cell::Null => ValueRef::Null,
            Cell::Integer(value) => ValueRef::Integer(value),
            Cell::Real(value) => ValueRef::Real(value),
            Cell::Text(start, end) => ValueRef::Text(&self.bytes[start..end]),
            Cell::Blob(start, end) => ValueRef::Blob(&self.bytes[start..end]),
        }
    }

    /// The next row has been handed out.
    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }
}
