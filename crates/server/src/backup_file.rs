//! What tells a backup from a database that somebody uses: a mark in its header.
//!
//! The mark is where SQLite notes which version of it has written to a file last (and which it never reads). Every write transaction
//! notes that, and the one that puts a file into WAL mode is one: a backup that anybody has written to, or that came to be a database, has
//! the mark no more. What happens to a backup that only was read leaves it one.

use std::{os::unix::fs::FileExt as _, path::Path};

use partial_sync_core::header::{HEADER_LEN, Page1, RESERVED_AT, WAL_MODE, WRITER, set_versions};
use partial_sync_vfs::side_file_path;

use crate::descriptors::Descriptor;

const MARK: [u8; 4] = *b"bkup";
const ROLLBACK_MODE: [u8; 2] = [1, 1];

/// What is beside a file that is in use, and not beside a backup.
const IN_USE: [&str; 8] = [
    "-wal",
    "-shm",
    "-journal",
    "-history",
    "-lock",
    "-info",
    "-pages",
    "-replica-wal",
];

/// Makes the first page of a database that of a backup. It needs nothing beside it then: a database in WAL mode makes a WAL when it
/// is looked at, which some folders do not allow.
pub fn seal(first: &mut [u8]) {
    // Bytes that SQLite leaves alone may be the page's checksum, and then no byte can be changed.
    let Ok(header) = Page1::of(first) else { return };
    if first[RESERVED_AT] != 0 {
        return;
    }
    if header.versions() == WAL_MODE {
        set_versions(first, 0, ROLLBACK_MODE);
    }
    first[WRITER].copy_from_slice(&MARK);
}

/// Makes a backup a database again, which this program has written.
pub(crate) fn unseal(header: &mut [u8; HEADER_LEN]) {
    if header[WRITER] == MARK {
        let version = u32::try_from(rusqlite::version_number()).unwrap_or_default();
        header[WRITER].copy_from_slice(&version.to_be_bytes());
    }
}

/// Whether a file is a backup to which nobody has written, or is empty: nothing is lost with it.
pub fn is_backup(path: &Path) -> std::io::Result<bool> {
    // Opening a pipe would wait for who writes to it.
    if !path.metadata()?.is_file() {
        return Ok(false);
    }
    let mut header = [0; HEADER_LEN];
    // This process may have it open through SQLite.
    let length = Descriptor::open(path)?.file().read_at(&mut header, 0)?;
    let header = &header[..length];
    let is_used = IN_USE.iter().any(|suffix| side_file_path(path, suffix).exists());
    Ok(!is_used && (header.is_empty() || header.get(WRITER) == Some(&MARK[..])))
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, fallible_iterator::FallibleIterator as _};

    use super::*;

    /// Whatever writes to a backup, and however.
    #[test]
    fn a_backup_that_somebody_has_written_to_is_none_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
            .unwrap();
        drop(db);
        let mut backup = std::fs::read(&path).unwrap();
        assert!(!is_backup(&path).unwrap());
        seal(&mut backup);
        for (sql, stays) in [
            ("SELECT * FROM t", true),
            ("PRAGMA integrity_check", true),
            ("BEGIN IMMEDIATE; UPDATE t SET v = 2; ROLLBACK", true),
            ("UPDATE t SET v = 2", false),
            ("PRAGMA journal_mode=OFF; UPDATE t SET v = 2", false),
            ("PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET v = 2", false),
            ("PRAGMA user_version=7", false),
            ("VACUUM", false),
            ("PRAGMA journal_mode=WAL", false),
            ("PRAGMA journal_mode=WAL; PRAGMA journal_mode=DELETE", false),
            ("BEGIN; DELETE FROM t; COMMIT", false),
        ] {
            std::fs::write(&path, &backup).unwrap();
            assert!(is_backup(&path).unwrap());
            let db = Connection::open(&path).unwrap();
            let mut batch = rusqlite::Batch::new(&db, sql);
            while let Some(mut statement) = batch.next().unwrap() {
                let mut rows = statement.query([]).unwrap();
                while rows.next().unwrap().is_some() {}
            }
            drop(db);
            assert_eq!(is_backup(&path).unwrap(), stays, "{sql}");
        }
    }

    #[test]
    fn what_is_beside_a_file_or_in_it_makes_it_no_backup() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        for (contents, is) in [(&b""[..], true), (b"hello", false), (&[0; 4096], false)] {
            std::fs::write(&path, contents).unwrap();
            assert_eq!(is_backup(&path).unwrap(), is);
        }
        std::fs::write(&path, "").unwrap();
        std::fs::write(side_file_path(&path, "-journal"), "x").unwrap();
        assert!(!is_backup(&path).unwrap());
    }

    #[test]
    fn a_page_with_a_checksum_stays_as_it_is() {
        let mut page = partial_sync_core::header::empty_page_1(partial_sync_core::PageSize::DEFAULT);
        page[RESERVED_AT] = 8;
        let before = page.clone();
        seal(&mut page);
        assert_eq!(page, before);
    }
}
