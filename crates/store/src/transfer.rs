//! Requests to a store over HTTP: how long they may take, and what is taken over of a refusal.
//!
//! A large file over a slow line takes long, in either direction. So what is limited is not how long, but how slow: a request has a budget
//! of time, which waiting uses up, and which bytes that move, of the request or of the answer, fill again. Silence ends it, and what only
//! drips does soon after. Time that the reader of an answer takes does not count.
//!
//! What must never happen here: that a request which moves is ended, that one which does not is waited for, or that what a store says of a
//! refused request gets into an error as it came: it may hold the request's token, in several writings.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body::{Body, Frame};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};

/// How long nothing may move.
const SILENCE: Duration = Duration::from_secs(120);
/// The slowest pace of what moves over all, in bytes a second, beyond that.
const SLOWEST: u64 = 4096;
/// Bytes that are sent at a time.
const PIECE: usize = 64 << 10;
/// How many bytes are read of what a store says of a request that it refused, and how many characters of a part of it are told.
const REFUSAL: usize = 4 << 10;
const TOLD: usize = 500;

/// Sends a request; of a refusal, the answer has what [`told`] leaves of its text.
pub(crate) async fn send(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse();
    let url = url.map_err(|error: url::ParseError| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    let (moved, moving) = watch::channel(0);
    *request.body_mut() = Some(match body.content_length() {
        0 => Bytes::new().into(),
        len => {
            let headers = request.headers_mut();
            headers.entry("content-length").or_insert_with(|| len.into());
            reqwest::Body::wrap_stream(pieces(body, moved))
        }
    });
    let answer = in_time(client.execute(request), moving).await?;
    let (head, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
    let body = HttpResponseBody::new(Paced {
        body,
        budget: SILENCE,
        waiting: None,
    });
    match head.status.is_client_error() || head.status.is_server_error() {
        true => Ok(HttpResponse::from_parts(head, refusal(body).await?.into())),
        false => Ok(HttpResponse::from_parts(head, body)),
    }
}

/// The body, as it is sent; says how many bytes of it were.
fn pieces(
    mut body: HttpRequestBody,
    moved: watch::Sender<u64>,
) -> impl Stream<Item = Result<Bytes, HttpError>> + Send + 'static {
    let mut left = Bytes::new();
    stream::poll_fn(move |context| {
        while left.is_empty() {
            match Pin::new(&mut body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => left = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        let piece = left.split_to(left.len().min(PIECE));
        moved.send_modify(|moved| *moved += piece.len() as u64);
        Poll::Ready(Some(Ok(piece)))
    })
}

/// What so many bytes give a budget from which some was used.
fn filled(budget: Duration, used: Duration, bytes: u64) -> Duration {
    let given = Duration::from_secs(bytes) / SLOWEST as u32;
    (budget.saturating_sub(used) + given).min(SILENCE)
}

fn too_slow() -> HttpError {
    let why = format!(
        "nothing moved for {} s, or less than {SLOWEST} bytes a second",
        SILENCE.as_secs()
    );
    HttpError::new(
        HttpErrorKind::Timeout,
        std::io::Error::new(std::io::ErrorKind::TimedOut, why),
    )
}

/// Waits for the head of the answer, for as long as the body of the request moves and then for [`SILENCE`].
async fn in_time(
    request: impl Future<Output = Result<reqwest::Response, reqwest::Error>>,
    mut moving: watch::Receiver<u64>,
) -> Result<reqwest::Response, HttpError> {
    let mut request = pin!(request);
    let (mut budget, mut known, mut is_sending) = (SILENCE, 0, true);
    loop {
        let began = Instant::now();
        tokio::select! {
            biased;
            answer = &mut request => return answer.map_err(failed),
            changed = moving.changed(), if is_sending => {
                let moved = *moving.borrow_and_update();
                is_sending = changed.is_ok();
                budget = match is_sending {
                    true => filled(budget, began.elapsed(), moved - known),
                    false => SILENCE,
                };
                known = moved;
            }
            () = sleep(budget) => return Err(too_slow()),
        }
    }
}

/// As `object_store` tells them apart: the kind says whether a request is tried again.
fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() && !error.is_body() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

/// The body of an answer.
struct Paced {
    body: reqwest::Body,
    budget: Duration,
    /// Since when it is waited for, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            let budget = self.budget;
            let waiting = self
                .waiting
                .get_or_insert_with(|| (Instant::now(), Box::pin(sleep(budget))));
            return waiting.1.as_mut().poll(context).map(|()| Some(Err(too_slow())));
        };
        let used = self
            .waiting
            .take()
            .map_or(Duration::ZERO, |(began, _)| began.elapsed());
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        self.budget = filled(self.budget, used, bytes.map_or(0, |bytes| bytes.len() as u64));
        Poll::Ready(frame.map(|frame| frame.map_err(failed)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// What is told of the body of a refusal.
async fn refusal(body: HttpResponseBody) -> Result<String, HttpError> {
    let (mut pieces, mut text) = (body.bytes_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        text.extend_from_slice(&piece?);
        if text.len() > REFUSAL {
            text.truncate(REFUSAL);
            break;
        }
    }
    Ok(told(&String::from_utf8_lossy(&text)))
}

/// The code of an error and its message, as stores write them in XML or JSON; nothing else, for the rest may be the request, with its token.
fn told(text: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (inner, _) = rest.split_once("</")?;
        Some(inner.to_owned())
    };
    let mut parts = vec![element("Code"), element("Message")];
    if let Ok(json) = serde_json::from_str::<Value>(text) {
        let places = [
            "/error",
            "/error_description",
            "/error/code",
            "/error/status",
            "/error/message",
        ];
        parts.extend(places.map(|place| match json.pointer(place)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }));
    }
    let parts = parts.into_iter().flatten();
    let parts: Vec<String> = parts.map(|part| part.chars().take(TOLD).collect()).collect();
    parts.join(": ")
}
