//! The bytes of an object for code that waits for them, on a thread for that.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use object_store::Error as ObjectError;

/// The bytes of an object as something that waits for them.
pub(crate) struct Pieces {
    stream: BoxStream<'static, Result<Bytes, ObjectError>>,
    runtime: tokio::runtime::Handle,
    piece: Bytes,
}

impl Pieces {
    pub(crate) fn new(
        stream: BoxStream<'static, Result<Bytes, ObjectError>>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        Self {
            stream,
            runtime,
            piece: Bytes::new(),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let n = to.len().min(self.piece.len());
        to[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}
