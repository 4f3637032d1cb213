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

/// A few bytes can stand for many: it is those that the limit is for, and none of it runs that is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v18_a_compressed_body_is_limited_by_what_it_stands_for() {
    let sql = |sql: &str| {
        let step = serde_json::json!({"stmt": {"sql": sql}});
        serde_json::json!({"requests": [{"type": "batch", "batch": {"steps": [step]}}]}).to_string()
    };
    let write = "CREATE TABLE IF NOT EXISTS t(a)";
    let pack = |bytes: &[u8]| {
        let mut packer = zstd::bulk::Compressor::new(3).unwrap();
        packer.window_log(20).unwrap();
        packer.compress(bytes).unwrap()
    };
    let bomb = pack(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 16 << 10);
    for (access, packed, coding, answer) in [
        (Access::ReadOnly, bomb, "zstd", (413, "TOO_LARGE")),
        (
            Access::Full,
            pack(sql(write).as_bytes())[..40].to_vec(),
            "zstd",
            (400, "BAD_REQUEST"),
        ),
        (
            Access::Full,
            sql(write).into_bytes(),
            "zstd",
            (400, "BAD_REQUEST"),
        ),
        (
            Access::Full,
            sql(write).into_bytes(),
            "gzip",
            (415, "UNSUPPORTED_ENCODING"),
        ),
        (
            Access::Full,
            sql(write).into_bytes(),
            "zstd\r\ncontent-encoding: zstd",
            (415, "UNSUPPORTED_ENCODING"),
        ),
    ] {
        let server = Server::in_memory()
            .authenticator(StaticToken::new("t", access))
            .listen("127.0.0.1:0")
            .await
            .unwrap();
        let head = |coding: &str, length| {
            let head = post("/v2/pipeline", length);
            format!("{}\r\ncontent-encoding: {coding}\r\n\r\n", head.trim_end())
        };
        let mut raw = Raw::sending(server.addr(), &head(coding, packed.len())).await;
        raw.send_bytes(&packed).await;
        let (status, code) = raw.refusal().await;
        assert_eq!((status, code.as_str()), answer, "{access:?} {coding}");
        // Nothing of it ran, and a whole one does.
        let look = pack(sql("SELECT count(*) FROM sqlite_master").as_bytes());
        let mut raw = Raw::sending(server.addr(), &head("Zstd", look.len())).await;
        raw.send_bytes(&look).await;
        let (status, answer) = raw.answer().await;
        assert_eq!(status, 200);
        assert!(answer.contains(r#"[{"type":"integer","value":"0"}]"#), "{answer}");
        server.shutdown().await;
    }
}
