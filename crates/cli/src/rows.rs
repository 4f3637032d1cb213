//! Rows as a table for a person or as JSON for a program. Every value is printed exactly: integers with all their digits,
//! floats in the shortest form that reads back as the same float, bytes as bytes.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use partial_sync::Row;
use rusqlite::types::ValueRef;
use unicode_width::UnicodeWidthStr;

use crate::error::CliError;

/// So many rows are kept to find out how wide the columns must be.
const ROWS_AHEAD: usize = 1000;

/// A table with columns as wide as the first rows need.
pub(crate) struct Table<'o, W> {
    out: &'o mut W,
    widths: Vec<usize>,
    /// Rows that wait for the widths, the header first. Empty once it is printed.
    waiting: Vec<Vec<Shown>>,
}

/// A value as text.
struct Shown {
    text: String,
    is_number: bool,
}

impl<'o, W: Write> Table<'o, W> {
    pub(crate) fn new(out: &'o mut W, names: &[String]) -> Self {
        let header = names.iter().map(|name| Shown {
            text: one_line(name),
            is_number: false,
        });
        Self {
            out,
            widths: vec![0; names.len()],
            waiting: vec![header.collect()],
        }
    }

    pub(crate) fn row(&mut self, row: &Row<'_>) -> Result<(), CliError> {
        let shown = (0..self.widths.len())
            .map(|i| Ok(shown(row.get_ref(i)?)))
            .collect::<Result<Vec<_>, CliError>>()?;
        if self.waiting.is_empty() {
            return Ok(print(self.out, &self.widths, &shown)?);
        }
        self.waiting.push(shown);
        if self.waiting.len() > ROWS_AHEAD {
            self.print_waiting()?;
        }
        Ok(())
    }

    pub(crate) fn end(mut self) -> io::Result<()> {
        self.print_waiting()
    }

    fn print_waiting(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        for (value, width) in rows
            .iter()
            .flat_map(|row| row.iter().zip(0..))
            .map(|(v, i)| (v, i as usize))
        {
            self.widths[width] = self.widths[width].max(value.text.width());
        }
        for (at, row) in rows.iter().enumerate() {
            // A column of numbers has its name above them, on the right.
            let numbers: Vec<bool> = match (at, rows.get(1)) {
                (0, Some(first)) => first.iter().map(|value| value.is_number).collect(),
                _ => row.iter().map(|value| value.is_number).collect(),
            };
            print_aligned(self.out, &self.widths, row, &numbers)?;
            if at == 0 {
                let lines: Vec<String> = self.widths.iter().map(|&w| "─".repeat(w)).collect();
                writeln!(self.out, "{}", lines.join("  "))?;
            }
        }
        Ok(())
    }
}

fn print(out: &mut impl Write, widths: &[usize], row: &[Shown]) -> io::Result<()> {
    let numbers: Vec<bool> = row.iter().map(|value| value.is_number).collect();
    print_aligned(out, widths, row, &numbers)
}

fn print_aligned(out: &mut impl Write, widths: &[usize], row: &[Shown], numbers: &[bool]) -> io::Result<()> {
    let mut line = String::new();
    for ((value, &width), &right) in row.iter().zip(widths).zip(numbers) {
        let space = " ".repeat(width.saturating_sub(value.text.width()));
        let (before, after) = if right {
            (space, String::new())
        } else {
            (String::new(), space)
        };
        line.push_str(&format!("{before}{}{after}  ", value.text));
    }
    writeln!(out, "{}", line.trim_end())
}

fn shown(value: ValueRef<'_>) -> Shown {
    let is_number = matches!(value, ValueRef::Integer(_) | ValueRef::Real(_));
    let text = match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => float(value),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => one_line(text),
            Err(_) => format!("CAST({} AS TEXT)", hex(bytes)),
        },
        ValueRef::Blob(bytes) => hex(bytes),
    };
    Shown { text, is_number }
}

/// Characters that would break the table, or the terminal, escaped.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

/// A float that is read back as the same one, by SQLite and as JSON: infinity is a number too large for a float.
fn float(value: f64) -> String {
    match value {
        f64::INFINITY => "9e999".into(),
        f64::NEG_INFINITY => "-9e999".into(),
        value => format!("{value:?}"),
    }
}

/// A JSON array with an object for each row, a row a line.
pub(crate) struct JsonRows<'o, W> {
    out: &'o mut W,
    names: Vec<String>,
    rows: u64,
}

impl<'o, W: Write> JsonRows<'o, W> {
    pub(crate) fn begin(out: &'o mut W, names: &[String]) -> Result<Self, CliError> {
        write!(out, "[")?;
        let names = names
            .iter()
            .map(|name| Ok(serde_json::to_string(name).map_err(io::Error::from)?));
        Ok(Self {
            out,
            names: names.collect::<Result<_, CliError>>()?,
            rows: 0,
        })
    }

    pub(crate) fn row(&mut self, row: &Row<'_>) -> Result<(), CliError> {
        write!(self.out, "{}", if self.rows == 0 { "{" } else { ",\n {" })?;
        for (i, name) in self.names.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(self.out, "{comma}{name}:{}", json(row.get_ref(i)?)?)?;
        }
        self.rows += 1;
        Ok(write!(self.out, "}}")?)
    }

    pub(crate) fn end(self) -> Result<(), CliError> {
        Ok(writeln!(self.out, "]")?)
    }
}

fn json(value: ValueRef<'_>) -> io::Result<String> {
    Ok(match value {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => float(value),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::to_string(text)?,
            Err(_) => format!(r#"{{"text_base64":"{}"}}"#, STANDARD.encode(bytes)),
        },
        ValueRef::Blob(bytes) => format!(r#"{{"base64":"{}"}}"#, STANDARD.encode(bytes)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_exactly() {
        for (value, table, as_json) in [
            (ValueRef::Null, "NULL", "null"),
            (
                ValueRef::Integer(i64::MIN),
                "-9223372036854775808",
                "-9223372036854775808",
            ),
            (
                ValueRef::Real(0.1 + 0.2),
                "0.30000000000000004",
                "0.30000000000000004",
            ),
            (ValueRef::Real(2.0), "2.0", "2.0"),
            (ValueRef::Real(f64::INFINITY), "9e999", "9e999"),
            (ValueRef::Text("Köln\n".as_bytes()), "Köln\\n", "\"Köln\\n\""),
            (
                ValueRef::Text(b"\xff"),
                "CAST(x'ff' AS TEXT)",
                r#"{"text_base64":"/w=="}"#,
            ),
            (ValueRef::Blob(b"\0\x01"), "x'0001'", r#"{"base64":"AAE="}"#),
        ] {
            assert_eq!(shown(value).text, table);
            assert_eq!(json(value).unwrap(), as_json);
        }
    }
}
