//! How the states of a database are numbered, and named for clients.

use std::fmt;

use partial_sync_core::{PageCount, Revision};

/// Counts the revisions of one generation, from 1 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The one that a history begins with.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one life of a history, drawn at random when it is made: a revision of another life is unknown, never mistaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The revision as clients see it.
    pub fn revision(self, seq: Seq) -> Revision {
        Revision::new(format!("{self}-{seq}")).expect("the text is not empty")
    }

    /// Reads a revision that a client sent; `None` if this life of the history cannot have made it.
    pub fn parse(self, revision: &Revision) -> Option<Seq> {
        let (generation, seq) = revision.as_str().split_once('-')?;
        let seq = seq.parse().ok().map(Seq).filter(|seq| seq.0 > 0)?;
        (self.revision(seq) == *revision && generation.len() == 16).then_some(seq)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A revision that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Its number.
    pub seq: Seq,
    /// Size of the database.
    pub db_size: PageCount,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_back_by_its_own_generation_only() {
        let (ours, other) = (Generation(0xab), Generation(0xac));
        let revision = ours.revision(Seq(7));
        assert_eq!(revision.as_str(), "00000000000000ab-7");
        assert_eq!(ours.parse(&revision), Some(Seq(7)));
        assert_eq!(other.parse(&revision), None);
        for wrong in [
            "7",
            "ab-7",
            "00000000000000ab-07",
            "00000000000000ab-0",
            "00000000000000ab--7",
            "-",
            "{}",
        ] {
            assert_eq!(ours.parse(&Revision::new(wrong).unwrap()), None, "{wrong}");
        }
    }
}
