//! Files of version 3 whose frames are LZ4 frames without a size, as ltx 0.5.1 writes them (`tests/interop/legacy_ltx`).

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use partial_sync_core::PageSize;
use partial_sync_ltx::{LtxError, PreApply, decode_frame};
use xxhash_rust::xxh32::xxh32;

use crate::support::{assert_same, checksum, header, ids, page, pages_of, read, read_by_ranges};

const BEFORE: &[u8] = include_bytes!("../fixtures/before.db");
const AFTER: &[u8] = include_bytes!("../fixtures/after.db");
const SNAPSHOT: &[u8] = include_bytes!("../fixtures/legacy_before.ltx");
const DELTA: &[u8] = include_bytes!("../fixtures/legacy_after.ltx");

#[test]
fn a_snapshot_and_a_delta_of_lz4_frames_are_the_database() {
    let size = PageSize::new(512).unwrap();
    let (snapshot, contents) = read(SNAPSHOT).unwrap();
    let database: Vec<u8> = snapshot
        .pages
        .iter()
        .flat_map(|(_, bytes)| bytes.clone())
        .collect();
    assert!(database == BEFORE);
    assert_eq!(snapshot.post_apply, Some(checksum(BEFORE, size)));
    let (delta, _) = read(DELTA).unwrap();
    delta.header.check_continues(Some(&contents.position())).unwrap();
    let mut database = database;
    database.resize(AFTER.len(), 0);
    for (page, bytes) in &delta.pages {
        database[page.offset(size) as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    assert!(database == AFTER);
    assert_eq!(delta.post_apply, Some(checksum(AFTER, size)));
    for (file, content) in [(SNAPSHOT, &snapshot), (DELTA, &delta)] {
        assert_same(&read_by_ranges(file).unwrap(), content);
        // Written again, they are LZ4 blocks.
        let again = content.file();
        assert_ne!(again, file);
        assert_same(&read(&again).unwrap().0, content);
    }
    assert_eq!(pages_of(AFTER, size).count(), 4);
}

/// A frame of the file: page 1, no flags, and then `lz4`.
fn frame(lz4: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1, 0, 0], lz4].concat()
}

fn decode(frame: &[u8], page_size: u32) -> Result<Vec<u8>, LtxError> {
    let header = header(page_size, 1, ids(2, 2), PreApply::Untracked);
    decode_frame(&header, page(1), 100..100 + frame.len() as u64, frame)
}

fn compress(info: FrameInfo, pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    for piece in pieces {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn every_form_of_an_lz4_frame_that_holds_a_page_is_read() {
    for power in 9..=16 {
        let page: Vec<u8> = (0..1usize << power).map(|n| ((n * n) >> 5) as u8).collect();
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for block in [BlockSize::Max64KB, BlockSize::Max4MB] {
                for checksums in [false, true] {
                    for size in [None, Some(page.len() as u64)] {
                        let info = FrameInfo::new()
                            .block_mode(mode)
                            .block_size(block)
                            .block_checksums(checksums)
                            .content_checksum(checksums)
                            .content_size(size);
                        let (a, b) = page.split_at(page.len() / 3);
                        let lz4 = compress(info, &[a, b]);
                        assert!(decode(&frame(&lz4), 1 << power).unwrap() == page);
                    }
                }
            }
        }
    }
}

#[test]
fn an_lz4_frame_that_does_not_hold_exactly_a_page_is_refused() {
    let of = |bytes: &[u8]| compress(FrameInfo::new().content_checksum(true), &[bytes]);
    let whole = of(&[7; 512]);
    assert!(decode(&frame(&whole), 512).is_ok());
    for wrong in [
        of(&[7; 511]),
        of(&[7; 513]),
        of(&[]),
        compress(FrameInfo::new(), &[&[7; 511]]),
        compress(FrameInfo::new(), &[&[7; 512], &[7; 1]]),
    ] {
        assert!(matches!(
            decode(&frame(&wrong), 512),
            Err(LtxError::Compressed { at: 100, .. })
        ));
    }
    // Two frames, or none.
    let two = [whole.clone(), whole.clone()].concat();
    assert!(matches!(
        decode(&frame(&two), 512),
        Err(LtxError::OtherFrame { at: 100, .. })
    ));
    assert!(matches!(
        decode(&frame(b"no LZ4 frame"), 512),
        Err(LtxError::Compressed { .. })
    ));
    // A block that holds nothing, behind the page: it changes nothing.
    let mut empty_block = compress(FrameInfo::new(), &[&[7; 512]]);
    let end = empty_block.len() - 4;
    empty_block.splice(end..end, [1, 0, 0, 0, 0]);
    assert_eq!(decode(&frame(&empty_block), 512).unwrap(), [7; 512]);
    // A frame that does not end.
    let endless = [&whole[..7], &[1, 0, 0, 0, 0].repeat(1000)].concat();
    assert!(matches!(
        decode(&frame(&endless), 512),
        Err(LtxError::FrameSize { limit: 1024, .. })
    ));
    let huge = [&whole[..7], &[0xff, 0xff, 0xff, 0x7f]].concat();
    assert!(matches!(
        decode(&frame(&huge), 512),
        Err(LtxError::FrameSize { limit: 1024, .. })
    ));
    // A dictionary that nobody has.
    let mut dictionary = whole;
    dictionary[4] |= 1;
    dictionary[6] = (xxh32(&dictionary[4..6], 0) >> 8) as u8;
    assert!(matches!(
        decode(&frame(&dictionary), 512),
        Err(LtxError::Compressed { why, .. }) if why.contains("dictionary")
    ));
}

#[test]
fn every_checksum_of_an_lz4_frame_is_looked_at() {
    let info = || FrameInfo::new().block_checksums(true).content_checksum(true);
    let random: Vec<u8> = (0..128)
        .flat_map(|n: u32| xxh32(&n.to_be_bytes(), 7).to_be_bytes())
        .collect();
    // One that is compressed, and one that is not.
    for page in [vec![7; 512], random] {
        let lz4 = compress(info().content_size(Some(512)), &[&page]);
        assert!(decode(&frame(&lz4), 512).unwrap() == page);
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut wrong = lz4.clone();
            change(&mut wrong);
            match decode(&frame(&wrong), 512) {
                Err(LtxError::Compressed { why, .. }) => why,
                other => panic!("{other:?}"),
            }
        };
        // Magic 0 to 3, flags 4, block size 5, content size 6 to 13, and their checksum.
        let seal = |lz4: &mut Vec<u8>| lz4[14] = (xxh32(&lz4[4..14], 0) >> 8) as u8;
        assert!(refused(&|lz4| lz4[14] ^= 1).contains("damaged header"));
        assert!(refused(&|lz4| lz4[5] ^= 0x10).contains("damaged header"));
        let size = refused(&|lz4| {
            lz4[6] = 1;
            seal(lz4);
        });
        assert!(size.contains("does not hold a page"), "{size}");
        let version = refused(&|lz4| {
            lz4[4] ^= 0xc0;
            seal(lz4);
        });
        assert!(version.contains("version"), "{version}");
        // At the end: the checksum of the block, the mark, the checksum of the page.
        let end = lz4.len();
        assert!(refused(&|lz4| lz4[end - 12] ^= 1).contains("damaged block"));
        assert!(refused(&|lz4| lz4[end - 4] ^= 1).contains("another checksum than the page"));
        assert!(refused(&|lz4| lz4[0] ^= 1).contains("is none"));
    }
    let long = compress(info(), &[&[7; 512], &[1, 2, 3]]);
    assert!(matches!(
        decode(&frame(&long), 512),
        Err(LtxError::Compressed { .. })
    ));
}
