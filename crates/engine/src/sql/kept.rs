//! The rows of a statement that writes, kept from the moment it has ended until they are read.

use std::io;

use partial_sync_vfs::sqlite::{self, Step, Stmt};

use super::records::Records;
use crate::{
    change::{Value, row_bytes},
    error::{Error, Result},
};

/// Rows in the order in which they came.
#[derive(Default)]
pub(crate) struct Kept {
    /// The row to look at.
    current: Vec<Value>,
    rows: Records,
}

impl Kept {
    /// Runs a statement to its end and keeps its rows. SQLite makes every change before it gives the first row, and outside
    /// of a transaction commits them after the last.
    pub(crate) fn drain(stmt: &mut Stmt) -> Result<Self> {
        let mut kept = Self::default();
        while stmt.step()? == Step::Row {
            let columns = stmt.column_count();
            let row = |bytes: &mut Vec<u8>| -> sqlite::Result<()> {
                row_bytes::add_image(bytes, columns, |column| stmt.value(column)).map(drop)
            };
            kept.rows.push(row)?;
        }
        stmt.reset()?;
        Ok(kept)
    }

    /// Goes to the next row; false at the end.
    pub(crate) fn next(&mut self) -> Result<bool> {
        let failed = |error| Error::storage("read rows back from", &std::env::temp_dir(), error);
        let Some(row) = self.rows.next().map_err(failed)? else {
            return Ok(false);
        };
        self.current = postcard::from_bytes(row)
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        Ok(true)
    }

    /// A value of the row to look at.
    pub(crate) fn value(&self, column: usize) -> Option<&Value> {
        self.current.get(column)
    }
}
