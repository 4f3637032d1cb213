//! A database is copied while others write.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use partial_sync_core::Revision;
use partial_sync_server::Limits;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::support::Served;
use crate::pages::support::{dump, shell};

/// Each commit changes pages at both ends of the file, so that a mixture of two states shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_is_exactly_one_revision_while_others_write() {
    let served = Served::new(&["a"]).await;
    let path = served.path("a");
    shell(
        &path,
        "INSERT INTO t SELECT value, randomblob(2000) FROM generate_series(1, 1000)",
    );
    let client = served.client("a");
    client.latest().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = {
        let (stop, path) = (stop.clone(), path.clone());
        std::thread::spawn(move || {
            let db = Connection::open(path).unwrap();
            db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
            let mut n = 0;
            while !stop.load(Relaxed) {
                n += 1;
                db.execute(
                    "UPDATE t SET v = randomblob(2000) WHERE id IN (1 + ?1 % 1000, 1000 - ?1 % 1000)",
                    [n],
                )
                .unwrap();
            }
        })
    };
    for n in 0..5 {
        let forked = served
            .ok("POST", &format!("/namespaces/a/fork/copy{n}"), json!({}))
            .await;
        let revision = Revision::new(forked["revision"].as_str().unwrap()).unwrap();
        let copy = served.path(&format!("copy{n}"));
        assert!(dump(&copy) == client.at(&revision).await.unwrap().whole(), "{n}");
        assert_eq!(
            shell(&copy, "PRAGMA integrity_check; SELECT count(*) FROM t"),
            "ok\n1000"
        );
    }
    stop.store(true, Relaxed);
    writing.join().unwrap();
    // It is a database of its own, with a history of its own.
    let (status, _) = served.sql("copy0", Value::Null, &["DELETE FROM t"]).await;
    assert_eq!(
        (status, shell(&path, "SELECT count(*) FROM t").as_str()),
        (200, "1000")
    );
    let refused = served
        .client("copy0")
        .since(&client.latest().await.revision)
        .await
        .unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
    let left = served.files();
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_of_a_revision_or_of_a_time_is_what_was_there_then() {
    let served = Served::new(&["a"]).await;
    let client = served.client("a");
    let mut times = vec![];
    for n in 0..4 {
        served
            .sql(
                "a",
                Value::Null,
                &[&format!("INSERT INTO t VALUES ({n}, randomblob(5000))")],
            )
            .await;
        times.push(client.latest().await.revision);
        // Each in a millisecond of its own.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let listed = served.ok("GET", "/namespaces/a/revisions", json!({})).await;
    let time_of = |revision: &Revision| {
        let mut all = listed["revisions"].as_array().unwrap().iter();
        all.find(|it| it["revision"] == revision.as_str()).unwrap()["time"].clone()
    };
    for (n, revision) in times.iter().enumerate() {
        for (how, body) in [
            ("r", json!({ "revision": revision.as_str() })),
            ("t", json!({ "timestamp": time_of(revision) })),
        ] {
            let name = format!("{how}{n}");
            let forked = served
                .ok("POST", &format!("/namespaces/a/fork/{name}"), body)
                .await;
            assert_eq!(forked["revision"], revision.as_str());
            assert_eq!(
                shell(&served.path(&name), "SELECT count(*) FROM t"),
                (n + 1).to_string()
            );
        }
    }
    served
        .ok("POST", "/namespaces/a/drop-history", json!({ "all": true }))
        .await;
    let before = served.files();
    for (to, body, expected) in [
        (
            "x",
            json!({ "revision": times[0].as_str() }),
            (410, "REVISION_EXPIRED"),
        ),
        (
            "x",
            json!({ "timestamp": "2001-01-01T00:00:00" }),
            (410, "REVISION_EXPIRED"),
        ),
        ("x", json!({ "timestamp": "yesterday" }), (400, "BAD_REQUEST")),
        (
            "x",
            json!({ "revision": "0000000000000001-1" }),
            (400, "REVISION_UNKNOWN"),
        ),
        ("r0", json!({}), (409, "EXISTS")),
        ("v2", json!({}), (400, "BAD_NAME")),
    ] {
        served
            .refused("POST", &format!("/namespaces/a/fork/{to}"), body, expected)
            .await;
    }
    served
        .refused("POST", "/namespaces/none/fork/x", json!({}), (404, "NOT_FOUND"))
        .await;
    assert_eq!(served.files(), before);
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_leaves_the_reserve_of_the_disk_free() {
    let served = Served::built(&["a"], |builder| {
        builder.limits(Limits {
            disk_reserve: u64::MAX,
            ..Limits::default()
        })
    })
    .await;
    served
        .refused("POST", "/namespaces/a/fork/b", json!({}), (507, "DISK_FULL"))
        .await;
    assert!(served.files().iter().all(|name| name.starts_with("a.db")));
    assert_eq!(served.names().await, ["a"]);
    served.server.shutdown().await;
}
