//! A pull: the remote's changes in, local changes that were not pushed back on top, in a way that a crash at any point
//! leaves either the old state or the new one.
//!
//! 1. Ask what changed since the base revision, of the pages that are here. Stage it in `-changes`.
//! 2. Rehearse the put-back ([`crate::rehearsal`]); stage what it needs.
//! 3. Take the write lock. If somebody wrote meanwhile, give it back and see to the new dirty pages first. Seal
//!    `-changes`, log included: from here on a crash applies the pull.
//! 4. Write the staged pages through `sqlite_dbpage` and COMMIT; move the base. New snapshots wait. On a fresh
//!    connection, cut the database if it shrank.
//! 5. Put the changes back, write the log anew, set the marker, COMMIT.
//! 6. Save the page map, then the info file with the new base revision, then remove `-changes`. New snapshots go on: not
//!    before, or what they write could be undone by applying the file again.
//!
//! Sealing happens under the write lock, and `-changes` is discarded before the lock is given back if the commit fails,
//! so that it never speaks of a log that is not the latest. Page 1 is written last, with a schema cookie above both
//! sides', because SQLite reads the schema anew as soon as it changes. The connection that wrote the pages must not read
//! any afterwards: its cache holds their contents, but also what it had parsed of the old ones.

use std::{path::PathBuf, sync::Arc, time::Duration};

use partial_sync_core::{ChangeId, PageCount, PageId, PageNo};
use partial_sync_transport::{ApplyMode, PageSelector, PagesRequest, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{
    Base, Replica, as_wal_mode,
    sqlite::{Conn, Step, ValueRef},
};
use roaring::RoaringBitmap;

use crate::{
    change::{Value, position::resume_after},
    database::open_plain,
    error::{Error, Result},
    first_pull,
    info::{self, beside, now},
    log::{Chunk, Log},
    putback,
    rehearsal::{Rehearsal, not_yet},
    session::Session,
    source::{pinned, stream},
    staged::{self, Replay, Staged, StagedBase},
};

pub(crate) const DOING: &str = "a pull";
/// How often a pull gives way to local writers before it fetches what they dirtied under the write lock.
const YIELDS: usize = 3;
/// Key of the marker that says that a pull's put-back is committed.
const MARKER: &str = "pull";

/// See [`crate::Database::pull`].
pub(crate) fn pull(open: &Session<'_>, long_poll: Option<Duration>) -> Result<bool> {
    let _sync = open.lock_sync(DOING)?;
    recover(open)?;
    let url = open.checked_url()?;
    let asked = match ask(open, long_poll, url.as_deref()) {
        Err(Error::Remote(error)) if open.move_away(&error)? => ask(open, None, url.as_deref())?,
        asked => asked?,
    };
    open.adopt(url)?;
    let Some(mut pull) = asked else {
        // It says how fresh the replica is, not when something was new.
        open.update_info(|info| info.last_pull = Some(now()))?;
        return Ok(false);
    };
    match apply_staged(open, &mut pull) {
        Ok(()) => Ok(true),
        Err(error) => {
            // Not sealed, or discarded already: the replica is as it was.
            if !pull.sealed {
                staged::discard(&open.storage, &changes_path(open))?;
            }
            Err(error)
        }
    }
}

fn changes_path(open: &Session<'_>) -> PathBuf {
    beside(open.replica.name(), "-changes")
}

/// A pull whose answer is staged.
struct Pull {
    staged: Staged,
    base: Base,
    /// Pages that were here when the question was asked.
    present: RoaringBitmap,
    /// Dirty pages that are staged.
    dirty: RoaringBitmap,
    /// Pages that the rehearsal read: those of the schema and of the put-back.
    rehearsed: RoaringBitmap,
    mode: ApplyMode,
    sealed: bool,
}

impl Pull {
    /// Pages whose copy here is valid at the new base once the staged ones among them are written. The other staged pages
    /// are those of which there is no copy here at all and that nothing reads before the base has moved, not even after a
    /// crash: they need not go through the WAL, a fetch could bring them as well. But page 1 and the last one make the new
    /// state and its size. For the holder of the write lock.
    fn keep(&self, replica: &Replica) -> RoaringBitmap {
        let mut new =
            self.staged.pages().ids() - replica.map().present() - replica.map().dirty() - &self.rehearsed;
        new.remove(0);
        new.remove(self.base.size.0 - 1);
        let kept = match self.mode {
            ApplyMode::Incremental => &self.present | self.staged.pages().ids(),
            ApplyMode::ReplaceBase => self.staged.pages().ids(),
        };
        within(kept - new, self.base.size)
    }
}

fn within(mut ids: RoaringBitmap, size: PageCount) -> RoaringBitmap {
    ids.remove_range(size.0..);
    ids
}

/// Asks and stages. `None`: nothing changed.
fn ask(open: &Session<'_>, long_poll: Option<Duration>, url: Option<&str>) -> Result<Option<Pull>> {
    let present = open.replica.map().present();
    let old = open.replica.base();
    let mut dirty = open.replica.map().dirty();
    dirty.insert(0);
    let is_unpulled = open.info.lock().is_unpulled();
    let staged = match is_unpulled {
        true => first_pull::ask(open, changes_path(open))?,
        false => ask_what_changed(open, long_poll, &present, &dirty, open.base_is_elsewhere(url))?,
    };
    let Some((base, mode, staged)) = staged else {
        return Ok(None);
    };
    let mut pull = Pull {
        staged,
        base,
        present,
        dirty: RoaringBitmap::new(),
        rehearsed: RoaringBitmap::new(),
        mode,
        sealed: false,
    };
    if pull.base.size == PageCount::ZERO {
        if old.size == PageCount::ZERO {
            staged::discard(&open.storage, &changes_path(open))?;
            return Ok(None);
        }
        return Err(Error::UnusableDatabase {
            why: "the remote's database has become empty; delete the replica and connect anew".into(),
        });
    }
    if pull.base.size > old.size {
        dirty.insert(pull.base.size.0 - 1);
    }
    see_to_dirty(open, &mut pull, dirty)?;
    Ok(Some(pull))
}

/// What a question brought: the new base, how its pages are to be understood, and those pages.
pub(crate) type Answer = Option<(Base, ApplyMode, Staged)>;

fn ask_what_changed(
    open: &Session<'_>,
    long_poll: Option<Duration>,
    present: &RoaringBitmap,
    dirty: &RoaringBitmap,
    moved: bool,
) -> Result<Answer> {
    let replica = &open.replica;
    let old = replica.base();
    let request = PagesRequest {
        since: Some(old.revision.clone()),
        long_poll: long_poll.filter(|_| !open.info.lock().rebuild),
        select: PageSelector::Ids(present | dirty),
        require: Some(dirty.clone()),
        page_size: Some(replica.page_size()),
        deadline: Some(open.options.timeout),
        ..PagesRequest::default()
    };
    let path = changes_path(open);
    let page_size = replica.page_size().bytes();
    let selected = present | dirty;
    let rebuild = open.info.lock().rebuild;
    open.wait(DOING, async {
        // Another remote's word for what changed would not be about this base, even if it knows a revision of that name.
        let asked = match moved {
            true => None,
            false => Some(open.remote.pages(request.clone()).await),
        };
        let mut answer = match asked {
            Some(Err(error)) if error.kind != RemoteErrorKind::RevisionExpired => return Err(error.into()),
            Some(Ok(answer)) => answer,
            // It cannot say what changed: every page that is here counts as changed.
            _ => {
                let latest = PagesRequest {
                    since: None,
                    long_poll: None,
                    require: None,
                    ..request
                };
                let mut answer = open.remote.pages(latest).await?;
                answer.header.mode = ApplyMode::ReplaceBase;
                answer
            }
        };
        let header = answer.header.clone();
        if header.revision == old.revision && !rebuild && !moved {
            return Ok(None);
        }
        let base = StagedBase {
            revision: header.revision.as_str().to_owned(),
            size: header.db_size.0,
            page_size,
        };
        let mut staged = Staged::begin(&open.storage, path, base)?;
        while let Some(page) = futures_util::StreamExt::next(&mut answer.pages).await {
            let page = page?;
            // The last page comes along when the database grew; anything else that was not asked for is not wanted.
            if selected.contains(page.id.0) || page.id.0 + 1 == header.db_size.0 {
                if moved {
                    first_pull::check(
                        PageNo::containing(u64::from(page.id.0) * u64::from(page_size), replica.page_size())
                            .unwrap_or(PageNo::FIRST),
                        &page.data,
                        page_size,
                    )?;
                }
                put_page(&mut staged, page.id.0, &page.data)?;
            }
        }
        let base = Base {
            revision: header.revision,
            size: header.db_size,
        };
        Ok(Some((base, header.mode, staged)))
    })
}

fn put_page(staged: &mut Staged, id: u32, data: &[u8]) -> Result<()> {
    if id == 0 {
        staged.put_page(id, &as_wal_mode(data))
    } else {
        staged.put_page(id, data)
    }
}

/// Stages the new revision's copy of these pages, as far as it is not staged.
fn see_to_dirty(open: &Session<'_>, pull: &mut Pull, dirty: RoaringBitmap) -> Result<()> {
    let missing: Vec<PageNo> = within(dirty.clone(), pull.base.size)
        .iter()
        .filter(|&id| !pull.staged.pages().has(id))
        .filter_map(|id| PageId(id).no())
        .filter(|p| !p.is_lock_byte_page(open.replica.page_size()))
        .collect();
    if !missing.is_empty() {
        let request = pinned(
            &pull.base,
            &missing,
            open.replica.page_size(),
            open.options.timeout,
        );
        let staged = &mut pull.staged;
        open.wait(DOING, async {
            let mut failed = None;
            let done = stream(&*open.remote, request, |page, data| {
                put_page(staged, page.id().0, data).map_err(|e| {
                    let message = e.to_string();
                    failed = Some(e);
                    RemoteError::new(RemoteErrorKind::Client, message)
                })
            })
            .await;
            match failed {
                Some(error) => Err(error),
                None => Ok(done?),
            }
        })?;
        if let Some(page) = missing.iter().find(|p| !pull.staged.pages().has(p.id().0)) {
            let message = format!(
                "{} answered without page {page} at {}",
                open.remote.url(),
                pull.base.revision
            );
            return Err(Error::Remote(RemoteError::new(
                RemoteErrorKind::Protocol,
                message,
            )));
        }
    }
    pull.dirty |= dirty;
    Ok(())
}

/// Steps 2 to 6.
fn apply_staged(open: &Session<'_>, pull: &mut Pull) -> Result<()> {
    let conn = open_plain(&open.replica, open.options.timeout)?;
    let log = Log::new(&conn);
    let mut rehearsed = rehearse(open, pull, &log)?;
    // What finishing the pull after a crash will read is known to be here then.
    open.replica
        .save_map()
        .map_err(|e| Error::storage("save the page map of", open.replica.name(), e))?;
    let mut attempt = 0;
    loop {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let result = (|| {
            let dirty = open.replica.map().dirty();
            let grew =
                page_count(&conn)? < pull.base.size.0 && !pull.staged.pages().has(pull.base.size.0 - 1);
            let unchanged = dirty.is_subset(&pull.dirty) && rehearsed.newest == log.last()? && !grew;
            if !unchanged {
                if attempt < YIELDS {
                    return Ok(None);
                }
                see_again(open, pull, dirty, grew)?;
                rehearsed = rehearse(open, pull, &log)?;
            }
            note_position(open, rehearsed.position)?;
            raise_cookie(&conn, &mut pull.staged)?;
            let keep = pull.keep(&open.replica);
            let id = open.random.lock().u64(..);
            let left = not_yet(&rehearsed.log, rehearsed.position).to_vec();
            pull.staged.seal(&keep, &left, id)?;
            Ok(Some((keep, left, id)))
        })();
        match result {
            Ok(Some((keep, left, id))) => {
                pull.sealed = true;
                let still_sealed = &mut pull.sealed;
                let gate = commit_pages(open, &conn, &pull.staged, &pull.base, &keep, still_sealed)?;
                drop((log, conn));
                put_back(open, pull.base.size, &left, id)?;
                let finished = finish(open, &pull.base);
                drop(gate);
                return finished;
            }
            Ok(None) => {
                conn.execute_batch("ROLLBACK")?;
                let dirty = open.replica.map().dirty();
                see_again(open, pull, dirty, true)?;
                rehearsed = rehearse(open, pull, &log)?;
                attempt += 1;
            }
            Err(error) => {
                // Before the lock is given back, or a later write could be undone by what is sealed.
                let discarded = staged::discard(&open.storage, &changes_path(open));
                let _ = conn.execute_batch("ROLLBACK");
                discarded?;
                return Err(error);
            }
        }
    }
}

fn see_again(open: &Session<'_>, pull: &mut Pull, mut dirty: RoaringBitmap, grew: bool) -> Result<()> {
    if grew {
        dirty.insert(pull.base.size.0 - 1);
    }
    see_to_dirty(open, pull, dirty)
}

struct LogRehearsed {
    log: Vec<Chunk>,
    newest: Option<ChangeId>,
    position: Option<ChangeId>,
}

fn rehearse(open: &Session<'_>, pull: &mut Pull, log: &Log) -> Result<LogRehearsed> {
    let chunks = read_all(log)?;
    let newest = chunks.last().map(|c| c.last);
    let info = open.info.lock().clone();
    // The snapshot first: whatever it shows of local writes is dirty by now.
    let snapshot = open_plain(&open.replica, open.options.timeout)?;
    snapshot.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1")?;
    let unchanged = match pull.mode {
        ApplyMode::Incremental => &pull.present - open.replica.map().dirty(),
        ApplyMode::ReplaceBase => RoaringBitmap::new(),
    };
    let rehearsed = Rehearsal {
        replica: &open.replica,
        snapshot,
        remote: &open.remote,
        staged: pull.staged.pages().clone(),
        unchanged: within(unchanged, pull.base.size),
        base: pull.base.clone(),
        page_size: open.replica.page_size(),
        deadline: open.options.timeout,
        client: putback::Client {
            id: &info.client_id,
            pulls: info.pulls,
        },
        transform: open.options.transform.as_deref(),
    }
    .run(&chunks)?;
    let acknowledged = (info.acknowledged > 0).then_some(ChangeId(info.acknowledged));
    let position = match newest {
        None => None,
        Some(_) => {
            let given = crate::push::newest_given(open, newest);
            resume_after(rehearsed.position, acknowledged, given).map_err(Error::from)?
        }
    };
    pull.rehearsed |= rehearsed.read;
    for (id, data) in rehearsed.fetched {
        pull.staged.put_page(id, &data)?;
    }
    Ok(LogRehearsed {
        log: chunks,
        newest,
        position,
    })
}

pub(crate) fn read_all(log: &Log) -> Result<Vec<Chunk>> {
    let mut reader = log.chunks_after(ChangeId(i64::MIN))?;
    let mut chunks = vec![];
    while let Some(chunk) = reader.next()? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Step 4, in the write transaction that is open. Returns the closed gate. When it fails, `sealed` says whether
/// the file of the pull still counts.
fn commit_pages(
    open: &Session<'_>,
    conn: &Conn,
    staged: &Staged,
    base: &Base,
    keep: &RoaringBitmap,
    sealed: &mut bool,
) -> Result<partial_sync_vfs::Gate> {
    let mut gate = None;
    let written = write_pages(conn, staged, keep).and_then(|()| {
        gate = Some(open.replica.close_gate());
        Ok(conn.execute_batch("COMMIT")?)
    });
    match (written, gate) {
        (Ok(()), Some(gate)) => {
            gate.move_base(base.clone(), keep);
            fill(open, staged, keep);
            Ok(gate)
        }
        (result, gate) => {
            let discarded = open
                .replica
                .forget_failed_commit()
                .map_err(|e| Error::storage("write to the WAL of", open.replica.name(), e))
                .and_then(|()| staged::discard(&open.storage, &changes_path(open)));
            let _ = conn.execute_batch("ROLLBACK");
            drop(gate);
            if let Err(error) = &discarded {
                // The sealed file stays: no local write may happen that a replay of it would undo.
                open.replica.poison(Arc::new(error.clone()));
            }
            *sealed = discarded.is_err();
            discarded?;
            result?;
            Err(Error::Damaged {
                what: "the pull",
                why: "its gate was not closed".into(),
            })
        }
    }
}

/// Raises the schema cookie of the staged page 1 above both sides'. Where the database has it, the pages were committed.
fn raise_cookie(conn: &Conn, staged: &mut Staged) -> Result<()> {
    let Some(mut page) = staged_page(staged, 0)? else {
        return Ok(());
    };
    let local = schema_cookie(conn)?;
    let cookie = local.max(cookie_of(&page)).wrapping_add(1);
    page[40..44].copy_from_slice(&cookie.to_be_bytes());
    staged.put_page(0, &page)
}

fn cookie_of(page_1: &[u8]) -> u32 {
    u32::from_be_bytes([page_1[40], page_1[41], page_1[42], page_1[43]])
}

/// Needs no schema that can be read.
fn schema_cookie(conn: &Conn) -> Result<u32> {
    Ok(integer(conn, "PRAGMA schema_version")? as u32)
}

fn staged_page(staged: &Staged, id: u32) -> Result<Option<Vec<u8>>> {
    staged.pages().read(id).map_err(|e| Error::Damaged {
        what: "the file of the pull",
        why: e.to_string(),
    })
}

/// Notes how far the remote has this replica's changes, before the log forgets them: their ids are not given again.
fn note_position(open: &Session<'_>, position: Option<ChangeId>) -> Result<()> {
    match position {
        Some(id) if open.info.lock().acknowledged < id.0 => open.update_info(|info| info.acknowledged = id.0),
        _ => Ok(()),
    }
}

/// Stores the staged pages that were not written through SQLite, as if they were fetched at the base that has just been
/// moved to. One that cannot be stored stays absent.
fn fill(open: &Session<'_>, staged: &Staged, keep: &RoaringBitmap) {
    let new = staged.pages().ids() - keep;
    let filled = open
        .replica
        .begin_fetch(new.iter().filter_map(|id| PageId(id).no()))
        .map_err(Error::from)
        .and_then(|(_, pages, sink)| {
            for page in pages {
                if let Some(data) = staged_page(staged, page.id().0)? {
                    sink.page(page, &data)?;
                }
            }
            sink.finish(Ok(()));
            Ok(())
        });
    if let Err(error) = filled {
        tracing::warn!(%error, "pages that a pull brought could not be stored; they are fetched when they are needed");
    }
}

/// Writes the staged pages that are to be kept.
fn write_pages(conn: &Conn, staged: &Staged, keep: &RoaringBitmap) -> Result<()> {
    let mut put = conn.prepare_one("INSERT INTO sqlite_dbpage(pgno, data) VALUES (?1, ?2)")?;
    for id in (staged.pages().ids() & keep).iter().rev() {
        let Some(page) = staged_page(staged, id)? else {
            continue;
        };
        put.bind(1, ValueRef::Integer(i64::from(id) + 1))?;
        put.bind(2, ValueRef::Blob(&page))?;
        put.execute()?;
    }
    Ok(())
}

fn page_count(conn: &Conn) -> Result<u32> {
    Ok(integer(conn, "PRAGMA page_count")? as u32)
}

fn integer(conn: &Conn, sql: &str) -> Result<i64> {
    let mut stmt = conn.prepare_one(sql)?;
    match (stmt.step()?, stmt.value(0)?) {
        (Step::Row, ValueRef::Integer(n)) => Ok(n),
        (_, other) => Err(Error::Damaged {
            what: "the database",
            why: format!("{sql} answered {other:?}"),
        }),
    }
}

/// Step 5, on a connection that has not seen the old pages. When it fails, the pull is half applied and nothing may run
/// until it is whole: [`recover`] does that.
fn put_back(open: &Session<'_>, size: PageCount, chunks: &[Chunk], pull: u64) -> Result<()> {
    let result = (|| {
        let conn = open_plain(&open.replica, open.options.timeout)?;
        cut(&conn, size)?;
        if chunks.is_empty() {
            return Ok(());
        }
        conn.execute_batch("BEGIN IMMEDIATE")?;
        let info = open.info.lock().clone();
        let client = putback::Client {
            id: &info.client_id,
            pulls: info.pulls,
        };
        putback::run(&conn, chunks, client, open.options.transform.as_deref())?;
        Log::new(&conn).set_marker(MARKER, Some(ValueRef::Integer(pull as i64)))?;
        Ok(conn.execute_batch("COMMIT")?)
    })();
    if let Err(error) = &result {
        let error: &Error = error;
        open.replica.poison(Arc::new(error.clone()));
    }
    result
}

/// Makes the database end after `size` pages. Its header says so already; the file may be longer.
fn cut(conn: &Conn, size: PageCount) -> Result<()> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let mut cut = conn.prepare_one("INSERT INTO sqlite_dbpage(pgno, data) VALUES (?1, NULL)")?;
    cut.bind(1, ValueRef::Integer(i64::from(size.0) + 1))?;
    cut.execute()?;
    drop(cut);
    Ok(conn.execute_batch("COMMIT")?)
}

/// Step 6.
fn finish(open: &Session<'_>, base: &Base) -> Result<()> {
    let path = open.replica.name();
    let result = (|| {
        let failed = |e| Error::storage("save the page map of", path, e);
        // The mark first: a frame written after it is not under it, one written before is in the map.
        let mark = open.replica.wal_mark().map_err(failed)?;
        open.replica.save_map().map_err(failed)?;
        open.update_info(|info| {
            info.base_revision = base.revision.as_str().to_owned();
            info.base_size = base.size.0;
            info.moved = false;
            info.pulls += 1;
            info.rebuild = false;
            info.wal_mark = mark.map(Into::into);
            info.last_pull = Some(now());
        })?;
        staged::discard(&open.storage, &changes_path(open))
    })();
    match &result {
        Ok(()) => open.replica.heal(),
        // A later local write would be undone by applying the file again.
        Err(error) => open.replica.poison(Arc::new(Error::clone(error))),
    }
    result
}

/// Finishes a pull that a crash or a failure left sealed. Without one it only removes the remains of an unsealed one.
pub(crate) fn recover(open: &Session<'_>) -> Result<()> {
    let path = changes_path(open);
    let Some(Replay {
        staged,
        keep,
        log,
        pull,
    }) = Staged::load(&open.storage, path.clone())?
    else {
        if open
            .storage
            .exists(&path)
            .map_err(|e| Error::storage("look for", &path, e))?
        {
            staged::discard(&open.storage, &path)?;
        }
        open.replica.heal();
        return Ok(());
    };
    let revision = info::revision(&staged.base.revision, open.replica.name())?;
    let base = Base {
        revision,
        size: PageCount(staged.base.size),
    };
    // Nobody else may write before it is done; this thread passes the gate, poisoned or not.
    let gate = open.replica.close_gate();
    let redone = redo(open, &gate, &staged, &base, &keep, &log, pull);
    match &redone {
        Ok(()) => open.replica.heal(),
        Err(error) => open.replica.poison(Arc::new(Error::clone(error))),
    }
    redone?;
    let finished = finish(open, &base);
    drop(gate);
    finished
}

fn redo(
    open: &Session<'_>,
    gate: &partial_sync_vfs::Gate,
    staged: &Staged,
    base: &Base,
    keep: &RoaringBitmap,
    log: &[Chunk],
    pull: u64,
) -> Result<()> {
    let conn = open_plain(&open.replica, open.options.timeout)?;
    // Told by the cookie alone, because it decides at which revision the pages of the schema are to be read.
    let written = staged_page(staged, 0)?.is_some_and(|page| {
        page.len() >= 44 && {
            let cookie = cookie_of(&page);
            schema_cookie(&conn).is_ok_and(|here| here >= cookie)
        }
    });
    drop(conn);
    // What is dirty after both commits is not known exactly: everything that may be, is.
    let dirty = open.replica.map().dirty();
    if !written {
        let conn = open_plain(&open.replica, open.options.timeout)?;
        conn.execute_batch("BEGIN IMMEDIATE")?;
        write_pages(&conn, staged, keep)?;
        conn.execute_batch("COMMIT")?;
    }
    if !written || open.replica.base() != *base {
        gate.move_base(base.clone(), keep);
    }
    fill(open, staged, keep);
    if written && !log.is_empty() {
        let conn = open_plain(&open.replica, open.options.timeout)?;
        if Log::new(&conn).marker(MARKER)? == Some(Value::Integer(pull as i64)) {
            for page in dirty.iter().filter_map(|id| PageId(id).no()) {
                open.replica.map().set_dirty(page);
            }
            return Ok(());
        }
    }
    put_back(open, base.size, log, pull)
}
