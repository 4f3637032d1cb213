//! Who waits for whom: writers for their turn, one-shot requests for nobody's idle transaction.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use serde_json::json;

use super::server::Server;

/// Was red: SQLite's waiting polls, and one of 64 pushers wrote 88 times while another wrote once; some failed after 5 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v14_of_64_pushers_none_writes_twice_as_often_as_another_and_none_fails() {
    const PUSHERS: usize = 64;
    let server = Arc::new(Server::start().await);
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let left = Arc::new(AtomicUsize::new(PUSHERS * 12));
    let tasks: Vec<_> = (0..PUSHERS)
        .map(|_| {
            let (server, left) = (server.clone(), left.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let steps = ["BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)", "COMMIT"];
                    let given = server.batch(&steps.map(|sql| (json!(null), sql))).await;
                    assert_eq!(given["step_errors"], json!([null, null, null]));
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    let (least, most) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert!(*most < 2 * least, "{done:?}");
}
