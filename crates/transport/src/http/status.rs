//! From an answer that is not a page stream to a typed error that says what to do.

use std::time::Duration;

use futures_util::StreamExt;
use serde::Deserialize;

use super::client::HttpResponse;
use crate::{
    remote::{RemoteError, RemoteErrorKind},
    wire::{BodyDecoder, REVISION_EXPIRED, REVISION_UNKNOWN},
};

/// Most of an error body that is read.
const BODY_LIMIT: usize = 4 << 10;

/// What an answer with another status than 200 means.
pub(super) struct Refusal {
    pub(super) error: RemoteError,
    /// Whether the same request may be answered later.
    pub(super) may_retry: bool,
    /// What the remote asks for before the next try.
    pub(super) retry_after: Option<Duration>,
}

#[derive(Default, Deserialize)]
struct Body {
    #[serde(default)]
    code: String,
    #[serde(default, alias = "error")]
    message: String,
}

/// Reads what there is of the body and turns the answer into an error. `what` names the request.
pub(super) async fn refusal(
    mut response: HttpResponse,
    mut decoder: BodyDecoder,
    what: &str,
) -> (Refusal, usize) {
    let mut body = Vec::new();
    let mut received = 0;
    while body.len() < BODY_LIMIT
        && let Some(Ok(chunk)) = response.body.next().await
    {
        received += chunk.len();
        decoder.push(chunk);
        while body.len() < BODY_LIMIT
            && let Ok(Some(piece)) = decoder.next_piece()
        {
            let room = BODY_LIMIT - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }
    (classify(&response, &body, what), received)
}

fn classify(response: &HttpResponse, body: &[u8], what: &str) -> Refusal {
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let said = if parsed.message.is_empty() {
        printable(&String::from_utf8_lossy(body))
    } else {
        printable(&parsed.message)
    };
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(" (it said: {said})")
    };
    let status = response.status;
    let location = response
        .header("location")
        .map(crate::url::redact)
        .unwrap_or_default();
    use RemoteErrorKind as Kind;
    let (kind, why) = match (status, parsed.code.as_str()) {
        (401, _) => (
            Kind::Unauthorized,
            "the remote does not accept the auth token. Check that it is set, not expired, and made for this database"
                .to_owned(),
        ),
        (403, _) => (
            Kind::Unauthorized,
            "the auth token does not allow this. Use one with the rights that are needed".to_owned(),
        ),
        (410, _) | (400 | 404 | 409, REVISION_EXPIRED) => (
            Kind::RevisionExpired,
            "the remote no longer keeps that revision. Pull to move to a newer one".to_owned(),
        ),
        (400 | 404 | 409, REVISION_UNKNOWN) => (
            Kind::RevisionUnknown,
            "the remote does not know that revision: it is not the database that this replica was made from, or it \
             was restored from a backup. Check the url, or make a new replica"
                .to_owned(),
        ),
        (404, _) => (
            Kind::NotFound,
            "there is no database at that url, or no remote that speaks partial sync. Check the url".to_owned(),
        ),
        (300..=399, _) => (
            Kind::Refused,
            format!("the remote redirects to {location:?} (status {status}). Use that url directly"),
        ),
        (408 | 429, _) | (500..=599, _) => (
            Kind::Failed,
            format!("the remote failed with status {status}. Try again later, and look at its log"),
        ),
        (400..=499, _) => (Kind::Refused, format!("the remote refused it with status {status}")),
        _ => (
            Kind::Protocol,
            format!("status {status} is not an answer that a partial sync remote gives"),
        ),
    };
    Refusal {
        may_retry: kind == Kind::Failed,
        retry_after: response
            .header("retry-after")
            .and_then(|seconds| seconds.trim().parse().ok())
            .map(Duration::from_secs),
        error: RemoteError::new(kind, format!("{what}: {why}{said}")),
    }
}

/// A foreign text on one line, without control characters.
pub(super) fn printable(text: &str) -> String {
    let words: Vec<_> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}
