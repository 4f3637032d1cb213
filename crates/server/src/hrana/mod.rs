//! SQL over HTTP: `POST /v2/pipeline` and `/v3/pipeline` as Hrana 2 and 3 in JSON describe them, so that
//! `@libsql/client` and every other Hrana client can talk to a database that is being served.
//!
//! | file | what |
//! |---|---|
//! | [`mod.rs`](self) | [`Hrana`], the endpoint, and its options |
//! | `answer.rs` | one HTTP request from its body to its answer |
//! | `streams.rs` | batons, their expiry, and the connections waiting to be used again |
//! | `stream.rs` | one stream: requests, batches and their conditions |
//! | `statement.rs` | one statement: bind, run, collect |
//! | `connection.rs`, `guard.rs` | a connection, and what SQL may not do with it |
//! | `wire.rs`, `cursor.rs`, `error.rs` | bodies, and errors in SQLite's words |
//!
//! Every request runs on a blocking thread with a connection of its own; there is no lock around reads, and writers
//! wait for each other in SQLite. This module never reads a token and never touches the file but through SQLite.

mod answer;
mod connection;
mod cursor;
mod error;
mod guard;
mod statement;
mod stream;
mod streams;
mod wire;

use std::{sync::Arc, time::Duration};

use axum::{http::Request, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::access::{Access, DatabaseHandle, SqlEndpoint};
use streams::Streams;

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

/// The SQL endpoint of a server, for all of its databases. Cheap to clone.
#[derive(Clone)]
pub struct Hrana {
    streams: Arc<Streams>,
}

impl Hrana {
    /// An endpoint with these limits.
    pub fn new(options: HranaOptions) -> Self {
        Self {
            streams: Arc::new(Streams::new(options)),
        }
    }

    /// Follows the number of batons that wait to be used.
    pub fn watch_batons(&self) -> watch::Receiver<usize> {
        self.streams.watch()
    }
}

impl Default for Hrana {
    fn default() -> Self {
        Self::new(HranaOptions::default())
    }
}

impl SqlEndpoint for Hrana {
    fn answer(
        &self,
        database: DatabaseHandle,
        access: Access,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response> {
        Box::pin(answer::answer(self.streams.clone(), database, access, request))
    }

    fn open_batons(&self) -> usize {
        *self.streams.watch().borrow()
    }

    fn shut_down(&self) -> BoxFuture<'static, ()> {
        let streams = self.streams.clone();
        Box::pin(async move { streams.close_all().await })
    }
}
