//! SQL for a database of which this server has the pages only: sent to the server that writes it, with the client's own token, and with what
//! this server allows the client.
//!
//! What must never happen here: that somebody reaches anything of the writer's host but its SQL, that who may only read here writes there,
//! that a request is sent in a circle, or that an answer which drips is waited for without an end.

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
use futures_util::{Stream, StreamExt, TryStreamExt, future::BoxFuture};
use partial_sync_transport::{HttpClient, http::HttpRequest};
use tokio::time::Instant;

use crate::{
    access::{Access, Caller, FORWARDED, FORWARDED_READ_ONLY},
    app::error,
    hrana::is_endpoint,
    served::AnswersSql,
};

/// How long the head of the writer's answer may take: longer than the writer lets a request run.
const PATIENCE: Duration = Duration::from_secs(310);
/// The slowest pace of an answer over all, in bytes a second, beyond that.
const SLOWEST: u64 = 4096;
/// Says how often a request has been passed on, which has an end: servers may be behind each other.
const TIMES: HeaderName = HeaderName::from_static("partial-sync-forwarded-times");
const MOST: u8 = 4;
/// What of a request is passed on, and what of an answer.
const TO_WRITER: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ACCEPT, ACCEPT_ENCODING];
const TO_CLIENT: [HeaderName; 5] = [
    CONTENT_TYPE,
    CONTENT_ENCODING,
    VARY,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
];

/// Knows who takes SQL for a database.
pub(crate) trait Writer: Send + Sync {
    /// Its url, if there is one.
    fn url(&self) -> Option<String>;

    /// Whether it heeds what this server says that the client may do. Not every remote does.
    fn heeds(&self) -> bool {
        true
    }

    /// Finds out whether it is another one now; `false` if that cannot be told.
    fn look_again(self: Arc<Self>) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// See the module.
pub(crate) struct Forward {
    pub(crate) client: Arc<dyn HttpClient>,
    pub(crate) writer: Arc<dyn Writer>,
}

impl AnswersSql for Forward {
    fn answer(&self, caller: Caller, request: Request<Bytes>) -> BoxFuture<'static, Response> {
        let (client, writer) = (Arc::clone(&self.client), Arc::clone(&self.writer));
        Box::pin(async move { forward(&*client, &writer, caller.access, request).await })
    }
}

async fn forward(
    client: &dyn HttpClient,
    who: &Arc<dyn Writer>,
    access: Access,
    request: Request<Bytes>,
) -> Response {
    let Some(mut writer) = who.url() else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "NO_WRITER",
            "this server has the database's pages only, and the bucket does not say which server takes SQL for it (it is started with \
             --public-url)",
        );
    };
    let (head, body) = request.into_parts();
    let times = head.headers.get(TIMES).map_or(Some(0), |times| {
        let times = times.to_str().ok()?.parse::<u8>().ok()?;
        Some(times).filter(|times| *times < MOST)
    });
    let Some(times) = times else {
        return error(
            StatusCode::LOOP_DETECTED,
            "WRITER_UNREACHABLE",
            "the request was passed on from server to server, and none of them takes SQL for the database: the writer's --public-url, \
             or a server's --from, is wrong, or the writer is gone",
        );
    };
    if access == Access::ReadOnly && !who.heeds() {
        return error(
            StatusCode::FORBIDDEN,
            "FORBIDDEN",
            "this token may only read here, and the remote that takes SQL cannot be told so: it is sent none with it",
        );
    }
    let method = match head.method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => return error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "use POST"),
    };
    let path = head.uri.path();
    // Others, with dots in them, would lead elsewhere.
    if !is_endpoint(path) {
        return error(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "there is no such endpoint here",
        );
    }
    let mut headers: Vec<_> = TO_WRITER
        .iter()
        .filter_map(|name| {
            let value = head.headers.get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        })
        .collect();
    let allowed = match access {
        Access::ReadOnly => FORWARDED_READ_ONLY,
        Access::Full => "all",
    };
    headers.push((FORWARDED.as_str().to_owned(), allowed.to_owned()));
    headers.push((TIMES.as_str().to_owned(), (times + 1).to_string()));
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
        let has_looked = Arc::clone(who).look_again().await;
        match who.url().filter(|next| *next != writer) {
            Some(next) if has_looked && !was_sent => writer = next,
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
        tokio::spawn(Arc::clone(who).look_again());
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
    *response.body_mut() = Body::from_stream(in_time(answer.body.map_err(std::io::Error::other)));
    response
}

/// Ends a body that is waited for longer than [`PATIENCE`] and what its bytes give it. The time that the client takes does not count.
fn in_time(
    body: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    let state = Some((body.boxed(), PATIENCE));
    futures_util::stream::unfold(state, async |state| {
        let (mut body, left) = state?;
        let began = Instant::now();
        match tokio::time::timeout(left, body.next()).await {
            Ok(Some(Ok(piece))) => {
                let given = Duration::from_secs_f64(piece.len() as f64 / SLOWEST as f64);
                let left = left.saturating_sub(began.elapsed()) + given;
                Some((Ok(piece), Some((body, left.min(PATIENCE)))))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(std::io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// Pieces of so many bytes, one a second.
    fn drip(bytes: usize, pieces: usize) -> impl Stream<Item = std::io::Result<Bytes>> {
        stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Bytes::from(vec![0; bytes]))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_drips_is_ended_and_a_long_one_is_not() {
        let ended: Vec<_> = in_time(drip(1, 10_000)).collect().await;
        assert!((300..=311).contains(&ended.len()), "{}", ended.len());
        assert!(ended.last().unwrap().is_err());
        let whole: Vec<_> = in_time(drip(SLOWEST as usize, 10_000)).collect().await;
        assert!(whole.len() == 10_000 && whole.iter().all(Result::is_ok));
    }
}
