//! Absent pages from a remote: one request for each miss, pinned to the reader's revision, streamed into the sink.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use partial_sync_core::{PageNo, PageSize};
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{Base, Miss, PageSink, PageSource, SourceError};
use roaring::RoaringBitmap;

use crate::{error::PageFetchError, runtime::runtime};

/// The [`PageSource`] of a replica.
pub(crate) struct RemoteSource {
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) page_size: PageSize,
    pub(crate) deadline: Duration,
}

impl PageSource for RemoteSource {
    fn fetch(&self, miss: Miss, sink: PageSink) {
        let (remote, page_size, deadline) = (self.remote.clone(), self.page_size, self.deadline);
        tracing::debug!(
            wanted = %miss.wanted, pages = miss.pages.len(), revision = %miss.base.revision, statement = miss.statement,
            "fetching absent pages"
        );
        runtime().spawn(async move {
            let request = pinned(&miss.base, &miss.pages, page_size, deadline);
            let result = stream(&*remote, request, |page, data| {
                sink.page(page, data)
                    .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))
            })
            .await;
            sink.finish(result.map_err(|source| Arc::new(PageFetchError { source }) as SourceError));
        });
    }
}

/// A request for exactly these pages at a base.
pub(crate) fn pinned(base: &Base, pages: &[PageNo], page_size: PageSize, deadline: Duration) -> PagesRequest {
    PagesRequest {
        revision: Some(base.revision.clone()),
        select: PageSelector::Ids(pages.iter().map(|p| p.id().0).collect::<RoaringBitmap>()),
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
