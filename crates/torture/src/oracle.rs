//! What is allowed: which errors a call may end with, given what was done to the line, the revisions and the disk. Whatever
//! is not allowed here is a failure of the history.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use partial_sync::Error;
use partial_sync_transport::RemoteErrorKind;

/// Why a history failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Names the failure without what differs from one run to the next: shrinking keeps it.
    pub kind: String,
    /// For a person.
    pub detail: String,
}

impl Failure {
    /// A failure; numbers and quoted texts of `kind` are left out.
    pub fn new(kind: impl AsRef<str>, detail: impl Into<String>) -> Self {
        Self {
            kind: plain(kind.as_ref()),
            detail: detail.into(),
        }
    }
}

/// What a step comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The model does not know what should happen.
pub(crate) const UNDECIDED: &str = "undecided";

/// A failure of the laboratory itself.
pub(crate) fn lab(e: impl std::fmt::Display) -> Failure {
    Failure::new(format!("laboratory: {e}"), e.to_string())
}

/// Failures that are known and looked past, by a part of their kind. Only those after which a history can continue.
pub static IGNORED: OnceLock<Vec<String>> = OnceLock::new();

/// Fails, unless this failure is looked past.
pub fn unless_ignored(failure: Failure) -> Outcome {
    match IGNORED
        .get()
        .is_some_and(|ignored| ignored.iter().any(|part| failure.kind.contains(part)))
    {
        true => Ok(()),
        false => Err(failure),
    }
}

/// Leaves out digits, paths and what is quoted.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_ascii_digit()).collect();
        if word.contains('/') || word.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out.chars().take(160).collect()
}

/// What may explain an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excuses {
    /// A request suffered something.
    pub line: bool,
    /// The revision that the caller reads at is gone from the remote.
    pub expired: bool,
    /// Somebody else may have a lock.
    pub busy: bool,
    /// It was cancelled.
    pub cancelled: bool,
    /// It is a statement, which may be refused.
    pub statement: bool,
}

/// What an error says when a pull has left the replica unusable.
pub const POISONED: &str = "cannot be used until its last pull is finished";
/// What an error says when a pull kept somebody waiting for too long.
pub const GATED: &str = "a pull is being applied";

/// Whether an error is one that the documentation allows here.
pub fn is_allowed(error: &Error, excuses: Excuses) -> bool {
    let text = error.to_string();
    if text.contains(POISONED) || text.contains(GATED) {
        return false;
    }
    if let Some(remote) = error.remote() {
        return match remote.kind {
            RemoteErrorKind::RevisionExpired => excuses.expired,
            _ => excuses.line,
        };
    }
    match error {
        Error::Sqlite(e) if matches!(e.code(), 5 | 6) => excuses.busy,
        Error::SyncBusy { .. } => excuses.busy,
        Error::Unsupported { .. } => excuses.statement,
        Error::Interrupted { .. } => excuses.cancelled,
        // What a push says when the answers got lost on the way, or where a put-back has to come first.
        Error::Unsendable { message, .. } => excuses.line || message.contains("pull first"),
        _ if error.is_interrupted() => excuses.cancelled,
        _ if error.is_transient() => excuses.line,
        _ => false,
    }
}

/// Runs something of the engine; a panic is a failure.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (_, Some(text)) => (*text).to_owned(),
            _ => "without a text".to_owned(),
        };
        Failure::new(format!("panic: {text}"), text)
    })
}

/// A failure of a call that should not have failed.
pub(crate) fn refused(what: &str, error: &Error) -> Failure {
    let text = error.to_string();
    let kind = match error.remote() {
        _ if text.contains(POISONED) => "the last pull is not finished".to_owned(),
        _ if text.contains(GATED) => "a pull keeps it waiting".to_owned(),
        Some(remote) => format!("{:?}", remote.kind),
        None => text.chars().take(90).collect(),
    };
    Failure::new(format!("{what}: {kind}"), text)
}
