//! Connections of HTTP/1.1 that do less than they say: half a request, half a body, an answer that nobody reads.

use std::time::Duration;

use fastrand::Rng;
use partial_sync_transport::PagesRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::foe::{BREATH, Foe, reader};
use crate::{
    ask::{self, FOE},
    client::{Ask, Client, connect},
};

/// A connection that was closed by the server is opened again; until then it is kept.
async fn hold(socket: &mut TcpStream, most: Duration) {
    let mut closed = [0; 1024];
    let until_closed = async { while socket.read(&mut closed).await.is_ok_and(|read| read > 0) {} };
    // Kept as long as it is let.
    let _ = timeout(most, until_closed).await;
}

async fn open(foe: &Foe, rng: &mut Rng) -> Option<TcpStream> {
    foe.count();
    match connect(foe.addr, Some(Foe::address(rng))).await {
        Ok(socket) => Some(socket),
        Err(_) => {
            sleep(BREATH).await;
            None
        }
    }
}

/// Row 6.
pub(super) async fn halves(foe: Foe) {
    foe.tasks(1100, |foe, mut rng| async move {
        loop {
            let Some(mut socket) = open(&foe, &mut rng).await else {
                continue;
            };
            let head = format!(
                "POST /honest/v2/pipeline HTTP/1.1\r\nhost: {}\r\nx: {}",
                foe.addr,
                "y".repeat(60_000)
            );
            let half = rng.usize(..head.len());
            if socket.write_all(&head.as_bytes()[..half]).await.is_ok() {
                hold(&mut socket, Duration::from_secs(60)).await;
            }
        }
    })
    .await;
}

/// Row 6.
pub(super) async fn floods(foe: Foe) {
    foe.tasks(400, |foe, mut rng| async move {
        loop {
            let Some(mut socket) = open(&foe, &mut rng).await else {
                continue;
            };
            match rng.u8(..3) {
                0 => drop(socket),
                1 => {
                    // What comes of it does not matter.
                    let _ = socket
                        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                        .await;
                }
                _ => hold(&mut socket, Duration::from_secs(2)).await,
            }
        }
    })
    .await;
}

/// Bodies that stop in the middle.
pub(super) async fn bodies(foe: Foe) {
    foe.tasks(600, |foe, mut rng| async move {
        loop {
            let Some(mut socket) = open(&foe, &mut rng).await else {
                continue;
            };
            let (token, length) = match rng.u8(..10) {
                0 => (FOE, 200_000_000),
                _ => (reader(&mut rng), 1 << 20),
            };
            let head = format!(
                "POST /honest/v2/pipeline HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
                foe.addr
            );
            let half = vec![b' '; rng.usize(1..1 << 20)];
            let sent = async {
                socket.write_all(head.as_bytes()).await?;
                socket.write_all(&half).await
            };
            if timeout(Duration::from_secs(20), sent)
                .await
                .is_ok_and(|sent| sent.is_ok())
            {
                hold(&mut socket, Duration::from_secs(20)).await;
            }
        }
    })
    .await;
}

/// Row 7.
pub(super) async fn deaf(foe: Foe) {
    foe.tasks(600, |foe, mut rng| async move {
        loop {
            let Some(mut socket) = open(&foe, &mut rng).await else {
                continue;
            };
            let (path, body) = match rng.bool() {
                true => ("/honest/pull-updates", ask::pages(&PagesRequest::default())),
                false => ("/honest/v2/pipeline", ask::statement("SELECT hex(v) FROM t")),
            };
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                foe.addr,
                reader(&mut rng),
                body.len()
            );
            let request = [head.as_bytes(), &body].concat();
            if socket.write_all(&request).await.is_ok() {
                sleep(Duration::from_secs(rng.u64(1..10))).await;
            }
        }
    })
    .await;
}

/// Row 15.
pub(super) async fn polls(foe: Foe) {
    foe.tasks(1000, |foe, mut rng| async move {
        let mut client = Client::new(foe.addr, Some(Foe::address(&mut rng)));
        let mut since = None;
        loop {
            let body = ask::pages(&PagesRequest {
                since: since.take(),
                long_poll: Some(Duration::from_secs(30)),
                ..ask::some_pages(0, 1, None)
            });
            let ask = Ask::post(reader(&mut rng), "/honest/pull-updates", body);
            let reply = foe.send(&mut client, &ask).await;
            since = reply.and_then(|reply| ask::revision(&reply.body).ok());
        }
    })
    .await;
}
