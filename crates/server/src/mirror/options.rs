//! What a server of a bucket is told.

use std::{fmt, path::PathBuf, sync::Arc};

use partial_sync_store::{Bucket, CacheFolder, ReadOptions, StoreError};

use crate::error::ServerError;

type Open = dyn Fn(&str) -> Result<Bucket, StoreError> + Send + Sync;

/// A bucket to serve. See [`Server::from_bucket`](crate::Server::from_bucket).
#[derive(Clone)]
pub struct Mirroring {
    open: Arc<Open>,
    pub(super) read: ReadOptions,
}

impl fmt::Debug for Mirroring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirroring")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl Mirroring {
    /// The place that a url names, as [`Replication::to`](crate::Replication::to) has it: one database, or several below it, each at its
    /// name.
    pub fn of(url: impl Into<String>) -> Self {
        let url = url.into();
        Self::in_buckets(move |name| {
            let url = match name {
                "" => url.clone(),
                name => format!("{}/{name}", url.trim_end_matches('/')),
            };
            partial_sync_store::open(&url, std::env::vars())
        })
    }

    /// The places that a function gives for the names of databases. If there is none at the empty name, there are several.
    pub fn in_buckets(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self {
            open: Arc::new(open),
            read: ReadOptions::default(),
        }
    }

    /// Keeps up to so many bytes of what was read in a folder, over restarts; other servers may have the same one. Without it some MiB are
    /// kept in memory.
    #[must_use]
    pub fn cache(mut self, path: impl Into<PathBuf>, bytes: u64) -> Self {
        let path = path.into();
        self.read.folder = Some(CacheFolder { path, bytes });
        self
    }

    pub(super) fn place(&self, name: &str) -> Result<Bucket, ServerError> {
        Ok((self.open)(name)?)
    }
}
