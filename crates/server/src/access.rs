//! The seams between the parts of the server: who may do what ([`Authenticator`]), what the SQL endpoint is given
//! ([`DatabaseHandle`]), how it tells the page history of a commit ([`CommitListener`]), and how it is plugged into the
//! application ([`SqlEndpoint`]).
//!
//! Only traits and plain data; nothing here may read a token, a file or a socket.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use axum::{
    http::{HeaderName, Request, StatusCode},
    response::Response,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;

/// Says that a server of a bucket has passed a request on, and what it allows: [`FORWARDED_READ_ONLY`], or anything else for no less than
/// the token does.
pub(crate) const FORWARDED: HeaderName = HeaderName::from_static("partial-sync-forwarded");
pub(crate) const FORWARDED_READ_ONLY: &str = "read-only";

/// What a request is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Read pages, and run SQL that does not write.
    ReadOnly,
    /// Everything.
    Full,
}

/// Who asks, as far as limits and fair shares go: requests with the same id share what one caller may use.
///
/// A hash with a key of this process, so that nobody can choose an id, and an id in a log tells nothing of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerId(u64);

impl CallerId {
    /// Nobody in particular: no token was asked for. The server puts the peer's address in its place.
    pub const ANYONE: Self = Self(0);

    /// The one a token stands for: its subject, or the token itself.
    pub fn of_token(identity: impl AsRef<[u8]>) -> Self {
        Self::hashed(("token", identity.as_ref()))
    }

    /// The one that has a name, whatever token it comes with.
    pub fn of_name(name: &str) -> Self {
        Self::hashed(("name", name.as_bytes()))
    }

    /// Anyone who asks from an address. Of IPv6 the network counts, since one machine can have all of its addresses.
    pub fn of_peer(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::hashed(("v4", address.octets())),
            IpAddr::V6(address) => Self::hashed(("v6", &address.octets()[..8])),
        }
    }

    fn hashed(identity: impl std::hash::Hash) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(identity).max(1))
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a request is allowed to do, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub access: Access,
    /// Whose share of the server it uses.
    pub id: CallerId,
}

/// Why a request is not allowed to do anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// There is no `Authorization` header (401).
    #[error("this server needs a token: send the header `Authorization: Bearer TOKEN`")]
    Missing,
    /// The token is malformed, wrong or expired (401); the text says which, without the token.
    #[error("{0}")]
    Invalid(String),
    /// The token is good, but not for this database (403).
    #[error("{0}")]
    Forbidden(String),
}

impl Denied {
    /// The HTTP status that says this.
    pub fn status(&self) -> StatusCode {
        match self {
            Denied::Missing | Denied::Invalid(_) => StatusCode::UNAUTHORIZED,
            Denied::Forbidden(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// Decides what the bearer of an `Authorization` header may do. Called for every request;
/// must not block.
pub trait Authenticator: Send + Sync {
    /// `authorization` is the header's value as it came, `database` the name of the database asked for.
    fn check(&self, authorization: Option<&str>, database: &str) -> Result<Caller, Denied>;
}

/// Why a commit that is in the file may not be in the database for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotCommitted {
    /// It may not survive a power cut.
    #[error("the commit may not be on the disk: {0}")]
    Disk(#[from] std::io::Error),
    /// It is on the disk, and not known to be in the bucket that the database is replicated to.
    #[error("the commit is not known to be in the bucket: {0}")]
    Bucket(Box<dyn std::error::Error + Send + Sync>),
    /// Another server has taken the database over.
    #[error("another server has taken the database over")]
    TakenOver,
}

/// Hears of commits that the SQL endpoint made.
pub trait CommitListener: Send + Sync {
    /// To be awaited after a request that may have written and before its answer: when it is done, the commit has a
    /// revision, and anyone who reads the answer and then pulls gets it.
    fn committed(&self) -> BoxFuture<'static, Result<(), NotCommitted>>;

    /// Whether a commit survives a power cut once [`CommitListener::committed`] is done: then SQLite need not wait for the disk
    /// at each commit while it holds the write lock, and the listener makes many commits durable at once.
    fn makes_durable(&self) -> bool {
        false
    }

    /// Bytes of commits in the WAL, if not all of them are in the database too. Does not block.
    fn wal_bytes(&self) -> u64 {
        0
    }

    /// Whether there are commits that have not got into the bucket which the database is replicated to. Does not block.
    fn waits_for_bucket(&self) -> bool {
        false
    }

    /// To be awaited before a transaction begins: while there are more than `most` such bytes, none does, for so long at most. Short
    /// reads that overlap would else keep the WAL from ever being emptied, however soon each of them ends.
    fn room(&self, most: u64, patience: Duration) -> BoxFuture<'static, ()> {
        let _ = (most, patience);
        Box::pin(std::future::ready(()))
    }

    /// Whether another server has taken the database over: what the file has is not what the database is, and nothing is to be
    /// answered from it.
    fn is_taken_over(&self) -> bool {
        false
    }

    /// Whether the path still leads to the database that is being served. A connection that was opened by the path is to
    /// be used only if this is `true` after it was opened, and what it did stands only if this is `true` after that.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// One database that is being served, as the SQL endpoint sees it. Cheap to clone.
///
/// SQLite's locks are POSIX locks: **never** open and close the file at `path` (or its `-wal` and `-shm`) other than
/// through SQLite connections, or every lock of this process on it is gone.
#[derive(Clone)]
pub struct DatabaseHandle {
    /// The name in urls; empty when the server serves a single file.
    pub name: Arc<str>,
    /// The file. It exists, and is in WAL mode unless it cannot be written. Each time that a database is opened has its
    /// own `Arc`: what was opened through another one is of another database.
    pub path: Arc<PathBuf>,
    /// The file cannot be written: open it read-only.
    pub read_only: bool,
    /// To be told of commits.
    pub listener: Arc<dyn CommitListener>,
}

impl fmt::Debug for DatabaseHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseHandle")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// SQL over HTTP: answers everything under `/v2`, `/v3` and `/v3-protobuf` of a database.
pub trait SqlEndpoint: Send + Sync {
    /// Answers one request. The caller has checked the token, found the database and read the body within the size
    /// limit. The request's path starts at the endpoint: `/v2/pipeline`, `/v3`, whatever the database's own prefix was.
    fn answer(
        &self,
        database: DatabaseHandle,
        caller: Caller,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Response>;

    /// Whether a client may come back to something that is open in the database.
    fn is_using(&self, _database: &DatabaseHandle) -> bool {
        false
    }

    /// Closes what has waited for its client for longest, of the client who has the most, so that its database may be closed.
    /// `false` = there is nothing.
    fn end_idle(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }

    /// The database is being closed or was replaced: close what is open in it, rolling back.
    fn release(&self, _database: &DatabaseHandle) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Interrupts what runs for these callers, and rolls back and closes what they have open, in all databases.
    fn end_of(&self, _callers: Vec<CallerId>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// How many interactive connections (batons) are open, for `/metrics`.
    fn open_batons(&self) -> usize;

    /// The server stops: roll back and close what is open. No request is under way any more.
    fn shut_down(&self) -> BoxFuture<'static, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_by_its_token_or_by_its_network() {
        let peer = |text: &str| CallerId::of_peer(text.parse().unwrap());
        assert_eq!(CallerId::of_token("a"), CallerId::of_token("a"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2:3:4:5"));
        let different = [
            CallerId::ANYONE,
            CallerId::of_token("a"),
            CallerId::of_token("b"),
            CallerId::of_name("a"),
            peer("192.0.2.1"),
            peer("192.0.2.2"),
            peer("2001:db8::1"),
            peer("2001:db8:0:1::1"),
        ];
        for (at, id) in different.iter().enumerate() {
            assert!(!different[..at].contains(id), "{at}");
        }
    }
}
