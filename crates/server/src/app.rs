//! From an HTTP request to the part of the server that answers it: which database, who asks, which endpoint.
//!
//! | path | answered by |
//! |---|---|
//! | `GET /`, `GET /health`, `GET /ready`, `GET [/NAME]/v2`, `v3` or `v3-protobuf` | here, without a token |
//! | `GET /metrics` | here |
//! | `POST [/NAME]/pull-updates` | [`PagesEndpoint`] |
//! | anything under `[/NAME]/v2`, `[/NAME]/v3`, `[/NAME]/v3-protobuf` | the [`SqlEndpoint`] |
//!
//! A server of one file knows no names; a server of a folder finds the name in the path, or in the host (`NAME.host`).
//!
//! Not an `axum::Router`, which matches a path before anything else is known and answers 404 and 405 by itself. Here what is left to
//! match depends on the databases that exist and on the host (`/v2/pipeline` is SQL, or a database that is called `v2`); a token is
//! checked before a path or a method is said not to exist; and another method than GET on `/metrics` is a database's business. So
//! all of it would be done in the router's fallback, and what remains are the three arms of a `match`. Nor `tower-http` for limits and
//! times: a body's limit depends on who sends it, and all bodies share a budget (`front/bodies.rs`); a client that is slow is told
//! from one that has stopped (`front/activity.rs`). Its CORS is used (`front/visitors.rs`).

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    http::{
        HeaderMap, HeaderName, Method, Request, StatusCode, Uri,
        header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use partial_sync_transport::wire::FEATURES_HEADER;
use serde_json::json;

use crate::{
    access::{Access, Authenticator, Caller, CallerId, Denied, FORWARDED, FORWARDED_READ_ONLY, SqlEndpoint},
    error::{HistoryError, ServerError},
    front::{
        BadBody, Bodies, Coding, Connections, From, Kicks, Peer, Proxies, Refused, Requests, TooMany,
        UnderWay, Visitors, check_content_type, descriptors_allowed, throw_away, until_sent,
    },
    limits::Limits,
    looks::Looks,
    metrics::{Endpoint, Metrics, Polled, ServerGauges},
    pages::{PagesEndpoint, features},
    ready::Report,
    reload::Reload,
    request_log::{Known, RequestLog},
    serve::Answers,
    served::{Opened, Served},
    system,
};

/// Everything that an answer may need.
pub(crate) struct App {
    /// The databases.
    pub served: Arc<dyn Served>,
    /// What `/ready` and `/metrics` tell.
    pub looks: StatusLooks,
    /// Decides who may do what, by files that can be read again.
    pub reload: Arc<Reload>,
    /// Answers SQL.
    pub sql: Arc<dyn SqlEndpoint>,
    /// Answers with pages.
    pub pages: PagesEndpoint,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How much may come in at a time.
    pub limits: Limits,
    /// The open connections.
    pub connections: Arc<Connections>,
    /// The requests under way.
    pub requests: Arc<Requests>,
    /// Those for pages, which can be ended.
    pub kicks: Arc<Kicks>,
    /// Reads bodies.
    pub bodies: Bodies,
    /// Which names and which web pages are answered.
    pub visitors: Visitors,
    /// Who is believed when it says for whom it asks.
    pub proxies: Proxies,
    /// Tells the log of each request.
    pub request_log: Option<Arc<RequestLog>>,
}

/// Looks at all databases.
#[derive(Default)]
pub(crate) struct StatusLooks {
    report: Looks<Arc<Report>>,
    metrics: Looks<Bytes>,
}

impl Answers for App {
    fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    async fn answer(&self, mut request: Request<Body>) -> Response {
        self.proxies.see_through(&mut request);
        let answer = |request| self.answer_visitor(request);
        RequestLog::telling(self.request_log.as_ref(), request, answer).await
    }

    fn panicked(&self) -> Response {
        panicked()
    }
}

impl App {
    async fn answer_visitor(&self, request: Request<Body>) -> Response {
        match self.visitors.check(&request) {
            Ok(From::Here) => self.route(request).await,
            Ok(From::Allowed) => {
                let route = tower::service_fn(async |request| Ok(self.route(request).await));
                self.visitors.answer(route, request).await
            }
            Err(refused) => turn_away(refused, request.into_body()),
        }
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let (name, rest) = self.split(&parts);
        let (name, rest) = (name.to_owned(), rest.to_owned());
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let asks_status = reads
            && (matches!(parts.uri.path(), "/" | "/health" | "/ready" | "/metrics")
                || asks_version(parts.uri.path()));
        let endpoint = match rest.split('/').nth(1) {
            _ if asks_status => Endpoint::Status,
            Some("pull-updates") if rest == "/pull-updates" => Endpoint::Pages,
            Some("v2" | "v3" | "v3-protobuf") => Endpoint::Sql,
            _ => Endpoint::Other,
        };
        self.metrics.request(endpoint);
        if let Some(known) = Known::of(&parts) {
            known.goes_to(self.served.known_as(&name), &name, parts.uri.path());
        }
        let answer = match check_content_type(&parts) {
            Err(refused) => turn_away(refused, body),
            Ok(()) if endpoint == Endpoint::Status => self.answer_status(&parts).await,
            Ok(()) => self.answer_database(endpoint, &name, &rest, parts, body).await,
        };
        let polled = answer.extensions().get::<Polled>().is_some();
        self.metrics
            .answered(endpoint, polled, answer.status().as_u16(), started.elapsed());
        answer
    }

    async fn answer_status(&self, request: &Parts) -> Response {
        let known = self.caller_for(request, "");
        match request.uri.path() {
            path if asks_version(path) => StatusCode::OK.into_response(),
            "/health" => {
                Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
            }
            "/ready" => self.answer_ready(known.is_ok()).await,
            "/metrics" => match known {
                Ok(_) => self.metrics_text().await,
                Err(denied) => refuse(&denied),
            },
            _ => "partial-sync\n".into_response(),
        }
    }

    /// Names of databases are for those who are known only.
    async fn answer_ready(&self, known: bool) -> Response {
        let look = Arc::clone(&self.served).report(self.limits.disk_reserve);
        let Some(found) = self.looks.report.take(async move { Arc::new(look.await) }).await else {
            return panicked();
        };
        let problems: Vec<_> = found.problems.iter().map(|problem| problem.told(known)).collect();
        let comparing: &[_] = match known {
            true => &found.comparing,
            false => &[],
        };
        match problems.is_empty() {
            true if comparing.is_empty() => Json(json!({ "status": "ready" })).into_response(),
            true => Json(json!({ "status": "ready", "comparing": comparing })).into_response(),
            false => {
                let body = Json(json!({ "status": "not ready", "problems": problems }));
                (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
            }
        }
    }

    async fn answer_database(
        &self,
        endpoint: Endpoint,
        name: &str,
        rest: &str,
        parts: Parts,
        mut body: Body,
    ) -> Response {
        let reloads = self.reload.count();
        let (database, mut caller, under_way) = match self.admit(endpoint, name, &parts).await {
            Ok(admitted) => admitted,
            Err(refused) => {
                throw_away(body);
                return *refused;
            }
        };
        let limit = self.body_limit(endpoint, caller.access);
        let Some(coding) = Coding::of(&parts.headers) else {
            return turn_away(
                (
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UNSUPPORTED_ENCODING",
                    "the request's Content-Encoding is not known here: send the body as it is, or as one zstd frame",
                ),
                body,
            );
        };
        let body = match self.bodies.read(caller.id, limit, coding, &mut body).await {
            Ok(read) => read,
            Err(bad) => {
                throw_away(body);
                return bad_body(&bad);
            }
        };
        if self.reload.count() != reloads {
            // It may be long since the head of the request came.
            caller = match self.caller(&parts, name) {
                Ok(caller) => caller,
                Err(denied) => return refuse(&denied),
            };
        }
        let working = under_way.work();
        // What is made of it takes as much.
        let counted = body.clone();
        let answer = match endpoint {
            Endpoint::Pages => {
                let connection = parts
                    .extensions
                    .get::<Peer>()
                    .map(|peer| Arc::clone(&peer.activity));
                let mut kickable = self
                    .kicks
                    .enter(caller.id, Arc::clone(&database.name), connection);
                tokio::select! {
                    biased;
                    () = kickable.ended() => kicked(),
                    answer = self.pages.answer(&database.states, caller, body, &under_way) => match answer {
                        Ok(answer) => kickable.watch(self.judge_again(answer, reloads, name, &parts)),
                        Err(refusal) => refusal.into_response(),
                    },
                }
            }
            _ => self.answer_sql(&database, caller, parts, rest, body).await,
        };
        drop((counted, working, database.held));
        until_sent(answer, under_way)
    }

    /// A long poll is not told of a commit with a token that is good no more.
    fn judge_again(&self, answer: Response, reloads: u64, name: &str, request: &Parts) -> Response {
        if answer.extensions().get::<Polled>().is_none() || self.reload.count() == reloads {
            return answer;
        }
        match self.caller(request, name) {
            Ok(_) => answer,
            Err(denied) => {
                let mut refused = refuse(&denied);
                refused.extensions_mut().insert(Polled);
                refused
            }
        }
    }

    /// What can be said of a request before its body is read.
    async fn admit(
        &self,
        endpoint: Endpoint,
        name: &str,
        request: &Parts,
    ) -> Result<(Opened, Caller, UnderWay), Box<Response>> {
        let caller = self
            .caller(request, name)
            .map_err(|denied| Box::new(refuse(&denied)))?;
        let on = request.extensions.get::<Peer>().map(|peer| &peer.activity);
        let under_way = self.requests.enter(caller.id, on).map_err(too_many)?;
        // To open one may cost much.
        let opened = match endpoint {
            Endpoint::Other | Endpoint::Status => Ok(None),
            Endpoint::Pages | Endpoint::Sql => self.served.open(name).await,
        };
        let database = match opened {
            Ok(Some(database)) => database,
            Ok(None) => {
                return Err(Box::new(error(
                    StatusCode::NOT_FOUND,
                    "NOT_FOUND",
                    "there is no such database or endpoint here",
                )));
            }
            Err(e) => return Err(Box::new(internal(&e))),
        };
        if endpoint == Endpoint::Pages && request.method != Method::POST {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "use POST");
            answer
                .headers_mut()
                .insert(ALLOW, axum::http::HeaderValue::from_static("POST"));
            return Err(Box::new(answer));
        }
        Ok((database, caller, under_way))
    }

    fn body_limit(&self, endpoint: Endpoint, access: Access) -> usize {
        let own = match (endpoint, access) {
            (Endpoint::Pages, _) => self.limits.body_pages,
            (_, Access::ReadOnly) => self.limits.body_read_only,
            (_, Access::Full) => self.limits.body,
        };
        own.min(self.limits.body)
    }

    fn caller(&self, request: &Parts, database: &str) -> Result<Caller, Denied> {
        self.caller_for(request, self.served.known_as(database))
    }

    /// The same for what tokens call a database; nothing = for all of them.
    fn caller_for(&self, request: &Parts, database: &str) -> Result<Caller, Denied> {
        let credentials = &self.reload.credentials;
        let mut caller = credentials.check(authorization(&request.headers), database)?;
        if request
            .headers
            .get(FORWARDED)
            .is_some_and(|it| it == FORWARDED_READ_ONLY)
        {
            caller.access = Access::ReadOnly;
        }
        if let Some(peer) = request.extensions.get::<Peer>() {
            peer.activity.let_in();
            if caller.id == CallerId::ANYONE {
                caller.id = CallerId::of_peer(peer.address);
            }
        }
        if let Some(known) = Known::of(request) {
            known.comes_from(caller.id);
        }
        Ok(caller)
    }

    async fn answer_sql(
        &self,
        database: &Opened,
        caller: Caller,
        mut parts: Parts,
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
        let request = Request::from_parts(parts, body);
        let features = features(&*database.states, caller.access);
        let mut answer = database.sql.answer(caller, request).await;
        let headers = answer.headers_mut();
        headers.insert(HeaderName::from_static(FEATURES_HEADER), features);
        answer
    }

    /// The database's name and the path after it.
    fn split<'a>(&self, request: &'a Parts) -> (&'a str, &'a str) {
        let path = request.uri.path();
        if self.served.is_single() {
            return ("", path);
        }
        let without_slash = path.strip_prefix('/').unwrap_or(path);
        if let Some(at) = without_slash.find('/') {
            let (name, rest) = without_slash.split_at(at);
            if self.served.has(name) {
                return (name, rest);
            }
        }
        let header = request.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = request.uri.host().or(header).unwrap_or_default();
        match host.split_once('.') {
            Some((name, _)) if self.served.has(name) => (name, path),
            _ => ("", path),
        }
    }

    async fn metrics_text(&self) -> Response {
        let (served, metrics) = (Arc::clone(&self.served), Arc::clone(&self.metrics));
        let (sql, connections, requests) = (
            Arc::clone(&self.sql),
            Arc::clone(&self.connections),
            Arc::clone(&self.requests),
        );
        let look = async move {
            let gauges = served.gauges().await;
            let server = ServerGauges {
                open_batons: sql.open_batons(),
                connections: connections.count(),
                requests: requests.count(),
                descriptors: system::descriptors(),
                descriptors_allowed: descriptors_allowed().and_then(|allowed| usize::try_from(allowed).ok()),
                threads: system::threads(),
            };
            Bytes::from(metrics.text(&server, &gauges))
        };
        match self.looks.metrics.take(look).await {
            Some(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
            None => panicked(),
        }
    }
}

/// Whether a client of SQL over HTTP asks which version is spoken. It does so without its token, and the answer is the same
/// for a database that does not exist.
fn asks_version(path: &str) -> bool {
    let mut parts = path.trim_end_matches('/').rsplit('/');
    matches!(parts.next(), Some("v2" | "v3" | "v3-protobuf")) && parts.count() <= 2
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

pub(crate) fn refuse(denied: &Denied) -> Response {
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

pub(crate) fn turn_away((status, code, message): Refused, body: Body) -> Response {
    throw_away(body);
    error(status, code, message)
}

pub(crate) fn too_many(which: TooMany) -> Box<Response> {
    let mut answer = match which {
        TooMany::OfCaller => error(
            StatusCode::TOO_MANY_REQUESTS,
            "TOO_MANY_REQUESTS",
            "too many requests with this token, or from this address, are under way: wait until some are answered",
        ),
        TooMany::InAll => busy("too many requests are under way: try again later"),
    };
    answer
        .headers_mut()
        .insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
    Box::new(answer)
}

fn kicked() -> Response {
    error(
        StatusCode::SERVICE_UNAVAILABLE,
        "KICKED",
        "the request was ended by the server's administrator: ask again",
    )
}

fn busy(message: &str) -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "BUSY", message)
}

pub(crate) fn bad_body(bad: &BadBody) -> Response {
    match bad {
        BadBody::TooLarge(limit) => error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TOO_LARGE",
            &format!("a request like this may have at most {limit} bytes"),
        ),
        BadBody::Broken => error(
            StatusCode::BAD_REQUEST,
            "BAD_REQUEST",
            "the request's body did not arrive whole",
        ),
        BadBody::Unreadable => error(
            StatusCode::BAD_REQUEST,
            "BAD_REQUEST",
            "the request's body is not one zstd frame, whole, with a window of at most 1 MiB: send it so, or without Content-Encoding",
        ),
        BadBody::Late => error(
            StatusCode::REQUEST_TIMEOUT,
            "TIMEOUT",
            "the request's body did not arrive in time",
        ),
        BadBody::NoRoom => busy("the server is receiving as many bytes as it has room for: try again later"),
    }
}

fn internal(e: &ServerError) -> Response {
    if let ServerError::Missing { .. }
    | ServerError::Replaced { .. }
    | ServerError::History(HistoryError::Moved) = e
    {
        tracing::warn!(error = %e, "a request failed");
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "DATABASE_MISSING",
            &e.for_clients(),
        );
    }
    if e.is_full() {
        tracing::error!(error = %e, "a request failed");
        return error(StatusCode::INSUFFICIENT_STORAGE, "DISK_FULL", &e.for_clients());
    }
    // In the moment in which others remove it, or its page history.
    let is_gone = match e {
        ServerError::Open { source, .. } | ServerError::Sqlite { source, .. } => {
            source.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen)
        }
        ServerError::History(error) => error.is_unwritable(),
        _ => false,
    };
    if is_gone {
        tracing::error!(error = %e, "a request failed");
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "DATABASE_MISSING",
            &e.for_clients(),
        );
    }
    if e.is_of_log() {
        tracing::error!(error = %e, "a request failed");
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "NOT_REPLICATED",
            &e.for_clients(),
        );
    }
    if e.is_of_origin() {
        tracing::error!(error = %e, "a request failed");
        return error(StatusCode::BAD_GATEWAY, "ORIGIN_UNREACHABLE", &e.for_clients());
    }
    if let ServerError::ManyInUse { .. } | ServerError::ManyNames = e {
        return busy(&e.for_clients());
    }
    tracing::error!(error = %e, "a request failed");
    error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", &e.for_clients())
}

/// The answer to a request whose answering panicked.
pub(crate) fn panicked() -> Response {
    error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL",
        "the server failed to answer; its log says why",
    )
}

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Was red: 500, or that the database was missing.
    #[test]
    fn v8_a_database_that_cannot_be_opened_for_a_full_disk_says_so() {
        use rusqlite::ffi;
        let sqlite = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let path = std::path::PathBuf::from("/secret/a.db");
        let full = [
            ServerError::Open {
                path: path.clone(),
                source: sqlite(ffi::SQLITE_IOERR_SHMSIZE),
            },
            ServerError::Sqlite {
                path: path.clone(),
                source: sqlite(ffi::SQLITE_FULL),
            },
            ServerError::Io {
                operation: "opened",
                path,
                source: std::io::ErrorKind::StorageFull.into(),
            },
            HistoryError::Sqlite(sqlite(ffi::SQLITE_FULL)).into(),
        ];
        for error in full {
            let answer = internal(&error);
            assert_eq!(answer.status(), StatusCode::INSUFFICIENT_STORAGE, "{error}");
            let told = error.for_clients();
            assert!(
                told.contains("full") && told.contains("again") && !told.contains("secret"),
                "{told}"
            );
        }
    }
}
