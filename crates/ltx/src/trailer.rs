//! The trailer: the last 16 bytes of a file.

use crate::{checksum::Checksum, error::LtxError, header::Header};

/// Length of the trailer in bytes.
pub const TRAILER_LEN: usize = 16;

/// How many of them count for the checksum of the file.
pub(crate) const COUNTED: usize = 8;

/// The checksums at the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// That of the database after the file; `None` if the file has none.
    pub post_apply: Option<Checksum>,
    /// That of the file: of its header, the heads of its frames, its pages, its index and `post_apply`.
    pub file: Checksum,
}

impl Trailer {
    /// Reads a trailer, and what of it counts for the checksum of the file.
    pub(crate) fn parse(
        bytes: &[u8; TRAILER_LEN],
        at: u64,
        header: &Header,
    ) -> Result<(Self, [u8; COUNTED]), LtxError> {
        let [p @ .., _, _, _, _, _, _, _, _] = *bytes;
        let [_, _, _, _, _, _, _, _, f @ ..] = *bytes;
        let (post, stored) = (u64::from_be_bytes(p), u64::from_be_bytes(f));
        let post_apply = match (header.is_tracked(), post) {
            (false, 0) => None,
            (false, _) => {
                let why = "the header says that there is none";
                return Err(LtxError::DatabaseChecksum {
                    at,
                    stored: post,
                    why,
                });
            }
            (true, _) => {
                let why = "a checksum has its highest bit set";
                Some(Checksum::of_stored(post).ok_or(LtxError::DatabaseChecksum {
                    at,
                    stored: post,
                    why,
                })?)
            }
        };
        check_empty(post_apply, at, header)?;
        let file = Checksum::of_stored(stored).ok_or(LtxError::NoFileChecksum {
            at: at + COUNTED as u64,
            stored,
        })?;
        Ok((Self { post_apply, file }, p))
    }

    pub(crate) fn encode(&self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        bytes[..COUNTED].copy_from_slice(&counted(self.post_apply));
        bytes[COUNTED..].copy_from_slice(&self.file.get().to_be_bytes());
        bytes
    }
}

/// What of a trailer counts for the checksum of the file.
pub(crate) fn counted(post_apply: Option<Checksum>) -> [u8; COUNTED] {
    post_apply.map_or(0, Checksum::get).to_be_bytes()
}

/// A database without pages has the checksum of one.
pub(crate) fn check_empty(post_apply: Option<Checksum>, at: u64, header: &Header) -> Result<(), LtxError> {
    match post_apply {
        Some(checksum) if header.commit.0 == 0 && checksum != Checksum::EMPTY => {
            let (stored, why) = (checksum.get(), "after the file the database has no pages");
            Err(LtxError::DatabaseChecksum { at, stored, why })
        }
        _ => Ok(()),
    }
}
