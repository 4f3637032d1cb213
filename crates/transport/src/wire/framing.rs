//! Varint-length-delimited messages over a stream of byte chunks that are cut anywhere.
//!
//! A length is checked before anything is kept for it: the decoder never holds more than one message's limit plus the
//! chunk that it was given.

use bytes::{Buf, Bytes, BytesMut};
use prost::{Message, encode_length_delimiter};

use super::error::WireError;

/// The longest header: a revision is short, but it is opaque, and unknown fields may come with it.
pub const HEADER_LIMIT: usize = 256 << 10;
/// The longest page message: the largest page, doubled for an encoder that expands, and the fields around it.
pub const PAGE_LIMIT: usize = 65536 * 2 + 64;

/// Most bytes of a varint.
const VARINT_LIMIT: usize = 10;

/// Appends a message with its length before it.
pub fn encode_frame(message: &impl Message, to: &mut BytesMut) {
    to.reserve(message.encoded_len() + VARINT_LIMIT);
    message
        .encode_length_delimited(to)
        .expect("a BytesMut grows as needed");
}

/// Appends the message of a page without the page, which has so many bytes and is to follow.
pub fn encode_page_head(page_id: u64, bytes: usize, to: &mut BytesMut) {
    const PAGE_ID: usize = 0x08;
    const PAGE: usize = 0x12;
    let mut head = [0; 4 * VARINT_LIMIT];
    let mut left = &mut head[..];
    let mut varint = |value| encode_length_delimiter(value, &mut left).expect("there is room");
    if page_id > 0 {
        varint(PAGE_ID);
        varint(page_id as usize);
    }
    varint(PAGE);
    varint(bytes);
    let head_len = 4 * VARINT_LIMIT - left.len();
    encode_length_delimiter(head_len + bytes, to).expect("a BytesMut grows as needed");
    to.extend_from_slice(&head[..head_len]);
}

/// Cuts a stream into messages. Feed it chunks with [`push`](Self::push), take messages with [`next`](Self::next)
/// until it says `None`, and ask [`is_at_boundary`](Self::is_at_boundary) when the stream ends.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole message of at most `limit` bytes; `None` = more bytes are needed. After an error the stream
    /// cannot be followed any more.
    pub fn next(&mut self, limit: usize) -> Result<Option<Bytes>, WireError> {
        let Some((length, prefix)) = read_varint(&self.buffer)? else {
            return Ok(None);
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= limit)
            .ok_or(WireError::TooLong { length, limit })?;
        if self.buffer.len() < prefix + length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether everything pushed was taken as whole messages.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// A varint at the start of `bytes` and how many bytes it takes; `None` = it is not all there.
fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, WireError> {
    let mut value = 0u64;
    for (n, byte) in bytes.iter().take(VARINT_LIMIT).enumerate() {
        if n == VARINT_LIMIT - 1 && *byte > 1 {
            return Err(WireError::BadLength);
        }
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::PageData;

    fn page(page_id: u64, bytes: Vec<u8>) -> PageData {
        PageData {
            page_id,
            encoded_page: bytes.into(),
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_message_arrives() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(
            decoder.next(PAGE_LIMIT),
            Err(WireError::TooLong {
                length: u64::from(u32::MAX),
                limit: PAGE_LIMIT
            })
        );
    }

    #[test]
    fn a_length_that_never_ends_is_refused() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[0xff; 10]);
        assert_eq!(decoder.next(PAGE_LIMIT), Err(WireError::BadLength));
        let mut decoder = FrameDecoder::new();
        decoder.push(&[0x80; 9]);
        assert_eq!(decoder.next(PAGE_LIMIT), Ok(None));
        assert!(!decoder.is_at_boundary());
    }

    #[test]
    fn the_largest_page_fits_the_limit() {
        let mut bytes = BytesMut::new();
        encode_frame(&page(u64::from(u32::MAX), vec![0; 65536]), &mut bytes);
        let mut decoder = FrameDecoder::new();
        decoder.push(&bytes);
        assert!(decoder.next(PAGE_LIMIT).unwrap().is_some());
        assert!(decoder.is_at_boundary());
    }

    proptest! {
        #[test]
        fn messages_come_back_however_the_stream_is_cut(
            pages in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            cuts in prop::collection::vec(1usize..200, 1..50),
        ) {
            let pages: Vec<_> = pages.into_iter().map(|(id, bytes)| page(u64::from(id), bytes)).collect();
            let mut bytes = BytesMut::new();
            pages.iter().for_each(|p| encode_frame(p, &mut bytes));
            let mut decoder = FrameDecoder::new();
            let mut read = Vec::new();
            let mut cuts = cuts.iter().cycle();
            while !bytes.is_empty() {
                let n = (*cuts.next().unwrap()).min(bytes.len());
                decoder.push(&bytes.split_to(n));
                while let Some(frame) = decoder.next(PAGE_LIMIT).unwrap() {
                    read.push(PageData::decode(frame).unwrap());
                }
            }
            prop_assert!(decoder.is_at_boundary());
            prop_assert_eq!(read, pages);
        }

        #[test]
        fn invariant_11_any_bytes_in_any_chunks_never_panic(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        ) {
            let mut decoder = FrameDecoder::new();
            'stream: for chunk in chunks {
                decoder.push(&chunk);
                loop {
                    match decoder.next(PAGE_LIMIT) {
                        Ok(Some(frame)) => {
                            let _ = PageData::decode(frame.clone());
                            let _ = crate::wire::PullUpdatesHeader::decode(frame.clone()).map(|h| h.check());
                            let _ = crate::wire::PullUpdatesRequest::decode(frame).map(|r| r.to_request());
                        }
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
            }
        }
    }
}
