//! Hydration: fetches absent pages before a query asks for them, all of them or those that a query touches.
//!
//! Every page goes through the same sink as the page of a miss, so what is here already is never overwritten, and queries
//! that run meanwhile wait for a page under way instead of asking for it again. Nothing here may hold more than one
//! request's pages, or claim a page that is not in the file.

use std::{io, path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use partial_sync_core::{PageCount, PageId, PageNo};
use partial_sync_transport::{PageSelector, PagesRequest, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{Base, PageSink, SourceError};
use roaring::RoaringBitmap;

use crate::{
    database::Database,
    error::{Error, PageFetchError, Result},
    fetch::{
        by_running::run_query,
        request::{pinned, stream},
    },
    open::{
        plain::{DbpageReader, open_plain},
        session::Session,
    },
};

const OPERATION: &str = "a hydration";
/// Most pages of one request.
const PAGES_PER_REQUEST: u64 = 4096;
/// Most bytes of one request, unless a single page is larger.
const BYTES_PER_REQUEST: u64 = 16 << 20;
/// The page map is saved after so many requests, so that a crash forgets at most so much.
const REQUESTS_PER_SAVE: usize = 16;

/// How far a hydration is. `fetched` goes up to `total`, unless queries fetch some of the pages themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HydrateProgress {
    /// Pages fetched so far.
    pub fetched: u32,
    /// Pages that it is to fetch; for a query, unknown and 0.
    pub total: u32,
}

/// What a hydration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Hydrated {
    /// Pages that it fetched.
    pub fetched: u32,
    /// Pages of the remote's database that are still absent. After [`Database::hydrate`] those are pages whose older copy a
    /// read transaction from before a pull may still need: it is not overwritten while that is open.
    pub absent: u32,
}

impl Database {
    /// Fetches every absent page, at the base revision. When none is [`absent`](Hydrated::absent) afterwards nothing is
    /// requested any more, and, after a [`checkpoint`](Self::checkpoint), the file is an ordinary SQLite database.
    /// `progress` is called for each page.
    ///
    /// A read transaction that began before a pull keeps the pages that it may read: those of which the pull has made the copy
    /// here an old one are not fetched. End it, and hydrate again.
    ///
    /// A remote that no longer keeps the base revision is an error for which
    /// [`is_revision_expired`](Error::is_revision_expired) is true: pull, then hydrate again. What was fetched before a
    /// failure stays.
    pub fn hydrate(&self, progress: impl FnMut(HydrateProgress) + Send) -> Result<Hydrated> {
        let session = &self.session(OPERATION)?;
        let _sync = session.lock_sync(OPERATION)?;
        session.check_pulled(OPERATION)?;
        saved(session, everything(session, progress))
    }

    /// Waits for pages that are still streaming in: a query continues as soon as its own page has come, and the pages around
    /// it come later. For programs that end after a query, and for counting. False when they have not come in time, or when it
    /// was cancelled.
    pub fn settle(&self, wait: Duration) -> bool {
        let Ok(session) = self.session(OPERATION) else {
            return false;
        };
        session.replica.settle(wait, || session.check(OPERATION).is_err())
    }

    /// Fetches the absent pages that a `SELECT` touches when the remote runs it at the base revision: afterwards that query
    /// needs no request. Where the remote is a bucket, which runs nothing, it is run here.
    pub fn hydrate_query(&self, sql: &str, progress: impl FnMut(HydrateProgress) + Send) -> Result<Hydrated> {
        let session = &self.session(OPERATION)?;
        let _sync = session.lock_sync(OPERATION)?;
        session.check_pulled(OPERATION)?;
        saved(session, touched_by(session, sql, progress))
    }
}

/// Saves the page map whatever the outcome was, and adds what is still absent.
fn saved(session: &Session<'_>, outcome: Result<u32>) -> Result<Hydrated> {
    let saved = save(session);
    let fetched = outcome?;
    saved?;
    let replica = &session.replica;
    let lock_byte = PageNo::lock_byte(replica.page_size());
    let absent = replica.map().missing(replica.base().size, lock_byte, true);
    Ok(Hydrated {
        fetched,
        absent: u32::try_from(absent).unwrap_or(u32::MAX),
    })
}

fn save(session: &Session<'_>) -> Result<()> {
    session
        .replica
        .save_map()
        .map_err(|e| Error::storage("save the page map of", session.replica.name(), e))
}

/// Ids of the base's pages that are neither here nor written locally.
fn absent(session: &Session<'_>, size: PageCount) -> RoaringBitmap {
    let map = session.replica.map();
    let mut ids = RoaringBitmap::new();
    ids.insert_range(..size.0);
    ids -= map.present();
    ids -= map.dirty();
    ids.remove(PageNo::lock_byte(session.replica.page_size()).id().0);
    ids
}

/// Takes out the pages whose bytes in the file are those of an older state that somebody still reads.
fn storable(session: &Session<'_>, mut ids: RoaringBitmap) -> RoaringBitmap {
    ids -= session.replica.map().retired();
    ids
}

fn everything(session: &Session<'_>, mut progress: impl FnMut(HydrateProgress) + Send) -> Result<u32> {
    let replica = &session.replica;
    let wanted = storable(session, absent(session, replica.base().size));
    let mut at = HydrateProgress {
        fetched: 0,
        total: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
    };
    progress(at);
    let fetched = fetch(session, &wanted, |_| {
        at.fetched += 1;
        progress(at);
    })?;
    rest(session, &replica.base())?;
    Ok(fetched)
}

/// Fetches pages in requests of bounded size. Says how many came.
fn fetch(
    session: &Session<'_>,
    wanted: &RoaringBitmap,
    mut arrived: impl FnMut(PageNo) + Send,
) -> Result<u32> {
    let replica = &session.replica;
    let page_size = replica.page_size();
    let mut fetched = 0;
    let per_request = (BYTES_PER_REQUEST / u64::from(page_size.bytes())).clamp(1, PAGES_PER_REQUEST);
    // A request at a time: there are as many as the remote says, whether it has them or not.
    let mut wanted = wanted.iter().filter_map(|id| PageId(id).no()).peekable();
    for n in 0_usize.. {
        if wanted.peek().is_none() {
            break;
        }
        let (base, pages, sink) = replica.begin_fetch(wanted.by_ref().take(per_request as usize))?;
        if pages.is_empty() {
            // Queries fetched these, or are about to.
            sink.finish(Ok(()));
            continue;
        }
        let request = pinned(&base, &pages, page_size, session.options.timeout);
        receive(session, request, sink, |page, _| {
            fetched += 1;
            arrived(page);
        })?;
        if let Some(&page) = pages.iter().find(|&&p| replica.map().is_absent(p)) {
            return Err(not_stored(page, replica.name()));
        }
        if (n + 1) % REQUESTS_PER_SAVE == 0 {
            save(session)?;
        }
    }
    Ok(fetched)
}

/// Runs one request into a sink; `arrived` is told of each page, and whether it was here already. Cancelled, the sink is dropped with the future, and anyone who waits for a page is told.
fn receive(
    session: &Session<'_>,
    request: PagesRequest,
    sink: Box<dyn PageSink>,
    mut arrived: impl FnMut(PageNo, bool) + Send,
) -> Result<()> {
    session.wait(OPERATION, async move {
        let result = stream(&*session.remote, request, |page, data| {
            let was_here = session.replica.map().is_present(page);
            sink.page(page, data)
                .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))?;
            arrived(page, was_here);
            Ok(())
        })
        .await;
        let for_readers = result
            .clone()
            .map_err(|source| Arc::new(PageFetchError { source }) as SourceError);
        sink.finish(for_readers);
        Ok(result?)
    })
}

/// Pages that a query had under way, and pages whose local write was rolled back: reads them, which waits for the one and
/// fetches the other.
fn rest(session: &Session<'_>, base: &Base) -> Result<()> {
    let map = session.replica.map();
    let mut left = absent(session, base.size);
    let mut written = map.dirty() - map.present();
    written.remove_range(base.size.0..);
    left |= written;
    let left = storable(session, left);
    if left.is_empty() {
        return Ok(());
    }
    let conn = open_plain(&session.replica, session.options.timeout)?;
    let _broken_by_cancel = session.interrupts(&conn);
    let mut reader = DbpageReader::new(&conn)?;
    for page in left.iter().filter_map(|id| PageId(id).no()) {
        reader.read(page)?;
        if map.is_absent(page) && !map.is_dirty(page) {
            return Err(not_stored(page, session.replica.name()));
        }
    }
    Ok(())
}

fn touched_by(
    session: &Session<'_>,
    sql: &str,
    mut progress: impl FnMut(HydrateProgress) + Send,
) -> Result<u32> {
    let replica = &session.replica;
    let mut at = HydrateProgress { fetched: 0, total: 0 };
    let mut count = || {
        at.fetched += 1;
        progress(at);
    };
    if !session.remote.runs_sql() {
        let before = replica.map().present_count().0;
        let came = || replica.map().present_count().0.saturating_sub(before);
        let mut counted = 0;
        let mut count_to = |came: u32| {
            (counted..came).for_each(|_| count());
            counted = counted.max(came);
        };
        run_query(session, sql, || count_to(came()))?;
        count_to(came());
        return Ok(at.fetched);
    }
    let have = replica.map().present_if_few(session.options.longest_question);
    // Where it would take many bytes to say what is here, the remote says what the query touches.
    if have.is_none()
        && let Some(mut touched) = list_touched(session, sql)?
    {
        let map = replica.map();
        // It may name every number that there is.
        touched.remove_range(replica.base().size.0..);
        let absent = &touched - map.present_among(&touched) - map.dirty();
        return fetch(session, &storable(session, absent), |_| count());
    }
    let (base, _, sink) = replica.begin_fetch([])?;
    let request = PagesRequest {
        revision: Some(base.revision.clone()),
        // With a query, "all" is all that the query touches.
        select: PageSelector::All,
        have,
        query: Some(sql.to_owned()),
        page_size: Some(replica.page_size()),
        deadline: Some(session.options.timeout),
        ..PagesRequest::default()
    };
    receive(session, request, sink, |_, was_here| {
        if !was_here {
            count();
        }
    })?;
    Ok(at.fetched)
}

/// Which pages (0-based ids) a query touches at the base, where the remote tells.
fn list_touched(session: &Session<'_>, sql: &str) -> Result<Option<RoaringBitmap>> {
    let replica = &session.replica;
    if !session.info.lock().remote_lists {
        return Ok(None);
    }
    let request = PagesRequest {
        revision: Some(replica.base().revision),
        query: Some(sql.to_owned()),
        list: true,
        page_size: Some(replica.page_size()),
        deadline: Some(session.options.timeout),
        ..PagesRequest::default()
    };
    session.wait(OPERATION, async {
        let mut answer = session.remote.pages(request).await?;
        let touched = answer.header.listed.take();
        // To its end: an answer that was cut is none.
        while touched.is_some()
            && let Some(page) = answer.pages.next().await
        {
            page?;
        }
        Ok(touched)
    })
}

fn not_stored(page: PageNo, path: &Path) -> Error {
    let why = format!("page {page} was fetched but could not be stored; is the disk full?");
    Error::storage("hydrate", path, io::Error::new(io::ErrorKind::StorageFull, why))
}
