//! Batches with `"rows": true`: triggers and foreign-key actions are off in them, and in nothing else.

use serde_json::{Value, json};

use crate::server::{Server, batch, outcome};

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
