//! The limits of the SQL endpoint.

use std::time::Duration;

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
    /// Bytes of one value or row that SQLite may build.
    pub value_bytes: usize,
    /// Steps of one batch.
    pub batch_steps: usize,
    /// Requests in one pipeline.
    pub pipeline_requests: usize,
    /// Requests without a baton that run at the same time; others wait for their turn. Requests with a baton never
    /// wait for those without, which may be waiting for their COMMIT.
    pub concurrent_requests: usize,
    /// Batons that are waiting to be used at the same time.
    pub batons: usize,
    /// Connections kept open for the next request, of all databases together.
    pub idle_connections: usize,
}

impl Default for HranaOptions {
    fn default() -> Self {
        Self {
            baton_idle: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(300),
            busy_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(300),
            answer_bytes: 64 << 20,
            value_bytes: 256 << 20,
            batch_steps: 600_000,
            pipeline_requests: 10_000,
            concurrent_requests: 64,
            batons: 256,
            idle_connections: 32,
        }
    }
}
