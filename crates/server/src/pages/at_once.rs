//! Small answers of the current revision, whose pages the system has in memory: read on the thread that asks, and sent whole.
//! They are most of what a replica asks for.

use std::io::IoSliceMut;

use bytes::{Bytes, BytesMut};
use partial_sync_core::{PageId, PageNo};
use partial_sync_transport::wire::{PullUpdatesHeader, encode_frame, encode_page_head};
use roaring::RoaringBitmap;

use crate::{error::ServerError, follow::Snapshot};

/// Bytes of pages of the largest such answer.
const MOST: usize = 256 << 10;
/// Bytes before a page, at most.
const HEAD: usize = 32;

/// Pages of the largest such answer, where an answer may have so many bytes of memory.
pub(super) fn most_pages(snapshot: &Snapshot, bytes: usize) -> u64 {
    (bytes.min(MOST) / snapshot.page_size().as_usize()) as u64
}

/// The answer with these pages, of which there are at most [`most_pages`]; `None` if some page is on a disk.
pub(super) fn answer(
    snapshot: &Snapshot,
    header: &PullUpdatesHeader,
    ids: &RoaringBitmap,
) -> Result<Option<Bytes>, ServerError> {
    let page_size = snapshot.page_size().as_usize();
    let pages: Vec<PageNo> = ids.iter().filter_map(|id| PageId(id).no()).collect();
    let mut bytes = BytesMut::with_capacity(256 + pages.len() * (page_size + HEAD));
    encode_frame(header, &mut bytes);
    let mut places = Vec::with_capacity(pages.len());
    for page in &pages {
        encode_page_head(u64::from(page.id().0), page_size, &mut bytes);
        places.push(bytes.len());
        bytes.resize(bytes.len() + page_size, 0);
    }
    let (mut rest, mut before) = (&mut bytes[..], 0);
    let mut to: Vec<IoSliceMut<'_>> = Vec::with_capacity(pages.len());
    for place in places {
        let (page, after) = rest.split_at_mut(place - before).1.split_at_mut(page_size);
        to.push(IoSliceMut::new(page));
        (rest, before) = (after, place + page_size);
    }
    if !snapshot.read_at_once(&pages, &mut to)? {
        return Ok(None);
    }
    snapshot.check_read()?;
    Ok(Some(bytes.freeze()))
}
