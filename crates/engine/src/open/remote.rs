//! The remote of a replica: the one that was given, the one that the replica knows, or none ([`Offline`]). What a url leads to is decided
//! here: a bucket, or a server.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use partial_sync_transport::{
    AuthToken, HttpRemote, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, ReplaceableToken,
    TransferStats, UrlSource,
    hrana::{Batch, BatchResult},
};

use crate::{
    error::Result,
    open::{info::Info, options::Builder},
};

/// The schemes of urls of buckets.
const BUCKETS: [&str; 5] = ["s3", "gs", "az", "file", "memory"];

/// A remote and what goes with it.
pub(crate) struct ReplicaRemote {
    pub remote: Arc<dyn Remote>,
    /// What every request is authorized with.
    pub token: ReplaceableToken,
    /// There is none.
    pub is_offline: bool,
}

/// The remote that was given.
pub(crate) fn given(options: &Builder, token: &ReplaceableToken) -> Result<Option<Arc<dyn Remote>>> {
    match (&options.remote, &options.url) {
        (Some(remote), _) => Ok(Some(remote.clone())),
        (None, Some(url)) => Ok(Some(of_url(options, token, url.clone())?)),
        (None, None) => Ok(None),
    }
}

impl ReplicaRemote {
    /// To the remote that was given, or else to the one that the replica knows itself: it knows none if that was of a
    /// caller's own making.
    pub(crate) fn of(
        given: Option<Arc<dyn Remote>>,
        info: Option<&Info>,
        options: &Builder,
        token: ReplaceableToken,
    ) -> Self {
        let url = info.map(|info| info.remote_url.as_str());
        let known = match (given, url.filter(|url| !url.is_empty())) {
            (Some(given), _) => Ok(given),
            (None, Some(url)) => of_url(options, &token, url.into()).map_err(|error| error.to_string()),
            (None, None) => Err(NO_URL.to_owned()),
        };
        Self {
            is_offline: known.is_err(),
            remote: known.unwrap_or_else(|why| Arc::new(Offline { why })),
            token,
        }
    }
}

fn of_url(options: &Builder, token: &ReplaceableToken, url: UrlSource) -> Result<Arc<dyn Remote>> {
    match &url {
        UrlSource::Fixed(text) if is_of_bucket(text) => bucket(text),
        _ => http(options, token, url),
    }
}

fn is_of_bucket(url: &str) -> bool {
    let scheme = url.trim().split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| BUCKETS.iter().any(|bucket| scheme.eq_ignore_ascii_case(bucket)))
}

#[cfg(feature = "object-storage")]
fn bucket(url: &str) -> Result<Arc<dyn Remote>> {
    Ok(Arc::new(partial_sync_store::BucketRemote::at(url)))
}

#[cfg(not(feature = "object-storage"))]
fn bucket(url: &str) -> Result<Arc<dyn Remote>> {
    let message = format!(
        "{:?} is the url of a bucket, which this program cannot read: it was built without the feature object-storage of \
         partial-sync. Build it with that, or give the url of a server",
        partial_sync_transport::url::redact(url)
    );
    Err(RemoteError::new(RemoteErrorKind::InvalidUrl, message).into())
}

fn http(options: &Builder, token: &ReplaceableToken, url: UrlSource) -> Result<Arc<dyn Remote>> {
    let mut builder = HttpRemote::builder(url)
        .deadline(options.timeout)
        .auth_token(AuthToken::Replaceable(token.clone()));
    if let Some((key, cipher)) = &options.encryption {
        builder = builder.remote_encryption(key.clone(), cipher.as_deref());
    }
    if let Some(client) = &options.client {
        builder = builder.client(client.clone());
    }
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    Ok(Arc::new(builder.build()?))
}

const NO_URL: &str = "this replica was opened without its url, so nothing can be fetched, pulled or pushed; open it with the url";

/// The remote of a replica that was opened without a url and knows none itself, or none that can be used: what is local works, everything
/// else says what is missing.
#[derive(Debug)]
struct Offline {
    why: String,
}

impl Offline {
    fn error(&self) -> RemoteError {
        RemoteError::new(RemoteErrorKind::Client, self.why.clone())
    }
}

impl Remote for Offline {
    fn pages(&self, _request: PagesRequest) -> BoxFuture<'_, std::result::Result<PageStream, RemoteError>> {
        std::future::ready(Err(self.error())).boxed()
    }

    fn execute(
        &self,
        _batch: Batch,
        _deadline: Option<Duration>,
    ) -> BoxFuture<'_, std::result::Result<BatchResult, RemoteError>> {
        std::future::ready(Err(self.error())).boxed()
    }

    fn url(&self) -> String {
        String::new()
    }

    fn known_url(&self) -> Option<String> {
        None
    }

    fn transferred(&self) -> TransferStats {
        TransferStats::default()
    }
}
