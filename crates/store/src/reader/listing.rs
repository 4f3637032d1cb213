//! A bucket without `head.json`, as Litestream writes it: what there is comes from listings, at opening and from time to time after.
//!
//! Its levels are those of this crate, but level 0 is kept for some minutes only, a snapshot may be of any level, and nobody says
//! where files end or which history this is. So the lineage is made of the place and of the header of the oldest snapshot: it is
//! another one where that was removed before the bucket is opened again.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use partial_sync_core::PageSize;
use partial_sync_ltx::{HEADER_LEN, TxId};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    catalog::{Catalog, Known, State, chain},
    files::Files,
    following::check_size,
};
use crate::{
    bucket::Bucket,
    error::StoreError,
    layout::{FileName, Layout, Level},
};

/// What a listing told, and of which history.
pub(crate) struct Listing {
    /// With the layout in which something was found.
    pub(crate) bucket: Bucket,
    pub(crate) page_size: PageSize,
    pub(crate) lineage: String,
}

/// All files of a bucket.
pub(crate) async fn list(bucket: &Bucket) -> Result<Vec<Known>, StoreError> {
    let levels = (0..=9).filter_map(Level::new);
    let listed = stream::iter(levels).map(|level| async move {
        let files = bucket
            .list(level, None)
            .await?
            .into_iter()
            .map(move |file| Known {
                name: FileName { level, ids: file.ids },
                size: Some(file.size),
                tail_at: None,
            });
        Ok::<_, StoreError>(files.collect::<Vec<_>>())
    });
    let listed: Vec<_> = listed.buffered(10).try_collect().await?;
    Ok(listed.into_iter().flatten().collect())
}

/// Looks for files in either layout; `None` if there is no snapshot.
pub(crate) async fn find(bucket: &Bucket) -> Result<Option<Listing>, StoreError> {
    for layout in [Layout::S3, Layout::Plain] {
        let bucket = bucket.clone().with_layout(layout);
        let files = list(&bucket).await?;
        let snapshots = files.iter().filter(|file| file.name.ids.is_snapshot());
        let Some(oldest) = snapshots.min_by_key(|file| (file.name.ids.max(), file.name.level)) else {
            continue;
        };
        let header = bucket.range(oldest.name, 0..HEADER_LEN as u64).await?;
        let page_size = bucket.parse_header(oldest.name, &header)?.page_size;
        let mut place = bucket.name().into_bytes();
        place.extend_from_slice(&header);
        return Ok(Some(Listing {
            bucket,
            page_size,
            lineage: format!("{:032x}", xxh3_128(&place)),
        }));
    }
    Ok(None)
}

/// What is there now.
pub(crate) async fn gather(files: &Arc<Files>) -> Result<Catalog, StoreError> {
    let listed = list(&files.bucket).await?;
    let no_database = || StoreError::NoDatabase {
        store: files.bucket.name(),
    };
    let all = TxId::new(u64::MAX).ok_or_else(no_database)?;
    let base = chain(&listed, all);
    files.keep(base.iter().map(|file| file.name).collect());
    let indexes = files.all_indexed(&base).await?;
    let newest = indexes.last().ok_or_else(no_database)?.header;
    let pages = indexes.iter().map(|indexed| indexed.index.len()).sum();
    check_size(files, State::after(&newest), pages)?;
    Ok(Catalog {
        files: listed,
        floor: None,
        epoch: 0,
        node: newest.node,
        writer: None,
        last: State::after(&newest),
        newest,
    })
}
