//! The saved form of the page map: what is saved is read, whatever was saved when; what a crash leaves of a save is the
//! state before or after it; damage is an error or nothing; and what a save costs does not depend on the map.

use std::{collections::BTreeSet, time::Instant};

use partial_sync_core::{
    Epoch, PageCount, PageMap, PageMapError, PageNo, PageSize, Save, SaveTo, SavedPageMap,
    chunk::{Bits, Chunk},
    saved_map::{sealed, whole},
};
use proptest::prelude::*;
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const ALL: PageCount = PageCount(u32::MAX);
const SIZE: PageCount = PageCount(300_000);

type Sets = (RoaringBitmap, RoaringBitmap);
type Write = (u64, Vec<u8>);

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

fn sets(map: &PageMap) -> Sets {
    (map.present(), map.dirty())
}

fn decode(file: &[u8]) -> Result<Sets, PageMapError> {
    SavedPageMap::decode(file, ALL).map(|saved| sets(&saved.map))
}

fn fill(map: &PageMap, pages: impl IntoIterator<Item = u32>) {
    for n in pages {
        map.set_present(page(n), Epoch(0));
    }
}

/// The writes of a save, in the order of its syncs: those before the first, those after it. `None`: the file is replaced.
fn writes(save: &Save) -> Option<[Vec<Write>; 2]> {
    match &save.file {
        SaveTo::Whole(_) => None,
        SaveTo::Append { first, then, .. } => Some([first.to_vec(), vec![then.clone()]]),
    }
}

fn write(file: &mut Vec<u8>, (offset, bytes): &Write) {
    let end = *offset as usize + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[*offset as usize..end].copy_from_slice(bytes);
}

/// Saves a map to a file, and gives the bytes that were written.
fn save(map: &PageMap, file: &mut Vec<u8>) -> usize {
    let save = Save::of(map, PageSize::DEFAULT, SIZE);
    let written = match &save.file {
        SaveTo::Whole(bytes) => {
            file.clone_from(bytes);
            bytes.len()
        }
        SaveTo::Append { end, first, then } => {
            assert!(*end <= file.len() as u64);
            let all = first.iter().chain([then]);
            all.map(|change| {
                write(file, change);
                change.1.len()
            })
            .sum()
        }
    };
    save.succeeded(map);
    assert!(!map.changed_since_saved());
    written
}

#[derive(Clone, Debug)]
enum Op {
    Fill(u32, u32),
    Clear(u32),
    Dirty(u32, u32),
    Move(Vec<u32>),
    CutOff(u32),
    Truncate(u32),
    Save,
    /// A save that does not get there.
    Fail,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let id = || prop_oneof![6 => 0..20_000_u32, 2 => 4000..4200_u32, 1 => 0..u32::MAX];
    prop_oneof![
        4 => (id(), prop_oneof![3 => 1..5_u32, 1 => 1..9000_u32]).prop_map(|(id, n)| Op::Fill(id, n)),
        2 => id().prop_map(Op::Clear),
        3 => (id(), 1..100_u32).prop_map(|(id, n)| Op::Dirty(id, n)),
        1 => prop::collection::vec(id(), 0..10).prop_map(Op::Move),
        1 => id().prop_map(Op::CutOff),
        1 => id().prop_map(Op::Truncate),
        5 => Just(Op::Save),
        1 => Just(Op::Fail),
        1 => Just(Op::Reopen),
    ]
}

/// Does what is not a save.
fn change(map: &PageMap, op: &Op) {
    let pages = |id: u32, n: u32| (id..id.saturating_add(n)).filter_map(|id| id.checked_add(1).map(page));
    match op {
        Op::Fill(id, n) => pages(*id, *n).for_each(|page| {
            map.set_present(page, Epoch(0));
        }),
        Op::Clear(id) => map.clear_present(page(id + 1)),
        Op::Dirty(id, n) => pages(*id, *n).for_each(|page| map.set_dirty(page)),
        Op::Move(leaving) => {
            let leaving: RoaringBitmap = leaving.iter().copied().collect();
            map.move_base(None, &leaving, leaving.iter().take(2).collect());
        }
        Op::CutOff(id) => map.cut_off(PageCount(*id)),
        Op::Truncate(id) => map.truncate(PageCount(*id)),
        Op::Save | Op::Fail | Op::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_last_is_what_is_read(ops in prop::collection::vec(op(), 0..60)) {
        let (mut map, mut file) = (PageMap::new(), vec![]);
        save(&map, &mut file);
        let mut saved = sets(&map);
        for op in ops {
            change(&map, &op);
            match op {
                Op::Save => {
                    save(&map, &mut file);
                    saved = sets(&map);
                }
                Op::Fail => {
                    Save::of(&map, PageSize::DEFAULT, SIZE);
                }
                Op::Reopen => {
                    map = SavedPageMap::decode(&file, ALL).unwrap().map;
                    prop_assert!(!map.changed_since_saved());
                }
                _ => {}
            }
            prop_assert!(decode(&file).unwrap() == saved);
        }
        let read = SavedPageMap::decode(&file, ALL).unwrap();
        prop_assert_eq!((read.page_size, read.db_size, read.beyond), (PageSize::DEFAULT, SIZE, false));
        prop_assert_eq!(u64::from(read.map.present_count().0), saved.0.len());
    }

    /// Every subset of the writes of a save may be on the disk when the power fails in it, whole or torn at any byte.
    #[test]
    fn invariant_8_a_save_that_is_cut_off_leaves_the_state_before_or_after_it(
        ops in prop::collection::vec(op(), 1..30), more in prop::collection::vec(op(), 1..6),
        there in any::<[bool; 3]>(), torn in any::<prop::sample::Index>(), which in 0..3_usize,
    ) {
        let (map, mut file) = (PageMap::new(), vec![]);
        for op in &ops {
            change(&map, op);
            if matches!(op, Op::Save) {
                save(&map, &mut file);
            }
        }
        save(&map, &mut file);
        let before = sets(&map);
        more.iter().for_each(|op| change(&map, op));
        let after = sets(&map);
        let cut_off = Save::of(&map, PageSize::DEFAULT, SIZE);
        let Some([first, then]) = writes(&cut_off) else { return Ok(()) };
        let mut left = file.clone();
        for (nth, change) in first.iter().enumerate() {
            if there[nth] {
                write(&mut left, change);
            } else if which == nth {
                let keep = torn.index(change.1.len());
                write(&mut left, &(change.0, change.1[..keep].to_vec()));
            }
        }
        let state = decode(&left).unwrap();
        prop_assert!(state == before || state == after);
        prop_assert!(there[..2] == [true; 2] || state == before);
        // Whatever it is: the next save is a whole one, and due before anyone relies on what was read.
        let read = SavedPageMap::decode(&left, ALL).unwrap().map;
        if left[..8192] != file[..8192] {
            prop_assert!(read.changed_since_saved());
            prop_assert!(matches!(Save::of(&read, PageSize::DEFAULT, SIZE).file, SaveTo::Whole(_)));
        }
        // The first sync is over.
        first.iter().for_each(|change| write(&mut file, change));
        prop_assert!(decode(&file).unwrap() == after);
        let keep = if there[2] { then[0].1.len() } else { torn.index(then[0].1.len()) };
        write(&mut file, &(then[0].0, then[0].1[..keep].to_vec()));
        prop_assert!(decode(&file).unwrap() == after);
    }

    /// What one bad byte makes of a save that succeeded is an error, or changes nothing.
    #[test]
    fn invariant_11_a_cut_or_changed_map_is_an_error(
        ops in prop::collection::vec(op(), 0..30), at in any::<prop::sample::Index>(), bit in 0..8_u32,
        cut in any::<prop::sample::Index>(), block in any::<prop::sample::Index>(), fill in any::<u8>(),
    ) {
        let (map, mut file) = (PageMap::new(), vec![]);
        for op in &ops {
            change(&map, op);
            if matches!(op, Op::Save) {
                save(&map, &mut file);
            }
        }
        save(&map, &mut file);
        let saved = sets(&map);
        prop_assert!(decode(&file[..cut.index(file.len())]).is_err());
        let mut flipped = file.clone();
        flipped[at.index(file.len())] ^= 1 << bit;
        if let Ok(read) = decode(&flipped) {
            prop_assert!(read == saved);
        }
        // A sector of a disk.
        let mut sector = file.clone();
        let start = block.index(file.len() / 512 + 1) * 512;
        let end = (start + 512).min(file.len());
        sector[start..end].fill(fill);
        if let Ok(read) = decode(&sector) {
            prop_assert!(read == saved);
        }
    }

    #[test]
    fn invariant_11_any_records_with_good_checksums_are_a_map_or_an_error(
        body in prop::collection::vec(prop_oneof![3 => 0..4_u8, 1 => any::<u8>()], 0..300), end in 0..10_000_u32,
    ) {
        let file = sealed(&body, PageSize::DEFAULT, SIZE);
        if let Ok(read) = SavedPageMap::decode(&file, PageCount(end)) {
            let (present, dirty) = sets(&read.map);
            prop_assert!(present.max().max(dirty.max()).is_none_or(|id| id < end));
            let mut again = vec![];
            Save::of(&read.map, PageSize::DEFAULT, SIZE);
            save(&read.map, &mut again);
            prop_assert!(decode(&again).unwrap() == (present, dirty));
        }
    }
}

/// A file that was saved as a whole and then twice more.
fn three_saves() -> (PageMap, Vec<u8>) {
    let (map, mut file) = (PageMap::new(), vec![]);
    fill(&map, (1..=5000).step_by(2));
    save(&map, &mut file);
    for n in [2, 9000] {
        map.set_present(page(n), Epoch(0));
        map.set_dirty(page(n));
        save(&map, &mut file);
    }
    (map, file)
}

#[test]
fn invariant_11_no_byte_of_a_saved_map_can_be_another_without_being_noticed_or_doing_nothing() {
    let (map, file) = three_saves();
    let saved = sets(&map);
    // Of what lies between heads and records, and means nothing, a sample.
    let means_something = |at: usize| at >= 8192 || at % 4096 < 64 || at.is_multiple_of(97);
    for at in (0..file.len()).filter(|at| means_something(*at)) {
        for change in [1, 0x80, 0xff] {
            let mut flipped = file.clone();
            flipped[at] ^= change;
            match decode(&flipped) {
                Ok(read) => assert!(read == saved, "byte {at}"),
                Err(_) => assert!(at >= 8192, "byte {at}: one head is enough"),
            }
        }
        assert!(decode(&file[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn heads_that_no_saver_leaves_together_are_refused() {
    let (map, file) = three_saves();
    let mut heads = vec![];
    let mut later = file.clone();
    for n in [20_000, 20_001] {
        map.set_present(page(n), Epoch(0));
        save(&map, &mut later);
        heads.push(later[..64].to_vec());
    }
    let with = |first: &[u8], second: &[u8]| {
        let mut file = later.clone();
        file[..64].copy_from_slice(first);
        file[4096..4160].copy_from_slice(second);
        decode(&file)
    };
    // One behind is a save that was cut off; two, or in the other order, is none.
    assert!(with(&heads[1], &heads[0]).unwrap() == sets(&map));
    assert_eq!(with(&heads[0], &heads[1]), Err(PageMapError::Checksum));
    assert_eq!(with(&heads[1], &file[..64]), Err(PageMapError::Checksum));
    // The record of the newest save is damaged, and both heads speak of it: it succeeded.
    let mut damaged = later.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&damaged), Err(PageMapError::Checksum));
    // The same beside a head that is older than the one before: no save that was cut off leaves that.
    let mut older = damaged.clone();
    older[4096..4160].copy_from_slice(&file[..64]);
    assert_eq!(decode(&older), Err(PageMapError::Checksum));
    // Neither head is whole.
    damaged = later.clone();
    damaged[30] ^= 1;
    damaged[4096 + 30] ^= 1;
    assert_eq!(decode(&damaged), Err(PageMapError::Checksum));
}

#[test]
fn the_bytes_are_those_of_the_header_comment() {
    let map = PageMap::new();
    fill(&map, [1, 2, 4]);
    map.set_dirty(page(4097));
    let mut file = vec![];
    save(&map, &mut file);
    assert_eq!(&file[..8], b"PSYNCMAP");
    assert_eq!(
        file[8..24],
        [2, 0, 0, 0, 0, 0x10, 0, 0, 0xe0, 0x93, 4, 0, 0, 0, 0, 0]
    );
    let numbers: Vec<u64> = file[24..56]
        .chunks(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let end = file.len() as u64;
    let sum = u64::from_le_bytes(file[file.len() - 8..].try_into().unwrap());
    assert_eq!(numbers, [1, end, sum, end]);
    assert_eq!(file[..64], file[4096..4160]);
    assert_eq!(
        file[8192..file.len() - 8],
        [
            // 36 bytes: a chunk with two runs that are here, 0 to 1 and 3 to 3, and one with a dirty page.
            36, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 2, 0, 0, 0, 1, 0, 3, 0, 3, 0, //
            1, 0, 0, 0, 1, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0
        ]
    );
    assert_eq!(sum, xxhash_rust::xxh3::xxh3_64(&file[8192..file.len() - 8]));
}

#[test]
fn every_kind_of_malformed_record_has_its_error() {
    let entry = |first: u32, count: u32, rest: &[u8]| {
        let mut body = first.to_le_bytes().to_vec();
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(rest);
        body
    };
    let error = |body: &[u8]| {
        SavedPageMap::decode(&sealed(body, PageSize::DEFAULT, SIZE), ALL)
            .map(drop)
            .unwrap_err()
    };
    let (present, dirty) = (PageMapError::Set("present"), PageMapError::Set("dirty"));
    assert!(SavedPageMap::decode(&sealed(&entry(0, 3, &[1, 1]), PageSize::DEFAULT, SIZE), ALL).is_ok());
    for (body, expected) in [
        (entry(0, 0, &[1, 1]), present),
        (entry(1 << 20, 1, &[0, 0]), present),
        (entry(1, u32::MAX, &[0, 0]), present),
        (entry((1 << 20) - 1, 1, &[1, 0]), present),
        (entry((1 << 20) - 1, 1, &[0, 1]), dirty),
        (entry(0, 1, &[4, 0]), present),
        (entry(0, 1, &[0, 2, 7]), dirty),
        (entry(0, 2, &[3, 0, 1, 0, 5, 0, 5, 0]), present),
        // Runs that go backwards, touch, or go beyond the chunk.
        (entry(0, 1, &[3, 0, 1, 0, 5, 0, 4, 0]), present),
        (entry(0, 1, &[3, 0, 2, 0, 0, 0, 1, 0, 2, 0, 2, 0]), present),
        (entry(0, 1, &[3, 0, 1, 0, 0, 0, 0, 16]), present),
        (vec![0; 5], present),
        ([entry(1, 1, &[1, 1]), entry(1, 1, &[1, 1])].concat(), present),
    ] {
        assert_eq!(error(&body), expected, "{body:?}");
    }
    let mut other = whole(&[], PageSize::DEFAULT, SIZE).0;
    for head in [0, 4096] {
        other[head + 12] = 1;
        let sum = xxhash_rust::xxh3::xxh3_64(&other[head..head + 56]);
        other[head + 56..head + 64].copy_from_slice(&sum.to_le_bytes());
    }
    assert!(matches!(decode(&other), Err(PageMapError::PageSize(_))));
    assert_eq!(decode(b""), Err(PageMapError::Magic));
    assert_eq!(decode(&[7; 9000]), Err(PageMapError::Magic));
    assert!(matches!(
        decode(b"PSYNCMAP\x02\0\0\0"),
        Err(PageMapError::Length { .. })
    ));
    assert_eq!(
        decode(b"PSYNCMAP\x03\0\0\0 and what comes then"),
        Err(PageMapError::Version(3))
    );
}

/// Written by version 0.8.0: runs, every second page, and single ones.
const OLD: &[u8] = include_bytes!("../fixtures/page_map.v1");

fn old_sets() -> Sets {
    let mut present = RoaringBitmap::new();
    present.insert_range(0..5000);
    present.extend((70_000..80_000).filter(|id| id % 2 == 1));
    present.insert(140_000);
    (
        present,
        RoaringBitmap::from_iter([0, 77, 4095, 4096, 140_000, 150_000]),
    )
}

#[test]
fn a_map_of_the_old_format_is_read_and_saved_in_the_new_one() {
    let old = SavedPageMap::decode(OLD, ALL).unwrap();
    assert_eq!(
        (old.page_size, old.db_size, old.beyond),
        (PageSize::DEFAULT, PageCount(200_000), false)
    );
    assert!(sets(&old.map) == old_sets());
    assert!(!old.map.changed_since_saved());
    old.map.set_dirty(page(1000));
    let mut file = OLD.to_vec();
    save(&old.map, &mut file);
    assert_eq!(file[8], 2);
    let mut expected = old_sets();
    expected.1.insert(999);
    assert!(decode(&file).unwrap() == expected);
    // The next one is appended.
    old.map.set_dirty(page(1001));
    assert!(save(&old.map, &mut file) < 1000);
    // Pages that the caller has no room for.
    let cut = SavedPageMap::decode(OLD, PageCount(100)).unwrap();
    assert!(cut.beyond && cut.map.changed_since_saved());
    assert_eq!(cut.map.present_count(), PageCount(100));
    assert!(cut.map.dirty() == RoaringBitmap::from_iter([0, 77]));
}

#[test]
fn invariant_11_a_cut_or_changed_map_of_the_old_format_is_an_error() {
    for at in 0..OLD.len() {
        assert!(decode(&OLD[..at]).is_err(), "cut at {at}");
        let mut flipped = OLD.to_vec();
        flipped[at] ^= 1;
        assert!(decode(&flipped).is_err(), "byte {at}");
    }
}

#[test]
fn pages_beyond_the_end_are_left_out_and_written_no_more() {
    let (map, mut file) = (PageMap::new(), vec![]);
    fill(&map, [10, 100, 5000, 50_000]);
    for n in [11, 101, 6000] {
        map.set_dirty(page(n));
    }
    save(&map, &mut file);
    let cut = SavedPageMap::decode(&file, PageCount(100)).unwrap();
    assert!(cut.beyond);
    assert!(sets(&cut.map) == (RoaringBitmap::from_iter([9, 99]), RoaringBitmap::from_iter([10])));
    // If it stayed in the file, it would be here again once the database has grown.
    assert!(cut.map.changed_since_saved());
    save(&cut.map, &mut file);
    assert!(decode(&file).unwrap() == sets(&cut.map));
    assert!(!SavedPageMap::decode(&file, PageCount(100)).unwrap().beyond);
}

#[test]
fn invariant_11_a_forged_map_costs_no_more_than_the_database_has_pages() {
    let all = |count| Chunk {
        first: 0,
        count,
        present: Bits::Full,
        dirty: Bits::Full,
    };
    let (file, _) = whole(&[all((1 << 20) - 1)], PageSize::DEFAULT, SIZE);
    assert!(file.len() < 10_000);
    let saved = SavedPageMap::decode(&file, PageCount(5001)).unwrap();
    assert!(saved.beyond);
    assert_eq!(
        (saved.map.present_count(), saved.map.dirty_count()),
        (PageCount(5001), PageCount(5001))
    );
}

/// A record, and the checksum that the next one continues.
fn sealed_record(body: &[u8], chain: u64) -> (Vec<u8>, u64) {
    let mut record = (body.len() as u32).to_le_bytes().to_vec();
    record.extend_from_slice(body);
    let sum = xxh3_64_with_seed(&record, chain);
    record.extend_from_slice(&sum.to_le_bytes());
    (record, sum)
}

/// An entry that says that all pages of some chunks are here.
fn entry(first: u32, count: u32) -> Vec<u8> {
    let numbers = [first.to_le_bytes(), count.to_le_bytes()].concat();
    [&numbers[..], &[1, 0]].concat()
}

/// A file with these records, of which the first is the whole, and this number of saves.
fn forged(bodies: impl Iterator<Item = Vec<u8>>, saves: u64) -> Vec<u8> {
    let mut bytes = vec![0_u8; 8192];
    let (mut chain, mut whole_end) = (0, 0);
    for body in bodies {
        let (record, sum) = sealed_record(&body, chain);
        bytes.extend_from_slice(&record);
        chain = sum;
        if whole_end == 0 {
            whole_end = bytes.len() as u64;
        }
    }
    let end = bytes.len() as u64;
    for at in [0, 4096] {
        bytes[at..at + 8].copy_from_slice(b"PSYNCMAP");
        for (offset, number) in [(8, 2), (12, 4096), (16, SIZE.0)] {
            bytes[at + offset..at + offset + 4].copy_from_slice(&number.to_le_bytes());
        }
        for (offset, number) in [(24, saves), (32, end), (40, chain), (48, whole_end)] {
            bytes[at + offset..at + offset + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = xxh3_64(&bytes[at..at + 56]);
        bytes[at + 56..at + 64].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

/// Every record of a long journal speaks of every chunk: would each be looked at each time, this took hours.
#[test]
fn invariant_11_a_forged_journal_costs_no_more_than_its_length_and_the_database() {
    let records = 50_000;
    let whole = (0..records * 3).flat_map(|first| entry(first, 1)).collect();
    let journal = (0..records).map(|_| entry(0, (1 << 20) - 1));
    let file = forged(std::iter::once(whole).chain(journal), 5);
    let saved = SavedPageMap::decode(&file, PageCount(25_000_000)).unwrap();
    assert_eq!(saved.map.present_count(), PageCount(25_000_000));
    assert!(saved.beyond);
}

/// The last of the records counts, and so does that a chunk is empty now.
#[test]
fn the_last_that_was_saved_of_a_chunk_counts() {
    let empty = [&3_u32.to_le_bytes()[..], &2_u32.to_le_bytes(), &[0, 0]].concat();
    let bodies = [entry(0, 10), empty, entry(4, 1)];
    let file = forged(bodies.into_iter(), 3);
    let saved = SavedPageMap::decode(&file, ALL).unwrap();
    let mut present = RoaringBitmap::new();
    present.insert_range(0..10 * 4096);
    present.remove_range(3 * 4096..4 * 4096);
    assert!(saved.map.present() == present);
    assert_eq!(u64::from(saved.map.present_count().0), present.len());
}

#[test]
fn invariant_11_a_forged_number_of_saves_is_refused_or_continued() {
    for saves in [u64::MAX, u64::MAX - 1] {
        let file = forged(std::iter::once(entry(0, 1)), saves);
        let read = SavedPageMap::decode(&file, SIZE);
        assert_eq!(read.is_ok(), saves < u64::MAX);
        if let Ok(read) = read {
            read.map.set_dirty(PageNo::FIRST);
            Save::of(&read.map, PageSize::DEFAULT, SIZE);
        }
    }
}

#[test]
fn what_changes_while_a_save_is_under_way_is_saved_next_time() {
    let (map, mut file) = (PageMap::new(), vec![]);
    save(&map, &mut file);
    map.set_present(page(1), Epoch(0));
    let under_way = Save::of(&map, PageSize::DEFAULT, SIZE);
    // It is not there before it is there: who wants to rely on it waits.
    assert!(map.changed_since_saved());
    map.set_present(page(2), Epoch(0));
    under_way.succeeded(&map);
    assert!(map.changed_since_saved());
    // One that fails is made up for.
    Save::of(&map, PageSize::DEFAULT, SIZE);
    assert!(map.changed_since_saved());
    save(&map, &mut file);
    assert!(decode(&file).unwrap() == sets(&map));
    map.set_present(page(2), Epoch(5));
    map.clear_present(page(3));
    assert!(!map.changed_since_saved(), "the sets are what they were");
}

/// The map of 100 GB of pages of 4 KiB: every page, or every second one.
fn of_100_gb(step: usize) -> PageMap {
    let map = PageMap::new();
    fill(&map, (1..=25_000_000).step_by(step));
    map
}

#[test]
fn a_save_writes_what_changed_however_large_the_map_is() {
    let (map, mut file) = (PageMap::new(), vec![]);
    fill(&map, (1..=2_000_000).step_by(2));
    let whole = save(&map, &mut file);
    assert!(whole > 200_000, "{whole}");
    for n in [2, 1_000_000, 1_999_998] {
        map.set_present(page(n), Epoch(0));
        map.set_dirty(page(n));
        let written = save(&map, &mut file);
        assert!(written <= 1200, "{written} bytes for one page");
    }
    // What is appended is never more than the whole, and rarely is the whole written again.
    let mut wholes = 0;
    for n in 0..2000 {
        map.set_dirty(page(1 + n * 997 % 2_000_000));
        wholes += usize::from(save(&map, &mut file) > 100_000);
        assert!(file.len() < 2 * whole + 100_000);
    }
    assert!(wholes <= 10, "{wholes}");
    assert!(decode(&file).unwrap() == sets(&map));
}

/// Prints what the map of 100 GB costs; `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "prints numbers"]
fn what_100_gb_cost() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS"))
            .unwrap_or("0");
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<u64>().ok())
            .unwrap_or(0)
    };
    for step in [1, 2] {
        let mut file = vec![];
        let map = of_100_gb(step);
        let begun = Instant::now();
        let whole = save(&map, &mut file);
        println!("step {step}: whole save {whole} bytes, {:?}", begun.elapsed());
        drop(map);
        let before = resident();
        let begun = Instant::now();
        let map = SavedPageMap::decode(&file, PageCount(25_000_000)).unwrap().map;
        println!("  decode {:?}, {} KiB more", begun.elapsed(), resident() - before);
        let n = 25_000_000 / 2;
        let begun = Instant::now();
        map.clear_present(page(n));
        map.set_dirty(page(n));
        let written = save(&map, &mut file);
        println!("  one page: {written} bytes, {:?}", begun.elapsed());
        let begun = Instant::now();
        let present = map.present();
        println!("  all that are present, {}: {:?}", present.len(), begun.elapsed());
        let begun = Instant::now();
        let few = map.present_if_few(1024).is_some();
        println!("  whether they are few runs, {few}: {:?}", begun.elapsed());
        let begun = Instant::now();
        let ids: RoaringBitmap = (n..n + 32).collect();
        println!(
            "  which of 32, {}: {:?}",
            map.present_among(&ids).len(),
            begun.elapsed()
        );
        let begun = Instant::now();
        let has = map.has_all(PageCount(25_000_000), page(262_145), true);
        println!("  has all, {has}: {:?}", begun.elapsed());
        let begun = Instant::now();
        let looks = (1..=10_000_000_u32)
            .map(|n| n.wrapping_mul(2_654_435_761) % 25_000_000 + 1)
            .filter(|n| map.look(page(*n), Epoch(0)).is_some_and(|seen| seen.is_still()))
            .count();
        println!("  10,000,000 looks, {looks}: {:?}", begun.elapsed());
    }
}

#[test]
fn runs_and_bits_are_the_same_to_a_reader() {
    let (map, mut file) = (PageMap::new(), vec![]);
    let mut pages = BTreeSet::new();
    // More and more runs in one chunk, up to where bits are shorter, at its ends too.
    for n in [1, 4096, 2, 64, 65, 128, 129]
        .into_iter()
        .chain((200..1200).step_by(4))
    {
        map.set_present(page(n), Epoch(0));
        pages.insert(n - 1);
        save(&map, &mut file);
        assert!(decode(&file).unwrap().0.iter().eq(pages.iter().copied()));
    }
}
