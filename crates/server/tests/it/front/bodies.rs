//! Bodies: refused by their length before they come, and within a budget for all.

use partial_sync_server::{Limits, Server, access::Access, auth::StaticToken};

use super::raw::Raw;

fn post(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer t\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Was red: it was refused when its bytes had come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v18_a_body_that_says_it_is_too_large_is_refused_before_it_comes() {
    for (access, path, limit) in [
        (Access::Full, "/v2/pipeline", 256 << 20),
        (Access::ReadOnly, "/v2/pipeline", 1 << 20),
        (Access::Full, "/pull-updates", 16 << 20),
        (Access::ReadOnly, "/pull-updates", 16 << 20),
    ] {
        let server = Server::in_memory()
            .authenticator(StaticToken::new("t", access))
            .listen("127.0.0.1:0")
            .await
            .unwrap();
        let mut raw = Raw::sending(server.addr(), &post(path, limit + 1)).await;
        assert_eq!(
            raw.refusal().await,
            (413, "TOO_LARGE".to_owned()),
            "{access:?} {path}"
        );
        server.shutdown().await;
    }
}

/// A body without a length is refused when it becomes too large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v18_a_body_in_pieces_is_refused_at_the_limit() {
    let server = Server::in_memory()
        .limits(Limits {
            body: 10,
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let head = "POST /v2/pipeline HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut raw = Raw::sending(server.addr(), head).await;
    raw.send("8\r\n12345678\r\n").await;
    raw.send("8\r\n12345678\r\n").await;
    assert_eq!(raw.refusal().await, (413, "TOO_LARGE".to_owned()));
    server.shutdown().await;
}
