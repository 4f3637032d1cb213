//! The body of an answer whose pieces go through a function.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// What a body gives when it is asked for a piece.
pub(crate) type Piece = Poll<Option<Result<Frame<Bytes>, axum::Error>>>;

/// The same body, whose pieces are those that `poll` takes of it. What it holds is dropped with the body: when the answer has been
/// handed over whole, or is given up.
pub(crate) fn through<F>(body: Body, poll: F) -> Body
where
    F: FnMut(Pin<&mut Body>, &mut Context<'_>) -> Piece + Send + Unpin + 'static,
{
    Body::new(Through { body, poll })
}

struct Through<F> {
    body: Body,
    poll: F,
}

impl<F: FnMut(Pin<&mut Body>, &mut Context<'_>) -> Piece + Unpin> HttpBody for Through<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Piece {
        let Self { body, poll } = self.get_mut();
        poll(Pin::new(body), cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
