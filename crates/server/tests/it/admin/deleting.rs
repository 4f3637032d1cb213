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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_of_a_deleted_database_go_and_no_others() {
    let served = Served::new(&["a", "b"]).await;
    let plant = |name: &str| std::fs::write(served.folder.path().join(name), "x").unwrap();
    for name in [".a.db-restore-1f-2a", ".a.db-restoring-3c-0", "a.db-journal"] {
        plant(name);
    }
    let others = [
        ".a.db-restore-1f",
        ".a.db-restore-1f-2a-3",
        ".a.db-restore-zz-1",
        ".b.db-restore-1f-2a",
        // The last commits of a file that was replaced, which may be somewhere else now.
        "a.db-wal-4711",
        "a.db-wal-4711x",
        "a.db-wal-notes",
        "aa.db-wal-4711",
        "b.db",
        "b.db-wal-4711",
    ];
    others
        .iter()
        .filter(|name| **name != "b.db")
        .for_each(|name| plant(name));
    served.ok("DELETE", "/namespaces/a", json!({})).await;
    assert_eq!(served.files(), others);
    served.server.shutdown().await;
}

/// Whether the server has it open or not, and wherever its file is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_can_be_deleted() {
    let served = Served::new(&["open"]).await;
    let spoil = |name: &str, from: usize, to: usize| {
        let path = served.folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[from..to].fill(0xee);
        std::fs::write(&path, bytes).unwrap();
    };
    for (file, from, to) in [("a.db", 0, 16), ("a.db", 16, 100), ("a.db", 100, 4096)] {
        shell(
            &served.path("a"),
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)",
        );
        spoil(file, from, to);
        served.ok("DELETE", "/namespaces/a", json!({})).await;
        let left = served.files();
        assert!(
            left.iter().all(|name| name.starts_with("open.db")),
            "{file} {from}: {left:?}"
        );
        served.ok("POST", "/namespaces/a/create", json!({})).await;
        served.ok("DELETE", "/namespaces/a", json!({})).await;
    }
    served
        .sql("open", Value::Null, &["INSERT INTO t VALUES (1, 'x')"])
        .await;
    shell(&served.path("open"), "PRAGMA wal_checkpoint(TRUNCATE)");
    spoil("open.db", 0, 4096);
    served.ok("DELETE", "/namespaces/open", json!({})).await;
    assert_eq!(served.files(), Vec::<String>::new());
    served.server.shutdown().await;
}

/// Also then: what it wrote since is in no file of which the server knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_a_damaged_history_that_another_program_has_open_stays() {
    let served = Served::new(&["a", "b"]).await;
    for name in ["a", "b"] {
        let insert = "INSERT INTO t VALUES (1, 'kept')";
        assert_eq!(served.sql(name, Value::Null, &[insert]).await.0, 200);
    }
    let Served { folder, server, .. } = served;
    server.shutdown().await;
    for name in ["a", "b"] {
        let path = folder.path().join(format!("{name}.db-history"));
        let history = Connection::open(&path).unwrap();
        history.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let mut tables = history
            .prepare("SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name <> 'meta'")
            .unwrap();
        let roots: Vec<usize> = tables
            .query_map([], |row| row.get::<_, u32>(0))
            .unwrap()
            .map(|root| root.unwrap() as usize)
            .collect();
        drop(tables);
        drop(history);
        let mut bytes = std::fs::read(&path).unwrap();
        for root in roots {
            bytes[(root - 1) * 4096..root * 4096].fill(0xee);
        }
        std::fs::write(&path, bytes).unwrap();
    }
    let served = Served::of(folder, |builder| builder).await;
    assert_eq!(served.sql("a", Value::Null, &["SELECT 1"]).await.0, 500);
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
    drop(other);
    for name in ["a", "b"] {
        served
            .ok("DELETE", &format!("/namespaces/{name}"), json!({}))
            .await;
    }
    assert_eq!(served.files(), Vec::<String>::new());
    served.server.shutdown().await;
}
