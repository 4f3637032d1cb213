//! The page map held against a model with ordered sets, and against threads that use it as readers and fillers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use partial_sync_core::{Epoch, PageCount, PageMap, PageNo};
use proptest::prelude::*;
use roaring::RoaringBitmap;

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    /// A fetch fills a page in the current epoch.
    Fill(u32),
    /// A checkpoint writes a page.
    Checkpoint(u32),
    ClearPresent(u32),
    SetDirty(u32),
    /// These pages leave, and those are dirty then.
    MoveBase(Vec<u32>, Vec<u32>),
    Begin,
    /// The nth of the open readers ends.
    End(prop::sample::Index),
    CutOff(u32),
    Truncate(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let page = || prop_oneof![4 => 1..40_u32, 2 => 4090..4110_u32, 1 => 1..=u32::MAX, 1 => Just(u32::MAX)];
    let pages = move || prop::collection::vec(page(), 0..8);
    prop_oneof![
        8 => page().prop_map(Op::Fill),
        2 => page().prop_map(Op::Checkpoint),
        2 => page().prop_map(Op::ClearPresent),
        4 => page().prop_map(Op::SetDirty),
        2 => (pages(), pages()).prop_map(|(leaving, dirty)| Op::MoveBase(leaving, dirty)),
        2 => Just(Op::Begin),
        2 => any::<prop::sample::Index>().prop_map(Op::End),
        1 => page().prop_map(Op::CutOff),
        1 => page().prop_map(Op::Truncate),
    ]
}

/// What a map has to say, in the plainest form: the epoch since which a page is right, and until which it is kept.
#[derive(Default)]
struct Model {
    epoch: u32,
    readers: Vec<u32>,
    present: BTreeMap<u32, u32>,
    /// Since when, and for readers of epochs before which.
    retired: BTreeMap<u32, (u32, u32)>,
    dirty: BTreeSet<u32>,
    /// What became present since the start, at which everything was absent, or since this was last forgotten.
    arrived: BTreeSet<u32>,
}

impl Model {
    fn run(&mut self, map: &PageMap, op: Op) -> Result<(), TestCaseError> {
        match op {
            // A page that is retired is not filled.
            Op::Fill(n) if self.retired.contains_key(&n) => prop_assert!(map.is_retired(page(n))),
            Op::Fill(n) => {
                let is_new = !self.present.contains_key(&n);
                prop_assert_eq!(map.set_present(page(n), Epoch(self.epoch)), is_new);
                self.present.entry(n).or_insert(self.epoch);
                self.arrived.extend(is_new.then_some(n));
            }
            Op::Checkpoint(n) => {
                let is_new = map.set_present(page(n), Epoch(0));
                self.arrived.extend(is_new.then_some(n));
                self.retired.remove(&n);
                self.present.entry(n).or_insert(0);
            }
            Op::ClearPresent(n) => {
                map.clear_present(page(n));
                self.present.remove(&n);
            }
            Op::SetDirty(n) => {
                map.set_dirty(page(n));
                self.dirty.insert(n);
            }
            Op::MoveBase(leaving, dirty) => {
                self.epoch += 1;
                let leaving: BTreeSet<u32> = leaving
                    .into_iter()
                    .filter(|n| self.present.contains_key(n))
                    .collect();
                let ids =
                    |pages: &mut dyn Iterator<Item = u32>| pages.map(|n| n - 1).collect::<RoaringBitmap>();
                let older = (!self.readers.is_empty()).then_some(Epoch(self.epoch));
                let gone = ids(&mut leaving.iter().copied());
                map.move_base(older, &gone, ids(&mut dirty.iter().copied()));
                for n in leaving {
                    let since = self.present.remove(&n).unwrap();
                    if older.is_some() {
                        self.retired.insert(n, (since, self.epoch));
                    }
                }
                self.dirty = dirty.into_iter().collect();
            }
            Op::Begin => self.readers.push(self.epoch),
            Op::End(nth) if !self.readers.is_empty() => {
                self.readers.remove(nth.index(self.readers.len()));
                let oldest = self.readers.iter().min().copied().unwrap_or(self.epoch);
                map.forget_older(Epoch(oldest));
                self.retired.retain(|_, (_, before)| *before > oldest);
            }
            Op::End(_) => {}
            Op::CutOff(n) => {
                map.cut_off(PageCount(n));
                self.dirty.extend(self.present.keys().filter(|page| **page > n));
            }
            Op::Truncate(n) => {
                map.truncate(PageCount(n));
                self.dirty.extend(self.present.keys().filter(|page| **page > n));
                self.present.retain(|page, _| *page <= n);
                self.retired.retain(|page, _| *page <= n);
            }
        }
        Ok(())
    }

    fn check(&self, map: &PageMap, n: u32) -> Result<(), TestCaseError> {
        let number = page(n);
        prop_assert_eq!(map.is_present(number), self.present.contains_key(&n));
        prop_assert_eq!(map.is_retired(number), self.retired.contains_key(&n));
        prop_assert_eq!(map.is_dirty(number), self.dirty.contains(&n));
        let was_here = self.present.contains_key(&n) && !self.arrived.contains(&n);
        prop_assert_eq!(map.was_here(number), was_here);
        // Every reader there is, and the one that begins now.
        for reader in self.readers.iter().copied().chain([self.epoch]) {
            prop_assert_eq!(
                map.look(number, Epoch(reader)).is_some(),
                self.present.get(&n).is_some_and(|since| *since <= reader),
                "page {} for {}",
                n,
                reader
            );
            prop_assert_eq!(
                map.is_kept_for(number, Epoch(reader)),
                self.retired
                    .get(&n)
                    .is_some_and(|(since, before)| (*since..*before).contains(&reader)),
                "page {} kept for {}",
                n,
                reader
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn invariant_4_the_map_tells_every_reader_what_ordered_sets_tell_it(
        ops in prop::collection::vec(op(), 0..80),
        noted in any::<prop::sample::Index>(),
    ) {
        let map = PageMap::new();
        let mut model = Model::default();
        let noted = noted.index(ops.len() + 1);
        let later = ops.clone().split_off(noted);
        for op in ops.into_iter().take(noted) {
            model.run(&map, op)?;
        }
        prop_assert!(!map.was_here(page(1)), "that is not known of any page");
        let arrivals = map.note_arrivals();
        model.arrived.clear();
        for op in later {
            model.run(&map, op)?;
        }
        prop_assert!(arrivals.ids().iter().eq(model.arrived.iter().map(|n| n - 1)));
        let ids = |pages: &mut dyn Iterator<Item = u32>| pages.map(|n| n - 1).collect::<Vec<_>>();
        prop_assert_eq!(map.present().iter().collect::<Vec<_>>(), ids(&mut model.present.keys().copied()));
        prop_assert_eq!(map.dirty().iter().collect::<Vec<_>>(), ids(&mut model.dirty.iter().copied()));
        prop_assert_eq!(map.present_count().0 as usize, model.present.len());
        prop_assert_eq!(map.dirty_count().0 as usize, model.dirty.len());
        for n in (1..45).chain(4085..4115).chain([u32::MAX - 1, u32::MAX]) {
            model.check(&map, n)?;
        }
        let some = RoaringBitmap::from_iter([0, 3, 4095, 4100, u32::MAX - 1, u32::MAX]);
        prop_assert_eq!(map.present_among(&some), map.present() & some);
        let mut many = RoaringBitmap::new();
        many.insert_range(30..70_000);
        prop_assert_eq!(map.present_among(&many), map.present() & many);
        for end in [0, 20, 4096, 4100, u32::MAX - 1] {
            let mut beyond = map.present();
            beyond.remove_range(..end);
            prop_assert_eq!(map.present_from(PageCount(end)), beyond);
        }
        let begins = |n: &&u32| !model.present.contains_key(&(**n - 1));
        let runs = model.present.keys().filter(begins).count();
        prop_assert_eq!(map.present_if_few(runs), Some(map.present()));
        if runs > 0 {
            prop_assert_eq!(map.present_if_few(runs - 1), None);
        }
        for end in [1, 3, 64, 65, 4100] {
            for or_dirty in [false, true] {
                let here = |n: u32| model.present.contains_key(&n) || (or_dirty && model.dirty.contains(&n)) || n == 3;
                prop_assert_eq!(map.has_all(PageCount(end), page(3), or_dirty), (1..=end).all(here));
                let missing = (1..=end).filter(|n| !here(*n)).count();
                prop_assert_eq!(map.missing(PageCount(end), page(3), or_dirty), missing as u64);
            }
        }
    }
}

#[test]
fn what_is_all_here_is_all_here() {
    let map = PageMap::new();
    for n in (1..=200).filter(|n| *n != 70 && *n != 130) {
        map.set_present(page(n), Epoch(0));
    }
    let has = |end, or_dirty| map.has_all(PageCount(end), page(70), or_dirty);
    assert!(has(129, false) && !has(130, false) && !has(200, true));
    map.set_dirty(page(130));
    assert!(has(200, true) && !has(200, false) && !has(201, true));
}

#[test]
fn the_last_epoch_does_not_overflow() {
    let map = PageMap::new();
    map.set_present(page(1), Epoch(u32::MAX));
    assert!(map.look(page(1), Epoch(u32::MAX)).is_some());
    assert!(!map.is_kept_for(page(1), Epoch(u32::MAX)));
}

#[test]
fn what_a_reader_saw_is_not_what_it_was_when_it_went_away_and_came_back() {
    let map = PageMap::new();
    map.set_present(page(1), Epoch(0));
    let seen = map.look(page(1), Epoch(0)).unwrap();
    map.set_present(page(2), Epoch(0));
    map.set_dirty(page(1));
    assert!(seen.is_still());
    map.clear_present(page(1));
    assert!(!seen.is_still());
    map.set_present(page(1), Epoch(0));
    assert!(!seen.is_still());
    assert!(map.look(page(1), Epoch(0)).unwrap().is_still());
}

/// Readers never take bytes of two writes: two words stand for the page's bytes, and a filler writes both in a page that
/// is cleared before and set after.
#[test]
fn invariant_4_a_reader_that_asks_again_after_reading_never_sees_a_page_change_under_it() {
    const ROUNDS: u64 = 20_000;
    let map = PageMap::new();
    let bytes = [AtomicU64::new(0), AtomicU64::new(0)];
    let done = AtomicBool::new(false);
    let start = Barrier::new(3);
    let the_page = page(77);
    let reader = || {
        let mut reads = 0_u64;
        start.wait();
        while !done.load(Ordering::Relaxed) {
            let Some(seen) = map.look(the_page, Epoch(0)) else {
                std::hint::spin_loop();
                continue;
            };
            let read = [bytes[0].load(Ordering::Relaxed), bytes[1].load(Ordering::Relaxed)];
            if seen.is_still() {
                assert_eq!(read[0], read[1]);
                reads += 1;
            }
        }
        reads
    };
    thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(reader));
        start.wait();
        for round in 0..ROUNDS {
            map.clear_present(the_page);
            for word in &bytes {
                word.store(round, Ordering::Relaxed);
            }
            map.set_present(the_page, Epoch(0));
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
        for _ in 0..4 {
            let (map, wins) = (&map, &wins);
            scope.spawn(move || {
                for n in 1..=PAGES {
                    if map.set_present(page(n), Epoch(0)) {
                        wins.fetch_add(1, Ordering::Relaxed);
                    }
                    map.set_dirty(page(n));
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
    map.move_base(None, &RoaringBitmap::new(), RoaringBitmap::new());
    assert_eq!(
        (map.present_count(), map.dirty_count()),
        (PageCount(5), PageCount(0))
    );
}
