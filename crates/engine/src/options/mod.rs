//! What a database can be opened with, defined once for every language: names, types, ranges, defaults. The bindings look an
//! option up here, and what they say about one that is misspelled or out of range is said here.

mod in_language;
mod spec;
mod spelling;
mod table;

pub use in_language::in_language;
pub use spec::{Default, Given, OptionError, OptionSpec, Takes};
pub use spelling::{Language, nearest};
pub use table::*;

impl OptionSpec {
    /// The option that a language spells so.
    pub fn find(language: Language, spelling: &str) -> Option<&'static Self> {
        (ALL.iter()).find(|option| option.spelled(language).contains(&spelling))
    }
}

#[cfg(test)]
mod tests;
