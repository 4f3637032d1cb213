//! How an origin is asked which states there are: what the latest one is, what changed since one, whether one is kept.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use partial_sync_core::{PageCount, PageId, PageSize, Revision, header::Page1};
use partial_sync_transport::{
    ApplyMode, Features, PageSelector, PageStream, PagesRequest, Remote, RemoteError,
};
use roaring::RoaringBitmap;

use super::timeline::Changed;

/// A state that the origin tells of.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) revision: Revision,
    pub(super) size: PageCount,
    pub(super) features: Features,
    /// Its first page, unless it is empty.
    pub(super) page_1: Option<Bytes>,
}

impl Told {
    /// The page size, if it has a page.
    pub(super) fn page_size(&self) -> Option<PageSize> {
        let bytes = self.page_1.as_ref()?.len();
        PageSize::new(u32::try_from(bytes).ok()?).ok()
    }
}

/// The latest state, or that of a revision, and its first page.
pub(super) async fn state(remote: &dyn Remote, revision: Option<&Revision>) -> Result<Told, RemoteError> {
    let first = RoaringBitmap::from([0]);
    let request = PagesRequest {
        revision: revision.cloned(),
        select: PageSelector::Ids(first),
        ..PagesRequest::default()
    };
    let PageStream { header, mut pages } = remote.pages(request).await?;
    let mut page_1 = None;
    while let Some(page) = pages.try_next().await? {
        if page.id == PageId(0) {
            page_1 = Some(Bytes::copy_from_slice(&page.data));
        }
    }
    // A remote that is not ours may state the latest size instead.
    let stated = page_1.as_ref().and_then(|page| Page1::of(page).ok()?.db_size());
    let size = match revision {
        Some(_) if !header.features.list => stated.unwrap_or(header.db_size),
        _ => header.db_size,
    };
    Ok(Told {
        revision: revision.cloned().unwrap_or(header.revision),
        size,
        features: header.features,
        page_1,
    })
}

/// What is there since a state.
#[derive(Debug)]
pub(super) struct Since {
    pub(super) revision: Revision,
    pub(super) size: PageCount,
    pub(super) features: Features,
    pub(super) changed: Changed,
    /// Pages that came along.
    pub(super) pages: Vec<(u32, Bytes)>,
}

/// Asks what changed since a state, and waits so long for something to change. `lists`: the remote can say it without sending it.
pub(super) async fn since(
    remote: &dyn Remote,
    revision: &Revision,
    wait: Option<Duration>,
    lists: bool,
) -> Result<Since, RemoteError> {
    /// Bytes of pages that are kept of what comes.
    const KEPT: usize = 16 << 20;
    let request = PagesRequest {
        since: Some(revision.clone()),
        long_poll: wait,
        list: lists,
        ..PagesRequest::default()
    };
    let PageStream { header, pages } = remote.pages(request).await?;
    let mut since = Since {
        changed: header.listed,
        revision: header.revision,
        size: header.db_size,
        features: header.features,
        pages: Vec::new(),
    };
    if header.mode == ApplyMode::ReplaceBase {
        since.changed = None;
        return Ok(since);
    }
    // To its end: an answer that was cut is none.
    let (came, kept, _) = pages
        .try_fold(
            (RoaringBitmap::new(), Vec::new(), 0),
            async |(mut came, mut kept, mut bytes), page| {
                came.insert(page.id.0);
                bytes += page.data.len();
                if bytes <= KEPT {
                    kept.push((page.id.0, Bytes::copy_from_slice(&page.data)));
                }
                Ok((came, kept, bytes))
            },
        )
        .await?;
    since.changed.get_or_insert(came);
    since.pages = kept;
    Ok(since)
}
