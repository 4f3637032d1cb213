//! A far-away line: a TCP proxy on loopback that every contender goes through, with a round trip time, a width, and counts.
//!
//! A byte leaves half a round trip after it came in, and no faster than the width allows; both directions keep their
//! order and many bytes are under way at once, as on a real line. A new connection costs one round trip more, which is
//! the handshake that loopback does not have. There is no packet loss, no slow start and no TLS: all three would cost
//! those more that make more connections or move more bytes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::result::Result;

/// Most bytes taken at once.
const CHUNK: usize = 16 << 10;
/// Most chunks under way in one direction of one connection: 4 MiB, more than fits on the lines that are measured.
const UNDER_WAY: usize = 256;

/// What the line is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Time there and back.
    pub rtt: Duration,
    /// Bytes per second in each direction, all connections together; `None` = no limit.
    pub bytes_per_second: Option<u64>,
}

/// What went over it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// TCP connections.
    pub connections: u64,
    /// HTTP requests.
    pub requests: u64,
    /// Bytes towards the client, HTTP heads included.
    pub received: u64,
    /// Bytes from the client, HTTP heads included.
    pub sent: u64,
}

impl Traffic {
    /// What went over it after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            requests: self.requests - before.requests,
            received: self.received - before.received,
            sent: self.sent - before.sent,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// A line to a server; it is cut when this is dropped.
#[derive(Debug)]
pub(crate) struct FarAway {
    address: SocketAddr,
    counters: Arc<Counters>,
    _runtime: Runtime,
}

impl FarAway {
    /// A line to what listens at `target`.
    pub(crate) fn to(target: SocketAddr, line: Line) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let counters = Arc::<Counters>::default();
        runtime.spawn(accept(listener, target, line, counters.clone()));
        Ok(Self {
            address,
            counters,
            _runtime: runtime,
        })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went over it so far.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.counters.connections.load(Ordering::Relaxed),
            requests: self.counters.requests.load(Ordering::Relaxed),
            received: self.counters.received.load(Ordering::Relaxed),
            sent: self.counters.sent.load(Ordering::Relaxed),
        }
    }
}

/// When the line's next byte may leave: one for each direction.
#[derive(Debug)]
struct Width {
    bytes_per_second: Option<u64>,
    free: Mutex<Instant>,
}

impl Width {
    fn new(line: Line) -> Arc<Self> {
        Arc::new(Self {
            bytes_per_second: line.bytes_per_second,
            free: Mutex::new(Instant::now()),
        })
    }

    /// When the last of `bytes` that came in now has left.
    fn pass(&self, bytes: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.bytes_per_second else {
            return now;
        };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *free
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, line: Line, counters: Arc<Counters>) {
    let (up, down) = (Width::new(line), Width::new(line));
    while let Ok((client, _)) = listener.accept().await {
        let opened = Instant::now() + line.rtt;
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let Ok(server) = TcpStream::connect(target).await else {
            continue;
        };
        if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
            continue;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let mut heads = Heads::default();
        let (asked, answered) = (counters.clone(), counters.clone());
        tokio::spawn(carry(
            from_client,
            to_server,
            line.rtt / 2,
            opened,
            up.clone(),
            move |bytes| {
                asked.requests.fetch_add(heads.count(bytes), Ordering::Relaxed);
                asked.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            },
        ));
        tokio::spawn(carry(
            from_server,
            to_client,
            line.rtt / 2,
            opened,
            down.clone(),
            move |bytes| {
                answered.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            },
        ));
    }
}

/// Carries one direction of one connection to its end. Nothing is under way before `opened`.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    opened: Instant,
    width: Arc<Width>,
    mut seen: impl FnMut(&[u8]) + Send + 'static,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let arrivals = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            seen(&buffer[..n]);
            let leaves = width.pass(n).max(opened) + delay;
            if sender.send((leaves, buffer[..n].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let departures = async move {
        while let Some((leaves, bytes)) = receiver.recv().await {
            sleep_until(leaves).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The other side is told that this direction is over; that it went already is not news.
        let _ = to.shutdown().await;
    };
    tokio::join!(arrivals, departures);
}

/// Counts HTTP/1.1 request lines in a stream that comes in pieces.
#[derive(Debug, Default)]
struct Heads {
    matched: usize,
}

impl Heads {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        const END: &[u8] = b" HTTP/1.1\r\n";
        let mut found = 0;
        for &byte in bytes {
            // Its first byte occurs nowhere else in it, so a failed match can only start over at this byte.
            self.matched = if byte == END[self.matched] {
                self.matched + 1
            } else {
                usize::from(byte == END[0])
            };
            if self.matched == END.len() {
                found += 1;
                self.matched = 0;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_that_comes_in_two_pieces_is_counted_once() {
        let mut heads = Heads::default();
        assert_eq!(heads.count(b"POST /pull HTTP/1.1\r\nx: y\r\n\r\nGET / HT"), 1);
        assert_eq!(heads.count(b"TP/1.1\r\n\r\nbody HTTP/1.0\r\n"), 1);
    }
}
