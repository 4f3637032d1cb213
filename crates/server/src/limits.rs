//! What a server gives to everybody together, to one caller, to one address and to one connection.

use std::time::Duration;

/// Limits of the front door: connections, requests under way, bodies, and the time that a client may take. Those of SQL are
/// in [`HranaOptions`](crate::hrana::HranaOptions), those of query selectors in [`QueryLimits`](crate::pages::QueryLimits).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections in all, and never more than half of the file descriptors that the process may have. When there are as
    /// many, a new one takes the place of the one that has been idle for longest; those that never sent an accepted
    /// request go first. If none is idle, it takes that of one whose long polls wait, or of one whose client neither sends the rest
    /// of a request nor takes the rest of an answer. With the server at work for each of them, it is closed at once.
    pub connections: usize,
    /// The same for the connections from one address (of IPv6, from one network), and never more than half of all.
    pub connections_per_address: usize,
    /// Requests under way in all, and as many long polls that wait. Beyond it: 503 `BUSY`.
    pub requests: usize,
    /// The same for one token, or where there is none, one address; never more than are left for all others. Beyond it: 429
    /// `TOO_MANY_REQUESTS`.
    pub requests_per_caller: usize,
    /// How long the head of a request may take: the first one from the start of the connection, a later one from its
    /// first byte. Then the connection is closed.
    pub head_time: Duration,
    /// How long a connection may be open without a request under way.
    pub idle_time: Duration,
    /// How long the body of a request may wait for its turn, and how long it may be silent while it arrives; a byte now and
    /// then is silence too, 16 KiB a second are not. Then: 503 `BUSY`, or 408 `TIMEOUT`.
    pub body_time: Duration,
    /// How long a client may take nothing of an answer that waits for it. Then the connection is closed. One stream of
    /// HTTP/2, of which the server sees no more than that its next piece is not wanted, has five times as long.
    pub stall_time: Duration,
    /// Bytes of the largest body. Beyond it: 413 `TOO_LARGE`, at once if the request says its length.
    pub body: usize,
    /// The same for SQL from a caller that may only read.
    pub body_read_only: usize,
    /// The same for requests for pages.
    pub body_pages: usize,
    /// Bytes of bodies of more than 1 MiB that are being received or answered, in all; at least one body of the largest
    /// size. Smaller ones share a quarter as much, so that they never wait for large ones; those of up to 16 KiB do not count. One
    /// caller has at most a quarter of each, or one body.
    pub bodies: usize,
    /// Bytes that the disk of a database must have left for `GET /ready` to say that it is served in full.
    pub disk_reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 2048,
            requests: 4096,
            requests_per_caller: 2048,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            body_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(60),
            // A blob of 100 MB is 134 MB on its way.
            body: 256 << 20,
            body_read_only: 1 << 20,
            body_pages: 16 << 20,
            bodies: 256 << 20,
            disk_reserve: 64 << 20,
        }
    }
}
