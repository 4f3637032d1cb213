//! The pages of an answer, in each encoding: [`Packer`] writes messages of them, [`Unpacker`] reads them.
//!
//! One zstd frame for each page takes more bytes than the whole compressed at once, because nothing is learnt from the page before;
//! blocks of many pages take nearly the same (`scripts/bench wire`). A block is a frame of its own, so that no state is kept for an answer
//! that is slow, by neither side, and a stream that was cut can be taken up at any page. The first blocks are small: what is
//! waited for is not held back by what comes along.

use bytes::{Bytes, BytesMut};

use super::{
    error::WireError,
    framing::{PAGE_LIMIT, encode_frame},
};

/// The most bytes of pages in a block.
pub const BLOCK: usize = 512 << 10;
/// The longest message with a block: what zstd makes of bytes that it cannot compress, and the ids.
pub const BLOCK_LIMIT: usize = BLOCK + BLOCK / 64 + BLOCK_IDS;
/// The most bytes that the ids of a block take.
const BLOCK_IDS: usize = 16 << 10;
/// The smallest page: of smaller ones, a block could have a great many.
const SMALLEST_PAGE: usize = 512;
/// The largest page.
const LARGEST_PAGE: usize = 65536;
/// Each block has so many times the bytes of the one before, at most.
const GROWTH: usize = 4;
const PAGE_LEVEL: i32 = 1;
const BLOCK_LEVEL: i32 = 3;

/// How pages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PageEncoding {
    /// As they are.
    Raw = 0,
    /// One zstd frame a page.
    Zstd = 1,
    /// One zstd frame for many pages: [`PageBlock`]. It is asked for beside one of the others, which a remote that does not
    /// know it answers with.
    ZstdBlocks = 1001,
}

/// One page of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PageData {
    /// 0-based id.
    #[prost(uint64, tag = "1")]
    pub page_id: u64,
    /// The page, or one zstd frame that holds it.
    #[prost(bytes = "bytes", tag = "2")]
    pub encoded_page: Bytes,
}

/// Pages of an answer, all of one size, as one zstd frame.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PageBlock {
    /// 0-based ids, in the order of the pages.
    #[prost(uint64, repeated, tag = "1")]
    pub page_ids: Vec<u64>,
    /// The frame.
    #[prost(bytes = "bytes", tag = "2")]
    pub pages: Bytes,
}

/// Writes the pages of one answer.
#[derive(Debug)]
pub struct Packer {
    encoding: PageEncoding,
    /// Bytes of pages of the next block.
    block: usize,
}

impl Packer {
    /// Of an answer with this encoding.
    pub fn new(encoding: PageEncoding) -> Self {
        Self { encoding, block: 0 }
    }

    /// Appends messages with these pages, all of one size, by id.
    pub fn pack(&mut self, pages: &[(u64, Bytes)], to: &mut BytesMut) -> std::io::Result<()> {
        match self.encoding {
            PageEncoding::Raw => {
                for (page_id, page) in pages {
                    single(*page_id, page.clone(), to);
                }
            }
            PageEncoding::Zstd => {
                let mut zstd = zstd::bulk::Compressor::new(PAGE_LEVEL)?;
                for (page_id, page) in pages {
                    single(*page_id, zstd.compress(page)?.into(), to);
                }
            }
            PageEncoding::ZstdBlocks => {
                let mut zstd = zstd::bulk::Compressor::new(BLOCK_LEVEL)?;
                let mut left = pages;
                while let Some((_, page)) = left.first() {
                    self.block = (self.block * GROWTH).clamp(page.len(), BLOCK);
                    let (block, rest) = left.split_at((self.block / page.len()).min(left.len()));
                    let pages: Vec<&[u8]> = block.iter().map(|(_, page)| &page[..]).collect();
                    let message = PageBlock {
                        page_ids: block.iter().map(|(id, _)| *id).collect(),
                        pages: zstd.compress(&pages.concat())?.into(),
                    };
                    encode_frame(&message, to);
                    left = rest;
                }
            }
        }
        Ok(())
    }
}

fn single(page_id: u64, encoded_page: Bytes, to: &mut BytesMut) {
    encode_frame(
        &PageData {
            page_id,
            encoded_page,
        },
        to,
    );
}

/// Reads the pages of answers.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// The longest message with pages.
    pub const fn limit(encoding: PageEncoding) -> usize {
        match encoding {
            PageEncoding::Raw | PageEncoding::Zstd => PAGE_LIMIT,
            PageEncoding::ZstdBlocks => BLOCK_LIMIT,
        }
    }

    /// The pages of a message, by id; at least one. Whether they are what was asked for, and pages of SQLite, is not known yet.
    pub fn unpack(&mut self, message: Bytes, encoding: PageEncoding) -> Result<Vec<(u64, Bytes)>, WireError> {
        use prost::Message;
        match encoding {
            PageEncoding::Raw => {
                let page = PageData::decode(message)?;
                Ok(vec![(page.page_id, page.encoded_page)])
            }
            PageEncoding::Zstd => {
                let page = PageData::decode(message)?;
                let data = self.decompress(&page.encoded_page, LARGEST_PAGE);
                let data = data.map_err(|why| WireError::Page {
                    id: page.page_id,
                    why,
                })?;
                Ok(vec![(page.page_id, data.into())])
            }
            PageEncoding::ZstdBlocks => {
                let block = PageBlock::decode(message)?;
                let ids = block.page_ids;
                let Some(first) = ids.first().copied() else {
                    return Err(WireError::BadBlock("it has no pages"));
                };
                let pages = self.decompress(&block.pages, BLOCK.max(LARGEST_PAGE));
                let pages = pages.map_err(|why| WireError::Page { id: first, why })?;
                let size = pages.len() / ids.len();
                if size < SMALLEST_PAGE || size * ids.len() != pages.len() {
                    return Err(WireError::BadBlock("its pages are not of one size"));
                }
                // Each by itself: to keep one is not to keep all.
                let pages = pages.chunks(size).map(Bytes::copy_from_slice);
                Ok(ids.into_iter().zip(pages).collect())
            }
        }
    }

    fn decompress(&mut self, frame: &[u8], most: usize) -> Result<Vec<u8>, String> {
        let zstd = match &mut self.zstd {
            Some(zstd) => Ok(zstd),
            empty => zstd::bulk::Decompressor::new().map(|zstd| empty.insert(zstd)),
        };
        zstd.and_then(|zstd| zstd.decompress(frame, most))
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FrameDecoder;

    const ALL: [PageEncoding; 3] = [PageEncoding::Raw, PageEncoding::Zstd, PageEncoding::ZstdBlocks];

    fn pages(size: usize, count: u64) -> Vec<(u64, Bytes)> {
        let mut random = fastrand::Rng::with_seed(size as u64);
        let mut page = || -> Bytes {
            // Half of it can be compressed.
            let mut page = vec![7; size];
            random.fill(&mut page[size / 2..]);
            page.into()
        };
        (0..count).map(|n| (n * 3, page())).collect()
    }

    fn read(bytes: &[u8], encoding: PageEncoding) -> Vec<Vec<(u64, Bytes)>> {
        let (mut frames, mut unpacker) = (FrameDecoder::new(), Unpacker::default());
        frames.push(bytes);
        let mut messages = Vec::new();
        while let Some(frame) = frames.next(Unpacker::limit(encoding)).unwrap() {
            messages.push(unpacker.unpack(frame, encoding).unwrap());
        }
        assert!(frames.is_at_boundary());
        messages
    }

    #[test]
    fn pages_of_every_size_come_out_as_they_went_in_whatever_the_encoding() {
        for size in [512, 4096, 65536] {
            for encoding in ALL {
                let pages = pages(size, 300);
                let mut packer = Packer::new(encoding);
                let mut bytes = BytesMut::new();
                for part in [&pages[..1], &pages[1..1], &pages[1..120], &pages[120..]] {
                    packer.pack(part, &mut bytes).unwrap();
                }
                let read: Vec<_> = read(&bytes, encoding).into_iter().flatten().collect();
                assert_eq!(read, pages, "{size}, {encoding:?}");
            }
        }
    }

    #[test]
    fn blocks_begin_with_one_page_and_grow_to_their_limit() {
        let mut bytes = BytesMut::new();
        Packer::new(PageEncoding::ZstdBlocks)
            .pack(&pages(4096, 300), &mut bytes)
            .unwrap();
        let blocks = read(&bytes, PageEncoding::ZstdBlocks);
        let sizes: Vec<usize> = blocks.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 4, 16, 64, 128, 87]);
    }

    #[test]
    fn a_block_that_nothing_can_compress_is_within_the_limit_of_a_message() {
        for size in [512, 65536] {
            let mut random = fastrand::Rng::with_seed(1);
            let count = BLOCK / size * 3;
            let mut page = || -> Bytes {
                let mut page = vec![0; size];
                random.fill(&mut page);
                page.into()
            };
            let pages: Vec<_> = (0..count)
                .map(|n| (u64::from(u32::MAX) - n as u64, page()))
                .collect();
            let mut bytes = BytesMut::new();
            Packer::new(PageEncoding::ZstdBlocks)
                .pack(&pages, &mut bytes)
                .unwrap();
            assert_eq!(read(&bytes, PageEncoding::ZstdBlocks).concat(), pages);
        }
    }

    #[test]
    fn a_block_that_is_none_is_an_error() {
        let zipped = |bytes: usize| Bytes::from(zstd::bulk::compress(&vec![0; bytes], 1).unwrap());
        for (page_ids, pages, says) in [
            (vec![], zipped(4096), "no pages"),
            (vec![1, 2, 3], zipped(4096), "not of one size"),
            (vec![1, 2], zipped(0), "not of one size"),
            (vec![7; BLOCK], zipped(BLOCK), "not of one size"),
            (
                vec![7],
                Bytes::from_static(b"no frame"),
                "page id 7 cannot be decompressed",
            ),
            (vec![7; 1000], zipped(BLOCK + 1), "cannot be decompressed"),
            (vec![7; 1000], zipped(1 << 30), "cannot be decompressed"),
        ] {
            let mut message = BytesMut::new();
            prost::Message::encode(&PageBlock { page_ids, pages }, &mut message).unwrap();
            let read = Unpacker::default().unpack(message.freeze(), PageEncoding::ZstdBlocks);
            let error = read.unwrap_err().to_string();
            assert!(error.contains(says), "{error:?} does not say {says:?}");
        }
    }
}
