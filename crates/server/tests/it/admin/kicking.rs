//! What is open is ended: in a database, or of a caller.

use std::sync::Arc;

use partial_sync_server::Limits;
use serde_json::{Value, json};

use super::{
    deleting::{poll, wait_for_polls},
    support::Served,
};
use crate::pages::support::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_ends_what_is_open_in_a_database_and_nothing_else() {
    let served = Arc::new(Served::new(&["a", "b"]).await);
    let (a, b) = (served.client("a"), served.client("b"));
    let begin = ["BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES ('undone')"];
    let (_, in_a) = served.sql("a", Value::Null, &begin).await;
    let (_, in_b) = served.sql("b", Value::Null, &begin).await;
    let (polls_a, polls_b) = (poll(&a, &a.latest().await), poll(&b, &b.latest().await));
    wait_for_polls(&served, 2).await;

    let kicked = served.ok("POST", "/namespaces/a/kick", json!({})).await;
    assert_eq!(kicked["page_requests"], 1);
    let told = polls_a.await.unwrap().unwrap_err();
    assert_eq!((told.status, told.code.as_str()), (503, "KICKED"));
    let (status, told) = served.sql("a", in_a["baton"].clone(), &["COMMIT"]).await;
    assert_eq!((status, told["code"].as_str()), (400, Some("STREAM_EXPIRED")));
    // The lock is free at once, and nothing of it is there.
    let (status, answer) = served
        .sql("a", Value::Null, &["INSERT INTO t(v) VALUES ('next')"])
        .await;
    assert_eq!((status, answer["results"][0]["type"].as_str()), (200, Some("ok")));
    let (status, done) = served.sql("b", in_b["baton"].clone(), &["COMMIT"]).await;
    assert_eq!(
        (status, done["results"][0]["type"].as_str()),
        (200, Some("ok")),
        "{done}"
    );
    assert!(
        !polls_b.await.unwrap().unwrap().pages.is_empty(),
        "it waited for that commit"
    );

    // A statement that runs is interrupted, and its client is told.
    let running = tokio::spawn({
        let served = served.clone();
        async move {
            let long =
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
            served.sql("a", Value::Null, &[long]).await
        }
    });
    while !running.is_finished() {
        served.ok("POST", "/namespaces/a/kick", json!({})).await;
    }
    let (status, told) = running.await.unwrap();
    assert_eq!(
        (status, told["results"][0]["error"]["code"].as_str()),
        (200, Some("SQLITE_INTERRUPT")),
        "{told}"
    );
}

/// Was red: the connection was closed as soon as it could be, and long polls of other databases on it ended at once, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_leaves_other_databases_on_the_same_connection_alone() {
    let served = Served::new(&["a", "b"]).await;
    let http = Client::http2();
    let [a, b] = ["a", "b"].map(|name| Client {
        http: http.clone(),
        url: served.client(name).url,
        ..Client::new("")
    });
    let (polls_a, polls_b) = (poll(&a, &a.latest().await), poll(&b, &b.latest().await));
    wait_for_polls(&served, 2).await;
    served.ok("POST", "/namespaces/a/kick", json!({})).await;
    assert_eq!(polls_a.await.unwrap().unwrap_err().code, "KICKED");
    served
        .sql("b", Value::Null, &["INSERT INTO t(v) VALUES ('b')"])
        .await;
    assert!(!polls_b.await.unwrap().unwrap().pages.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kick_ends_what_a_caller_has_open_in_all_databases() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "full one first\nfull two second\n").unwrap();
    let served = Served::built(&["a", "b"], |builder| builder.auth_token_file(tokens.path())).await;
    let http = Client::new("").http;
    let begin = async |token: &str, name: &str| {
        let body = r#"{"requests":[{"type":"execute","stmt":{"sql":"BEGIN"}},{"type":"execute","stmt":{"sql":"SELECT 1"}}]}"#;
        let asked = http
            .post(format!("{}/{name}/v2/pipeline", served.server.url()))
            .bearer_auth(token);
        let answer = asked
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap()["baton"].clone()
    };
    let go_on = async |token: &str, name: &str, baton: &Value| {
        let body = json!({ "baton": baton, "requests": [] }).to_string();
        let asked = http
            .post(format!("{}/{name}/v2/pipeline", served.server.url()))
            .bearer_auth(token);
        asked
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap()
            .status()
    };
    let open = [
        ("one", "a", begin("one", "a").await),
        ("one", "b", begin("one", "b").await),
        ("two", "a", begin("two", "a").await),
    ];
    served.ok("POST", "/kick", json!({ "caller": "nobody" })).await;
    served
        .ok("POST", "/kick", json!({ "address": "192.0.2.1" }))
        .await;
    served.ok("POST", "/kick", json!({ "caller": "first" })).await;
    let mut after = vec![];
    for (token, name, baton) in &open {
        after.push(go_on(token, name, baton).await.as_u16());
    }
    assert_eq!(after, [400, 400, 200]);
    served.server.shutdown().await;
}

/// What a proxy says is believed if it is trusted, and the rest of the list is what its client said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_trusted_proxy_are_told_apart_by_their_addresses() {
    let limits = Limits {
        requests_per_caller: 1,
        ..Limits::default()
    };
    for trusted in [true, false] {
        let served = Served::built(&["a"], |builder| match trusted {
            true => builder.limits(limits.clone()).trusted_proxy("127.0.0.0/8"),
            false => builder.limits(limits.clone()),
        })
        .await;
        let since = served.client("a").latest().await;
        let poll = |forwarded: &str| {
            let url = format!("{}/a", served.server.url());
            poll(&Client::through_proxy(&url, forwarded), &since)
        };
        let first = poll("198.51.100.1");
        wait_for_polls(&served, 1).await;
        let spoofed = poll("1.1.1.1, 198.51.100.1");
        assert_eq!(spoofed.await.unwrap().unwrap_err().status, 429, "{trusted}");
        let second = poll("198.51.100.1, 198.51.100.2");
        if trusted {
            wait_for_polls(&served, 2).await;
        } else {
            assert_eq!(second.await.unwrap().unwrap_err().status, 429);
            served.server.shutdown().await;
            continue;
        }
        let kicked = json!({ "address": "198.51.100.1" });
        let told = served.ok("POST", "/kick", kicked).await;
        assert_eq!(told["page_requests"], 1);
        assert_eq!(first.await.unwrap().unwrap_err().code, "KICKED");
        wait_for_polls(&served, 1).await;
        assert!(!second.is_finished());
        served.server.shutdown().await;
    }
}
