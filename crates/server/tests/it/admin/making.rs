//! Databases that are made, listed and measured while the server runs, and the revisions that they keep.

use partial_sync_core::Revision;
use partial_sync_transport::PagesRequest;
use serde_json::{Value, json};

use super::support::Served;
use crate::pages::support::{ids, shell};

fn revision(value: &Value) -> Revision {
    Revision::new(value.as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_made_while_the_server_runs_and_is_used_at_once() {
    let served = Served::new(&["b"]).await;
    served.ok("POST", "/namespaces/a/create", json!({})).await;
    assert_eq!(served.names().await, ["a", "b"]);
    let page = served.ok("GET", "/namespaces?limit=1", json!({})).await;
    assert_eq!(
        (
            page["next"].as_str(),
            page["namespaces"].as_array().unwrap().len()
        ),
        (Some("a"), 1)
    );
    let rest = served.ok("GET", "/namespaces?after=a", json!({})).await;
    assert_eq!(
        (&rest["next"], &rest["namespaces"][0]["name"]),
        (&Value::Null, &json!("b"))
    );

    let (status, _) = served
        .sql(
            "a",
            Value::Null,
            &["CREATE TABLE x(y)", "INSERT INTO x VALUES (7)"],
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(shell(&served.path("a"), "SELECT y FROM x"), "7");
    assert_eq!(served.client("a").latest().await.whole().len(), 2);

    served
        .refused("POST", "/namespaces/a/create", json!({}), (409, "EXISTS"))
        .await;
    for name in ["..", ".a", "a%2Fb", "v2", "metrics", "a b", &"x".repeat(201), ""] {
        let path = format!("/namespaces/{}/create", name.replace(' ', "%20"));
        let (status, told) = served.ask("POST", &path, json!({})).await;
        assert!(matches!(status, 400 | 404 | 405), "{name}: {status} {told}");
    }
    assert_eq!(served.names().await, ["a", "b"]);
    // What another database has left is not taken for a part of a new one.
    std::fs::write(served.folder.path().join("c.db-wal"), [1; 4096]).unwrap();
    served
        .refused("POST", "/namespaces/c/create", json!({}), (409, "LEFTOVER"))
        .await;
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_and_revisions_are_told_and_history_is_dropped() {
    let served = Served::new(&["a"]).await;
    let client = served.client("a");
    let mut kept = vec![client.latest().await.revision];
    for n in 0..5 {
        let insert = format!("INSERT INTO t VALUES ({n}, randomblob(9000))");
        assert_eq!(served.sql("a", Value::Null, &[&insert]).await.0, 200);
        kept.push(client.latest().await.revision);
    }
    let stats = served.ok("GET", "/namespaces/a/stats", json!({})).await;
    assert_eq!(
        (stats["revisions"].as_u64(), revision(&stats["revision"])),
        (Some(6), kept[5].clone())
    );
    let bytes = |name: &str| stats[name].as_u64().unwrap();
    assert!(
        bytes("history_bytes") > 0 && bytes("file_bytes") + bytes("wal_bytes") > 45_000,
        "{stats}"
    );
    assert_eq!(
        bytes("storage_bytes_used"),
        bytes("file_bytes") + bytes("wal_bytes") + bytes("history_bytes")
    );

    let listed = served
        .ok("GET", "/namespaces/a/revisions?limit=4", json!({}))
        .await;
    let told: Vec<_> = listed["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| revision(&it["revision"]))
        .collect();
    assert!(told.iter().eq(kept.iter().rev().take(4)), "{listed}");
    let rest = format!(
        "/namespaces/a/revisions?before={}",
        listed["next"].as_str().unwrap()
    );
    let rest = served.ok("GET", &rest, json!({})).await;
    assert_eq!(
        (rest["revisions"].as_array().unwrap().len(), &rest["next"]),
        (2, &Value::Null)
    );

    // Small requests for these are answered from memory.
    let one = async |revision: &Revision| {
        let request = PagesRequest {
            revision: Some(revision.clone()),
            select: ids([0]),
            ..PagesRequest::default()
        };
        client.ask(request).await.map_err(|refused| refused.status)
    };
    for revision in &kept {
        one(revision).await.unwrap();
    }
    let before = json!({ "before": kept[3].as_str() });
    let dropped = served.ok("POST", "/namespaces/a/drop-history", before).await;
    assert_eq!(revision(&dropped["oldest"]), kept[3]);
    let refused = client.since(&kept[2]).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (410, "REVISION_EXPIRED"));
    client.since(&kept[3]).await.unwrap();
    served
        .ok("POST", "/namespaces/a/drop-history", json!({ "all": true }))
        .await;
    client.since(&kept[5]).await.unwrap();
    assert_eq!(client.at(&kept[4]).await.unwrap_err().status, 410);
    for revision in &kept[..5] {
        assert_eq!(one(revision).await.err(), Some(410));
    }
    let unknown = json!({ "before": "0000000000000001-1" });
    served
        .refused(
            "POST",
            "/namespaces/a/drop-history",
            unknown,
            (400, "REVISION_UNKNOWN"),
        )
        .await;
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_database_that_is_not_open_writes_nothing() {
    let served = Served::new(&["a"]).await;
    let look = async |path: &str| {
        served
            .with("viewer", "GET", &format!("/v1/namespaces{path}"), json!({}))
            .await
    };
    assert_eq!(look("").await.0, 200);
    let (status, stats) = look("/a/stats").await;
    let bytes = std::fs::metadata(served.path("a")).unwrap().len();
    assert_eq!(status, 200);
    assert_eq!(
        stats,
        json!({
            "name": "a", "open": false, "storage_bytes_used": bytes, "file_bytes": bytes, "wal_bytes": 0, "history_bytes": 0,
            "page_size": 4096, "pages": bytes / 4096, "revision": null, "revisions": null, "history_reach_seconds": null,
        })
    );
    let (status, told) = look("/a/revisions").await;
    assert_eq!((status, told["code"].as_str()), (409, Some("NOT_OPEN")));
    for path in ["/none/stats", "/none/revisions"] {
        assert_eq!(look(path).await.0, 404);
    }
    assert_eq!(served.files(), ["a.db"]);
    // An administrator may open it by asking for its revisions, and then everybody may look.
    assert_eq!(
        served.ok("GET", "/namespaces/a/stats", json!({})).await["open"],
        false
    );
    assert_eq!(served.files(), ["a.db"]);
    served.ok("GET", "/namespaces/a/revisions", json!({})).await;
    let (_, stats) = look("/a/stats").await;
    assert_eq!((&stats["open"], &stats["revisions"]), (&json!(true), &json!(1)));
    assert_eq!(look("/a/revisions").await.0, 200);
    served.server.shutdown().await;
}

/// Was red: the header was read through a descriptor of its own, with which all locks of this process on the file went, also those of
/// a database that was opened in the same moment. Another program then took its WAL away, with commits that had been answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_a_database_takes_no_locks_away() {
    let served = Served::new(&["a"]).await;
    // As one that is being opened.
    let open = rusqlite::Connection::open(served.path("a")).unwrap();
    open.execute_batch("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES (1)")
        .unwrap();
    let stats = served.ok("GET", "/namespaces/a/stats", json!({})).await;
    assert_eq!(
        (&stats["open"], &stats["page_size"]),
        (&json!(false), &json!(4096))
    );
    let other = std::process::Command::new("sqlite3")
        .arg(served.path("a"))
        .arg("INSERT INTO t(v) VALUES (2)")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("locked"),
        "another process writes beside a transaction of this one: {other:?}"
    );
    open.execute_batch("COMMIT").unwrap();
    served.server.shutdown().await;
}
