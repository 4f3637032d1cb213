//! Two servers on one file, or on one port.

use std::path::Path;

use bytes::Bytes;
use partial_sync_core::PageNo;
use partial_sync_server::{
    Server, ServerError,
    history::{Before, Change, History, SqliteHistory},
};

use crate::pages::support::{Client, TestDb, dump, insert};

/// Was red: the second one counted revisions in the history of the first, which then answered 500 until it was
/// started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_a_second_server_on_a_file_is_refused_and_the_first_one_goes_on() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let writer = db.open();
    for round in 0..3 {
        insert(&writer, round * 10 + 1, 10);
        let second = Server::builder(&db.path).listen("127.0.0.1:0").await;
        match second {
            Err(ServerError::InUse { path, process }) => {
                assert_eq!(path, db.path);
                assert_eq!(process, Some(std::process::id()));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(client.latest().await.whole(), dump(&db.path));
    }
    server.shutdown().await;
    db.serve().await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_a_server_that_cannot_listen_has_not_touched_the_file() {
    let db = TestDb::new();
    let before = std::fs::read(&db.path).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = Server::builder(&db.path)
        .listen(taken.local_addr().unwrap())
        .await;
    assert!(matches!(refused, Err(ServerError::Listen { .. })), "{refused:?}");
    let beside = |suffix: &str| Path::new(&format!("{}{suffix}", db.path.display())).exists();
    assert!(!beside("-history") && !beside("-lock"));
    assert_eq!(std::fs::read(&db.path).unwrap(), before);
}

/// One that knows nothing of the lock, or a history that was put back while it was in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v9_a_history_that_somebody_else_has_written_is_taken_up_again() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let first = client.latest().await;
    let other = SqliteHistory::open(&db.path).unwrap();
    let latest = other.latest().unwrap();
    let change = Change {
        page: PageNo::new(1).unwrap(),
        before: Before::Page(Bytes::from(vec![0; 4096])),
        after: Some(7),
    };
    other
        .record(latest, latest.db_size, 0, &mut [Ok(change)].into_iter())
        .unwrap();
    drop(other);
    insert(&db.open(), 1, 10);
    let mut refused = 0;
    let latest = loop {
        match client.ask(Default::default()).await {
            Ok(answer) => break answer,
            Err(refusal) => refused += 1_i32 + i32::from(refusal.status != 503),
        }
        assert!(refused <= 1, "it heals at once");
    };
    assert_eq!(latest.whole(), dump(&db.path));
    let changes = client.since(&first.revision).await.unwrap();
    assert_eq!(changes.revision, latest.revision);
    server.shutdown().await;
}
