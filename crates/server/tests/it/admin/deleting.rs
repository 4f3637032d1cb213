//! A database is deleted while others use it.

use std::time::Duration;

use partial_sync_transport::PagesRequest;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::support::Served;
use crate::pages::support::{Answer, Client, Refused, shell};

/// Waits for a commit after a revision.
pub(super) fn poll(client: &Client, since: &Answer) -> tokio::task::JoinHandle<Result<Answer, Refused>> {
    let (client, since) = (client.clone(), since.revision.clone());
    let poll = PagesRequest {
        since: Some(since),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    tokio::spawn(async move { client.ask(poll).await })
}

/// Waits until so many long polls wait.
pub(super) async fn wait_for_polls(served: &Served, polls: u32) {
    loop {
        let url = format!("{}/metrics", served.server.url());
        let text = served
            .client("")
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        if text.contains(&format!("partial_sync_waiting_polls {polls}\n")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_database_is_gone_with_all_beside_it_and_who_uses_it_is_told() {
    let served = Served::new(&["a", "b"]).await;
    let client = served.client("a");
    served
        .sql("a", Value::Null, &["INSERT INTO t VALUES (1, randomblob(9000))"])
        .await;
    let old = client.latest().await;
    let waiting = poll(&client, &old);
    wait_for_polls(&served, 1).await;
    let (_, open) = served
        .sql(
            "a",
            Value::Null,
            &["BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES (1)"],
        )
        .await;
    let baton = open["baton"].clone();
    assert!(baton.is_string());

    served.ok("DELETE", "/namespaces/a", json!({})).await;
    let told = waiting.await.unwrap().unwrap_err();
    assert_eq!((told.status, told.code.as_str()), (400, "REVISION_UNKNOWN"));
    let (status, told) = served.sql("a", baton.clone(), &["COMMIT"]).await;
    assert_eq!((status, told["code"].as_str()), (404, Some("NOT_FOUND")));
    assert_eq!(client.since(&old.revision).await.unwrap_err().status, 404);
    let left = served.files();
    assert!(left.iter().all(|name| name.starts_with("b.db")), "{left:?}");
    assert_eq!(served.names().await, ["b"]);
    served
        .refused("DELETE", "/namespaces/a", json!({}), (404, "NOT_FOUND"))
        .await;

    // Another one of the name is another one.
    served.ok("POST", "/namespaces/a/create", json!({})).await;
    let told = client.since(&old.revision).await.unwrap_err();
    assert_eq!((told.status, told.code.as_str()), (400, "REVISION_UNKNOWN"));
    let (status, told) = served.sql("a", baton, &["COMMIT"]).await;
    assert_eq!((status, told["code"].as_str()), (400, Some("STREAM_EXPIRED")));
    assert_eq!(
        shell(&served.path("a"), "SELECT count(*) FROM sqlite_schema"),
        "0"
    );
    served.server.shutdown().await;
}

/// What is being read is cut off; nobody is given pages of something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_deleted_beside_a_pull() {
    let served = Served::new(&["a"]).await;
    shell(
        &served.path("a"),
        "INSERT INTO t SELECT value, randomblob(4000) FROM generate_series(1, 5000)",
    );
    let client = served.client("a");
    let mut body = client
        .http
        .post(format!("{}/pull-updates", client.url))
        .header("content-type", "application/protobuf")
        .send()
        .await
        .unwrap();
    assert_eq!(body.status(), 200);
    let mut received = body.chunk().await.unwrap().unwrap().len();
    // The rest waits for its client.
    served.ok("DELETE", "/namespaces/a", json!({})).await;
    served.ok("POST", "/namespaces/a/create", json!({})).await;
    let cut = loop {
        match body.chunk().await {
            Ok(Some(piece)) => received += piece.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(cut && received < 20_000_000, "{received} bytes");
    let now = client.latest().await;
    assert_eq!(now.size, 1);
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_another_program_has_open_is_not_deleted_and_stays_whole() {
    let served = Served::new(&["a"]).await;
    let client = served.client("a");
    served
        .sql("a", Value::Null, &["INSERT INTO t VALUES (1, 'kept')"])
        .await;
    let old = client.latest().await;
    let other = Connection::open(served.path("a")).unwrap();
    let count = || {
        other
            .query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(), 1);
    served
        .refused("DELETE", "/namespaces/a", json!({}), (409, "OPEN_ELSEWHERE"))
        .await;
    assert_eq!(count(), 1);
    assert_eq!(
        client.since(&old.revision).await.unwrap().pages.len(),
        0,
        "its revisions continue"
    );
    let (status, _) = served
        .sql("a", Value::Null, &["INSERT INTO t VALUES (2, 'kept')"])
        .await;
    assert_eq!((status, count()), (200, 2));
    drop(other);
    served.ok("DELETE", "/namespaces/a", json!({})).await;
    assert_eq!(served.files(), Vec::<String>::new());
    served.server.shutdown().await;
}

/// Also many at the same time, while others ask for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_made_used_and_deleted_at_the_same_time() {
    let served = std::sync::Arc::new(Served::new(&[]).await);
    let work = (0..8).map(|n| {
        let served = served.clone();
        tokio::spawn(async move {
            let name = format!("n{}", n % 4);
            for round in 0..12 {
                let (made, told) = served
                    .ask("POST", &format!("/namespaces/{name}/create"), json!({}))
                    .await;
                assert!(matches!(made, 200 | 409), "{told}");
                let (status, told) = served
                    .sql(&name, Value::Null, &["CREATE TABLE IF NOT EXISTS x(y)"])
                    .await;
                assert!(matches!(status, 200 | 404 | 503), "{status} {told}");
                if round % 2 == 0 {
                    let (deleted, told) = served
                        .ask("DELETE", &format!("/namespaces/{name}"), json!({}))
                        .await;
                    assert!(matches!(deleted, 200 | 404), "{deleted} {told}");
                }
            }
        })
    });
    for done in work.collect::<Vec<_>>() {
        done.await.unwrap();
    }
    for name in served.names().await {
        assert_eq!(shell(&served.path(&name), "PRAGMA integrity_check"), "ok");
        served
            .ok("DELETE", &format!("/namespaces/{name}"), json!({}))
            .await;
    }
    assert_eq!(served.files(), Vec::<String>::new());
}
