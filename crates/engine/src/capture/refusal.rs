//! What a replica refuses to run.

use crate::error::Error;

/// Why a statement is refused on a replica: what it is, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub what: String,
    pub advice: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Unsupported {
            what: refusal.what,
            why: refusal.advice,
        }
    }
}
