//! The tables of the page history, and what is read and written in them by more than one of its operations.
//!
//! ```text
//! meta(key, value)                        format, generation, page_size, position, position_seq, log_nodes
//! revisions(seq, time, db_size, bytes, lost)   the kept revisions; the lowest seq is the oldest that can be asked for
//! preimages(id, page, seq, data)          what `page` was before revision `seq`: its bytes, compressed when that makes
//!                                         them fewer; NULL when it was not there, or lost (revisions.lost)
//! hashes(page, hash)                      the pages of the latest revision; see `comparing`, whose tables are here too
//! ```

use bytes::Bytes;
use partial_sync_core::PageCount;
use roaring::RoaringBitmap;
use rusqlite::{Connection, OptionalExtension, params};
use zstd::bulk::Compressor;

use crate::error::HistoryError;
use crate::history::{
    comparing::{self, in_gap},
    revision::{RevisionRecord, Seq},
};

pub(super) const FORMAT: i64 = 2;
/// Of 0.1.0, where every page was compared before a revision was made.
const FORMAT_WITHOUT_COMPARISONS: i64 = 1;
pub(super) const COMPRESSION: i32 = 1;
pub(super) const SET_HASH: &str = "REPLACE INTO hashes(page, hash) VALUES (?, ?)";
pub(super) const UNSET_HASH: &str = "DELETE FROM hashes WHERE page = ?";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS revisions(
        seq INTEGER PRIMARY KEY, time INTEGER NOT NULL, db_size INTEGER NOT NULL,
        bytes INTEGER NOT NULL, lost INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS revisions_by_time ON revisions(time);
    CREATE INDEX IF NOT EXISTS revisions_lost ON revisions(seq) WHERE lost;
    CREATE TABLE IF NOT EXISTS preimages(
        id INTEGER PRIMARY KEY, page INTEGER NOT NULL, seq INTEGER NOT NULL, data BLOB);
    CREATE UNIQUE INDEX IF NOT EXISTS preimages_by_page ON preimages(page, seq);
    CREATE INDEX IF NOT EXISTS preimages_by_seq ON preimages(seq, page);
    CREATE TABLE IF NOT EXISTS hashes(page INTEGER PRIMARY KEY, hash INTEGER NOT NULL);
";

/// Makes those that are missing.
pub(super) fn make(db: &Connection) -> Result<(), HistoryError> {
    db.execute_batch(SCHEMA)?;
    db.execute_batch(comparing::SCHEMA)?;
    match meta(db, "format")? {
        None | Some(FORMAT) => Ok(()),
        Some(FORMAT_WITHOUT_COMPARISONS) => set_meta(db, "format", FORMAT),
        Some(_) => Err(HistoryError::Damaged(format!("its format is not {FORMAT}"))),
    }
}

pub(super) fn add_revision(
    db: &Connection,
    seq: Seq,
    unix_ms: i64,
    db_size: PageCount,
    bytes: u64,
) -> Result<(), HistoryError> {
    db.execute(
        "INSERT INTO revisions(seq, time, db_size, bytes, lost) VALUES (?, ?, ?, ?, 0)",
        params![seq.0 as i64, unix_ms, db_size.0, bytes as i64],
    )?;
    Ok(())
}

/// Gives the latest revision another size, and the time of it.
pub(super) fn set_size(
    db: &Connection,
    seq: Seq,
    unix_ms: i64,
    db_size: PageCount,
) -> Result<(), HistoryError> {
    db.execute(
        "UPDATE revisions SET time = ?, db_size = ? WHERE seq = ?",
        params![unix_ms, db_size.0, seq.0 as i64],
    )?;
    Ok(())
}

/// Gives the latest revision, with all that it changed, another number.
pub(super) fn move_revision(db: &Connection, from: Seq, to: Seq) -> Result<(), HistoryError> {
    for table in ["revisions", "preimages", "comparison"] {
        db.execute(
            &format!("UPDATE {table} SET seq = ?1 WHERE seq = ?2"),
            params![to.0 as i64, from.0 as i64],
        )?;
    }
    Ok(())
}

/// The revision before one, whether it is kept or in a gap.
pub(super) fn before(db: &Connection, seq: Seq) -> Result<Option<RevisionRecord>, HistoryError> {
    let mut find =
        db.prepare_cached("SELECT seq, db_size FROM revisions WHERE seq < ? ORDER BY seq DESC LIMIT 1")?;
    Ok(find.query_row([seq.0 as i64], record_of).optional()?)
}

pub(super) fn check_latest(db: &Connection, expected: RevisionRecord) -> Result<(), HistoryError> {
    let found = latest(db)?;
    match found == expected {
        true => Ok(()),
        false => Err(HistoryError::Conflict {
            expected: expected.seq,
            found: found.seq,
        }),
    }
}

pub(super) fn latest(db: &Connection) -> Result<RevisionRecord, HistoryError> {
    let mut find = db.prepare_cached("SELECT seq, db_size FROM revisions ORDER BY seq DESC LIMIT 1")?;
    Ok(find.query_row([], record_of)?)
}

pub(super) fn kept(db: &Connection, seq: Seq) -> Result<RevisionRecord, HistoryError> {
    let Ok(wanted) = i64::try_from(seq.0) else {
        return Err(HistoryError::Unknown(seq));
    };
    let mut find = db.prepare_cached("SELECT seq, db_size FROM revisions WHERE seq = ?")?;
    match find.query_row([wanted], record_of).optional()? {
        Some(_) if in_gap(db, wanted)? => Err(HistoryError::Expired(seq)),
        Some(record) => Ok(record),
        None => {
            let oldest: i64 = db.query_row("SELECT min(seq) FROM revisions", [], |row| row.get(0))?;
            // A number that was left out was given out, if at all, by another copy of this history.
            Err(match wanted < oldest {
                true => HistoryError::Expired(seq),
                false => HistoryError::Unknown(seq),
            })
        }
    }
}

pub(super) fn record_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<RevisionRecord> {
    Ok(RevisionRecord {
        seq: Seq(row.get::<_, i64>(0)? as u64),
        db_size: PageCount(row.get(1)?),
    })
}

pub(super) fn pages(
    db: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<RoaringBitmap, HistoryError> {
    let mut find = db.prepare_cached(sql)?;
    let rows = find.query_map(parameters, |row| row.get::<_, u32>(0))?;
    rows.map(|page| Ok(page?)).collect()
}

pub(super) fn meta<T: rusqlite::types::FromSql>(
    db: &Connection,
    key: &str,
) -> Result<Option<T>, HistoryError> {
    let mut find = db.prepare_cached("SELECT value FROM meta WHERE key = ?")?;
    Ok(find.query_row([key], |row| row.get(0)).optional()?)
}

pub(super) fn set_meta(db: &Connection, key: &str, value: impl rusqlite::ToSql) -> Result<(), HistoryError> {
    db.execute("REPLACE INTO meta(key, value) VALUES (?, ?)", params![key, value])?;
    Ok(())
}

/// Stored bytes are compressed exactly when they are fewer than a page.
pub(super) fn squeeze(zstd: &mut Compressor<'_>, page: &Bytes) -> Vec<u8> {
    match zstd.compress(page) {
        Ok(small) if small.len() < page.len() => small,
        _ => page.to_vec(),
    }
}

pub(super) fn unsqueeze(data: Vec<u8>, page_size: usize) -> Result<Bytes, HistoryError> {
    if data.len() == page_size {
        return Ok(data.into());
    }
    let page = zstd::bulk::decompress(&data, page_size).map_err(damaged)?;
    match page.len() == page_size {
        true => Ok(page.into()),
        false => Err(HistoryError::Damaged("a page of a wrong size".to_owned())),
    }
}

pub(super) fn damaged(error: std::io::Error) -> HistoryError {
    HistoryError::Damaged(error.to_string())
}
