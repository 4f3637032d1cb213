//! The page map's protocols under a scheduler that tries interleavings (`shuttle`), with every atomic operation a point
//! where another thread may continue. Memory order is not explored: every operation is sequentially consistent here, which
//! `scripts/races` makes up for with ThreadSanitizer. `SCHEDULES` says how many schedules each test tries; a failure prints
//! one that can be replayed with `shuttle::replay`.

use std::sync::Arc;

use partial_sync_core::{Epoch, PageCount, PageId, PageMap, PageNo, PageSize, Save, SaveTo, SavedPageMap};
use roaring::RoaringBitmap;
use shuttle::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
};

fn schedules() -> usize {
    std::env::var("SCHEDULES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000)
}

/// Half of the schedules drawn at random, half with few switches at bad moments, which finds other defects.
fn explore(body: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(body.clone(), schedules().div_ceil(2));
    shuttle::check_pct(body, schedules().div_ceil(2), 3);
}

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

/// A page of the file, which is written and read half by half.
#[derive(Default)]
struct Bytes([AtomicU64; 2]);

impl Bytes {
    fn write(&self, value: u64) {
        self.0.iter().for_each(|half| half.store(value, SeqCst));
    }

    fn read(&self) -> [u64; 2] {
        [self.0[0].load(SeqCst), self.0[1].load(SeqCst)]
    }
}

/// What a reader of an epoch gets from the file by the protocol; `None` = it has to fetch.
fn read(map: &PageMap, bytes: &Bytes, page: PageNo, epoch: Epoch) -> Option<[u64; 2]> {
    loop {
        let seen = map.look(page, epoch)?;
        let read = bytes.read();
        if seen.is_still() {
            return Some(read);
        }
    }
}

#[test]
fn a_reader_never_gets_bytes_that_are_being_written() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        let bytes = Arc::new(Bytes::default());
        bytes.write(1);
        map.set_present(page(5), Epoch(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (map, bytes) = (map.clone(), bytes.clone());
                thread::spawn(move || {
                    for _ in 0..2 {
                        if let Some(read) = read(&map, &bytes, page(5), Epoch(0)) {
                            assert!(read == [1, 1] || read == [2, 2], "{read:?}");
                        }
                    }
                })
            })
            .collect();
        // The same epoch: that it went away and came back is seen all the same. So it is when a neighbour goes.
        map.clear_present(page(5));
        bytes.write(2);
        map.set_present(page(5), Epoch(0));
        map.clear_present(page(6));
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(map.present_count(), PageCount(1));
    });
}

/// What a pull takes away is filled again at the new epoch, while a reader of the old one is at work.
#[test]
fn invariant_4_a_reader_of_an_older_epoch_never_gets_what_came_after_it() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        let bytes = Arc::new(Bytes::default());
        bytes.write(1);
        map.set_present(page(5), Epoch(0));
        let readers = [0, 1].map(|epoch| {
            let (map, bytes) = (map.clone(), bytes.clone());
            thread::spawn(move || {
                for n in [5, 6] {
                    match (epoch, read(&map, &bytes, page(n), Epoch(epoch))) {
                        (_, None) => {}
                        (0, Some(read)) => assert_eq!(read, [1, 1]),
                        // A copy that is kept for others is as good for it as for them, until it is replaced.
                        (_, Some(read)) => assert!(read == [1, 1] || read == [2, 2], "{read:?}"),
                    }
                }
            })
        });
        let left = RoaringBitmap::from_iter([4]);
        map.move_base(Some(Epoch(1)), &left, RoaringBitmap::new());
        assert!(map.is_kept_for(page(5), Epoch(0)) && !map.is_kept_for(page(5), Epoch(1)));
        bytes.write(2);
        map.set_present(page(6), Epoch(1));
        for reader in readers {
            reader.join().unwrap();
        }
        map.forget_older(Epoch(1));
        assert!(!map.is_kept_for(page(5), Epoch(0)) && !map.has_retired());
    });
}

/// The map's documentation says that a page is cleared before its bytes are replaced; this shows that the scheduler finds
/// out when it is not.
#[test]
#[should_panic(expected = "[1, 1]")]
fn without_clearing_a_reader_gets_bytes_of_two_writes() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        let bytes = Arc::new(Bytes::default());
        bytes.write(1);
        map.set_present(page(5), Epoch(0));
        let reader = {
            let (map, bytes) = (map.clone(), bytes.clone());
            thread::spawn(move || {
                if let Some(read) = read(&map, &bytes, page(5), Epoch(0)) {
                    assert!(read == [1, 1] || read == [2, 2], "not [1, 1]: {read:?}");
                }
            })
        };
        bytes.write(2);
        map.set_present(page(5), Epoch(0));
        reader.join().unwrap();
    });
}

#[test]
fn of_two_fillers_one_wins_and_the_counters_are_right() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        let fillers: Vec<_> = (0..3)
            .map(|n| {
                let map = map.clone();
                thread::spawn(move || map.set_present(page(7), Epoch(n)))
            })
            .collect();
        let won = fillers
            .into_iter()
            .map(|f| f.join().unwrap())
            .filter(|won| *won)
            .count();
        assert_eq!(won, 1);
        assert_eq!(map.present_count(), PageCount(1));
        assert_eq!(map.present(), RoaringBitmap::from_iter([6]));
    });
}

#[test]
fn counters_agree_with_the_sets_whoever_sets_clears_and_cuts() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        map.set_present(page(2), Epoch(0));
        map.set_dirty(page(2));
        let work: [fn(&PageMap); 4] = [
            |map| {
                map.set_present(page(1), Epoch(0));
                map.set_present(page(70), Epoch(1));
                map.set_dirty(page(1));
            },
            |map| {
                map.clear_present(page(1));
                map.set_present(page(2), Epoch(1));
            },
            |map| {
                map.truncate(PageCount(1));
                map.set_dirty(page(70));
            },
            |map| {
                map.set_present(page(2), Epoch(2));
                map.move_base(
                    None,
                    &RoaringBitmap::from_iter([1, 69]),
                    RoaringBitmap::from_iter([3]),
                );
            },
        ];
        let threads: Vec<_> = work
            .into_iter()
            .map(|work| {
                let map = map.clone();
                thread::spawn(move || work(&map))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(u64::from(map.present_count().0), map.present().len());
        assert_eq!(u64::from(map.dirty_count().0), map.dirty().len());
        for id in map.present() {
            assert!(map.is_present(PageId(id).no().unwrap()));
        }
    });
}

/// Does to a file what a save says.
fn write(file: &mut Vec<u8>, save: &Save) {
    match &save.file {
        SaveTo::Whole(bytes) => file.clone_from(bytes),
        SaveTo::Append { first, then, .. } => {
            for (offset, bytes) in first.iter().chain([then]) {
                let end = *offset as usize + bytes.len();
                file.resize(file.len().max(end), 0);
                file[*offset as usize..end].copy_from_slice(bytes);
            }
        }
    }
}

#[test]
fn a_map_that_says_it_is_saved_is_saved() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        let changers: Vec<_> = (0..2)
            .map(|n| {
                let map = map.clone();
                thread::spawn(move || {
                    map.set_present(page(n + 1), Epoch(0));
                    map.set_dirty(page(1));
                    if n == 1 {
                        map.clear_present(page(1));
                        map.set_dirty(page(9000));
                    }
                })
            })
            .collect();
        let saver = {
            let map = map.clone();
            thread::spawn(move || {
                let mut file = vec![];
                for fails in [false, true, false] {
                    let save = Save::of(&map, PageSize::DEFAULT, PageCount(100));
                    thread::yield_now();
                    if !fails {
                        write(&mut file, &save);
                        save.succeeded(&map);
                    }
                }
                file
            })
        };
        for changer in changers {
            changer.join().unwrap();
        }
        let mut file = saver.join().unwrap();
        let is_saved = |file: &[u8]| {
            let saved = SavedPageMap::decode(file, PageCount(u32::MAX)).unwrap().map;
            (saved.present(), saved.dirty()) == (map.present(), map.dirty())
        };
        // What is on disk is what the map says, or the map says that it is not.
        assert!(map.changed_since_saved() || is_saved(&file));
        let save = Save::of(&map, PageSize::DEFAULT, PageCount(100));
        write(&mut file, &save);
        assert!(is_saved(&file));
    });
}

#[test]
fn what_was_set_before_a_walk_is_in_it() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        map.set_present(page(3), Epoch(0));
        map.set_dirty(page(4));
        let other = {
            let map = map.clone();
            thread::spawn(move || {
                map.set_present(page(64), Epoch(0));
                map.set_dirty(page(65));
                map.clear_present(page(64));
            })
        };
        assert!(map.present().contains(2));
        assert!(map.dirty().contains(3));
        other.join().unwrap();
    });
}

/// A page that a reader keeps, and a checkpoint then writes, is absent at no moment.
#[test]
fn a_retired_page_that_a_checkpoint_writes_is_never_absent() {
    explore(|| {
        let map = Arc::new(PageMap::new());
        map.set_present(page(5), Epoch(0));
        map.move_base(Some(Epoch(1)), &[4].into(), RoaringBitmap::new());
        let checkpoint = {
            let map = map.clone();
            thread::spawn(move || {
                map.set_present(page(5), Epoch(0));
            })
        };
        assert!(!map.is_absent(page(5)));
        checkpoint.join().unwrap();
    });
}
