//! The walking skeleton: what one request of each kind is answered with.

use std::time::Duration;

use partial_sync_core::Revision;
use partial_sync_transport::{
    PageSelector, PagesRequest,
    wire::{PageEncoding, PullUpdatesRequest},
};
use prost::Message;

use super::support::{Client, TestDb, dump, ids, insert};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_request_is_answered_with_every_page_of_the_file_as_it_is() {
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 500);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let answer = client.latest().await;
    assert_eq!(answer.whole(), dump(&db.path));
    assert_eq!(&answer.pages[&0][18..20], [2, 2], "bytes 18 and 19 say WAL");
    for encoding in [PageEncoding::Zstd, PageEncoding::ZstdBlocks] {
        let compressed = client.ask_encoded(PagesRequest::default(), encoding).await;
        assert_eq!(compressed.unwrap(), answer, "{encoding:?}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selected_pages_come_without_those_that_the_client_has_and_those_beyond_the_end() {
    let db = TestDb::new();
    insert(&db.open(), 1, 500);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let whole = client.latest().await;
    let request = PagesRequest {
        select: ids([0, 3, 4, 5, whole.size - 1, whole.size, u32::MAX]),
        have: Some([4u32].into_iter().collect()),
        ..PagesRequest::default()
    };
    let answer = client.ask(request).await.unwrap();
    assert_eq!(answer.order, [0, 3, 5, whole.size - 1]);
    assert_eq!(answer.size, whole.size);
    assert!(answer.pages.iter().all(|(id, data)| whole.pages[id] == *data));
    let none = PagesRequest {
        select: ids([]),
        ..PagesRequest::default()
    };
    assert!(client.ask(none).await.unwrap().pages.is_empty());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_revision_stays_as_it_was_while_writes_go_on() {
    let db = TestDb::new();
    let writer = db.open();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let mut states = Vec::new();
    for round in 0..12 {
        insert(&writer, round * 100 + 1, 100);
        if round % 3 == 2 {
            writer
                .execute("UPDATE t SET v = randomblob(300) WHERE id % 7 = ?", [round % 7])
                .unwrap();
        }
        if round == 7 {
            writer.execute("DELETE FROM t WHERE id < 400", []).unwrap();
            writer.execute_batch("VACUUM").unwrap();
        }
        states.push((client.latest().await.revision, dump(&db.path)));
    }
    for (revision, pages) in &states {
        let answer = client.at(revision).await.unwrap();
        assert_eq!(answer.revision, *revision);
        assert_eq!(answer.whole(), *pages);
    }
    let last = &states.last().unwrap();
    for (revision, pages) in &states {
        let changed = client.since(revision).await.unwrap();
        assert_eq!(changed.revision, last.0);
        let mut patched = pages.clone();
        patched.resize(last.1.len(), Default::default());
        for (id, data) in &changed.pages {
            patched[*id as usize] = data.clone();
        }
        assert_eq!(patched, last.1, "what changed, on top of what was, is what is");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_a_revision_names_only_pages_that_differ_unless_they_are_required() {
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 1000);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let before = client.latest().await;
    // The same bytes again: the page is written, but nothing changes.
    writer.execute_batch("UPDATE t SET v = v WHERE id = 500").unwrap();
    writer
        .execute("UPDATE t SET v = randomblob(500) WHERE id = 1", [])
        .unwrap();
    let after = client.latest().await;
    let differ: Vec<u32> = (0..after.size)
        .filter(|id| before.pages.get(id) != after.pages.get(id))
        .collect();
    let changed = client.since(&before.revision).await.unwrap();
    assert_eq!(changed.ids(), differ);
    let one = differ.iter().copied().max().unwrap();
    let other = (0..after.size).find(|id| !differ.contains(id)).unwrap();
    let request = PagesRequest {
        since: Some(before.revision.clone()),
        select: ids([one]),
        require: Some([other, after.size + 5].into_iter().collect()),
        ..PagesRequest::default()
    };
    let mut wanted = vec![one, other];
    wanted.sort();
    assert_eq!(client.ask(request).await.unwrap().ids(), wanted);
    let same = client.since(&after.revision).await.unwrap();
    assert_eq!((same.ids(), &same.revision), (vec![], &after.revision));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_page_is_sent_when_the_database_has_grown_whatever_is_selected() {
    let db = TestDb::new();
    let writer = db.open();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let before = client.latest().await;
    insert(&writer, 1, 300);
    let request = PagesRequest {
        since: Some(before.revision),
        select: ids([0]),
        ..PagesRequest::default()
    };
    let answer = client.ask(request).await.unwrap();
    assert_eq!(answer.ids(), [0, answer.size - 1]);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_the_change_it_waits_for_or_with_its_time() {
    let db = TestDb::new();
    let writer = db.open();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let before = client.latest().await;
    let poll = |millis| PagesRequest {
        since: Some(before.revision.clone()),
        long_poll: Some(Duration::from_millis(millis)),
        ..PagesRequest::default()
    };
    let nothing = client.ask(poll(50)).await.unwrap();
    assert_eq!(
        (nothing.revision, nothing.pages.len()),
        (before.revision.clone(), 0)
    );
    let waiting = tokio::spawn({
        let (client, poll) = (client.clone(), poll(60_000));
        async move { client.ask(poll).await.unwrap() }
    });
    insert(&writer, 1, 1);
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_ne!(answer.revision, before.revision);
    assert!(!answer.pages.is_empty());
    server.shutdown().await;
}

/// Most requests of replicas are small. Their answers say how long they are, from wherever the pages come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_answer_comes_whole_and_a_large_one_in_pieces() {
    let db = TestDb::new();
    let writer = db.open();
    insert(&writer, 1, 2000);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let old = client.latest().await.revision;
    // Some pages are in the WAL, the last one is new, and the others are in the main file.
    writer
        .execute("UPDATE t SET v = randomblob(500) WHERE id % 50 = 0", [])
        .unwrap();
    insert(&writer, 3000, 20);
    let latest = client.latest().await;
    let pages = latest.whole();
    let asks = |select, revision: Option<&Revision>| PagesRequest {
        select,
        revision: revision.cloned(),
        ..PagesRequest::default()
    };
    let length = async |request: &PagesRequest| {
        let body = PullUpdatesRequest::new(request, PageEncoding::Raw).encode_to_vec();
        let request = client.http.post(format!("{}/pull-updates", client.url));
        request.body(body).send().await.unwrap().content_length()
    };
    let last = latest.size - 1;
    let some = [
        ids([0]),
        ids(0..32),
        ids([1, 2, 3, 9, 40, 41, last, last + 1]),
        ids([]),
    ];
    for select in some {
        for revision in [None, Some(&latest.revision)] {
            let request = asks(select.clone(), revision);
            assert!(length(&request).await.is_some());
            let answer = client.ask(request).await.unwrap();
            assert_eq!(answer.revision, latest.revision);
            for (id, page) in answer.pages {
                assert_eq!(page, pages[id as usize], "page id {id}");
            }
        }
        assert!(length(&asks(select, Some(&old))).await.is_some());
    }
    let all = asks(PageSelector::All, None);
    assert_eq!(length(&all).await, None);
    server.shutdown().await;
}
