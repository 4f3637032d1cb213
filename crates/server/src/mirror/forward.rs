//! SQL for a database in a bucket: sent to the server that writes it, as its head says, with the client's own token.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request, StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY,
            WWW_AUTHENTICATE,
        },
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{TryStreamExt, future::BoxFuture};
use partial_sync_transport::{HttpClient, http::HttpRequest};

use super::states::LogStates;
use crate::{access::Caller, app::error, served::AnswersSql, states::States};

/// How long the head of the writer's answer may take: longer than the writer lets a request run.
const PATIENCE: Duration = Duration::from_secs(310);
/// Says that a request has been passed on.
const FORWARDED: HeaderName = HeaderName::from_static("partial-sync-forwarded");
/// What of a request is passed on, and what of an answer.
const TO_WRITER: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ACCEPT, ACCEPT_ENCODING];
const TO_CLIENT: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    VARY,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
];

/// See the module.
pub(super) struct Forward {
    pub client: Arc<dyn HttpClient>,
    pub states: Arc<LogStates>,
}

impl AnswersSql for Forward {
    fn answer(&self, _: Caller, request: Request<Bytes>) -> BoxFuture<'static, Response> {
        let (client, states) = (Arc::clone(&self.client), Arc::clone(&self.states));
        Box::pin(async move { forward(&*client, &states, request).await })
    }
}

async fn forward(client: &dyn HttpClient, states: &Arc<LogStates>, request: Request<Bytes>) -> Response {
    let Some(mut writer) = states.writer() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "NO_WRITER",
            "this server has the database's pages only, and the bucket does not say which server takes SQL for it (it is started with \
             --public-url)",
        );
    };
    let (head, body) = request.into_parts();
    if head.headers.contains_key(FORWARDED) {
        return error(
            StatusCode::LOOP_DETECTED,
            "WRITER_UNREACHABLE",
            "the bucket says that this server takes SQL for the database, and it does not: the writer's --public-url is wrong, or \
             the writer is gone",
        );
    }
    let method = match head.method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "use POST"),
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers: Vec<_> = TO_WRITER
        .iter()
        .filter_map(|name| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .collect();
    headers.push((FORWARDED.as_str().to_owned(), "1".to_owned()));
    let mut request = HttpRequest {
        method,
        url: String::new(),
        headers,
        body,
    };
    let answer = loop {
        request.url = format!("{}{path}", writer.trim_end_matches('/'));
        let sent = tokio::time::timeout(PATIENCE, client.send(request.clone())).await;
        let (why, was_sent) = match sent {
            Ok(Ok(answer)) => break answer,
            Ok(Err(failed)) => (failed.to_string(), !client.was_never_sent(&failed)),
            Err(_) => ("it was silent".to_owned(), true),
        };
        tracing::warn!(%writer, why, "SQL could not be passed on");
        // Another one may have taken over.
        let looked = Arc::clone(states).up_to_date().await;
        match states.writer().filter(|next| *next != writer) {
            Some(next) if looked.is_ok() && !was_sent => writer = next,
            _ => {
                return error(
                    StatusCode::BAD_GATEWAY,
                    "WRITER_UNREACHABLE",
                    "the server that takes SQL for this database does not answer: what was sent may have been done or not; look, and \
                     try again",
                );
            }
        }
    };
    if answer.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        // It may say that another one has: the next request goes there.
        let states = Arc::clone(states);
        tokio::spawn(async move { states.up_to_date().await.map(drop) });
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for name in &TO_CLIENT {
        if let Some(value) = answer
            .header(name.as_str())
            .and_then(|value| HeaderValue::from_str(value).ok())
        {
            response.headers_mut().insert(name, value);
        }
    }
    *response.body_mut() = Body::from_stream(answer.body.map_err(std::io::Error::other));
    response
}
