//! What a server serves, as the front of it sees it: databases by name, each with its states and something that answers SQL. They are files
//! of this machine ([`Databases`](crate::databases::Databases)), or what a bucket has ([`Mirrors`](crate::mirror::Mirrors)) or another remote
//! ([`Origins`](crate::origin::Origins)).

use std::{any::Any, sync::Arc};

use axum::{http::Request, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    access::Caller,
    error::ServerError,
    history::HistorySize,
    metrics::DatabaseGauges,
    ready::{Problem, Report},
    states::States,
};

/// See the module.
pub(crate) trait Served: Send + Sync {
    /// Whether there is one database, without a name.
    fn is_single(&self) -> bool;

    /// What tokens call the database of that name.
    fn known_as<'a>(&'a self, name: &'a str) -> &'a str;

    /// Whether a name may be that of a database.
    fn has(&self, name: &str) -> bool;

    /// The database of that name; `None` = there is none. The single one has the empty name.
    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Opened>, ServerError>>;

    /// How they are. `reserve` = bytes that a disk must have left.
    fn report(self: Arc<Self>, reserve: u64) -> BoxFuture<'static, Report>;

    /// Numbers of each that is open.
    fn gauges(self: Arc<Self>) -> BoxFuture<'static, Vec<DatabaseGauges>>;

    /// Closes them. None is opened after it.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A database that a request uses.
pub(crate) struct Opened {
    /// Its name.
    pub name: Arc<str>,
    /// Its states.
    pub states: Arc<dyn States>,
    /// Answers SQL for it.
    pub sql: Arc<dyn AnswersSql>,
    /// Keeps it open.
    pub held: Arc<dyn Any + Send + Sync>,
}

/// SQL over HTTP for one database.
pub(crate) trait AnswersSql: Send + Sync {
    /// Answers one request, whose path starts at the endpoint.
    fn answer(&self, caller: Caller, request: Request<Bytes>) -> BoxFuture<'static, Response>;
}

/// How a server is that has no files: a single database is looked at, and of several every other request finds out for itself.
pub(crate) async fn report_of(served: &dyn Served, problem: Problem) -> Report {
    let fails = served.is_single()
        && match served.open("").await {
            Ok(Some(opened)) => opened.states.up_to_date().await.is_err(),
            _ => true,
        };
    Report {
        problems: Vec::from_iter(fails.then_some(problem)),
        comparing: Vec::new(),
    }
}

/// Numbers of a database that has no file here.
pub(crate) fn gauges_of(name: String, states: &dyn States) -> DatabaseGauges {
    let latest = states.latest();
    DatabaseGauges {
        name,
        seq: latest.at.seq.0,
        pages: latest.at.db_size.0,
        history: HistorySize::default(),
        wal: None,
        wal_syncs: 0,
        disk_free: None,
        followed: states.check_open().is_ok(),
        history_reach: 0,
        uncompared: 0,
    }
}
