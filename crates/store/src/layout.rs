//! How the objects of a database are called, under its prefix.
//!
//! Litestream calls them so: `0000/<min>-<max>.ltx` on S3, `ltx/0/<min>-<max>.ltx` elsewhere. Names are made and read here and
//! nowhere else.

use std::fmt;

use partial_sync_ltx::{TxId, TxRange};

/// How levels are written in names, which depends on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `0000`: what Litestream does on S3.
    S3,
    /// `ltx/0`: on GCS, Azure and in folders.
    Plain,
}

/// A level of the log: 0 has one transaction in each file, 1 to 8 have compactions, 9 has snapshots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// One transaction in each file.
    pub const COMMITS: Self = Self(0);
    /// Whole databases.
    pub const SNAPSHOTS: Self = Self(9);

    /// The level `n`; `None` above 9.
    pub const fn new(n: u8) -> Option<Self> {
        match n <= Self::SNAPSHOTS.0 {
            true => Some(Self(n)),
            false => None,
        }
    }

    /// The number, 0 to 9.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The level that this one is compacted into; `None` for that of snapshots, and the one below it.
    pub(crate) fn above(self) -> Option<Self> {
        Self::new(self.0 + 1).filter(|above| *above < Self::SNAPSHOTS)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}", self.0)
    }
}

/// Which file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileName {
    /// Its level.
    pub level: Level,
    /// Its transactions.
    pub ids: TxRange,
}

impl FileName {
    /// Level 0's file of a transaction.
    pub(crate) const fn commit(id: TxId) -> Self {
        Self {
            level: Level::COMMITS,
            ids: TxRange::one(id),
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {} {}", self.level, self.ids)
    }
}

impl Layout {
    /// The folder of a level.
    pub(crate) fn folder(self, level: Level) -> String {
        match self {
            Self::S3 => format!("{:04x}", level.0),
            Self::Plain => format!("ltx/{}", level.0),
        }
    }

    /// The name of a file.
    pub(crate) fn file(self, name: FileName) -> String {
        format!("{}/{}", self.folder(name.level), name.ids.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_litestream_calls_them() {
        let ids = TxRange::new(TxId::new(1).unwrap(), TxId::new(255).unwrap()).unwrap();
        let name = |level| FileName {
            level: Level::new(level).unwrap(),
            ids,
        };
        assert_eq!(
            Layout::S3.file(name(0)),
            "0000/0000000000000001-00000000000000ff.ltx"
        );
        assert_eq!(
            Layout::S3.file(name(9)),
            "0009/0000000000000001-00000000000000ff.ltx"
        );
        assert_eq!(
            Layout::Plain.file(name(0)),
            "ltx/0/0000000000000001-00000000000000ff.ltx"
        );
        assert_eq!(Layout::Plain.folder(Level::SNAPSHOTS), "ltx/9");
        assert_eq!(Level::new(10), None);
        assert_eq!(Level::new(7).unwrap().above(), Level::new(8));
        assert_eq!(Level::new(8).unwrap().above(), None);
    }
}
