//! Saves of a page map on a disk that fails: what a kill, a failure or a loss of power leaves is what was saved last, or what was
//! being saved, and who continues from there loses nothing.

use std::{io, path::Path};

use partial_sync_core::{Epoch, PageCount, PageMap, PageNo, PageSize};
use partial_sync_vfs::{
    MemoryStorage, Replica, Storage,
    crash::{CrashStorage, Survives, Trouble},
    save_page_map,
};

fn save(storage: &CrashStorage, path: &Path, map: &PageMap) -> io::Result<()> {
    save_page_map(storage, path, map, PageSize::DEFAULT, PageCount(1000), || Ok(()))
}

/// Saves of a map until one of them wrote the whole file again, filmed: what a crash at any moment leaves is what was saved
/// last, or what was being saved, and what continues from there loses nothing.
#[test]
fn invariant_8_a_page_map_that_was_being_saved_is_what_it_was_before_or_after() {
    let path = Path::new("/crash/app.db");
    let all = PageCount(u32::MAX);
    let page = |n| PageNo::new(n).unwrap();
    let save = |storage: &CrashStorage, map: &PageMap| save(storage, path, map);
    let sets = |map: &PageMap| (map.present(), map.dirty());
    let storage = CrashStorage::new(path);
    storage.film();
    let map = PageMap::new();
    let mut saved = vec![];
    for round in 0..9_u32 {
        // Every third save is a large one, of chunks that no run shortens.
        let pages = if round % 3 == 2 { 400_000 } else { 100 };
        for n in (1..pages).step_by(4) {
            map.set_present(page(n + round), Epoch(0));
        }
        map.move_base(None, &[round, round + 50].into(), [round, 5000 * round].into());
        save(&storage, &map).unwrap();
        saved.push((storage.operations(), sets(&map)));
    }
    let wholes = storage
        .trace()
        .iter()
        .filter(|what| what.starts_with("rename"))
        .count();
    assert!((2..9).contains(&wholes), "{:?}", storage.trace());
    let film = storage.take_film().unwrap();
    for n in 0..=film.len() {
        let some = (0..6).map(Survives::SyncedAndSome);
        for survives in some.chain([Survives::Written, Survives::Synced]) {
            let disk = CrashStorage::from_remains(&film.crash(n, survives), path);
            let done = saved.iter().filter(|(at, _)| *at <= n as u64).count();
            let expected = &saved[done.saturating_sub(1)..(done + 1).min(saved.len())];
            let what = format!("operation {n}, {survives:?}");
            let loaded = match Replica::load_map(&disk, path, all).unwrap_or_else(|e| panic!("{what}: {e}")) {
                Some(loaded) => loaded.map,
                None => {
                    assert_eq!(done, 0, "{what}");
                    continue;
                }
            };
            assert!(
                expected.iter().any(|(_, state)| *state == sets(&loaded)),
                "{what}"
            );
            loaded.set_dirty(page(77_777));
            save(&disk, &loaded).unwrap();
            for survives in [Survives::Written, Survives::Synced] {
                let again = disk.after_crash(survives, path);
                let again = Replica::load_map(&again, path, all).unwrap().unwrap();
                assert!(sets(&again.map) == sets(&loaded), "{what}, then saved");
            }
        }
    }
}

#[test]
fn a_page_map_file_that_was_taken_away_or_cut_is_written_as_a_whole() {
    let path = Path::new("/crash/app.db");
    let storage = MemoryStorage::default();
    let map = PageMap::new();
    let page = |n| PageNo::new(n).unwrap();
    for n in 1..6 {
        map.set_present(page(n), Epoch(0));
        let save = || save_page_map(&storage, path, &map, PageSize::DEFAULT, PageCount(9), || Ok(()));
        save().unwrap();
        let file = Replica::map_path(path);
        match n {
            2 => storage.remove(&file).unwrap(),
            4 => storage.open(&file, false).unwrap().set_len(8200).unwrap(),
            _ => {
                let saved = Replica::load_map(&storage, path, PageCount(9)).unwrap().unwrap();
                assert_eq!(saved.map.present(), map.present());
            }
        }
    }
}

/// A process is killed between the rename of a whole map and the sync of the folder. The next one appends to a file whose
/// name is not durable, and says that it has saved.
#[test]
fn invariant_8_a_save_after_a_kill_in_a_whole_save_survives_a_power_failure() {
    let path = Path::new("/crash/app.db");
    let all = PageCount(u32::MAX);
    let page = |n| PageNo::new(n).unwrap();
    let storage = CrashStorage::new(path);
    let map = PageMap::new();
    map.set_present(page(1), Epoch(0));
    save(&storage, path, &map).unwrap();
    // The same pages again, as a whole (as after a long journal, a failed save, or version 1).
    let whole = PageMap::from_sets(&map.present(), &map.dirty());
    let folder = storage.operations() + 5;
    storage.trouble(Some(Trouble::Fail(folder, folder + 1, io::ErrorKind::Other)));
    save(&storage, path, &whole).unwrap_err();
    assert_eq!(storage.trace().last().unwrap(), "sync_folder");
    // What the killed process left is in the cache of the system; the next process:
    let next = Replica::load_map(&storage, path, all).unwrap().unwrap().map;
    next.set_dirty(page(7));
    save(&storage, path, &next).unwrap();
    let after = storage.after_crash(Survives::Synced, path);
    let found = Replica::load_map(&after, path, all).unwrap().unwrap().map;
    assert_eq!(found.dirty(), next.dirty(), "the save had succeeded");
}

/// A process continues after a failure at any operation of a save, of any length, changes more and saves; then it crashes.
#[test]
fn invariant_8_a_process_that_goes_on_after_a_failed_save_leaves_what_it_saved() {
    let path = Path::new("/crash/app.db");
    let page = |n| PageNo::new(n).unwrap();
    let sets = |map: &PageMap| (map.present(), map.dirty());
    let lengths = [1, 2, 3, 5, 8, 11];
    for (fail, len) in (1..13_u64).flat_map(|fail| lengths.map(|len| (fail, len))) {
        let storage = CrashStorage::new(path);
        let map = PageMap::new();
        map.set_present(page(1), Epoch(0));
        save(&storage, path, &map).unwrap();
        storage.film();
        let start = storage.operations();
        let full = io::ErrorKind::StorageFull;
        storage.trouble(Some(Trouble::Fail(start + fail, start + fail + len, full)));
        // When it was begun, when it had succeeded, and what was to be saved.
        let mut saves = vec![(0, Some(0), sets(&map))];
        for n in 0..8_u32 {
            map.set_present(page(10 + n), Epoch(0));
            map.set_dirty(page(10 + n));
            map.move_base(None, &[8 + n].into(), [n].into());
            let begun = storage.operations() - start;
            let done = save(&storage, path, &map).is_ok();
            let done = done.then(|| storage.operations() - start);
            saves.push((begun, done, sets(&map)));
        }
        let film = storage.take_film().unwrap();
        for at in 0..=film.len() {
            let now = at as u64;
            let some = (0..4).map(Survives::SyncedAndSome);
            for survives in some.chain([Survives::Written, Survives::Synced]) {
                let disk = CrashStorage::from_remains(&film.crash(at, survives), path);
                let read = Replica::load_map(&disk, path, PageCount(u32::MAX));
                let what = || format!("{fail} + {len}, at {at}, {survives:?}: {:?}", storage.trace());
                let read = read.unwrap_or_else(|error| panic!("{error}: {}", what()));
                let read = sets(&read.unwrap().map);
                let has_succeeded = |(_, done, _): &(_, Option<u64>, _)| done.is_some_and(|done| done <= now);
                let last = saves.iter().rposition(has_succeeded).unwrap();
                let mut begun = saves[last..]
                    .iter()
                    .filter(|(begun, ..)| *begun < now || *begun == 0);
                assert!(begun.any(|(.., saved)| *saved == read), "{}", what());
            }
        }
    }
}

/// Killed at any operation of a save; the next process believes what it finds, changes more and saves twice; then the power fails.
#[test]
fn invariant_8_what_the_next_process_saves_after_a_kill_survives_a_power_failure() {
    let path = Path::new("/crash/app.db");
    let all = PageCount(u32::MAX);
    let page = |n| PageNo::new(n).unwrap();
    let sets = |map: &PageMap| (map.present(), map.dirty());
    for (whole, kill) in [false, true]
        .into_iter()
        .flat_map(|whole| (1..8_u64).map(move |kill| (whole, kill)))
    {
        let storage = CrashStorage::new(path);
        let mut map = PageMap::new();
        map.set_present(page(1), Epoch(0));
        save(&storage, path, &map).unwrap();
        if whole {
            map = PageMap::from_sets(&map.present(), &map.dirty());
        }
        // What can be found, and the number of operations from which on it must be, or something later.
        let mut states = vec![(0, sets(&map))];
        map.set_present(page(2), Epoch(0));
        map.move_base(None, &[0].into(), [2].into());
        let killed = storage.operations() + kill;
        storage.trouble(Some(Trouble::Fail(killed, u64::MAX, io::ErrorKind::Other)));
        // It may have come to its end.
        let _ = save(&storage, path, &map);
        storage.trouble(None);
        states.push((0, sets(&map)));
        let next = Replica::load_map(&storage, path, all).unwrap().unwrap().map;
        storage.film();
        let start = storage.operations();
        for n in 0..2 {
            next.set_present(page(7000 + n), Epoch(0));
            next.set_dirty(page(7 + n));
            save(&storage, path, &next).unwrap();
            states.push((storage.operations() - start, sets(&next)));
        }
        let film = storage.take_film().unwrap();
        for at in 0..=film.len() {
            let now = at as u64;
            let some = (0..8).map(Survives::SyncedAndSome);
            for survives in some.chain([Survives::Written, Survives::Synced]) {
                let disk = CrashStorage::from_remains(&film.crash(at, survives), path);
                let read = Replica::load_map(&disk, path, all);
                let what = || {
                    format!(
                        "whole {whole}, kill {kill}, at {at}, {survives:?}: {:?}",
                        storage.trace()
                    )
                };
                let read = read.unwrap_or_else(|error| panic!("{error}: {}", what()));
                let read = sets(&read.unwrap().map);
                let least = states[2..]
                    .iter()
                    .rposition(|(done, _)| *done <= now)
                    .map_or(0, |nth| nth + 2);
                assert!(
                    states[least..].iter().any(|(_, saved)| *saved == read),
                    "{}",
                    what()
                );
            }
        }
    }
}

/// Killed between the write of the second head and its sync; the next process sees two heads that say the same, continues the
/// file, and the power fails in its save: the disk has the heads of saves 1 and 3.
#[test]
fn invariant_8_a_power_failure_in_the_first_save_after_a_kill_leaves_a_map_that_can_be_read() {
    let path = Path::new("/crash/app.db");
    let page = |n| PageNo::new(n).unwrap();
    let storage = CrashStorage::new(path);
    let map = PageMap::new();
    save(&storage, path, &map).unwrap();
    map.set_present(page(2), Epoch(0));
    let last_sync = storage.operations() + 5;
    storage.trouble(Some(Trouble::Fail(
        last_sync,
        last_sync + 1,
        io::ErrorKind::Other,
    )));
    save(&storage, path, &map).unwrap_err();
    let next = Replica::load_map(&storage, path, PageCount(9))
        .unwrap()
        .unwrap()
        .map;
    next.set_present(page(3), Epoch(0));
    let first_sync = storage.operations() + 3;
    storage.trouble(Some(Trouble::Stop(first_sync)));
    save(&storage, path, &next).unwrap_err();
    for seed in 0..100 {
        let left = storage.after_crash(Survives::SyncedAndSome(seed), path);
        let read = Replica::load_map(&left, path, PageCount(9));
        assert!(
            read.is_ok(),
            "{seed}: {}; {:?}",
            read.unwrap_err(),
            storage.trace()
        );
    }
}
