//! The settings that are in effect, as a configuration file that sets each of them would be written, and where they come from.

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use crate::secret;

use super::{
    flags::{Added, SECRETS, name_of, settings, variable_of},
    tuning::Tuning,
};

/// Without secrets.
pub(super) fn text(serve: &Command, matches: &ArgMatches, added: &[Added], tuning: &Tuning) -> String {
    let mut text = String::new();
    for argument in settings(serve) {
        let key = name_of(argument);
        let in_file = added.iter().find(|added| added.key == key);
        let origin = match (
            in_file,
            variable_of(key),
            matches.value_source(argument.get_id().as_str()),
        ) {
            (Some(added), ..) => format!("line {}", added.line),
            (None, _, Some(ValueSource::CommandLine)) => "flag".to_owned(),
            (None, Some(variable), _) => {
                text += &format!("# {key} is set by {variable}\n");
                continue;
            }
            (None, None, Some(_)) => "default".to_owned(),
            (None, None, None) => {
                text += &format!("# {key} is not set\n");
                continue;
            }
        };
        text += &match SECRETS.contains(&key) {
            true => format!("# {key} is set, and not shown here"),
            false => format!("{key} = {}", value_of(argument, matches)),
        };
        text += &format!("  # {origin}\n");
    }
    for variable in secret::OF_NO_FLAG
        .iter()
        .filter(|name| std::env::var_os(name).is_some())
    {
        text += &format!("# {variable} is set, and not shown here\n");
    }
    let mut last = "";
    for (section, key, value) in tuning.shown() {
        if section != last {
            text += &format!("\n[{section}]\n");
            last = section;
        }
        text += &match value {
            Some(value) => format!("{key} = {value}\n"),
            None => format!("# {key} is not set\n"),
        };
    }
    text
}

fn value_of(argument: &Arg, matches: &ArgMatches) -> String {
    let raw = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
    let texts: Vec<_> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
    let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
    match (argument.get_action(), texts.first()) {
        (ArgAction::Append, _) => format!("[{}]", texts.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        (ArgAction::SetTrue, Some(text)) => text.clone(),
        (_, Some(text)) if text.parse::<u64>().is_ok() => text.clone(),
        (_, Some(text)) => quoted(text),
        (_, None) => "\"\"".to_owned(),
    }
}
