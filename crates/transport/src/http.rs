//! [`HttpRemote`]: the remote that speaks the protocol over HTTP.
//!
//! It owns deadlines, retries, tokens and counters. A page request is retried, and a page stream that breaks is taken up
//! again, because both are idempotent; SQL is sent once, unless it is certain that nothing was sent. Secrets never reach
//! a message.

mod client;
mod describe;
mod pace;
mod pages;
mod pipeline;
mod requester;
mod retry;
mod source;
mod status;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use crate::{
    hrana::{Batch, BatchResult},
    remote::{PageStream, PagesRequest, Remote, RemoteError, TransferStats},
    wire,
};

pub use client::{HttpClient, HttpRequest, HttpResponse, ReqwestClient, http_client_builder};
use requester::Requester;
pub use retry::RetryPolicy;
pub use source::{AuthToken, ReplaceableToken, TokenFunction, UrlFunction, UrlSource};

/// How long a request may be silent, or fall behind 4 KiB a second, when nobody says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The longest answer to SQL that is accepted when nobody says otherwise.
pub const DEFAULT_SQL_ANSWER_LIMIT: usize = 64 << 20;

/// A remote reached over HTTP. Cloning is cheap; clones share connections and counters. It must be used inside a tokio
/// runtime with its time driver on.
///
/// ```no_run
/// use futures_util::TryStreamExt;
/// use partial_sync_transport::{AuthToken, HttpRemote, PageSelector, PagesRequest, Remote};
///
/// # async fn example() -> Result<(), partial_sync_transport::RemoteError> {
/// let remote = HttpRemote::builder("libsql://my-database.example")
///     .auth_token(AuthToken::function(|| async { Ok(std::env::var("TOKEN").ok()) }))
///     .build()?;
/// let mut answer = remote
///     .pages(PagesRequest {
///         select: PageSelector::Ids((0..32).collect()),
///         ..PagesRequest::default()
///     })
///     .await?;
/// println!("{} pages at {}", answer.header.db_size, answer.header.revision);
/// while let Some(page) = answer.pages.try_next().await? {
///     println!("page id {}: {} bytes", page.id, page.data.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HttpRemote {
    requester: Arc<Requester>,
}

/// Makes an [`HttpRemote`].
pub struct HttpRemoteBuilder {
    url: UrlSource,
    token: AuthToken,
    headers: Vec<(String, String)>,
    deadline: Duration,
    retry: RetryPolicy,
    compression: bool,
    sql_answer_limit: usize,
    root_certificates: Vec<Vec<u8>>,
    client: Option<Arc<dyn HttpClient>>,
    seed: Option<u64>,
}

impl fmt::Debug for HttpRemoteBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRemoteBuilder")
            .field("url", &self.url)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl HttpRemoteBuilder {
    /// The token sent as `Authorization: Bearer`: a text, or a function asked before each request.
    pub fn auth_token(mut self, token: impl Into<AuthToken>) -> Self {
        self.token = token.into();
        self
    }

    /// A header for every request; later ones of the same name replace earlier ones.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into().to_ascii_lowercase();
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    /// Key (base64) and cipher of a database that is encrypted on the remote; the remote needs both to read it.
    pub fn remote_encryption(self, key: impl Into<String>, cipher: Option<&str>) -> Self {
        let with_key = self.header(wire::ENCRYPTION_KEY_HEADER, key);
        match cipher {
            Some(cipher) => with_key.header(wire::ENCRYPTION_CIPHER_HEADER, cipher),
            None => with_key,
        }
    }

    /// The longest silence of a request that sets none of its own; default [`DEFAULT_DEADLINE`]. It is also how far an
    /// answer may fall behind 4 KiB a second, so that one that only drips is given up.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// When and how often to try again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Whether to ask for compressed pages from a remote that offers them; default yes.
    pub fn compression(mut self, wanted: bool) -> Self {
        self.compression = wanted;
        self
    }

    /// The longest answer to SQL in bytes; default [`DEFAULT_SQL_ANSWER_LIMIT`].
    pub fn sql_answer_limit(mut self, bytes: usize) -> Self {
        self.sql_answer_limit = bytes;
        self
    }

    /// Trusts a PEM certificate besides the system's. Only for the built-in client.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Sends requests through this instead of reqwest.
    pub fn client(mut self, client: Arc<dyn HttpClient>) -> Self {
        self.client = Some(client);
        self
    }

    /// Makes the pauses between retries repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The remote. Nothing is sent yet; a url or certificate that cannot be used is refused here.
    pub fn build(self) -> Result<HttpRemote, RemoteError> {
        self.url.check()?;
        let client = match self.client {
            Some(client) => client,
            None => Arc::new(ReqwestClient::with_root_certificates(&self.root_certificates)?),
        };
        Ok(HttpRemote {
            requester: Arc::new(Requester {
                url: self.url,
                token: self.token,
                headers: self.headers,
                deadline: self.deadline,
                retry: self.retry,
                compression: self.compression,
                sql_answer_limit: self.sql_answer_limit,
                client,
                random: Mutex::new(match self.seed {
                    Some(seed) => fastrand::Rng::with_seed(seed),
                    None => fastrand::Rng::new(),
                }),
                known: Mutex::new(None),
                coding_refused: AtomicBool::new(false),
                requests: AtomicU64::new(0),
                bytes_sent: AtomicU64::new(0),
                bytes_received: AtomicU64::new(0),
            }),
        })
    }
}

impl HttpRemote {
    /// A remote at this url: a text, or a function asked before each request ([`UrlSource::function`]).
    pub fn builder(url: impl Into<UrlSource>) -> HttpRemoteBuilder {
        HttpRemoteBuilder {
            url: url.into(),
            token: AuthToken::None,
            headers: Vec::new(),
            deadline: DEFAULT_DEADLINE,
            retry: RetryPolicy::default(),
            compression: true,
            sql_answer_limit: DEFAULT_SQL_ANSWER_LIMIT,
            root_certificates: Vec::new(),
            client: None,
            seed: None,
        }
    }
}

impl Remote for HttpRemote {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        pages::open_stream(self.requester.clone(), request).boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        pipeline::execute(&self.requester, batch, deadline).boxed()
    }

    fn url(&self) -> String {
        self.known_url().unwrap_or_else(|| "(paused)".to_owned())
    }

    fn known_url(&self) -> Option<String> {
        self.requester.url.shown()
    }

    fn transferred(&self) -> TransferStats {
        TransferStats {
            requests: self.requester.requests.load(Relaxed),
            bytes_sent: self.requester.bytes_sent.load(Relaxed),
            bytes_received: self.requester.bytes_received.load(Relaxed),
        }
    }
}
