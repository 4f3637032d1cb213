//! What was answered survives a power cut, and many commits wait for the disk together.

use partial_sync_server::Server;
use serde_json::{Value, json};

use crate::pages::support::{Client, TestDb};

async fn pipeline(client: &Client, sql: &[&str]) -> Value {
    let steps: Vec<_> = sql.iter().map(|sql| json!({"stmt": {"sql": sql}})).collect();
    let body = json!({"requests": [{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}]});
    let request = client.http.post(format!("{}/v2/pipeline", client.url));
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let result = answer["results"][0]["response"]["result"].clone();
    assert_eq!(result["step_errors"], json!(vec![Value::Null; sql.len()]));
    result
}

/// How often the write-ahead log was put on the disk.
async fn syncs(client: &Client) -> u64 {
    let metrics = client
        .http
        .get(format!("{}/metrics", client.url))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("partial_sync_wal_syncs{database=\"\"} "));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_on_the_disk_before_its_answer_and_many_share_the_wait() {
    const CLIENTS: usize = 64;
    const EACH: usize = 10;
    let db = TestDb::new();
    let server = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    // SQLite does not wait for the disk: the server does.
    let answer = pipeline(&client, &["PRAGMA synchronous"]).await;
    assert_eq!(answer["step_results"][0]["rows"][0][0]["value"], "1");
    let before = syncs(&client).await;
    pipeline(&client, &["INSERT INTO t(v) VALUES (1)"]).await;
    let one = syncs(&client).await - before;
    assert!(one > 0);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client.clone();
        clients.spawn(async move {
            for _ in 0..EACH {
                pipeline(
                    &client,
                    &["BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES (1)", "COMMIT"],
                )
                .await;
            }
        });
    }
    clients.join_all().await;
    let shared = syncs(&client).await - before - one;
    assert!(shared > 0 && shared < (CLIENTS * EACH) as u64, "{shared}");
    server.shutdown().await;
}
