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
