//! Batches with `"rows": true`: triggers and foreign-key actions are off in them, and in nothing else.

use serde_json::{Value, json};

use super::server::{Server, batch, outcome};

const SCHEMA: [&str; 5] = [
    "CREATE TABLE p(id INTEGER PRIMARY KEY)",
    "CREATE TABLE c(p REFERENCES p ON DELETE CASCADE)",
    "CREATE TABLE log(what)",
    "CREATE TRIGGER t AFTER INSERT ON p BEGIN INSERT INTO log VALUES (new.id); END",
    "INSERT INTO c VALUES (1), (2)",
];

fn rows(steps: &[&str]) -> Value {
    let steps: Vec<_> = steps.iter().map(|sql| (Value::Null, *sql)).collect();
    let mut batch = batch(&steps);
    batch["rows"] = json!(true);
    json!({"type": "batch", "batch": batch})
}

fn errors(response: &Value) -> usize {
    let errors = response["result"]["step_errors"].as_array().unwrap();
    errors.iter().filter(|error| !error.is_null()).count()
}

#[tokio::test]
async fn h7_a_batch_of_rows_fires_nothing_and_leaves_the_stream_as_it_was() {
    let server = Server::start().await;
    for sql in SCHEMA {
        server.execute(sql).await.unwrap();
    }
    // Outside of such a batch there is no such mode.
    let refused = server.execute("SELECT partial_sync_rows()").await.unwrap_err();
    assert!(
        refused["message"].as_str().unwrap().contains("triggers fire"),
        "{refused}"
    );
    let answer = server
        .pipeline(
            None,
            json!([
                {"type": "execute", "stmt": {"sql": "PRAGMA foreign_keys = ON"}},
                rows(&["SELECT partial_sync_rows()", "BEGIN IMMEDIATE", "INSERT INTO p VALUES (1), (2)", "DELETE FROM p WHERE id = 1", "COMMIT"]),
                {"type": "execute", "stmt": {"sql": "SELECT partial_sync_rows()"}},
                {"type": "execute", "stmt": {"sql": "INSERT INTO p VALUES (3)"}},
                {"type": "execute", "stmt": {"sql": "DELETE FROM p WHERE id = 2"}},
                // A transaction that such a batch leaves open is rolled back.
                rows(&["BEGIN", "INSERT INTO p VALUES (50)"]),
                {"type": "get_autocommit"},
                // It cannot begin in one.
                {"type": "execute", "stmt": {"sql": "BEGIN"}},
                rows(&["INSERT INTO p VALUES (60)"]),
                {"type": "execute", "stmt": {"sql": "INSERT INTO p VALUES (4)"}},
                {"type": "execute", "stmt": {"sql": "COMMIT"}},
                {"type": "close"}
            ]),
        )
        .await;
    let results: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(outcome)
        .collect();
    assert_eq!(errors(results[1].as_ref().unwrap()), 0, "{answer}");
    assert!(results[2].is_err(), "{answer}");
    assert_eq!(results[6].as_ref().unwrap()["is_autocommit"], json!(true));
    assert!(results[8].is_err(), "{answer}");
    let ids = |ids: &[&str]| -> Vec<Value> {
        ids.iter()
            .map(|id| json!({"type": "integer", "value": id}))
            .collect()
    };
    assert_eq!(
        server.column("SELECT id FROM p ORDER BY 1").await,
        ids(&["3", "4"])
    );
    // Fired for 3 and 4, and the foreign key of the stream acted again for 2.
    assert_eq!(
        server.column("SELECT what FROM log ORDER BY 1").await,
        ids(&["3", "4"])
    );
    assert_eq!(server.column("SELECT p FROM c").await, ids(&["1"]));
}

/// With `foreign_keys` beside `rows`, keys are enforced and take no action; who broke one is named once COMMIT has said so.
#[tokio::test]
async fn foreign_keys_of_a_batch_of_rows_are_enforced_and_do_not_act() {
    let server = Server::start().await;
    for sql in [
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p ON DELETE CASCADE)",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO c VALUES (10, 1), (20, 2), (99, 99)",
    ] {
        server.execute(sql).await.unwrap();
    }
    let enforced = |steps: &[&str]| {
        let mut request = rows(steps);
        request["batch"]["foreign_keys"] = json!(true);
        request
    };
    let codes = |answer: &Value| -> Vec<Value> {
        let errors = answer["result"]["step_errors"].as_array().unwrap();
        errors
            .iter()
            .map(|error| error["extended_code"].clone())
            .collect()
    };
    let (ok, broken) = (Value::Null, json!("SQLITE_CONSTRAINT_FOREIGNKEY"));
    let begin = ["BEGIN IMMEDIATE", "PRAGMA defer_foreign_keys = ON"];
    let send = async |steps: &[&str]| {
        let steps: Vec<&str> = begin.iter().chain(steps).copied().collect();
        codes(&server.one(enforced(&steps)).await.unwrap())[2..].to_vec()
    };
    // A parent that still has children, which nothing deletes; and what was violated for a while does not count.
    assert_eq!(
        send(&[
            "DELETE FROM p WHERE id = 1",
            "DELETE FROM c WHERE id = 10",
            "DELETE FROM p WHERE id = 2",
            "SELECT 1",
            "COMMIT",
            "ROLLBACK"
        ])
        .await,
        [&ok, &ok, &broken, &ok, &broken, &ok].map(Clone::clone)
    );
    // A child without a parent, one that is fixed, and an orphan that nobody touches.
    assert_eq!(
        send(&[
            "INSERT INTO c VALUES (30, 3)",
            "INSERT INTO p VALUES (3)",
            "UPDATE c SET p = 4 WHERE id = 10",
            "COMMIT",
            "ROLLBACK"
        ])
        .await,
        [&ok, &ok, &broken, &broken, &ok].map(Clone::clone)
    );
    assert_eq!(
        send(&[
            "INSERT INTO c VALUES (30, 3)",
            "INSERT INTO p VALUES (3)",
            "COMMIT"
        ])
        .await,
        [&ok, &ok, &ok].map(Clone::clone)
    );
    // Without the field nothing is enforced, and it does not stay.
    let answer = server
        .pipeline(
            None,
            json!([
                enforced(&["BEGIN", "DELETE FROM c WHERE id = 30", "COMMIT"]),
                rows(&["DELETE FROM p WHERE id = 1"]),
                {"type": "execute", "stmt": {"sql": "INSERT INTO c VALUES (50, 50)"}},
                {"type": "execute", "stmt": {"sql": "PRAGMA foreign_keys = ON"}},
                {"type": "execute", "stmt": {"sql": "DELETE FROM p WHERE id = 2"}},
                // SQLite keeps the actions that it has compiled.
                enforced(&["SELECT 1"]),
                {"type": "close"}
            ]),
        )
        .await;
    let results: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(outcome)
        .collect();
    assert_eq!(results.iter().filter(|r| r.is_err()).count(), 1, "{answer}");
    assert!(
        results[5].as_ref().unwrap_err()["message"]
            .as_str()
            .unwrap()
            .contains("a stream of its own")
    );
    assert_eq!(errors(results[1].as_ref().unwrap()), 0, "{answer}");
    let ids: Vec<_> = ["10", "50", "99"]
        .map(|id| json!({"type": "integer", "value": id}))
        .into();
    assert_eq!(
        server.column("SELECT id FROM c ORDER BY 1").await,
        ids,
        "2 took its child with it"
    );
}

/// Nothing that a writer can send gives the tables that every client depends on another shape, empties them, or puts
/// something else in their place.
#[tokio::test]
async fn s2_the_table_of_keys_cannot_be_reshaped_emptied_or_replaced() {
    let server = Server::start().await;
    server
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        .await
        .unwrap();
    let refused = async |sql: &str| {
        let answer = server.one(rows(&[sql])).await.unwrap();
        let error = &answer["result"]["step_errors"][0];
        assert_eq!(error["code"], "SQLITE_AUTH", "{sql}: {answer}");
        let outside = server.execute(sql).await.expect_err(sql);
        assert_eq!(outside["code"], "SQLITE_AUTH", "{sql}: {outside}");
    };
    let everywhere = [
        "CREATE TABLE partial_sync_keys(x)",
        "CREATE TABLE main.\"PARTIAL_SYNC_KEYS\"(x)",
        "CREATE TABLE partial_sync_keys AS SELECT 1 AS x",
        "CREATE TABLE turso_sync_last_change_id(\"client_id TEXT\" PRIMARY KEY, pull_gen INTEGER, change_id INTEGER)",
        "CREATE VIEW partial_sync_keys AS SELECT 1",
        "CREATE VIEW turso_sync_last_change_id AS SELECT 1",
        "CREATE VIRTUAL TABLE partial_sync_keys USING fts5(x)",
        "CREATE VIRTUAL TABLE partial_sync USING fts5(x)",
        "ALTER TABLE t RENAME TO partial_sync_keys",
        "ALTER TABLE t RENAME TO [partial_sync_other]",
        "CREATE INDEX partial_sync_keys ON t(v)",
        "CREATE TRIGGER partial_sync_keys AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM partial_sync_keys; END",
    ];
    for sql in everywhere {
        refused(sql).await;
    }
    assert_eq!(
        server.column("SELECT name FROM sqlite_schema").await,
        [json!({"type": "text", "value": "t"})]
    );
    let create = partial_sync_transport::bookkeeping::CREATE_KEYS;
    let note =
        "INSERT INTO partial_sync_keys (client_id, pull_gen, tbl, old, since, new) VALUES (?, ?, ?, ?, ?, ?)";
    let args: Vec<_> = ["c", "1", "t", "1", "2", "3"]
        .iter()
        .map(|v| json!({"type": "text", "value": v}))
        .collect();
    let push = json!({"type": "batch", "batch": {"rows": true, "steps": [
        {"stmt": {"sql": create}},
        {"stmt": {"sql": "DELETE FROM partial_sync_keys WHERE client_id = ?", "args": [args[0]]}},
        {"stmt": {"sql": note, "args": args}}]}});
    assert_eq!(errors(&server.one(push).await.unwrap()), 0);
    for sql in [
        "DELETE FROM partial_sync_keys",
        "DELETE FROM partial_sync_keys WHERE client_id = 'c'",
        "UPDATE partial_sync_keys SET new = 'x'",
        "INSERT INTO partial_sync_keys VALUES ('c', 0, 't', 1, 'x', 'y')",
        "REPLACE INTO partial_sync_keys VALUES ('c', 0, 't', 1, 2, 'y')",
        "WITH k AS (SELECT 1) DELETE FROM partial_sync_keys",
        "DROP TABLE partial_sync_keys",
        "ALTER TABLE partial_sync_keys RENAME TO gone",
        "ALTER TABLE partial_sync_keys DROP COLUMN new",
        "ALTER TABLE partial_sync_keys RENAME COLUMN new TO newer",
        "ALTER TABLE partial_sync_keys ADD COLUMN more",
        "CREATE UNIQUE INDEX i ON partial_sync_keys(client_id)",
        "CREATE TRIGGER x BEFORE INSERT ON partial_sync_keys BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TEMP TRIGGER x BEFORE INSERT ON main.partial_sync_keys BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW v AS SELECT * FROM partial_sync_keys",
    ] {
        refused(sql).await;
    }
    // A table of one's own beside it hides it from nobody else.
    server
        .pipeline(
            None,
            json!([rows(&["CREATE TEMP TABLE partial_sync_keys(x)", "DELETE FROM partial_sync_keys"]), {"type": "close"}]),
        )
        .await;
    assert_eq!(
        server.column("SELECT new FROM partial_sync_keys").await,
        [json!({"type": "integer", "value": "3"})]
    );
}
