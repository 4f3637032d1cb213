//! One request, sent once: what every remote request has in common, whatever it asks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    client::{HttpClient, HttpRequest, HttpResponse},
    retry::RetryPolicy,
    source::{AuthToken, UrlSource},
};
use crate::{
    remote::{Features, RemoteError},
    url::RemoteUrl,
    wire::{self, BodyDecoder},
};

/// What a remote's clones share, and how one request is sent.
pub(super) struct Requester {
    pub(super) url: UrlSource,
    pub(super) token: AuthToken,
    pub(super) headers: Vec<(String, String)>,
    pub(super) deadline: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) compression: bool,
    pub(super) sql_answer_limit: usize,
    pub(super) client: Arc<dyn HttpClient>,
    pub(super) random: Mutex<fastrand::Rng>,
    /// What the remote at this url said last that it can do.
    pub(super) known: Mutex<Option<(String, Features)>>,
    /// Somebody on the way lets no body with a coding through, whatever the remote says.
    pub(super) coding_refused: AtomicBool,
    pub(super) requests: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) bytes_received: AtomicU64,
}

/// A request's body as it goes over the wire.
#[derive(Clone)]
pub(super) struct RequestBody {
    bytes: Bytes,
    encoding: Option<&'static str>,
}

impl RequestBody {
    /// As it is.
    pub(super) fn plain(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            encoding: None,
        }
    }

    /// One zstd frame, where that is smaller.
    fn packed(bytes: Bytes) -> Self {
        if bytes.len() >= wire::WORTH_PACKING
            && let Some(packed) = wire::pack_body(&bytes, bytes.len() - 1)
        {
            return Self {
                bytes: packed.into(),
                encoding: Some(wire::ZSTD_CODING),
            };
        }
        Self::plain(bytes)
    }

    /// Whether it has a coding.
    pub(super) fn is_packed(&self) -> bool {
        self.encoding.is_some()
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequester")
            .field("url", &self.url)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Requester {
    /// Whether answers to SQL are asked for compressed.
    fn takes_packed(&self) -> bool {
        self.compression && self.client.keeps_codings()
    }

    /// Reads the body of an answer to SQL.
    pub(super) fn decoder_of(&self, answer: &HttpResponse) -> BodyDecoder {
        let coding = answer.header("content-encoding").map(str::trim);
        let is_packed = coding.is_some_and(|coding| coding.eq_ignore_ascii_case(wire::ZSTD_CODING));
        BodyDecoder::new(is_packed && self.takes_packed())
    }

    /// Sends one request, once. The token is asked for here, so each attempt has a fresh one.
    pub(super) async fn send(
        &self,
        url: &RemoteUrl,
        path: &str,
        media_type: &str,
        body: RequestBody,
    ) -> Result<HttpResponse, RemoteError> {
        let mut headers = vec![
            ("content-type".to_owned(), media_type.to_owned()),
            (
                "user-agent".to_owned(),
                concat!("partial-sync/", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
        ];
        if path == wire::PIPELINE && self.takes_packed() {
            headers.push(("accept-encoding".to_owned(), wire::ZSTD_CODING.to_owned()));
        }
        if let Some(encoding) = body.encoding {
            headers.push(("content-encoding".to_owned(), encoding.to_owned()));
        }
        let body = body.bytes;
        if let Some(token) = self.token.ask(url).await? {
            headers.push(("authorization".to_owned(), format!("Bearer {token}")));
        }
        for header in &self.headers {
            headers.retain(|(name, _)| *name != header.0);
            headers.push(header.clone());
        }
        self.requests.fetch_add(1, Relaxed);
        self.bytes_sent.fetch_add(body.len() as u64, Relaxed);
        self.client
            .send(HttpRequest {
                method: "POST",
                url: url.endpoint(path).into(),
                headers,
                body,
            })
            .await
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// How long to wait before the next attempt.
    pub(super) fn pause(&self, failed: u32, retry_after: Option<Duration>) -> Duration {
        let drawn = self.retry.pause(failed, &mut self.random.lock());
        drawn.max(retry_after.unwrap_or_default())
    }

    pub(super) fn known_features(&self, url: &RemoteUrl) -> Features {
        match &*self.known.lock() {
            Some((of, features)) if *of == url.to_string() => *features,
            _ => Features::default(),
        }
    }

    /// A body for the remote at this url: compressed where it said that it takes that.
    pub(super) fn body_for(&self, url: &RemoteUrl, bytes: Bytes) -> RequestBody {
        let is_taken = self.known_features(url).zstd_bodies && !self.coding_refused.load(Relaxed);
        match self.compression && is_taken {
            true => RequestBody::packed(bytes),
            false => RequestBody::plain(bytes),
        }
    }

    /// What an answer to SQL says of bodies. Of the rest only answers with pages tell: release 0.1 says nothing here.
    pub(super) fn learn_bodies(&self, url: &RemoteUrl, answer: &HttpResponse) {
        let said = answer.header(wire::FEATURES_HEADER).map(Features::from_header);
        let known = said.unwrap_or(Features {
            zstd_bodies: false,
            ..self.known_features(url)
        });
        self.learn_features(url, known);
    }

    pub(super) fn learn_features(&self, url: &RemoteUrl, features: Features) {
        *self.known.lock() = Some((url.to_string(), features));
    }
}
