//! Whole states written to files, and whole logs verified.

use std::collections::BTreeMap;

use partial_sync_core::PageCount;
use partial_sync_store::{
    Found, ReadOptions, Reader, StoreError,
    object_store::{ObjectStoreExt, path::Path},
};

use crate::support::{Fate, RETENTION, TestClock, Troubled, collect_all, create, no, page, tx};

#[tokio::test]
async fn every_state_that_is_kept_is_restored_and_found_by_its_time() {
    for seed in 0..6 {
        println!("seed {seed}");
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let bucket = store.bucket(&clock);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut database = vec![1; 20];
        let mut writer = create(&bucket, 7, &database).await.unwrap();
        let mut states = BTreeMap::from([(writer.last(), database.clone())]);
        for step in 0..70_u32 {
            database.resize(random.usize(1..30), 0);
            let changed = [(random.u32(1..=database.len() as u32), random.u8(1..))];
            database[changed[0].0 as usize - 1] = changed[0].1;
            let changed = changed.map(|(n, byte)| (no(n), page(byte)));
            let changed = changed.iter().map(|(n, page)| Ok((*n, page)));
            let commit = PageCount(database.len() as u32);
            // A commit every ten seconds.
            let time = 1_700_000_000_000 + i64::from(step + 1) * 10_000;
            let id = writer.append(changed, commit, time).await.unwrap();
            states.insert(id, database.clone());
            if step % 20 == 17 {
                while writer.keeper().compact(writer.last()).await.unwrap() {}
            }
            if step == 45 {
                clock.pass(2 * RETENTION);
                store.age(2 * RETENTION).await;
            }
            if step == 47 {
                writer.keeper().collect(writer.last()).await.unwrap();
            }
        }
        let reader = Reader::open(bucket, ReadOptions::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kept: Vec<_> = reader.kept().collect();
        assert!(
            kept.is_sorted() && kept.len() > 10 && kept.len() < states.len(),
            "{kept:?}"
        );
        for (id, expected) in &states {
            let found = reader.state(*id).await.unwrap();
            assert_eq!(matches!(found, Found::Kept(_)), kept.contains(id), "{id}");
            let Found::Kept(state) = found else { continue };
            let to = folder.path().join(id.to_string());
            reader.restore(state, &to).await.unwrap();
            let expected: Vec<_> = expected.iter().map(|byte| page(*byte)).collect();
            assert!(std::fs::read(&to).unwrap() == expected.concat(), "{id}");
            for (later, id) in [(0, Some(state)), (9_999, Some(state)), (-1, None)] {
                let found = reader.state_at(state.time + later).await.unwrap();
                match id {
                    Some(_) => assert_eq!(found, id),
                    None => assert!(found.is_none_or(|found| found.id < state.id)),
                }
            }
        }
        let verified = reader.verify().await.unwrap();
        assert!(verified.files > 10 && verified.pages > 40, "{verified:?}");
        // Nothing else is left, and nothing is overwritten.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), kept.len());
        let there = folder.path().join(kept[0].to_string());
        let error = reader.restore(reader.latest(), &there).await.unwrap_err();
        assert!(matches!(error, StoreError::Exists(_)), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_or_missing_file_is_named_and_nothing_is_restored() {
    let store = Troubled::memory();
    let clock = TestClock::new();
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[5; 40]).await.unwrap();
    for n in 0..20 {
        crate::support::append(&mut writer, &[(1, n)], 40).await.unwrap();
    }
    while writer.keeper().compact(writer.last()).await.unwrap() {}
    crate::support::append(&mut writer, &[(2, 99)], 40).await.unwrap();
    let reader = Reader::open(bucket, ReadOptions::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("db");
    let mut expected = vec![page(5); 40];
    (expected[0], expected[1]) = (page(19), page(99));
    let expected = expected.concat();
    for file in [
        "0009/0000000000000001-0000000000000001",
        "0001/0000000000000002-0000000000000015",
        "0000/0000000000000016-0000000000000016",
    ] {
        let path = Path::from(format!("some/app/{file}.ltx"));
        let good = store.get(&path).await.unwrap().bytes().await.unwrap();
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1 << (at % 8);
            store.put(&path, bytes.into()).await.unwrap();
            match reader.restore(reader.latest(), &to).await {
                // LZ4 has several forms of the same page.
                Ok(()) => {
                    assert!(std::fs::read(&to).unwrap() == expected, "{path} {at}");
                    std::fs::remove_file(&to).unwrap();
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::File { .. }), "{path} {at}: {error}");
                    assert!(reader.verify().await.is_err(), "{path} {at}");
                }
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        store.delete(&path).await.unwrap();
        let error = reader.verify().await.unwrap_err();
        assert!(
            matches!(
                error,
                StoreError::Missing { .. } | StoreError::OtherHistory { .. }
            ),
            "{error}"
        );
        store.put(&path, good.into()).await.unwrap();
    }
    store.next("get", "0001/", Fate::Denied);
    assert!(matches!(
        reader.restore(reader.latest(), &to).await,
        Err(StoreError::Request { .. } | StoreError::OtherHistory { .. })
    ));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_restore_continues_when_its_files_are_compacted_and_collected() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1, 2, 3]).await.unwrap();
    for n in 0..40 {
        crate::support::append(&mut writer, &[(1, n)], 3).await.unwrap();
    }
    let reader = Reader::open(bucket, ReadOptions::default()).await.unwrap();
    let latest = reader.latest();
    assert_eq!(latest.id, tx(41));
    while writer.keeper().compact(writer.last()).await.unwrap() {}
    clock.pass(2 * RETENTION);
    collect_all(&store, &mut writer).await;
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("db");
    match reader.restore(latest, &to).await {
        Ok(()) => assert!(std::fs::read(&to).unwrap() == [page(39), page(2), page(3)].concat()),
        Err(error) => assert!(matches!(error, StoreError::Gone { .. }), "{error}"),
    }
    let latest = reader.advance().await.unwrap();
    let to = folder.path().join("latest");
    reader.restore(latest, &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == [page(39), page(2), page(3)].concat());
}
