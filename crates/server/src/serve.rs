//! The accept loop: sockets, TLS handshakes, HTTP/1.1 and HTTP/2 connections, and an end that finishes what is being
//! answered.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, ToSocketAddrs},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use axum::{body::Body, response::Response};
use futures_util::FutureExt as _;
use hyper::{
    Request,
    body::Incoming,
    header::{self, HeaderValue},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::{
    error::ServerError,
    front::{Activity, Connections, Peer, Watched},
    tls::Tls,
};

/// The largest head of a request of HTTP/1, and what is read or written ahead: anyone can send half a head, on many connections.
const HEAD: usize = 64 << 10;
/// What a stream and a connection of HTTP/2 may send ahead of what is read: a body that waits for room is not.
const STREAM_AHEAD: u32 = 256 << 10;
const CONNECTION_AHEAD: u32 = 1 << 20;
/// Streams of one connection.
const STREAMS: u32 = 128;
/// What is taken of an answer before its client wants it.
const SEND_AHEAD: usize = 64 << 10;
const PING_EVERY: Duration = Duration::from_secs(30);
/// For the answers that are under way when the server stops. With what follows it stays below ten seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(4);
/// After a failed accept (no descriptors left), before the next.
const BREATH: Duration = Duration::from_millis(50);
/// How long a connection that has come waits for the end of those that make room.
const ROOM: Duration = Duration::from_millis(500);
/// Connections that have come and were not accepted yet.
const BACKLOG: u32 = 4096;
/// How often the log is told of connections that were turned away.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What answers the requests of one listener.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The open connections.
    fn connections(&self) -> &Arc<Connections>;

    /// Answers one request.
    fn answer(&self, request: Request<Body>) -> impl Future<Output = Response> + Send;

    /// The answer to one whose answering panicked.
    fn panicked(&self) -> Response;
}

/// Serves until `stopping` becomes true, then finishes the answers under way. No connection is open after it.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    app: Arc<impl Answers>,
    mut stopping: watch::Receiver<bool>,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let mut turned_away = TurnedAway::default();
    let (cut, uncut) = watch::channel(());
    loop {
        let accepted = async {
            // Past it, what comes is turned away.
            let _ = tokio::time::timeout(ROOM, app.connections().room()).await;
            listener.accept().await
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                turned_away.count(&error);
                app.connections().make_room();
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Some(entered) = app.connections().enter(peer.ip()) else {
            turned_away.count(&"the server works on a request of every connection that could make room");
            continue;
        };
        let acceptor = tls.as_ref().map(|tls| tls.acceptor());
        let (app, watcher) = (Arc::clone(&app), graceful.watcher());
        let (mut cut, stopping) = (uncut.clone(), stopping.clone());
        tokio::spawn(async move {
            let activity = &entered.activity;
            let ended = tokio::select! {
                ended = connection(socket, peer, acceptor, app, Arc::clone(activity), watcher, stopping) => ended,
                why = activity.overdue() => Err(why.into()),
                _ = cut.changed() => Err("the server has stopped".into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        });
    }
    drop((listener, uncut));
    app.connections().stop();
    let Some(graceful) = Arc::into_inner(graceful) else {
        return;
    };
    if tokio::time::timeout(LAST_ANSWERS, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("answers that took too long were cut off");
    }
    // Each connection has a receiver.
    cut.send_replace(());
    cut.closed().await;
}

/// Tells the log of connections that were turned away, but not of each: there may be thousands a second.
#[derive(Default)]
struct TurnedAway {
    told: Option<Instant>,
    since: u64,
}

impl TurnedAway {
    fn count(&mut self, why: &dyn std::fmt::Display) {
        self.since += 1;
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(%why, connections = self.since, "connections were turned away");
            (self.told, self.since) = (Some(Instant::now()), 0);
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    app: Arc<impl Answers>,
    activity: Arc<Activity>,
    watcher: Watcher,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    socket.set_nodelay(true)?;
    let socket = Watched::new(socket, Arc::clone(&activity));
    let peer = Peer {
        address: peer.ip(),
        activity,
    };
    match tls {
        None => http(socket, peer, app, watcher).await,
        Some(tls) => {
            let io = tokio::select! {
                accepted = tls.accept(socket) => accepted?,
                // It has asked nothing yet.
                _ = stopping.wait_for(|stop| *stop) => return Err("the server stops".into()),
            };
            http(io, peer, app, watcher).await
        }
    }
}

async fn http(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    app: Arc<impl Answers>,
    watcher: Watcher,
) -> Result<(), BoxError> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let answering = peer.activity.request(request.version());
        request.extensions_mut().insert(peer.clone());
        let app = Arc::clone(&app);
        async move {
            // A panic, which its thread has reported, is the end of this request and of nothing else.
            let answer = AssertUnwindSafe(app.answer(request.map(Body::new)));
            let mut answer = answer.catch_unwind().await.unwrap_or_else(|_| app.panicked());
            if answering.is_last() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(answer.map(|body| answering.watch(body)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEAD)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_AHEAD)
        .initial_connection_window_size(CONNECTION_AHEAD)
        .max_send_buf_size(SEND_AHEAD)
        .keep_alive_interval(PING_EVERY);
    let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
    watcher.watch(connection).await
}

/// Whether an address can be reached from this machine only.
pub(crate) fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}

/// Takes a port.
pub(crate) fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let listen = |source| ServerError::Listen { addr, source };
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(listen)?;
    // As the standard library's listener: a port is taken again at once after a restart.
    socket.set_reuseaddr(true).map_err(listen)?;
    socket.bind(addr).map_err(listen)?;
    let listener = socket.listen(BACKLOG).map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    Ok((listener, addr))
}

/// The address that is meant.
pub(crate) fn resolve(addr: impl ToSocketAddrs) -> io::Result<SocketAddr> {
    let found = addr.to_socket_addrs()?.next();
    found.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
