//! The limits of the SQL endpoint.

use std::time::Duration;

use crate::front::descriptors_allowed;

/// Limits of the SQL endpoint.
#[derive(Clone, Debug)]
pub struct HranaOptions {
    /// A baton that is not used for this long is gone, and its transaction is rolled back.
    pub baton_idle: Duration,
    /// A transaction that is open for this long between its requests is rolled back, however busy its client is: it
    /// keeps writers out, or the log from being taken over into the database.
    pub transaction_timeout: Duration,
    /// How long a statement waits for another connection's lock before `SQLITE_BUSY`.
    pub busy_timeout: Duration,
    /// How long one statement may run before it is interrupted.
    pub statement_timeout: Duration,
    /// How long all statements of one request may run together.
    pub request_timeout: Duration,
    /// Bytes of JSON in one answer, roughly.
    pub answer_bytes: usize,
    /// The same for all answers together that are being collected or sent; for clients that may only read, two thirds of it.
    pub all_answer_bytes: usize,
    /// Bytes of one value or row that SQLite may build.
    pub value_bytes: usize,
    /// The same for a client that may only read.
    pub reader_value_bytes: usize,
    /// Bytes of a pattern of LIKE or GLOB of a client that may only read: what one comparison costs is its product with the text.
    pub reader_pattern_bytes: usize,
    /// A statement of a client that may only read ends when all statements together have so many bytes of SQLite's memory;
    /// `None` = half of what SQLite may have, if there is a limit.
    pub reader_memory_bytes: Option<u64>,
    /// Bytes of all temporary files together: of sorting, grouping and temporary tables. A client that may only read finds
    /// them full at half of it, and has a quarter for one file.
    pub temporary_bytes: u64,
    /// Steps of one batch.
    pub batch_steps: usize,
    /// Requests in one pipeline.
    pub pipeline_requests: usize,
    /// Requests that only read and run at the same time, and as many that may write; others wait for their turn. Those that
    /// continue an open transaction of a client that may write are not counted: others may be waiting for their COMMIT.
    pub concurrent_requests: usize,
    /// How many of these one caller has.
    pub caller_requests: usize,
    /// Batons that are waiting to be used at the same time. A transaction beyond is rolled back when it would have to wait for
    /// its client; another stream takes the place of the oldest one of the caller who has the most.
    pub batons: usize,
    /// How many transactions of one caller may wait for it at the same time.
    pub caller_batons: usize,
    /// When a read keeps so many bytes of commits from being taken over from the WAL into the database, it is ended, and its
    /// transaction with it,
    pub wal_bytes: u64,
    /// if it began longer ago than this.
    pub read_grace: Duration,
    /// Connections kept open for the next request, of all databases together.
    pub idle_connections: usize,
}

impl Default for HranaOptions {
    /// Where the process may have few descriptors, fewer of what takes some: each connection to a database has three.
    fn default() -> Self {
        let descriptors = descriptors_allowed().and_then(|allowed| usize::try_from(allowed).ok());
        let at_most = |most: usize, part: usize, least| {
            descriptors.map_or(most, |all| most.min((all / part).max(least)))
        };
        Self {
            baton_idle: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(300),
            busy_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(300),
            answer_bytes: 64 << 20,
            all_answer_bytes: 96 << 20,
            value_bytes: 256 << 20,
            reader_value_bytes: 16 << 20,
            reader_pattern_bytes: 256,
            reader_memory_bytes: None,
            temporary_bytes: 1 << 30,
            batch_steps: 600_000,
            pipeline_requests: 10_000,
            concurrent_requests: at_most(64, 32, 16),
            caller_requests: at_most(16, 128, 4),
            batons: at_most(256, 32, 16),
            caller_batons: at_most(64, 128, 4),
            wal_bytes: 128 << 20,
            read_grace: Duration::from_secs(1),
            idle_connections: at_most(32, 64, 4),
        }
    }
}
