//! What a partial replica asks of a remote ([`Remote`]), and the remote that speaks PROTOCOL over HTTP.
//!
//! This crate knows the wire (protobuf page streams, Hrana JSON), deadlines and retries. It never touches SQLite or a
//! replica's files.
#![forbid(unsafe_code)]

pub mod bookkeeping;
pub mod conformance;
pub mod decorators;
pub mod hrana;
pub mod http;
pub mod memory;
pub mod remote;
pub mod tokens;
pub mod url;
pub mod wire;

pub use decorators::{Counting, Delayed, Fault, Faulty};
pub use http::{
    AuthToken, HttpClient, HttpRemote, HttpRemoteBuilder, ReplaceableToken, RetryPolicy, UrlSource,
};
pub use memory::MemoryRemote;
pub use remote::{
    ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, TransferStats,
};
