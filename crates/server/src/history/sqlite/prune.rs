//! Letting go of old revisions, a little at a time.

use rusqlite::{Connection, params};

use super::tables::{before, latest, meta};
use crate::{
    error::HistoryError,
    history::{api::Retention, revision::Seq},
};

/// Pages that go in one transaction.
const STEP: u32 = 512;

/// The oldest revision that is kept, and whether others go before their time, for their bytes.
pub(super) fn oldest_kept(
    db: &Connection,
    retention: &Retention,
    unix_ms: i64,
) -> Result<(Seq, bool), HistoryError> {
    // Of a log, somebody may not have been told of the latest one.
    let most = match meta::<Vec<u8>>(db, "log_nodes")? {
        Some(nodes) if !nodes.is_empty() => before(db, latest(db)?.seq)?.unwrap_or(latest(db)?),
        _ => latest(db)?,
    };
    let age = i64::try_from(retention.age.as_millis()).unwrap_or(i64::MAX);
    // The revision before r was replaced at r's time. It goes when that was too long ago, or when it and the ones
    // after it need too many bytes.
    let by_age: Option<i64> = db.query_row(
        "SELECT max(seq) FROM revisions INDEXED BY revisions_by_time WHERE time < ?",
        [unix_ms.saturating_sub(age)],
        |row| row.get(0),
    )?;
    let by_bytes = too_many_bytes(db, i64::try_from(retention.bytes).unwrap_or(i64::MAX))?;
    let oldest: i64 = db.query_row("SELECT min(seq) FROM revisions", [], |row| row.get(0))?;
    let kept = by_age
        .max(by_bytes)
        .unwrap_or(oldest)
        .clamp(oldest, most.seq.0 as i64);
    let early = by_bytes.is_some_and(|by_bytes| Some(by_bytes) > by_age && by_bytes > oldest);
    Ok((Seq(kept as u64), early))
}

/// Lets go of a little of what is older than a revision. Says how many pages went, and whether there is more.
pub(super) fn cut(db: &Connection, oldest_kept: Seq) -> Result<(usize, bool), HistoryError> {
    let oldest_kept = oldest_kept.0 as i64;
    db.execute("DELETE FROM revisions WHERE seq < ?", [oldest_kept])?;
    db.execute("DELETE FROM gaps WHERE until <= ?", [oldest_kept])?;
    let gone = db.execute(
        "DELETE FROM preimages WHERE id IN (SELECT id FROM preimages WHERE seq <= ? LIMIT ?)",
        params![oldest_kept, STEP],
    )?;
    let more = gone == STEP as usize;
    if !more {
        db.execute(
            "UPDATE revisions SET bytes = 0, lost = 0 WHERE seq = ?",
            [oldest_kept],
        )?;
    }
    Ok((gone, more))
}

pub(super) fn vacuum(writer: &Connection) -> Result<(), HistoryError> {
    let mut vacuum = writer.prepare_cached("PRAGMA incremental_vacuum(512)")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// The last revision that, with those after it, needs more bytes than this. Often asked, and mostly there is none.
fn too_many_bytes(db: &Connection, most: i64) -> Result<Option<i64>, HistoryError> {
    let mut find = db.prepare_cached("SELECT coalesce(sum(bytes), 0) FROM revisions")?;
    let mut left: i64 = find.query_row([], |row| row.get(0))?;
    let mut last = None;
    if left > most {
        let mut oldest = db.prepare_cached("SELECT seq, bytes FROM revisions ORDER BY seq")?;
        let mut rows = oldest.query([])?;
        while left > most
            && let Some(row) = rows.next()?
        {
            last = Some(row.get(0)?);
            left -= row.get::<_, i64>(1)?;
        }
    }
    Ok(last)
}
