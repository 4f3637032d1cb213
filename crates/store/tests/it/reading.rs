//! The reader: every state that is kept, while the log is written, compacted, collected and taken over; what it costs; what is damaged.

use std::{collections::BTreeMap, sync::Arc};

use partial_sync_core::PageCount;
use partial_sync_ltx::TxId;
use partial_sync_store::{
    Bucket, CacheFolder, Claim, Found, ReadOptions, Reader, State, StoreError, Writer,
    object_store::{ObjectStoreExt, path::Path},
};
use tokio::sync::Semaphore;

use crate::support::{
    Fate, RETENTION, SIZE, TestClock, Troubled, append, begin, collect_all, create, no, page, tx,
};

pub(crate) async fn open(bucket: &Bucket) -> Reader {
    Reader::open(bucket.clone(), ReadOptions::default())
        .await
        .unwrap()
}

/// All pages of a state, a byte for each.
pub(crate) async fn database(reader: &Reader, at: State) -> Result<Vec<u8>, StoreError> {
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

pub(crate) async fn kept(reader: &Reader, id: TxId) -> Option<State> {
    match reader.state(id).await.unwrap() {
        Found::Kept(state) => Some(state),
        Found::Gone => None,
        Found::Unknown => panic!("{id} is unknown"),
    }
}

/// Holds every state that the reader has, and what changed between them, against what was committed.
pub(crate) async fn check(
    reader: &Reader,
    history: &BTreeMap<u64, Vec<u8>>,
    floor: u64,
    random: &mut fastrand::Rng,
) {
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
pub(crate) struct History {
    pub(crate) store: Arc<Troubled>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) bucket: Bucket,
    pub(crate) writer: Writer,
    pub(crate) node: u64,
    pub(crate) states: BTreeMap<u64, Vec<u8>>,
    /// States before this may be gone.
    pub(crate) floor: u64,
}

impl History {
    pub(crate) async fn begin(random: &mut fastrand::Rng) -> Self {
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

    pub(crate) fn database(&self) -> Vec<u8> {
        self.states.values().next_back().unwrap().clone()
    }

    pub(crate) async fn commit(&mut self, random: &mut fastrand::Rng) {
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

    pub(crate) async fn step(&mut self, random: &mut fastrand::Rng) {
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

#[tokio::test]
async fn a_reader_that_slept_while_its_names_were_collected_and_written_again_finds_the_log() {
    let (store, clock) = (Troubled::memory(), TestClock::new());
    let bucket = store.bucket(&clock);
    let mut old = create(&bucket, 7, &[1, 2]).await.unwrap();
    append(&mut old, &[(1, 9)], 2).await.unwrap();
    let reader = open(&bucket).await;
    // What the old writer has under way under the next name arrives much later.
    let permits = Arc::new(Semaphore::new(0));
    store.next("put", "0000/0000000000000003", Fate::Held(permits.clone()));
    let late = tokio::spawn(async move { append(&mut old, &[(1, 66)], 2).await });
    store.until_held().await;
    let mut new = Writer::take_over(bucket.clone(), begin(8), Claim::TakeOver)
        .await
        .unwrap();
    for n in 0..40 {
        append(&mut new, &[(2, 100 + n)], 2).await.unwrap();
    }
    while new.keeper().compact(new.last()).await.unwrap() {}
    clock.pass(2 * RETENTION);
    collect_all(&store, &mut new).await;
    permits.add_permits(1);
    late.await.unwrap().unwrap_err();
    let latest = reader.advance().await.unwrap();
    assert_eq!(latest.id, new.last());
    assert_eq!(database(&reader, latest).await.unwrap(), [9, 139]);
    assert_eq!(reader.state(tx(3)).await.unwrap(), Found::Gone);
}

#[tokio::test]
async fn what_is_compacted_and_collected_between_two_requests_is_read_or_gone() {
    for seed in 0..40 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut log = History::begin(&mut random).await;
        for _ in 0..random.usize(20..60) {
            log.commit(&mut random).await;
        }
        let reader = open(&log.bucket).await;
        let id = random.u64(1..=log.writer.last().get());
        let state = kept(&reader, tx(id)).await;
        // A reader with nothing in memory, at the nth request.
        let small = ReadOptions {
            memory: 0,
            ..ReadOptions::default()
        };
        for _ in 0..random.usize(0..30) {
            log.store.next("get", "", Fate::Done);
        }
        let permits = Arc::new(Semaphore::new(0));
        log.store.next("get", "", Fate::Held(permits.clone()));
        let reading = tokio::spawn({
            let bucket = log.bucket.clone();
            async move {
                let cold = Reader::open(bucket, small).await?;
                let latest = cold.latest();
                let pages = database(&cold, latest).await?;
                let old = match cold.state(tx(id)).await? {
                    Found::Kept(state) => Some((state, database(&cold, state).await)),
                    _ => None,
                };
                Ok::<_, StoreError>((latest, pages, old))
            }
        });
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let before = log.states.len();
        while log.writer.keeper().compact(log.writer.last()).await.unwrap() {}
        log.clock.pass(2 * RETENTION);
        collect_all(&log.store, &mut log.writer).await;
        log.states.insert(log.writer.last().get(), log.database());
        permits.add_permits(1000);
        let (latest, pages, old) = match reading.await.unwrap() {
            Ok(read) => read,
            // The latest state that it had found was collected: that is said.
            Err(StoreError::Gone { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(pages, log.states[&latest.id.get()]);
        if let Some((state, pages)) = old {
            match pages {
                Ok(pages) => assert_eq!(pages, log.states[&state.id.get()]),
                Err(error) => assert!(matches!(error, StoreError::Gone { .. }), "{error}"),
            }
        }
        assert!(log.states.len() > before);
        // The other one goes through the same with what it has in memory.
        if let Some(state) = state {
            match database(&reader, state).await {
                Ok(pages) => assert_eq!(pages, log.states[&id]),
                Err(error) => assert!(matches!(error, StoreError::Gone { .. }), "{error}"),
            }
        }
        assert_eq!(reader.advance().await.unwrap().id, log.writer.last());
    }
}

/// A log whose snapshot has several blocks: pages that do not compress.
async fn large(store: &Arc<Troubled>, pages: u32) -> (Bucket, Writer, Vec<Vec<u8>>) {
    let bucket = store.bucket(&TestClock::new());
    let mut random = fastrand::Rng::with_seed(1);
    let database: Vec<Vec<u8>> = (0..pages)
        .map(|_| (0..SIZE.bytes()).map(|_| random.u8(..)).collect())
        .collect();
    let commit = PageCount(pages);
    let source = database.clone();
    let writer = Writer::create(bucket.clone(), begin(7), SIZE, commit, move |put| {
        (1..).zip(&source).try_for_each(|(n, page)| put(no(n), page))
    });
    (bucket.clone(), writer.await.unwrap(), database)
}

#[tokio::test]
async fn a_scan_reads_each_block_once_also_where_many_ask_at_once() {
    let store = Troubled::memory();
    let (bucket, _writer, expected) = large(&store, 700).await;
    let size: usize = expected.iter().map(Vec::len).sum();
    let all: Vec<_> = PageCount(700).iter().collect();
    for at_once in [false, true] {
        let reader = open(&bucket).await;
        store.counts();
        store.bytes();
        let read = |pages: Vec<_>| {
            let reader = reader.clone();
            async move { reader.pages(reader.latest(), &pages).await.unwrap() }
        };
        let runs: Vec<Vec<_>> = all.chunks(37).map(<[_]>::to_vec).collect();
        let mut pages = Vec::new();
        match at_once {
            true => pages.extend(futures_util::future::join_all(runs.into_iter().map(read)).await),
            false => {
                for run in runs {
                    pages.push(read(run).await);
                }
            }
        }
        assert!(pages.concat() == expected);
        let (bytes, gets) = (store.bytes(), store.counts()["get"]);
        assert!(bytes as f64 <= 1.05 * size as f64, "{bytes} of {size}");
        assert!(gets <= size.div_ceil(256 << 10) + 1, "{gets} requests");
    }
}

#[tokio::test]
async fn a_reader_whose_callers_give_up_and_whose_requests_fail_is_as_good_as_before() {
    let store = Troubled::memory();
    let (bucket, _writer, expected) = large(&store, 300).await;
    let reader = open(&bucket).await;
    let latest = reader.latest();
    let permits = Arc::new(Semaphore::new(0));
    store.next("get", "0009/", Fate::Held(permits.clone()));
    let read = |n: u32| {
        let reader = reader.clone();
        tokio::spawn(async move { reader.pages(latest, &[no(n)]).await })
    };
    // Two wait for the same block, and the one who asked gives up.
    let first = read(1);
    store.until_held().await;
    let second = read(2);
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.is_err());
    permits.add_permits(1);
    assert_eq!(second.await.unwrap().unwrap()[0], expected[1]);
    // All give up: the next one asks again.
    store.next("get", "0009/", Fate::Held(Arc::new(Semaphore::new(0))));
    let third = read(150);
    store.until_held().await;
    third.abort();
    assert!(third.await.is_err());
    assert_eq!(read(150).await.unwrap().unwrap()[0], expected[149]);
    // An error is for those who waited for it.
    store.next("get", "0009/", Fate::Denied);
    let error = read(299).await.unwrap().unwrap_err();
    assert!(matches!(error.root(), StoreError::Request { .. }), "{error}");
    assert_eq!(read(299).await.unwrap().unwrap()[0], expected[298]);
}

/// Every byte of every file of a small log, changed: what is read is what was written, or an error. Of files that are not read whole the
/// checksum is not compared, so there only what frames and indexes say of themselves is found.
#[tokio::test]
async fn a_damaged_byte_is_an_error_wherever_a_file_is_read_whole() {
    let store = Troubled::memory();
    let bucket = store.bucket(&TestClock::new());
    let mut writer = create(&bucket, 7, &[5; 40]).await.unwrap();
    for n in 0..20 {
        append(&mut writer, &[(1 + n % 3, n as u8)], 40).await.unwrap();
    }
    while writer.keeper().compact(writer.last()).await.unwrap() {}
    append(&mut writer, &[(3, 77)], 40).await.unwrap();
    let mut expected = vec![page(5); 40];
    expected[..3].clone_from_slice(&[page(18), page(19), page(77)]);
    let mut paths = Vec::new();
    for file in [
        "0000/0000000000000016-0000000000000016",
        "0001/0000000000000002-0000000000000015",
        "0009/0000000000000001-0000000000000001",
    ] {
        paths.push(Path::from(format!("some/app/{file}.ltx")));
    }
    for path in paths {
        let good = store.get(&path).await.unwrap().bytes().await.unwrap();
        let whole = !path.as_ref().contains("/0009/");
        let mut found = 0;
        for at in 0..good.len() {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1 << (at % 8);
            store.put(&path, bytes.into()).await.unwrap();
            let read = async {
                let reader = Reader::open(bucket.clone(), ReadOptions::default()).await?;
                database_of(&reader, reader.latest()).await
            };
            match read.await {
                Ok(pages) => assert!(!whole || pages == expected, "{path} {at}"),
                Err(error) => {
                    found += 1;
                    assert!(
                        matches!(error.root(), StoreError::File { .. }),
                        "{path} {at}: {error}"
                    );
                }
            }
        }
        println!("{path}: {found} of {}", good.len());
        // LZ4 has several forms of the same page.
        let least = if whole { good.len() - 8 } else { good.len() / 3 };
        assert!(found >= least, "{path}: {found} of {}", good.len());
        store.put(&path, good.into()).await.unwrap();
    }
}

async fn database_of(reader: &Reader, at: State) -> Result<Vec<bytes::Bytes>, StoreError> {
    reader.pages(at, &at.size.iter().collect::<Vec<_>>()).await
}

#[tokio::test]
async fn a_bucket_that_went_back_or_is_another_database_ends_the_reader() {
    for other in ["lineage", "epoch", "commit"] {
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let bucket = store.bucket(&clock);
        let mut writer = create(&bucket, 7, &[1]).await.unwrap();
        writer = {
            append(&mut writer, &[(1, 2)], 1).await.unwrap();
            Writer::take_over(bucket.clone(), begin(8), Claim::TakeOver)
                .await
                .unwrap()
        };
        append(&mut writer, &[(1, 3)], 1).await.unwrap();
        let reader = open(&bucket).await;
        let state = reader.latest();
        let head = Path::from("some/app/partial-sync/head.json");
        let text = store.get(&head).await.unwrap().bytes().await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        match other {
            "lineage" => {
                let text = text.replace(reader.lineage(), "another");
                store.put(&head, text.into()).await.unwrap();
            }
            "epoch" => {
                let text = text.replace("\"epoch\": 2", "\"epoch\": 1");
                store.put(&head, text.into()).await.unwrap();
            }
            _ => {
                let last = format!("some/app/0000/{0}-{0}.ltx", writer.last());
                store.delete(&Path::from(last)).await.unwrap();
            }
        }
        // It is found out when the head is read the next time.
        clock.pass(RETENTION);
        let error = reader.advance().await.unwrap_err();
        assert!(matches!(error, StoreError::OtherHistory { .. }), "{error}");
        let error = reader.pages(state, &[no(1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::OtherHistory { .. }), "{error}");
        assert!(reader.check_open().is_err() && reader.state(state.id).await.is_err());
        assert!(reader.changed(state, state).await.is_err());
    }
}

/// Every file in a folder.
fn files_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_in(&path)),
            false => files.push(path),
        }
    }
    files
}

#[tokio::test]
async fn blocks_in_a_folder_are_there_after_a_restart_and_damaged_ones_are_asked_for_again() {
    let store = Troubled::memory();
    let (bucket, _writer, expected) = large(&store, 300).await;
    let folder = tempfile::tempdir().unwrap();
    let options = |bytes| ReadOptions {
        folder: Some(CacheFolder {
            path: folder.path().join("cache"),
            bytes,
        }),
        ..ReadOptions::default()
    };
    let read = |bytes| {
        let (store, bucket, options) = (&store, bucket.clone(), options(bytes));
        async move {
            let reader = Reader::open(bucket, options).await.unwrap();
            store.bytes();
            let pages = database_of(&reader, reader.latest()).await.unwrap();
            (pages, store.bytes())
        }
    };
    let all = 300 * SIZE.bytes() as u64;
    let (pages, bytes) = read(10 * all).await;
    assert!(pages == expected && bytes >= all);
    let (pages, bytes) = read(10 * all).await;
    assert!(pages == expected);
    assert_eq!(bytes, 0);
    let blocks = files_in(folder.path());
    assert_eq!(blocks.len() as u64, all.div_ceil(256 << 10));
    // Cut off, changed, longer, and another one in its place.
    let good: Vec<_> = blocks.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut changed = good[1].clone();
    changed[77] ^= 1;
    std::fs::write(&blocks[0], &good[0][..1000]).unwrap();
    std::fs::write(&blocks[1], changed).unwrap();
    std::fs::write(&blocks[2], [&good[2][..], &[0]].concat()).unwrap();
    std::fs::write(&blocks[3], &good[4]).unwrap();
    let (pages, bytes) = read(10 * all).await;
    assert!(pages == expected && bytes > 0);
    let now: Vec<_> = blocks.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(now == good);
    // It has a limit.
    let (pages, _) = read(all / 2).await;
    assert!(pages == expected);
    std::fs::remove_file(&files_in(folder.path())[0]).unwrap();
    let (pages, _) = read(all / 2).await;
    assert!(pages == expected);
    let there: u64 = files_in(folder.path())
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(there <= all / 2, "{there} of {all}");
    // One that cannot be written to only makes requests.
    std::fs::remove_dir_all(folder.path()).unwrap();
    std::fs::write(folder.path(), "a file").unwrap();
    let (pages, bytes) = read(10 * all).await;
    assert!(pages == expected && bytes >= all);
}

#[tokio::test]
async fn a_reader_keeps_no_more_in_memory_than_it_may() {
    let store = Troubled::memory();
    let (bucket, mut writer, mut expected) = large(&store, 700).await;
    let options = ReadOptions {
        memory: 600 << 10,
        ..ReadOptions::default()
    };
    let limit = 2 * options.memory;
    let reader = Reader::open(bucket, options).await.unwrap();
    for n in 0..200_u32 {
        let at = (n * 7 % 700) as usize;
        expected[at].rotate_left(1);
        let changed = [Ok((no(at as u32 + 1), &expected[at]))];
        writer
            .append(changed, PageCount(700), i64::from(n))
            .await
            .unwrap();
        reader.advance().await.unwrap();
        assert!(reader.memory() <= limit, "{} bytes", reader.memory());
    }
    // Each 20 pages by a request of its own, in another order.
    for n in 0..35 {
        let all = PageCount(700).iter();
        let some: Vec<_> = all.filter(|page| page.get() % 35 == n).collect();
        let pages = reader.pages(reader.latest(), &some).await.unwrap();
        for (page, bytes) in some.iter().zip(pages) {
            assert_eq!(bytes, expected[page.id().0 as usize]);
        }
        assert!(reader.memory() <= limit, "{} bytes", reader.memory());
    }
}

/// Two that make the same compaction may compress it differently, and the later one takes the place of the other.
#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_not_mixed_with_the_one_before() {
    let (store, other) = (Troubled::memory(), Troubled::memory());
    let (bucket, _writer, before) = large(&store, 300).await;
    let mut after = before.clone();
    // Shorter frames, so that all that follow are elsewhere.
    for (n, page) in after.iter_mut().enumerate() {
        page[..n * 3].fill(0);
    }
    let source = after.clone();
    let create = Writer::create(
        other.bucket(&TestClock::new()),
        begin(7),
        SIZE,
        PageCount(300),
        move |put| (1..).zip(&source).try_for_each(|(n, page)| put(no(n), page)),
    );
    create.await.unwrap();
    let path = Path::from("some/app/0009/0000000000000001-0000000000000001.ltx");
    let replacement = other.get(&path).await.unwrap().bytes().await.unwrap();
    let reader = open(&bucket).await;
    let latest = reader.latest();
    assert_eq!(reader.pages(latest, &[no(1)]).await.unwrap()[0], before[0]);
    store.put(&path, replacement.into()).await.unwrap();
    let pages = database_of(&reader, latest).await.unwrap();
    assert!(pages == after);
}
