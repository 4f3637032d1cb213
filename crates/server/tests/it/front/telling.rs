//! What the server tells of itself.

use std::time::Duration;

use partial_sync_server::{Limits, Server, ServerHandle, access::Access, auth::StaticToken};
use partial_sync_transport::PagesRequest;
use serde_json::{Value, json};

use crate::pages::support::{Client, TestDb, insert};

async fn get(server: &ServerHandle, path: &str, token: Option<&str>) -> (u16, String) {
    let request = Client::new("").http.get(format!("{}{path}", server.url()));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn ready(server: &ServerHandle, token: Option<&str>) -> (u16, Value) {
    let (status, text) = get(server, "/ready", token).await;
    (status, serde_json::from_str(&text).unwrap())
}

/// Was red: health was a constant, and there was nothing else to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v16_readiness_tells_what_is_wrong_and_health_that_it_is_alive() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let db = rusqlite::Connection::open(folder.path().join(format!("{name}.db"))).unwrap();
        db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(id)")
            .unwrap();
    }
    let start = async |disk_reserve| {
        Server::builder(folder.path())
            .authenticator(StaticToken::new("sesame", Access::Full))
            .limits(Limits {
                disk_reserve,
                ..Limits::default()
            })
            .listen("127.0.0.1:0")
            .await
            .unwrap()
    };
    let open = async |server: &ServerHandle, name: &str| {
        let url = format!("{}/{name}/pull-updates", server.url());
        let request = Client::new("").http.post(url).bearer_auth("sesame");
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let server = start(0).await;
    open(&server, "a").await;
    open(&server, "b").await;
    assert_eq!(ready(&server, None).await, (200, json!({"status": "ready"})));
    std::fs::rename(folder.path().join("b.db"), folder.path().join("moved")).unwrap();
    let (status, told) = ready(&server, Some("sesame")).await;
    assert_eq!((status, &told["status"]), (503, &json!("not ready")));
    let problem = &told["problems"][0];
    assert_eq!(problem["database"], "b");
    assert_eq!(problem["code"], "FILE_MISSING");
    assert!(!problem["message"].as_str().unwrap().is_empty());
    let (status, told) = ready(&server, None).await;
    assert_eq!(
        (status, &told["problems"][0]["code"]),
        (503, &json!("FILE_MISSING"))
    );
    assert_eq!(told["problems"][0].get("database"), None);
    assert_eq!(get(&server, "/health", None).await.0, 200);
    std::fs::rename(folder.path().join("moved"), folder.path().join("b.db")).unwrap();
    assert_eq!(ready(&server, None).await.0, 200);
    server.shutdown().await;

    let server = start(u64::MAX).await;
    assert_eq!(ready(&server, None).await.0, 200, "none is open");
    open(&server, "a").await;
    let (status, told) = ready(&server, None).await;
    assert_eq!((status, &told["problems"][0]["code"]), (503, &json!("DISK_FULL")));
    server.shutdown().await;
}

/// Was red: it was ready as soon as the file that was not there was let go of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v16_a_server_whose_one_file_cannot_be_used_is_not_ready() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let refused = async || client.ask(PagesRequest::default()).await.unwrap_err().status;
    let code = async || {
        let (status, told) = ready(&server, None).await;
        assert_eq!(status, 503, "{told}");
        told["problems"][0]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(ready(&server, None).await.0, 200);
    std::fs::remove_file(&db.path).unwrap();
    assert_eq!(refused().await, 503);
    assert_eq!(code().await, "FILE_MISSING");
    std::fs::write(&db.path, [b'x'; 8192]).unwrap();
    assert_eq!(refused().await, 500);
    assert_eq!(code().await, "NOT_OPENED");
    std::fs::remove_file(&db.path).unwrap();
    assert_eq!(code().await, "FILE_MISSING");
    drop(db.open());
    assert_eq!(ready(&server, None).await, (200, json!({"status": "ready"})));
    client.latest().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v16_metrics_tell_times_and_what_is_left() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let latest = client.latest().await;
    let poll = PagesRequest {
        since: Some(latest.revision),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let polling = tokio::spawn({
        let client = client.clone();
        async move { client.ask(poll).await }
    });
    let wait_for = async |line: &str| {
        loop {
            let (_, text) = get(&server, "/metrics", None).await;
            if text.contains(line) {
                return text;
            }
        }
    };
    wait_for("partial_sync_waiting_polls 1\n").await;
    insert(&db.open(), 1, 1);
    polling.await.unwrap().unwrap();
    let text = wait_for("partial_sync_waiting_polls 0\n").await;
    assert_eq!(get(&server, "/nothing", None).await.0, 404);
    let text = text + &get(&server, "/metrics", None).await.1;
    for line in [
        r#"partial_sync_request_duration_seconds_count{endpoint="pull-updates",status="200"} 1"#,
        r#"partial_sync_request_duration_seconds_count{endpoint="long-poll",status="200"} 1"#,
        r#"partial_sync_request_duration_seconds_count{endpoint="other",status="404"} 1"#,
        r#"partial_sync_wal_bytes{database=""} "#,
        r#"partial_sync_disk_free_bytes{database=""} "#,
        r#"partial_sync_database_followed{database=""} 1"#,
        "partial_sync_open_descriptors ",
        "partial_sync_threads ",
        "partial_sync_open_connections ",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    server.shutdown().await;
}
