//! Stores over HTTP that are slow, drip, stand still or refuse: on sockets of this machine, with a clock that does not wait.

use std::time::Duration;

use partial_sync_ltx::{TxId, TxRange};
use partial_sync_store::{Bucket, Created, FileName, Level, open};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

const TOKEN: &str = "FwoGZXIvYXdzEDsaDEXAMPLE+TOKEN/==";
const SIZE: usize = 64 << 20;

/// A bucket whose requests are answered by this.
async fn bucket<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> Bucket
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    let variables = [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", TOKEN),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    open("s3://bucket/app", variables).unwrap()
}

fn name() -> FileName {
    let ids = TxRange::one(TxId::FIRST);
    let level = Level::new(0).unwrap();
    FileName { level, ids }
}

/// Reads the head of a request, and gives what came of the body.
async fn head(stream: &mut TcpStream) -> usize {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.unwrap();
        text.extend_from_slice(&piece[..n]);
        if let Some(at) = text.windows(4).position(|end| end == b"\r\n\r\n") {
            return text.len() - at - 4;
        }
        assert!(n > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_takes_longer_than_any_silence_comes_through() {
    let slow = bucket(|mut stream| async move {
        let mut came = head(&mut stream).await;
        let mut piece = vec![0; 1 << 20];
        while came < SIZE {
            sleep(Duration::from_secs(10)).await;
            let len = piece.len().min(SIZE - came);
            came += stream.read_exact(&mut piece[..len]).await.unwrap();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let began = tokio::time::Instant::now();
    let created = slow.create(name(), vec![7; SIZE].into()).await.unwrap();
    assert_eq!(created, Created::Done);
    assert!(began.elapsed() > Duration::from_secs(300));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stands_still_fails() {
    let silent = bucket(|mut stream| async move {
        head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    silent.create(name(), vec![7; SIZE].into()).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_drips_fails() {
    let drips = bucket(|mut stream| async move {
        head(&mut stream).await;
        let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9999/10000\r\nContent-Length: 10000\r\nETag: \"1\"\r\n\
                    Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    let began = tokio::time::Instant::now();
    drips.range(name(), 0..10_000).await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(3600 * 4),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn what_a_store_says_of_a_refusal_is_told_without_the_request_that_it_repeats() {
    let refuses = bucket(|mut stream| async move {
        head(&mut stream).await;
        let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x} ")).collect();
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature is wrong.</Message>\
             <CanonicalRequest>x-amz-security-token:{TOKEN}</CanonicalRequest><CanonicalRequestBytes>{hex}</CanonicalRequestBytes></Error>"
        );
        let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let error = refuses.range(name(), 0..10).await.unwrap_err();
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(
            text.contains("SignatureDoesNotMatch: The signature is wrong."),
            "{text}"
        );
        assert!(
            !text.contains(TOKEN) && !text.contains("46 77 6f") && !text.contains("Canonical"),
            "{text}"
        );
    }
}
