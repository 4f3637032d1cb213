//! Pages of a file by their frames: of a small file from memory, of a large one by blocks.
//!
//! Blocks begin at multiples of their size, so that all who read a file ask for the same ones, and share a request for one. What must never
//! happen here: a request for each page.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream};
use partial_sync_core::PageNo;
use partial_sync_ltx::decode_frame;

use super::{
    ahead::{BLOCK, BLOCKS},
    catalog::Known,
    files::{Blocks, Files, Kept, lock, waiting},
    flights::Flight,
    index::Indexed,
};
use crate::error::StoreError;

/// Frames that are so near to each other are read with what is between them.
const GAP: u64 = 16 << 10;
/// How many bytes of frames are read for one another at most, before their pages are made of them.
const SPAN: u64 = 1 << 20;
/// How many such spans of a file are read at once.
const SPANS: usize = 8;

/// A page and where its frame is.
pub(crate) type Frame = (PageNo, Range<u64>);

/// Frames that are read for one another.
struct Span {
    bytes: Range<u64>,
    frames: Vec<Frame>,
}

impl Files {
    /// The pages of these frames, which ascend.
    pub(crate) async fn pages(
        self: &Arc<Self>,
        indexed: &Arc<Indexed>,
        frames: Vec<Frame>,
    ) -> Result<Vec<(PageNo, Bytes)>, StoreError> {
        if indexed.whole {
            let bytes = self.whole(indexed).await?;
            return self.decode(indexed, &bytes, 0, &frames);
        }
        let pages = stream::iter(spans(frames)).map(|span| async move {
            let bytes = self.bytes(indexed, span.bytes.clone()).await?;
            self.decode(indexed, &bytes, span.bytes.start, &span.frames)
        });
        let pages: Vec<_> = pages.buffered(SPANS).try_collect().await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// The pages of frames; `bytes` is what the file has from `from` on.
    fn decode(
        &self,
        indexed: &Indexed,
        bytes: &Bytes,
        from: u64,
        frames: &[Frame],
    ) -> Result<Vec<(PageNo, Bytes)>, StoreError> {
        let decode = |(page, range): &Frame| {
            let frame = (range.start - from) as usize..(range.end - from) as usize;
            let frame = bytes.get(frame).unwrap_or_default();
            let bytes = decode_frame(&indexed.header, *page, range.clone(), frame);
            let bytes = bytes.map_err(|error| indexed.wrong(&self.place(indexed.name), error))?;
            Ok((*page, Bytes::from(bytes)))
        };
        frames.iter().map(decode).collect()
    }

    /// A file that is read whole.
    async fn whole(self: &Arc<Self>, indexed: &Arc<Indexed>) -> Result<Bytes, StoreError> {
        if let Some(bytes) = lock(&self.contents).get(&(indexed.name, indexed.checksum, None)) {
            return Ok(bytes);
        }
        let file = Known {
            name: indexed.name,
            size: None,
            tail_at: None,
        };
        match self.loaded(file).await? {
            Some((again, Some(bytes))) if again.checksum == indexed.checksum => Ok(bytes),
            Some(_) => Err(self.replaced(indexed.name)),
            None => Err(self.missing(indexed.name)),
        }
    }

    /// Exactly these bytes of a larger file.
    async fn bytes(self: &Arc<Self>, indexed: &Arc<Indexed>, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
        let mut blocks: Vec<Option<Bytes>> = {
            let mut contents = lock(&self.contents);
            (first..=last)
                .map(|n| contents.get(&(indexed.name, indexed.checksum, Some(n))))
                .collect()
        };
        let missing: Vec<_> = (first..=last)
            .filter(|n| blocks[(n - first) as usize].is_none())
            .map(|n| (indexed.name, indexed.checksum, Some(n)))
            .collect();
        let flights = self.begin(indexed, &missing);
        self.read_ahead(indexed, first..last + 1);
        for flight in futures_util::future::try_join_all(flights)
            .await
            .map_err(StoreError::Shared)?
        {
            let (begin, bytes) = flight;
            for (n, block) in (begin..).zip(bytes.chunks(BLOCK as usize)) {
                if let Some(to) = n.checked_sub(first).and_then(|n| blocks.get_mut(n as usize)) {
                    *to = Some(bytes.slice_ref(block));
                }
            }
        }
        let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
        for (n, block) in (first..).zip(blocks) {
            let block = block.ok_or_else(|| self.replaced(indexed.name))?;
            let begin = n * BLOCK;
            let from = range.start.saturating_sub(begin).min(block.len() as u64);
            let to = (range.end - begin).min(block.len() as u64);
            joined.extend_from_slice(&block[from as usize..to as usize]);
        }
        Ok(joined.freeze())
    }

    /// Begins to read what somebody who reads these blocks is to read next.
    fn read_ahead(self: &Arc<Self>, indexed: &Arc<Indexed>, blocks: Range<u64>) {
        let end = indexed.len.div_ceil(BLOCK);
        let ahead = lock(&self.ahead).read(indexed.name, blocks, end);
        let missing: Vec<_> = {
            let mut contents = lock(&self.contents);
            let keys = ahead.map(|n| (indexed.name, indexed.checksum, Some(n)));
            keys.filter(|key| contents.get(key).is_none()).collect()
        };
        for flight in self.begin(indexed, &missing) {
            // Who needs them and finds that they did not come asks for them.
            tokio::spawn(flight);
        }
    }

    /// The requests for blocks of a file; those that are not under way are begun.
    fn begin(self: &Arc<Self>, indexed: &Arc<Indexed>, blocks: &[Kept]) -> Vec<Flight<Blocks>> {
        self.reading.join(blocks, |keys| {
            let begin = keys[0].2.unwrap_or_default();
            let run = (begin..)
                .zip(keys)
                .take(BLOCKS)
                .take_while(|(n, key)| key.2 == Some(*n))
                .count();
            let (files, indexed) = (self.clone(), indexed.clone());
            (run, files.read_blocks(indexed, begin, run as u64))
        })
    }

    /// Blocks of a file, from the folder, or by one request for those between that are not there.
    async fn read_blocks(
        self: Arc<Self>,
        indexed: Arc<Indexed>,
        first: u64,
        count: u64,
    ) -> Result<Blocks, StoreError> {
        let mut blocks = self.disk_blocks(&indexed, first, count).await?;
        let mut n = first;
        while n < first + count {
            let at = (n - first) as usize;
            let missing = blocks[at..].iter().take_while(|block| block.is_none()).count() as u64;
            if missing > 0 {
                let bytes = self.request_blocks(&indexed, n, missing).await?;
                for (to, block) in blocks[at..].iter_mut().zip(bytes.chunks(BLOCK as usize)) {
                    *to = Some(bytes.slice_ref(block));
                }
            }
            n += missing.max(1);
        }
        let mut bytes = BytesMut::new();
        let mut contents = lock(&self.contents);
        for (n, block) in (first..).zip(blocks.into_iter().flatten()) {
            bytes.extend_from_slice(&block);
            // Of its own, so that it does not hold those beside it in memory.
            let block = Bytes::copy_from_slice(&block);
            let len = block.len() as u64;
            contents.insert((indexed.name, indexed.checksum, Some(n)), block, len);
        }
        drop(contents);
        Ok((first, bytes.freeze()))
    }

    async fn request_blocks(
        self: &Arc<Self>,
        indexed: &Arc<Indexed>,
        first: u64,
        count: u64,
    ) -> Result<Bytes, StoreError> {
        let name = indexed.name;
        let range = first * BLOCK..((first + count) * BLOCK).min(indexed.len);
        let bytes = {
            let _permit = self.permit().await;
            let place = self.place(name);
            let part = place.part(name, range.clone()).await?;
            self.check_version(name, &part, indexed.len, indexed.tag.as_deref())?;
            let what = format!("reading bytes {} to {} of {name}", range.start, range.end);
            place.exactly(part.bytes, range.end - range.start, &what).await?
        };
        if let Some(disk) = self.disk.clone() {
            let (indexed, bytes) = (indexed.clone(), bytes.clone());
            let write = move || {
                for (n, block) in (first..).zip(bytes.chunks(BLOCK as usize)) {
                    disk.write(&indexed, n, block);
                }
            };
            waiting(write).await?;
        }
        Ok(bytes)
    }

    /// Those of the blocks that are in the folder.
    async fn disk_blocks(
        &self,
        indexed: &Arc<Indexed>,
        first: u64,
        count: u64,
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let Some(disk) = self.disk.clone() else {
            return Ok(vec![None; count as usize]);
        };
        let indexed = indexed.clone();
        let read = move |n: u64| {
            let len = indexed.len.saturating_sub(n * BLOCK).min(BLOCK);
            disk.read(&indexed, n, len as usize).map(Bytes::from)
        };
        waiting(move || (first..first + count).map(read).collect()).await
    }
}

/// Frames, which ascend, by what is read together.
fn spans(frames: Vec<Frame>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (page, range) in frames {
        match spans.last_mut() {
            Some(span) if range.start - span.bytes.end <= GAP && range.end - span.bytes.start <= SPAN => {
                span.bytes.end = range.end;
                span.frames.push((page, range));
            }
            _ => spans.push(Span {
                bytes: range.clone(),
                frames: vec![(page, range)],
            }),
        }
    }
    spans
}
