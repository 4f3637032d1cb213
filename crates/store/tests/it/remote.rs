//! A bucket as the remote of a replica: which pages it answers with, what it asks of the bucket for them, and what it says where it cannot.
//! The rules of the protocol are held to by `conformance` of the server's tests.

use std::{collections::BTreeMap, num::NonZeroU64, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use partial_sync_core::{PageCount, Revision};
use partial_sync_store::{Begin, BucketRemote, New, Writer};
use partial_sync_transport::{
    PageSelector, PagesHeader, PagesRequest, Remote, RemoteError, RemoteErrorKind, hrana::Batch,
};
use tokio::sync::Semaphore;

use crate::support::{
    Fate, RETENTION, SIZE, TestClock, Troubled, append, begin, collect_all, create, no, page,
};

/// A bucket, and its remote.
struct Place {
    store: Arc<Troubled>,
    clock: Arc<TestClock>,
    writer: Writer,
    remote: BucketRemote,
}

impl Place {
    async fn new(database: &[u8]) -> Self {
        let (store, clock) = (Troubled::memory(), TestClock::new());
        let bucket = store.bucket(&clock);
        let writer = create(&bucket, 7, database).await.unwrap();
        store.counts();
        let remote = BucketRemote::new("memory:///some/app", move || Ok(bucket.clone()));
        Self {
            store,
            clock,
            writer,
            remote,
        }
    }

    /// Requests since the last time this was asked.
    fn asked(&self) -> usize {
        let counts = self.store.counts();
        assert!(counts.keys().all(|kind| *kind == "get"), "{counts:?}");
        counts.values().sum()
    }

    /// The header, and a byte for each page.
    async fn ask(&self, request: PagesRequest) -> Result<(PagesHeader, BTreeMap<u32, u8>), RemoteError> {
        let answer = self.remote.pages(request).await?;
        let pages = answer.pages.map_ok(|sent| {
            assert!(sent.data == page(sent.data[0]));
            (sent.id.0, sent.data[0])
        });
        Ok((answer.header, pages.try_collect().await?))
    }

    async fn latest(&self) -> (Revision, BTreeMap<u32, u8>) {
        let (header, pages) = self.ask(PagesRequest::default()).await.unwrap();
        (header.revision, pages)
    }
}

fn at(revision: &Revision, ids: &[u32]) -> PagesRequest {
    PagesRequest {
        revision: Some(revision.clone()),
        select: PageSelector::Ids(ids.iter().copied().collect()),
        ..PagesRequest::default()
    }
}

fn since(revision: &Revision) -> PagesRequest {
    PagesRequest {
        since: Some(revision.clone()),
        ..PagesRequest::default()
    }
}

fn polls(revision: &Revision, wait: u64) -> PagesRequest {
    PagesRequest {
        long_poll: Some(Duration::from_secs(wait)),
        ..since(revision)
    }
}

#[tokio::test]
async fn nothing_is_asked_before_something_is_asked_here_and_each_thing_once() {
    let mut place = Place::new(&[1; 100]).await;
    assert_eq!(
        (place.asked(), place.remote.url().as_str()),
        (0, "memory:///some/app")
    );
    let (first, pages) = place.latest().await;
    assert!(first.as_str() == "0000000000000abc-1" && pages.len() == 100);
    let opening = place.asked();
    // Every page was read, and is in memory; another one than the latest is not looked for.
    assert_eq!(
        place.ask(at(&first, &[3, 99, 100])).await.unwrap().1,
        BTreeMap::from([(3, 1), (99, 1)])
    );
    assert_eq!(place.asked(), 0);
    for n in 2..6 {
        append(&mut place.writer, &[(n, 9)], 100).await.unwrap();
    }
    place.store.counts();
    // What is new: four files, and the name that is not there.
    let (header, changed) = place.ask(since(&first)).await.unwrap();
    assert_eq!(changed, BTreeMap::from([(1, 9), (2, 9), (3, 9), (4, 9)]));
    assert!(place.asked() <= 4 + 25);
    // Of a file of level 0 that is here nothing is read again.
    for id in 0..100 {
        place.ask(at(&header.revision, &[id])).await.unwrap();
    }
    assert_eq!(place.asked(), 0);
    let told = place.remote.transferred();
    assert!(
        told.requests >= opening as u64 + 4 && told.bytes_received > 1000,
        "{told:?}"
    );
}

#[tokio::test]
async fn a_cold_page_takes_three_requests_in_sequence() {
    let place = Place::new(&[1; 3000]).await;
    let first = Revision::new("0000000000000abc-1").unwrap();
    let (_, page) = place.ask(at(&first, &[2999])).await.unwrap();
    assert_eq!(page, BTreeMap::from([(2999, 1)]));
    // The head; header and tail of the snapshot, and the names behind it, side by side; a range with the page.
    assert!(place.asked() <= 1 + 2 + 24 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_poll_looks_once_a_second_until_its_time_is_up_and_ends_with_a_commit_or_when_it_is_given_up() {
    let mut place = Place::new(&[1, 2, 3]).await;
    let (first, _) = place.latest().await;
    place.asked();
    let (header, pages) = place.ask(polls(&first, 10)).await.unwrap();
    assert!(header.revision == first && pages.is_empty());
    assert_eq!(place.asked(), 11);
    // However long it is told to wait.
    let endless = polls(&first, u64::MAX);
    let given_up = tokio::time::timeout(Duration::from_secs(3), place.ask(endless.clone())).await;
    assert!(given_up.is_err());
    place.asked();
    let Place { remote, writer, .. } = &mut place;
    let poll = remote.pages(endless);
    let commit = async {
        tokio::time::sleep(Duration::from_millis(5500)).await;
        append(writer, &[(2, 9)], 4).await.unwrap();
    };
    let (answer, ()) = tokio::join!(poll, commit);
    let answer = answer.unwrap();
    assert_eq!(answer.header.db_size, PageCount(4));
    let pages: Vec<_> = answer.pages.map_ok(|page| page.id.0).try_collect().await.unwrap();
    assert_eq!(pages, [1, 3]);
}

#[tokio::test]
async fn a_revision_that_was_collected_has_expired_and_one_of_nobody_is_unknown() {
    let mut place = Place::new(&[1, 2, 3]).await;
    let (first, _) = place.latest().await;
    append(&mut place.writer, &[(2, 9)], 3).await.unwrap();
    let (second, pages) = place.latest().await;
    assert_eq!(pages, BTreeMap::from([(0, 1), (1, 9), (2, 3)]));
    for _ in 0..20 {
        append(&mut place.writer, &[(3, 8)], 3).await.unwrap();
    }
    while place.writer.keeper().compact(place.writer.last()).await.unwrap() {}
    collect_all(&place.store, &mut place.writer).await;
    // By the remote that knew them, and by one that is opened now.
    let bucket = place.store.bucket(&TestClock::new());
    let fresh = BucketRemote::new("memory:///some/app", move || Ok(bucket.clone()));
    let known = std::mem::replace(&mut place.remote, fresh);
    for _ in 0..2 {
        for request in [since(&second), at(&second, &[1])] {
            let error = place.ask(request).await.unwrap_err();
            assert_eq!(error.kind, RemoteErrorKind::RevisionExpired, "{error}");
        }
        assert!(place.ask(since(&first)).await.is_ok(), "the snapshot is kept");
        for nobodys in [
            "7",
            "0000000000000abc-99",
            "0000000000000abd-1",
            "0000000000000abc-01",
            "-",
        ] {
            let nobodys = Revision::new(nobodys).unwrap();
            for request in [since(&nobodys), at(&nobodys, &[1])] {
                let error = place.ask(request).await.unwrap_err();
                assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown, "{error}");
            }
        }
    }
    drop(known);
}

#[tokio::test]
async fn after_the_end_of_a_history_the_one_that_is_there_now_is_another_database() {
    let mut place = Place::new(&[1, 2, 3]).await;
    append(&mut place.writer, &[(2, 9)], 3).await.unwrap();
    let (old, _) = place.latest().await;
    // All of it is gone, and something else is at its place.
    place.store.remove_all().await;
    let bucket = place.store.bucket(&TestClock::new());
    let other = begin(9);
    let other = Begin {
        new: New {
            lineage: NonZeroU64::new(0xdef).unwrap(),
            ..other.new
        },
        ..other
    };
    let (size, put) = (PageCount(1), page(7));
    let writer = Writer::create(bucket, other, SIZE, size, move |to| to(no(1), &put));
    append(&mut writer.await.unwrap(), &[(2, 8)], 2).await.unwrap();
    place.store.counts();
    // As soon as it has more than the one before had, or a quarter of the retention has passed.
    place.clock.pass(RETENTION);
    for _ in 0..2 {
        let error = place.ask(since(&old)).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown, "{error}");
    }
    let (new, pages) = place.latest().await;
    assert_eq!(
        (new.as_str(), pages),
        ("0000000000000def-2", BTreeMap::from([(0, 7), (1, 8)]))
    );
    let error = place.ask(at(&old, &[0])).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_silent_refuses_or_has_no_database_is_told_of_in_time() {
    let place = Place::new(&[1, 2, 3]).await;
    place
        .store
        .next("get", "head.json", Fate::Held(Arc::new(Semaphore::new(0))));
    let request = PagesRequest {
        deadline: Some(Duration::from_secs(7)),
        ..PagesRequest::default()
    };
    let began = tokio::time::Instant::now();
    let error = place.ask(request.clone()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut, "{error}");
    assert!(error.to_string().contains("memory:///some/app"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(8));
    place.store.next("get", "head.json", Fate::Denied);
    let error = place.ask(request.clone()).await.unwrap_err();
    assert!(
        error.kind == RemoteErrorKind::Unreachable && error.is_transient(),
        "{error}"
    );
    // Then it works; and where it falls silent after the header, that is told of too.
    place.store.next("get", "0009/", Fate::Done);
    place.store.next("get", "0009/", Fate::Done);
    place
        .store
        .next("get", "0009/", Fate::Held(Arc::new(Semaphore::new(0))));
    let began = tokio::time::Instant::now();
    let error = place.ask(request).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() <= Duration::from_secs(8));
    let (first, _) = place.latest().await;
    assert_eq!(first.as_str(), "0000000000000abc-1");
    let nowhere = Troubled::memory().bucket(&TestClock::new());
    let nowhere = BucketRemote::new("memory:///nowhere", move || Ok(nowhere.clone()));
    let error = nowhere.pages(PagesRequest::default()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::NotFound, "{error}");
    let url = BucketRemote::at("s3://user:secret@bucket/app?token=secret");
    let error = url.pages(PagesRequest::default()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::InvalidUrl, "{error}");
    assert!(!format!("{error} {error:?} {url:?} {}", url.url()).contains("secret"));
}

#[tokio::test]
async fn sql_is_refused_with_the_writer_that_the_bucket_names_and_a_query_is_not_run() {
    let place = Place::new(&[1, 2, 3]).await;
    assert!(!place.remote.runs_sql());
    let error = place.remote.execute(Batch::default(), None).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Refused);
    assert!(error.to_string().contains("https://node7.example"), "{error}");
    let query = PagesRequest {
        query: Some("SELECT 1".to_owned()),
        ..PagesRequest::default()
    };
    let error = place.ask(query.clone()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Refused);
    // What would come along does not, and no replica sends one again.
    let (first, _) = place.latest().await;
    let along = PagesRequest {
        query: query.query,
        ..at(&first, &[1])
    };
    let (header, pages) = place.ask(along).await.unwrap();
    assert!(!header.features.hydrate && pages == BTreeMap::from([(1, 2)]));
}
