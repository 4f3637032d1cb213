//! What a client could ask for that would stop the server for others: memory, processors and disk have limits of their own, and an
//! end.

use std::{sync::Arc, time::Duration};

use partial_sync_server::{
    access::Access,
    auth::{AnyOf, StaticToken},
    hrana::HranaOptions,
};
use serde_json::{Value, json};

use super::server::Server;

async fn with_reader(options: HranaOptions) -> Server {
    let auth = AnyOf(vec![
        Box::new(StaticToken::new("reader", Access::ReadOnly)),
        Box::new(StaticToken::new("writer", Access::Full)),
    ]);
    Server::start_with(options, auth).await
}

impl Server {
    /// Executes one statement as the bearer of a token.
    async fn as_bearer(&self, token: &str, sql: &str) -> Result<Value, Value> {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
        let (status, answer) = self.send("/v2/pipeline", Some(token), &body).await;
        assert_eq!(status, 200, "{answer}");
        super::server::outcome(&answer["results"][0])
    }

    /// Sends a body that is not made from values here.
    async fn raw(&self, body: String) -> (u16, Value) {
        let client = reqwest::Client::new();
        let sent = client.post(format!("{}/v2/pipeline", self.url)).body(body);
        let answer = sent.send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
        )
    }
}

/// What the process has in memory, and what it has had at most since this was asked with `forget`.
#[cfg(target_os = "linux")]
fn resident(field: &str, forget: bool) -> u64 {
    if forget {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn v2_a_body_of_a_million_small_steps_takes_little_more_than_its_bytes() {
    let server = Server::start().await;
    let steps = r#"{"stmt":{}},"#.repeat(1_000_000);
    let json = format!(r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{steps}{{"stmt":{{}}}}]}}}}]}}"#);
    drop(steps);
    let protobuf = super::protobuf::batch(&[[0x0a, 0].repeat(8_000_000)]);
    for (path, body) in [
        ("/v3/pipeline", json.into_bytes()),
        ("/v3-protobuf/pipeline", protobuf),
    ] {
        let size = body.len() as u64;
        let before = resident("VmRSS", true);
        let (status, answer) = server.send_bytes(path, body).await;
        let most = resident("VmHWM", false).saturating_sub(before);
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!("BATCH_TOO_LARGE")));
        // The body is here twice, as it is sent and as it comes; other tests run beside this one. It was 35 times the size.
        assert!(
            most < 8 * size + (64 << 20),
            "{path}: {most} bytes for a body of {size}"
        );
    }
}

#[tokio::test]
async fn v2_one_request_too_many_is_refused_before_anything_runs() {
    let server = Server::with_options(HranaOptions {
        pipeline_requests: 3,
        ..Default::default()
    })
    .await;
    let make = json!({"type": "execute", "stmt": {"sql": "CREATE TABLE t(v)"}});
    let body = json!({"requests": [make, {"type": "close"}, {"type": "close"}, {"type": "close"}]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!((status, &answer["code"]), (400, &json!("BATCH_TOO_LARGE")));
    assert!(
        answer["message"].as_str().unwrap().contains("4 requests"),
        "{answer}"
    );
    assert!(server.column("SELECT name FROM sqlite_schema").await.is_empty());
}

#[tokio::test]
async fn v2_a_body_that_is_wrong_in_its_last_step_runs_nothing() {
    let server = Server::start().await;
    let step = r#"{"stmt":{"sql":"CREATE TABLE t(v)"}}"#;
    for wrong in [
        r#"{"stmt":{"args":[{"type":"integer","value":"x"}]}}"#,
        r#"{"condition":{"type":"and"},"stmt":{}}"#,
        "{}",
    ] {
        let body = format!(r#"{{"requests":[{{"batch":{{"steps":[{step},{wrong}]}},"type":"batch"}}]}}"#);
        let (status, answer) = server.raw(body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("BAD_REQUEST")));
    }
    let arguments = vec!["{\"type\":\"null\"}"; 32_767].join(",");
    let body =
        format!(r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"SELECT 1","args":[{arguments}]}}}}]}}"#);
    let (_, answer) = server.raw(body).await;
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("at most 32766 arguments"),
        "{answer}"
    );
    assert!(server.column("SELECT name FROM sqlite_schema").await.is_empty());
}

#[tokio::test]
async fn v2_errors_have_their_share_of_the_answer_too() {
    let server = Server::with_options(HranaOptions {
        answer_bytes: 1 << 20,
        ..Default::default()
    })
    .await;
    // Each of them names a table with a long name, in an error.
    let sql = format!("SELECT * FROM t{}", "x".repeat(100_000));
    let steps = vec![json!({"stmt": {"sql_id": 1}}); 1000];
    let body = json!({"requests": [
        {"type": "store_sql", "sql_id": 1, "sql": sql},
        {"type": "batch", "batch": {"steps": steps}},
        {"type": "describe", "sql_id": 1},
    ]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!(status, 200);
    let errors = &answer["results"][1]["response"]["result"]["step_errors"];
    assert_eq!(errors.as_array().unwrap().len(), 1000);
    assert!(
        errors
            .as_array()
            .unwrap()
            .iter()
            .all(|error| error["code"] == "SQLITE_ERROR")
    );
    assert!(answer.to_string().len() < 2 << 20);
}

#[tokio::test]
async fn v1_what_takes_the_product_of_two_lengths_ends() {
    let server = with_reader(HranaOptions::default()).await;
    for sql in [
        "SELECT instr(printf('%.*c', 3000000, 'a'), printf('%.*cb', 1500000, 'a'))",
        "SELECT length(replace(printf('%.*c', 3000000, 'a'), printf('%.*cb', 1500000, 'a'), ''))",
        "SELECT length(trim(printf('%.*c', 3000000, 'a'), printf('%.*ca', 60000, 'b')))",
    ] {
        for token in ["reader", "writer"] {
            server.as_bearer(token, sql).await.unwrap();
        }
    }
}

#[tokio::test]
async fn v1_patterns_and_values_of_readers_are_short() {
    let server = with_reader(HranaOptions::default()).await;
    let long = "SELECT 'a' LIKE printf('%.*c', 257, 'a')";
    let refused = server.as_bearer("reader", long).await.unwrap_err();
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("pattern too complex"),
        "{refused}"
    );
    server.as_bearer("writer", long).await.unwrap();
    let large = "SELECT length(zeroblob(16777217))";
    assert_eq!(
        server.as_bearer("reader", large).await.unwrap_err()["code"],
        "SQLITE_TOOBIG"
    );
    server.as_bearer("writer", large).await.unwrap();
}

const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

#[tokio::test]
async fn v1_one_caller_does_not_take_all_turns() {
    let server = Arc::new(
        with_reader(HranaOptions {
            concurrent_requests: 8,
            caller_requests: 2,
            statement_timeout: Duration::from_secs(600),
            ..Default::default()
        })
        .await,
    );
    let hogs: Vec<_> = (0..20)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.as_bearer("reader", ENDLESS).await })
        })
        .collect();
    // Without a share for each caller they have all eight turns, for ten minutes.
    for _ in 0..20 {
        tokio::task::yield_now().await;
        server.as_bearer("writer", "SELECT 1").await.unwrap();
    }
    for hog in hogs {
        hog.abort();
    }
}

#[tokio::test]
async fn v3_a_reader_that_takes_much_memory_is_ended() {
    let server = with_reader(HranaOptions {
        reader_memory_bytes: Some(96 << 20),
        ..Default::default()
    })
    .await;
    let columns: Vec<_> = (0..16)
        .map(|n| format!("length(group_concat(hex(zeroblob({})), ''))", 50_000 + n))
        .collect();
    let sql = format!("SELECT {} FROM generate_series(1, 100)", columns.join(", "));
    let refused = server.as_bearer("reader", &sql).await.unwrap_err();
    assert_eq!(refused["code"], "SQLITE_NOMEM", "{refused}");
    assert!(
        refused["message"].as_str().unwrap().contains("try again later"),
        "{refused}"
    );
    server.as_bearer("reader", "SELECT 1").await.unwrap();
    server.as_bearer("writer", &sql).await.unwrap();
}

#[tokio::test]
async fn v5_temporary_files_have_a_quota() {
    let server = with_reader(HranaOptions {
        temporary_bytes: 64 << 20,
        ..Default::default()
    })
    .await;
    let sort = |rows: u32| {
        format!(
            "SELECT count(*) FROM (SELECT value FROM generate_series(1, {rows})
             ORDER BY printf('%0500d', value * 7919 % 1000003) LIMIT -1 OFFSET 1)"
        )
    };
    // 25 MB: more than a reader's quarter.
    let refused = server.as_bearer("reader", &sort(50_000)).await.unwrap_err();
    assert_eq!(refused["code"], "SQLITE_FULL");
    assert!(
        refused["message"].as_str().unwrap().contains("fewer rows"),
        "{refused}"
    );
    server.as_bearer("reader", &sort(10_000)).await.unwrap();
    server.as_bearer("writer", &sort(50_000)).await.unwrap();
    let refused = server.as_bearer("writer", &sort(200_000)).await.unwrap_err();
    assert_eq!(refused["code"], "SQLITE_FULL");
    // What was refused was given back.
    server.as_bearer("writer", &sort(50_000)).await.unwrap();
}
