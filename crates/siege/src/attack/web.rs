//! Tokens that are not good, web pages of others, and heads that lie.

use std::time::Duration;

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::foe::{BREATH, Foe, reader};
use crate::{
    ask,
    client::{Ask, Reply, connect},
    process::signal,
};

const SQL: &str = "/honest/v2/pipeline";

fn must_not_be_answered(ask: &Ask, reply: &Reply) {
    if reply.status == 200 {
        Foe::breach(&format!(
            "{} {:?} was answered with {}",
            ask.path,
            ask.headers,
            reply.start()
        ));
    }
}

/// Row 12.
pub(super) async fn tokens(foe: Foe) {
    let asking = foe.clients(
        16,
        |rng: &mut Rng| {
            let token: String = match rng.u8(..4) {
                0 => String::new(),
                1 => "x".repeat(rng.usize(1..8000)),
                2 => "eyJhbGciOiJub25lIn0.eyJhIjoicncifQ.".to_owned(),
                _ => format!("x{}", reader(rng)),
            };
            Ask::post(&token, SQL, ask::statement("SELECT 1"))
        },
        must_not_be_answered,
    );
    let hanging_up = async {
        loop {
            if let Err(error) = signal(foe.server, "HUP") {
                eprintln!("no signal could be sent: {error}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::join!(asking, hanging_up);
}

/// Row 17.
pub(super) async fn origins(foe: Foe) {
    let ask = |rng: &mut Rng| {
        let mut ask = Ask::post(reader(rng), SQL, ask::statement("SELECT 1"));
        ask.headers = match rng.u8(..4) {
            0 => vec![("content-type", "text/plain")],
            1 => vec![
                ("origin", "https://evil.example"),
                ("content-type", "application/json"),
            ],
            2 => vec![("origin", "null"), ("content-type", "application/json")],
            _ => vec![
                ("content-type", "multipart/form-data; boundary=x"),
                ("origin", "http://127.0.0.1"),
            ],
        };
        ask
    };
    foe.clients(16, ask, must_not_be_answered).await;
}

/// Row 18.
pub(super) async fn hosts(foe: Foe) {
    foe.tasks(16, |foe, mut rng| async move {
        loop {
            foe.count();
            let Ok(mut socket) = connect(foe.addr, Some(Foe::address(&mut rng))).await else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            let token = reader(&mut rng);
            let head = match rng.u8(..5) {
                0 => format!("POST {SQL} HTTP/1.1\r\nhost: a\r\nhost: b\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"),
                1 => format!("POST {SQL} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 99999999999\r\n\r\n"),
                2 => format!("POST {SQL} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
                3 => format!("POST /..%2fhonest/../honest/v2/pipeline HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"),
                _ => format!("POST http://b{SQL} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\n\r\n"),
            };
            let answered = async {
                socket.write_all(head.as_bytes()).await.ok()?;
                let mut answer = vec![0; 1000];
                let read = socket.read(&mut answer).await.ok()?;
                answer.truncate(read);
                Some(String::from_utf8_lossy(&answer).into_owned())
            };
            let Ok(answer) = timeout(Duration::from_secs(10), answered).await else {
                Foe::breach(&format!("not refused at once: {head}"));
                continue;
            };
            let answer = answer.unwrap_or_default();
            let data = foe.place.data.to_string_lossy().into_owned();
            if answer.starts_with("HTTP/1.1 200") || answer.contains(&data) {
                Foe::breach(&format!("{head} was answered with {answer}"));
            }
        }
    })
    .await;
}
