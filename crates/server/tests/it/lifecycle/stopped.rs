//! What is left of a server that has stopped while its program has not.

use partial_sync_server::Server;

use super::many::open_files;
use crate::{
    front::{raw::Raw, stalls::until_under_way},
    pages::support::TestDb,
};

/// Was red: answers that took too long were not cut off. A body that came then was answered by what had been closed, although
/// another server may have the file by now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_server_that_has_stopped_answers_nothing_and_opens_nothing() {
    let db = TestDb::new();
    let server = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    let head = "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n";
    let mut raw = Raw::sending(server.addr(), head).await;
    until_under_way(&server, 1).await;
    server.shutdown().await;
    raw.send_anyway("\u{8}\u{0}").await;
    assert_eq!(raw.ends().await, 0);
    assert_eq!(open_files(db.path.parent().unwrap()), (0, 0));
    let again = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    again.shutdown().await;
}

/// Was red: each of them kept the server from stopping for as long as an answer under way may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_asked_nothing_does_not_keep_a_server_from_stopping() {
    let db = TestDb::new();
    let server = Server::builder(&db.path).listen("127.0.0.1:0").await.unwrap();
    let addr = server.addr();
    let half_a_head = Raw::sending(addr, "GET /health HTTP/1.1\r\nhost: loc").await;
    // These answer no ping of the server; one has asked something, of which it has the answer.
    let mut silent = Raw::sending(addr, PREFACE).await;
    silent.send_bytes(SETTINGS).await;
    let mut answered = Raw::sending(addr, PREFACE).await;
    answered.send_bytes(SETTINGS).await;
    answered.send_bytes(GET_HEALTH).await;
    let said = answered.until(b"\"status\":\"ok\"").await;
    assert!(said, "the health is told");
    let head = "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n";
    let mut half_a_body = Raw::sending(addr, head).await;
    until_under_way(&server, 1).await;
    let stopped = tokio::spawn(server.shutdown());
    for mut raw in [half_a_head, silent, answered] {
        raw.ends().await;
    }
    // The rest of a request that has begun is waited for.
    half_a_body.send_anyway("\u{8}\u{0}").await;
    assert!(half_a_body.ends().await > 0);
    stopped.await.unwrap();
}

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Headers of one request, whole: GET, http, /health and localhost.
const GET_HEALTH: &[u8] = b"\0\0\x16\x01\x05\0\0\0\x01\x82\x86\x04\x07/health\x01\x09localhost";
