//! Records of bytes, read back in the order in which they came. Up to [`MEMORY`] bytes stay in memory; what comes after them goes to
//! a temporary file. Nothing is lost for want of it: what cannot be written there, because the disk is full or there is none, stays
//! in memory too.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Take, Write},
    mem,
};

/// How many bytes stay in memory.
pub(crate) const MEMORY: usize = 4 << 20;
/// How many bytes are written to the file at once.
const AT_ONCE: usize = 256 << 10;
/// What of the memory is kept for records to come.
const REUSED: usize = 64 << 10;
/// Of the length before each record.
const LENGTH: usize = size_of::<u64>();

/// See the module.
#[derive(Default)]
pub(crate) struct Records {
    /// What is not in the file.
    buffer: Vec<u8>,
    overflow: Overflow,
    reading: Option<Reading>,
}

#[derive(Default)]
enum Overflow {
    #[default]
    NotNeeded,
    File {
        file: File,
        written: u64,
    },
    /// There is no file, or it takes no more; what is in it counts.
    Full(Option<(File, u64)>),
}

/// Where the next record is read.
struct Reading {
    file: Option<Take<BufReader<File>>>,
    /// In the buffer, when all of the file is read.
    at: usize,
    record: Vec<u8>,
}

impl Records {
    /// Adds what `write` appends to the bytes that it is given, or, if it fails, nothing.
    pub(crate) fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; LENGTH]);
        if let Err(error) = write(&mut self.buffer) {
            self.buffer.truncate(start);
            return Err(error);
        }
        let length = (self.buffer.len() - start - LENGTH) as u64;
        self.buffer[start..start + LENGTH].copy_from_slice(&length.to_le_bytes());
        match &self.overflow {
            Overflow::NotNeeded if self.buffer.len() > MEMORY => {
                self.overflow = match tempfile::tempfile() {
                    Ok(file) => Overflow::File { file, written: 0 },
                    Err(_) => Overflow::Full(None),
                };
                self.write_out();
            }
            Overflow::File { .. } if self.buffer.len() > AT_ONCE => self.write_out(),
            _ => {}
        }
        Ok(())
    }

    fn write_out(&mut self) {
        self.overflow = match mem::take(&mut self.overflow) {
            Overflow::File { mut file, written } => {
                let wrote = file
                    .seek(SeekFrom::Start(written))
                    .and_then(|_| file.write_all(&self.buffer));
                match wrote {
                    Ok(()) => {
                        let written = written + self.buffer.len() as u64;
                        self.buffer.clear();
                        self.buffer.shrink_to(AT_ONCE);
                        Overflow::File { file, written }
                    }
                    Err(_) => Overflow::Full(Some((file, written))),
                }
            }
            other => other,
        };
    }

    /// The next record is the first one.
    pub(crate) fn rewind(&mut self) {
        self.reading = None;
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            none => {
                let file = match &self.overflow {
                    Overflow::File { file, written } | Overflow::Full(Some((file, written))) => {
                        let mut file = file.try_clone()?;
                        file.rewind()?;
                        Some(BufReader::with_capacity(AT_ONCE, file).take(*written))
                    }
                    Overflow::NotNeeded | Overflow::Full(None) => None,
                };
                none.insert(Reading {
                    file,
                    at: 0,
                    record: Vec::new(),
                })
            }
        };
        if let Some(file) = reading.file.as_mut().filter(|file| file.limit() > 0) {
            let mut length = [0; LENGTH];
            file.read_exact(&mut length)?;
            let length = u64::from_le_bytes(length);
            reading.record.clear();
            if file.take(length).read_to_end(&mut reading.record)? as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(Some(&reading.record));
        }
        let Some((length, rest)) = self.buffer[reading.at..].split_first_chunk() else {
            return Ok(None);
        };
        let length = u64::from_le_bytes(*length) as usize;
        reading.at += LENGTH + length;
        Ok(Some(&rest[..length]))
    }

    /// Whether some are in a file.
    #[cfg(test)]
    pub(crate) fn has_file(&self) -> bool {
        matches!(self.overflow, Overflow::File { .. } | Overflow::Full(Some(_)))
    }

    /// Forgets them, and keeps a little memory for others.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(REUSED);
        self.overflow = Overflow::NotNeeded;
        self.reading = None;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn record(n: usize) -> Vec<u8> {
        vec![n as u8; n % 5000]
    }

    fn push(records: &mut Records, n: usize) {
        let written: Result<(), Infallible> = records.push(|bytes| {
            bytes.extend_from_slice(&record(n));
            Ok(())
        });
        written.unwrap();
    }

    /// As on a disk that is full from now on.
    fn fill(records: &mut Records) {
        records.overflow = match mem::take(&mut records.overflow) {
            Overflow::File { file, written } => Overflow::Full(Some((file, written))),
            other => other,
        };
    }

    #[test]
    fn records_come_back_in_order_from_memory_and_from_the_file_and_once_more() {
        for full_at in [0, 3_000, usize::MAX] {
            let mut records = Records::default();
            for count in [0, 1, 10, 10_000, 10] {
                for n in 0..count {
                    if n == full_at {
                        fill(&mut records);
                    }
                    push(&mut records, n);
                    let failed: Result<(), ()> = records.push(|bytes| {
                        bytes.push(1);
                        Err(())
                    });
                    failed.unwrap_err();
                }
                if count == 10_000 && full_at > count {
                    assert!(matches!(records.overflow, Overflow::File { written, .. } if written > 20 << 20));
                    assert!(records.buffer.capacity() < 2 * AT_ONCE);
                }
                for _ in 0..2 {
                    for n in 0..count {
                        assert_eq!(records.next().unwrap(), Some(&record(n)[..]));
                    }
                    assert_eq!(records.next().unwrap(), None);
                    assert_eq!(records.next().unwrap(), None);
                    records.rewind();
                }
                records.clear();
                assert!(
                    records.buffer.capacity() <= REUSED && matches!(records.overflow, Overflow::NotNeeded)
                );
            }
        }
    }

    #[test]
    fn without_a_temporary_file_all_stays_in_memory() {
        let mut records = Records {
            overflow: Overflow::Full(None),
            ..Records::default()
        };
        (0..5_000).for_each(|n| push(&mut records, n));
        for n in 0..5_000 {
            assert_eq!(records.next().unwrap(), Some(&record(n)[..]));
        }
        assert_eq!(records.next().unwrap(), None);
    }
}
