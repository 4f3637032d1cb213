//! Clients that ask and then take nothing.

use std::time::Duration;

use partial_sync_server::{
    Limits, Server, ServerHandle,
    access::{Access, Authenticator, Caller, CallerId, Denied},
};

use super::raw::Raw;
use crate::pages::support::{Client, TestDb, insert};

/// A database of which an answer fits into no buffer between here and the server.
fn large() -> TestDb {
    let db = TestDb::new();
    insert(&db.open(), 1, 40_000);
    db
}

async fn serve(db: &TestDb) -> ServerHandle {
    Server::builder(&db.path)
        .limits(Limits {
            stall_time: Duration::from_millis(100),
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap()
}

/// Waits until so many requests are being answered.
pub(crate) async fn until_under_way(server: &ServerHandle, requests: usize) {
    let client = Client::new("").http;
    let wanted = format!("partial_sync_requests_under_way {requests}\n");
    let seen = async {
        loop {
            let metrics = client.get(format!("{}/metrics", server.url()));
            if metrics
                .send()
                .await
                .unwrap()
                .text()
                .await
                .unwrap()
                .contains(&wanted)
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen)
        .await
        .expect("their number does not change");
}

/// Was red: it was kept for as long as the client stayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v7_an_answer_whose_client_takes_nothing_is_cut() {
    let db = large();
    let server = serve(&db).await;
    let request = "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";
    let mut raw = Raw::sending(server.addr(), request).await;
    assert_eq!(raw.status().await, 200);
    until_under_way(&server, 0).await;
    // What was on its way comes, and then the end: not of the answer, but of the connection.
    let size = std::fs::metadata(&db.path).unwrap().len();
    assert!((raw.ends().await as u64) < size);
    server.shutdown().await;
}

/// Was red: over HTTP/2 the connection lives, only one answer is not taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v7_a_stream_whose_client_takes_nothing_is_cut() {
    let db = large();
    let server = serve(&db).await;
    let client = Client::http2();
    let request = client.post(format!("{}/pull-updates", server.url()));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    until_under_way(&server, 0).await;
    assert!(answer.bytes().await.is_err(), "it was cut");
    server.shutdown().await;
}

/// Was red: the connection was closed without an answer, and everything else on it with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v16_a_panic_is_the_end_of_one_request_and_of_nothing_else() {
    struct Panics;
    impl Authenticator for Panics {
        fn check(&self, authorization: Option<&str>, _: &str) -> Result<Caller, Denied> {
            assert!(authorization.is_none(), "a mistake of this server");
            Ok(Caller {
                access: Access::Full,
                id: CallerId::ANYONE,
            })
        }
    }
    let db = TestDb::new();
    let server = Server::builder(&db.path).authenticator(Panics);
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let post = |header| {
        format!(
            "POST /v2/pipeline HTTP/1.1\r\nhost: localhost\r\n{header}content-length: 15\r\n\r\n{{\"requests\":[]}}"
        )
    };
    let mut raw = Raw::sending(server.addr(), &post("authorization: Bearer x\r\n")).await;
    let (status, text) = raw.answer().await;
    assert_eq!((status, text.contains("INTERNAL")), (500, true), "{text}");
    raw.send(&post("")).await;
    assert_eq!(raw.answer().await.0, 200);
    server.shutdown().await;
}
