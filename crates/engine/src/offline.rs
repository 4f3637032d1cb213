//! The remote of a replica that was opened without a url and knows none itself: what is local works, everything else says
//! what is missing.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use partial_sync_transport::{
    PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, TransferStats,
    hrana::{Batch, BatchResult},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Offline;

impl Offline {
    fn error(&self) -> RemoteError {
        RemoteError::new(
            RemoteErrorKind::Client,
            "this replica was opened without its url, so nothing can be fetched, pulled or pushed; open it with the url",
        )
    }
}

impl Remote for Offline {
    fn pages(&self, _request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        std::future::ready(Err(self.error())).boxed()
    }

    fn execute(
        &self,
        _batch: Batch,
        _deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
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
