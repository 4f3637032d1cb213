//! How languages spell options, and what a misspelled name was meant to be.

/// A language that options are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// JavaScript. Every name may be written in snake_case too.
    Node,
    /// Python.
    Python,
    /// Go.
    Go,
    /// C.
    C,
    /// Rust.
    Rust,
    /// The program `partial-sync`.
    Program,
}

impl Language {
    /// The language of this name: `"go"`.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "node" => Self::Node,
            "python" => Self::Python,
            "go" => Self::Go,
            "c" => Self::C,
            "rust" => Self::Rust,
            _ => return None,
        })
    }

    /// How a client that has no name of its own is called on the remote.
    pub const fn client_name(self) -> &'static str {
        match self {
            Self::Node => "turso-sync-js",
            Self::Python => "turso-sync-py",
            Self::Go => "turso-sync-go",
            Self::C | Self::Rust => "partial-sync",
            Self::Program => "partial-sync-cli",
        }
    }

    /// The call that gives a local change up, which error texts name.
    pub(super) const fn discard_change(self) -> &'static str {
        match self {
            Self::Node => "discardChange",
            Self::Go => "DiscardChange",
            Self::Python | Self::Rust => "discard_change",
            Self::C => "partial_sync_discard_change",
            Self::Program => "partial-sync discard",
        }
    }

    /// Whether a time of this name is in seconds.
    pub fn is_in_seconds(self, name: &str) -> bool {
        self == Self::Python && !name.ends_with("_ms") && !name.ends_with("milliseconds")
    }
}

/// The known name that one that is not known was probably meant to be, if any is close.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let name = plain(name);
    let (far, near) = (known.iter())
        .map(|known| (distance(&name, &plain(known)), *known))
        .min_by_key(|(far, _)| *far)?;
    (far <= (name.len() / 3).max(1)).then_some(near)
}

/// Without what people write differently.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// How many letters are to be changed. One that begins or ends as the other does is meant rather than one of the same length.
fn distance(a: &str, b: &str) -> usize {
    const WORD: usize = 3;
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let is_part = short.len() >= WORD && (long.starts_with(short) || long.ends_with(short));
    match strsim::osa_distance(a, b) {
        0 => 0,
        _ if is_part => 1,
        far => far,
    }
}
