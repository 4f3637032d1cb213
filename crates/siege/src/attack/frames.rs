//! Frames of HTTP/2 that no client sends: floods of SETTINGS and PING, heads without an end, rubbish.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::foe::{BREATH, Foe};
use crate::client::connect;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const WINDOW_UPDATE: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

pub(super) async fn frames(foe: Foe) {
    foe.tasks(64, |foe, mut rng| async move {
        loop {
            foe.count();
            let Ok(socket) = connect(foe.addr, Some(Foe::address(&mut rng))).await else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let (mut reading, mut writing) = socket.into_split();
            let kind = rng.u8(..6);
            let mut flood = Vec::new();
            for _ in 0..500 {
                flood.extend(match kind {
                    0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, rng.u8(..), rng.u8(..)]),
                    1 => frame(PING, 0, 0, &[7; 8]),
                    2 => frame(CONTINUATION, 0, 1, &[0x40, 1, b'a', 1, b'b'].repeat(1000)),
                    3 => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
                    4 => frame(
                        rng.u8(..),
                        rng.u8(..),
                        rng.u32(..100),
                        &vec![rng.u8(..); rng.usize(..100)],
                    ),
                    // The head of a stream each, which ends at once and is never answered.
                    _ => frame(
                        HEADERS,
                        5,
                        rng.u32(..1000) * 2 + 1,
                        &[0x82, 0x86, 0x84, 0x41, 1, b'a'],
                    ),
                });
            }
            // Half of them read what they get.
            let (reads, times) = (rng.bool(), rng.u32(1..50));
            let sending = async {
                writing.write_all(PREFACE).await?;
                writing.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
                if kind == 2 {
                    writing.write_all(&frame(HEADERS, 0, 1, &[0x82])).await?;
                }
                for _ in 0..times {
                    writing.write_all(&flood).await?;
                }
                std::io::Result::Ok(())
            };
            let receiving = async {
                let mut bytes = [0; 4096];
                while reads && reading.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = timeout(Duration::from_secs(5), sending) => {}
                () = receiving => {}
            }
        }
    })
    .await;
}
