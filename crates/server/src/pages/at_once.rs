//! Small answers whose pages the system or this process has in memory: read on the thread that asks, and sent whole. They are most
//! of what a replica asks for.

use std::{cell::RefCell, io::IoSliceMut};

use bytes::{Bytes, BytesMut};
use partial_sync_core::{PageNo, PageSize};
use partial_sync_transport::wire::{PullUpdatesHeader, encode_frame, encode_page_head};

use super::reader::RevisionReader;
use crate::error::ServerError;

/// Bytes of pages of the largest such answer.
const MOST: usize = 256 << 10;
/// Bytes before a page, at most.
const HEAD: usize = 32;

/// Pages of the largest such answer, where an answer may have so many bytes of memory.
pub(super) fn most_pages(page_size: PageSize, bytes: usize) -> u64 {
    (bytes.min(MOST) / page_size.as_usize()) as u64
}

/// The answer with these pages, of which there are at most [`most_pages`]; `None` if some page is on a disk, or further away.
pub(super) fn answer(
    reader: &RevisionReader,
    header: &PullUpdatesHeader,
    pages: &[PageNo],
) -> Result<Option<Bytes>, ServerError> {
    let page_size = reader.page_size().as_usize();
    let mut heads = BytesMut::with_capacity(256 + pages.len() * HEAD);
    encode_frame(header, &mut heads);
    let header = heads.split();
    let mut ends = Vec::with_capacity(pages.len());
    for page in pages {
        encode_page_head(u64::from(page.id().0), page_size, &mut heads);
        ends.push(heads.len());
    }
    let mut answer = Buffer::of(header.len() + heads.len() + pages.len() * page_size);
    let (first, mut rest) = answer.bytes().split_at_mut(header.len());
    first.copy_from_slice(&header);
    let mut to = Vec::with_capacity(pages.len());
    let mut start = 0;
    for end in ends {
        let (head, after) = rest.split_at_mut(end - start);
        head.copy_from_slice(&heads[start..end]);
        let (place, after) = after.split_at_mut(page_size);
        to.push(IoSliceMut::new(place));
        (rest, start) = (after, end);
    }
    if !reader.states().read_at_once(reader.at(), pages, &mut to)? {
        return Ok(None);
    }
    reader.states().check_open()?;
    Ok(Some(Bytes::from_owner(answer)))
}

/// Buffers that are kept for the next large answers of a thread.
const SPARE: usize = 4;
/// Smaller ones are not worth it.
const LARGE: usize = 32 << 10;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The bytes of an answer, all of which its maker writes. Those of a large one were another's, and are neither cleared nor given
/// back to the system in between.
struct Buffer {
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    fn of(len: usize) -> Self {
        let fits = |spare: &Vec<u8>| (len..=len + len / 4).contains(&spare.len());
        let spare = match len {
            LARGE.. => SPARES.with_borrow_mut(|spares| {
                let found = spares.iter().position(fits)?;
                Some(spares.swap_remove(found))
            }),
            _ => None,
        };
        let bytes = spare.unwrap_or_else(|| vec![0; len]);
        Self { bytes, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() < LARGE {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that is ending keeps nothing.
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() == SPARE {
                spares.swap_remove(0);
            }
            spares.push(bytes);
        });
    }
}
