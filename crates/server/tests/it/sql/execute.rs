//! One statement: values in and out, what it changed, and what is wrong with it.

use serde_json::{Value, json};

use super::server::Server;

#[tokio::test]
async fn every_kind_of_value_comes_back_as_it_went_in() {
    let server = Server::start().await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let values = [
        json!({"type": "null"}),
        json!({"type": "integer", "value": "9223372036854775807"}),
        json!({"type": "integer", "value": "-9223372036854775808"}),
        json!({"type": "float", "value": 0.1}),
        json!({"type": "float", "value": 1.7976931348623157e308}),
        json!({"type": "float", "value": 5e-324}),
        json!({"type": "float", "value": -0.0}),
        json!({"type": "text", "value": "snö ☃ \u{0}\" end"}),
        json!({"type": "text", "value": ""}),
        json!({"type": "blob", "base64": "AAEC/w=="}),
        json!({"type": "blob", "base64": ""}),
    ];
    for value in &values {
        let stmt = json!({"sql": "INSERT INTO t VALUES (?) RETURNING v", "args": [value]});
        let result = server.execute_with(stmt).await.unwrap();
        assert_eq!(&result["rows"][0][0], value);
        assert_eq!(result["affected_row_count"], 1);
    }
    assert_eq!(server.column("SELECT v FROM t ORDER BY rowid").await, values);
}

#[tokio::test]
async fn random_floats_come_back_bit_for_bit() {
    let server = Server::start().await;
    let seed = 0x5eed_f10a;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let floats: Vec<f64> = std::iter::repeat_with(|| f64::from_bits(rng.u64(..)))
        .filter(|f| f.is_finite())
        .take(500)
        .collect();
    let args: Vec<_> = floats
        .iter()
        .map(|f| json!({"type": "float", "value": f}))
        .collect();
    let sql = format!("VALUES {}", vec!["(?)"; args.len()].join(", "));
    let result = server
        .execute_with(json!({"sql": sql, "args": args}))
        .await
        .unwrap();
    for (row, float) in result["rows"].as_array().unwrap().iter().zip(&floats) {
        let got = row[0]["value"].as_f64().unwrap();
        assert_eq!(got.to_bits(), float.to_bits(), "{float:e}");
    }
}

#[tokio::test]
async fn a_blob_may_come_without_padding() {
    let server = Server::start().await;
    let stmt = json!({"sql": "SELECT hex(?)", "args": [{"type": "blob", "base64": "AAEC/w"}]});
    let result = server.execute_with(stmt).await.unwrap();
    assert_eq!(result["rows"][0][0]["value"], "000102FF");
}

#[tokio::test]
async fn columns_have_names_and_declared_types() {
    let server = Server::start().await;
    server
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name VARCHAR(10), x)")
        .await
        .unwrap();
    let result = server
        .execute("SELECT id, name AS n, x, 1 + 1 FROM t")
        .await
        .unwrap();
    assert_eq!(
        result["cols"],
        json!([
            {"name": "id", "decltype": "INTEGER"},
            {"name": "n", "decltype": "VARCHAR(10)"},
            {"name": "x", "decltype": null},
            {"name": "1 + 1", "decltype": null},
        ])
    );
    assert_eq!(result["rows"], json!([]));
}

#[tokio::test]
async fn arguments_are_bound_by_position_and_by_name_and_a_name_wins() {
    let server = Server::start().await;
    let int = |n: i64| json!({"type": "integer", "value": n.to_string()});
    let stmt = json!({
        "sql": "SELECT :a, @b, $c, ?4",
        "args": [int(1), int(2), int(3), int(4)],
        "named_args": [
            {"name": "a", "value": int(10)},
            {"name": "@b", "value": int(20)},
            {"name": "c", "value": int(30)},
        ],
    });
    let result = server.execute_with(stmt).await.unwrap();
    assert_eq!(result["rows"][0], json!([int(10), int(20), int(30), int(4)]));
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_statement_are_refused() {
    let server = Server::start().await;
    let one = json!({"type": "integer", "value": "1"});
    for (sql, args, named, text) in [
        ("SELECT 1", json!([one]), json!([]), "has 0 parameters, but 1"),
        ("SELECT ?, ?", json!([one]), json!([]), "parameter 2 (?)"),
        ("SELECT :a", json!([]), json!([]), "parameter 1 (:a)"),
        (
            "SELECT :a",
            json!([]),
            json!([{"name": "b", "value": one}]),
            "no parameter named \"b\"",
        ),
    ] {
        let stmt = json!({"sql": sql, "args": args, "named_args": named});
        let error = server.execute_with(stmt).await.unwrap_err();
        assert_eq!(error["code"], "ARGS_INVALID");
        assert!(error["message"].as_str().unwrap().contains(text), "{error}");
    }
}

#[tokio::test]
async fn an_integer_must_come_as_a_string() {
    let server = Server::start().await;
    let stmt = json!({"sql": "SELECT ?", "args": [{"type": "integer", "value": 7}]});
    let body = json!({"requests": [{"type": "execute", "stmt": stmt}]});
    let (status, answer) = server.send("/v2/pipeline", None, &body).await;
    assert_eq!((status, &answer["code"]), (400, &json!("BAD_REQUEST")));
}

#[tokio::test]
async fn what_a_statement_changed_is_counted_and_a_later_reader_sees_none_of_it() {
    let server = Server::start().await;
    let changed = async |sql: &str| {
        let result = server.execute(sql).await.unwrap();
        (
            result["affected_row_count"].clone(),
            result["last_insert_rowid"].clone(),
        )
    };
    assert_eq!(
        changed("CREATE TABLE t(id INTEGER PRIMARY KEY, v)").await,
        (json!(0), Value::Null)
    );
    assert_eq!(
        changed("INSERT INTO t VALUES (7, 1), (8, 1), (9, 2)").await,
        (json!(3), json!("9"))
    );
    assert_eq!(changed("UPDATE t SET v = 3 WHERE v = 1").await.0, json!(2));
    assert_eq!(
        changed("DELETE FROM t WHERE v = 100").await,
        (json!(0), Value::Null)
    );
    assert_eq!(changed("SELECT * FROM t").await, (json!(0), Value::Null));
    // A connection that has written is not handed to the next client.
    assert_eq!(
        server.column("SELECT last_insert_rowid() + changes()").await[0]["value"],
        "0"
    );
}

#[tokio::test]
async fn rows_that_are_not_wanted_are_not_sent_but_the_statement_runs_to_its_end() {
    let server = Server::start().await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let stmt = json!({
        "sql": "INSERT INTO t SELECT value FROM generate_series(1, 10) RETURNING v",
        "want_rows": false,
    });
    let result = server.execute_with(stmt).await.unwrap();
    assert_eq!(
        (&result["rows"], &result["affected_row_count"]),
        (&json!([]), &json!(10))
    );
    assert_eq!(server.column("SELECT sum(v) FROM t").await[0]["value"], "55");
}

#[tokio::test]
async fn v21_errors_have_the_text_and_the_codes_of_sqlite() {
    let server = Server::start().await;
    server
        .one(json!({"type": "sequence", "sql": "
            CREATE TABLE t(c UNIQUE, n NOT NULL DEFAULT 0, k CHECK (k > 0), s INTEGER);
            CREATE TABLE strict_t(id INTEGER PRIMARY KEY, i INT) STRICT;
            INSERT INTO t(c) VALUES (1); INSERT INTO strict_t VALUES (1, 1);"}))
        .await
        .unwrap();
    for (sql, code, text) in [
        ("SELECT * FROM absent", "SQLITE_ERROR", "no such table: absent"),
        ("SELEC 1", "SQLITE_ERROR", "near \"SELEC\": syntax error"),
        ("SELECT nope FROM t", "SQLITE_ERROR", "no such column: nope"),
        (
            "INSERT INTO t(c) VALUES (1)",
            "SQLITE_CONSTRAINT_UNIQUE",
            "UNIQUE constraint failed: t.c",
        ),
        (
            "INSERT INTO t(n) VALUES (NULL)",
            "SQLITE_CONSTRAINT_NOTNULL",
            "NOT NULL constraint failed: t.n",
        ),
        (
            "INSERT INTO t(k) VALUES (-1)",
            "SQLITE_CONSTRAINT_CHECK",
            "CHECK constraint failed: k > 0",
        ),
        (
            "INSERT INTO strict_t VALUES (1, 1)",
            "SQLITE_CONSTRAINT_PRIMARYKEY",
            "UNIQUE constraint failed: strict_t.id",
        ),
        (
            "INSERT INTO strict_t VALUES (2, 'x')",
            "SQLITE_CONSTRAINT_DATATYPE",
            "cannot store TEXT value in INT column strict_t.i",
        ),
        (
            "COMMIT",
            "SQLITE_ERROR",
            "cannot commit - no transaction is active",
        ),
        ("", "SQL_NO_STATEMENT", "the SQL text has no statement in it"),
        (
            " -- nothing",
            "SQL_NO_STATEMENT",
            "the SQL text has no statement in it",
        ),
    ] {
        let error = server.execute(sql).await.unwrap_err();
        assert_eq!(error["message"], text, "{sql}");
        match code.starts_with("SQLITE_CONSTRAINT") {
            true => assert_eq!(
                (&error["code"], &error["extended_code"]),
                (&json!("SQLITE_CONSTRAINT"), &json!(code)),
                "{sql}"
            ),
            false => assert_eq!(
                (&error["code"], error.get("extended_code")),
                (&json!(code), None),
                "{sql}"
            ),
        }
    }
    let error = server.execute("SELECT 1; SELECT 2").await.unwrap_err();
    assert_eq!(error["code"], "SQL_MANY_STATEMENTS");
    server.execute("SELECT 1; -- and a comment").await.unwrap();
}

#[tokio::test]
async fn v21_an_infinite_float_is_null_and_the_rest_of_its_row_is_there() {
    let server = Server::start().await;
    let result = server
        .execute("SELECT 1 AS a, 9e999 AS b, -9e999 AS c, 2.5")
        .await
        .unwrap();
    let nothing = json!({"type": "null"});
    let (one, last) = (
        json!({"type": "integer", "value": "1"}),
        json!({"type": "float", "value": 2.5}),
    );
    assert_eq!(result["rows"], json!([[one, nothing, nothing, last]]));
}

#[tokio::test]
async fn text_that_is_not_utf8_is_an_error_that_says_to_cast() {
    let server = Server::start().await;
    let error = server
        .execute("SELECT CAST(x'ff41' AS TEXT) AS t")
        .await
        .unwrap_err();
    assert_eq!(error["code"], "TEXT_NOT_UTF8");
    assert!(
        error["message"].as_str().unwrap().contains("CAST(t AS BLOB)"),
        "{error}"
    );
}

/// Reset half-way, the statement would have been committed although its client was told that it failed.
#[tokio::test]
async fn a_write_whose_rows_cannot_be_sent_changes_nothing() {
    let server = Server::start().await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    let sql = "INSERT INTO t VALUES (1), (CAST(x'ff' AS TEXT)), (2) RETURNING v";
    let error = server.execute(sql).await.unwrap_err();
    assert_eq!(error["code"], "TEXT_NOT_UTF8");
    assert_eq!(server.column("SELECT count(*) FROM t").await[0]["value"], "0");
}

#[tokio::test]
async fn foreign_keys_are_off_as_in_sqlite_and_can_be_switched_on_for_a_stream_only() {
    let server = Server::start().await;
    server
        .one(json!({"type": "sequence", "sql":
            "CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p)"}))
        .await
        .unwrap();
    let answer = server
        .pipeline(
            None,
            json!([
                {"type": "execute", "stmt": {"sql": "PRAGMA foreign_keys = on"}},
                {"type": "execute", "stmt": {"sql": "INSERT INTO c VALUES (1)"}},
                {"type": "close"},
            ]),
        )
        .await;
    assert_eq!(
        answer["results"][1]["error"]["extended_code"],
        "SQLITE_CONSTRAINT_FOREIGNKEY"
    );
    assert_eq!(server.column("PRAGMA foreign_keys").await[0]["value"], "0");
    server.execute("INSERT INTO c VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn describe_tells_parameters_and_columns_and_runs_nothing() {
    let server = Server::start().await;
    server
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
        .await
        .unwrap();
    let describe = async |sql: &str| {
        let response = server.one(json!({"type": "describe", "sql": sql})).await.unwrap();
        assert_eq!(response["type"], "describe");
        response["result"].clone()
    };
    assert_eq!(
        describe("SELECT id, v || 'x' AS w FROM t WHERE id = :id AND v = ?").await,
        json!({
            "params": [{"name": ":id"}, {"name": null}],
            "cols": [{"name": "id", "decltype": "INTEGER"}, {"name": "w", "decltype": null}],
            "is_explain": false,
            "is_readonly": true,
        })
    );
    assert_eq!(describe("DELETE FROM t").await["is_readonly"], false);
    assert_eq!(describe("EXPLAIN SELECT 1").await["is_explain"], true);
    let error = server
        .one(json!({"type": "describe", "sql": "SELECT * FROM absent"}))
        .await;
    assert_eq!(error.unwrap_err()["message"], "no such table: absent");
}

#[tokio::test]
async fn a_sequence_runs_every_statement_until_one_fails() {
    let server = Server::start().await;
    let sequence = async |sql: &str| server.one(json!({"type": "sequence", "sql": sql})).await;
    let response = sequence("CREATE TABLE t(v); INSERT INTO t VALUES (1);; SELECT * FROM t; -- end").await;
    assert_eq!(response.unwrap(), json!({"type": "sequence"}));
    let error =
        sequence("INSERT INTO t VALUES (2); INSERT INTO absent VALUES (1); INSERT INTO t VALUES (3)").await;
    assert_eq!(error.unwrap_err()["message"], "no such table: absent");
    assert_eq!(server.column("SELECT sum(v) FROM t").await[0]["value"], "3");
}

/// A recursive search for a second statement would use up the stack here, and abort the process.
#[tokio::test]
async fn invariant_11_a_text_of_very_many_statements_is_an_error_and_not_a_crash() {
    let server = Server::start().await;
    let error = server.execute(&"SELECT 1;".repeat(200_000)).await.unwrap_err();
    assert_eq!(error["code"], "SQL_MANY_STATEMENTS");
}

#[tokio::test]
async fn a_statement_without_a_row_in_common_with_json_is_served_by_generate_series_and_math() {
    let server = Server::start().await;
    let values = server.column("SELECT value FROM generate_series(1, 3)").await;
    assert_eq!(values.len(), 3);
    assert_eq!(
        server.column("SELECT sqrt(16.0)").await[0],
        json!({"type": "float", "value": 4.0})
    );
}
