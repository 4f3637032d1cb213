//! What a server does about files that are not where they were, links out of its folder, and clients that only take.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use partial_sync_server::{
    Limits, Server,
    pages::{QueryError, QueryLimits, QueryRunner, RevisionReader, Touched},
};
use partial_sync_transport::{PagesRequest, hrana};
use tokio::io::AsyncReadExt;

use super::support::{Client, TestDb, dump, insert};

/// Was red: the old file went on being served, while SQL over HTTP wrote into the new one through the old one's WAL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_replaced_is_what_both_endpoints_serve() {
    let db = TestDb::new();
    let other = TestDb::new();
    insert(&other.open(), 1, 10);
    let server = db.serve().await;
    let client = Client::new(&server.url());
    client.latest().await;
    std::fs::rename(&other.path, &db.path).unwrap();
    assert_eq!(client.latest().await.whole(), dump(&db.path));
    let sql = client.http.post(format!("{}/v2/pipeline", server.url()));
    let body =
        r#"{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"DELETE FROM t WHERE id > 7"}}]}"#;
    assert_eq!(sql.body(body).send().await.unwrap().status(), 200);
    server.shutdown().await;
    assert_eq!(
        db.open()
            .query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0))
            .unwrap(),
        7
    );
}

/// Was red: SQLite keeps the WAL beside the file that the link leads to, and the server looked for it beside the link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_a_database_is_served_as_that_database() {
    let db = TestDb::new();
    insert(&db.open(), 1, 10);
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link.db");
    std::os::unix::fs::symlink(&db.path, &link).unwrap();
    let server = Server::builder(&link).listen("127.0.0.1:0").await.unwrap();
    assert_eq!(Client::new(&server.url()).latest().await.whole(), dump(&db.path));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_in_a_served_folder_leads_nowhere() {
    let secret = TestDb::new();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&secret.path, folder.path().join("link.db")).unwrap();
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&format!("{}/link", server.url()));
    let refused = client.ask(PagesRequest::default()).await.unwrap_err();
    assert_eq!(refused.status, 404);
    server.shutdown().await;
}

/// Was red: the time for a request's head began with its first byte, so a connection without one was kept for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_never_asks_anything_is_closed() {
    let server = Server::in_memory()
        .limits(Limits {
            head_time: Duration::from_millis(100),
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    for said in ["", "PRI * HT", "POST / HTTP/1.1\r\nhost: x\r\n"] {
        let mut socket = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, said.as_bytes())
            .await
            .unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after {said:?}");
    }
    server.shutdown().await;
}

/// Was red: a query selector could build values of a gigabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_11_a_query_selector_cannot_build_a_huge_value() {
    let db = TestDb::new();
    let server = db.serve().await;
    let request = PagesRequest {
        query: Some("SELECT length(randomblob(300000000))".to_owned()),
        ..PagesRequest::default()
    };
    let refused = Client::new(&server.url()).ask(request).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "BAD_QUERY"));
    assert!(refused.message.contains("too big"), "{}", refused.message);
    server.shutdown().await;
}

/// Was red: with everything sorted in memory, one statement could take all of it within its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_11_a_client_cannot_move_temporary_tables_into_memory() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let run = async |sql: &str| -> Option<String> {
        let stmt = hrana::Stmt {
            sql: Some(sql.to_owned()),
            ..hrana::Stmt::default()
        };
        let body = serde_json::json!({"requests": [{"type": "execute", "stmt": stmt}]});
        let answer = client.http.post(format!("{}/v2/pipeline", server.url()));
        let text = answer
            .body(body.to_string())
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json["results"][0]["error"]["code"].as_str().map(str::to_owned)
    };
    assert_eq!(
        run("PRAGMA temp_store=MEMORY").await.as_deref(),
        Some("SQLITE_AUTH")
    );
    assert_eq!(run("PRAGMA temp_store=2").await.as_deref(), Some("SQLITE_AUTH"));
    assert_eq!(run("PRAGMA temp_store=FILE").await, None);
    assert_eq!(run("PRAGMA temp_store").await, None);
    server.shutdown().await;
}

/// Was red: every request ran its query at once, until no thread was left for anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariant_11_sixteen_query_selectors_run_at_a_time() {
    let limits = QueryLimits {
        of_caller: 64,
        ..QueryLimits::default()
    };
    assert_eq!(selectors_at_once(limits).await, 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_four_query_selectors_of_one_caller_run_at_a_time() {
    assert_eq!(selectors_at_once(QueryLimits::default()).await, 4);
}

/// How many of 64 query selectors of one caller run while none of them ends.
async fn selectors_at_once(limits: QueryLimits) -> usize {
    #[derive(Default)]
    struct Held {
        running: Mutex<(usize, bool)>,
        changed: Condvar,
    }
    struct Holding(Arc<Held>);
    impl QueryRunner for Holding {
        fn run(
            &self,
            _: &RevisionReader,
            _: &str,
            _: &QueryLimits,
            touched: &Arc<Touched>,
        ) -> Result<(), QueryError> {
            let mut running = self.0.running.lock().unwrap();
            running.0 += 1;
            let _released = self.0.changed.wait_while(running, |(_, released)| !*released);
            touched.note(partial_sync_core::PageNo::FIRST);
            Ok(())
        }
    }
    let held = Arc::new(Held::default());
    let server = Server::in_memory()
        .queries(Holding(held.clone()))
        .query_limits(limits)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    let ask = || {
        let client = client.clone();
        let request = PagesRequest {
            query: Some("SELECT 1".to_owned()),
            ..PagesRequest::default()
        };
        tokio::spawn(async move { client.ask(request).await.unwrap() })
    };
    let asked: Vec<_> = (0..64).map(|_| ask()).collect();
    let metrics = async || {
        let answer = client.http.get(format!("{}/metrics", server.url()));
        answer.send().await.unwrap().text().await.unwrap()
    };
    while !metrics().await.contains("endpoint=\"pull-updates\"} 64\n") {}
    // Those that are not held by now never would be: everything else continues, also what needs a thread.
    for _ in 0..100 {
        metrics().await;
        Client::new(&server.url()).latest().await;
    }
    let running = {
        let mut held = held.running.lock().unwrap();
        held.1 = true;
        held.0
    };
    held.changed.notify_all();
    for asked in asked {
        asked.await.unwrap();
    }
    server.shutdown().await;
    running
}
