//! The page map held against a model with two ordered sets, and against threads that use it as readers and fillers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use partial_sync_core::{Epoch, PageCount, PageMap, PageNo, PageState};
use proptest::prelude::*;

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    SetPresent(u32, u32),
    SetPresentIfAbsent(u32, u32),
    ClearPresent(u32),
    SetDirty(u32),
    ClearDirty(u32),
    ClearAllDirty,
    Truncate(u32),
    Save,
}

fn op() -> impl Strategy<Value = Op> {
    let page = || prop_oneof![4 => 1..40_u32, 2 => 4090..4110_u32, 1 => 1..=u32::MAX, 1 => Just(u32::MAX)];
    prop_oneof![
        6 => (page(), 0..4_u32).prop_map(|(page, epoch)| Op::SetPresent(page, epoch)),
        2 => (page(), 0..4_u32).prop_map(|(page, epoch)| Op::SetPresentIfAbsent(page, epoch)),
        2 => page().prop_map(Op::ClearPresent),
        4 => page().prop_map(Op::SetDirty),
        2 => page().prop_map(Op::ClearDirty),
        1 => Just(Op::ClearAllDirty),
        1 => page().prop_map(Op::Truncate),
        1 => Just(Op::Save),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_map_does_what_two_ordered_sets_do(ops in prop::collection::vec(op(), 0..80)) {
        let map = PageMap::new();
        let (mut present, mut dirty) = (BTreeMap::new(), BTreeSet::new());
        let mut saved: (BTreeSet<u32>, BTreeSet<u32>) = Default::default();
        for op in ops {
            match op {
                Op::SetPresent(n, epoch) => {
                    map.set_present(page(n), Epoch(epoch));
                    present.insert(n, epoch);
                }
                Op::SetPresentIfAbsent(n, epoch) => {
                    prop_assert_eq!(map.set_present_if_absent(page(n), Epoch(epoch)), !present.contains_key(&n));
                    present.entry(n).or_insert(epoch);
                }
                Op::ClearPresent(n) => {
                    map.clear_present(page(n));
                    present.remove(&n);
                }
                Op::SetDirty(n) => {
                    map.set_dirty(page(n));
                    dirty.insert(n);
                }
                Op::ClearDirty(n) => {
                    map.clear_dirty(page(n));
                    dirty.remove(&n);
                }
                Op::ClearAllDirty => {
                    map.clear_all_dirty();
                    dirty.clear();
                }
                Op::Truncate(n) => {
                    map.truncate(PageCount(n));
                    dirty.extend(present.keys().filter(|page| **page > n));
                    present.retain(|page, _| *page <= n);
                }
                Op::Save => {
                    map.mark_saved(map.version());
                    prop_assert!(!map.changed_since_saved());
                    saved = (present.keys().copied().collect(), dirty.clone());
                }
            }
            let numbers: BTreeSet<u32> = present.keys().copied().collect();
            if (&numbers, &dirty) != (&saved.0, &saved.1) {
                prop_assert!(map.changed_since_saved());
            }
        }
        let ids = |pages: &mut dyn Iterator<Item = u32>| pages.map(|n| n - 1).collect::<Vec<_>>();
        prop_assert_eq!(map.present().iter().collect::<Vec<_>>(), ids(&mut present.keys().copied()));
        prop_assert_eq!(map.dirty().iter().collect::<Vec<_>>(), ids(&mut dirty.iter().copied()));
        prop_assert_eq!(map.present_count().0 as usize, present.len());
        prop_assert_eq!(map.dirty_count().0 as usize, dirty.len());
        for n in (1..45).chain(4085..4115).chain([u32::MAX - 1, u32::MAX]) {
            let state = map.state(page(n));
            prop_assert_eq!(state.since(), present.get(&n).copied().map(Epoch));
            prop_assert_eq!(state.is_absent(), !present.contains_key(&n));
            for reader in 0..5 {
                prop_assert_eq!(state.visible_to(Epoch(reader)), present.get(&n).is_some_and(|since| *since <= reader));
            }
            prop_assert_eq!(map.is_dirty(page(n)), dirty.contains(&n));
        }
    }
}

#[test]
fn the_last_epoch_does_not_overflow() {
    let map = PageMap::new();
    map.set_present(page(1), Epoch(u32::MAX));
    assert!(map.state(page(1)).visible_to(Epoch(u32::MAX)));
    assert!(!map.state(page(1)).visible_to(Epoch(0)));
    assert_eq!(PageState::present(Epoch(0)).since(), Some(Epoch(0)));
}

#[test]
fn what_changes_while_a_saver_writes_is_saved_next_time() {
    let map = PageMap::new();
    assert!(!map.changed_since_saved());
    map.set_present(page(1), Epoch(0));
    let version = map.version();
    map.set_present(page(2), Epoch(0));
    map.mark_saved(version);
    assert!(map.changed_since_saved());
    map.mark_saved(map.version());
    map.set_present(page(2), Epoch(5));
    map.clear_dirty(page(3));
    map.clear_present(page(3));
    assert!(!map.changed_since_saved(), "the sets are what they were");
}

/// Readers never take bytes of a later epoch, or half of them: two words stand for the page's bytes, and a filler writes
/// both with its epoch, in a page that is cleared before and set after.
#[test]
fn invariant_4_a_reader_that_asks_again_after_reading_never_sees_a_page_change_under_it() {
    const EPOCHS: u32 = 20_000;
    let map = PageMap::new();
    let bytes = [AtomicU64::new(0), AtomicU64::new(0)];
    let done = AtomicBool::new(false);
    let start = Barrier::new(3);
    let the_page = page(77);
    let reader = |epoch_of_reader: Epoch| {
        let mut reads = 0_u64;
        start.wait();
        while !done.load(Ordering::Relaxed) {
            let state = map.state(the_page);
            if !state.visible_to(epoch_of_reader) {
                std::hint::spin_loop();
                continue;
            }
            let read = [bytes[0].load(Ordering::Relaxed), bytes[1].load(Ordering::Relaxed)];
            if map.is_still(the_page, state) {
                let since = u64::from(state.since().unwrap().0);
                assert_eq!(read, [since, since]);
                reads += 1;
            }
        }
        reads
    };
    thread::scope(|scope| {
        let readers = [Epoch(u32::MAX), Epoch(100)].map(|epoch| scope.spawn(move || reader(epoch)));
        start.wait();
        for epoch in 0..EPOCHS {
            map.clear_present(the_page);
            for word in &bytes {
                word.store(u64::from(epoch), Ordering::Relaxed);
            }
            map.set_present(the_page, Epoch(epoch));
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            println!("{} reads", reader.join().unwrap());
        }
    });
}

#[test]
fn invariant_6_of_many_fillers_of_a_page_one_wins_and_the_counters_stay_right() {
    const PAGES: u32 = 10_000;
    let map = PageMap::new();
    let wins = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (map, wins) = (&map, &wins);
            scope.spawn(move || {
                for n in 1..=PAGES {
                    if map.set_present_if_absent(page(n), Epoch(thread)) {
                        wins.fetch_add(1, Ordering::Relaxed);
                    }
                    map.set_dirty(page(n));
                    if n % 3 == 0 {
                        map.clear_dirty(page(n));
                    }
                }
            });
        }
    });
    assert_eq!(wins.into_inner(), u64::from(PAGES));
    assert_eq!(
        (map.present_count(), map.present().len()),
        (PageCount(PAGES), u64::from(PAGES))
    );
    assert_eq!(u64::from(map.dirty_count().0), map.dirty().len());
    map.truncate(PageCount(5));
    map.clear_all_dirty();
    assert_eq!(
        (map.present_count(), map.dirty_count()),
        (PageCount(5), PageCount(0))
    );
}
