//! The remote of a replica: the one that was given, the one that the replica knows, or none ([`Offline`]).

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
        (None, Some(url)) => Ok(Some(http(options, token, url.clone())?)),
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
        let known = || {
            let url = info
                .map(|info| info.remote_url.as_str())
                .filter(|url| !url.is_empty())?;
            http(options, &token, url.into()).ok()
        };
        let remote = given.or_else(known);
        Self {
            is_offline: remote.is_none(),
            remote: remote.unwrap_or_else(|| Arc::new(Offline)),
            token,
        }
    }
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

/// The remote of a replica that was opened without a url and knows none itself: what is local works, everything else says
/// what is missing.
#[derive(Debug)]
struct Offline;

impl Offline {
    fn error(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Client,
            "this replica was opened without its url, so nothing can be fetched, pulled or pushed; open it with the url",
        )
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
