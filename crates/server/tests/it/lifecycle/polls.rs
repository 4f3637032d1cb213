//! Many long polls that one commit wakes.

use std::time::Duration;

use partial_sync_server::Server;
use partial_sync_transport::PagesRequest;

use super::many::open_files;
use crate::pages::support::{Client, TestDb, insert};

/// Was red: each of them opened a connection to the page history, and none was closed again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn v15_a_wake_of_many_long_polls_leaves_no_connections() {
    let db = TestDb::new();
    let server = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    let before = client.latest().await;
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        let poll = PagesRequest {
            since: Some(before.revision.clone()),
            long_poll: Some(Duration::from_secs(300)),
            ..PagesRequest::default()
        };
        polls.spawn(async move { client.ask(poll).await.unwrap() });
    }
    insert(&db.open(), 1, 200);
    while let Some(answer) = polls.join_next().await {
        assert!(!answer.unwrap().pages.is_empty());
    }
    let (descriptors, _) = open_files(db.path.parent().unwrap());
    // Eight connections may still be reading.
    assert!(descriptors <= 14 + 8 * 2, "{descriptors} descriptors");
    server.shutdown().await;
}
