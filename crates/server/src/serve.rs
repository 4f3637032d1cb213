//! The accept loop: sockets, TLS handshakes, HTTP/1.1 and HTTP/2 connections, and an end that finishes what is being
//! answered.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

use crate::app::{App, Peer};

const HANDSHAKE: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(30);
/// For the answers that are under way when the server stops. With what follows it stays below ten seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(4);
/// After a failed accept (no descriptors left), before the next.
const BREATH: Duration = Duration::from_millis(50);

/// Serves until `stopping` becomes true, then finishes the answers under way.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    app: Arc<App>,
    mut stopping: watch::Receiver<bool>,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let tls = tls.map(tokio_rustls::TlsAcceptor::from);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let (app, tls, watcher) = (Arc::clone(&app), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = connection(socket, peer, tls, app, watcher).await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    let Some(graceful) = Arc::into_inner(graceful) else {
        return;
    };
    if tokio::time::timeout(LAST_ANSWERS, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("answers that took too long were cut off");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    app: Arc<App>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError> {
    socket.set_nodelay(true)?;
    match tls {
        None => http(socket, peer, app, watcher).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await??;
            http(stream, peer, app, watcher).await
        }
    }
}

async fn http(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    app: Arc<App>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), BoxError> {
    let head_timeout = app.head_timeout;
    let asked = Arc::new(Notify::new());
    let first = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        asked.notify_one();
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request.map(Body::new)).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY);
    let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
    let mut connection = std::pin::pin!(watcher.watch(connection));
    // hyper's clock starts when it knows which HTTP is spoken, which a client may never say.
    tokio::select! {
        ended = &mut connection => return ended,
        () = first.notified() => {}
        () = tokio::time::sleep(head_timeout) => return Err("it asked nothing in time".into()),
    }
    connection.await
}

/// Whether an address can be reached from this machine only.
pub(crate) fn is_loopback(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_loopback()
}
