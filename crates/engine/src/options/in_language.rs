//! What error texts name, as the reader's language calls it: the engine writes them with the names that Rust has.

use super::{
    spec::OptionSpec,
    spelling::Language,
    table::{ACCEPT_NEW_URL, BOOTSTRAP_IF_EMPTY},
};

/// The options that error texts name.
const OPTIONS: [&OptionSpec; 2] = [&ACCEPT_NEW_URL, &BOOTSTRAP_IF_EMPTY];

/// An error text of the engine as a user of this language reads it.
///
/// ```
/// use partial_sync::options::{Language, in_language};
/// let text = "say so with accept_new_url, or call discard_change(7)";
/// assert_eq!(in_language(text, Language::Go), "say so with AcceptNewUrl, or call DiscardChange(7)");
/// ```
pub fn in_language(text: &str, language: Language) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        said.push_str(called(word, language).unwrap_or(word));
        let (between, next) = after.split_at(after.find(is_name).unwrap_or(after.len()));
        said.push_str(between);
        rest = next;
    }
    said
}

fn called(word: &str, language: Language) -> Option<&'static str> {
    if word == "discard_change" {
        return Some(language.discard_change());
    }
    let option = OPTIONS.iter().find(|option| option.rust.contains(&word))?;
    option.spelled(language).first().copied()
}
