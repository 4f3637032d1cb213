//! What both sides of the protocol decode: frames, requests, page bitmaps, SQL values.

use bytes::BytesMut;
use partial_sync_transport::{
    ApplyMode,
    hrana::{Batch, BatchResult, Condition, Value},
    wire::{
        self, FrameDecoder, HEADER_LIMIT, PAGE_LIMIT, PageData, PageEncoding, PullUpdatesHeader,
        PullUpdatesRequest, Unpacker,
    },
};
use prost::Message;

use crate::input::Input;

/// The messages of an answer, or where it breaks off, are the same however it is cut into chunks, and come back when they
/// are framed again.
pub(crate) fn frames(data: &[u8]) {
    let mut input = Input(data);
    let step = usize::from(input.byte()) + 1;
    let body = input.rest();
    let (whole, whole_ended) = read(body, body.len().max(1));
    let (cut, cut_ended) = read(body, step);
    assert_eq!(whole, cut, "chunks change what is read");
    assert_eq!(whole_ended, cut_ended);
    let mut again = BytesMut::new();
    for (n, frame) in whole.iter().enumerate() {
        if n == 0 {
            if let Ok(header) = PullUpdatesHeader::decode(frame.clone()) {
                check_header(&header);
            }
        } else {
            // Whatever it is, it is pages or an error.
            for encoding in [PageEncoding::Zstd, PageEncoding::ZstdBlocks] {
                let _ = Unpacker::default().unpack(frame.clone(), encoding);
            }
        }
        if let (1.., Ok(page)) = (n, PageData::decode(frame.clone())) {
            let read = PageData::decode(page.encode_to_vec().as_slice());
            assert_eq!(read, Ok(page.clone()));
            wire::encode_frame(&page, &mut again);
        }
    }
    let mut decoder = FrameDecoder::new();
    decoder.push(&again);
    while let Some(frame) = decoder
        .next(PAGE_LIMIT)
        .expect("what was framed here can be read")
    {
        PageData::decode(frame).expect("what was encoded here can be decoded");
    }
    assert!(decoder.is_at_boundary());
}

/// The frames, and whether the stream ended well.
fn read(body: &[u8], step: usize) -> (Vec<bytes::Bytes>, bool) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for chunk in body.chunks(step) {
        decoder.push(chunk);
        loop {
            let limit = if frames.is_empty() {
                HEADER_LIMIT
            } else {
                PAGE_LIMIT
            };
            match decoder.next(limit) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, decoder.is_at_boundary())
}

fn check_header(header: &PullUpdatesHeader) {
    let Ok((revision, size, mode, encoding)) = header.check() else {
        return;
    };
    let again = PullUpdatesHeader::new(&revision, size, mode, encoding);
    let read = PullUpdatesHeader::decode(again.encode_to_vec().as_slice()).expect("encoded here");
    assert_eq!(read.check(), Ok((revision, size, mode, encoding)));
    assert!(matches!(mode, ApplyMode::Incremental | ApplyMode::ReplaceBase));
}

/// A request that the server understands is understood alike when a client of this project writes it.
pub(crate) fn request(data: &[u8]) {
    let Ok(wire) = PullUpdatesRequest::decode(data) else {
        return;
    };
    let Ok(meant) = wire.to_request() else {
        return;
    };
    let again = PullUpdatesRequest::new(&meant, wire.page_encoding());
    let again = PullUpdatesRequest::decode(again.encode_to_vec().as_slice()).expect("encoded here");
    assert_eq!(again.page_encoding(), wire.page_encoding());
    let read = again.to_request().expect("written from a request that was good");
    assert_eq!(format!("{read:?}"), format!("{meant:?}"));
}

/// A bitmap that is accepted is the same after it was written and read again, and can be cut and walked.
pub(crate) fn bitmap(data: &[u8]) {
    let Ok(ids) = wire::decode_bitmap(data) else {
        return;
    };
    let bytes = wire::encode_bitmap(&ids);
    let read = wire::decode_bitmap(&bytes).expect("encoded here");
    assert_eq!(read, ids);
    assert_eq!(wire::encode_bitmap(&read), bytes, "one set has one form");
    assert_eq!(ids.iter().take(1000).count() as u64, ids.len().min(1000));
    let mut below = ids.clone();
    below.remove_range(1 << 20..);
    assert!(below.max().is_none_or(|max| max < 1 << 20));
    assert_eq!(below.len(), ids.range_cardinality(..1 << 20));
    assert!(below.is_subset(&ids));
}

/// Values, batches and results that are read come back exactly.
pub(crate) fn hrana_values(data: &[u8]) {
    round_trip::<Value>(data);
    round_trip::<Batch>(data);
    round_trip::<BatchResult>(data);
    round_trip::<Condition>(data);
}

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(json: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(json) else {
        return;
    };
    let bytes = serde_json::to_vec(&value).expect("everything that JSON said can be said in JSON");
    let again: T = serde_json::from_slice(&bytes).expect("written here");
    assert_eq!(again, value);
}
