//! Bodies of answers that are in memory whole, and what they count in until the client has them.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// What is handed over of an answer at once.
pub(crate) const PIECE: usize = 64 << 10;

/// Bytes that keep `held` for as long as anybody has a part of them.
pub(crate) fn counted<B, H>(bytes: B, held: H) -> Bytes
where
    B: AsRef<[u8]> + Send + 'static,
    H: Send + 'static,
{
    Bytes::from_owner(Counted { bytes, _held: held })
}

/// A body of these bytes, in pieces: that the next one is wanted tells that the one before is being taken, and who sends one
/// may copy it.
pub(crate) fn in_pieces(bytes: Bytes) -> Body {
    Body::new(Pieces(bytes))
}

struct Counted<B, H> {
    bytes: B,
    _held: H,
}

impl<B: AsRef<[u8]>, H> AsRef<[u8]> for Counted<B, H> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

struct Pieces(Bytes);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.0.len().min(PIECE);
        Poll::Ready((piece > 0).then(|| Ok(Frame::data(self.0.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
