//! What answers may take: one by itself, and all of the server together, from the first row that is collected until the client
//! has the last byte.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use partial_sync_transport::{
    hrana,
    wire::{WORTH_PACKING, pack_body},
};

use super::error::{code, error};
use crate::{
    access::Access,
    front::{PIECE, counted, in_pieces},
};

/// What zstd takes to pack an answer, besides the bytes before and after: at most so much,
const PACKING: usize = 3 << 19;
/// and of a small answer so many times its bytes, and this.
const PACKING_SMALL: (usize, usize) = (20, 64 << 10);

/// The budget of all answers of a server, in bytes of JSON, roughly.
pub(super) struct AnswerBytes {
    whole: usize,
    used: AtomicUsize,
}

impl AnswerBytes {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            whole: bytes,
            used: AtomicUsize::new(0),
        })
    }
}

/// What an answer has of the server's budget; given back when it is dropped.
pub(super) struct Held {
    of: Arc<AnswerBytes>,
    /// The budget is used up for this answer when so much of it is.
    most: usize,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> Result<(), hrana::Error> {
        match self.grows_within(self.most, bytes) {
            true => Ok(()),
            false => Err(error(
                code::SERVER_BUSY,
                format!(
                    "the answers under way take the {} bytes that they may take together: try again later, or read in \
                     smaller parts, with LIMIT or a range of keys",
                    self.most
                ),
            )),
        }
    }

    /// Grows if all answers together then take no more than `most`.
    fn grows_within(&mut self, most: usize, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= most);
        let used = &self.of.used;
        let fits = used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok();
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.of.used.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }

    /// The answer as one zstd frame, and then no more is held than that has. `None` if it is hardly smaller, or if making it would
    /// take of the half of the budget that is for answers alone.
    pub(super) fn pack(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let before = self.bytes;
        let most = bytes.len() - bytes.len() / 8;
        let tables = bytes.len().saturating_mul(PACKING_SMALL.0) + PACKING_SMALL.1;
        let takes = most + tables.min(PACKING);
        if bytes.len() < WORTH_PACKING || !self.grows_within(self.most / 2, takes) {
            return None;
        }
        let packed = pack_body(bytes, most);
        self.shrink_to(packed.as_ref().map_or(before, Vec::len));
        packed
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the answer to one request may still take.
pub(super) struct Budget {
    left: usize,
    whole: usize,
    held: Held,
}

/// How much of a budget was left at some moment.
pub(super) struct Mark(usize);

impl Budget {
    /// A full one of so many bytes, which come from the server's. Who may only read leaves a third of that to those who write.
    pub(super) fn new(bytes: usize, of: Arc<AnswerBytes>, access: Access) -> Self {
        let most = match access {
            Access::ReadOnly => of.whole / 3 * 2,
            Access::Full => of.whole,
        };
        Self {
            left: bytes,
            whole: bytes,
            held: Held { of, most, bytes: 0 },
        }
    }

    /// Takes from it, or says that the answer grows too large.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), hrana::Error> {
        let left = self.left.checked_sub(bytes).ok_or_else(|| {
            error(
                code::RESPONSE_TOO_LARGE,
                format!(
                    "the answer would be larger than {} bytes: read it in parts, with LIMIT or a range of keys",
                    self.whole
                ),
            )
        })?;
        let taken = self.whole - left;
        if taken > self.held.bytes {
            self.held
                .grow((taken - self.held.bytes).next_multiple_of(PIECE))?;
        }
        self.left = left;
        Ok(())
    }

    /// Takes what an error's text needs, or makes the text short.
    pub(super) fn take_error(&mut self, error: &mut hrana::Error) {
        if self.take(in_json(&error.message)).is_err() {
            error.message = "it failed, and why does not fit into the answer: send less at once".to_owned();
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.left)
    }

    /// What was collected since then is not sent.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.left = mark.0;
    }

    /// To be kept as long as the answer is.
    pub(super) fn into_held(self) -> Held {
        self.held
    }
}

/// Bytes of a text in JSON, without its quotes: some characters are written as an escape.
pub(super) fn in_json(text: &str) -> usize {
    let extra = |byte: u8| match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 1,
        ..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(extra).sum::<usize>()
}

/// A body that gives its bytes back to the budget when all of them have been sent, or given up.
pub(super) fn body(mut bytes: Vec<u8>, held: Held) -> Body {
    bytes.shrink_to_fit();
    in_pieces(counted(bytes, held))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use axum::body::HttpBody as _;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn v2_all_answers_have_a_budget_together_until_they_are_sent() {
        let all = AnswerBytes::new(4 * PIECE);
        let mut one = Budget::new(3 * PIECE, all.clone(), Access::Full);
        one.take(2 * PIECE + 1).unwrap();
        let mut other = Budget::new(3 * PIECE, all.clone(), Access::Full);
        let mut reader = Budget::new(3 * PIECE, all.clone(), Access::ReadOnly);
        assert!(reader.take(1).is_err(), "half of it is taken");
        other.take(PIECE).unwrap();
        let refused = other.take(1).unwrap_err();
        assert_eq!(refused.code.as_deref(), Some(code::SERVER_BUSY));
        // What is not sent after all is not taken again.
        let mark = one.mark();
        one.take(PIECE - 1).unwrap();
        one.back_to(mark);
        one.take(PIECE - 1).unwrap();
        assert_eq!(
            one.take(1).unwrap_err().code.as_deref(),
            Some(code::RESPONSE_TOO_LARGE)
        );
        let body = body(vec![0; 3], one.into_held());
        assert_eq!(body.size_hint().exact(), Some(3));
        other.take(1).unwrap_err();
        drop(body);
        other.take(1).unwrap();
        drop(other);
        assert_eq!(all.used.load(Ordering::Relaxed), 0);
    }

    /// Was red: an answer was handed over as one piece, and counted no more from there on, whether its client took it or not.
    #[tokio::test]
    async fn v2_an_answer_is_handed_over_in_pieces_and_counts_until_the_last_one_is_sent() {
        let all = AnswerBytes::new(8 * PIECE);
        let mut budget = Budget::new(8 * PIECE, all.clone(), Access::Full);
        budget.take(2 * PIECE + 1).unwrap();
        let mut body = body(vec![7; 2 * PIECE + 1], budget.into_held());
        let mut pieces = Vec::new();
        while !body.is_end_stream() {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            pieces.push(frame.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(
            pieces.iter().map(Bytes::len).collect::<Vec<_>>(),
            [PIECE, PIECE, 1]
        );
        // As the server does when it has been given the last one.
        drop(body);
        let last = pieces.pop();
        drop(pieces);
        assert!(all.used.load(Ordering::Relaxed) > 0, "{last:?} is not sent yet");
        drop(last);
        assert_eq!(all.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn v2_an_answer_is_packed_where_there_is_room_and_counts_as_what_it_becomes() {
        let whole = 2 * (PACKING + 8 * PIECE);
        let all = AnswerBytes::new(whole);
        let answer = |bytes: usize| {
            let mut budget = Budget::new(whole, all.clone(), Access::Full);
            budget.take(bytes).unwrap();
            budget.into_held()
        };
        let bytes = vec![7; 4 * PIECE];
        let mut held = answer(bytes.len());
        let packed = held.pack(&bytes).unwrap();
        assert!(packed.len() < 100);
        assert_eq!(all.used.load(Ordering::Relaxed), packed.len());
        drop(held);
        // What zstd cannot make much smaller goes as it is, as does what is small, and nothing else is held for it.
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(4 * PIECE).collect();
        for bytes in [&noise[..], &bytes[..WORTH_PACKING - 1], &[]] {
            let mut held = answer(bytes.len());
            let before = all.used.load(Ordering::Relaxed);
            assert!(held.pack(bytes).is_none());
            assert_eq!(all.used.load(Ordering::Relaxed), before);
        }
        // Half of the budget is for answers as they are.
        let others = answer(6 * PIECE);
        let mut held = answer(bytes.len());
        assert!(held.pack(&bytes).is_none());
        drop(others);
        assert!(held.pack(&bytes).is_some());
        drop(held);
        assert_eq!(all.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn v2_a_text_counts_as_it_is_written() {
        let all: String = (0..300)
            .filter_map(char::from_u32)
            .chain("€😀\u{2028}".chars())
            .collect();
        assert_eq!(in_json(&all), serde_json::to_string(&all).unwrap().len() - 2);
    }

    #[test]
    fn v2_an_error_that_does_not_fit_is_short() {
        let mut budget = Budget::new(100, AnswerBytes::new(PIECE), Access::Full);
        let mut long = error("SQLITE_ERROR", "x".repeat(101));
        budget.take_error(&mut long);
        assert!(long.message.contains("send less") && long.code.as_deref() == Some("SQLITE_ERROR"));
    }
}
