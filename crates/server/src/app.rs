//! From an HTTP request to the part of the server that answers it: which database, who asks, which endpoint.
//!
//! | path | answered by |
//! |---|---|
//! | `GET /`, `GET /health` | here, without a token |
//! | `GET /metrics` | here |
//! | `POST [/NAME]/pull-updates` | [`PagesEndpoint`] |
//! | anything under `[/NAME]/v2`, `[/NAME]/v3` | the [`SqlEndpoint`] |
//!
//! A server of one file knows no names; a server of a folder finds the name in the path, or in the host (`NAME.host`).
//!
//! Not an `axum::Router`: which path is left to route depends on the databases that exist (a `v2.db` may be one), and a
//! token is checked before anything is said not to exist. Written with one, this was longer.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest},
    http::{
        HeaderMap, Method, Request, StatusCode, Uri,
        header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;

use crate::{
    access::{Authenticator, Caller, CallerId, Denied, SqlEndpoint},
    databases::{Database, Databases},
    error::ServerError,
    history::HistorySize,
    metrics::{DatabaseGauges, Endpoint, Metrics},
    pages::PagesEndpoint,
};

/// The address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub IpAddr);

/// Everything that an answer may need.
pub(crate) struct App {
    /// The databases.
    pub databases: Databases,
    /// Decides who may do what.
    pub authenticator: Arc<dyn Authenticator>,
    /// Answers SQL.
    pub sql: Arc<dyn SqlEndpoint>,
    /// Answers with pages.
    pub pages: PagesEndpoint,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// How long a connection may be open without the whole head of a (next) request.
    pub head_timeout: Duration,
}

impl App {
    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/") => {
                self.metrics.request(Endpoint::Status);
                "partial-sync\n".into_response()
            }
            (&Method::GET | &Method::HEAD, "/health") => {
                self.metrics.request(Endpoint::Status);
                Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
            }
            (&Method::GET, "/metrics") => {
                self.metrics.request(Endpoint::Status);
                match self.authenticator.check(authorization(request.headers()), "") {
                    Ok(_) => self.metrics_text().await,
                    Err(denied) => refuse(&denied),
                }
            }
            _ => self.answer_database(request).await,
        }
    }

    async fn answer_database(&self, request: Request<Body>) -> Response {
        let (name, rest) = self.split(&request);
        let (name, rest) = (name.to_owned(), rest.to_owned());
        let endpoint = match rest.split('/').nth(1) {
            Some("pull-updates") if rest == "/pull-updates" => Endpoint::Pages,
            Some("v2" | "v3") => Endpoint::Sql,
            _ => Endpoint::Other,
        };
        self.metrics.request(endpoint);
        let caller = match self.caller(&request, &name) {
            Ok(caller) => caller,
            Err(denied) => return refuse(&denied),
        };
        let database = match (endpoint, self.databases.get(&name).await) {
            (Endpoint::Other, _) | (_, Ok(None)) => {
                return error(
                    StatusCode::NOT_FOUND,
                    "NOT_FOUND",
                    "there is no such database or endpoint here",
                );
            }
            (_, Ok(Some(database))) => database,
            (_, Err(e)) => return internal(&e),
        };
        if endpoint == Endpoint::Pages && request.method() != Method::POST {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "use POST");
            answer
                .headers_mut()
                .insert(ALLOW, axum::http::HeaderValue::from_static("POST"));
            return answer;
        }
        let (parts, body) = request.into_parts();
        let body = match self.read(body).await {
            Ok(body) => body,
            Err(answer) => return *answer,
        };
        match endpoint {
            Endpoint::Pages => match self.pages.answer(database.follower(), caller, body).await {
                Ok(answer) => answer,
                Err(refusal) => refusal.into_response(),
            },
            _ => self.answer_sql(&database, caller, parts, &rest, body).await,
        }
    }

    fn caller(&self, request: &Request<Body>, database: &str) -> Result<Caller, Denied> {
        let mut caller = self
            .authenticator
            .check(authorization(request.headers()), database)?;
        if let (CallerId::ANYONE, Some(Peer(address))) = (caller.id, request.extensions().get()) {
            caller.id = CallerId::of_peer(*address);
        }
        Ok(caller)
    }

    async fn answer_sql(
        &self,
        database: &Arc<Database>,
        caller: Caller,
        mut parts: axum::http::request::Parts,
        rest: &str,
        body: Bytes,
    ) -> Response {
        let uri = match parts.uri.query() {
            Some(query) => format!("{rest}?{query}").parse::<Uri>(),
            None => rest.parse::<Uri>(),
        };
        let Ok(uri) = uri else {
            return error(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the path cannot be read");
        };
        parts.uri = uri;
        let handle = database.handle().clone();
        self.sql
            .answer(handle, caller, Request::from_parts(parts, body))
            .await
    }

    /// The database's name and the path after it.
    fn split<'a>(&self, request: &'a Request<Body>) -> (&'a str, &'a str) {
        let path = request.uri().path();
        if self.databases.is_single() {
            return ("", path);
        }
        let without_slash = path.strip_prefix('/').unwrap_or(path);
        if let Some(at) = without_slash.find('/') {
            let (name, rest) = without_slash.split_at(at);
            if self.databases.has(name) {
                return (name, rest);
            }
        }
        let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let host = request.uri().host().or(header).unwrap_or_default();
        match host.split_once('.') {
            Some((name, _)) if self.databases.has(name) => (name, path),
            _ => ("", path),
        }
    }

    async fn read(&self, body: Body) -> Result<Bytes, Box<Response>> {
        let limit = self.body_limit;
        let mut request = Request::new(body);
        DefaultBodyLimit::max(limit).apply(&mut request);
        let read = tokio::time::timeout(self.body_timeout, Bytes::from_request(request, &()));
        let refused = match read.await {
            Ok(Ok(body)) => return Ok(body),
            Ok(Err(e)) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "TOO_LARGE",
                &format!("a request may have at most {limit} bytes"),
            ),
            Ok(Err(_)) => error(
                StatusCode::BAD_REQUEST,
                "BAD_REQUEST",
                "the request's body did not arrive whole",
            ),
            Err(_) => error(
                StatusCode::REQUEST_TIMEOUT,
                "TIMEOUT",
                "the request's body did not arrive in time",
            ),
        };
        Err(Box::new(refused))
    }

    async fn metrics_text(&self) -> Response {
        let mut gauges = Vec::new();
        for database in self.databases.opened() {
            let history = Arc::clone(database.follower().history());
            let size = tokio::task::spawn_blocking(move || history.size()).await;
            let current = database.follower().current();
            gauges.push(DatabaseGauges {
                name: database.handle().name.to_string(),
                seq: current.seq.0,
                pages: current.snapshot.db_size().0,
                history: size.ok().and_then(Result::ok).unwrap_or(HistorySize::default()),
            });
        }
        let text = self.metrics.text(&gauges, self.sql.open_batons());
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

fn refuse(denied: &Denied) -> Response {
    let status = denied.status();
    let code = if status == StatusCode::FORBIDDEN {
        "FORBIDDEN"
    } else {
        "UNAUTHORIZED"
    };
    let mut answer = error(status, code, &denied.to_string());
    if status == StatusCode::UNAUTHORIZED {
        let bearer = axum::http::HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    }
    answer
}

fn internal(e: &ServerError) -> Response {
    tracing::error!(error = %e, "a request failed");
    error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", &e.to_string())
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}
