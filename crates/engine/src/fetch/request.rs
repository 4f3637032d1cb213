//! Requests for pages, and what comes back, page by page.

use std::time::Duration;

use futures_util::StreamExt;
use partial_sync_core::{PageNo, PageSize};
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind, RemotePage};
use partial_sync_vfs::{Base, PageSink};
use roaring::RoaringBitmap;

/// Gives a page to those who wait for it.
pub(crate) fn put(sink: &dyn PageSink, page: &RemotePage) -> Result<(), RemoteError> {
    let Some(number) = page.id.no() else { return Ok(()) };
    sink.page(number, &page.data)
        .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))
}

/// A request for exactly these pages at a base.
pub(crate) fn pinned(base: &Base, pages: &[PageNo], page_size: PageSize, deadline: Duration) -> PagesRequest {
    let ids = pages.iter().map(|page| page.id().0).collect();
    pinned_ids(base, ids, page_size, deadline)
}

/// The same for pages by their 0-based ids.
pub(crate) fn pinned_ids(
    base: &Base,
    ids: RoaringBitmap,
    page_size: PageSize,
    deadline: Duration,
) -> PagesRequest {
    PagesRequest {
        revision: Some(base.revision.clone()),
        select: PageSelector::Ids(ids),
        page_size: Some(page_size),
        deadline: Some(deadline),
        ..PagesRequest::default()
    }
}

/// Runs a request to its end and hands out each page.
pub(crate) async fn stream(
    remote: &dyn Remote,
    request: PagesRequest,
    mut page: impl FnMut(PageNo, &[u8]) -> Result<(), RemoteError>,
) -> Result<(), RemoteError> {
    let mut answer = remote.pages(request).await?;
    while let Some(next) = answer.pages.next().await {
        let next = next?;
        let Some(number) = next.id.no() else { continue };
        page(number, &next.data)?;
    }
    Ok(())
}
