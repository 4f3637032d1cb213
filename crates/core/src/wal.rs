//! The WAL file as it lies on disk (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>): a header, then frames of a
//! header and a page each. Where they are and what their headers say is known here and nowhere else. Nothing here checks a
//! checksum: SQLite does, and who reads a frame knows by its salts whether it is of this life of the WAL.

use crate::types::{PageCount, PageNo, PageSize};

/// Length of the file's header.
pub const HEADER_LEN: usize = 32;

/// Length of the header before the page of each frame.
pub const FRAME_HEADER_LEN: usize = 24;

/// Bytes of a frame.
pub const fn frame_len(page_size: PageSize) -> u64 {
    FRAME_HEADER_LEN as u64 + page_size.bytes() as u64
}

/// Where the frame begins that has so many before it.
pub const fn frame_offset(before: u64, page_size: PageSize) -> u64 {
    HEADER_LEN as u64 + before * frame_len(page_size)
}

/// What all frames of one life of the WAL carry; new ones are drawn when it is reset. As they stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salts(pub [u8; 8]);

impl Salts {
    /// Those of the WAL that begins with this header.
    pub fn of_header(header: &[u8; HEADER_LEN]) -> Self {
        let [.., a, b, c, d, e, f, g, h, _, _, _, _, _, _, _, _] = *header;
        Self([a, b, c, d, e, f, g, h])
    }

    /// As the two numbers that they are.
    pub const fn numbers(self) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = self.0;
        [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])]
    }
}

/// The page that a frame holds which begins with these bytes: the first four of them say it. `None` of fewer, or if it is not a
/// frame of SQLite's.
pub fn page_of_frame(bytes: &[u8]) -> Option<PageNo> {
    PageNo::new(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader([u8; FRAME_HEADER_LEN]);

impl FrameHeader {
    /// Of these bytes, which begin with it; `None` of fewer.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied().map(Self)
    }

    /// See [`page_of_frame`].
    pub fn page(self) -> Option<PageNo> {
        page_of_frame(&self.0)
    }

    /// The size of the database, if the frame ends a transaction.
    pub fn commits(self) -> Option<PageCount> {
        let [_, _, _, _, a, b, c, d, ..] = self.0;
        Some(PageCount(u32::from_be_bytes([a, b, c, d]))).filter(|size| *size != PageCount::ZERO)
    }

    /// The life of the WAL that the frame is of.
    pub const fn salts(self) -> Salts {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h, ..] = self.0;
        Salts([a, b, c, d, e, f, g, h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_and_a_frame_are_read_as_sqlite_writes_them() {
        let mut header = [0; HEADER_LEN];
        header[16..24].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let salts = Salts::of_header(&header);
        assert_eq!(salts, Salts([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(salts.numbers(), [0x0102_0304, 0x0506_0708]);

        let mut frame = vec![0; FRAME_HEADER_LEN + 512];
        frame[3] = 9;
        frame[8..16].copy_from_slice(&salts.0);
        let within = FrameHeader::of(&frame).unwrap();
        assert_eq!(
            (within.page(), within.commits(), within.salts()),
            (PageNo::new(9), None, salts)
        );
        frame[6] = 1;
        assert_eq!(FrameHeader::of(&frame).unwrap().commits(), Some(PageCount(256)));
        assert!(FrameHeader::of(&frame[..FRAME_HEADER_LEN - 1]).is_none());
        assert_eq!(frame_offset(2, PageSize::DEFAULT), 32 + 2 * (24 + 4096));
    }
}
