//! A configuration file as it is written: keys and values, each with its line. What they mean is said elsewhere.
//!
//! Texts of errors have keys and lines in them, and never a value: one may be a secret.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::error::CliError;

/// Larger files are refused.
const LARGEST: u64 = 64 << 10;

/// A file that was read.
#[derive(Debug)]
pub(crate) struct File {
    pub path: PathBuf,
    /// What relative paths in it are relative to.
    pub folder: PathBuf,
    /// Others on the machine can read it.
    pub is_open: bool,
    pub entries: Vec<Entry>,
    /// The tables, with their lines.
    pub sections: Vec<(String, usize)>,
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The table that it is in; `None` = none.
    pub section: Option<String>,
    pub key: String,
    pub value: Value,
    pub line: usize,
}

/// What a key can be set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<String>),
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let unreadable = |source| CliError::File {
            doing: "read the configuration file",
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        (&file)
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let mut read = Self {
            path: path.to_owned(),
            folder: absolute.parent().unwrap_or(&absolute).to_owned(),
            is_open: others_can_read(&file.metadata().map_err(unreadable)?),
            entries: Vec::new(),
            sections: Vec::new(),
        };
        if bytes.len() as u64 > LARGEST {
            return Err(read.wrong(None, "it has more than 64 KiB, which is not a configuration"));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let line = line_at(e.as_bytes(), e.utf8_error().valid_up_to());
            read.wrong(Some(line), "this is not UTF-8")
        })?;
        read.parse(&text)?;
        Ok(read)
    }

    /// The keys that say something else in the file now than when it was read.
    pub(crate) fn changed(&self) -> Result<Vec<String>, CliError> {
        let now = Self::read(&self.path)?;
        let name = |entry: &Entry| match &entry.section {
            Some(section) => format!("{section}.{}", entry.key),
            None => entry.key.clone(),
        };
        let values = |file: &Self| -> BTreeMap<String, Value> {
            let values = file
                .entries
                .iter()
                .map(|entry| (name(entry), entry.value.clone()));
            values.collect()
        };
        let (old, new) = (values(self), values(&now));
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        Ok(changed.map(|key| key.escape_debug().to_string()).collect())
    }

    /// An error about a line.
    pub(crate) fn wrong(&self, line: Option<usize>, problem: impl Into<String>) -> CliError {
        CliError::Config {
            path: self.path.clone(),
            line,
            problem: problem.into(),
        }
    }

    fn parse(&mut self, text: &str) -> Result<(), CliError> {
        let line_of = |offset| line_at(text.as_bytes(), offset);
        let table = DeTable::parse(text).map_err(|e| {
            let line = e.span().map(|span| line_of(span.start));
            self.wrong(line, e.message())
        })?;
        for (key, value) in table.get_ref() {
            match value.get_ref() {
                DeValue::Table(section) => {
                    let name = key.get_ref().to_string();
                    for (key, value) in section {
                        let entry = self.entry(text, Some(&name), key, value)?;
                        self.entries.push(entry);
                    }
                    self.sections.push((name, line_of(key.span().start)));
                }
                _ => {
                    let entry = self.entry(text, None, key, value)?;
                    self.entries.push(entry);
                }
            }
        }
        self.entries.sort_by_key(|entry| entry.line);
        Ok(())
    }

    fn entry(
        &self,
        text: &str,
        section: Option<&str>,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, CliError> {
        let line = line_at(text.as_bytes(), key.span().start);
        let key = key.get_ref().to_string();
        let value = read_value(value.get_ref());
        let value =
            value.map_err(|problem| self.wrong(Some(line), format!("{}: {problem}", key.escape_debug())))?;
        Ok(Entry {
            section: section.map(str::to_owned),
            key,
            value,
            line,
        })
    }
}

fn read_value(value: &DeValue<'_>) -> Result<Value, &'static str> {
    Ok(match value {
        DeValue::String(text) => Value::Text(text_of(text)?),
        DeValue::Integer(number) => Value::Number(
            u64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| "a number must be whole, not negative, and fit in 64 bits")?,
        ),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Array(list) => Value::List(list_of(list)?),
        DeValue::Float(_) => {
            return Err("a number must be whole; write sizes and times as a text, like \"1.5g\" or \"90s\"");
        }
        DeValue::Datetime(_) => return Err("a date cannot be used here"),
        DeValue::Table(_) => return Err("there are no tables in tables"),
    })
}

fn list_of(list: &DeArray<'_>) -> Result<Vec<String>, &'static str> {
    list.iter()
        .map(|item| match item.get_ref() {
            DeValue::String(text) => text_of(text),
            _ => Err("a list must have texts in it, like [\"one\", \"two\"]"),
        })
        .collect()
}

fn text_of(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("the text is empty; give a value, or remove the key"),
        text if text.contains('\0') => Err("a text cannot have a NUL character in it"),
        text => Ok(text.to_owned()),
    }
}

fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|b| **b == b'\n').count()
}

/// Whether everybody on the machine can read a file.
pub(crate) fn others_can_read(file: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::mode(file) & 0o004 != 0
}
