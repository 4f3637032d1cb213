//! The coding of a request's body: as it is, or one zstd frame (`Content-Encoding: zstd`).
//!
//! A decoder hands over a little at a time, so that who takes it counts each piece before there is another one: a few bytes can
//! stand for gigabytes. Its window has a bound of its own, since a frame could ask for any.

use std::io;

use axum::http::{HeaderMap, header::CONTENT_ENCODING};
use bytes::Bytes;
use partial_sync_transport::wire::{BODY_WINDOW_LOG, ZSTD_CODING};
use zstd::stream::raw::{DParameter, Decoder as Zstd, Operation as _};

use super::pieces::PIECE;

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Identity,
    /// One zstd frame.
    Zstd,
}

impl Coding {
    /// What the head of a request says; `None`: another one, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut said = headers.get_all(CONTENT_ENCODING).iter();
        match (
            said.next().map(|value| value.as_bytes().trim_ascii()),
            said.next(),
        ) {
            (None, _) => Some(Self::Identity),
            (Some(value), None) if value.eq_ignore_ascii_case(b"identity") => Some(Self::Identity),
            (Some(value), None) if value.eq_ignore_ascii_case(ZSTD_CODING.as_bytes()) => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn decoder(self) -> Decoder {
        Decoder {
            coding: self,
            frame: None,
            ended: false,
        }
    }
}

/// Undoes a coding.
pub(super) struct Decoder {
    coding: Coding,
    /// Made when the first byte is here.
    frame: Option<Zstd<'static>>,
    /// The frame's last byte has come.
    ended: bool,
}

impl Decoder {
    /// What this piece of the body stands for; to be taken until nothing is left.
    pub(super) fn decode(&mut self, piece: Bytes) -> Decoded<'_> {
        Decoded {
            decoder: self,
            left: piece,
            is_full: false,
        }
    }

    /// Whether a body may end here.
    pub(super) fn is_at_end(&self) -> bool {
        self.coding == Coding::Identity || self.ended
    }
}

pub(super) struct Decoded<'a> {
    decoder: &'a mut Decoder,
    left: Bytes,
    /// The last piece was as large as one may be, so that there may be more without more of the body.
    is_full: bool,
}

impl Decoded<'_> {
    /// At most [`PIECE`] bytes more where they were compressed.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.decoder.coding == Coding::Identity {
            return Ok(Some(std::mem::take(&mut self.left)).filter(|piece| !piece.is_empty()));
        }
        while !self.left.is_empty() || self.is_full {
            if self.decoder.ended {
                return match self.left.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::other("bytes after the end of the frame")),
                };
            }
            let frame = match &mut self.decoder.frame {
                Some(frame) => frame,
                none => {
                    let mut frame = Zstd::new()?;
                    frame.set_parameter(DParameter::WindowLogMax(BODY_WINDOW_LOG))?;
                    none.insert(frame)
                }
            };
            let mut piece = vec![0; PIECE];
            let status = frame.run_on_buffers(&self.left, &mut piece)?;
            let _ = self.left.split_to(status.bytes_read);
            self.is_full = status.bytes_written == PIECE;
            self.decoder.ended = status.remaining == 0;
            if status.bytes_written > 0 {
                piece.truncate(status.bytes_written);
                return Ok(Some(piece.into()));
            }
            if status.bytes_read == 0 {
                return Ok(None);
            }
        }
        Ok(None)
    }
}
