//! What is known of revisions from before a time in which nobody watched the file: a kill, or a change made by others while no
//! server ran.
//!
//! A start after that makes a revision s at once. Which pages are at s not what they were at the revision before it is found out
//! later, by comparing each with its hash, in any order and as often as one likes:
//! - `hashes` has the hash of a page at the last revision of which it is known: at the latest one if the page was compared, or
//!   has changed since s, else at the one before s;
//! - so a page whose hash differs has changed at s, and what it was is lost: it gets a pre-image of s without bytes, and the hash
//!   that it has now. A page whose hash is the same needs nothing;
//! - a commit after s compares the pages that it changes first, before their hashes are those of what it made of them.
//!
//! Until it is compared, a page that has not changed since s is at a revision before s what it is now if its hash says so. One that
//! is beyond the end now, and has no pre-image, is lost. `comparison` says how far the comparison of all pages in their order
//! is; it saves looking at a hash twice, and nothing else depends on it.
//!
//! If another such start comes before all pages are compared, there is a gap: what a page that was not compared was at s and
//! later was never noted, and it may have come to be again what its hash says. So the revisions from s on are no longer
//! kept; those before s are. A new history begins with a comparison too, which only notes hashes. That one leaves no gap, since a
//! page without a hash differs from whatever is found.
//!
//! ```text
//! comparison(id, seq, next)    at most one row: the revision s, and the first page that is still to be compared
//! gaps(first, until)           revisions from `first` up to, not including, `until` that are not kept
//! ```

use partial_sync_core::{PageCount, PageNo};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{api::Comparison, revision::Seq};
use crate::error::HistoryError;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS comparison(
        id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, next INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS gaps(first INTEGER PRIMARY KEY, until INTEGER NOT NULL);
";

/// The comparison that is not finished.
pub(super) fn comparison(db: &Connection) -> Result<Option<Comparison>, HistoryError> {
    let mut find = db.prepare_cached(
        "SELECT seq, next, max((SELECT coalesce(max(page), 0) FROM hashes),
                 (SELECT db_size FROM revisions ORDER BY seq DESC LIMIT 1)) FROM comparison",
    )?;
    let found = find.query_row([], |row| {
        Ok(Comparison {
            seq: Seq(row.get::<_, i64>(0)? as u64),
            next: PageNo::new(row.get(1)?).unwrap_or(PageNo::FIRST),
            pages: PageCount(row.get(2)?),
        })
    });
    Ok(found.optional()?)
}

/// Begins the one of a revision that has just been made.
pub(super) fn begin(db: &Connection, seq: Seq) -> Result<(), HistoryError> {
    if let Some(unfinished) = comparison(db)?
        && unfinished.seq != Seq::FIRST
    {
        db.execute(
            "INSERT INTO gaps(first, until) VALUES (?, ?)",
            params![unfinished.seq.0 as i64, seq.0 as i64],
        )?;
    }
    db.execute(
        "REPLACE INTO comparison(id, seq, next) VALUES (1, ?, 1)",
        [seq.0 as i64],
    )?;
    Ok(())
}

/// Notes that the pages before `next` are compared.
pub(super) fn advance(db: &Connection, next: Option<PageNo>) -> Result<(), HistoryError> {
    match next {
        Some(next) => db.execute("UPDATE comparison SET next = ?", [next.get()])?,
        None => db.execute("DELETE FROM comparison", [])?,
    };
    Ok(())
}

/// Whether a revision that was made is in a gap.
pub(super) fn in_gap(db: &Connection, seq: i64) -> Result<bool, HistoryError> {
    let mut find = db.prepare_cached("SELECT 1 FROM gaps WHERE first <= ?1 AND until > ?1")?;
    Ok(find.exists([seq])?)
}

/// Compares pages for a transaction that writes.
pub(super) struct Comparing<'db> {
    db: &'db Connection,
    at: Comparison,
    /// There are revisions before it, which lose what has changed.
    has_older: bool,
    lost: bool,
    find: CachedStatement<'db>,
    lose: CachedStatement<'db>,
}

impl<'db> Comparing<'db> {
    /// `None` = all are compared.
    pub(super) fn of(db: &'db Connection) -> Result<Option<Self>, HistoryError> {
        let Some(at) = comparison(db)? else {
            return Ok(None);
        };
        let mut older = db.prepare_cached("SELECT 1 FROM revisions WHERE seq < ?")?;
        Ok(Some(Self {
            db,
            at,
            has_older: older.exists([at.seq.0 as i64])?,
            lost: false,
            find: db.prepare_cached("SELECT hash FROM hashes WHERE page = ?")?,
            lose: db
                .prepare_cached("INSERT OR IGNORE INTO preimages(page, seq, data) VALUES (?, ?, NULL)")?,
        }))
    }

    /// How far it is.
    pub(super) fn at(&self) -> Comparison {
        self.at
    }

    /// The page has this hash at the latest revision; `None` = the database is shorter. Says whether it is another one than is
    /// stored, which is then to be stored.
    pub(super) fn differs(&mut self, page: u32, hash: Option<u64>) -> Result<bool, HistoryError> {
        let stored: Option<i64> = self.find.query_row([page], |row| row.get(0)).optional()?;
        let differs = stored.map(|hash| hash as u64) != hash;
        if differs && self.has_older {
            self.lose.execute(params![page, self.at.seq.0 as i64])?;
            self.lost = true;
        }
        Ok(differs)
    }

    /// To be called at the end.
    pub(super) fn finish(self) -> Result<(), HistoryError> {
        if self.lost {
            let seq = self.at.seq.0 as i64;
            self.db
                .execute("UPDATE revisions SET lost = 1 WHERE seq = ?", [seq])?;
        }
        Ok(())
    }
}
