//! How far back the page history really reaches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use partial_sync_server::{
    Clock, Retention, Server,
    history::{History, SqliteHistory},
};
use partial_sync_transport::{HttpClient, http::HttpRequest};

use super::live::{Live, is_expired};
use crate::pages::support::{TestDb, ids, insert, shell};

#[tokio::test]
async fn v19_the_metric_says_how_far_back_a_full_history_reaches() {
    let db = TestDb::new();
    let seconds = Arc::new(AtomicU64::new(1000));
    let now = Arc::clone(&seconds);
    let clock = Clock::new(move || SystemTime::UNIX_EPOCH + Duration::from_secs(now.load(SeqCst)));
    let server = Server::builder(&db.path).clock(clock).in_process().await.unwrap();
    let reach = async || {
        let request = HttpRequest {
            method: "GET",
            url: "http://x/metrics".into(),
            headers: vec![],
            body: Default::default(),
        };
        let answer = server.send(request).await.unwrap();
        let body: Vec<_> = answer.body.try_collect().await.unwrap();
        let text = String::from_utf8(body.concat()).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("partial_sync_history_reach_seconds{database=\"\"} "));
        line.unwrap().parse::<u64>().unwrap()
    };
    insert(&db.open(), 1, 100);
    for _ in 0..10 {
        seconds.fetch_add(60, SeqCst);
        shell(&db.path, "UPDATE t SET v = randomblob(500)");
        server.refresh().await.unwrap();
    }
    assert_eq!(reach().await, 600, "nothing was let go of");
    // Room for the last two or three of them.
    let retention = Retention {
        bytes: 150_000,
        ..Retention::default()
    };
    server.prune(retention).await.unwrap();
    let short = reach().await;
    assert!(short < 300, "{short} s");
    server.close().await;
    let history = SqliteHistory::open(&db.path).unwrap();
    let oldest = history.size().unwrap().oldest_unix_ms.unwrap();
    assert_eq!(oldest, i64::try_from(1600 - short).unwrap() * 1000);
    // What goes for its age is expected; what goes before it for its bytes is told.
    let aged = Retention {
        age: Duration::from_secs(1),
        ..Retention::default()
    };
    let full = Retention {
        bytes: 1,
        ..Retention::default()
    };
    assert!(!history.prune(&aged, 1_545_000).unwrap().early);
    assert!(history.prune(&full, 1_600_000).unwrap().early);
}

/// What is in memory goes with its revision: the small answers that were given, and which pages the last revisions changed.
#[tokio::test]
async fn v22_an_answer_that_was_given_is_not_given_again_when_its_revision_is_let_go_of() {
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let server = Live::start(&db).await;
    let old = server.latest().await;
    insert(&db.open(), 101, 100);
    let new = server.latest().await;
    for _ in 0..2 {
        for id in 0..old.size {
            let found = server.at(&old.revision, ids([id])).await.unwrap();
            assert!(found.pages[&id] == old.pages[&id], "{id}");
        }
    }
    let none = Retention {
        bytes: 0,
        ..Retention::default()
    };
    server.0.prune(none).await.unwrap();
    for id in 0..old.size {
        is_expired(server.at(&old.revision, ids([id])).await);
    }
    assert!(server.at(&new.revision, ids(0..new.size)).await.unwrap() == new);
    server.stop().await;
}
