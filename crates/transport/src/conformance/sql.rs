//! Conformance of SQL over HTTP.

use std::time::Duration;

use super::subject::{Subject, assert_no_errors, run, step};
use crate::{
    hrana::{Batch, BatchResult, Condition, Step, Value},
    remote::Remote,
};

async fn execute(remote: &dyn Remote, steps: Vec<Step>) -> BatchResult {
    remote
        .execute(
            Batch {
                steps,
                ..Batch::default()
            },
            Some(Duration::from_secs(10)),
        )
        .await
        .expect("the batch is answered")
}

async fn fresh_table(remote: &dyn Remote) {
    let made = run(
        remote,
        &[
            "CREATE TABLE IF NOT EXISTS conformance_values (k INTEGER PRIMARY KEY, v)",
            "DELETE FROM conformance_values",
        ],
    );
    assert_no_errors(&made.await.expect("the table is made"));
}

async fn count(remote: &dyn Remote) -> Value {
    let result = run(remote, &["SELECT count(*) FROM conformance_values"])
        .await
        .expect("counting works");
    assert_no_errors(&result);
    result.step_results[0].as_ref().expect("a result").rows[0][0].clone()
}

fn ok(step: u32) -> Option<Condition> {
    Some(Condition::Ok { step })
}

/// Steps run one after the other, see each other's work, and say what they did.
pub async fn a_batch_runs_in_order_on_one_connection(subject: &dyn Subject) {
    let remote = subject.remote();
    fresh_table(remote).await;
    let result = execute(
        remote,
        vec![
            step(
                None,
                "INSERT INTO conformance_values VALUES (7, 'seven'), (8, 'eight')",
                vec![],
            ),
            step(
                None,
                "UPDATE conformance_values SET v = v || '!' WHERE k = ?",
                vec![Value::Integer { value: 8 }],
            ),
            step(
                None,
                "SELECT v AS name, last_insert_rowid() FROM conformance_values ORDER BY k",
                vec![],
            ),
        ],
    )
    .await;
    assert_no_errors(&result);
    let [inserted, updated, selected] = &result.step_results[..] else {
        panic!("{} results for 3 steps", result.step_results.len())
    };
    let inserted = inserted.as_ref().expect("the insert ran");
    assert_eq!(
        (inserted.affected_row_count, inserted.last_insert_rowid),
        (2, Some(8))
    );
    assert_eq!(updated.as_ref().expect("the update ran").affected_row_count, 1);
    let selected = selected.as_ref().expect("the select ran");
    assert_eq!(selected.cols[0].name.as_deref(), Some("name"));
    let text = |value: &str| Value::Text { value: value.into() };
    let rowid = Value::Integer { value: 8 };
    assert_eq!(
        selected.rows,
        [vec![text("seven"), rowid.clone()], vec![text("eight!"), rowid]]
    );
}

/// `ok`, `error`, `not`, `and`, `or` and `is_autocommit` decide whether a step runs; a step that does not run has
/// neither a result nor an error.
pub async fn conditions_decide_which_steps_run(subject: &dyn Subject) {
    let not = |c| Condition::Not { cond: Box::new(c) };
    let good = || Condition::Ok { step: 0 };
    let bad = || Condition::Error { step: 1 };
    let conditions = [
        (good(), true),
        (bad(), true),
        (Condition::Error { step: 0 }, false),
        (Condition::Ok { step: 1 }, false),
        (not(good()), false),
        (
            Condition::And {
                conds: vec![good(), bad()],
            },
            true,
        ),
        (
            Condition::And {
                conds: vec![good(), not(bad())],
            },
            false,
        ),
        (
            Condition::Or {
                conds: vec![not(good()), bad()],
            },
            true,
        ),
        (Condition::Or { conds: vec![] }, false),
        (Condition::And { conds: vec![] }, true),
        (Condition::IsAutocommit {}, true),
    ];
    let mut steps = vec![
        step(None, "SELECT 1", vec![]),
        step(None, "SELECT no_such_column", vec![]),
    ];
    steps.extend(
        conditions
            .iter()
            .map(|(c, _)| step(Some(c.clone()), "SELECT 2", vec![])),
    );
    let result = execute(subject.remote(), steps).await;
    assert!(result.step_errors[1].is_some() && result.step_results[1].is_none());
    for (n, (condition, runs)) in conditions.iter().enumerate() {
        assert_eq!(result.step_results[n + 2].is_some(), *runs, "{condition:?}");
        assert_eq!(result.step_errors[n + 2], None, "{condition:?}");
    }
}

/// The shape of a push: BEGIN, work, COMMIT each conditional on the one before, ROLLBACK on failure.
pub async fn a_failed_transaction_rolls_back_whole(subject: &dyn Subject) {
    let remote = subject.remote();
    fresh_table(remote).await;
    let push = |second_key: i64| {
        let key = Value::Integer { value: second_key };
        vec![
            step(None, "BEGIN IMMEDIATE", vec![]),
            step(ok(0), "INSERT INTO conformance_values VALUES (1, 'a')", vec![]),
            step(ok(1), "INSERT INTO conformance_values VALUES (?, 'b')", vec![key]),
            step(ok(2), "COMMIT", vec![]),
            step(
                Some(Condition::Not {
                    cond: Box::new(Condition::Ok { step: 3 }),
                }),
                "ROLLBACK",
                vec![],
            ),
        ]
    };
    let failed = execute(remote, push(1)).await;
    assert!(failed.step_errors[2].is_some(), "the key is taken");
    assert!(failed.step_results[3].is_none(), "COMMIT does not run");
    assert!(
        failed.step_results[4].is_some(),
        "ROLLBACK runs: {:?}",
        failed.step_errors[4]
    );
    assert_eq!(count(remote).await, Value::Integer { value: 0 });

    let landed = execute(remote, push(2)).await;
    assert_no_errors(&landed);
    assert!(landed.step_results[3].is_some() && landed.step_results[4].is_none());
    assert_eq!(count(remote).await, Value::Integer { value: 2 });
}

/// Every kind of value, at its limits, comes back exactly as it was sent, named or not.
pub async fn values_come_back_as_they_went(subject: &dyn Subject) {
    let float = |value| Value::Float { value };
    let values = [
        Value::Null,
        Value::Integer { value: i64::MIN },
        Value::Integer { value: i64::MAX },
        Value::Integer { value: (1 << 53) + 1 },
        float(0.1),
        float(-1e308),
        float(5e-324),
        float(3.0),
        Value::Text { value: String::new() },
        Value::Text {
            value: "zürich \u{1F30D} \"quoted\" \\".into(),
        },
        Value::Blob { base64: vec![] },
        Value::Blob {
            base64: (0..=255).collect(),
        },
    ];
    let remote = subject.remote();
    fresh_table(remote).await;
    let steps = values
        .iter()
        .map(|v| {
            step(
                None,
                "INSERT INTO conformance_values (v) VALUES (?)",
                vec![v.clone()],
            )
        })
        .chain([step(None, "SELECT v FROM conformance_values ORDER BY k", vec![])])
        .collect();
    let result = execute(remote, steps).await;
    assert_no_errors(&result);
    let rows = &result.step_results[values.len()].as_ref().expect("rows").rows;
    let back: Vec<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(back, values);
}

/// Clients match on SQLite's own error texts.
pub async fn errors_carry_the_text_of_sqlite(subject: &dyn Subject) {
    let remote = subject.remote();
    fresh_table(remote).await;
    let result = run(
        remote,
        &[
            "SELECT * FROM no_such_table_here",
            "INSERT INTO conformance_values VALUES (1, 1)",
            "INSERT INTO conformance_values VALUES (1, 2)",
        ],
    )
    .await
    .expect("the batch is answered");
    let message = |n: usize| result.step_errors[n].as_ref().expect("an error").message.clone();
    assert!(
        message(0).contains("no such table: no_such_table_here"),
        "{}",
        message(0)
    );
    assert!(
        message(2).contains("UNIQUE constraint failed: conformance_values.k"),
        "{}",
        message(2)
    );
}
