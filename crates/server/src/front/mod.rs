//! The front door: what may come in, how much of it at a time, and for how long.
//!
//! | file | what |
//! |---|---|
//! | `activity.rs` | what one connection is doing, and when it has taken too long for it |
//! | `connections.rs` | which connections are open; the idlest makes room for a new one |
//! | `requests.rs` | requests under way, in all and for one caller |
//! | `kicks.rs` | requests for pages, so that an administrator can end them |
//! | `bodies.rs` | bodies of requests, within a budget of bytes |
//! | `coding.rs` | bodies that come compressed |
//! | `pieces.rs` | answers that are in memory whole, and count until they are sent |
//! | `proxies.rs` | which proxies are believed when they say for whom they ask |
//! | `through.rs` | bodies of answers that are watched while they are sent |
//! | `visitors.rs` | which names a request may ask for, and which web pages may send one |
//! | `descriptors.rs` | how many files and sockets the process may have open |
//!
//! Nothing here knows what a request asks for.

mod activity;
mod bodies;
mod coding;
mod connections;
mod descriptors;
mod kicks;
mod pieces;
mod proxies;
mod requests;
mod through;
mod visitors;

use axum::{body::HttpBody as _, response::Response};

pub(crate) use activity::{Activity, Peer, Watched};
pub(crate) use bodies::{BadBody, Bodies, throw_away};
pub(crate) use coding::{Coding, takes_zstd};
pub(crate) use connections::Connections;
pub(crate) use descriptors::allowed as descriptors_allowed;
pub use descriptors::raise_descriptor_limit;
pub(crate) use kicks::Kicks;
pub(crate) use pieces::{PIECE, counted, in_pieces};
pub(crate) use proxies::Proxies;
pub(crate) use requests::{Requests, TooMany, UnderWay, Waiting};
pub(crate) use through::{Piece, through};
pub(crate) use visitors::{From, Refused, Visitors, check_content_type};

/// Keeps something until the answer has been handed over whole, or is dropped.
pub(crate) fn until_sent(answer: Response, kept: impl Send + Unpin + 'static) -> Response {
    answer.map(|body| {
        through(body, move |body, cx| {
            let _kept = &kept;
            body.poll_frame(cx)
        })
    })
}
