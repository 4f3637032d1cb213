//! Commits, lost answers, rivals, sleepers.

use std::{sync::Arc, time::Duration};

use partial_sync_core::PageCount;
use partial_sync_store::{
    Claim, StoreError, Writer,
    object_store::{ObjectStoreExt, path::Path},
};
use tokio::sync::Semaphore;

use crate::support::{
    Fate, RETENTION, SIZE, TestClock, Troubled, append, begin, collect_all, create, name, no, own, page,
    places, read, restore, tx,
};

async fn take_over(store: &Arc<Troubled>, clock: &Arc<TestClock>, node: u64) -> Result<Writer, StoreError> {
    Writer::take_over(store.bucket(clock), begin(node), Claim::TakeOver).await
}

#[tokio::test]
async fn a_commit_is_one_put_and_the_bucket_is_the_database() {
    for (store, _folder) in places() {
        let clock = TestClock::new();
        let bucket = store.bucket(&clock);
        let mut writer = create(&bucket, 7, &[1, 2, 3]).await.unwrap();
        assert_eq!((writer.last(), writer.commit()), (tx(1), PageCount(3)));
        assert_eq!(restore(&bucket).await, (tx(1), vec![1, 2, 3]));
        store.counts();
        for (n, (changed, commit, after)) in [
            (&[(2, 9)][..], 3, vec![1, 9, 3]),
            (&[(1, 8), (4, 4), (5, 5)], 5, vec![8, 9, 3, 4, 5]),
            (&[(1, 7)], 2, vec![7, 9]),
            (&[], 2, vec![7, 9]),
        ]
        .into_iter()
        .enumerate()
        {
            let id = tx(n as u64 + 2);
            assert_eq!(append(&mut writer, changed, commit).await.unwrap(), id);
            assert_eq!(store.counts().into_iter().collect::<Vec<_>>(), [("put", 1)]);
            assert_eq!((writer.last(), writer.commit()), (id, PageCount(commit)));
            assert_eq!(restore(&bucket).await, (id, after));
            store.counts();
        }
        let (contents, _) = read(&bucket, name(0, 2, 2)).await;
        assert_eq!(contents.header.node, 7);
    }
}

#[tokio::test]
async fn pages_that_cannot_be_a_file_write_nothing_and_take_no_id() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let mut writer = create(&store.bucket(&clock), 7, &[1, 2]).await.unwrap();
    store.counts();
    for (changed, commit) in [(&[(2, 1), (1, 1)][..], 2), (&[(3, 1)], 2), (&[(1, 1)], 0)] {
        let error = append(&mut writer, changed, commit).await.unwrap_err();
        assert!(matches!(error, StoreError::File { .. }), "{error}");
    }
    assert!(store.counts().is_empty());
    assert_eq!(append(&mut writer, &[(1, 5)], 2).await.unwrap(), tx(2));
}

#[tokio::test]
async fn a_place_with_something_in_it_is_not_begun_in() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    bucket
        .create(name(9, 1, 5), "of another program".into())
        .await
        .unwrap();
    let error = create(&bucket, 7, &[1]).await.unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    let error = take_over(&store, &clock, 7).await.unwrap_err();
    assert!(matches!(error, StoreError::NoDatabase { .. }), "{error}");

    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    create(&bucket, 7, &[1]).await.unwrap();
    let error = create(&bucket, 8, &[2]).await.unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    assert_eq!(restore(&bucket).await, (tx(1), vec![1]));
}

#[tokio::test]
async fn a_beginning_that_was_broken_off_is_begun_again_and_the_first_one_loses() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    store.next("put", "0009/", Fate::Denied);
    create(&bucket, 7, &[1]).await.unwrap_err();
    // Another one is slow with its snapshot meanwhile.
    let permits = Arc::new(Semaphore::new(0));
    store.next("put", "0009/", Fate::Held(permits.clone()));
    let slow = tokio::spawn({
        let bucket = bucket.clone();
        async move { create(&bucket, 8, &[2, 2]).await }
    });
    store.until_held().await;
    let mut writer = create(&bucket, 9, &[3]).await.unwrap();
    permits.add_permits(1);
    let error = slow.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    append(&mut writer, &[(1, 4)], 1).await.unwrap();
    assert_eq!(restore(&bucket).await.1, [4]);
    // And the next writer finds that.
    let writer = take_over(&store, &clock, 10).await.unwrap();
    assert_eq!(writer.commit(), PageCount(1));
}

#[tokio::test]
async fn a_snapshot_whose_source_fails_begins_nothing() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let result = Writer::create(
        bucket.clone(),
        begin(7),
        crate::support::SIZE,
        PageCount(2),
        |put| {
            put(crate::support::no(1), &page(1))?;
            Err(StoreError::Source("a read error".into()))
        },
    );
    let error = result.await.unwrap_err();
    assert!(matches!(error, StoreError::Source(_)), "{error}");
    let short = Writer::create(
        bucket.clone(),
        begin(8),
        crate::support::SIZE,
        PageCount(2),
        |put| put(crate::support::no(1), &page(1)),
    );
    let error = short.await.unwrap_err();
    assert!(matches!(error, StoreError::File { .. }), "{error}");
    let error = take_over(&store, &clock, 9).await.unwrap_err();
    assert!(matches!(error, StoreError::NoDatabase { .. }), "{error}");
    for level in 0..=9 {
        let level = partial_sync_store::Level::new(level).unwrap();
        assert_eq!(bucket.list(level, None).await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_settled_as_our_own() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    for (n, fate) in [Fate::AnswerLost, Fate::Denied].into_iter().enumerate() {
        let id = tx(n as u64 + 2);
        store.next("put", "0000/", fate);
        let error = append(&mut writer, &[(1, 5 + n as u8)], 1).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Unsettled { id: found, .. } if found == id),
            "{error}"
        );
        // Nothing else is tried under this id.
        let error = append(&mut writer, &[(1, 99)], 1).await.unwrap_err();
        assert!(
            matches!(error, StoreError::NotSettled { id: found, .. } if found == id),
            "{error}"
        );
        assert_eq!(writer.last(), tx(n as u64 + 1));
        assert_eq!(writer.settle().await.unwrap(), id);
        assert_eq!(writer.settle().await.unwrap(), id);
        assert_eq!(restore(&bucket).await, (id, vec![5 + n as u8]));
    }
}

#[tokio::test]
async fn a_put_that_meets_another_that_comes_to_nothing_is_tried_again() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    store.next("put", "0000/", Fate::Conflict);
    append(&mut writer, &[(1, 2)], 1).await.unwrap();
    for _ in 0..5 {
        store.next("put", "0000/", Fate::Conflict);
    }
    let error = append(&mut writer, &[(1, 3)], 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsettled { .. }), "{error}");
    assert_eq!(writer.settle().await.unwrap(), tx(3));
    // So is a fence.
    store.next("put", "0000/", Fate::Conflict);
    take_over(&store, &clock, 8).await.unwrap();
    assert_eq!(restore(&bucket).await, (tx(4), vec![3]));
}

#[tokio::test]
async fn a_commit_whose_future_was_dropped_stays_pending() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    let permits = Arc::new(Semaphore::new(0));
    store.next("put", "0000/", Fate::Held(permits.clone()));
    assert!(futures_util::FutureExt::now_or_never(append(&mut writer, &[(1, 5)], 1)).is_none());
    let error = append(&mut writer, &[(1, 6)], 1).await.unwrap_err();
    assert!(matches!(error, StoreError::NotSettled { .. }), "{error}");
    assert_eq!(writer.settle().await.unwrap(), tx(2));
    assert_eq!(restore(&bucket).await, (tx(2), vec![5]));
}

#[tokio::test]
async fn a_put_that_arrives_when_it_is_settled_changes_nothing() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    store.next("put", "0000/", Fate::Denied);
    append(&mut writer, &[(1, 5)], 1).await.unwrap_err();
    writer.settle().await.unwrap();
    let (contents, _) = read(&bucket, name(0, 2, 2)).await;
    let late = bucket.range(name(0, 2, 2), 0..contents.len).await.unwrap();
    append(&mut writer, &[(1, 6)], 1).await.unwrap();
    bucket.create(name(0, 2, 2), late).await.unwrap();
    assert_eq!(restore(&bucket).await, (tx(3), vec![6]));
}

#[tokio::test]
async fn a_takeover_ends_the_other_writer_at_its_next_commit() {
    for (store, _folder) in places() {
        let clock = TestClock::new();
        let bucket = store.bucket(&clock);
        let mut old = create(&bucket, 7, &[1, 2]).await.unwrap();
        append(&mut old, &[(1, 5)], 2).await.unwrap();
        let error = Writer::take_over(bucket.clone(), begin(8), own(&[6, 9]))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, StoreError::Foreign { url: Some(url), .. } if url == "https://node7.example")
        );
        assert!(error.to_string().contains("https://node7.example"), "{error}");
        append(&mut old, &[(1, 6)], 2).await.unwrap();

        let mut new = take_over(&store, &clock, 8).await.unwrap();
        assert_eq!((new.last(), new.commit(), new.epoch()), (tx(4), PageCount(2), 2));
        assert_eq!(new.lineage(), old.lineage());
        // Its file would be the fence's, but for who wrote it.
        for changed in [&[][..], &[(1, 7)]] {
            let error = append(&mut old, changed, 2).await.unwrap_err();
            assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
        }
        assert!(matches!(old.settle().await, Err(StoreError::Fenced { .. })));
        append(&mut new, &[(2, 8)], 2).await.unwrap();
        assert_eq!(restore(&bucket).await, (tx(5), vec![6, 8]));
        // Its own log, after a restart.
        let again = Writer::take_over(bucket.clone(), begin(9), own(&[8]))
            .await
            .unwrap();
        assert_eq!((again.last(), again.epoch()), (tx(6), 3));
    }
}

#[tokio::test]
async fn a_commit_that_slips_in_before_the_fence_is_kept() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut old = create(&bucket, 7, &[1, 2]).await.unwrap();
    let permits = Arc::new(Semaphore::new(0));
    store.next("put", "0000/", Fate::Held(permits.clone()));
    let taking = tokio::spawn({
        let (store, clock) = (store.clone(), clock.clone());
        async move { take_over(&store, &clock, 8).await }
    });
    // Its fence is on the way; two of the old writer's commits are faster.
    store.until_held().await;
    let mut fenced = None;
    for n in 0..2 {
        fenced = append(&mut old, &[(3, 30 + n)], 3).await.err().or(fenced);
    }
    assert!(fenced.is_none(), "{fenced:?}");
    permits.add_permits(1);
    let mut new = taking.await.unwrap().unwrap();
    assert_eq!((new.last(), new.commit()), (tx(4), PageCount(3)));
    append(&mut old, &[(1, 7)], 2).await.unwrap_err();
    append(&mut new, &[(1, 9)], 3).await.unwrap();
    assert_eq!(restore(&bucket).await, (tx(5), vec![9, 2, 31]));
}

#[tokio::test]
async fn a_takeover_whose_answers_are_lost_is_one_all_the_same() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut old = create(&bucket, 7, &[1]).await.unwrap();
    store.next("put", "head.json", Fate::AnswerLost);
    let mut new = take_over(&store, &clock, 8).await.unwrap();
    append(&mut old, &[(1, 7)], 1).await.unwrap_err();
    append(&mut new, &[(1, 8)], 1).await.unwrap();
    // The answer to the fence: the next try has another node and another id.
    store.next("put", "0000/", Fate::AnswerLost);
    take_over(&store, &clock, 9).await.unwrap_err();
    let new = Writer::take_over(bucket.clone(), begin(10), own(&[9]))
        .await
        .unwrap();
    assert_eq!(new.last(), tx(5));
    assert_eq!(restore(&bucket).await, (tx(5), vec![8]));
}

#[tokio::test]
async fn a_writer_that_slept_looks_at_the_head_before_it_answers() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    store.counts();
    clock.pass(RETENTION / 4 - Duration::from_secs(1));
    append(&mut writer, &[(1, 2)], 1).await.unwrap();
    assert_eq!(store.counts().into_iter().collect::<Vec<_>>(), [("put", 1)]);
    clock.pass(Duration::from_secs(1));
    append(&mut writer, &[(1, 3)], 1).await.unwrap();
    assert_eq!(
        store.counts().into_iter().collect::<Vec<_>>(),
        [("get", 1), ("put", 1)]
    );
    append(&mut writer, &[(1, 4)], 1).await.unwrap();
    assert_eq!(store.counts().into_iter().collect::<Vec<_>>(), [("put", 1)]);
    // A look that fails leaves the commit unsettled.
    clock.pass(RETENTION);
    store.next("get", "head.json", Fate::Denied);
    let error = append(&mut writer, &[(1, 5)], 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Unsettled { .. }), "{error}");
    assert_eq!(writer.settle().await.unwrap(), tx(5));
    assert_eq!(store.counts().get("put"), Some(&1));
}

#[tokio::test]
async fn a_writer_that_slept_while_another_committed_and_collected_loses_nothing() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut sleeper = create(&bucket, 7, &[1]).await.unwrap();
    let mut new = take_over(&store, &clock, 8).await.unwrap();
    for n in 0..40 {
        append(&mut new, &[(1, 100 + n)], 1).await.unwrap();
    }
    let keeper = new.keeper();
    while keeper.compact(new.last()).await.unwrap() {}
    clock.pass(2 * RETENTION);
    collect_all(&store, &mut new).await;
    assert_eq!(bucket.size(name(0, 2, 2)).await.unwrap(), None);
    // The name that the sleeper writes to is free again.
    let error = append(&mut sleeper, &[(1, 7)], 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    assert_eq!(restore(&bucket).await.1, [139]);
}

#[tokio::test]
async fn a_takeover_that_slept_after_it_raised_the_epoch_is_none() {
    // While it asks for the end of the log, or while its fence is on the way.
    for kind in ["head", "put"] {
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let bucket = store.bucket(&clock);
        create(&bucket, 7, &[1]).await.unwrap();
        let permits = Arc::new(Semaphore::new(0));
        store.next(kind, "0000/", Fate::Held(permits.clone()));
        let sleeper = tokio::spawn({
            let (store, clock) = (store.clone(), clock.clone());
            async move { take_over(&store, &clock, 8).await }
        });
        store.until_held().await;
        let mut new = take_over(&store, &clock, 9).await.unwrap();
        for n in 0..40 {
            append(&mut new, &[(1, 100 + n)], 1).await.unwrap();
        }
        while new.keeper().compact(new.last()).await.unwrap() {}
        collect_all(&store, &mut new).await;
        assert_eq!(bucket.size(name(0, 2, 2)).await.unwrap(), None);
        // It finds a free name where none is the end of the log. No time has passed on its clock.
        permits.add_permits(1);
        let error = sleeper.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Fenced { .. }), "{kind}: {error}");
        append(&mut new, &[(1, 55)], 1).await.unwrap();
        assert_eq!(restore(&bucket).await.1, [55]);
    }
}

#[tokio::test]
async fn the_end_of_a_log_is_found_with_few_requests() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    for commits in [0, 1, 1, 1, 5, 60, 300] {
        for _ in 0..commits {
            append(&mut writer, &[(1, 2)], 1).await.unwrap();
        }
        let last = writer.last();
        store.counts();
        writer = take_over(&store, &clock, last.get() + 100).await.unwrap();
        assert_eq!(writer.last(), last.next().unwrap());
        let counts = store.counts();
        assert!(counts["head"] <= 20, "{counts:?} for {last}");
        assert_eq!(counts.get("list"), None);
    }
}

#[tokio::test]
async fn an_id_that_is_below_the_floor_is_no_commit() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut writer = create(&bucket, 7, &[1]).await.unwrap();
    // As a head that was put there by hand: the writer's own, with a later floor.
    let path = Path::from("some/app/partial-sync/head.json");
    let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
    let later = std::str::from_utf8(&bytes).unwrap().replace(
        "0000000000000001\",\n      \"size",
        "0000000000000009\",\n      \"size",
    );
    let later = later.replace(
        "\"l0_floor\": \"0000000000000001\"",
        "\"l0_floor\": \"0000000000000009\"",
    );
    assert_eq!(later.matches("0000000000000009").count(), 2, "{later}");
    store.put(&path, later.into()).await.unwrap();
    clock.pass(RETENTION);
    let error = append(&mut writer, &[(1, 5)], 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
}

#[tokio::test]
async fn the_end_of_a_log_and_who_wrote_what_is_told() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    assert!(bucket.end().await.unwrap().is_none());
    // A database that had 40 states elsewhere.
    let mut begin = begin(7);
    begin.new.after = Some(tx(40));
    let database = page(1);
    let writer = Writer::create(bucket.clone(), begin, SIZE, PageCount(1), move |put| {
        put(no(1), &database)
    })
    .await;
    let mut writer = writer.unwrap();
    let end = bucket.end().await.unwrap().unwrap();
    assert_eq!((end.last, end.head.begun()), (Some(tx(41)), Some(tx(41))));
    assert_eq!(
        (writer.lineage(), end.head.lineage.as_str()),
        ("0000000000000abc", "0000000000000abc")
    );
    append(&mut writer, &[(1, 5)], 1).await.unwrap();
    append(&mut writer, &[], 1).await.unwrap();
    take_over(&store, &clock, 8).await.unwrap();
    let wrote = async |id| {
        bucket
            .wrote(tx(id))
            .await
            .unwrap()
            .map(|wrote| (wrote.node, wrote.is_fence))
    };
    assert_eq!(wrote(41).await, None);
    assert_eq!(wrote(42).await, Some((7, false)));
    assert_eq!(wrote(43).await, Some((7, true)));
    assert_eq!(wrote(44).await, Some((8, true)));
    assert_eq!(wrote(45).await, None);
    assert_eq!(bucket.end().await.unwrap().unwrap().last, Some(tx(44)));
}
