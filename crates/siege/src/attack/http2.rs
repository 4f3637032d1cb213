//! Connections of HTTP/2: windows of nothing, streams that are reset, bodies that stop.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use h2::{
    Reason,
    client::{Builder, SendRequest},
};
use hyper::Request;
use partial_sync_transport::PagesRequest;
use tokio::{task::JoinSet, time::timeout};

use super::foe::{BREATH, Foe, reader};
use crate::{ask, client::connect};

const PATIENCE: Duration = Duration::from_secs(10);

async fn open(foe: &Foe, rng: &mut Rng, builder: &Builder) -> Option<SendRequest<Bytes>> {
    let opened = async {
        let socket = connect(foe.addr, Some(Foe::address(rng))).await.ok()?;
        let (send, connection) = builder.handshake(socket).await.ok()?;
        tokio::spawn(connection);
        Some(send)
    };
    let opened = timeout(PATIENCE, opened).await.ok().flatten();
    if opened.is_none() {
        tokio::time::sleep(BREATH).await;
    }
    opened
}

fn post(foe: &Foe, rng: &mut Rng, path: &str) -> Option<Request<()>> {
    foe.count();
    Request::builder()
        .method("POST")
        .uri(format!("http://{}{path}", foe.addr))
        .header("authorization", format!("Bearer {}", reader(rng)))
        .header("content-type", "application/json")
        .body(())
        .ok()
}

/// Row 7: answers of megabytes on 200 streams, into windows of nothing, or taken a byte at a time.
pub(super) async fn deaf(foe: Foe) {
    foe.tasks(40, |foe, mut rng| async move {
        let mut builder = Builder::new();
        let window = [0, 1, 65_535][rng.usize(..3)];
        builder.initial_window_size(window);
        loop {
            let Some(mut send) = open(&foe, &mut rng, &builder).await else {
                continue;
            };
            let mut answers = JoinSet::new();
            let asking = async {
                for _ in 0..200 {
                    send = send.ready().await.ok()?;
                    let (path, body) = match rng.bool() {
                        true => ("/honest/pull-updates", ask::pages(&PagesRequest::default())),
                        false => ("/honest/v2/pipeline", ask::statement("SELECT hex(v) FROM t")),
                    };
                    let (answer, mut sending) = send.send_request(post(&foe, &mut rng, path)?, false).ok()?;
                    sending.send_data(body, true).ok()?;
                    answers.spawn(async move {
                        let mut body = answer.await.ok()?.into_body();
                        loop {
                            let _ = body.flow_control().release_capacity(1);
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            if window > 1 {
                                std::future::pending::<()>().await;
                            }
                            body.data().await?.ok()?;
                        }
                        #[expect(unreachable_code, reason = "the type of the block")]
                        Some(())
                    });
                }
                Some(())
            };
            let _ = timeout(PATIENCE, asking).await;
            tokio::time::sleep(Duration::from_secs(rng.u64(1..8))).await;
        }
    })
    .await;
}

/// Rapid reset.
pub(super) async fn resets(foe: Foe) {
    foe.tasks(16, |foe, mut rng| async move {
        loop {
            let Some(mut send) = open(&foe, &mut rng, &Builder::new()).await else {
                continue;
            };
            let resetting = async {
                for _ in 0..rng.u32(100..20_000) {
                    send = send.ready().await.ok()?;
                    let (_answer, mut sending) = send
                        .send_request(post(&foe, &mut rng, "/honest/v2/pipeline")?, false)
                        .ok()?;
                    if rng.bool() {
                        sending
                            .send_data(ask::statement("SELECT count(*) FROM t a, t b"), true)
                            .ok()?;
                    }
                    if rng.u8(..8) == 0 {
                        tokio::task::yield_now().await;
                    }
                    sending.send_reset(Reason::CANCEL);
                }
                Some(())
            };
            let _ = timeout(PATIENCE, resetting).await;
        }
    })
    .await;
}

/// Half a megabyte on each of 200 streams, and no end.
pub(super) async fn streams(foe: Foe) {
    let spaces = Bytes::from(vec![b' '; 500_000]);
    foe.tasks(60, |foe, mut rng| {
        let spaces = spaces.clone();
        async move {
            loop {
                let Some(mut send) = open(&foe, &mut rng, &Builder::new()).await else {
                    continue;
                };
                let mut kept = Vec::new();
                let asking = async {
                    for _ in 0..200 {
                        send = send.ready().await.ok()?;
                        let mut request = post(&foe, &mut rng, "/honest/v2/pipeline")?;
                        request.headers_mut().insert("content-length", 1_000_000.into());
                        let (answer, mut sending) = send.send_request(request, false).ok()?;
                        sending
                            .send_data(spaces.slice(..rng.usize(1..500_000)), false)
                            .ok()?;
                        kept.push((answer, sending));
                    }
                    Some(())
                };
                let _ = timeout(PATIENCE, asking).await;
                tokio::time::sleep(Duration::from_secs(rng.u64(1..15))).await;
            }
        }
    })
    .await;
}
