//! What SQL from the network may not do, and what a read-only token may not do.

use partial_sync_server::{access::Access, auth::StaticToken};
use serde_json::{Value, json};

use super::server::Server;

#[tokio::test]
async fn other_files_other_journals_and_raw_pages_are_out_of_reach() {
    let server = Server::start().await;
    let other = server.path().with_file_name("other.db");
    let other = other.display();
    for (sql, text) in [
        (
            format!("ATTACH '{other}' AS other"),
            "ATTACH and VACUUM INTO are not allowed",
        ),
        (
            format!("ATTACH '{other}' || '' AS other"),
            "ATTACH is not allowed",
        ),
        (
            format!("VACUUM INTO '{other}'"),
            "ATTACH and VACUUM INTO are not allowed",
        ),
        (
            format!("VACUUM INTO '{other}' || ''"),
            "ATTACH and VACUUM INTO are not allowed",
        ),
        ("DETACH other".to_owned(), "DETACH is not allowed"),
        (
            "SELECT load_extension('x')".to_owned(),
            "load_extension() is not allowed",
        ),
        ("PRAGMA journal_mode = delete".to_owned(), "stays in WAL mode"),
        ("PRAGMA main.journal_mode(off)".to_owned(), "stays in WAL mode"),
        (
            "PRAGMA writable_schema = on".to_owned(),
            "it can be read, not set",
        ),
        (
            "PRAGMA locking_mode = exclusive".to_owned(),
            "it can be read, not set",
        ),
        (
            "PRAGMA wal_checkpoint(truncate)".to_owned(),
            "wal_checkpoint is not allowed",
        ),
        (
            "PRAGMA temp_store_directory = '/'".to_owned(),
            "temp_store_directory is not allowed",
        ),
        ("PRAGMA mmap_size = 1000000".to_owned(), "it can be read, not set"),
    ] {
        let error = server.execute(&sql).await.unwrap_err();
        assert_eq!(error["code"], "SQLITE_AUTH", "{sql}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(text),
            "{sql}: {error}"
        );
    }
    assert!(!server.path().with_file_name("other.db").exists());
    server.execute("CREATE TABLE t(v)").await.unwrap();
    for sql in [
        "UPDATE sqlite_schema SET sql = ''",
        "UPDATE sqlite_dbpage SET data = zeroblob(4096) WHERE pgno = 1",
        "DELETE FROM sqlite_dbpage",
    ] {
        server.execute(sql).await.expect_err(sql);
    }
    assert_eq!(server.column("PRAGMA integrity_check").await[0]["value"], "ok");
    assert_eq!(server.column("PRAGMA journal_mode").await[0]["value"], "wal");
}

#[tokio::test]
async fn a_sequence_and_a_trigger_cannot_do_it_either() {
    let server = Server::start().await;
    let error = server
        .one(json!({"type": "sequence", "sql": "SELECT 1; PRAGMA journal_mode = delete"}))
        .await
        .unwrap_err();
    assert_eq!(error["code"], "SQLITE_AUTH");
    let error = server
        .one(json!({"type": "describe", "sql": "ATTACH 'x' AS y"}))
        .await
        .unwrap_err();
    assert_eq!(error["code"], "SQLITE_AUTH");
    server
        .one(
            json!({"type": "sequence", "sql": "CREATE TABLE t(v); CREATE TRIGGER r AFTER INSERT ON t BEGIN
            SELECT load_extension('x'); END"}),
        )
        .await
        .ok();
    assert!(server.execute("INSERT INTO t VALUES (1)").await.is_err());
}

#[tokio::test]
async fn vacuum_and_the_usual_pragmas_work() {
    let server = Server::start().await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    for sql in [
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "PRAGMA optimize",
        "PRAGMA table_info(t)",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA user_version = 7",
        "PRAGMA foreign_key_check",
        "SELECT * FROM pragma_table_xinfo('t')",
        "CREATE VIRTUAL TABLE f USING fts5(body)",
        "INSERT INTO f VALUES ('one two')",
        "SELECT * FROM f WHERE f MATCH 'two'",
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b)",
        "DROP TABLE f",
    ] {
        server.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    assert_eq!(server.column("PRAGMA user_version").await[0]["value"], "7");
}

/// A connection is used again only if nothing of its client is left in it.
#[tokio::test]
async fn what_one_client_sets_the_next_does_not_find() {
    let server = Server::start().await;
    for sql in [
        "CREATE TEMP TABLE left_over(v)",
        "PRAGMA case_sensitive_like = on",
        "PRAGMA query_only = on",
    ] {
        server.execute(sql).await.unwrap();
    }
    let error = server.execute("SELECT * FROM left_over").await.unwrap_err();
    assert_eq!(error["message"], "no such table: left_over");
    assert_eq!(server.column("SELECT 'A' LIKE 'a'").await[0]["value"], "1");
    server.execute("CREATE TABLE t(v)").await.unwrap();
}

#[tokio::test]
async fn a_read_only_token_reads_and_gets_sqlite_readonly_for_everything_else() {
    let server = Server::with_auth(StaticToken::new("reader", Access::ReadOnly)).await;
    let sqlite = rusqlite::Connection::open(server.path()).unwrap();
    sqlite
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (1)")
        .unwrap();
    let execute = async |sql: &str| {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
        let (status, answer) = server.send("/v2/pipeline", Some("reader"), &body).await;
        assert_eq!(status, 200, "{answer}");
        super::server::outcome(&answer["results"][0])
    };
    for sql in [
        "SELECT * FROM t",
        "PRAGMA table_info(t)",
        "BEGIN",
        "EXPLAIN DELETE FROM t",
    ] {
        execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    for sql in [
        "INSERT INTO t VALUES (2)",
        "UPDATE t SET v = 2",
        "DELETE FROM t",
        "CREATE TABLE u(v)",
        "CREATE TEMP TABLE u(v)",
        "DROP TABLE t",
        "BEGIN IMMEDIATE",
        "PRAGMA user_version = 1",
        "VACUUM",
    ] {
        let error = execute(sql).await.expect_err(sql);
        assert_eq!(error["code"], "SQLITE_READONLY", "{sql}: {error}");
        assert_eq!(error["message"], "attempt to write a readonly database");
    }
    let error = execute("PRAGMA query_only = off").await.unwrap_err();
    assert_eq!(error["code"], "SQLITE_AUTH");
    let rows: Value = execute("SELECT count(*) FROM t").await.unwrap()["result"]["rows"].clone();
    assert_eq!(rows[0][0]["value"], "1");
    assert_eq!(server.commits(), 0);
}
