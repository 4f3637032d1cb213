//! Branches: each has the states that it should, no matter what its parent, its own parent's parent and itself go through, and who dies meanwhile.

use std::sync::Arc;

use futures_util::TryStreamExt;
use partial_sync_store::{
    Bucket, Claim, Found, Level, ReadOptions, Reader, Standing, State, StoreError, Writer,
    object_store::{ObjectStore, ObjectStoreExt},
};
use tokio::sync::Semaphore;

use crate::{
    reading::{History, check, database, open},
    support::{Fate, RETENTION, TestClock, Troubled, append, begin, collect_all, create, restore, tx},
};

/// A log with a branch that nobody writes to yet.
struct Family {
    store: Arc<Troubled>,
    clock: Arc<TestClock>,
    writer: Writer,
    parent: Bucket,
    branch: Bucket,
}

impl Family {
    /// A log of some commits, of which some are compacted.
    async fn new(size: usize, commits: u8) -> Self {
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let parent = store.place("parent", &clock);
        let branch = store.place("branch", &clock);
        let mut writer = create(&parent, 7, &vec![1; size]).await.unwrap();
        for n in 0..commits {
            append(&mut writer, &[(1, n)], size as u32).await.unwrap();
            compact_all(&writer).await;
        }
        Self {
            store,
            clock,
            writer,
            parent,
            branch,
        }
    }
}

async fn compact_all(writer: &Writer) {
    while writer.keeper().compact(writer.last()).await.unwrap() {}
}

async fn state(reader: &Reader, id: u64) -> State {
    match reader.state(tx(id)).await.unwrap() {
        Found::Kept(state) => state,
        other => panic!("{other:?}"),
    }
}

/// Makes a branch of the latest state.
async fn branch(from: &Bucket, to: &Bucket) -> Result<u64, StoreError> {
    let reader = Reader::open(from.clone(), ReadOptions::default()).await?;
    let branched = reader.branch(reader.latest(), true, to).await?;
    Ok(branched.id.get())
}

async fn write(bucket: &Bucket, node: u64) -> Writer {
    Writer::take_over(bucket.clone(), begin(node), Claim::TakeOver)
        .await
        .unwrap()
}

/// How many files of the log are in a place.
async fn files(bucket: &Bucket) -> usize {
    let mut files = 0;
    for level in (0..=9).filter_map(Level::new) {
        files += bucket.list(level, None).await.unwrap().len();
    }
    files
}

async fn latest(bucket: &Bucket) -> (u64, Vec<u8>) {
    let reader = open(bucket).await;
    let at = reader.latest();
    (at.id.get(), database(&reader, at).await.unwrap())
}

#[tokio::test]
async fn any_branches_of_branches_have_their_states_while_all_are_written_collected_and_detached() {
    let (mut branched, mut detached, mut cut_off) = (0, 0, 0);
    for seed in 0..20 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut logs = vec![History::begin(&mut random).await];
        let mut staying = vec![open(&logs[0].bucket).await];
        for step in 0..240 {
            let at = random.usize(0..logs.len());
            let (store, clock) = (logs[at].store.clone(), logs[at].clock.clone());
            match random.u32(0..24) {
                0 if logs.len() < 6 => {
                    let from = open(&logs[at].bucket).await;
                    let ids: Vec<_> = from.kept().collect();
                    let id = ids[random.usize(0..ids.len())].get();
                    let at_id = state(&from, id).await;
                    let to = store.place(&format!("some/branch{}", logs.len()), &clock);
                    // Who begins may die; the next one makes it.
                    for _ in 0..random.usize(0..3) {
                        store.die_after(Some(random.usize(0..20)));
                        cut_off += usize::from(from.branch(at_id, false, &to).await.is_err());
                        store.die_after(None);
                    }
                    let made = from.branch(at_id, false, &to).await.unwrap();
                    assert_eq!(made.id.get(), id);
                    assert_eq!(files(&to).await, 0, "a page was copied");
                    let states = logs[at]
                        .states
                        .range(..=id)
                        .map(|(id, bytes)| (*id, bytes.clone()));
                    let mut states: std::collections::BTreeMap<_, _> = states.collect();
                    assert_eq!(latest(&to).await, (id, states[&id].clone()));
                    staying.push(open(&to).await);
                    let writer = write(&to, 7).await;
                    let database = states[&id].clone();
                    states.insert(writer.last().get(), database);
                    logs.push(History {
                        store,
                        clock,
                        bucket: to,
                        writer,
                        node: 7,
                        states,
                        floor: id,
                    });
                    branched += 1;
                }
                1 => {
                    for _ in 0..random.usize(0..3) {
                        store.die_after(Some(random.usize(0..20)));
                        cut_off += usize::from(logs[at].bucket.detach().await.is_err());
                        store.die_after(None);
                    }
                    logs[at].bucket.detach().await.unwrap();
                    assert!(!logs[at].bucket.detach().await.unwrap());
                    // From now on it is restored without its parents.
                    assert_eq!(
                        restore(&logs[at].bucket).await,
                        (logs[at].writer.last(), logs[at].database())
                    );
                    for log in &logs {
                        log.bucket.prune().await.unwrap();
                    }
                    detached += 1;
                }
                _ => logs[at].step(&mut random).await,
            }
            if random.u32(0..8) == 0 {
                let at = random.usize(0..logs.len());
                let latest = staying[at].advance().await.unwrap();
                assert_eq!(latest.id, logs[at].writer.last());
                assert_eq!(database(&staying[at], latest).await.unwrap(), logs[at].database());
            }
            if step % 60 == 59 {
                for (log, staying) in logs.iter().zip(&staying) {
                    let fresh = open(&log.bucket).await;
                    check(&fresh, &log.states, log.floor, &mut random).await;
                    for id in fresh.kept() {
                        let at = state(&fresh, id.get()).await;
                        assert_eq!(database(&fresh, at).await.unwrap(), log.states[&id.get()], "{id}");
                    }
                    fresh.verify().await.unwrap();
                    staying.advance().await.unwrap();
                    check(staying, &log.states, log.floor, &mut random).await;
                }
            }
        }
    }
    println!("{branched} branches, {detached} detached, {cut_off} times cut off");
    assert!(branched > 40 && detached > 40 && cut_off > 40);
}

#[tokio::test]
async fn a_branch_takes_as_many_requests_whatever_the_size_of_the_database() {
    let mut costs = Vec::new();
    for size in [4, 3000] {
        let family = Family::new(size, 40).await;
        let reader = open(&family.parent).await;
        family.store.counts();
        family.store.bytes();
        reader
            .branch(reader.latest(), false, &family.branch)
            .await
            .unwrap();
        let counts = family.store.counts();
        println!("{size} pages: {counts:?}");
        assert!(family.store.bytes() < 32 << 10);
        assert_eq!(files(&family.branch).await, 0);
        costs.push(counts);
    }
    assert_eq!(costs[0], costs[1]);
    assert!(costs[0].values().sum::<usize>() < 30);
}

#[tokio::test]
async fn what_a_branch_reads_stays_through_compactions_and_collections_and_goes_when_it_is_detached() {
    let mut family = Family::new(9, 37).await;
    let id = branch(&family.parent, &family.branch).await.unwrap();
    let expected = (id, vec![36, 1, 1, 1, 1, 1, 1, 1, 1]);
    for _ in 0..4 {
        for n in 0..200 {
            append(&mut family.writer, &[(u32::from(n % 9) + 1, n)], 9)
                .await
                .unwrap();
            compact_all(&family.writer).await;
        }
        family.clock.pass(2 * RETENTION);
        collect_all(&family.store, &mut family.writer).await;
        assert_eq!(latest(&family.branch).await, expected);
    }
    // The parent has that state for the branch only.
    assert_eq!(
        open(&family.parent).await.state(tx(id)).await.unwrap(),
        Found::Gone
    );
    let with_pins = files(&family.parent).await;
    assert!(family.branch.detach().await.unwrap());
    collect_all(&family.store, &mut family.writer).await;
    let without = files(&family.parent).await;
    assert!(without + 4 < with_pins, "{without} files, and {with_pins} before");
    assert_eq!(latest(&family.branch).await, expected);
    assert_eq!(family.parent.branches().await.unwrap(), []);
}

#[tokio::test]
async fn a_branch_that_is_cut_off_at_any_request_is_made_by_the_next_one_and_leaves_no_pin() {
    for after in 0.. {
        let family = Family::new(5, 20).await;
        let reader = open(&family.parent).await;
        family.store.die_after(Some(after));
        let made = reader.branch(reader.latest(), true, &family.branch).await;
        family.store.die_after(None);
        let all_were_answered = made.is_ok();
        let mut writer = family.writer;
        append(&mut writer, &[(1, 200)], 5).await.unwrap();
        let id = branch(&family.parent, &family.branch).await.unwrap();
        assert!([21, 22].contains(&id));
        assert_eq!(latest(&family.branch).await.0, id);
        let branches = family.parent.branches().await.unwrap();
        let there: Vec<_> = branches.iter().map(|branch| branch.standing.clone()).collect();
        assert_eq!(there, [Standing::Reads], "after {after} requests");
        assert_eq!(family.parent.prune().await.unwrap(), 0);
        if all_were_answered {
            println!("{after} requests");
            assert!(after > 10);
            return;
        }
    }
}

#[tokio::test]
async fn a_detach_that_is_cut_off_at_any_request_is_done_by_the_next_one() {
    for after in 0.. {
        let family = Family::new(5, 20).await;
        let id = branch(&family.parent, &family.branch).await.unwrap();
        family.store.die_after(Some(after));
        let done = family.branch.detach().await;
        family.store.die_after(None);
        assert_eq!(latest(&family.branch).await, (id, vec![19, 1, 1, 1, 1]));
        family.branch.detach().await.unwrap();
        family.parent.prune().await.unwrap();
        assert_eq!(family.parent.branches().await.unwrap(), []);
        assert_eq!(restore(&family.branch).await, (tx(id), vec![19, 1, 1, 1, 1]));
        if done.is_ok() {
            assert!(after > 5);
            return;
        }
    }
}

#[tokio::test]
async fn one_who_slept_in_the_middle_of_a_branch_does_not_take_the_place_of_another() {
    let mut family = Family::new(5, 20).await;
    // Its head is there, and its pin is on its way.
    let permits = Arc::new(Semaphore::new(0));
    family
        .store
        .next("put", "parent/partial-sync/head", Fate::Held(permits.clone()));
    let sleeper = tokio::spawn({
        let (parent, to) = (family.parent.clone(), family.branch.clone());
        async move { branch(&parent, &to).await }
    });
    family.store.until_held().await;
    append(&mut family.writer, &[(1, 90)], 5).await.unwrap();
    assert_eq!(family.parent.prune().await.unwrap(), 0);
    let id = branch(&family.parent, &family.branch).await.unwrap();
    permits.add_permits(1);
    let error = sleeper.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty { .. }), "{error}");
    assert_eq!(latest(&family.branch).await, (id, vec![90, 1, 1, 1, 1]));
    // What it left keeps nothing for long.
    assert_eq!(family.parent.branches().await.unwrap().len(), 2);
    assert_eq!(family.parent.prune().await.unwrap(), 1);
    assert_eq!(family.parent.branches().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_pin_of_a_branch_that_is_being_made_stays_and_one_whose_branch_is_gone_can_go() {
    let family = Family::new(5, 20).await;
    let standing = || async {
        let branches = family.parent.branches().await.unwrap();
        branches[0].standing.clone()
    };
    let (store, reader) = (&family.store, open(&family.parent).await);
    // Everything but the last step.
    store.next("put", "branch/partial-sync/head", Fate::Done);
    store.next("put", "branch/partial-sync/head", Fate::Denied);
    reader
        .branch(reader.latest(), true, &family.branch)
        .await
        .unwrap_err();
    assert_eq!(standing().await, Standing::Begun);
    assert_eq!(family.parent.prune().await.unwrap(), 0);
    assert!(matches!(
        Reader::open(family.branch.clone(), ReadOptions::default()).await,
        Err(StoreError::NoDatabase { .. })
    ));
    branch(&family.parent, &family.branch).await.unwrap();
    assert_eq!(standing().await, Standing::Reads);
    let head = "branch/partial-sync/head.json".into();
    store.delete(&head).await.unwrap();
    assert_eq!(standing().await, Standing::Gone);
    assert_eq!(family.parent.prune().await.unwrap(), 1);
    assert_eq!(family.parent.branches().await.unwrap(), []);
}

#[tokio::test]
async fn a_branch_is_detached_while_its_server_writes_compacts_and_collects() {
    for seed in 0..30 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let family = Family::new(6, 30).await;
        branch(&family.parent, &family.branch).await.unwrap();
        let mut writer = write(&family.branch, 8).await;
        let staying = open(&family.branch).await;
        let kinds = [("put", "branch/0009/"), ("put", "branch/partial-sync/head")];
        let (kind, part) = kinds[random.usize(0..2)];
        let permits = Arc::new(Semaphore::new(0));
        let mut expected = vec![29, 1, 1, 1, 1, 1];
        let early = random.usize(0..100);
        let mut detaching = None;
        for n in 0..100_u8 {
            if usize::from(n) == early {
                family.store.next(kind, part, Fate::Held(permits.clone()));
                let bucket = family.branch.clone();
                let task = tokio::spawn(async move { bucket.detach().await });
                // One that finds a snapshot there already makes none.
                while family.store.held() == 0 && !task.is_finished() {
                    tokio::task::yield_now().await;
                }
                family.store.clear();
                detaching = Some(task);
            }
            let at = random.u32(1..=6);
            expected[at as usize - 1] = n;
            append(&mut writer, &[(at, n)], 6).await.unwrap();
            if random.u32(0..4) == 0 {
                compact_all(&writer).await;
            }
            if random.u32(0..12) == 0 {
                family.clock.pass(2 * RETENTION);
                collect_all(&family.store, &mut writer).await;
            }
        }
        permits.add_permits(10);
        assert!(detaching.unwrap().await.unwrap().unwrap());
        collect_all(&family.store, &mut writer).await;
        assert_eq!(restore(&family.branch).await, (writer.last(), expected.clone()));
        let now = (writer.last().get(), expected.clone());
        assert_eq!(latest(&family.branch).await, now);
        let at = staying.advance().await.unwrap();
        assert_eq!(database(&staying, at).await.unwrap(), expected);
        open(&family.branch).await.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_that_detach_makes_is_not_collected_before_the_head_names_it() {
    let family = Family::new(6, 30).await;
    let id = branch(&family.parent, &family.branch).await.unwrap();
    let mut writer = write(&family.branch, 8).await;
    for n in 0..100 {
        append(&mut writer, &[(2, n)], 6).await.unwrap();
        compact_all(&writer).await;
    }
    // It holds all that the one of the floor does.
    let snapshots = family.branch.list(Level::SNAPSHOTS, None).await.unwrap();
    assert!(!snapshots.is_empty());
    let permits = Arc::new(Semaphore::new(0));
    family
        .store
        .next("put", "branch/partial-sync/head", Fate::Held(permits.clone()));
    let bucket = family.branch.clone();
    let detaching = tokio::spawn(async move { bucket.detach().await });
    family.store.until_held().await;
    let (last, older) = (writer.last(), snapshots.len());
    assert_eq!(writer.keeper().collect(last).await.unwrap(), 0);
    permits.add_permits(1);
    assert!(detaching.await.unwrap().unwrap());
    let snapshots = family.branch.list(Level::SNAPSHOTS, None).await.unwrap();
    assert_eq!(snapshots.len(), older + 1);
    let reader = open(&family.branch).await;
    reader.verify().await.unwrap();
    for n in 0..100 {
        let at = state(&reader, id + 2 + n).await;
        assert_eq!(database(&reader, at).await.unwrap(), [29, n as u8, 1, 1, 1, 1]);
    }
}

#[tokio::test]
async fn a_server_that_starts_while_a_branch_is_made_of_its_database_starts() {
    let family = Family::new(5, 20).await;
    let permits = Arc::new(Semaphore::new(0));
    family
        .store
        .next("put", "parent/partial-sync/head", Fate::Held(permits.clone()));
    let starting = tokio::spawn({
        let parent = family.parent.clone();
        async move { Writer::take_over(parent, begin(8), Claim::TakeOver).await }
    });
    family.store.until_held().await;
    branch(&family.parent, &family.branch).await.unwrap();
    permits.add_permits(1);
    let mut writer = starting.await.unwrap().unwrap();
    append(&mut writer, &[(1, 99)], 5).await.unwrap();
    assert_eq!(family.parent.branches().await.unwrap().len(), 1);
    assert_eq!(latest(&family.branch).await, (21, vec![19, 1, 1, 1, 1]));
}

#[tokio::test]
async fn a_parent_that_is_another_database_now_is_not_read() {
    let family = Family::new(5, 20).await;
    branch(&family.parent, &family.branch).await.unwrap();
    // Everything of it is removed, and another one has the same names.
    let other = Family::new(5, 20).await;
    for level in (0..=9).filter_map(Level::new) {
        for file in other.parent.list(level, None).await.unwrap() {
            let path = format!("parent/{:04x}/{}", level.get(), file.ids.file_name());
            let bytes = other
                .store
                .get(&path.as_str().into())
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            family.store.put(&path.into(), bytes.into()).await.unwrap();
        }
    }
    let path = "parent/partial-sync/head.json".into();
    let head = other.store.get(&path).await.unwrap().bytes().await.unwrap();
    let head = String::from_utf8(head.to_vec()).unwrap();
    let head = head.replace("0000000000000abc", "0000000000000def");
    family.store.put(&path, head.into()).await.unwrap();
    let error = Reader::open(family.branch.clone(), ReadOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Parent { .. }), "{error}");
    let error = family.branch.detach().await.unwrap_err();
    assert!(matches!(error, StoreError::Parent { .. }), "{error}");
    assert_eq!(files(&family.branch).await, 0);
}

#[tokio::test]
async fn a_branch_with_a_snapshot_of_its_own_below_its_floor_needs_its_parent_no_more() {
    let family = Family::new(5, 20).await;
    branch(&family.parent, &family.branch).await.unwrap();
    let mut writer = write(&family.branch, 8).await;
    let staying = open(&family.branch).await;
    for n in 0..200 {
        append(&mut writer, &[(2, n)], 5).await.unwrap();
        compact_all(&writer).await;
    }
    family.clock.pass(2 * RETENTION);
    collect_all(&family.store, &mut writer).await;
    let branches = family.parent.branches().await.unwrap();
    assert_eq!(branches[0].standing, Standing::Gone);
    assert_eq!(family.parent.prune().await.unwrap(), 1);
    let of_parent = family.store.list(Some(&"parent".into()));
    for object in of_parent.try_collect::<Vec<_>>().await.unwrap() {
        family.store.delete(&object.location).await.unwrap();
    }
    let expected = vec![19, 199, 1, 1, 1];
    assert_eq!(latest(&family.branch).await.1, expected);
    let at = staying.advance().await.unwrap();
    assert_eq!(database(&staying, at).await.unwrap(), expected);
    open(&family.branch).await.verify().await.unwrap();
    for n in 0..100 {
        append(&mut writer, &[(2, n)], 5).await.unwrap();
        compact_all(&writer).await;
    }
    let next = family.store.place("next", &family.clock);
    branch(&family.branch, &next).await.unwrap();
    assert_eq!(latest(&next).await.1, [19, 99, 1, 1, 1]);
    // A page is copied by nobody.
    family.store.bytes();
    assert!(family.branch.detach().await.unwrap());
    assert!(family.store.bytes() < 32 << 10);
    assert_eq!(latest(&family.branch).await.1, [19, 99, 1, 1, 1]);
}

#[tokio::test]
async fn branches_that_cannot_be_are_refused_and_say_why() {
    let mut family = Family::new(5, 20).await;
    let reader = open(&family.parent).await;
    let refused = |error: StoreError, what: &str| assert!(error.to_string().contains(what), "{error}");
    let to = |name: &str| family.store.place(name, &family.clock);

    let elsewhere = Bucket::new(
        family.store.clone(),
        "elsewhere".into(),
        partial_sync_store::Layout::Plain,
        "file:///elsewhere",
    );
    let made = reader.branch(reader.latest(), true, &elsewhere).await;
    refused(made.unwrap_err(), "the same kind of store");
    let made = reader.branch(reader.latest(), true, &family.parent).await;
    refused(made.unwrap_err(), "a database is here already");
    create(&to("taken"), 9, &[1]).await.unwrap();
    let made = reader.branch(reader.latest(), true, &to("taken")).await;
    refused(made.unwrap_err(), "a database is here already");
    // The same branch again is that which is there, if it need not be of another state.
    branch(&family.parent, &family.branch).await.unwrap();
    let again = reader
        .branch(reader.latest(), false, &family.branch)
        .await
        .unwrap();
    assert!(again.was_there);
    let earlier = state(&reader, 18).await;
    assert!(
        reader
            .branch(earlier, true, &family.branch)
            .await
            .unwrap()
            .was_there
    );
    let made = reader.branch(earlier, false, &family.branch).await;
    refused(made.unwrap_err(), "a database is here already");

    // Each of these reads a file of all before it.
    let mut from = family.parent.clone();
    for n in 0.. {
        let next = to(&format!("deep{n}"));
        match branch(&from, &next).await {
            Ok(_) => {
                let mut writer = write(&next, 8).await;
                append(&mut writer, &[(2, n)], 5).await.unwrap();
                assert_eq!(latest(&next).await.1, [19, n, 1, 1, 1]);
                from = next;
            }
            Err(error) => {
                refused(error, "it reads the files of 8 databases: detach it first");
                assert_eq!(n, 8);
                break;
            }
        }
    }
    assert!(from.detach().await.unwrap());
    branch(&from, &to("deeper")).await.unwrap();

    let headless = family.store.headless();
    let litestream = headless.place("parent", &family.clock);
    let made = branch(&litestream, &headless.place("never", &family.clock)).await;
    refused(made.unwrap_err(), "Litestream writes this database");

    for n in 0..70 {
        let made = branch(&family.parent, &to(&format!("many{n}"))).await;
        if let Err(error) = made {
            refused(error, "it has 64 branches already");
            append(&mut family.writer, &[(1, 1)], 5).await.unwrap();
            return;
        }
    }
    panic!("there is no end of branches");
}
