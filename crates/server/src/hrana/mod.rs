//! SQL over HTTP: `POST /v2/pipeline` and `/v3/pipeline` as Hrana 2 and 3 in JSON describe them, so that
//! `@libsql/client` and every other Hrana client can talk to a database that is being served.
//!
//! | file | what |
//! |---|---|
//! | [`mod.rs`](self) | [`Hrana`], the endpoint |
//! | `options.rs` | its limits |
//! | `answer.rs` | one HTTP request from its body to its answer |
//! | `streams.rs` | batons, their expiry, and the connections waiting to be used again |
//! | `stream.rs` | one stream: requests, batches and their conditions |
//! | `statement.rs` | one statement: bind, run, collect |
//! | `budget.rs` | what answers may take in memory |
//! | `writers.rs`, `places.rs` | who writes next; transactions that wait for their client |
//! | `connection.rs`, `guard.rs` | a connection, and what SQL may not do with it |
//! | `wire.rs`, `cursor.rs`, `error.rs` | bodies, and errors in SQLite's words |
//!
//! Every request runs on a blocking thread with a connection of its own; there is no lock around reads, and writers
//! wait in a queue. This module never reads a token and never touches the file but through SQLite.

mod answer;
mod budget;
mod connection;
mod error;
mod guard;
mod options;
mod places;
mod running;
mod statement;
mod stream;
mod streams;
mod wire;
mod writers;

use std::sync::Arc;

use axum::{http::Request, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::access::{Caller, CallerId, DatabaseHandle, SqlEndpoint};
pub use options::HranaOptions;
use streams::Streams;

/// The SQL endpoint of a server, for all of its databases. Cheap to clone.
#[derive(Clone)]
pub struct Hrana {
    streams: Arc<Streams>,
}

/// Whether SQL is answered at a path.
pub(crate) fn is_endpoint(path: &str) -> bool {
    answer::endpoint(path).is_some()
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
        caller: Caller,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response> {
        Box::pin(answer::answer(self.streams.clone(), database, caller, request))
    }

    fn is_using(&self, database: &DatabaseHandle) -> bool {
        self.streams.is_using(&database.path)
    }

    fn end_idle(&self) -> BoxFuture<'static, bool> {
        let streams = self.streams.clone();
        Box::pin(async move { streams.end_oldest_of_most().await })
    }

    fn release(&self, database: &DatabaseHandle) -> BoxFuture<'static, ()> {
        let (streams, path) = (self.streams.clone(), Arc::clone(&database.path));
        Box::pin(async move { streams.close_of(&path).await })
    }

    fn end_of(&self, callers: Vec<CallerId>) -> BoxFuture<'static, ()> {
        let streams = self.streams.clone();
        Box::pin(async move { streams.end_of(&callers).await })
    }

    fn open_batons(&self) -> usize {
        *self.streams.watch().borrow()
    }

    fn shut_down(&self) -> BoxFuture<'static, ()> {
        let streams = self.streams.clone();
        Box::pin(async move { streams.shut_down().await })
    }
}
