//! Where files are is for the log only.

use partial_sync_server::{Server, access::Access, auth::StaticToken};
use partial_sync_transport::PagesRequest;

use crate::pages::support::{Client, TestDb};

/// Was red: the answer said which file it could not open, and `PRAGMA database_list` which one it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v18_no_answer_says_where_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let noise = "not a SQLite database, but long enough to be one ".repeat(100);
    std::fs::write(folder.path().join("text.db"), noise).unwrap();
    let server = Server::builder(folder.path())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&format!("{}/text", server.url()));
    let refused = client.ask(PagesRequest::default()).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (500, "INTERNAL"));
    let path = folder.path().to_str().unwrap();
    assert!(!refused.message.contains(path), "{}", refused.message);
    assert!(refused.message.contains("log"), "{}", refused.message);
    server.shutdown().await;

    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let run = async |sql: &str| {
        let body = serde_json::json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}]});
        let request = client.http.post(format!("{}/v2/pipeline", server.url()));
        let request = request.header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["results"][0].clone()
    };
    for sql in ["PRAGMA database_list", "pragma main.database_list;"] {
        let listed = run(sql).await;
        let row = &listed["response"]["result"]["rows"][0];
        assert_eq!(row[1]["value"], "main", "{sql}: {listed}");
        assert_eq!(row[2]["value"], "", "{sql}: {listed}");
    }
    for sql in [
        "SELECT file FROM pragma_database_list",
        "SELECT hex(file) FROM pragma_database_list()",
    ] {
        assert_eq!(run(sql).await["error"]["code"], "SQLITE_AUTH", "{sql}");
    }
    server.shutdown().await;
}

/// Was red: clients of SQL over HTTP ask for the version without their token, and took a refusal for "an older one".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v21_the_version_is_told_without_a_token_and_tells_nothing_of_databases() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there.db"), "").unwrap();
    let server = Server::builder(folder.path())
        .authenticator(StaticToken::new("sesame", Access::Full))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::new(&server.url());
    let get = async |path: &str| {
        let answer = client
            .http
            .get(format!("{}{path}", client.url))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for version in ["v2", "v3", "v3-protobuf"] {
        for name in ["", "/there", "/absent"] {
            for end in ["", "/"] {
                assert_eq!(get(&format!("{name}/{version}{end}")).await, (200, String::new()));
            }
        }
    }
    for path in ["/there/v4", "/absent/v4", "/there/v3/pipeline", "/a/there/v3"] {
        assert_eq!(get(path).await.0, 401, "{path}");
    }
    let posted = client.http.post(format!("{}/there/v3", client.url)).send().await;
    assert_eq!(posted.unwrap().status(), 401);
    server.shutdown().await;
}
