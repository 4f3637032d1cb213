//! The settings of `serve`: from its flags, the environment and a configuration file, of which the first that has one counts.
//!
//! The keys of the file are the names of the flags, and `path`. A key whose flag was not given becomes that flag, so values are read,
//! checked and explained in one place, and a new flag is a key at once. Limits that have no flag are in `tuning.rs`.

mod effective;
pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod tuning;

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, parser::ValueSource};
use partial_sync::options::nearest;

use crate::{
    arguments::{self, Configured, Program},
    error::CliError,
    secret,
};
use file::{Entry, File};
use flags::{Added, SECRETS, as_flag, in_one_line, is_named, name_of, settings, variable_of};
use tuning::Tuning;

/// The variable with the path of the file.
const CONFIG: &str = "PARTIAL_SYNC_CONFIG";

/// Reads the command line, and for `serve` the configuration file. Ends the program if the command line is wrong.
pub(crate) fn program(words: Vec<OsString>) -> Result<Program, CliError> {
    let mut command = Program::command();
    command.build();
    // What is missing may be in the file.
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(&words);
    let given = lenient
        .as_ref()
        .ok()
        .and_then(|it| it.subcommand_matches("serve"));
    let (Some(given), Some(serve)) = (given, command.find_subcommand("serve")) else {
        return Ok(from_matches(&command.get_matches_from(words)));
    };
    let path = match given.get_one::<PathBuf>("config") {
        Some(path) => Some(path.clone()),
        None => secret::variable(CONFIG)?.map(PathBuf::from),
    };
    let file = path.as_deref().map(File::read).transpose()?.map(Arc::new);
    // Some defaults depend on it.
    let raised = partial_sync_server::raise_descriptor_limit();
    let mut configured = Configured::default();
    if let Err(error) = raised {
        let warning = format!("the limit of open files could not be raised: {error}");
        configured.warnings.push(warning);
    }
    let is_flag = |id| given.value_source(id) == Some(ValueSource::CommandLine);
    if is_flag("auth_token") {
        configured.warnings.push(secret::IS_SEEN.to_owned());
    }
    let mut added = Vec::new();
    if let Some(file) = &file {
        for entry in &file.entries {
            match &entry.section {
                Some(section) => set_limit(file, section, entry, serve, &mut configured.tuning)?,
                None => {
                    let argument = settings(serve).find(|argument| name_of(argument) == entry.key);
                    let argument = argument.ok_or_else(|| unknown(file, entry, serve))?;
                    let flag = as_flag(file, entry, argument)?;
                    if !is_flag(argument.get_id().as_str()) && variable_of(&entry.key).is_none() {
                        added.push(flag);
                    }
                }
            }
        }
        let known = Tuning::sections();
        if let Some((name, line)) = file
            .sections
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            let problem = format!(
                "there is no section [{}], but {}",
                name.escape_debug(),
                known.join(", ")
            );
            return Err(file.wrong(Some(*line), problem));
        }
        configured.warnings.extend(warning(file));
    }
    let parse = |added: &mut dyn Iterator<Item = &Added>| {
        let mut all = words.clone();
        // After the names of the program and the command.
        all.splice(2..2, added.flat_map(|added| added.words.clone()));
        command.clone().try_get_matches_from(all)
    };
    let matches = match (parse(&mut added.iter()), &file) {
        (Ok(matches), _) => matches,
        (Err(error), None) => error.exit(),
        (Err(error), Some(file)) => {
            let is_to_blame = |at: &usize| {
                let others = added[..*at].iter().chain(&added[at + 1..]);
                is_named(&error, &added[*at].key) || parse(&mut { others }).is_ok()
            };
            let Some(at) = (0..added.len()).find(is_to_blame) else {
                error.exit()
            };
            let Added { key, line, .. } = &added[at];
            return Err(file.wrong(Some(*line), format!("{key}: {}", in_one_line(&error))));
        }
    };
    let mut program = from_matches(&matches);
    if let (arguments::Command::Serve(settings), Some(matches)) =
        (&mut program.command, matches.subcommand_matches("serve"))
    {
        configured.effective = effective::text(serve, matches, &added, &configured.tuning);
        configured.file = file.as_ref().map(Arc::clone);
        configured.written = written(serve, matches, file.as_deref(), &added);
        settings.configured = configured;
    }
    Ok(program)
}

/// How each setting that was given was written, which errors about it begin with.
fn written(
    serve: &Command,
    matches: &ArgMatches,
    file: Option<&File>,
    added: &[Added],
) -> Vec<(String, String)> {
    let written = settings(serve).filter_map(|argument| {
        let key = name_of(argument);
        let in_file = added.iter().find(|added| added.key == key).zip(file);
        let written = match (
            in_file,
            matches.value_source(argument.get_id().as_str()),
            variable_of(key),
        ) {
            (Some((added, file)), ..) => format!("{}:{}: {key}", file.path.display(), added.line),
            (None, Some(ValueSource::CommandLine), _) => format!("--{key}"),
            (None, _, Some(variable)) => variable.to_owned(),
            (None, ..) => return None,
        };
        Some((key.to_owned(), written))
    });
    written.collect()
}

fn from_matches(matches: &ArgMatches) -> Program {
    Program::from_arg_matches(matches).unwrap_or_else(|error| error.exit())
}

fn set_limit(
    file: &File,
    section: &str,
    entry: &Entry,
    serve: &Command,
    tuning: &mut Tuning,
) -> Result<(), CliError> {
    let key = &entry.key;
    let set = tuning.set(section, key, &entry.value);
    set.ok_or_else(|| unknown(file, entry, serve))?
        .map_err(|problem| file.wrong(Some(entry.line), format!("{section}.{key}: {problem}")))
}

/// What was probably meant: a key of another section, or one that is spelled nearly so.
fn unknown(file: &File, entry: &Entry, serve: &Command) -> CliError {
    let flags = settings(serve).map(|argument| (String::new(), name_of(argument).to_owned()));
    let limits = Tuning::default().shown();
    let limits = limits
        .into_iter()
        .map(|(section, key, _)| (format!("{section}."), key));
    let (own, others): (Vec<_>, Vec<_>) = flags.chain(limits).partition(|(section, _)| {
        section.trim_end_matches('.') == entry.section.as_deref().unwrap_or_default()
    });
    let find = |among: &[(String, String)]| {
        let names: Vec<_> = among.iter().map(|(_, key)| key.as_str()).collect();
        let meant = nearest(&entry.key, &names)?;
        let (section, key) = among.iter().find(|(_, key)| key == meant)?;
        Some(format!("{section}{key}"))
    };
    let name = match &entry.section {
        Some(section) => format!("{section}.{}", entry.key),
        None => entry.key.clone(),
    };
    let hint = match find(&own).or_else(|| find(&others)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`partial-sync serve --check-config` prints the keys that there are".to_owned(),
    };
    file.wrong(
        Some(entry.line),
        format!("there is no key `{}`; {hint}", name.escape_debug()),
    )
}

/// A secret belongs into a file that others cannot read.
fn warning(file: &File) -> Option<String> {
    let is_secret = |entry: &&Entry| entry.section.is_none() && SECRETS.contains(&entry.key.as_str());
    let secret = file.entries.iter().find(is_secret).filter(|_| file.is_open)?;
    Some(format!(
        "{}:{}: {} is a secret, and everybody on this machine can read the file: chmod o-r, or put the secret into a file of its own and \
         give that file's path",
        file.path.display(),
        secret.line,
        secret.key
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in the documentation, the example and the program are the same.
    #[test]
    fn every_flag_and_key_is_documented_and_in_the_example_with_its_default() {
        let page = include_str!("../../../../docs/server.md");
        let example = include_str!("../../../../examples/server/partial-sync.toml");
        let mut command = Program::command();
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        let matches = command.clone().get_matches_from(["partial-sync", "serve"]);
        let matches = matches.subcommand_matches("serve").unwrap();
        let effective = effective::text(serve, matches, &[], &Tuning::default());
        for argument in serve.get_arguments().filter_map(|argument| argument.get_long()) {
            let flag = format!("--{argument}");
            let is_named = page
                .split(&flag)
                .skip(1)
                .any(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '-'));
            assert!(
                is_named || argument == "help",
                "docs/server.md does not have {flag}"
            );
        }
        for (section, key, _) in Tuning::default().shown() {
            let field = key.replace('-', "_");
            let is_named = [format!("`{field}`"), format!("::{field}`")];
            assert!(
                is_named.iter().any(|name| page.contains(name)),
                "docs/server.md does not have {section}.{key}"
            );
        }
        // Each line of the settings in effect: key, and value if there is a default.
        let mut section = "";
        for line in effective.lines().filter(|line| !line.is_empty()) {
            if line.starts_with('[') {
                section = line;
                continue;
            }
            let plain = line.trim_start_matches("# ");
            let key = plain.split(' ').next().unwrap();
            let part = match example.split_once(section) {
                Some((before, _)) if section.is_empty() => before.len()..example.find("\n[").unwrap(),
                Some((before, after)) => {
                    before.len()..before.len() + section.len() + after.find("\n[").unwrap_or(after.len())
                }
                None => panic!("the example does not have {section}"),
            };
            let mut lines = example[part].lines();
            let found = lines.find(|line| line.trim_start_matches('#').split(" =").next() == Some(key));
            let found = found.unwrap_or_else(|| panic!("the example does not have {section} {key}"));
            // Where the process may have few descriptors, there are fewer of these.
            let fewer = [
                "concurrent-requests",
                "caller-requests",
                "batons",
                "caller-batons",
                "idle-connections",
            ];
            if found.starts_with('#') && !line.starts_with('#') && !fewer.contains(&key) {
                let default = line.split("  # ").next().unwrap();
                assert_eq!(found.trim_start_matches('#'), default);
            }
        }
    }

    /// A value of another setting is printed.
    #[test]
    fn what_is_a_secret_is_known() {
        let mut command = Program::command();
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        for argument in settings(serve) {
            let name = name_of(argument);
            let is_path =
                argument.get_value_parser().type_id() == clap::builder::ValueParser::path_buf().type_id();
            let looks_secret = ["token", "key", "secret", "password"]
                .iter()
                .any(|word| name.contains(word));
            assert!(
                !looks_secret || is_path || SECRETS.contains(&name) || !argument.get_action().takes_values(),
                "{name}"
            );
        }
    }
}
