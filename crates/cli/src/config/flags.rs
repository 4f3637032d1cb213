//! The flags of `serve` as keys of a configuration file, and a key as the flag that it becomes.

use std::{error::Error as _, ffi::OsString};

use clap::{
    Arg, ArgAction, Command,
    builder::ValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::file::{Entry, File, Value};
use crate::{error::CliError, secret};

/// The settings that are secrets themselves.
pub(super) const SECRETS: [&str; 1] = ["auth-token"];

/// A key that became a flag.
pub(super) struct Added {
    pub key: String,
    pub line: usize,
    pub words: Vec<OsString>,
}

/// The flag of a key.
pub(super) fn as_flag(file: &File, entry: &Entry, argument: &Arg) -> Result<Added, CliError> {
    let is_path = argument.get_value_parser().type_id() == ValueParser::path_buf().type_id();
    let word = |text: &str| {
        let value = match is_path && text != ":memory:" {
            true => file.folder.join(text).into_os_string(),
            false => text.into(),
        };
        let mut word = match argument.get_long() {
            Some(long) => OsString::from(format!("--{long}=")),
            None => OsString::new(),
        };
        word.push(value);
        word
    };
    let words = match (argument.get_action(), &entry.value) {
        (ArgAction::SetTrue, Value::Flag(true)) => Ok(vec![OsString::from(format!("--{}", entry.key))]),
        (ArgAction::SetTrue, Value::Flag(false)) => Ok(vec![]),
        (ArgAction::SetTrue, _) => Err("write true or false"),
        (ArgAction::Append, Value::List(texts)) => Ok(texts.iter().map(|text| word(text)).collect()),
        (ArgAction::Append, _) => Err("write a list of texts, like [\"one\", \"two\"]"),
        (_, Value::Text(text)) => Ok(vec![word(text)]),
        (_, Value::Number(number)) if !is_path => Ok(vec![word(&number.to_string())]),
        (_, _) => Err("write a text in quotes"),
    };
    Ok(Added {
        key: entry.key.clone(),
        line: entry.line,
        words: words.map_err(|problem| file.wrong(Some(entry.line), format!("{}: {problem}", entry.key)))?,
    })
}

/// The arguments of `serve` that a file can set.
pub(super) fn settings(serve: &Command) -> impl Iterator<Item = &Arg> {
    let others = ["config", "check_config", "help"];
    let arguments = serve.get_arguments();
    arguments.filter(move |argument| !others.contains(&argument.get_id().as_str()))
}

pub(super) fn name_of(argument: &Arg) -> &str {
    argument.get_long().unwrap_or(argument.get_id().as_str())
}

/// The variable with trusted proxies.
pub(crate) const TRUSTED_PROXY: &str = "PARTIAL_SYNC_TRUSTED_PROXY";
const OF_FLAGS: [(&str, &[&str]); 1] = [("trusted-proxy", &[TRUSTED_PROXY])];

/// The variable that is set and takes the place of a key.
pub(super) fn variable_of(key: &str) -> Option<&'static str> {
    let mut of_flags = secret::OF_FLAGS.iter().chain(&OF_FLAGS);
    let (_, variables) = of_flags.find(|(flag, _)| *flag == key)?;
    let mut variables = variables.iter().copied();
    variables.find(|name| std::env::var_os(name).is_some())
}

/// Whether an error is about a flag.
pub(super) fn is_named(error: &clap::Error, key: &str) -> bool {
    let is_flag = |text: &String| {
        text.strip_prefix("--")
            .and_then(|text| text.split([' ', '=']).next())
            == Some(key)
    };
    error.context().any(|(kind, value)| match (kind, value) {
        (ContextKind::InvalidArg | ContextKind::PriorArg, ContextValue::String(text)) => is_flag(text),
        (ContextKind::InvalidArg | ContextKind::PriorArg, ContextValue::Strings(texts)) => {
            texts.iter().any(is_flag)
        }
        _ => false,
    })
}

pub(super) fn in_one_line(error: &clap::Error) -> String {
    if let (ErrorKind::ValueValidation, Some(source)) = (error.kind(), error.source()) {
        return source.to_string();
    }
    let text = error.to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = text.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}
