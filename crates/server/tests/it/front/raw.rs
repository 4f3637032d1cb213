//! A client that sends what it is told to and nothing else.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

/// Nothing here takes as long; whatever does never ends.
const FOR_EVER: Duration = Duration::from_secs(60);

pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    /// Connected, with this already sent.
    pub(crate) async fn sending(to: SocketAddr, what: &str) -> Self {
        let mut raw = Self::connect(to).await;
        raw.send(what).await;
        raw
    }

    /// The same, from an address of this machine.
    pub(crate) async fn sending_from(from: [u8; 4], to: SocketAddr, what: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut raw = Self(socket.connect(to).await.unwrap());
        raw.send(what).await;
        raw
    }

    /// Whether one that asks for the status is answered. A client with a pool of connections may wait for ever where what it
    /// opened is closed at once.
    pub(crate) async fn is_answered(to: SocketAddr) -> bool {
        let mut raw = Self::connect(to).await;
        raw.send_anyway("GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await;
        raw.ends().await > 0
    }

    pub(crate) async fn send(&mut self, what: &str) {
        self.send_bytes(what.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, what: &[u8]) {
        self.0.write_all(what).await.unwrap();
    }

    /// The same, also when nobody may take it any more.
    pub(crate) async fn send_anyway(&mut self, what: &str) {
        let _ = self.0.write_all(what.as_bytes()).await;
    }

    /// One answer with a Content-Length: its status and its body.
    pub(crate) async fn answer(&mut self) -> (u16, String) {
        let answer = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, String::from_utf8(body).unwrap())
        };
        tokio::time::timeout(FOR_EVER, answer).await.unwrap()
    }

    /// The status of one answer, whatever its length.
    pub(crate) async fn status(&mut self) -> u16 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n") {
            let byte = tokio::time::timeout(FOR_EVER, self.0.read_u8()).await.unwrap();
            head.push(byte.unwrap());
        }
        let line = String::from_utf8(head).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The status and the code of one answer.
    pub(crate) async fn refusal(&mut self) -> (u16, String) {
        let (status, body) = self.answer().await;
        let json: Value = serde_json::from_str(&body).unwrap();
        assert!(!json["message"].as_str().unwrap().is_empty());
        (status, json["code"].as_str().unwrap().to_owned())
    }

    /// Waits until the server has said this; `false` = it closes the connection before.
    pub(crate) async fn until(&mut self, wanted: &[u8]) -> bool {
        let mut said = Vec::new();
        let found = async {
            while !said.ends_with(wanted) {
                match self.0.read_u8().await {
                    Ok(byte) => said.push(byte),
                    Err(_) => return false,
                }
            }
            true
        };
        tokio::time::timeout(FOR_EVER, found)
            .await
            .expect("it is not said")
    }

    /// Waits until the server closes the connection. How many bytes it still says.
    pub(crate) async fn ends(&mut self) -> usize {
        self.rest().await.len()
    }

    /// The same: what the server still says.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = tokio::time::timeout(FOR_EVER, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection is still open");
        rest
    }
}
