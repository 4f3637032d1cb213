//! The numbers of a run as one JSON object, for programs that compare runs: a member for each group that gives its numbers,
//! beside what is known of the machine.

use std::fs;

use serde_json::{Map, Value};

use crate::{machine, options::Options, result::Result};

/// Begins the file that `--json` names, if it names one.
pub(crate) fn begin(options: &Options) -> Result<()> {
    match &options.json {
        Some(_) => put(options, "machine", machine::facts(options)?.into(), Map::new()),
        None => Ok(()),
    }
}

/// Adds what a group has measured.
pub(crate) fn add(options: &Options, group: &str, numbers: Value) -> Result<()> {
    let Some(path) = &options.json else {
        return Ok(());
    };
    let known = serde_json::from_slice(&fs::read(path)?)?;
    put(options, group, numbers, known)
}

fn put(options: &Options, name: &str, value: Value, mut all: Map<String, Value>) -> Result<()> {
    all.insert(name.into(), value);
    if let Some(path) = &options.json {
        fs::write(path, format!("{:#}\n", Value::Object(all)))?;
    }
    Ok(())
}
