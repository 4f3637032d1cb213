//! Batches: conditions, and the shape in which replicas push.

use serde_json::{Value, json};

use super::server::Server;

fn ok(step: u32) -> Value {
    json!({"type": "ok", "step": step})
}

fn error(step: u32) -> Value {
    json!({"type": "error", "step": step})
}

fn not(cond: Value) -> Value {
    json!({"type": "not", "cond": cond})
}

fn both(conds: [Value; 2]) -> Value {
    json!({"type": "and", "conds": conds})
}

fn either(conds: [Value; 2]) -> Value {
    json!({"type": "or", "conds": conds})
}

/// `+` = ran and succeeded, `!` = ran and failed, `-` = was skipped.
fn picture(result: &Value) -> String {
    let results = result["step_results"].as_array().unwrap();
    let errors = result["step_errors"].as_array().unwrap();
    assert_eq!(results.len(), errors.len());
    let step = |(given, failed): (&Value, &Value)| match (given.is_null(), failed.is_null()) {
        (false, true) => '+',
        (true, false) => '!',
        (true, true) => '-',
        (false, false) => panic!("a step with a result and an error"),
    };
    results.iter().zip(errors).map(step).collect()
}

#[tokio::test]
async fn each_condition_decides_as_the_specification_says() {
    let server = Server::start().await;
    let good = "SELECT 1";
    let bad = "SELECT * FROM absent";
    let none = Value::Null;
    for (third, expected) in [
        (none.clone(), "+!+"),
        (ok(0), "+!+"),
        (ok(1), "+!-"),
        (error(0), "+!-"),
        (error(1), "+!+"),
        (not(ok(0)), "+!-"),
        (not(ok(1)), "+!+"),
        (not(error(1)), "+!-"),
        (both([ok(0), error(1)]), "+!+"),
        (both([ok(0), ok(1)]), "+!-"),
        (either([ok(1), ok(0)]), "+!+"),
        (either([ok(1), error(0)]), "+!-"),
        (json!({"type": "and", "conds": []}), "+!+"),
        (json!({"type": "or", "conds": []}), "+!-"),
        (json!({"type": "is_autocommit"}), "+!+"),
        (not(json!({"type": "is_autocommit"})), "+!-"),
    ] {
        let result = server
            .batch(&[(none.clone(), good), (none.clone(), bad), (third.clone(), good)])
            .await;
        assert_eq!(picture(&result), expected, "{third}");
        assert_eq!(result["step_errors"][1]["message"], "no such table: absent");
        assert_eq!(result["step_errors"][1]["code"], "SQLITE_ERROR");
    }
}

#[tokio::test]
async fn a_skipped_step_is_neither_ok_nor_an_error() {
    let server = Server::start().await;
    let s = "SELECT 1";
    let steps = [
        (Value::Null, s),
        (error(0), s),
        (ok(1), s),
        (error(1), s),
        (not(ok(1)), s),
    ];
    assert_eq!(picture(&server.batch(&steps).await), "+---+");
}

#[tokio::test]
async fn is_autocommit_follows_the_transaction() {
    let server = Server::start().await;
    let open = not(json!({"type": "is_autocommit"}));
    let steps = [
        (open.clone(), "SELECT 1"),
        (Value::Null, "BEGIN"),
        (open.clone(), "SELECT 1"),
        (open.clone(), "COMMIT"),
        (open, "COMMIT"),
    ];
    assert_eq!(picture(&server.batch(&steps).await), "-+++-");
}

#[tokio::test]
async fn a_condition_on_a_later_step_is_refused_before_anything_runs() {
    let server = Server::start().await;
    let batch = super::server::batch(&[(Value::Null, "CREATE TABLE t(v)"), (ok(1), "SELECT 1")]);
    let refused = server
        .one(json!({"type": "batch", "batch": batch}))
        .await
        .unwrap_err();
    assert_eq!(refused["code"], "BATCH_STEP_INVALID");
    assert_eq!(
        server.execute("SELECT * FROM t").await.unwrap_err()["message"],
        "no such table: t"
    );
}

fn push<'s>(changes: &[&'s str]) -> Vec<(Value, &'s str)> {
    let mut steps = vec![(Value::Null, "BEGIN IMMEDIATE")];
    let after = |steps: &Vec<_>| ok(steps.len() as u32 - 1);
    for sql in changes {
        steps.push((after(&steps), sql));
    }
    steps.push((after(&steps), "COMMIT"));
    steps.push((not(after(&steps)), "ROLLBACK"));
    steps
}

#[tokio::test]
async fn invariant_3_a_push_whose_steps_succeed_is_committed_whole_and_told_to_the_page_history() {
    let server = Server::start().await;
    let steps = push(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t VALUES (2, 'b')",
    ]);
    assert_eq!(picture(&server.batch(&steps).await), "+++++-");
    assert_eq!(server.commits(), 1);
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "2");
    assert_eq!(server.commits(), 1, "reading is not a commit");
}

#[tokio::test]
async fn invariant_3_a_push_with_a_refused_step_leaves_nothing_behind() {
    let server = Server::start().await;
    server
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)")
        .await
        .unwrap();
    server.execute("INSERT INTO t VALUES (1, 'taken')").await.unwrap();
    let commits = server.commits();
    let steps = push(&[
        "INSERT INTO t VALUES (2, 'free')",
        "INSERT INTO t VALUES (3, 'taken')",
        "INSERT INTO t VALUES (4, 'also free')",
    ]);
    let result = server.batch(&steps).await;
    assert_eq!(picture(&result), "++!--+");
    assert_eq!(
        result["step_errors"][2],
        json!({
            "message": "UNIQUE constraint failed: t.v",
            "code": "SQLITE_CONSTRAINT",
            "extended_code": "SQLITE_CONSTRAINT_UNIQUE"
        })
    );
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "1");
    assert_eq!(server.commits(), commits, "nothing was committed");
}

#[tokio::test]
async fn a_batch_with_too_many_steps_is_refused_whole() {
    let options = partial_sync_server::hrana::HranaOptions {
        batch_steps: 3,
        ..Default::default()
    };
    let server = Server::with_options(options).await;
    let steps = vec![(Value::Null, "SELECT 1"); 4];
    let batch = super::server::batch(&steps);
    let body = json!({"requests": [{"type": "batch", "batch": batch}]});
    let (status, refused) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!((status, &refused["code"]), (400, &json!("BATCH_TOO_LARGE")));
    server.batch(&steps[..3]).await;
}

#[tokio::test]
async fn a_cursor_gives_the_same_as_a_batch_line_by_line() {
    let server = Server::start().await;
    let batch = super::server::batch(&[
        (Value::Null, "SELECT 1 AS a UNION SELECT 2"),
        (error(0), "SELECT 1"),
        (Value::Null, "SELECT * FROM absent"),
    ]);
    let (status, body) = server.send("/v3/cursor", None, &json!({ "batch": batch })).await;
    assert_eq!(status, 200);
    let text = body.as_str().unwrap().to_owned();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines[0]["baton"].is_string());
    assert_eq!(
        lines[1..],
        [
            json!({"type": "step_begin", "step": 0, "cols": [{"name": "a", "decltype": null}]}),
            json!({"type": "row", "row": [{"type": "integer", "value": "1"}]}),
            json!({"type": "row", "row": [{"type": "integer", "value": "2"}]}),
            json!({"type": "step_end", "affected_row_count": 0, "last_insert_rowid": null}),
            json!({"type": "step_error", "step": 2,
                   "error": {"message": "no such table: absent", "code": "SQLITE_ERROR"}}),
        ]
    );
}
