//! What the page history hears of commits, and what it is left to do.

use std::sync::Arc;

use partial_sync_server::{
    access::{Access, Caller, CallerId, DatabaseHandle, SqlEndpoint as _},
    hrana::Hrana,
};
use serde_json::{Value, json};

use super::server::{Commits, Server};
use crate::pages::support::{Client, TestDb, dump};

#[tokio::test]
async fn an_answer_waits_until_the_page_history_has_the_commit() {
    let server = Arc::new(Server::start().await);
    server.commits.hold(true);
    let writer = server.clone();
    let writing = tokio::spawn(async move { writer.execute("CREATE TABLE t(v)").await });
    server.commits.wait_for(1).await;
    // The commit has happened, and another client may read it; who made it is still waiting.
    server.execute("SELECT * FROM t").await.unwrap();
    assert!(!writing.is_finished());
    server.commits.hold(false);
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_way_to_commit_is_heard_of_and_nothing_else() {
    let server = Server::start().await;
    let execute = |sql: &str| json!({"type": "execute", "stmt": {"sql": sql}});
    for (request, heard) in [
        (execute("CREATE TABLE t(v)"), 1),
        (execute("INSERT INTO t VALUES (1)"), 1),
        (execute("SELECT * FROM t"), 0),
        (execute("DELETE FROM t WHERE v = 100"), 0),
        (execute("INSERT INTO absent VALUES (1)"), 0),
        (execute("PRAGMA user_version = 7"), 1),
        (execute("VACUUM"), 1),
        (
            json!({"type": "sequence", "sql": "INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)"}),
            1,
        ),
        (
            json!({"type": "sequence", "sql": "BEGIN; INSERT INTO t VALUES (4); ROLLBACK"}),
            0,
        ),
        // The first statement is committed although the sequence fails.
        (
            json!({"type": "sequence", "sql": "INSERT INTO t VALUES (5); INSERT INTO absent VALUES (1)"}),
            1,
        ),
        (json!({"type": "describe", "sql": "INSERT INTO t VALUES (6)"}), 0),
    ] {
        let before = server.commits();
        let _ = server.one(request.clone()).await;
        assert_eq!(server.commits() - before, heard, "{request}");
    }
}

/// The page history copies pages out of the log; a checkpoint that it did not make could overwrite them first.
#[tokio::test]
async fn sql_over_http_never_checkpoints() {
    let server = Server::start().await;
    server.execute("CREATE TABLE t(v)").await.unwrap();
    // Looked at from outside: opening and closing the file here would take SQLite's locks away.
    let file = || {
        let metadata = std::fs::metadata(server.path()).unwrap();
        (metadata.len(), metadata.modified().unwrap())
    };
    let before = file();
    for _ in 0..3 {
        let sql = "INSERT INTO t SELECT randomblob(4000) FROM generate_series(1, 800)";
        server.execute(sql).await.unwrap();
    }
    server.hrana.shut_down().await;
    assert_eq!(file(), before, "every page is still in the log");
    let sqlite = rusqlite::Connection::open(server.path()).unwrap();
    let rows: i64 = sqlite
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 2400);
}

/// Was red: a log that had been large once kept that room on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v13_a_log_that_was_large_gives_its_room_back() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let execute = async |sql: &str| {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
        let request = client.http.post(format!("{}/v2/pipeline", client.url));
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let wal = || {
        let path = format!("{}-wal", db.path.display());
        std::fs::metadata(path).unwrap().len()
    };
    execute("CREATE TABLE large(v)").await;
    execute("INSERT INTO large SELECT zeroblob(1000000) FROM generate_series(1, 40)").await;
    assert!(wal() > 40_000_000);
    let shrinks = async {
        while wal() > 17 << 20 {
            execute("INSERT INTO large VALUES (1)").await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), shrinks)
        .await
        .expect("it stays large");
    assert_eq!(client.latest().await.whole(), dump(&db.path));
    server.shutdown().await;
}

#[tokio::test]
async fn a_file_that_nobody_can_write_is_read_with_full_access_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frozen.db");
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    sqlite
        .execute_batch("CREATE TABLE t(v); INSERT INTO t VALUES (42)")
        .unwrap();
    drop(sqlite);
    let database = DatabaseHandle {
        name: "frozen".into(),
        path: Arc::new(path),
        read_only: true,
        listener: Arc::new(Commits::default()),
    };
    let hrana = Hrana::default();
    let caller = Caller {
        access: Access::Full,
        id: CallerId::ANYONE,
    };
    let run = async |sql: &str| {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
        let request = axum::http::Request::post("/v3/pipeline").body(body.to_string().into());
        let answer = hrana.answer(database.clone(), caller, request.unwrap()).await;
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["results"][0].clone()
    };
    let read = run("SELECT v FROM t").await;
    assert_eq!(read["response"]["result"]["rows"][0][0]["value"], "42");
    let written = run("INSERT INTO t VALUES (1)").await;
    assert_eq!(written["error"]["code"], "SQLITE_READONLY");
}
