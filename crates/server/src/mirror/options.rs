//! What a server of a bucket is told.

use std::{path::PathBuf, time::Duration};

use partial_sync_store::{Bucket, CacheFolder, ReadOptions, StoreError};

use crate::places::Places;

/// When a server of a bucket becomes the writer of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeOver {
    /// When it opens it for the first time, whatever its writer does: that one stops.
    Now,
    /// When the writer that the head names has not answered for so long. Of several servers that wait for that one wins; nothing is
    /// lost if the writer was there and could not be reached, but it stops.
    After(Duration),
}

/// A bucket to serve. See [`Server::from_bucket`](crate::Server::from_bucket).
#[derive(Clone, Debug)]
pub struct Mirroring {
    places: Places,
    pub(super) read: ReadOptions,
    /// When, and the url of this server.
    pub(super) take_over: Option<(TakeOver, String)>,
}

impl Mirroring {
    /// The place that a url names, as [`Replication::to`](crate::Replication::to) has it: one database, or several below it, each at its
    /// name.
    pub fn of(url: impl Into<String>) -> Self {
        Self::at(Places::there_below(url.into()))
    }

    /// The places that a function gives for the names of databases. If there is none at the empty name, there are several.
    pub fn in_buckets(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self::at(Places::new(open))
    }

    fn at(places: Places) -> Self {
        Self {
            places,
            read: ReadOptions::default(),
            take_over: None,
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

    /// Lets this server become the writer of what it serves; `url` is where it takes SQL, each database of several at its name below that.
    /// Whenever the head names that url, it is the writer at once: it was, before it was started again. Default: it never does.
    #[must_use]
    pub fn take_over(mut self, when: TakeOver, url: impl Into<String>) -> Self {
        self.take_over = Some((when, url.into()));
        self
    }

    pub(super) fn place(&self, name: &str) -> Result<Bucket, StoreError> {
        self.places.of(name)
    }
}
