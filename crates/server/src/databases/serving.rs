//! The databases as the front of the server sees them.

use std::sync::Arc;

use axum::{http::Request, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Databases;
use crate::{
    access::{Caller, DatabaseHandle, SqlEndpoint},
    database::{Database, Opener},
    error::ServerError,
    follow::FollowerState,
    metrics::DatabaseGauges,
    ready::{Report, report},
    served::{AnswersSql, Opened, Served},
    system,
};

impl Served for Databases {
    fn is_single(&self) -> bool {
        Databases::is_single(self)
    }

    fn known_as<'a>(&'a self, name: &'a str) -> &'a str {
        Databases::known_as(self, name)
    }

    fn has(&self, name: &str) -> bool {
        Databases::has(self, name)
    }

    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Opened>, ServerError>> {
        Box::pin(async move {
            let database = self.get(name).await?;
            Ok(database.map(|database| opened(database, &self.opener().sql)))
        })
    }

    fn report(self: Arc<Self>, reserve: u64) -> BoxFuture<'static, Report> {
        Box::pin(async move { report(&self, reserve).await })
    }

    fn gauges(self: Arc<Self>) -> BoxFuture<'static, Vec<DatabaseGauges>> {
        Box::pin(async move {
            let (open, opener) = (self.opened(), Arc::clone(self.opener()));
            let gauges = tokio::task::spawn_blocking(move || {
                let gauges = open.iter().map(|database| gauges_of(database, &opener));
                gauges.collect::<Vec<_>>()
            });
            // A panic there is reported by its thread; the other metrics are told all the same.
            gauges.await.unwrap_or_default()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Databases::close(self))
    }
}

/// A database whose SQL is run here.
pub(crate) fn opened(database: Arc<Database>, sql: &Arc<dyn SqlEndpoint>) -> Opened {
    Opened {
        name: Arc::clone(&database.handle().name),
        states: database.states(),
        sql: Arc::new(Sql {
            endpoint: Arc::clone(sql),
            handle: database.handle().clone(),
        }),
        held: database,
    }
}

/// SQL for one of them.
struct Sql {
    endpoint: Arc<dyn SqlEndpoint>,
    handle: DatabaseHandle,
}

impl AnswersSql for Sql {
    fn answer(&self, caller: Caller, request: Request<Bytes>) -> BoxFuture<'static, Response> {
        self.endpoint.answer(self.handle.clone(), caller, request)
    }
}

pub(crate) fn gauges_of(database: &Database, opener: &Opener) -> DatabaseGauges {
    let follower = database.follower();
    let history = follower.history().size().unwrap_or_default();
    let current = follower.current();
    let path = follower.files().path();
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    DatabaseGauges {
        name: database.handle().name.to_string(),
        seq: current.seq.0,
        pages: current.snapshot.db_size().0,
        history_reach: opener.reach(&history).as_secs(),
        uncompared: follower.comparing().map_or(0, |comparing| comparing.left()),
        history,
        wal: std::fs::metadata(wal).ok().map(|meta| meta.len()),
        wal_syncs: follower.files().syncs(),
        disk_free: system::disk_free(path),
        followed: follower.state() == FollowerState::Following,
    }
}
