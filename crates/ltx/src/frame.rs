//! A frame: one page, compressed, behind its number.
//!
//! Frames of today say how many bytes they have and hold an LZ4 block; those of the first files of version 3 do not, and hold an
//! LZ4 frame (`lz4_frame.rs`). Both are read, the former is written. What must never happen here: that memory is taken because a
//! frame says that it is large, or that a page comes out that is longer or shorter than a page.

use std::{io::Read, ops::Range};

use lz4_flex::block;
use partial_sync_core::{PageNo, PageSize};

use crate::{error::LtxError, header::Header, input::Input, lz4_frame};

/// A page number and flags.
const HEAD_LEN: usize = 6;
/// The size follows.
const SIZED: u16 = 0x1;
/// The flags that the beginning of an LZ4 frame would be: version 2 has no flags.
const OF_VERSION_2: u16 = 0x0422;

/// What ends the frames.
pub(crate) const END: [u8; HEAD_LEN] = [0; HEAD_LEN];
/// The fewest bytes of a frame: its head, its size, and one compressed byte.
pub(crate) const LEAST: u64 = HEAD_LEN as u64 + 4 + 1;

/// The most compressed bytes that are read of a page. LZ4 itself makes at most 1/255 more of what it cannot compress.
const fn limit(page_size: PageSize) -> usize {
    2 * page_size.as_usize()
}

/// The most bytes of a frame.
pub(crate) const fn most(page_size: PageSize) -> u64 {
    (HEAD_LEN + 4 + limit(page_size)) as u64
}

/// The stored bytes of a frame that count for the checksum of the file, beside the page.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) page: PageNo,
    bytes: [u8; HEAD_LEN + 4],
    len: usize,
}

impl Head {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads the next frame and puts its page into `page`, which has the bytes of one; `None` is the end of the frames.
/// `compressed` is room that is used again.
pub(crate) fn read<R: Read>(
    input: &mut Input<R>,
    page: &mut [u8],
    page_size: PageSize,
    compressed: &mut Vec<u8>,
) -> Result<Option<Head>, LtxError> {
    let at = input.at();
    let mut bytes = [0; HEAD_LEN + 4];
    input.fill(&mut bytes[..HEAD_LEN], "the head of a frame")?;
    if bytes[..HEAD_LEN] == END {
        return Ok(None);
    }
    let [p0, p1, p2, p3, f0, f1, ..] = bytes;
    let (number, flags) = (u32::from_be_bytes([p0, p1, p2, p3]), u16::from_be_bytes([f0, f1]));
    if flags == OF_VERSION_2 {
        return Err(LtxError::Version2 { at });
    }
    let Some(no) = PageNo::new(number).filter(|_| flags & !SIZED == 0) else {
        return Err(LtxError::FrameHead {
            at,
            page: number,
            flags,
        });
    };
    let limit = limit(page_size);
    let failed = |why: String| LtxError::Compressed { at, page: no, why };
    if flags & SIZED == 0 {
        lz4_frame::read(input, (at, no), limit, page, compressed)?;
        return Ok(Some(Head {
            page: no,
            bytes,
            len: HEAD_LEN,
        }));
    }
    input.fill(&mut bytes[HEAD_LEN..], "the size of a frame")?;
    let [.., s0, s1, s2, s3] = bytes;
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size == 0 || size as usize > limit {
        let (page, size, limit) = (no, size.into(), limit as u64);
        return Err(LtxError::FrameSize {
            at,
            page,
            size,
            limit,
        });
    }
    compressed.resize(size as usize, 0);
    input.fill(compressed, "a compressed page")?;
    let got = block::decompress_into(compressed, page).map_err(|error| failed(error.to_string()))?;
    if got != page.len() {
        return Err(LtxError::PageLength {
            at,
            page: no,
            got,
            page_size,
        });
    }
    Ok(Some(Head {
        page: no,
        bytes,
        len: HEAD_LEN + 4,
    }))
}

/// Puts the frame of a page into `to`, in place of what is there, and says which of its bytes count for the checksum of the file.
pub(crate) fn write(no: PageNo, page: &[u8], to: &mut Vec<u8>) -> Result<Head, LtxError> {
    const PAYLOAD_AT: usize = HEAD_LEN + 4;
    to.resize(PAYLOAD_AT + block::get_maximum_output_size(page.len()), 0);
    let size = block::compress_into(page, &mut to[PAYLOAD_AT..])
        .ok()
        .and_then(|size| u32::try_from(size).ok());
    let Some(size) = size else {
        let why = "LZ4 made more of it than it says that it does".to_owned();
        return Err(LtxError::Compressed { at: 0, page: no, why });
    };
    to.truncate(PAYLOAD_AT + size as usize);
    let mut bytes = [0; PAYLOAD_AT];
    bytes[..4].copy_from_slice(&no.get().to_be_bytes());
    bytes[4..HEAD_LEN].copy_from_slice(&SIZED.to_be_bytes());
    bytes[HEAD_LEN..].copy_from_slice(&size.to_be_bytes());
    to[..PAYLOAD_AT].copy_from_slice(&bytes);
    Ok(Head {
        page: no,
        bytes,
        len: PAYLOAD_AT,
    })
}

/// The page in a frame that was read alone: `frame` is what the file has at `range`, where its index
/// ([`PageIndex`](crate::PageIndex)) says that `page` is. The page's own form is checked; that it is the page which was written is
/// known only of a file that is read whole.
///
/// # Errors
/// [`LtxError`] if `frame` is not one frame, or that of another page.
pub fn decode_frame(
    header: &Header,
    page: PageNo,
    range: Range<u64>,
    frame: &[u8],
) -> Result<Vec<u8>, LtxError> {
    let at = range.start;
    let other = LtxError::OtherFrame { at, page };
    if range.end.checked_sub(at) != Some(frame.len() as u64) {
        return Err(other);
    }
    let mut input = Input::new(frame, at);
    let mut bytes = vec![0; header.page_size.as_usize()];
    let head = read(&mut input, &mut bytes, header.page_size, &mut Vec::new())?;
    match head.is_some_and(|head| head.page == page) && input.is_at_end()? {
        true => Ok(bytes),
        false => Err(other),
    }
}
