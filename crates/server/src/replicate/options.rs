//! What a server is told of the buckets of its databases.

use std::{fmt, time::Duration};

use partial_sync_store::{Bucket, StoreError};
use tokio::runtime::Handle;

use crate::{
    error::ServerError,
    places::{Places, url_of},
};

/// What the answer to a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The commit is in the bucket.
    #[default]
    Durable,
    /// The commit is on the disk of this server. Until it is in the bucket too, replicas do not see it, and it is gone with that disk.
    Async,
}

/// Where a server's databases are replicated to. See [`ServerBuilder::replicate`](crate::ServerBuilder::replicate).
#[derive(Clone, Debug)]
pub struct Replication {
    places: Places,
    pub(super) durability: Durability,
    pub(super) take_over: bool,
    pub(super) patience: Duration,
    writer: Option<String>,
}

impl Replication {
    /// To the place that a url names: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH` or `file:///FOLDER`. Each database
    /// of a folder has its name behind it.
    pub fn to(url: impl Into<String>) -> Self {
        Self::at(Places::below(url.into()))
    }

    /// To the places that a function gives for the names of databases; the only one of a server has an empty name.
    pub fn in_buckets(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self::at(Places::new(open))
    }

    fn at(places: Places) -> Self {
        Self {
            places,
            durability: Durability::default(),
            take_over: false,
            patience: Duration::from_secs(30),
            writer: None,
        }
    }

    /// What the answer to a commit waits for; [`Durability::Durable`] if this is not called.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// How long a commit may take to get into the bucket before who waits for it is told that it is not known; it is tried again all the
    /// same. Default: 30 s.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether a file that is not there yet becomes that of the database which the bucket has: it is restored, and the server that wrote it before
    /// stops. Without it such a file is refused.
    #[must_use]
    pub fn take_over(self, take_over: bool) -> Self {
        Self { take_over, ..self }
    }

    /// The url of this server, for those who read from the bucket and have something to write.
    #[must_use]
    pub fn writer_url(self, url: impl Into<String>) -> Self {
        Self {
            writer: Some(url.into()),
            ..self
        }
    }

    /// Whether there are such places.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        self.place("").map(drop)
    }

    /// Where a database takes SQL.
    pub(super) fn url_of(&self, name: &str) -> Option<String> {
        Some(url_of(self.writer.as_ref()?, name))
    }

    pub(super) fn place(&self, name: &str) -> Result<Bucket, ServerError> {
        Ok(self.places.of(name)?)
    }
}

/// Replicates the databases of a server.
pub(crate) struct Replicator {
    pub options: Replication,
    /// How long a state stays that replicas may be at.
    pub retention: Duration,
    pub runtime: Handle,
}

impl fmt::Debug for Replicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}
