//! A chunk of changes as bytes: what a row of the change log and the file of a pull in progress hold.
//!
//! Format: one version byte, then [postcard](https://postcard.jamesmunns.com/wire-format) of `{ mode, tables: [Table],
//! changes: [{ id: i64, time: i64, back: u32, kind: Row { table: u32, op, cause } | Statement }] }`. A table is written
//! once per chunk, and changes name it by its index. Version 2 had no `back`: each change is a unit of its own. Release 0.1
//! wrote version 1, also without a mode and without virtual tables; its changes are to be run as it ran them, with triggers
//! firing. [`decode`] takes any bytes: it never panics, and never allocates more than a small multiple of what it was given.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use partial_sync_core::ChangeId;
use serde::{Deserialize, Serialize};

use super::{Cause, Change, ChangeKind, Column, Mode, RowOp, StatementChange, Table, row_bytes};

/// It is raised when the meaning of the bytes after it changes.
const VERSION: u8 = 3;
/// Without units.
const SECOND: u8 = 2;
/// What release 0.1 wrote.
const FIRST: u8 = 1;

/// Bytes that are not a chunk of changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The chunk was written by a newer release, or is not a chunk.
    #[error(
        "recorded changes are in format {0}, this release reads format {VERSION}: open the replica with the release that wrote it"
    )]
    Version(u8),
    /// The bytes are cut or damaged.
    #[error("recorded changes are damaged ({0}): the replica's file was changed from outside")]
    Damaged(String),
}

fn damaged(what: impl Into<String>) -> CodecError {
    CodecError::Damaged(what.into())
}

#[derive(Deserialize)]
struct EncodedChunk<'a> {
    _mode: Mode,
    tables: Vec<Cow<'a, Table>>,
    changes: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct SecondChunk<'a> {
    _mode: Mode,
    tables: Vec<Cow<'a, Table>>,
    changes: Vec<OldEntry<'a>>,
}

#[derive(Deserialize)]
struct FirstChunk<'a> {
    tables: Vec<FirstTable>,
    changes: Vec<OldEntry<'a>>,
}

#[derive(Deserialize)]
struct FirstTable {
    name: String,
    columns: Vec<Column>,
    without_rowid: bool,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    id: i64,
    time: i64,
    back: u32,
    kind: EntryKind<'a>,
}

#[derive(Deserialize)]
struct OldEntry<'a> {
    id: i64,
    time: i64,
    kind: EntryKind<'a>,
}

impl<'a> From<OldEntry<'a>> for Entry<'a> {
    fn from(old: OldEntry<'a>) -> Self {
        Self {
            id: old.id,
            time: old.time,
            back: 0,
            kind: old.kind,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum EntryKind<'a> {
    Row {
        table: u32,
        op: Cow<'a, RowOp>,
        cause: Cause,
    },
    Statement(Cow<'a, StatementChange>),
}

/// The changes as bytes; [`decode`] gives them back.
///
/// ```
/// # use std::sync::Arc;
/// # use partial_sync::change::{codec, Cause, Change, ChangeKind, Column, RowOp, Table, Value};
/// # use partial_sync_core::ChangeId;
/// let table = Arc::new(Table {
///     name: "notes".into(),
///     columns: vec![Column { name: "id".into(), key: 1, generated: false }],
///     without_rowid: false,
///     is_virtual: false,
/// });
/// let op = RowOp::Insert { after: vec![Value::Integer(7)] };
/// let kind = ChangeKind::Row { table, op, cause: Cause::Statement };
/// let changes = [Change { id: ChangeId(1), time: 0, back: 0, kind }];
/// assert_eq!(codec::decode(&codec::encode(&changes)?)?, changes);
/// # Ok::<(), codec::CodecError>(())
/// ```
pub fn encode(changes: &[Change]) -> Result<Vec<u8>, CodecError> {
    encode_in(Mode::Rows, changes)
}

/// As [`encode`], for changes that are to be run in this mode.
pub fn encode_in(mode: Mode, changes: &[Change]) -> Result<Vec<u8>, CodecError> {
    let mut encoder = Encoder::default();
    for change in changes {
        encoder.add(change)?;
    }
    encoder.chunk(mode)
}

/// What of an emptied [`Encoder`]'s memory is kept.
const REUSED: usize = 2 << 20;

/// A chunk that grows change by change.
#[derive(Default)]
pub(crate) struct Encoder {
    tables: Vec<Arc<Table>>,
    index_of: HashMap<Arc<Table>, u32>,
    /// Changes to one table usually share its descriptor and follow each other: the last one.
    last: u32,
    count: u64,
    entries: Vec<u8>,
}

impl Encoder {
    /// Bytes of the changes in it.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// How many changes are in it.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a change.
    pub(crate) fn add(&mut self, change: &Change) -> Result<(), CodecError> {
        let kind = match &change.kind {
            ChangeKind::Row { table, op, cause } => EntryKind::Row {
                table: self.index(table),
                op: Cow::Borrowed(op),
                cause: *cause,
            },
            ChangeKind::Statement(statement) => EntryKind::Statement(Cow::Borrowed(statement)),
        };
        let entry = Entry {
            id: change.id.0,
            time: change.time,
            back: change.back,
            kind,
        };
        let more = postcard::to_stdvec(&entry).map_err(|e| damaged(e.to_string()))?;
        self.entries.extend_from_slice(&more);
        self.count += 1;
        Ok(())
    }

    /// Adds the change of a row whose operation is in bytes already ([`super::row_bytes`]), with this `number` of it.
    pub(crate) fn add_row(&mut self, head: Head, table: &Arc<Table>, number: u8, op: &[u8], cause: Cause) {
        let table = self.index(table);
        let bytes = &mut self.entries;
        row_bytes::add_signed(bytes, head.id.0);
        row_bytes::add_signed(bytes, head.time);
        row_bytes::add_number(bytes, head.back.into());
        // `EntryKind::Row`
        bytes.push(0);
        row_bytes::add_number(bytes, table.into());
        bytes.push(number);
        bytes.extend_from_slice(&op[1..]);
        bytes.push(cause as u8);
        self.count += 1;
    }

    fn index(&mut self, table: &Arc<Table>) -> u32 {
        let is_last = |last: &Arc<Table>| Arc::ptr_eq(last, table);
        if !self.tables.get(self.last as usize).is_some_and(is_last) {
            let next = self.tables.len() as u32;
            self.last = *self.index_of.entry(table.clone()).or_insert(next);
            if self.last == next {
                self.tables.push(table.clone());
            }
        }
        self.last
    }

    /// The changes as [`decode`] takes them.
    pub(crate) fn chunk(&self, mode: Mode) -> Result<Vec<u8>, CodecError> {
        let tables: Vec<&Table> = self.tables.iter().map(|table| &**table).collect();
        let mut chunk = Vec::with_capacity(self.entries.len() + 1024);
        chunk.push(VERSION);
        let mut chunk =
            postcard::to_extend(&(mode, tables, self.count), chunk).map_err(|e| damaged(e.to_string()))?;
        chunk.extend_from_slice(&self.entries);
        Ok(chunk)
    }

    /// Empties it, and keeps its memory, but for that of a large value.
    pub(crate) fn clear(&mut self) {
        self.tables.clear();
        self.index_of.clear();
        self.entries.clear();
        self.entries.shrink_to(REUSED);
        self.count = 0;
    }
}

/// What a change has besides what it changed.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub id: ChangeId,
    pub time: i64,
    pub back: u32,
}

/// The changes that [`encode`] was given. Every image has as many values as its table has columns.
pub fn decode(bytes: &[u8]) -> Result<Vec<Change>, CodecError> {
    let chunk: EncodedChunk<'_> = match bytes.split_first() {
        None => return Err(damaged("they are empty")),
        Some((&VERSION, rest)) => whole(rest)?,
        Some((&SECOND, rest)) => {
            let second: SecondChunk<'_> = whole(rest)?;
            EncodedChunk {
                _mode: second._mode,
                tables: second.tables,
                changes: second.changes.into_iter().map(Entry::from).collect(),
            }
        }
        Some((&FIRST, rest)) => {
            let first: FirstChunk<'_> = whole(rest)?;
            let table = |table: FirstTable| {
                Cow::Owned(Table {
                    name: table.name,
                    columns: table.columns,
                    without_rowid: table.without_rowid,
                    is_virtual: false,
                })
            };
            EncodedChunk {
                _mode: Mode::Triggers,
                tables: first.tables.into_iter().map(table).collect(),
                changes: first.changes.into_iter().map(Entry::from).collect(),
            }
        }
        Some((&other, _)) => return Err(CodecError::Version(other)),
    };
    let tables: Vec<Arc<Table>> = chunk
        .tables
        .into_iter()
        .map(|table| check_names(&table).map(|()| Arc::new(table.into_owned())))
        .collect::<Result<_, _>>()?;
    chunk
        .changes
        .into_iter()
        .map(|entry| {
            let kind = match entry.kind {
                EntryKind::Statement(statement) => ChangeKind::Statement(statement.into_owned()),
                EntryKind::Row { table, op, cause } => {
                    let table = tables
                        .get(table as usize)
                        .ok_or_else(|| damaged(format!("there is no table {table}")))?;
                    check_images(table, &op)?;
                    ChangeKind::Row {
                        table: Arc::clone(table),
                        op: op.into_owned(),
                        cause,
                    }
                }
            };
            Ok(Change {
                id: ChangeId(entry.id),
                time: entry.time,
                back: entry.back,
                kind,
            })
        })
        .collect()
}

/// No name in SQLite has a NUL in it; SQL text would end there.
fn check_names(table: &Table) -> Result<(), CodecError> {
    let mut names = table
        .columns
        .iter()
        .map(|column| &column.name)
        .chain([&table.name]);
    match names.find(|name| name.contains('\0')) {
        None => Ok(()),
        Some(name) => Err(damaged(format!("the name {name:?} has a NUL in it"))),
    }
}

/// The mode that the changes in these bytes are to be run in.
pub fn mode(bytes: &[u8]) -> Mode {
    match bytes {
        // The mode is an enum's number, one byte.
        [VERSION | SECOND, 0, ..] => Mode::Rows,
        [VERSION | SECOND, 2, ..] => Mode::Enforced,
        _ => Mode::Triggers,
    }
}

fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes) {
        Ok((chunk, [])) => Ok(chunk),
        Ok((_, more)) => Err(damaged(format!("{} bytes follow the last change", more.len()))),
        Err(e) => Err(damaged(e.to_string())),
    }
}

fn check_images(table: &Table, op: &RowOp) -> Result<(), CodecError> {
    let wanted = table.columns.len();
    let (before, after) = op.images();
    let fits = before.into_iter().chain(after).all(|image| image.len() == wanted);
    match fits {
        true => Ok(()),
        false => Err(damaged(format!(
            "a row of {:?} does not have its {wanted} columns",
            table.name
        ))),
    }
}

/// Bytes as one block; without it serde writes and reads a `Vec<u8>` number by number. The bytes are the same.
pub(super) mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        d.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Value;

    /// Was red: every connection kept as much memory as the largest row took that it had ever recorded.
    #[test]
    fn an_emptied_encoder_does_not_keep_the_memory_of_a_large_value() {
        let table = Arc::new(Table {
            name: "t".into(),
            columns: vec![],
            without_rowid: false,
            is_virtual: false,
        });
        let op = RowOp::Insert {
            after: vec![Value::Blob(vec![0; 4 * REUSED])],
        };
        let kind = ChangeKind::Row {
            table,
            op,
            cause: Cause::Statement,
        };
        let change = Change {
            id: ChangeId(1),
            time: 0,
            back: 0,
            kind,
        };
        let mut encoder = Encoder::default();
        encoder.add(&change).unwrap();
        assert!(encoder.entries.capacity() > 4 * REUSED);
        encoder.clear();
        assert!(encoder.entries.capacity() <= REUSED);
    }
}
