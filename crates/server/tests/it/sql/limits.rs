//! What bounds a request: time, the size of the answer, the client's patience; and bodies that are not requests.

use std::time::Duration;

use partial_sync_server::hrana::HranaOptions;
use rusqlite::ErrorCode;
use serde_json::{Value, json};

use super::server::Server;

const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

#[tokio::test]
async fn invariant_10_a_statement_that_runs_too_long_is_interrupted_and_the_stream_goes_on() {
    let server = Server::with_options(HranaOptions {
        statement_timeout: Duration::from_millis(50),
        ..Default::default()
    })
    .await;
    let execute = |sql: &str| json!({"type": "execute", "stmt": {"sql": sql}});
    let answer = server
        .pipeline(None, json!([execute(ENDLESS), execute("SELECT 1"), {"type": "sequence", "sql": ENDLESS}, {"type": "close"}]))
        .await;
    for interrupted in [&answer["results"][0]["error"], &answer["results"][2]["error"]] {
        assert_eq!(interrupted["code"], "SQLITE_INTERRUPT");
        assert!(
            interrupted["message"].as_str().unwrap().contains("50ms"),
            "{interrupted}"
        );
    }
    assert_eq!(answer["results"][1]["type"], "ok");
}

#[tokio::test]
async fn the_statements_of_a_request_have_a_limit_together() {
    let server = Server::with_options(HranaOptions {
        request_timeout: Duration::from_millis(50),
        ..Default::default()
    })
    .await;
    let result = server
        .batch(&[(Value::Null, ENDLESS), (Value::Null, ENDLESS)])
        .await;
    for error in result["step_errors"].as_array().unwrap() {
        assert_eq!(error["code"], "SQLITE_INTERRUPT");
    }
}

/// Was red: short statements look neither at the clock nor at their client, and a sequence of millions ran to its end.
#[tokio::test]
async fn v1_a_sequence_of_short_statements_ends_with_the_time_of_its_request() {
    let server = Server::with_options(HranaOptions {
        request_timeout: Duration::ZERO,
        ..Default::default()
    })
    .await;
    let sql = "CREATE TABLE t(v); INSERT INTO t VALUES (1)";
    let error = server
        .one(json!({"type": "sequence", "sql": sql}))
        .await
        .unwrap_err();
    assert_eq!(error["code"], "SQLITE_INTERRUPT");
    let file = rusqlite::Connection::open(server.path()).unwrap();
    assert!(!file.table_exists(None, "t").unwrap());
}

#[tokio::test]
async fn invariant_11_an_answer_that_grows_too_large_is_an_error_and_the_statement_changes_nothing() {
    let server = Server::with_options(HranaOptions {
        answer_bytes: 10_000,
        ..Default::default()
    })
    .await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    for sql in [
        "SELECT value FROM generate_series(1, 100000)",
        "SELECT zeroblob(9000)",
        "SELECT printf('%.*c', 20000, 'x')",
        "INSERT INTO t SELECT value FROM generate_series(1, 1000) RETURNING v",
    ] {
        let error = server.execute(sql).await.unwrap_err();
        assert_eq!(error["code"], "RESPONSE_TOO_LARGE", "{sql}");
    }
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "0");
    let steps = vec![(Value::Null, "INSERT INTO t VALUES (1)"); 200];
    let batch = super::server::batch(&steps);
    let refused = server
        .one(json!({"type": "batch", "batch": batch}))
        .await
        .unwrap_err();
    assert_eq!(refused["code"], "RESPONSE_TOO_LARGE");
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "0");
}

/// Was red: a character that JSON writes as six counted as one.
#[tokio::test]
async fn v2_an_answer_of_characters_that_json_escapes_is_not_larger_than_allowed() {
    let server = Server::with_options(HranaOptions {
        answer_bytes: 10_000,
        ..Default::default()
    })
    .await;
    let control = "replace(hex(zeroblob(1000)), '0', char(1))";
    let name = "\u{1}".repeat(2000);
    for sql in [
        format!("SELECT {control}"),
        format!("SELECT 1 AS \"{name}\""),
        format!("SELECT 1 FROM t WHERE v = json_each.\"{name}\""),
    ] {
        let error = server.execute(&sql).await.unwrap_err();
        assert!(error.to_string().len() < 10_000, "{}", error["code"]);
    }
    server
        .execute(&format!("SELECT length({control})"))
        .await
        .unwrap();
}

#[tokio::test]
async fn invariant_11_sqlite_builds_no_value_beyond_the_limit() {
    let server = Server::with_options(HranaOptions {
        value_bytes: 1 << 20,
        ..Default::default()
    })
    .await;
    let error = server
        .execute("SELECT length(zeroblob(2000000))")
        .await
        .unwrap_err();
    assert_eq!(error["code"], "SQLITE_TOOBIG");
}

#[tokio::test]
async fn invariant_10_a_client_that_goes_away_frees_the_lock_its_request_held() {
    let server = Server::start().await;
    let requests = json!([
        {"type": "execute", "stmt": {"sql": "BEGIN IMMEDIATE"}},
        {"type": "execute", "stmt": {"sql": ENDLESS}},
    ]);
    let sqlite = rusqlite::Connection::open(server.path()).unwrap();
    sqlite.busy_timeout(Duration::ZERO).unwrap();
    let locked = async {
        loop {
            match sqlite.execute_batch("BEGIN IMMEDIATE") {
                Ok(()) => sqlite.execute_batch("ROLLBACK").unwrap(),
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => return,
                Err(e) => panic!("{e}"),
            }
            tokio::task::yield_now().await;
        }
    };
    // When the lock is seen, the request is dropped, and with it its TCP connection.
    tokio::select! {
        _ = server.pipeline(None, requests) => panic!("an endless query ended"),
        () = locked => {}
    }
    let free = tokio::task::spawn_blocking(move || {
        sqlite.busy_timeout(Duration::from_secs(20)).unwrap();
        sqlite.execute_batch("BEGIN IMMEDIATE")
    });
    free.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_with_what_is_wrong_with_it() {
    let server = Server::start().await;
    for body in [
        json!(null),
        json!({"requests": [{"type": "frobnicate"}]}),
        json!({"requests": [{"type": "execute"}]}),
        json!({"requests": [{"type": "execute", "stmt": {"sql": "SELECT ?", "args": [{"type": "blob", "base64": "!"}]}}]}),
    ] {
        let (status, answer) = server.send("/v2/pipeline", None, &body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("BAD_REQUEST")), "{body}");
        assert!(
            answer["error"]
                .as_str()
                .unwrap()
                .starts_with("the body is not a Hrana request")
        );
    }
}

#[tokio::test]
async fn invariant_11_a_condition_nested_without_end_is_an_error() {
    let server = Server::start().await;
    let condition = format!(
        "{}{}{}",
        r#"{"type":"not","cond":"#.repeat(5000),
        r#"{"type":"ok","step":0}"#,
        "}".repeat(5000)
    );
    let body = format!(
        r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{{"condition":{condition},"stmt":{{"sql":"SELECT 1"}}}}]}}}}]}}"#
    );
    let response = reqwest::Client::new()
        .post(format!("{}/v2/pipeline", server.url))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_client_can_ask_which_versions_are_spoken() {
    let server = Server::start().await;
    for (path, status) in [
        ("/v2", 200),
        ("/v3", 200),
        ("/v3-protobuf", 200),
        ("/v2/cursor", 404),
        ("/v3-protobuf/cursor", 405),
        ("/v2/pipeline", 405),
        ("/v9", 404),
    ] {
        assert_eq!(server.get(path).await, status, "{path}");
    }
}

/// Was red: it was the server's error. Found by the test below.
#[tokio::test]
async fn invariant_11_a_body_that_is_not_utf_8_in_a_field_that_is_ignored_is_refused() {
    let server = Server::start().await;
    let post = reqwest::Client::new().post(format!("{}/v3/pipeline", server.url));
    let answer = post
        .body(b"{\"requests\":[{\"type\":\"close\",\"x\":\"\xff\"}]}".to_vec())
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 400);
}

#[tokio::test]
async fn invariant_11_a_damaged_body_is_answered_and_never_a_crash() {
    let server = Server::start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let whole = json!({"baton": null, "requests": [
        {"type": "store_sql", "sql_id": 1, "sql": "SELECT :a, ?2"},
        {"type": "execute", "stmt": {"sql_id": 1, "args": [{"type": "integer", "value": "1"}, {"type": "float", "value": 2.5}],
            "named_args": [{"name": "a", "value": {"type": "blob", "base64": "AAEC"}}]}},
        {"type": "batch", "batch": {"steps": [{"condition": {"type": "not", "cond": {"type": "is_autocommit"}},
            "stmt": {"sql": "SELECT 1", "want_rows": false}}]}},
        {"type": "sequence", "sql": "SELECT 1; SELECT 2"},
        {"type": "describe", "sql": "SELECT 1"},
        {"type": "close"},
    ]})
    .to_string();
    let client = reqwest::Client::new();
    for _ in 0..400 {
        let mut body = whole.clone().into_bytes();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..body.len());
            match rng.u8(..3) {
                0 => body[at] = rng.u8(..),
                1 => body.truncate(at.max(1)),
                _ => body[at] = b"\"{}[]:,0-1e\\n"[rng.usize(..13)],
            }
        }
        let answer = client
            .post(format!("{}/v3/pipeline", server.url))
            .body(body.clone())
            .send();
        let status = answer.await.unwrap().status().as_u16();
        assert!(
            [200, 400].contains(&status),
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    server.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_an_error_that_does_not_say_where_it_is() {
    let server = Server::start().await;
    std::fs::remove_file(server.path()).unwrap();
    let body = json!({"requests": [{"type": "close"}]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!((status, &answer["code"]), (500, &json!("SQLITE_CANTOPEN")));
    assert!(
        !answer["message"].as_str().unwrap().contains("served.db"),
        "{answer}"
    );
}
