//! The rows of a statement that writes, kept from the moment it has ended until they are read.
//!
//! Up to [`MEMORY`] bytes stay in memory; what comes after them goes to a temporary file. Rows must never be lost for want of
//! it: what cannot be written there, because the disk is full or there is none, stays in memory too.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write},
};

use partial_sync_vfs::sqlite::{self, Step, Stmt};

use crate::{
    change::Value,
    error::{Error, Result},
};

/// How many bytes of rows stay in memory.
const MEMORY: usize = 4 << 20;
/// How many bytes are written to the file at once.
const AT_ONCE: usize = 256 << 10;

/// Rows in the order in which they came.
#[derive(Default)]
pub(crate) struct Kept {
    /// The row to look at.
    current: Vec<Value>,
    first: VecDeque<Vec<Value>>,
    first_bytes: usize,
    rest: Option<Rest>,
}

/// The rows beyond those in memory.
enum Rest {
    Written(Spill),
    Read(Box<dyn Read + Send>),
}

struct Spill {
    file: Option<File>,
    written: u64,
    /// The file took no more.
    full: bool,
    /// What is not in the file yet, or could not be written to it.
    buffer: Vec<u8>,
}

impl Kept {
    /// Runs a statement to its end and keeps its rows. SQLite makes every change before it gives the first row, and outside
    /// of a transaction commits them after the last.
    pub(crate) fn drain(stmt: &mut Stmt) -> Result<Self> {
        let mut rows = Self::default();
        while stmt.step()? == Step::Row {
            let row: sqlite::Result<_> = (0..stmt.column_count())
                .map(|i| Ok(Value::from(stmt.value(i)?)))
                .collect();
            rows.push(row?);
        }
        stmt.reset()?;
        Ok(rows)
    }

    fn push(&mut self, row: Vec<Value>) {
        match &mut self.rest {
            Some(Rest::Written(spill)) => spill.push(&row),
            Some(Rest::Read(_)) => unreachable!("rows are pushed before the first is read"),
            None => {
                self.first_bytes += row
                    .iter()
                    .map(|value| value.size() + size_of::<Value>())
                    .sum::<usize>();
                self.first.push_back(row);
                if self.first_bytes > MEMORY {
                    self.rest = Some(Rest::Written(Spill {
                        file: tempfile::tempfile().ok(),
                        written: 0,
                        full: false,
                        buffer: Vec::new(),
                    }));
                }
            }
        }
    }

    /// Goes to the next row; false at the end.
    pub(crate) fn next(&mut self) -> Result<bool> {
        if let Some(row) = self.first.pop_front() {
            self.current = row;
            return Ok(true);
        }
        let failed = |error| Error::storage("read rows back from", &std::env::temp_dir(), error);
        self.rest = match self.rest.take() {
            Some(Rest::Written(spill)) => Some(Rest::Read(spill.into_reader().map_err(failed)?)),
            rest => rest,
        };
        let Some(Rest::Read(rest)) = &mut self.rest else {
            return Ok(false);
        };
        match read_row(rest).map_err(failed)? {
            Some(row) => {
                self.current = row;
                Ok(true)
            }
            None => {
                self.rest = None;
                Ok(false)
            }
        }
    }

    /// A value of the row to look at.
    pub(crate) fn value(&self, column: usize) -> Option<&Value> {
        self.current.get(column)
    }
}

impl Spill {
    fn push(&mut self, row: &[Value]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 8]);
        // A row is serialized to memory, which does not fail.
        if let Ok(buffer) = postcard::to_extend(row, std::mem::take(&mut self.buffer)) {
            self.buffer = buffer;
        }
        let length = (self.buffer.len() - start - 8) as u64;
        self.buffer[start..start + 8].copy_from_slice(&length.to_le_bytes());
        if self.buffer.len() < AT_ONCE || self.full {
            return;
        }
        let Some(file) = &mut self.file else { return };
        let wrote = file
            .seek(SeekFrom::Start(self.written))
            .and_then(|_| file.write_all(&self.buffer));
        match wrote {
            Ok(()) => {
                self.written += self.buffer.len() as u64;
                self.buffer.clear();
            }
            // What is in the file up to here counts.
            Err(_) => self.full = true,
        }
    }

    fn into_reader(self) -> io::Result<Box<dyn Read + Send>> {
        let buffer = Cursor::new(self.buffer);
        Ok(match self.file {
            Some(mut file) => {
                file.rewind()?;
                Box::new(BufReader::new(file.take(self.written)).chain(buffer))
            }
            None => Box::new(buffer),
        })
    }
}

fn read_row(from: &mut impl Read) -> io::Result<Option<Vec<Value>>> {
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut row = Vec::new();
    let length = u64::from_le_bytes(length);
    if from.take(length).read_to_end(&mut row)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&row)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<Value> {
        vec![
            Value::Integer(n as i64),
            Value::Text("x".repeat(n % 5000)),
            Value::RawText(vec![0xff]),
            Value::Real(-0.0),
            Value::Null,
        ]
    }

    #[test]
    fn rows_come_back_in_order_from_memory_and_from_the_file() {
        for without_file in [false, true] {
            for count in [0, 1, 10, 10_000] {
                let mut kept = Kept::default();
                for n in 0..count {
                    kept.push(row(n));
                    if let (true, Some(Rest::Written(spill))) = (without_file, &mut kept.rest) {
                        spill.file = None;
                    }
                }
                if let (false, Some(Rest::Written(spill))) = (without_file, &kept.rest) {
                    assert!(kept.first_bytes < MEMORY + 6000 && spill.buffer.len() < AT_ONCE);
                    assert!(spill.written > 0, "most of it is in the file");
                }
                for n in 0..count {
                    assert!(kept.next().unwrap());
                    let got: Vec<Value> = (0..5).map(|i| kept.value(i).unwrap().clone()).collect();
                    assert_eq!(got, row(n));
                }
                assert!(!kept.next().unwrap());
                assert!(!kept.next().unwrap());
            }
        }
    }
}
