//! Verification: compares the pages that are here with the remote's, at the base revision, by their hashes.
//!
//! Reads only what is here: a verification fetches no absent page, changes nothing, and holds one request's hashes. Pages
//! that local transactions wrote cannot be compared and are counted instead.

use std::collections::HashMap;

use partial_sync_core::{PageCount, PageId, PageNo, admit::admit};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use roaring::RoaringBitmap;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    database::Database,
    error::{Error, Result},
    fetch::request::{pinned, stream},
    open::{
        plain::{DbpageReader, open_plain},
        session::Session,
    },
};

const OPERATION: &str = "a verification";
/// Most pages of one request.
const PAGES_PER_REQUEST: usize = 4096;

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Pages compared so far.
    pub compared: u32,
    /// Pages to compare.
    pub total: u32,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The revision of the remote that was compared with.
    pub revision: String,
    /// Pages that were compared.
    pub compared: u32,
    /// Pages that are not compared because local transactions wrote them.
    pub dirty_skipped: u32,
    /// Pages of the remote's database that are not here.
    pub absent: u32,
    /// Pages that differ, in order.
    pub differing: Vec<PageDifference>,
}

impl Verified {
    /// Whether no page differs.
    pub fn is_equal(&self) -> bool {
        self.differing.is_empty()
    }
}

/// A page that is not what the remote has, with both hashes (XXH3, 128 bits, as hexadecimal digits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PageDifference {
    /// The page, as SQLite counts.
    pub page: u32,
    /// Hash of the page here.
    pub here: String,
    /// Hash of the remote's page.
    pub remote: String,
}

impl Database {
    /// Compares every page that is here and not written locally with the remote's copy at the base revision. Pages that
    /// differ are found and not changed: delete the replica and connect again to replace them.
    pub fn verify(&self, progress: impl FnMut(VerifyProgress) + Send) -> Result<Verified> {
        let session = &self.session(OPERATION)?;
        let _sync = session.lock_sync(OPERATION)?;
        session.check_pulled(OPERATION)?;
        verify(session, progress)
    }
}

fn verify(session: &Session<'_>, mut progress: impl FnMut(VerifyProgress) + Send) -> Result<Verified> {
    let replica = &session.replica;
    let base = replica.base();
    let present = within(replica.map().present(), base.size);
    let dirty = within(replica.map().dirty(), base.size);
    let here: Vec<PageNo> = (&present - &dirty)
        .iter()
        .filter_map(|id| PageId(id).no())
        .collect();
    let lock_byte = u32::from(base.size.contains(PageNo::lock_byte(replica.page_size())));
    let mut verified = Verified {
        revision: base.revision.as_str().to_owned(),
        compared: 0,
        dirty_skipped: count(&dirty),
        absent: base
            .size
            .0
            .saturating_sub(count(&(&present | &dirty)))
            .saturating_sub(lock_byte),
        differing: vec![],
    };
    let total = here.len() as u32;
    progress(VerifyProgress { compared: 0, total });
    for chunk in here.chunks(PAGES_PER_REQUEST) {
        let local = hash(session, chunk)?;
        verified.dirty_skipped += (chunk.len() - local.len()) as u32;
        let pages: Vec<PageNo> = chunk.iter().copied().filter(|p| local.contains_key(p)).collect();
        if pages.is_empty() {
            continue;
        }
        let page_size = replica.page_size();
        let request = pinned(&base, &pages, page_size, session.options.timeout);
        let (verified, progress) = (&mut verified, &mut progress);
        session.wait(OPERATION, async move {
            let compared = stream(&*session.remote, request, |page, data| {
                let Some(&here) = local.get(&page) else {
                    return Ok(());
                };
                let admitted = admit(page, data, page_size)
                    .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))?;
                let Some(data) = admitted else { return Ok(()) };
                let remote = xxh3_128(&data);
                if here != remote {
                    let (here, remote) = (format!("{here:032x}"), format!("{remote:032x}"));
                    verified.differing.push(PageDifference {
                        page: page.get(),
                        here,
                        remote,
                    });
                }
                verified.compared += 1;
                progress(VerifyProgress {
                    compared: verified.compared,
                    total,
                });
                Ok(())
            });
            compared.await.map_err(Error::from)
        })?;
    }
    verified.differing.sort_by_key(|d| d.page);
    Ok(verified)
}

/// The hashes of the pages that are still clean in a snapshot that is taken here.
fn hash(session: &Session<'_>, pages: &[PageNo]) -> Result<HashMap<PageNo, u128>> {
    let conn = open_plain(&session.replica, session.options.timeout)?;
    let _broken_by_cancel = session.interrupts(&conn);
    conn.execute_batch("BEGIN")?;
    let mut reader = DbpageReader::new(&conn)?;
    // The snapshot first, then what is dirty: a page that is clean after the snapshot began is clean in it.
    reader.read(PageNo::FIRST)?;
    let dirty = session.replica.map().dirty();
    let mut hashes = HashMap::with_capacity(pages.len());
    for &page in pages {
        if dirty.contains(page.id().0) || session.replica.map().is_absent(page) {
            continue;
        }
        if let Some(bytes) = reader.read(page)? {
            hashes.insert(page, xxh3_128(bytes));
        }
    }
    Ok(hashes)
}

fn within(mut ids: RoaringBitmap, size: PageCount) -> RoaringBitmap {
    ids.remove_range(size.0..);
    ids
}

fn count(ids: &RoaringBitmap) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}
