//! Writing a database's commits to object storage: the file here is the working copy, the log in the bucket is the database.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | what a server is told: which bucket, and what an answer to a commit waits for |
//! | `attach.rs` | begins a log, or goes on with one: what the file has and the log has not is found out and put there |
//! | `log.rs` | one transaction of the log for each revision |
//! | `keeping.rs` | compaction and collection beside it |
//!
//! A revision's name is the lineage of the log and the id of its transaction, so every server of the same bucket gives the same
//! names. The page history records a revision first, then the log gets it, then it is published: whatever is cut off in between
//! is found by the next start.
//!
//! What must never happen here: that a revision is published which the log does not have, or that a file is
//! taken for the state of a log which it does not continue.

mod attach;
mod keeping;
mod log;

use std::{fmt, sync::Arc, time::Duration};

use partial_sync_store::{Bucket, StoreError};
use tokio::runtime::Handle;

pub(crate) use attach::{Attach, File};
pub(crate) use keeping::keep;
pub(crate) use log::Log;

use crate::error::ServerError;

/// What the answer to a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The commit is in the bucket.
    #[default]
    Durable,
    /// The commit is on the disk of this server. Until it is in the bucket too, replicas do not see it, and it is gone with that disk.
    Async,
}

type Open = dyn Fn(&str) -> Result<Bucket, StoreError> + Send + Sync;

/// Where a server's databases are replicated to. See [`ServerBuilder::replicate`](crate::ServerBuilder::replicate).
#[derive(Clone)]
pub struct Replication {
    open: Arc<Open>,
    durability: Durability,
    writer: Option<String>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replication")
            .field("durability", &self.durability)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Replication {
    /// To the place that a url names: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH` or `file:///FOLDER`. Each database
    /// of a folder has its name behind it.
    pub fn to(url: impl Into<String>) -> Self {
        let url = url.into();
        Self::in_buckets(move |name| {
            let url = match name {
                "" => url.clone(),
                name => format!("{}/{name}", url.trim_end_matches('/')),
            };
            partial_sync_store::open(&url, std::env::vars())
        })
    }

    /// To the places that a function gives for the names of databases; the only one of a server has an empty name.
    pub fn in_buckets(open: impl Fn(&str) -> Result<Bucket, StoreError> + Send + Sync + 'static) -> Self {
        Self {
            open: Arc::new(open),
            durability: Durability::default(),
            writer: None,
        }
    }

    /// What the answer to a commit waits for; [`Durability::Durable`] if this is not called.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
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

    fn place(&self, name: &str) -> Result<Bucket, ServerError> {
        Ok((self.open)(name)?)
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

impl Replicator {
    /// What attaches the file of a database to its log.
    pub(crate) fn attach(self: &Arc<Self>, name: &str) -> Result<Attach, ServerError> {
        Ok(Attach::new(Arc::clone(self), self.options.place(name)?))
    }
}
