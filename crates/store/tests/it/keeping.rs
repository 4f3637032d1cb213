//! Compaction and collection: the database stays what it is, for every revision that is kept.

use std::{collections::BTreeMap, sync::Arc};

use partial_sync_core::PageCount;
use partial_sync_ltx::TxId;
use partial_sync_store::{Bucket, Claim, Level, StoreError, Writer};

use crate::support::{
    Fate, RETENTION, TestClock, Troubled, append, begin, collect_all, create, name, own, places, read,
    restore, tx,
};

async fn compact_all(writer: &Writer) {
    while writer.keeper().compact(writer.last()).await.unwrap() {}
}

async fn listed(bucket: &Bucket, level: u8) -> Vec<(u64, u64)> {
    let files = bucket.list(Level::new(level).unwrap(), None).await.unwrap();
    files
        .iter()
        .map(|file| (file.ids.min().get(), file.ids.max().get()))
        .collect()
}

/// Files of one level merged, against the same transactions applied one by one.
#[tokio::test]
async fn a_compaction_holds_the_newest_pages_and_the_zeros_that_a_cut_left() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        let mut writer = create(&bucket, 7, &[1; 40]).await.unwrap();
        let steps: [(&[(u32, u8)], u32); 6] = [
            (&[(2, 20), (38, 21), (40, 22)], 40),
            // Cut, and grown again over what was there: 36 to 39 are zeros now.
            (&[(1, 23)], 35),
            (&[(40, 24)], 40),
            (&[(2, 25)], 40),
            (&[(40, 26), (41, 27)], 41),
            (&[], 40),
        ];
        for (changed, commit) in steps {
            append(&mut writer, changed, commit).await.unwrap();
        }
        for n in 0..10 {
            append(&mut writer, &[(3, 30 + n)], 40).await.unwrap();
        }
        let before = restore(&bucket).await;
        let mut expected = vec![1; 40];
        (expected[0], expected[1], expected[2]) = (23, 25, 39);
        expected[35..39].fill(0);
        expected[39] = 26;
        assert_eq!(before, (tx(17), expected));

        assert!(writer.keeper().compact(writer.last()).await.unwrap());
        assert_eq!(listed(&bucket, 1).await, [(2, 17)]);
        let (contents, pages) = read(&bucket, name(1, 2, 17)).await;
        let numbers: Vec<_> = pages.iter().map(|(page, bytes)| (page.get(), bytes[0])).collect();
        assert_eq!(
            numbers,
            [
                (1, 23),
                (2, 25),
                (3, 39),
                (36, 0),
                (37, 0),
                (38, 0),
                (39, 0),
                (40, 26)
            ]
        );
        assert_eq!((contents.header.commit, contents.header.node), (PageCount(40), 0));
        assert_eq!(restore(&bucket).await, before);
    }
}

#[tokio::test]
async fn a_compaction_follows_from_its_transactions_whatever_it_is_made_of() {
    // The same commits, compacted at other times.
    let mut files = Vec::new();
    for often in [1, 16, 300] {
        let store = Troubled::memory();
        let bucket = store.bucket(&TestClock::new());
        let mut writer = create(&bucket, 7, &[1; 200]).await.unwrap();
        let mut random = fastrand::Rng::with_seed(5);
        for n in 0..16 * 16 {
            let commit = random.u32(100..200);
            let page = random.u32(1..=commit);
            append(&mut writer, &[(page, n as u8)], commit).await.unwrap();
            if n % often == 0 {
                compact_all(&writer).await;
            }
        }
        compact_all(&writer).await;
        // However it came about, it is read to the same.
        files.push(restore(&bucket).await);
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[tokio::test]
async fn any_history_is_restored_to_the_same_while_it_is_compacted_and_collected() {
    for seed in 0..12 {
        println!("seed {seed}");
        let store = Troubled::memory();
        let bucket = store.bucket(&TestClock::new());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut database = vec![1; random.usize(1..30)];
        let mut writer = create(&bucket, 7, &database).await.unwrap();
        let mut node = 7;
        for _ in 0..120 {
            match random.u32(0..20) {
                0 => compact_all(&writer).await,
                1 => {
                    collect_all(&store, &mut writer).await;
                }
                2 => {
                    let own = own(&[node]);
                    node += 1;
                    writer = Writer::take_over(bucket.clone(), begin(node), own).await.unwrap();
                }
                _ => {
                    database.resize(random.usize(1..30), 0);
                    let changed: BTreeMap<u32, u8> = (0..random.u32(0..4))
                        .map(|_| (random.u32(1..=database.len() as u32), random.u8(1..)))
                        .collect();
                    for (page, byte) in &changed {
                        database[*page as usize - 1] = *byte;
                    }
                    let changed: Vec<_> = changed.into_iter().collect();
                    append(&mut writer, &changed, database.len() as u32)
                        .await
                        .unwrap();
                }
            }
            assert_eq!(restore(&bucket).await, (writer.last(), database.clone()));
        }
        compact_all(&writer).await;
        collect_all(&store, &mut writer).await;
        assert_eq!(restore(&bucket).await, (writer.last(), database));
    }
}

#[tokio::test]
async fn what_is_younger_than_the_retention_stays_and_what_is_older_goes() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        let mut writer = create(&bucket, 7, &[1; 9]).await.unwrap();
        for n in 0..20 {
            append(&mut writer, &[(1, n)], 9).await.unwrap();
        }
        compact_all(&writer).await;
        assert_eq!(writer.keeper().collect(writer.last()).await.unwrap(), 0);
        store.age(RETENTION / 2).await;
        for n in 0..20 {
            append(&mut writer, &[(1, 100 + n)], 9).await.unwrap();
        }
        compact_all(&writer).await;
        assert_eq!(writer.keeper().collect(writer.last()).await.unwrap(), 0);
        store
            .age(RETENTION / 2 + std::time::Duration::from_secs(60))
            .await;
        append(&mut writer, &[(1, 200)], 9).await.unwrap();
        // The first half is old now, and its compaction ends where it does.
        assert_eq!(writer.keeper().collect(writer.last()).await.unwrap(), 20);
        assert_eq!(listed(&bucket, 0).await.first(), Some(&(22, 22)));
        assert_eq!(writer.keeper().collect(writer.last()).await.unwrap(), 0);
        assert_eq!(restore(&bucket).await, (tx(42), [&[200][..], &[1; 8]].concat()));
    }
}

#[tokio::test]
async fn a_log_of_many_commits_has_few_files_and_a_small_head() {
    let store = Troubled::memory();
    let bucket = store.bucket(&TestClock::new());
    let mut writer = create(&bucket, 7, &[1; 8]).await.unwrap();
    for n in 0..3000_u32 {
        append(&mut writer, &[(1 + n % 8, n as u8)], 8).await.unwrap();
        if n % 16 == 0 {
            compact_all(&writer).await;
        }
    }
    collect_all(&store, &mut writer).await;
    compact_all(&writer).await;
    collect_all(&store, &mut writer).await;
    let mut files = 0;
    for level in 0..=9 {
        let listed = listed(&bucket, level).await;
        println!("level {level}: {}", listed.len());
        files += listed.len();
    }
    assert!(files < 100, "{files} files");
    assert_eq!(restore(&bucket).await.0, writer.last());
}

#[tokio::test]
async fn a_keeper_whose_writer_was_replaced_changes_nothing() {
    let store = Troubled::memory();
    let clock = TestClock::new();
    let bucket = store.bucket(&clock);
    let mut old = create(&bucket, 7, &[1]).await.unwrap();
    for n in 0..20 {
        append(&mut old, &[(1, n)], 1).await.unwrap();
    }
    // It is at it when the other takes over.
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    store.next("put", "0001/", Fate::Held(permits.clone()));
    let keeper = old.keeper();
    let compacting = tokio::spawn({
        let (keeper, last) = (keeper.clone(), old.last());
        async move { keeper.compact(last).await }
    });
    store.until_held().await;
    let mut new = Writer::take_over(bucket.clone(), begin(8), Claim::TakeOver)
        .await
        .unwrap();
    append(&mut new, &[(1, 77)], 1).await.unwrap();
    permits.add_permits(1);
    let error = compacting.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    store.age(2 * RETENTION).await;
    assert!(matches!(
        keeper.compact(new.last()).await,
        Err(StoreError::Fenced { .. })
    ));
    assert!(matches!(
        keeper.collect(new.last()).await,
        Err(StoreError::Fenced { .. })
    ));
    // The file that it left is in nobody's way, and is what the other makes.
    compact_all(&new).await;
    collect_all(&store, &mut new).await;
    assert_eq!(restore(&bucket).await.1, [77]);
}

#[tokio::test]
async fn a_file_that_the_head_does_not_name_yet_is_not_collected() {
    let store = Troubled::memory();
    let bucket = store.bucket(&TestClock::new());
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    for n in 0..20 {
        append(&mut writer, &[(1, n)], 1).await.unwrap();
    }
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    store.next("put", "head.json", Fate::Held(permits.clone()));
    let (keeper, last) = (writer.keeper(), writer.last());
    let compacting = tokio::spawn(async move { keeper.compact(last).await });
    store.until_held().await;
    assert_eq!(listed(&bucket, 1).await, [(2, 21)]);
    assert_eq!(writer.keeper().collect(last).await.unwrap(), 0);
    permits.add_permits(1);
    assert!(compacting.await.unwrap().unwrap());
    collect_all(&store, &mut writer).await;
    assert_eq!(listed(&bucket, 0).await, [(22, 22)]);
    assert_eq!(restore(&bucket).await, (tx(22), vec![19]));
}

#[tokio::test]
async fn answers_that_are_lost_and_requests_that_fail_leave_a_log_that_can_be_kept_on() {
    for seed in 0..20 {
        println!("seed {seed}");
        let store = Troubled::memory();
        let bucket = store.bucket(&TestClock::new());
        let mut random = fastrand::Rng::with_seed(seed);
        let mut writer = create(&bucket, 7, &[1; 4]).await.unwrap();
        let mut last_byte = 1;
        for n in 0..60_u8 {
            last_byte = n;
            if let Err(error) = append(&mut writer, &[(1, n)], 4).await {
                assert!(matches!(error, StoreError::Unsettled { .. }), "{error}");
                while writer.settle().await.is_err() {}
            }
            let kind = ["put", "get", "head", "list"][random.usize(0..4)];
            let fate = if random.bool() {
                Fate::Denied
            } else {
                Fate::AnswerLost
            };
            store.next(kind, "", fate);
            let last = writer.last();
            match random.u32(0..4) {
                0 => drop(writer.keeper().compact(last).await),
                1 => {
                    store.age(2 * RETENTION).await;
                    drop(writer.keeper().collect(last).await);
                }
                _ => {}
            }
        }
        store.clear();
        while writer.settle().await.is_err() {}
        compact_all(&writer).await;
        collect_all(&store, &mut writer).await;
        assert_eq!(restore(&bucket).await, (writer.last(), vec![last_byte, 1, 1, 1]));
        assert!(writer.last() > TxId::new(60).unwrap());
    }
}
