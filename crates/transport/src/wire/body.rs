//! Bodies of SQL over HTTP, of requests and of answers alike: as they are, or one zstd frame ([`ZSTD_CODING`](super::ZSTD_CODING)).
//!
//! A decoder hands over a little at a time, so that who takes it counts each piece before there is another one: a few bytes can
//! stand for gigabytes. The window of a frame has a bound, since a frame could ask for any. Nor may many bytes stand for few: a limit
//! of what a body stands for is then one of the body, too.

use std::{fmt, io};

use bytes::Bytes;
use zstd::stream::raw::{DParameter, Decoder as Frame, Operation as _};

/// The window that a frame has at most, as a power of two: what a receiver keeps for each body.
pub const BODY_WINDOW_LOG: u32 = 20;
/// Bodies below this are not worth packing: what is around them has as much.
pub const WORTH_PACKING: usize = 1 << 10;
/// Bytes that are handed over at a time, at most.
const PIECE: usize = 64 << 10;
/// So many bytes more than it stands for may have come of a frame: a block, which is 128 KiB at most, may have to be there whole.
const AHEAD: u64 = 256 << 10;
const LEVEL: i32 = 3;

/// The frame with these bytes, if it fits into `most` bytes well: zstd wants some room to spare.
pub fn pack_body(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut packer = zstd::bulk::Compressor::new(LEVEL).ok()?;
    packer.window_log(BODY_WINDOW_LOG).ok()?;
    let mut packed = Vec::with_capacity(most);
    packer.compress_to_buffer(bytes, &mut packed).ok()?;
    Some(packed)
}

/// Reads a body. Give it what comes with [`push`](Self::push), take what that stands for with [`next_piece`](Self::next_piece) until
/// it gives nothing, and ask [`is_at_end`](Self::is_at_end) when the body ends.
pub struct BodyDecoder {
    is_packed: bool,
    /// With room for a piece; made when the first byte is here.
    frame: Option<(Frame<'static>, Vec<u8>)>,
    left: Bytes,
    /// The last piece was as large as one may be, so that there may be more without more of the body.
    is_full: bool,
    /// Bytes of the frame that came, and that it stands for so far.
    taken: u64,
    given: u64,
    /// The frame's last byte has come.
    ended: bool,
}

impl fmt::Debug for BodyDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyDecoder")
            .field("is_packed", &self.is_packed)
            .field("left", &self.left.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl BodyDecoder {
    /// Of a body that is one zstd frame, or comes as it is.
    pub fn new(is_packed: bool) -> Self {
        Self {
            is_packed,
            frame: None,
            left: Bytes::new(),
            is_full: false,
            taken: 0,
            given: 0,
            ended: false,
        }
    }

    /// The next piece of the body; the one before has been taken.
    pub fn push(&mut self, piece: Bytes) {
        self.left = piece;
    }

    /// What it stands for, of a frame at most 64 KiB more.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        if !self.is_packed {
            return Ok(Some(std::mem::take(&mut self.left)).filter(|piece| !piece.is_empty()));
        }
        while !self.left.is_empty() || self.is_full {
            if self.ended {
                return match self.left.is_empty() {
                    true => Ok(None),
                    false => Err(io::Error::other("bytes after the end of the frame")),
                };
            }
            let (frame, piece) = match &mut self.frame {
                Some(frame) => frame,
                none => {
                    let mut frame = Frame::new()?;
                    frame.set_parameter(DParameter::WindowLogMax(BODY_WINDOW_LOG))?;
                    none.insert((frame, vec![0; PIECE]))
                }
            };
            let status = frame.run_on_buffers(&self.left, piece)?;
            let _ = self.left.split_to(status.bytes_read);
            self.is_full = status.bytes_written == PIECE;
            self.ended = status.remaining == 0;
            self.taken += status.bytes_read as u64;
            self.given += status.bytes_written as u64;
            if self.taken > self.given + AHEAD {
                return Err(io::Error::other("the frame is longer than what it stands for"));
            }
            if status.bytes_written > 0 {
                return Ok(Some(Bytes::copy_from_slice(&piece[..status.bytes_written])));
            }
            if status.bytes_read == 0 {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Whether a body may end here.
    pub fn is_at_end(&self) -> bool {
        !self.is_packed || self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body of these pieces stands for.
    fn read(is_packed: bool, pieces: impl IntoIterator<Item = Bytes>) -> io::Result<Vec<u8>> {
        let (mut decoder, mut bytes) = (BodyDecoder::new(is_packed), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            while let Some(piece) = decoder.next_piece()? {
                assert!(!piece.is_empty() && (piece.len() <= PIECE || !is_packed));
                bytes.extend_from_slice(&piece);
            }
        }
        match decoder.is_at_end() {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        fastrand::Rng::with_seed(7).fill(&mut noise);
        noise
    }

    #[test]
    fn a_body_comes_out_as_it_went_in_however_it_is_cut() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE, 3 << 20] {
            for bytes in [noise(size), vec![7; size]] {
                let packed = pack_body(&bytes, size + 1000).unwrap();
                for cut in [1, 1000, PIECE, 1 << 20] {
                    for (is_packed, sent) in [(true, &packed), (false, &bytes)] {
                        let pieces = sent.chunks(cut).map(Bytes::copy_from_slice);
                        assert_eq!(read(is_packed, pieces).unwrap(), bytes, "{size} {cut}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_that_would_be_too_long_is_none() {
        let bytes = noise(10_000);
        assert!(pack_body(&bytes, bytes.len()).is_none());
        assert!(pack_body(&bytes, 0).is_none());
        let bytes = [vec![7; 10_000], noise(1000)].concat();
        let fits = |most| pack_body(&bytes, most).inspect(|packed| assert!(packed.len() <= most));
        assert!((0..1000).all(|most| fits(most).is_none()));
        assert!((1000..1200).filter_map(fits).next().is_some());
    }

    /// Blocks without content: a limit of what they stand for would never be reached.
    #[test]
    fn a_frame_that_goes_on_and_stands_for_nothing_is_an_error() {
        let head = Bytes::from_static(b"\x28\xb5\x2f\xfd\x00\x50");
        let empty = |blocks: usize| Bytes::from(vec![0; 3 * blocks]);
        let end = Bytes::from_static(b"\x01\x00\x00");
        let few = [head.clone(), empty(1000), end];
        assert_eq!(read(true, few).unwrap(), b"");
        let endless = std::iter::once(head).chain(std::iter::repeat(empty(1000)));
        let error = read(true, endless.take(1000)).unwrap_err();
        assert!(
            error.to_string().contains("longer than what it stands for"),
            "{error}"
        );
    }
}
