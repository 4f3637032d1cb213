//! What a partial replica asks of a remote ([`Remote`]), and the remote that speaks PROTOCOL over HTTP.
//!
//! This crate knows the wire (protobuf page streams, Hrana JSON), deadlines and retries. It never touches SQLite or a
//! replica's files.
#![forbid(unsafe_code)]

pub mod hrana;
pub mod http;
pub mod remote;
pub mod url;
pub mod wire;

pub use http::{AuthToken, HttpClient, HttpRemote, HttpRemoteBuilder, RetryPolicy, UrlSource};
pub use remote::{
    ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, TransferStats,
};
