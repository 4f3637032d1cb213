//! Pages of the new revision that the answer did not have and that its commit needs: what local changes overwrote, and the last
//! page of a database that grew.

use partial_sync_core::{PageId, PageNo};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use partial_sync_vfs::Base;
use roaring::RoaringBitmap;

use super::staged::{OPERATION, Staged};
use crate::{
    error::{Error, Result},
    fetch::request::{pinned, stream},
    open::session::Session,
};

/// Stages these pages at the new revision, in one request; those that it has already are not asked for.
pub(crate) fn stage_missing(
    session: &Session<'_>,
    base: &Base,
    staged: &Staged,
    ids: &RoaringBitmap,
) -> Result<()> {
    let page_size = session.replica.page_size();
    let missing: Vec<PageNo> = ids
        .iter()
        .take_while(|&id| id < base.size.0)
        .filter(|&id| !staged.has(PageId(id)))
        .filter_map(|id| PageId(id).no())
        .filter(|page| !page.is_lock_byte_page(page_size))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let request = pinned(base, &missing, page_size, session.options.timeout);
    session.wait(OPERATION, async {
        let mut failed = None;
        let done = stream(&*session.remote, request, |page, data| {
            staged.put(page.id(), data).map_err(|e| {
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
    match missing.iter().find(|page| !staged.has(page.id())) {
        None => Ok(()),
        Some(page) => {
            let message = format!(
                "{} answered without page {page} at {}",
                session.remote.url(),
                base.revision
            );
            Err(Error::Remote(RemoteError::new(
                RemoteErrorKind::Protocol,
                message,
            )))
        }
    }
}
