//! Buckets without a head, as Litestream writes them. What its own program writes is in `foreign.rs`.

use std::time::Duration;

use partial_sync_store::{
    Found, ReadOptions, Reader, StoreError,
    object_store::{ObjectStoreExt, path::Path},
};

use crate::{
    reading::{History, database},
    support::tx,
};

/// How long a listing is good for.
const LISTED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_bucket_without_a_head_has_the_states_at_which_its_files_end() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut log = History::begin(&mut random).await;
        let headless = log.store.headless();
        let bucket = headless.bucket(&log.clock);
        let open = || Reader::open(bucket.clone(), ReadOptions::default());
        let staying = open().await.unwrap();
        let mut most = 0;
        for step in 0..100 {
            log.step(&mut random).await;
            if random.u32(0..8) == 0 {
                log.clock.pass(LISTED);
                let latest = staying.advance().await.unwrap();
                assert_eq!(latest.id, log.writer.last());
                assert_eq!(database(&staying, latest).await.unwrap(), log.database());
            }
            if step % 33 == 32 {
                let fresh = open().await.unwrap();
                assert_eq!(fresh.latest().id, log.writer.last());
                assert_eq!((fresh.epoch(), fresh.writer()), (0, None));
                let mut kept = Vec::new();
                for (id, expected) in &log.states {
                    if let Found::Kept(state) = fresh.state(tx(*id)).await.unwrap() {
                        assert_eq!(&database(&fresh, state).await.unwrap(), expected, "{id}");
                        kept.push((state, expected));
                    } else {
                        assert!(*id < log.floor, "{id}");
                    }
                }
                for _ in 0..20 {
                    let (since, old) = kept[random.usize(0..kept.len())];
                    let (until, new) = kept[random.usize(0..kept.len())];
                    let changed = fresh.changed(since, until).await.unwrap();
                    for id in 0..old.len().max(new.len()) {
                        assert!(old.get(id) == new.get(id) || changed.contains(id as u32));
                    }
                }
                most = most.max(kept.len());
                fresh.verify().await.unwrap();
            }
        }
        assert!(most > 5);
        // Between listings it asks for the next name only.
        staying.advance().await.unwrap();
        headless.counts();
        for _ in 0..5 {
            staying.advance().await.unwrap();
            assert_eq!(headless.counts().into_iter().collect::<Vec<_>>(), [("get", 1)]);
        }
        log.commit(&mut random).await;
        assert_eq!(staying.advance().await.unwrap().id, log.writer.last());
        assert!(!headless.counts().contains_key("list"));
        // It goes back.
        let last = format!("some/app/0000/{0}-{0}.ltx", log.writer.last());
        log.store.delete(&Path::from(last)).await.unwrap();
        log.clock.pass(LISTED);
        let error = staying.advance().await.unwrap_err();
        assert!(matches!(error, StoreError::OtherHistory { .. }), "{error}");
    }
}

#[tokio::test]
async fn the_lineage_of_such_a_bucket_stays_while_its_oldest_snapshot_does() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut log = History::begin(&mut random).await;
    let bucket = log.store.headless().bucket(&log.clock);
    let open = || Reader::open(bucket.clone(), ReadOptions::default());
    let first = open().await.unwrap().lineage().to_owned();
    for _ in 0..20 {
        log.commit(&mut random).await;
    }
    assert_eq!(open().await.unwrap().lineage(), first);
    assert_ne!(
        Reader::open(log.bucket.clone(), ReadOptions::default())
            .await
            .unwrap()
            .lineage(),
        first
    );
    // Another database in its place.
    let other = History::begin(&mut fastrand::Rng::with_seed(6)).await;
    let oldest = Path::from("some/app/0009/0000000000000001-0000000000000001.ltx");
    let bytes = other.store.get(&oldest).await.unwrap().bytes().await.unwrap();
    log.store.put(&oldest, bytes.into()).await.unwrap();
    assert!(open().await.map_or(true, |reader| reader.lineage() != first));
}

#[tokio::test]
async fn a_place_with_nothing_in_it_has_no_database() {
    let log = History::begin(&mut fastrand::Rng::with_seed(7)).await;
    let empty = crate::support::Troubled::memory();
    for store in [empty.clone(), empty.headless()] {
        let error = Reader::open(store.bucket(&log.clock), ReadOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::NoDatabase { .. }), "{error}");
    }
}
