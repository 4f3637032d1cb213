//! LZ4 frames, in which the first files of version 3 have their pages.
//!
//! Nothing says how long such a frame is, and a decoder that is given the rest of the file may take what follows for another
//! frame, or make room for the largest block that the frame allows, which is 4 MiB for each page. So a frame is read here block by
//! block, each straight into the page, and no further than its end. What must never happen here: that a page is filled partly,
//! or that more than `limit` bytes are read of one.

use std::io::Read;

use lz4_flex::block::{decompress_into, decompress_into_with_dict};
use partial_sync_core::PageNo;
use xxhash_rust::xxh32::xxh32;

use crate::{error::LtxError, input::Input};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// In the byte behind the magic: which fields there are.
const DICTIONARY: u8 = 1 << 0;
const CONTENT_CHECKSUM: u8 = 1 << 2;
const CONTENT_SIZE: u8 = 1 << 3;
const BLOCK_CHECKSUM: u8 = 1 << 4;
const INDEPENDENT: u8 = 1 << 5;
/// The version of the format, and the only one that there is.
const VERSION: u8 = 0xc0;
const VERSION_1: u8 = 0x40;
/// In the length of a block: it is not compressed.
const PLAIN: u32 = 1 << 31;

/// Reads a frame of at most `limit` bytes that holds exactly `page`, which is the page of that number; its frame of the file begins
/// at `at`. `room` is used again.
pub(crate) fn read<R: Read>(
    input: &mut Input<R>,
    (at, number): (u64, PageNo),
    limit: usize,
    page: &mut [u8],
    room: &mut Vec<u8>,
) -> Result<(), LtxError> {
    let failed = |why: &str| LtxError::Compressed {
        at,
        page: number,
        why: format!("its LZ4 frame {why}"),
    };
    let mut size = 0;
    // Takes the next bytes into `room`, if they are not too many.
    let mut take = |room: &mut Vec<u8>, len: usize| {
        size += len as u64;
        if size > limit as u64 {
            let (page, limit) = (number, limit as u64);
            return Err(LtxError::FrameSize {
                at,
                page,
                size,
                limit,
            });
        }
        room.resize(len, 0);
        input.fill(room, "a compressed page")
    };
    let number_in = |room: &[u8]| room.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));

    take(room, MAGIC.len())?;
    if *room != MAGIC {
        return Err(failed("is none"));
    }
    take(room, 2)?;
    let flags = room[0];
    let has = |flag: u8| flags & flag != 0;
    if flags & VERSION != VERSION_1 || has(DICTIONARY) {
        return Err(failed("is of another version, or wants a dictionary"));
    }
    let mut descriptor = room.clone();
    take(room, if has(CONTENT_SIZE) { 8 } else { 0 })?;
    let stated = room.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    descriptor.extend_from_slice(room);
    take(room, 1)?;
    if room[0] != (xxh32(&descriptor, 0) >> 8) as u8 {
        return Err(failed("has a damaged header"));
    }
    if stated.is_some_and(|stated| stated != page.len() as u64) {
        return Err(failed("says that it does not hold a page"));
    }

    let mut filled = 0;
    loop {
        take(room, 4)?;
        let length = number_in(room);
        if length == 0 {
            break;
        }
        take(room, (length & !PLAIN) as usize)?;
        let (before, rest) = page.split_at_mut(filled);
        filled += match (length & PLAIN != 0, has(INDEPENDENT)) {
            (true, _) => {
                let to = rest
                    .get_mut(..room.len())
                    .ok_or_else(|| failed("holds more than a page"))?;
                to.copy_from_slice(room);
                room.len()
            }
            (false, true) => {
                decompress_into(room, rest).map_err(|error| failed(&format!("is wrong: {error}")))?
            }
            (false, false) => decompress_into_with_dict(room, rest, before)
                .map_err(|error| failed(&format!("is wrong: {error}")))?,
        };
        if has(BLOCK_CHECKSUM) {
            let computed = xxh32(room, 0);
            take(room, 4)?;
            if number_in(room) != computed {
                return Err(failed("has a damaged block"));
            }
        }
    }
    if filled != page.len() {
        return Err(failed("holds less than a page"));
    }
    if has(CONTENT_CHECKSUM) {
        take(room, 4)?;
        if number_in(room) != xxh32(page, 0) {
            return Err(failed("has another checksum than the page"));
        }
    }
    Ok(())
}
