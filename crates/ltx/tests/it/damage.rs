//! Damage of every kind is a typed error, or changes nothing of what is read.

use std::fmt::Debug;

use partial_sync_ltx::{LtxError, PageIndex, PreApply, Reader};
use proptest::prelude::*;

use crate::support::{Content, any_content, assert_same, header, ids, page, read, read_by_ranges};

/// Small files: a snapshot and a delta, with and without checksums of the database; and those with LZ4 frames.
fn small() -> Vec<Vec<u8>> {
    let bytes = |no: u32| {
        (0..512)
            .map(|n| if n % 64 < 9 { (n * no) as u8 } else { 0 })
            .collect::<Vec<u8>>()
    };
    let of = |numbers: &[u32]| {
        numbers
            .iter()
            .map(|no| (page(*no), bytes(*no)))
            .collect::<Vec<_>>()
    };
    let content = |ids, pre_apply, numbers: &[u32], post_apply| Content {
        header: header(512, 300, ids, pre_apply),
        pages: of(numbers),
        post_apply,
    };
    let sum = partial_sync_ltx::Checksum::of_page(page(1), b"other pages");
    let mut snapshot = content(ids(1, 4), PreApply::Nothing, &[1, 2], None);
    snapshot.header.commit = partial_sync_core::PageCount(2);
    vec![
        snapshot.file(),
        content(ids(7, 7), PreApply::Untracked, &[2, 130, 131], None).file(),
        content(ids(7, 9), PreApply::Of(sum), &[300], Some(sum)).file(),
        include_bytes!("../fixtures/legacy_after.ltx").to_vec(),
    ]
}

/// A file that is not the one that was written is refused, or says the same.
fn refused_or_same(what: impl Debug, whole: &Content, damaged: &[u8]) {
    if let Ok((read, _)) = read(damaged) {
        assert_same(&read, whole);
        println!("{what:?} changes nothing");
    }
    // By ranges the checksum is not looked at, so other pages may be read; but never a panic.
    let _ = read_by_ranges(damaged);
}

#[test]
fn invariant_11_every_damage_of_one_byte_is_refused_or_changes_nothing() {
    for (n, file) in small().into_iter().enumerate() {
        let (whole, _) = read(&file).unwrap();
        let mut damaged = file.clone();
        for at in 0..file.len() {
            for change in 1..=255 {
                damaged[at] = file[at] ^ change;
                refused_or_same((n, at, change), &whole, &damaged);
            }
            damaged[at] = file[at];
        }
    }
}

#[test]
fn invariant_11_every_file_that_was_cut_off_is_refused_and_says_where() {
    for file in small() {
        for len in 0..file.len() {
            match read(&file[..len]) {
                Err(LtxError::Cut { at, .. }) => assert_eq!(at, len as u64),
                other => panic!("{len} bytes: {other:?}"),
            }
            assert!(read_by_ranges(&file[..len]).is_err());
        }
    }
}

#[test]
fn bytes_behind_the_trailer_are_refused() {
    for file in small() {
        let len = file.len() as u64;
        for more in [&[0][..], &file] {
            let longer = [&file, more].concat();
            assert!(matches!(read(&longer), Err(LtxError::Continues { at }) if at == len));
            // By ranges, a second file behind the first has frames that do not begin where its index says.
            assert!(read_by_ranges(&longer).is_err());
        }
    }
}

#[test]
fn bytes_that_are_taken_out_or_put_in_are_refused_or_change_nothing() {
    for (n, file) in small().into_iter().enumerate() {
        let (whole, _) = read(&file).unwrap();
        for at in 0..file.len() {
            for many in [1, 4, 10] {
                let mut without = file.clone();
                without.drain(at..(at + many).min(file.len()));
                refused_or_same((n, at, "out", many), &whole, &without);
                for byte in [0, 0xff] {
                    let mut with = file.clone();
                    with.splice(at..at, vec![byte; many]);
                    refused_or_same((n, at, "in", many), &whole, &with);
                }
            }
        }
    }
}

#[test]
fn a_frame_that_says_it_is_huge_takes_no_memory() {
    let mut file = small().swap_remove(1);
    file[106..110].copy_from_slice(&[0xff; 4]);
    assert!(matches!(
        read(&file),
        Err(LtxError::FrameSize {
            at: 100,
            size: 0xffff_ffff,
            limit: 1024,
            ..
        })
    ));
    file[106..110].copy_from_slice(&[0; 4]);
    assert!(matches!(read(&file), Err(LtxError::FrameSize { size: 0, .. })));
}

#[test]
fn an_index_whose_length_does_not_fit_is_refused_before_it_is_asked_for() {
    let file = small().swap_remove(1);
    let len = file.len() as u64;
    let stated = |length: u64| {
        let mut end = file[file.len() - 24..].to_vec();
        end[..8].copy_from_slice(&length.to_be_bytes());
        PageIndex::tail_len(len, &end)
    };
    let most = len - 100 - 6 - 24;
    assert_eq!(stated(most).unwrap(), most + 30);
    for wrong in [0, most + 1, len, u64::MAX] {
        assert!(matches!(stated(wrong), Err(LtxError::Index { .. })), "{wrong}");
    }
    assert!(matches!(
        PageIndex::tail_len(len, &file[file.len() - 23..]),
        Err(LtxError::Cut { .. })
    ));
    for file_len in 0..131 {
        assert!(
            PageIndex::tail_len(
                file_len,
                &[
                    0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
                ]
            )
            .is_err()
        );
    }
}

#[test]
fn an_index_that_ends_before_its_length_says_is_refused() {
    // A whole end of a file, and behind it another trailer, whose length takes in all that came before.
    let mut file = small().swap_remove(1);
    let index_at = file.len() as u64 - PageIndex::tail_len(file.len() as u64, &file).unwrap() + 6;
    let length = file.len() as u64 - index_at;
    file.extend(length.to_be_bytes());
    file.extend([0; 8]);
    file.extend((1_u64 << 63).to_be_bytes());
    let at = index_at + length - 24;
    assert!(matches!(read(&file), Err(LtxError::Continues { .. })));
    assert!(matches!(read_by_ranges(&file), Err(LtxError::Index { at: found, .. }) if found == at));
}

#[test]
fn what_ends_the_frames_is_looked_at_by_ranges_too() {
    let file = small().swap_remove(1);
    let end = file.len() - PageIndex::tail_len(file.len() as u64, &file).unwrap() as usize;
    assert_eq!(file[end..end + 6], [0; 6]);
    for at in end..end + 6 {
        let mut damaged = file.clone();
        damaged[at] = 1;
        assert!(read(&damaged).is_err());
        let wrong = read_by_ranges(&damaged);
        assert!(matches!(wrong, Err(LtxError::Index { at, .. }) if at == end as u64));
    }
}

#[test]
fn the_checksum_of_a_snapshot_is_that_of_its_pages() {
    let file = small().swap_remove(0);
    let mut other = file.clone();
    let post = other.len() - 16;
    other[post + 7] ^= 1;
    // With a checksum of the file that fits what is in it, the wrong one of the database is still seen.
    let Err(LtxError::FileChecksum { at, computed, .. }) = read(&other) else {
        panic!("the damage is not seen");
    };
    assert_eq!(at, post as u64 + 8);
    other[post + 8..].copy_from_slice(&computed.get().to_be_bytes());
    assert!(matches!(read(&other), Err(LtxError::DatabaseChecksum { at, .. }) if at == post as u64));
    // Nor is a checksum one whose highest bit is not set.
    other[post + 8] &= 0x7f;
    assert!(matches!(read(&other), Err(LtxError::NoFileChecksum { .. })));
}

#[test]
fn a_frame_of_version_2_is_named() {
    let mut file = small().swap_remove(1);
    file[104..106].copy_from_slice(&[0x04, 0x22]);
    assert!(matches!(read(&file), Err(LtxError::Version2 { at: 100 })));
    file[104..106].copy_from_slice(&[0, 3]);
    assert!(matches!(
        read(&file),
        Err(LtxError::FrameHead {
            at: 100,
            page: 2,
            flags: 3
        })
    ));
    file[100..106].copy_from_slice(&[0, 0, 0, 0, 0, 1]);
    assert!(matches!(
        read(&file),
        Err(LtxError::FrameHead {
            page: 0,
            flags: 1,
            ..
        })
    ));
}

#[test]
fn a_reader_that_failed_stays_failed() {
    let mut file = small().swap_remove(1);
    file[104] = 0x80;
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(matches!(reader.next_page(), Err(LtxError::FrameHead { .. })));
    assert!(matches!(reader.next_page(), Err(LtxError::Failed)));
    assert!(matches!(reader.finish(), Err(LtxError::Failed)));
}

proptest! {
    #[test]
    fn invariant_11_any_bytes_are_a_file_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        of in 0..400usize,
        which in 0..4usize,
    ) {
        // Any bytes, behind the first ones of a file.
        let mut file = small().swap_remove(which);
        file.truncate(of);
        file.extend(bytes);
        let _ = read(&file);
        let _ = read_by_ranges(&file);
    }

    #[test]
    fn damage_at_several_places_of_any_file_is_refused_or_changes_nothing(
        content in any_content(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut file = content.file();
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        refused_or_same("several", &content, &file);
    }
}
