//! Why bytes are not a message.

/// Bytes that are not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A length before a message that is longer than any message can be.
    #[error("a message of {length} bytes was announced, the longest allowed here has {limit}")]
    TooLong {
        /// The length read.
        length: u64,
        /// The longest accepted.
        limit: usize,
    },
    /// A length before a message that does not end within 10 bytes.
    #[error("the length before a message is not a varint")]
    BadLength,
    /// A message that is not protobuf, or another one.
    #[error("a message cannot be decoded: {0}")]
    Message(#[from] prost::DecodeError),
    /// A header that contradicts itself or the protocol.
    #[error("the answer's header is wrong: {0}")]
    BadHeader(&'static str),
    /// A page that is not what its encoding says.
    #[error("page id {id} cannot be decompressed: {why}")]
    Page {
        /// The page, or the first of its block.
        id: u64,
        /// What zstd says.
        why: String,
    },
    /// A block of pages that is none.
    #[error("a block of pages is wrong: {0}")]
    BadBlock(&'static str),
    /// Not a bitmap, or too large a one.
    #[error("a page bitmap cannot be read: {0}")]
    Bitmap(String),
    /// Something that the protocol allows and this project does not do.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}
