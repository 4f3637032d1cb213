//! The pages of a database file, through SQLite, as any other program reads it: whether it is being served makes no difference.
//!
//! What must never happen here: that pages of two states are given.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::error::CliError;

/// Gives each page and its number, from 1 up.
pub(crate) fn read(
    path: &Path,
    timeout: Duration,
    mut each: impl FnMut(u32, &[u8]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let failed = |source: rusqlite::Error| {
        let path = path.to_owned();
        match source.sqlite_error().map(|error| error.extended_code) {
            Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK) => CliError::HotJournal { path },
            _ => CliError::Source { path, source },
        }
    };
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    db.busy_timeout(timeout).map_err(failed)?;
    // One statement is one read transaction.
    let mut pages = db
        .prepare("SELECT pgno, data FROM sqlite_dbpage ORDER BY pgno")
        .map_err(failed)?;
    let mut rows = pages.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let number: u32 = row.get(0).map_err(failed)?;
        let page = row
            .get_ref(1)
            .and_then(|page| Ok(page.as_blob()?))
            .map_err(failed)?;
        each(number, page)?;
    }
    Ok(())
}
