//! The engine's table of options (docs/options.md), for libraries in other languages that stand on this one and spell options in
//! their own way.

use std::ffi::c_char;

use partial_sync::options::{ALL, Given, Language, OptionError, OptionSpec};

use crate::{
    boundary::{Result, misuse, optional_text, text},
    call::call,
    error::{PartialSyncCode, PartialSyncError},
};

/// The language, and an option's name without the question mark of a data source name.
unsafe fn named<'a>(language: *const c_char, name: *const c_char) -> Result<(Language, &'a str, &'a str)> {
    // SAFETY: by the rules of the boundary.
    let (language, name) = unsafe { (text(language, "the language")?, text(name, "the name")?) };
    match Language::of_name(language) {
        Some(language) => Ok((language, name, name.trim_start_matches('?'))),
        None => misuse(format!("{language:?} is not a language that spells options")),
    }
}

/// Checks the value of an option as another language spells it: `text`, or where that is NULL `number`. The error is the one that
/// every language has for it; of an option that is not known it names the one that was probably meant.
///
/// `language` is `"go"`, `"node"`, `"python"`, `"c"` or `"rust"`. For libraries that stand on this one; `partial_sync_open` checks
/// a config by itself.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn partial_sync_option_check(
    language: *const c_char,
    name: *const c_char,
    text: *const c_char,
    number: i64,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let (language, name, called) = unsafe { named(language, name)? };
        let Some(option) = OptionSpec::find(language, name) else {
            return Err(unknown(language, name, called).into());
        };
        // SAFETY: by the rules of the boundary.
        match unsafe { optional_text(text, "the text")? } {
            Some(text) => option.check(language, called, Given::Text(text), format_args!("{text:?}"))?,
            None => option.check(language, called, Given::Whole(number.into()), number)?,
        }
        Ok(())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// Fails with the error about two names of one option that were given with different values.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn partial_sync_option_same(
    first: *const c_char,
    second: *const c_char,
    error: *mut *mut PartialSyncError,
) -> PartialSyncCode {
    let body = || {
        // SAFETY: by the rules of the boundary.
        let (first, second) = unsafe { (text(first, "the first name")?, text(second, "the second name")?) };
        let (first, second) = (first.to_owned(), second.to_owned());
        Err(OptionError::Twice { first, second }.into())
    };
    // SAFETY: by the rules of the boundary.
    unsafe { call(error, body) }
}

/// About a name among those that are given in the same place: in a data source name, or not.
fn unknown(language: Language, name: &str, called: &str) -> OptionError {
    let known: Vec<&str> = (ALL.iter())
        .flat_map(|option| option.spelled(language))
        .filter(|known| known.starts_with('?') == name.starts_with('?'))
        .map(|known| known.trim_start_matches('?'))
        .collect();
    OptionError::unknown(called, "", &known)
}
