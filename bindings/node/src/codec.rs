//! Values between SQLite and JavaScript as 64-bit words, which cost JavaScript no call to read.
//!
//! A word's low half is the tag, its high half a small number:
//!
//! | tag | value | high half | then |
//! |---|---|---|---|
//! | 0 | NULL | | |
//! | 1 | integer of 32 bits | the integer | |
//! | 2 | number | | a word with the bits of the double |
//! | 3 | BigInt | | a word with the integer |
//! | 4 | text | its length in UTF-16 units | |
//! | 5 | blob | its length in bytes | |
//!
//! The texts of a batch are one string, one after the other; its blobs are one run of bytes. On the way in, texts and
//! blobs are lists, taken in order. `lib/codec.js` is the other side.

use napi::bindgen_prelude::Uint8Array;
use partial_sync::{Result, Statement};
use partial_sync_vfs::sqlite::{self, codes};
use rusqlite::types::{Value, ValueRef};

const NULL: i64 = 0;
const INT: i64 = 1;
const DOUBLE: i64 = 2;
const BIGINT: i64 = 3;
const TEXT: i64 = 4;
const BLOB: i64 = 5;

/// The longest string of JavaScript, in UTF-16 units; the texts of a batch become one.
const LONGEST_STRING: usize = (1 << 29) - 24;

/// Most words that a value takes.
pub(crate) const WIDEST: usize = 2;

/// Which values are wanted, and how.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Every integer as a BigInt.
    pub(crate) bigints: bool,
    /// The first column alone.
    pub(crate) pluck: bool,
}

impl Shape {
    /// As `lib/prepared.js` writes it.
    pub(crate) fn of(bits: u32) -> Self {
        Self {
            bigints: bits & 1 != 0,
            pluck: bits & 2 != 0,
        }
    }
}

/// Where encoded words go.
pub(crate) trait Words {
    /// Adds a word. The caller has seen to it that there is room.
    fn word(&mut self, word: i64);
}

impl Words for Vec<i64> {
    fn word(&mut self, word: i64) {
        self.push(word);
    }
}

/// The words of a buffer of JavaScript's from `at` on.
pub(crate) struct Scratch<'b> {
    pub(crate) words: &'b mut [i64],
    pub(crate) at: usize,
}

impl Scratch<'_> {
    pub(crate) fn room(&self) -> usize {
        self.words.len().saturating_sub(self.at)
    }
}

impl Words for Scratch<'_> {
    fn word(&mut self, word: i64) {
        self.words[self.at] = word;
        self.at += 1;
    }
}

/// What does not fit into words.
#[derive(Default)]
pub(crate) struct Heap {
    pub(crate) text: String,
    /// The length of the text in UTF-16 units.
    units: usize,
    pub(crate) bytes: Vec<u8>,
}

fn tagged(tag: i64, high: i64) -> i64 {
    tag | high << 32
}

/// Adds the current row of a statement.
pub(crate) fn encode_row(
    statement: &Statement,
    columns: usize,
    shape: Shape,
    words: &mut impl Words,
    heap: &mut Heap,
) -> Result<()> {
    for column in 0..columns {
        match statement.value(column)? {
            ValueRef::Null => words.word(NULL),
            ValueRef::Integer(value) if shape.bigints => {
                words.word(BIGINT);
                words.word(value);
            }
            ValueRef::Integer(value) => match i32::try_from(value) {
                Ok(small) => words.word(tagged(INT, i64::from(small))),
                // Beyond 2^53 this rounds, as JavaScript's numbers do.
                #[allow(clippy::cast_precision_loss)]
                Err(_) => double(words, value as f64),
            },
            ValueRef::Real(value) => double(words, value),
            ValueRef::Text(bytes) => words.word(tagged(TEXT, heap.push_text(bytes)?)),
            ValueRef::Blob(bytes) => {
                heap.bytes.extend_from_slice(bytes);
                words.word(tagged(BLOB, bytes.len() as i64));
            }
        }
    }
    Ok(())
}

fn double(words: &mut impl Words, value: f64) {
    words.word(DOUBLE);
    words.word(value.to_bits().cast_signed());
}

impl Heap {
    /// Adds a text and gives its length in UTF-16 units. What is not UTF-8 becomes U+FFFD.
    fn push_text(&mut self, bytes: &[u8]) -> Result<i64> {
        // ASCII is UTF-8, and this is checked again at the cost of a memcpy.
        let valid = String::from_utf8_lossy(bytes);
        let units = match bytes.is_ascii() {
            true => bytes.len(),
            false => valid.encode_utf16().count(),
        };
        if self.units + units > LONGEST_STRING {
            let problem = "the texts of a row are longer than a string of JavaScript can be";
            return Err(sqlite::Error::new(codes::TOOBIG, problem).into());
        }
        self.units += units;
        self.text.push_str(&valid);
        Ok(units as i64)
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + self.bytes.len()
    }
}

/// Reads parameters.
pub(crate) fn decode(
    words: &[i64],
    count: u32,
    texts: Option<Vec<String>>,
    blobs: Option<Vec<Uint8Array>>,
) -> napi::Result<Vec<Value>> {
    let bad = || napi::Error::from_reason("the parameters are not encoded as they should be");
    let mut words = words.iter().copied();
    let mut texts = texts.unwrap_or_default().into_iter();
    let mut blobs = blobs.unwrap_or_default().into_iter();
    let mut values = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let word = words.next().ok_or_else(bad)?;
        values.push(match word & 0xffff_ffff {
            NULL => Value::Null,
            INT => Value::Integer(word >> 32),
            DOUBLE => {
                let bits = words.next().ok_or_else(bad)?;
                Value::Real(f64::from_bits(bits.cast_unsigned()))
            }
            BIGINT => Value::Integer(words.next().ok_or_else(bad)?),
            TEXT => Value::Text(texts.next().ok_or_else(bad)?),
            BLOB => Value::Blob(blobs.next().ok_or_else(bad)?.to_vec()),
            _ => return Err(bad()),
        });
    }
    Ok(values)
}
