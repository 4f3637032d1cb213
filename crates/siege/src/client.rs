//! A client of HTTP/1.1 with one connection, for the honest client and for attackers.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::result::Result;

/// Longer than anything that the server lets take long.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is asked.
#[derive(Clone, Default)]
pub(crate) struct Ask {
    /// `None` = GET.
    pub body: Option<Bytes>,
    pub path: String,
    pub token: String,
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Ask {
    pub(crate) fn get(token: &str, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            token: token.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn post(token: &str, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            body: Some(body.into()),
            ..Self::get(token, path)
        }
    }
}

/// What was answered.
pub(crate) struct Reply {
    pub status: u16,
    pub body: Bytes,
}

impl Reply {
    /// Its status and text.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    /// Its beginning, for messages.
    pub(crate) fn start(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        format!("{} {text}", self.status)
    }
}

/// See the module.
pub(crate) struct Client {
    addr: SocketAddr,
    from: Option<IpAddr>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Requests that were sent again, because the server had closed the connection that was kept.
    pub again: u64,
}

impl Client {
    pub(crate) fn new(addr: SocketAddr, from: Option<IpAddr>) -> Self {
        Self {
            addr,
            from,
            connection: None,
            again: 0,
        }
    }

    /// Sends a request; once more on a new connection if the one that was kept had been closed, as clients do.
    pub(crate) async fn send(&mut self, ask: &Ask) -> Result<Reply> {
        if let Some(kept) = self.connection.take().filter(SendRequest::is_ready) {
            if let Ok(reply) = self.send_on(kept, ask).await {
                return Ok(reply);
            }
            self.again += 1;
        }
        let opened = self.open().await?;
        self.send_on(opened, ask).await
    }

    async fn send_on(&mut self, mut connection: SendRequest<Full<Bytes>>, ask: &Ask) -> Result<Reply> {
        let method = if ask.body.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(&ask.path);
        if !ask.headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.addr.to_string());
        }
        if !ask.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", ask.token));
        }
        for (name, value) in &ask.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(ask.body.clone().unwrap_or_default()))?;
        let answered = async {
            let answer = connection.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Reply { status, body })
        };
        let reply = timeout(PATIENCE, answered)
            .await
            .map_err(|_| format!("no answer in {PATIENCE:?}"))??;
        if connection.ready().await.is_ok() {
            self.connection = Some(connection);
        }
        Ok(reply)
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>> {
        let socket = connect(self.addr, self.from).await?;
        let (send, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        Ok(send)
    }
}

/// A socket, from one of the addresses of this machine.
pub(crate) async fn connect(addr: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    let socket = timeout(PATIENCE, socket.connect(addr)).await??;
    socket.set_nodelay(true)?;
    Ok(socket)
}
