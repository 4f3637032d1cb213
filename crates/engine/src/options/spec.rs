//! What is known of an option, and whether a value may be its own.

use std::fmt;

use super::spelling::{Language, nearest};

/// The largest number that anything here can count.
pub(super) const ENDLESS: u64 = u64::MAX;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Its name in the documentation.
    pub name: &'static str,
    /// What it is, in one line.
    pub text: &'static str,
    /// What may be given.
    pub takes: Takes,
    /// What counts when nothing is given.
    pub default: Default,
    /// Its names in JavaScript. The part before a dot names the object that it is in.
    pub node: &'static [&'static str],
    /// Its keywords in Python. The part before a dot names the class whose field it is.
    pub python: &'static [&'static str],
    /// Its fields in Go; in a data source name, its name after a question mark.
    pub go: &'static [&'static str],
    /// Its fields in C.
    pub c: &'static [&'static str],
    /// The method of the builder, or the field of `PartialSync`.
    pub rust: &'static [&'static str],
    /// The argument of the program.
    pub program: &'static [&'static str],
}

/// What an option may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// A text that is not empty.
    Text,
    /// Any text.
    AnyText,
    /// A text that is not empty, or a function that gives one or nothing.
    TextOrFunction,
    /// Any text, or a function that gives one or nothing.
    AnyTextOrFunction,
    /// A function.
    Function,
    /// True or false.
    Flag,
    /// A whole number in this range.
    Whole {
        /// The smallest one.
        least: u64,
        /// The largest one.
        most: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// A time of at most this many milliseconds. In Python it is in seconds, unless the name ends in `_ms`.
    Time {
        /// The longest one.
        most: u64,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Names in an array.
    Names,
    /// Other options, by name.
    Group,
    /// What the language checks itself.
    Own(&'static str),
    /// An option of another package that would have to be ignored: refused, unless it is false.
    Refused(&'static str),
}

/// What counts when nothing is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// It must be given.
    Required,
    /// Nothing.
    None,
    /// This, in words.
    Words(&'static str),
    /// This number.
    Number(u64),
    /// This.
    Flag(bool),
}

/// A value as a language has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given<'a> {
    /// A text.
    Text(&'a str),
    /// A whole number.
    Whole(i128),
    /// A number of a language that has but one kind of them, or one with a fraction.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A function.
    Function,
    /// Names in an array.
    Names,
    /// Something else.
    Other,
}

/// An invalid option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// There is none of this name.
    #[error("unknown option \"{name}\"{}; {hint}", place(within))]
    Unknown {
        /// The name.
        name: String,
        /// What it was given in.
        within: String,
        /// What was meant, or what there is.
        hint: String,
    },
    /// The value has another type.
    #[error("option \"{name}\" is {shown}; it must be {allowed}")]
    Type {
        /// The option as it is spelled.
        name: String,
        /// The value.
        shown: String,
        /// What may be given.
        allowed: String,
    },
    /// The value is out of range.
    #[error("option \"{name}\" is {shown}; it must be {allowed}")]
    Range {
        /// The option as it is spelled.
        name: String,
        /// The value.
        shown: String,
        /// What may be given.
        allowed: String,
    },
    /// Two names of one option were given with different values.
    #[error(
        "\"{first}\" and \"{second}\" are two names of one option, and were given different values; give one of them"
    )]
    Twice {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// An option that this library cannot follow.
    #[error("option \"{name}\" is not supported: {why}; leave it out")]
    Refused {
        /// The option.
        name: String,
        /// Why.
        why: &'static str,
    },
}

fn place(within: &str) -> String {
    match within {
        "" => String::new(),
        _ => format!(" in \"{within}\""),
    }
}

impl OptionError {
    /// About a name that is not known; `within` is what it was given in, empty at the top.
    pub fn unknown(name: &str, within: &str, known: &[&str]) -> Self {
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("the options are {}", known.join(", ")),
        };
        Self::Unknown {
            name: name.to_owned(),
            within: within.to_owned(),
            hint,
        }
    }

    /// About a value that is out of a range that only one language has.
    pub fn range(name: &str, shown: impl fmt::Display, allowed: &str) -> Self {
        Self::Range {
            name: name.to_owned(),
            shown: shown.to_string(),
            allowed: allowed.to_owned(),
        }
    }
}

impl OptionSpec {
    /// Its names in a language.
    pub const fn spelled(&self, language: Language) -> &'static [&'static str] {
        match language {
            Language::Node => self.node,
            Language::Python => self.python,
            Language::Go => self.go,
            Language::C => self.c,
            Language::Rust => self.rust,
            Language::Program => self.program,
        }
    }

    /// Its default, of an option that counts something.
    pub const fn default_number(&self) -> u64 {
        match self.default {
            Default::Number(number) => number,
            _ => panic!("the option's default is a number"),
        }
    }

    /// Its default, of an option that is true or false.
    pub const fn default_flag(&self) -> bool {
        match self.default {
            Default::Flag(flag) => flag,
            _ => panic!("the option's default is true or false"),
        }
    }

    /// Checks a value. `name` is what errors call the option: its spelling in `language`, as it was given. `shown` is the
    /// value as its language writes it.
    pub fn check(
        &self,
        language: Language,
        name: &str,
        given: Given<'_>,
        shown: impl fmt::Display,
    ) -> Result<(), OptionError> {
        use Given as G;
        let in_seconds = language.is_in_seconds(name) && matches!(self.takes, Takes::Time { .. });
        let verdict = match (self.takes, given) {
            (Takes::Text | Takes::TextOrFunction, G::Text(text)) => in_range(!text.is_empty()),
            (Takes::AnyText | Takes::AnyTextOrFunction, G::Text(_)) => Verdict::Good,
            (Takes::TextOrFunction | Takes::AnyTextOrFunction | Takes::Function, G::Function) => {
                Verdict::Good
            }
            (Takes::Flag, G::Flag(_)) | (Takes::Names, G::Names) => Verdict::Good,
            (Takes::Whole { least, most, .. }, G::Whole(n)) => in_range(holds(least, most, n)),
            (Takes::Whole { least, most, .. }, G::Number(n)) => in_range(is_whole(n, least, most)),
            (Takes::Time { most }, G::Whole(n)) if in_seconds => in_range(is_in_seconds(n as f64, most)),
            (Takes::Time { most }, G::Number(n)) if in_seconds => in_range(is_in_seconds(n, most)),
            (Takes::Time { most }, G::Whole(n)) => in_range(holds(0, most, n)),
            (Takes::Time { most }, G::Number(n)) => in_range(is_whole(n, 0, most)),
            (Takes::OneOf(words), G::Text(text)) => in_range(words.contains(&text)),
            (Takes::Group | Takes::Own(_), _) | (Takes::Refused(_), G::Flag(false)) => Verdict::Good,
            (Takes::Refused(why), _) => {
                return Err(OptionError::Refused {
                    name: name.to_owned(),
                    why,
                });
            }
            _ => Verdict::Type,
        };
        let wrong = || (name.to_owned(), shown.to_string(), self.allowed(in_seconds));
        match verdict {
            Verdict::Good => Ok(()),
            Verdict::Type => {
                let (name, shown, allowed) = wrong();
                Err(OptionError::Type { name, shown, allowed })
            }
            Verdict::Range => {
                let (name, shown, allowed) = wrong();
                Err(OptionError::Range { name, shown, allowed })
            }
        }
    }

    /// What may be given, in words.
    pub fn allowed(&self, in_seconds: bool) -> String {
        match self.takes {
            Takes::Text => "a string that is not empty".into(),
            Takes::AnyText => "a string".into(),
            Takes::TextOrFunction => {
                "a string, or a function that gives one or nothing; not an empty string".into()
            }
            Takes::AnyTextOrFunction => "a string, or a function that gives one or nothing".into(),
            Takes::Function => "a function".into(),
            Takes::Flag => "true or false".into(),
            Takes::Whole { least, most, unit } => whole(unit, least, most),
            Takes::Time { most: ENDLESS } if in_seconds => "a number of seconds, 0 or more".into(),
            Takes::Time { most } if in_seconds => format!("a number of seconds, 0 to {}", most / 1000),
            Takes::Time { most } => whole("milliseconds", 0, most),
            Takes::OneOf(words) => format!("one of '{}'", words.join("', '")),
            Takes::Names => "an array of names".into(),
            Takes::Group => "options by name".into(),
            Takes::Own(words) => words.into(),
            Takes::Refused(_) => "false".into(),
        }
    }
}

enum Verdict {
    Good,
    Type,
    Range,
}

fn in_range(is: bool) -> Verdict {
    match is {
        true => Verdict::Good,
        false => Verdict::Range,
    }
}

fn holds(least: u64, most: u64, number: i128) -> bool {
    (i128::from(least)..=i128::from(most)).contains(&number)
}

/// Whether a number is whole, exact, and in range.
fn is_whole(number: f64, least: u64, most: u64) -> bool {
    const EXACT: f64 = 9_007_199_254_740_991.0;
    number.fract() == 0.0 && number.abs() <= EXACT && holds(least, most, number as i128)
}

fn is_in_seconds(seconds: f64, most: u64) -> bool {
    seconds >= 0.0 && seconds * 1000.0 <= most as f64
}

fn whole(unit: &str, least: u64, most: u64) -> String {
    match most {
        ENDLESS => format!("a whole number of {unit}, {least} or more"),
        _ => format!("a whole number of {unit}, {least} to {most}"),
    }
}
