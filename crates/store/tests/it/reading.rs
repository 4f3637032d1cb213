//! The reader: every state that is kept, while the log is written, compacted, collected and taken over; what it costs; what is damaged.

use std::{collections::BTreeMap, sync::Arc};

use partial_sync_core::PageCount;
use partial_sync_ltx::TxId;
use partial_sync_store::{Bucket, Claim, Found, ReadOptions, Reader, State, StoreError, Writer};
use tokio::sync::Semaphore;

use crate::support::{
    Fate, RETENTION, TestClock, Troubled, append, begin, collect_all, create, no, page, tx,
};

async fn open(bucket: &Bucket) -> Reader {
    Reader::open(bucket.clone(), ReadOptions::default())
        .await
        .unwrap()
}

/// All pages of a state, a byte for each.
async fn database(reader: &Reader, at: State) -> Result<Vec<u8>, StoreError> {
    let all: Vec<_> = at.size.iter().collect();
    let pages = reader.pages(at, &all).await?;
    Ok(pages
        .iter()
        .map(|bytes| {
            assert!(*bytes == page(bytes[0]));
            bytes[0]
        })
        .collect())
}

async fn kept(reader: &Reader, id: TxId) -> Option<State> {
    match reader.state(id).await.unwrap() {
        Found::Kept(state) => Some(state),
        Found::Gone => None,
        Found::Unknown => panic!("{id} is unknown"),
    }
}

/// Holds every state that the reader has, and what changed between them, against what was committed.
async fn check(reader: &Reader, history: &BTreeMap<u64, Vec<u8>>, floor: u64, random: &mut fastrand::Rng) {
    let latest = reader.latest();
    let mut states = Vec::new();
    for (id, expected) in history {
        match kept(reader, tx(*id)).await {
            Some(state) => {
                assert_eq!(state.size, PageCount(expected.len() as u32), "{id}");
                assert_eq!(&database(reader, state).await.unwrap(), expected, "{id}");
                states.push((state, expected));
            }
            None => assert!(*id < floor, "{id} is gone, the floor is {floor}"),
        }
    }
    assert!(states.iter().any(|(state, _)| *state == latest));
    assert_eq!(
        reader.state(tx(latest.id.get() + 1)).await.unwrap(),
        Found::Unknown
    );
    for _ in 0..10 {
        let (since, old) = states[random.usize(0..states.len())];
        let (until, new) = states[random.usize(0..states.len())];
        let changed = reader.changed(since, until).await.unwrap();
        assert_eq!(
            reader.changed_at_once(since, until).unwrap(),
            Some(changed.clone())
        );
        for id in 0..old.len().max(new.len()) {
            if old.get(id) != new.get(id) {
                assert!(changed.contains(id as u32), "{since:?} {until:?} {id}");
            }
        }
        assert!(changed.max() < Some(old.len().max(new.len()) as u32));
    }
}

/// What a log did, in any order.
struct History {
    store: Arc<Troubled>,
    clock: Arc<TestClock>,
    bucket: Bucket,
    writer: Writer,
    node: u64,
    states: BTreeMap<u64, Vec<u8>>,
    /// States before this may be gone.
    floor: u64,
}

impl History {
    async fn begin(random: &mut fastrand::Rng) -> Self {
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let bucket = store.bucket(&clock);
        let database = vec![1; random.usize(1..30)];
        let writer = create(&bucket, 7, &database).await.unwrap();
        Self {
            store,
            clock,
            bucket,
            writer,
            node: 7,
            states: BTreeMap::from([(1, database)]),
            floor: 1,
        }
    }

    fn database(&self) -> Vec<u8> {
        self.states.values().next_back().unwrap().clone()
    }

    async fn commit(&mut self, random: &mut fastrand::Rng) {
        let mut database = self.database();
        database.resize(random.usize(1..30), 0);
        let changed: BTreeMap<u32, u8> = (0..random.u32(0..4))
            .map(|_| (random.u32(1..=database.len() as u32), random.u8(1..)))
            .collect();
        for (page, byte) in &changed {
            database[*page as usize - 1] = *byte;
        }
        let changed: Vec<_> = changed.into_iter().collect();
        let id = append(&mut self.writer, &changed, database.len() as u32)
            .await
            .unwrap();
        self.states.insert(id.get(), database);
    }

    async fn step(&mut self, random: &mut fastrand::Rng) {
        match random.u32(0..24) {
            0 | 1 => while self.writer.keeper().compact(self.writer.last()).await.unwrap() {},
            2 => {
                // As much time passes for all that read and write.
                self.clock.pass(2 * RETENTION);
                collect_all(&self.store, &mut self.writer).await;
                self.floor = self.writer.last().get();
                self.states.insert(self.floor, self.database());
            }
            3 => {
                self.node += 1;
                self.writer = Writer::take_over(self.bucket.clone(), begin(self.node), Claim::TakeOver)
                    .await
                    .unwrap();
                self.states.insert(self.writer.last().get(), self.database());
            }
            _ => self.commit(random).await,
        }
    }
}

#[tokio::test]
async fn a_reader_that_stays_open_and_one_that_comes_new_have_every_state_that_is_kept() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut log = History::begin(&mut random).await;
        let staying = open(&log.bucket).await;
        for step in 0..120 {
            log.step(&mut random).await;
            if random.u32(0..6) == 0 {
                let latest = staying.advance().await.unwrap();
                assert_eq!(latest.id, log.writer.last());
                assert_eq!(database(&staying, latest).await.unwrap(), log.database());
                assert_eq!(staying.epoch(), log.writer.epoch());
            }
            if step % 40 == 39 {
                let fresh = open(&log.bucket).await;
                assert_eq!(fresh.latest().id, log.writer.last());
                assert_eq!(fresh.writer(), Some(format!("https://node{}.example", log.node)));
                check(&fresh, &log.states, log.floor, &mut random).await;
                staying.advance().await.unwrap();
                check(&staying, &log.states, log.floor, &mut random).await;
            }
        }
    }
}

#[tokio::test]
async fn a_cold_page_takes_three_requests_in_sequence_and_idling_one() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut log = History::begin(&mut random).await;
    for _ in 0..40 {
        log.commit(&mut random).await;
    }
    while log.writer.keeper().compact(log.writer.last()).await.unwrap() {}
    for _ in 0..3 {
        log.commit(&mut random).await;
    }
    log.store.counts();
    // Each round of requests takes one time unit.
    let permits = Arc::new(Semaphore::new(0));
    for _ in 0..1000 {
        log.store.next("get", "", Fate::Held(permits.clone()));
    }
    let first = tokio::spawn({
        let bucket = log.bucket.clone();
        async move {
            let reader = open(&bucket).await;
            let pages = reader.pages(reader.latest(), &[no(1)]).await.unwrap();
            (reader, pages)
        }
    });
    let mut rounds = 0;
    while !first.is_finished() {
        // Until nothing but the store's answers can bring it further.
        for _ in 0..2000 {
            tokio::task::yield_now().await;
        }
        let waiting = log.store.held();
        if waiting > 0 {
            rounds += 1;
            permits.add_permits(waiting as usize);
        }
    }
    let (reader, pages) = first.await.unwrap();
    assert_eq!(pages[0], page(log.database()[0]));
    assert!(rounds <= 3, "{rounds} rounds");
    log.store.clear();
    let counts = log.store.counts();
    assert!(
        !counts.contains_key("list") && !counts.contains_key("head"),
        "{counts:?}"
    );
    for _ in 0..5 {
        reader.advance().await.unwrap();
        assert_eq!(log.store.counts().into_iter().collect::<Vec<_>>(), [("get", 1)]);
    }
    log.commit(&mut random).await;
    log.store.counts();
    assert_eq!(reader.advance().await.unwrap().id, log.writer.last());
    let gets = log.store.counts()["get"];
    assert!(gets <= 1 + 24, "{gets}");
}
