//! Batons: interactive transactions over several requests, their end, and streams side by side.

use std::time::Duration;

use partial_sync_server::{
    access::{Access, SqlEndpoint as _},
    auth::{AnyOf, StaticToken},
    hrana::HranaOptions,
};
use serde_json::{Value, json};

use super::server::{Server, outcome};

fn execute(sql: &str) -> Value {
    json!({"type": "execute", "stmt": {"sql": sql}})
}

fn baton(answer: &Value) -> String {
    answer["baton"].as_str().expect("a baton").to_owned()
}

async fn table(server: &Server) {
    server.execute("CREATE TABLE t(v)").await.unwrap();
}

async fn count(server: &Server) -> Value {
    server.column("SELECT count(*) FROM t").await[0]["value"].clone()
}

#[tokio::test]
async fn a_transaction_goes_on_under_a_new_baton_each_time_and_commits() {
    let server = Server::start().await;
    table(&server).await;
    let commits = server.commits();
    let first = server.pipeline(None, json!([execute("BEGIN")])).await;
    let second = server
        .pipeline(Some(&baton(&first)), json!([execute("INSERT INTO t VALUES (1)")]))
        .await;
    assert_ne!(baton(&first), baton(&second));
    assert_eq!(count(&server).await, "0", "not committed yet");
    assert_eq!(server.commits(), commits);
    assert_eq!(server.hrana.open_batons(), 1);
    let last =
        json!([{"type": "get_autocommit"}, execute("COMMIT"), {"type": "get_autocommit"}, {"type": "close"}]);
    let third = server.pipeline(Some(&baton(&second)), last).await;
    assert_eq!(third["baton"], Value::Null);
    assert_eq!(
        third["results"][0]["response"],
        json!({"type": "get_autocommit", "is_autocommit": false})
    );
    assert_eq!(
        third["results"][2]["response"],
        json!({"type": "get_autocommit", "is_autocommit": true})
    );
    assert_eq!(third["results"][3]["response"], json!({"type": "close"}));
    assert_eq!(count(&server).await, "1");
    assert_eq!(server.commits(), commits + 1);
    assert_eq!(server.hrana.open_batons(), 0);
}

#[tokio::test]
async fn closing_a_stream_rolls_its_transaction_back() {
    let server = Server::start().await;
    table(&server).await;
    let requests = json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)")]);
    let open = server.pipeline(None, requests).await;
    server
        .pipeline(Some(&baton(&open)), json!([{"type": "close"}]))
        .await;
    assert_eq!(count(&server).await, "0");
    server.execute("INSERT INTO t VALUES (2)").await.unwrap();
}

#[tokio::test]
async fn a_used_an_unknown_and_a_closed_baton_are_refused() {
    let server = Server::start().await;
    let first = server.pipeline(None, json!([execute("BEGIN")])).await;
    let second = server
        .pipeline(Some(&baton(&first)), json!([execute("SELECT 1")]))
        .await;
    server
        .pipeline(Some(&baton(&second)), json!([{"type": "close"}]))
        .await;
    for token in [baton(&first), baton(&second), "guess".to_owned()] {
        let body = json!({"baton": token, "requests": []});
        let (status, answer) = server.send("/v3/pipeline", None, &body).await;
        assert_eq!((status, &answer["code"]), (400, &json!("STREAM_EXPIRED")));
        assert!(answer["message"].as_str().unwrap().contains("rolled back"));
    }
}

#[tokio::test]
async fn of_two_requests_with_the_same_baton_one_is_served() {
    let server = Server::start().await;
    let open = server.pipeline(None, json!([execute("BEGIN")])).await;
    let body = json!({"baton": baton(&open), "requests": [execute("SELECT 1")]});
    let (a, b) = tokio::join!(
        server.send("/v2/pipeline", None, &body),
        server.send("/v2/pipeline", None, &body)
    );
    let mut statuses = [a.0, b.0];
    statuses.sort();
    assert_eq!(statuses, [200, 400]);
}

#[tokio::test]
async fn invariant_10_a_baton_that_is_not_used_expires_and_its_transaction_is_rolled_back() {
    let server = Server::with_options(HranaOptions {
        baton_idle: Duration::from_millis(30),
        ..Default::default()
    })
    .await;
    table(&server).await;
    let mut batons = server.hrana.watch_batons();
    let requests = json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)")]);
    let open = server.pipeline(None, requests).await;
    batons.wait_for(|open| *open == 0).await.unwrap();
    let body = json!({"baton": baton(&open), "requests": [execute("COMMIT")]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!((status, &answer["code"]), (400, &json!("STREAM_EXPIRED")));
    server.execute("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(
        server.column("SELECT v FROM t").await,
        [json!({"type": "integer", "value": "2"})]
    );
}

/// Every request would put the idle limit off; this one counts from the beginning of the transaction.
#[tokio::test]
async fn invariant_10_a_transaction_that_is_open_too_long_is_rolled_back_however_busy_its_client_is() {
    let server = Server::with_options(HranaOptions {
        baton_idle: Duration::from_secs(3600),
        transaction_timeout: Duration::from_millis(50),
        ..Default::default()
    })
    .await;
    table(&server).await;
    let idle = server
        .pipeline(None, json!([execute("PRAGMA foreign_keys = on")]))
        .await;
    let mut open = server
        .pipeline(
            None,
            json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)")]),
        )
        .await;
    loop {
        let body = json!({"baton": baton(&open), "requests": [execute("SELECT 1")]});
        let (status, answer) = server.send("/v2/pipeline", None, &body).await;
        if status == 400 {
            assert_eq!(answer["code"], "STREAM_EXPIRED");
            break;
        }
        open = answer;
    }
    server.execute("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(count(&server).await, "1");
    let rest = server
        .pipeline(Some(&baton(&idle)), json!([execute("PRAGMA foreign_keys")]))
        .await;
    let rows = &rest["results"][0]["response"]["result"]["rows"];
    assert_eq!(
        rows[0][0]["value"], "1",
        "a stream without a transaction has no such limit"
    );
}

#[tokio::test]
async fn a_baton_is_good_for_the_rights_it_was_given_for() {
    let server = Server::with_auth(AnyOf(vec![
        Box::new(StaticToken::new("reader", Access::ReadOnly)),
        Box::new(StaticToken::new("writer", Access::Full)),
    ]))
    .await;
    let body = json!({"requests": [execute("BEGIN")]});
    let (_, open) = server.send("/v2/pipeline", Some("writer"), &body).await;
    let body = json!({"baton": baton(&open), "requests": [execute("CREATE TABLE t(v)")]});
    let (status, answer) = server.send("/v2/pipeline", Some("reader"), &body).await;
    assert_eq!((status, &answer["code"]), (400, &json!("STREAM_ACCESS")));
    let (status, _) = server.send("/v2/pipeline", Some("writer"), &body).await;
    assert_eq!(status, 200, "the refused request did not use the baton up");
}

#[tokio::test]
async fn stored_texts_live_as_long_as_their_stream() {
    let server = Server::start().await;
    let by_id = json!({"type": "execute", "stmt": {"sql_id": 7}});
    let first = server
        .pipeline(
            None,
            json!([{"type": "store_sql", "sql_id": 7, "sql": "SELECT 42"}, by_id]),
        )
        .await;
    assert_eq!(first["results"][0]["response"], json!({"type": "store_sql"}));
    assert_eq!(
        first["results"][1]["response"]["result"]["rows"][0][0]["value"],
        "42"
    );
    let second = server
        .pipeline(
            Some(&baton(&first)),
            json!([
                {"type": "store_sql", "sql_id": 7, "sql": "SELECT 1"},
                {"type": "sequence", "sql_id": 7},
                {"type": "describe", "sql_id": 7},
                {"type": "batch", "batch": {"steps": [{"stmt": {"sql_id": 7}}]}},
                {"type": "close_sql", "sql_id": 7},
                by_id,
                {"type": "execute", "stmt": {}},
                {"type": "close"},
                by_id,
            ]),
        )
        .await;
    let results: Vec<_> = second["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(outcome)
        .collect();
    let codes: Vec<_> = results
        .iter()
        .map(|r| {
            r.as_ref()
                .map_or_else(|e| e["code"].as_str().unwrap(), |r| r["type"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        codes,
        [
            "SQL_ID_INVALID",
            "sequence",
            "describe",
            "batch",
            "close_sql",
            "SQL_ID_INVALID",
            "SQL_ID_INVALID",
            "close",
            "STREAM_CLOSED",
        ]
    );
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_writer() {
    let server = Server::start().await;
    table(&server).await;
    let requests = json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)")]);
    let open = server.pipeline(None, requests).await;
    assert_eq!(count(&server).await, "0");
    server
        .pipeline(Some(&baton(&open)), json!([execute("COMMIT"), {"type": "close"}]))
        .await;
    assert_eq!(count(&server).await, "1");
}

#[tokio::test]
async fn a_second_writer_waits_and_then_gets_sqlite_busy() {
    let server = Server::with_options(HranaOptions {
        busy_timeout: Duration::from_millis(20),
        ..Default::default()
    })
    .await;
    table(&server).await;
    let open = server.pipeline(None, json!([execute("BEGIN IMMEDIATE")])).await;
    let error = server.execute("INSERT INTO t VALUES (1)").await.unwrap_err();
    assert_eq!(
        error,
        json!({"message": "database is locked", "code": "SQLITE_BUSY"})
    );
    server
        .pipeline(Some(&baton(&open)), json!([{"type": "close"}]))
        .await;
    server.execute("INSERT INTO t VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_read_before_another_wrote_cannot_write_and_is_told_so_at_once() {
    let server = Server::start().await;
    table(&server).await;
    let open = server
        .pipeline(None, json!([execute("BEGIN"), execute("SELECT * FROM t")]))
        .await;
    server.execute("INSERT INTO t VALUES (1)").await.unwrap();
    let requests =
        json!([execute("SELECT count(*) FROM t"), execute("INSERT INTO t VALUES (2)"), {"type": "close"}]);
    let answer = server.pipeline(Some(&baton(&open)), requests).await;
    let rows = &answer["results"][0]["response"]["result"]["rows"];
    assert_eq!(rows[0][0]["value"], "0", "the snapshot of its beginning");
    assert_eq!(
        answer["results"][1]["error"]["extended_code"],
        "SQLITE_BUSY_SNAPSHOT"
    );
}

/// The turns are all taken by writers that wait for the transaction; its COMMIT must not wait for a turn.
#[tokio::test]
async fn a_commit_overtakes_the_requests_that_wait_for_it() {
    let server = Server::with_options(HranaOptions {
        concurrent_requests: 2,
        busy_timeout: Duration::from_secs(30),
        ..Default::default()
    })
    .await;
    table(&server).await;
    let open = server.pipeline(None, json!([execute("BEGIN IMMEDIATE")])).await;
    let token = baton(&open);
    let commit = async {
        let requests = json!([execute("INSERT INTO t VALUES (0)"), execute("COMMIT"), {"type": "close"}]);
        server.pipeline(Some(&token), requests).await
    };
    let insert = || server.execute("INSERT INTO t VALUES (1)");
    let (a, b, c, d, answer) = tokio::join!(insert(), insert(), insert(), insert(), commit);
    for written in [a, b, c, d] {
        written.unwrap();
    }
    outcome(&answer["results"][1]).unwrap();
    assert_eq!(count(&server).await, "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_interactive_transactions_side_by_side_lose_no_update() {
    let server = std::sync::Arc::new(
        Server::with_options(HranaOptions {
            busy_timeout: Duration::from_secs(30),
            ..Default::default()
        })
        .await,
    );
    server.execute("CREATE TABLE n AS SELECT 0 AS v").await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let answer = server
                        .pipeline(
                            None,
                            json!([execute("BEGIN IMMEDIATE"), execute("SELECT v FROM n")]),
                        )
                        .await;
                    let rows = &answer["results"][1]["response"]["result"]["rows"];
                    let v: i64 = rows[0][0]["value"].as_str().unwrap().parse().unwrap();
                    let update = format!("UPDATE n SET v = {}", v + 1);
                    let requests = json!([execute(&update), execute("COMMIT"), {"type": "close"}]);
                    let answer = server.pipeline(Some(&baton(&answer)), requests).await;
                    outcome(&answer["results"][1]).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(server.column("SELECT v FROM n").await[0]["value"], "80");
    assert_eq!(server.commits(), 81);
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_stream_without_a_transaction_goes_and_transactions_do_not_stay_open() {
    let server = Server::with_options(HranaOptions {
        batons: 2,
        ..Default::default()
    })
    .await;
    let idle = server
        .pipeline(None, json!([execute("PRAGMA foreign_keys = on")]))
        .await;
    let first = server.pipeline(None, json!([execute("BEGIN")])).await;
    let second = server.pipeline(None, json!([execute("BEGIN")])).await;
    let (status, _) = server
        .send(
            "/v2/pipeline",
            None,
            &json!({"baton": baton(&idle), "requests": []}),
        )
        .await;
    assert_eq!(status, 400, "evicted");
    let requests = json!([execute("SELECT 1"), execute("BEGIN"), execute("SELECT 2")]);
    let third = server.pipeline(None, requests).await;
    outcome(&third["results"][0]).unwrap();
    for refused in [1, 2] {
        let error = outcome(&third["results"][refused]).unwrap_err();
        assert_eq!(error["code"], "TOO_MANY_STREAMS");
    }
    assert_eq!(third["baton"], Value::Null, "it is closed");
    for open in [first, second] {
        server
            .pipeline(Some(&baton(&open)), json!([execute("COMMIT"), {"type": "close"}]))
            .await;
    }
    server.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn shutting_down_rolls_back_what_is_open() {
    let server = Server::start().await;
    table(&server).await;
    let requests = json!([execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)")]);
    server.pipeline(None, requests).await;
    server.hrana.shut_down().await;
    assert_eq!(server.hrana.open_batons(), 0);
    let sqlite = rusqlite::Connection::open(server.path()).unwrap();
    sqlite.busy_timeout(Duration::ZERO).unwrap();
    sqlite.execute_batch("BEGIN IMMEDIATE").unwrap();
    let rows: i64 = sqlite
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}
