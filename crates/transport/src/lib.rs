//! What a partial replica asks of a remote ([`Remote`]), and the remote that speaks PROTOCOL over HTTP.
//!
//! This crate knows the wire (protobuf page streams, Hrana JSON), deadlines and retries. It never touches SQLite or a
//! replica's files.
#![forbid(unsafe_code)]

pub mod hrana;
pub mod remote;

pub use remote::{
    ApplyMode, Features, PageSelector, PageStream, PagesHeader, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage, TransferStats,
};
