//! What is said of pages and of whom they belong to.

use partial_sync_core::PageNo;
use serde::Serialize;

pub(super) const NO_OWNER: u32 = u32::MAX;

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageAt {
    /// Only on the remote.
    Absent,
    /// Here, as the remote has it at the base revision.
    Present,
    /// Here, written by a local transaction since the base revision.
    Dirty,
}

/// What a page is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PageRole {
    /// Not known: the page is absent, or nothing that is here leads to it.
    #[default]
    Unknown,
    /// Leads to other pages of its B-tree.
    Interior,
    /// Holds rows or index entries.
    Leaf,
    /// Holds the rest of a row that is too long for its page.
    Overflow,
    /// Holds nothing, or the list of pages that do.
    Free,
    /// Says which page leads to which, in a database with auto-vacuum.
    PointerMap,
    /// Where SQLite takes its locks; never stored.
    LockByte,
}

/// One page of a [`PageMapView`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageView {
    /// Where it is.
    pub at: PageAt,
    /// What it is for.
    pub role: PageRole,
    pub(super) owner: u32,
}

impl PageView {
    /// Index into [`PageMapView::owners`]; `None` when nothing that is here says whose page it is.
    pub fn owner(self) -> Option<usize> {
        (self.owner != NO_OWNER).then_some(self.owner as usize)
    }
}

/// What kind of thing pages belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    /// `sqlite_schema`, whose tree begins on page 1.
    Schema,
    /// A table.
    Table,
    /// An index.
    Index,
    /// Pages that hold nothing.
    Freelist,
    /// Pointer-map and lock-byte pages.
    Housekeeping,
}

/// A table, an index, or what else pages belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The name in the schema.
    pub name: String,
    /// The table: for an index the one that it is on.
    pub table: String,
    /// What it is.
    pub kind: OwnerKind,
    /// The page at which its tree begins.
    pub root: Option<u32>,
    /// Pages that are here and clean.
    pub present: u32,
    /// Pages written locally.
    pub dirty: u32,
    /// Pages known to belong to it that are absent. There may be more behind them.
    pub absent: u32,
    /// Whether every page of it is known: none is absent or damaged.
    pub complete: bool,
}

impl Owner {
    /// Pages known to belong to it.
    pub fn known(&self) -> u32 {
        self.present + self.dirty + self.absent
    }

    pub(crate) fn new(name: String, table: String, kind: OwnerKind, root: Option<u32>) -> Self {
        Self {
            name,
            table,
            kind,
            root,
            present: 0,
            dirty: 0,
            absent: 0,
            complete: true,
        }
    }
}

/// The page map of a replica with the owners of its pages.
#[derive(Clone, Debug)]
pub struct PageMapView {
    /// Bytes of a page.
    pub page_size: u32,
    /// The revision of the remote at which absent pages are fetched.
    pub revision: String,
    /// Whom pages belong to: the schema first, then tables and indexes in the order of the schema.
    pub owners: Vec<Owner>,
    pub(super) pages: Vec<PageView>,
}

impl PageMapView {
    /// Every page, page 1 first.
    pub fn pages(&self) -> &[PageView] {
        &self.pages
    }

    /// Pages of the database.
    pub fn total(&self) -> u32 {
        self.pages.len() as u32
    }

    /// How many pages are so.
    pub fn count(&self, at: PageAt) -> u32 {
        self.pages.iter().filter(|page| page.at == at).count() as u32
    }

    /// How many pages are so and belong to nobody that is known.
    pub fn unowned(&self, at: PageAt) -> u32 {
        self.pages
            .iter()
            .filter(|page| page.at == at && page.owner().is_none())
            .count() as u32
    }
}

/// Reads pages for the walk; `None` = the page is not here, or cannot be read.
pub(crate) trait ReadPage {
    fn read(&mut self, page: PageNo) -> Option<Vec<u8>>;
}
