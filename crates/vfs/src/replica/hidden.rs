//! What other programs see of the database file. While a page of it is absent, or while the WAL (which is not where they
//! look) has something newer, they must not open it: the read and write versions of its header, bytes 18 and 19 of page 1
//! (<https://www.sqlite.org/fileformat2.html#file_format_version_numbers>), are 3 then, and SQLite says "file is not a
//! database". This project's VFS shows 2 (WAL mode) in their place, whatever they are.
//!
//! A file of which every page is here and nothing is in the WAL is an ordinary one: the versions are 1 (rollback journal), so
//! that every write of another program changes the header's change counter, by which the next open notices it. Before
//! the first byte is written to the WAL again, they are 3 again, durably.

use std::io;

use partial_sync_core::header::{HEADER_LEN, Page1, VERSIONS_AT, WAL_MODE, set_versions};

use crate::storage::StorageFile;

const HIDDEN: [u8; 2] = [3, 3];
pub(super) const ORDINARY: [u8; 2] = [1, 1];

/// The part of a database header that tells whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderKind {
    /// Other programs refuse it.
    Hidden,
    /// Other programs read and write it; each of their writes leaves another mark.
    Ordinary(OrdinaryMark),
    /// Neither; what this project makes of a file only says so in a replica of version 0.1.0.
    Other,
}

/// What an ordinary file looks like until another program writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinaryMark {
    /// The header's file change counter.
    pub change_counter: u32,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Reads what the header of a database file says; `None` when it has no SQLite header.
pub fn header_kind(file: &dyn StorageFile) -> io::Result<Option<HeaderKind>> {
    let mut header = [0; HEADER_LEN];
    let read = file.read_at(&mut header, 0)?;
    let Ok(page_1) = Page1::of(&header[..read]) else {
        return Ok(None);
    };
    Ok(Some(match page_1.versions() {
        HIDDEN => HeaderKind::Hidden,
        ORDINARY => HeaderKind::Ordinary(OrdinaryMark {
            change_counter: page_1.change_counter(),
            bytes: file.len()?,
        }),
        _ => HeaderKind::Other,
    }))
}

/// Makes other programs refuse the file, durably.
pub fn hide_file(file: &dyn StorageFile) -> io::Result<()> {
    file.write_at(&HIDDEN, VERSIONS_AT as u64)?;
    file.sync()
}

/// Page 1 as other programs refuse it, which is how it is stored.
pub fn hidden(page_1: &[u8]) -> Vec<u8> {
    let mut page = page_1.to_vec();
    set_versions(&mut page, 0, HIDDEN);
    page
}

/// Bytes of the main file as SQLite is to see them: of a database in WAL mode, which every replica is in.
pub(super) fn show(bytes: &mut [u8], offset: u64) {
    set_versions(bytes, offset, WAL_MODE);
}

/// The same as [`hidden`] for any bytes of the main file; `None` when they do not hold the versions.
pub(super) fn hide(bytes: &[u8], offset: u64) -> Option<Vec<u8>> {
    let at = VERSIONS_AT as u64;
    (offset < at + 2 && offset + bytes.len() as u64 > at).then(|| {
        let mut bytes = bytes.to_vec();
        set_versions(&mut bytes, offset, HIDDEN);
        bytes
    })
}
