//! A comparison with the page history, and everything that can happen to a server meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use partial_sync_server::{Retention, Server, history::SqliteHistory};
use partial_sync_transport::{PageSelector, PagesRequest};
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    full_disk::OnDisk,
    live::{Live, STEP, differ, is_expired, killed, large, pulled, update},
};
use crate::pages::support::{Answer, Client, Refused, dump, ids, shell};

/// Was red: a page that was another one while a comparison was unfinished, and is now as it was before, was "unchanged".
#[tokio::test]
async fn v20_a_kill_in_the_middle_of_the_comparison_and_another_start_go_on_right() {
    let db = large();
    let before = killed(&db).await;
    shell(
        &db.path,
        "CREATE TABLE kept AS SELECT * FROM t WHERE id > 10490; UPDATE t SET v = zeroblob(400) WHERE id > 10490",
    );
    let server = Live::start(&db).await;
    let first = server.latest().await;
    server.sql(&update(4, 1000)).await;
    let second = server.latest().await;
    assert!(server.compare().await);
    drop(server);
    shell(
        &db.path,
        "UPDATE t SET v = (SELECT v FROM kept WHERE kept.id = t.id) WHERE id > 10490",
    );
    let server = Live::start(&db).await;
    let now = server.latest().await;
    let back: Vec<u32> = (0..before.size)
        .filter(|id| before.pages[id] == now.pages[id] && before.pages[id] != first.pages[id])
        .collect();
    assert!(back.len() >= 8);
    for compared in [false, true] {
        assert_eq!(server.left().await == 0, compared);
        for gone in [&first, &second] {
            is_expired(server.since(&gone.revision, PageSelector::All).await);
            is_expired(server.at(&gone.revision, ids([back[0]])).await);
        }
        let answer = server.at(&before.revision, ids(back.clone())).await.unwrap();
        assert!(
            answer
                .pages
                .iter()
                .eq(back.iter().map(|id| (id, &before.pages[id])))
        );
        let changed = server.since(&before.revision, PageSelector::All).await.unwrap();
        assert!(pulled(&before.whole(), &changed) == now.whole());
        assert!(!back.iter().any(|id| changed.pages.contains_key(id)));
        server.compare_all().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn v20_a_stop_or_a_kill_in_the_middle_without_a_change_is_gone_on_from() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let mut server = Live::start(&db).await;
    let first = server.latest().await;
    let mut left = server.left().await;
    for kill in [true, false, true] {
        assert!(server.compare().await);
        match kill {
            true => drop(server),
            false => server.stop().await,
        }
        server = Live::start(&db).await;
        assert!(server.latest().await == first);
        assert_eq!(server.left().await, left - 2 * STEP, "of {left}, killed: {kill}");
        left -= 2 * STEP;
        let changed = server.since(&before.revision, ids(5000..9000)).await.unwrap();
        let differ = differ(&before, &first);
        assert!(
            changed
                .pages
                .keys()
                .eq(differ.iter().filter(|id| (5000..9000).contains(*id)))
        );
    }
    server.stop().await;
}

/// A server with a life of its own ends without waiting for what is left, and what it has compared stays compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v20_a_server_is_shut_down_in_the_middle_of_the_comparison() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let server = db.serve().await;
    let first = Client::new(&server.url()).latest().await;
    server.shutdown().await;
    let server = Live::start(&db).await;
    assert!(server.latest().await == first);
    assert!(server.left().await <= u64::from(before.size) - STEP);
    let changed = server.since(&before.revision, PageSelector::All).await.unwrap();
    assert_eq!(changed.ids(), differ(&before, &first));
    server.stop().await;
}

#[tokio::test]
async fn v20_another_page_size_or_another_file_is_another_history() {
    let db = large();
    let before = killed(&db).await;
    let is_unknown = |answer: Result<Answer, Refused>| {
        let refused = answer.unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
    };
    shell(
        &db.path,
        "PRAGMA journal_mode=delete; PRAGMA page_size=1024; VACUUM",
    );
    let server = Live::start(&db).await;
    let now = server.latest().await;
    assert!(now.whole() == dump(&db.path));
    is_unknown(server.since(&before.revision, PageSelector::All).await);
    is_unknown(server.at(&before.revision, ids([0])).await);
    // Another file, in the middle of the comparison.
    assert!(server.left().await > 0);
    let other = large();
    shell(&other.path, "PRAGMA journal_mode=delete");
    std::fs::rename(&other.path, &db.path).unwrap();
    // Whatever it finds.
    let _ = server.0.compare().await;
    let other = loop {
        match server.ask(PagesRequest::default()).await {
            Ok(other) => break other,
            Err(refused) => assert_eq!(refused.status, 503, "{refused:?}"),
        }
    };
    assert!(other.whole() == dump(&db.path));
    is_unknown(server.since(&now.revision, PageSelector::All).await);
    server.compare_all().await;
    assert!(server.latest().await == other);
    server.stop().await;
}

#[tokio::test]
async fn v20_old_revisions_are_let_go_of_during_the_comparison() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 100));
    let server = Live::start(&db).await;
    let first = server.latest().await;
    shell(&db.path, &update(0, 100));
    let second = server.latest().await;
    let retention = |bytes| Retention {
        bytes,
        ..Retention::default()
    };
    // The commit's pages are kept, then not.
    for (bytes, kept) in [(1 << 20, &first), (0, &second)] {
        server.compare().await;
        server.0.prune(retention(bytes)).await.unwrap();
        if kept.revision != first.revision {
            is_expired(server.since(&before.revision, ids([0])).await);
            is_expired(server.at(&first.revision, ids([0])).await);
        }
        assert!(server.at(&kept.revision, PageSelector::All).await.unwrap() == *kept);
        shell(&db.path, &update(1, 1000));
    }
    server.compare_all().await;
    server.0.prune(retention(0)).await.unwrap();
    let latest = server.latest().await;
    server.stop().await;
    // What was compared after they were gone is known for the next time.
    shell(&db.path, &update(7, 1000));
    let server = Live::start(&db).await;
    let now = server.latest().await;
    let changed = server.since(&latest.revision, PageSelector::All).await.unwrap();
    assert_eq!(changed.ids(), differ(&latest, &now));
    let same: Vec<u32> = (0..latest.size)
        .filter(|id| !changed.pages.contains_key(id))
        .collect();
    assert_eq!(
        server
            .at(&latest.revision, ids(same.clone()))
            .await
            .unwrap()
            .ids(),
        same
    );
    server.stop().await;
}

#[tokio::test]
async fn v20_the_wal_is_emptied_during_the_comparison() {
    let db = large();
    killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let server = Live::start(&db).await;
    let writer = Connection::open(&db.path).unwrap();
    writer.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    for round in 0..3 {
        writer.execute_batch(&update(round, 4)).unwrap();
        server.0.refresh().await.unwrap();
        assert!(server.compare().await);
        server.0.tend().await.unwrap();
        let emptied = |row: &rusqlite::Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
        let emptied: [i64; 3] = writer
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], emptied)
            .unwrap();
        assert_eq!(emptied, [0, 0, 0]);
        assert!(server.latest().await.whole() == dump(&db.path));
    }
    server.stop().await;
}

#[tokio::test]
async fn v20_a_history_that_cannot_be_written_during_the_comparison_answers_what_it_can_and_goes_on_later() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let full = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&full);
    let builder = Server::builder(&db.path).history(move |path| {
        Ok(Arc::new(OnDisk {
            inner: SqliteHistory::open(path)?,
            full: Arc::clone(&switch),
            stuck: false,
        }))
    });
    let server = Live::built(builder).await;
    full.store(true, SeqCst);
    let left = server.left().await;
    assert!(server.0.compare().await.is_err());
    let now = server.latest().await;
    let differ = differ(&before, &now);
    let few: Vec<u32> = (0..now.size).filter(|id| id % 2 == 0).collect();
    let changed = server.since(&before.revision, ids(few.clone())).await.unwrap();
    assert!(
        changed
            .pages
            .keys()
            .eq(differ.iter().filter(|id| few.contains(id)))
    );
    is_expired(server.at(&before.revision, ids([*differ.last().unwrap()])).await);
    let refused = server
        .since(&before.revision, PageSelector::All)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (503, "HISTORY_UNWRITABLE")
    );
    assert_eq!(server.left().await, left);
    full.store(false, SeqCst);
    assert_eq!(
        server
            .since(&before.revision, PageSelector::All)
            .await
            .unwrap()
            .ids(),
        differ
    );
    server.compare_all().await;
    server.stop().await;
}

/// Whoever waits for a comparison that does not end is told so: here because the server stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v20_a_request_that_waits_for_the_comparison_is_answered_when_the_server_stops() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let builder = Server::builder(&db.path).history(move |path| {
        Ok(Arc::new(OnDisk {
            inner: SqliteHistory::open(path)?,
            full: Arc::default(),
            stuck: true,
        }))
    });
    let server = builder.listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    // What does not depend on it is answered meanwhile, and so is who asks about few pages.
    let now = client.latest().await;
    let few = PagesRequest {
        since: Some(before.revision.clone()),
        select: ids(0..4000),
        ..PagesRequest::default()
    };
    let differ = differ(&before, &now);
    let changed = client.ask(few).await.unwrap();
    assert!(changed.pages.keys().eq(differ.iter().filter(|id| **id < 4000)));
    let poll = PagesRequest {
        since: Some(before.revision.clone()),
        long_poll: Some(std::time::Duration::from_secs(3600)),
        ..PagesRequest::default()
    };
    let asks = tokio::spawn(async move { client.ask(poll).await });
    let status = Client::new(&server.url());
    loop {
        let text = status
            .http
            .get(format!("{}/metrics", server.url()))
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        if text.contains("partial_sync_requests_total{endpoint=\"pull-updates\"} 3") {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.shutdown().await;
    let refused = asks.await.unwrap().unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (503, "BUSY"));
    assert!(refused.message.contains("try again"), "{}", refused.message);
}

#[tokio::test]
async fn v20_readiness_tells_how_far_the_comparison_is() {
    let db = large();
    let server = Live::start(&db).await;
    let ready = async || {
        let (status, body) = server.send("GET", "/ready", vec![]).await;
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let pages = dump(&db.path).len();
    let comparing = json!([{"database": "", "compared": STEP, "pages": pages}]);
    assert_eq!(
        ready().await,
        (200, json!({"status": "ready", "comparing": comparing}))
    );
    server.compare_all().await;
    assert_eq!(ready().await, (200, json!({"status": "ready"})));
    server.stop().await;
}
