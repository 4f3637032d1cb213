//! The commit of a pull: one SQLite transaction that writes the next state over the old one, and the move of the base in the
//! instant in which it becomes visible.
//!
//! The pages are written through `sqlite_dbpage` on a connection that fetches nothing: neither the schema nor the pages that
//! are about to be overwritten are read from the remote. All but page 1 are in the WAL and synced before the gate for new
//! snapshots closes; what is left to do then does not depend on what was pulled.

use partial_sync_core::{PageCount, PageId, PageNo, header::DatabaseHeader};
use partial_sync_vfs::{
    NextBase,
    sqlite::{Conn, Stmt, ValueRef},
};

use super::{
    intent::{self, Intent, cookie_after},
    next::Next,
};
use crate::{
    error::{Error, Result},
    open::{
        plain::{integer, open_without_fetching},
        replica::Unfinished,
        session::Session,
    },
};

/// How often a pull gives way to local writers before it catches up under the write lock.
const YIELDS: usize = 3;

/// Commits. Afterwards the replica is at the new base, in memory and in its WAL; the files that say so are still to be
/// written. Fails with nothing changed.
pub(super) fn commit(session: &Session<'_>, next: &mut Next<'_>) -> Result<()> {
    let writer = open_without_fetching(&session.replica, session.options.timeout)?;
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0")?;
    let old_size = lock(session, &writer, next)?;
    let size = next.size()?;
    let committed = write(session, &writer, next, old_size);
    if committed.is_err() {
        if !writer.is_autocommit() {
            // The pull's error is the one to tell.
            let _ = writer.execute_batch("ROLLBACK");
        }
        *session.unfinished.lock() = None;
        // A commit that a crash may bring back keeps its file; where the file cannot be removed, it speaks of a commit that
        // no crash brings back.
        if !session.replica.failed_commit_may_come_back()
            && let Err(error) = intent::remove(session)
        {
            tracing::warn!(%error, "the file of a pull that failed could not be removed; the next pull replaces it");
        }
        return committed;
    }
    store_rest(session, next);
    if size < old_size {
        cut(session, size);
    }
    Ok(())
}

/// Takes the write lock at a moment when everything that was committed locally is in the next state. Gives the number of
/// pages that the database has.
fn lock(session: &Session<'_>, writer: &Conn, next: &mut Next<'_>) -> Result<PageCount> {
    let size = || Ok::<_, Error>(PageCount(integer(writer, "PRAGMA page_count")? as u32));
    let begin = || session.begin_immediate_on(writer);
    for _ in 0..YIELDS {
        next.catch_up(size()?)?;
        begin()?;
        if !next.is_behind(size()?)? {
            return size();
        }
        writer.execute_batch("ROLLBACK")?;
    }
    begin()?;
    next.catch_up(size()?)?;
    size()
}

fn write(session: &Session<'_>, writer: &Conn, next: &Next<'_>, old_size: PageCount) -> Result<()> {
    session.forget_log_began();
    if let Some(position) = next.position() {
        // Before the log forgets them: their ids are not given again.
        session.update_info_if(
            |info| info.acknowledged < position.0,
            |info| {
                info.acknowledged = position.0;
                info.landed = None;
            },
        )?;
    }
    let through_wal = next.through_wal(old_size)?;
    let mut pages = next.pages()?;
    let mut put = PagePut::new(writer)?;
    // The last page first, which makes the database as long as it will be; page 1, by which others notice, at the end.
    for page in through_wal.iter().rev().filter_map(|id| PageId(id).no()) {
        if page != PageNo::FIRST {
            put.put(page, &pages.read(page)?)?;
        }
    }
    writer.flush()?;
    session
        .replica
        .sync_wal()
        .map_err(|e| Error::storage("sync the WAL of", session.replica.name(), e))?;
    let cookie = cookie_after(
        integer(writer, "PRAGMA schema_version")? as u32,
        session.random.lock().u32(..),
    );
    let mut page_1 = pages.read(PageNo::FIRST)?;
    DatabaseHeader::set_schema_cookie(&mut page_1, cookie);
    let mut dirty = next.written();
    // Its cookie is ours.
    dirty.insert(0);
    let next_base = NextBase {
        base: next.base.clone(),
        stay: next.stay(),
        committed: through_wal,
        dirty,
        end: next.size()?,
    };
    let has_log = next.has_log();
    Intent {
        base: next_base.base.clone(),
        stay: next_base.stay.clone(),
        committed: next_base.committed.clone(),
        cookie,
        has_log,
    }
    .seal(session)?;
    *session.unfinished.lock() = Some(Unfinished { cookie, has_log });
    session.replica.move_base(&next_base, || {
        put.put(PageNo::FIRST, &page_1)?;
        Ok(writer.execute_batch("COMMIT")?)
    })
}

/// Writes pages through `sqlite_dbpage`.
struct PagePut(Stmt);

impl PagePut {
    fn new(writer: &Conn) -> Result<Self> {
        const PUT: &str = "INSERT INTO sqlite_dbpage(pgno, data) VALUES (?1, ?2)";
        // What is wrong with a schema that is not all here comes out once.
        Ok(Self(
            writer.prepare_one(PUT).or_else(|_| writer.prepare_one(PUT))?,
        ))
    }

    fn put(&mut self, page: PageNo, data: &[u8]) -> Result<()> {
        self.0.bind(1, ValueRef::Integer(i64::from(page.get())))?;
        self.0.bind(2, ValueRef::Blob(data))?;
        Ok(self.0.execute()?)
    }
}

/// Stores the staged pages that were not in the commit, as if they were fetched at the base that has just been moved to.
/// One that cannot be stored stays absent.
fn store_rest(session: &Session<'_>, next: &Next<'_>) {
    let stored = || -> Result<()> {
        let staged = next.staged.ids();
        let ids = &staged - session.replica.map().present_among(&staged);
        let pages = ids.iter().filter_map(|id| PageId(id).no());
        let (_, pages, sink) = session.replica.begin_fetch(pages)?;
        for page in pages {
            if let Some(data) = next.staged.read(page.id())? {
                sink.page(page, &data)?;
            }
        }
        sink.finish(Ok(()));
        Ok(())
    };
    if let Err(error) = stored() {
        tracing::warn!(%error, "pages that a pull brought could not be stored; they are fetched when they are needed");
    }
}

/// Makes the database end after `size` pages. Its header says so already; that the file is longer does no harm, so a cut
/// that cannot be had now is left to a later pull.
fn cut(session: &Session<'_>, size: PageCount) {
    let cut = || -> Result<()> {
        let conn = open_without_fetching(&session.replica, session.options.busy_timeout)?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        if integer(&conn, "PRAGMA page_count")? == i64::from(size.0) {
            const CUT: &str = "INSERT INTO sqlite_dbpage(pgno, data) VALUES (?1, NULL)";
            let mut cut = conn.prepare_one(CUT).or_else(|_| conn.prepare_one(CUT))?;
            cut.bind(1, ValueRef::Integer(i64::from(size.0) + 1))?;
            cut.execute()?;
        }
        Ok(conn.execute_batch("COMMIT")?)
    };
    if let Err(error) = cut() {
        tracing::debug!(%error, "the database file keeps its length for now");
    }
}
