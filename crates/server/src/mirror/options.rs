//! What a server of a bucket is told.

use std::path::PathBuf;

use partial_sync_store::{Bucket, CacheFolder, ReadOptions, StoreError};

use crate::{error::ServerError, places::Places};

/// A bucket to serve. See [`Server::from_bucket`](crate::Server::from_bucket).
#[derive(Clone, Debug)]
pub struct Mirroring {
    places: Places,
    pub(super) read: ReadOptions,
}

impl Mirroring {
    /// The place that a url names, as [`Replication::to`](crate::Replication::to) has it: one database, or several below it, each at its
    /// name.
    pub fn of(url: impl Into<String>) -> Self {
        Self::at(Places::below(url.into()))
    }

    /// The places that a function gives for the names of databases. If there is none at the empty name, there are several.
    pub fn in_buckets(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self::at(Places::new(open))
    }

    fn at(places: Places) -> Self {
        Self {
            places,
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
        self.places.of(name)
    }
}
