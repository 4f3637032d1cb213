//! Who is let in by the listener for administration, and what it says of a server of one file.

use std::time::Duration;

use partial_sync_server::{Admin, Limits, Server, ServerError, access::Access, auth::StaticToken};
use serde_json::json;

use super::support::{Served, administered};
use crate::{front::raw::Raw, pages::support::TestDb};

/// Was red: it was told as one of 0.0.0.0:0.
#[tokio::test]
async fn an_address_that_leads_nowhere_is_told_as_it_is() {
    let db = TestDb::new();
    let nowhere = "127.0.0.1:http";
    let admin = Admin::listen(nowhere).authenticator(StaticToken::new("boss", Access::Full));
    for refused in [
        Server::builder(&db.path).listen(nowhere).await,
        Server::builder(&db.path).admin(admin).listen("127.0.0.1:0").await,
    ] {
        let told = refused.err().map(|error| error.to_string()).unwrap();
        assert!(
            told.contains("invalid port value") && told.contains("127.0.0.1:8080"),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_needs_a_token_of_its_own_also_on_loopback() {
    let db = TestDb::new();
    let refused = Server::builder(&db.path)
        .admin(Admin::listen("127.0.0.1:0"))
        .listen("127.0.0.1:0")
        .await;
    assert!(matches!(refused, Err(ServerError::AdminWithoutToken)));
    assert!(
        !db.path.with_extension("db-history").exists(),
        "nothing was touched"
    );

    let served = Served::built(&["a"], |builder| {
        builder.authenticator(StaticToken::new("writer", Access::Full))
    })
    .await;
    let create = "/v1/namespaces/b/create";
    for (token, method, path, status) in [
        ("", "GET", "/v1/namespaces", 401),
        ("writer", "GET", "/v1/namespaces", 401),
        ("", "GET", "/v1/nothing", 401),
        ("", "GET", "/health", 200),
        ("viewer", "GET", "/v1/namespaces", 200),
        ("viewer", "GET", "/v1/namespaces/a/stats", 200),
        ("viewer", "POST", create, 403),
        ("viewer", "DELETE", "/v1/namespaces/a", 403),
        ("viewer", "POST", "/v1/kick", 400),
        ("boss", "POST", create, 200),
    ] {
        let (answered, told) = served.with(token, method, path, json!({})).await;
        assert_eq!(answered, status, "{token} {method} {path}: {told}");
    }
    // And its tokens are good for nothing else.
    let url = format!("{}/a/v2/pipeline", served.server.url());
    let answer = served
        .client("a")
        .http
        .post(url)
        .bearer_auth("boss")
        .body(r#"{"requests":[]}"#);
    assert_eq!(answer.send().await.unwrap().status(), 401);
    served.server.shutdown().await;
}

/// Each guard of the front door, at this door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_is_behind_the_same_front_door() {
    let served = Served::built(&["a"], |builder| {
        builder.limits(Limits {
            head_time: Duration::from_millis(200),
            ..Limits::default()
        })
    })
    .await;
    let url = served.server.admin_url().unwrap();
    let host = url.strip_prefix("http://").unwrap().to_owned();
    let addr = host.parse().unwrap();
    let auth = "authorization: Bearer boss\r\n";
    for (head, status) in [
        (
            format!("GET /v1/namespaces HTTP/1.1\r\nhost: {host}\r\n{auth}\r\n"),
            200,
        ),
        (
            format!("GET /v1/namespaces HTTP/1.1\r\nhost: evil.example\r\n{auth}\r\n"),
            403,
        ),
        (format!("GET /v1/namespaces HTTP/1.1\r\n{auth}\r\n"), 400),
        (
            format!(
                "GET /v1/namespaces HTTP/1.1\r\nhost: {host}\r\norigin: http://evil.example\r\n{auth}\r\n"
            ),
            403,
        ),
        (
            format!(
                "POST /v1/namespaces/b/create HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain\r\ncontent-length: \
                 2\r\n{auth}\r\n{{}}"
            ),
            415,
        ),
        (
            format!(
                "POST /v1/namespaces/b/create HTTP/1.1\r\nhost: {host}\r\ncontent-length: 99999999\r\n{auth}\r\n"
            ),
            413,
        ),
    ] {
        let (answered, body) = Raw::sending(addr, &head).await.answer().await;
        assert_eq!(answered, status, "{head}: {body}");
    }
    // Half a head is closed in time.
    Raw::sending(addr, "GET / HTTP/1.1\r\n").await.ends().await;
    assert_eq!(served.names().await, ["a"]);
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_of_a_server_of_one_file_says_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let db = TestDb::new();
    let mut served = Served::of(folder, |builder| builder).await;
    let one = administered(Server::builder(&db.path))
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    std::mem::replace(&mut served.server, one).shutdown().await;
    assert_eq!(served.names().await, ["app"]);
    let stats = served.ok("GET", "/namespaces/app/stats", json!({})).await;
    assert_eq!(stats["revisions"], 1);
    served.ok("POST", "/namespaces/app/kick", json!({})).await;
    for (method, path) in [
        ("POST", "/namespaces/b/create"),
        ("POST", "/namespaces/app/fork/b"),
        ("DELETE", "/namespaces/app"),
    ] {
        let told = served
            .refused(method, path, json!({}), (409, "ONE_DATABASE"))
            .await;
        assert!(
            told["message"]
                .as_str()
                .unwrap()
                .contains("start it with a folder"),
            "{told}"
        );
    }
    served
        .refused("GET", "/namespaces/other/stats", json!({}), (404, "NOT_FOUND"))
        .await;
    served.server.shutdown().await;
}
