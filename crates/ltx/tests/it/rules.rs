//! Files that break one rule and are right otherwise, with the checksum of what is in them: whole, and by ranges.

use lz4_flex::block;
use partial_sync_ltx::{Checksum, Header, LtxError, PageIndex, PreApply, TxRange, decode_frame};

use crate::support::{Content, header, ids, page, read, read_by_ranges};

/// A file in parts.
#[derive(Clone)]
struct Parts {
    header: Vec<u8>,
    frames: Vec<u8>,
    end: Vec<u8>,
    /// Page, offset, size.
    entries: Vec<[u64; 3]>,
    /// Behind the entries, in place of their length.
    length: Option<u64>,
    post_apply: u64,
}

fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

impl Parts {
    fn of(ids: TxRange, pre_apply: PreApply, commit: u32, pages: &[u32]) -> Self {
        let content = Content {
            header: header(512, commit, ids, pre_apply),
            pages: pages.iter().map(|no| (page(*no), vec![*no as u8; 512])).collect(),
            post_apply: match pre_apply {
                PreApply::Of(checksum) => Some(checksum),
                _ => None,
            },
        };
        let (file, contents) = content.write().unwrap();
        let entries: Vec<_> = contents
            .index
            .iter()
            .map(|(page, range)| [page.get().into(), range.start, range.end - range.start])
            .collect();
        let frames_end = entries
            .last()
            .map_or(100, |[_, offset, size]| (offset + size) as usize);
        Self {
            header: file[..100].to_vec(),
            frames: file[100..frames_end].to_vec(),
            end: vec![0; 6],
            entries,
            length: None,
            post_apply: contents.trailer.post_apply.map_or(0, Checksum::get),
        }
    }

    /// Pages 2 and 5 of 9, without checksums of the database.
    fn delta() -> Self {
        Self::of(ids(7, 7), PreApply::Untracked, 9, &[2, 5])
    }

    /// All 3 pages, with them.
    fn snapshot() -> Self {
        Self::of(ids(1, 7), PreApply::Nothing, 3, &[1, 2, 3])
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut parts = self.clone();
        change(&mut parts);
        parts
    }

    /// The file, with its right checksum as far as it can be known.
    fn file(&self) -> Vec<u8> {
        let mut index = Vec::new();
        for number in self.entries.iter().flatten() {
            varint(*number, &mut index);
        }
        index.push(0);
        let length = self.length.unwrap_or(index.len() as u64);
        let mut file = [&self.header[..], &self.frames, &self.end, &index].concat();
        file.extend(length.to_be_bytes());
        file.extend(self.post_apply.to_be_bytes());
        file.extend((1u64 << 63).to_be_bytes());
        if let Err(LtxError::FileChecksum { at, computed, .. }) = read(&file) {
            file.truncate(at as usize);
            file.extend(computed.get().to_be_bytes());
        }
        file
    }
}

/// What both ways of reading say.
fn refused(parts: &Parts) -> [LtxError; 2] {
    let file = parts.file();
    let whole = read(&file).expect_err("it is refused whole");
    [whole, read_by_ranges(&file).expect_err("it is refused by ranges")]
}

macro_rules! assert_refused {
    ($parts:expr, $($error:tt)+) => {
        for error in refused(&$parts) {
            assert!(matches!(error, $($error)+), "{error:?}");
        }
    };
}

#[test]
fn what_breaks_no_rule_is_read() {
    for parts in [
        Parts::delta(),
        Parts::snapshot(),
        Parts::of(ids(2, 2), PreApply::Untracked, 1, &[]),
    ] {
        read(&parts.file()).unwrap();
        read_by_ranges(&parts.file()).unwrap();
    }
}

#[test]
fn an_index_that_does_not_say_where_the_frames_are_is_refused() {
    let delta = Parts::delta();
    let size = delta.entries[1][2];
    // Another offset or size, a gap, an overlap, or two that make up for each other.
    assert_refused!(delta.with(|p| p.entries[0][1] += 1), LtxError::Index { .. });
    assert_refused!(delta.with(|p| p.entries[1][1] -= 1), LtxError::Index { .. });
    assert_refused!(delta.with(|p| p.entries[0][2] += 1), LtxError::Index { .. });
    assert_refused!(delta.with(|p| p.entries[1][2] += 1), LtxError::Index { .. });
    assert_refused!(delta.with(|p| p.entries[1][2] -= 1), LtxError::Index { .. });
    assert_refused!(
        delta.with(|p| p.entries[1] = [5, 100, size]),
        LtxError::Index { .. }
    );
    let moved = delta.with(|p| {
        p.entries[0][2] += 1;
        p.entries[1][1] += 1;
        p.entries[1][2] -= 1;
    });
    let [whole, ranges] = refused(&moved);
    assert!(matches!(whole, LtxError::Index { .. }), "{whole}");
    assert!(
        matches!(
            ranges,
            LtxError::OtherFrame { .. }
                | LtxError::Cut { .. }
                | LtxError::Compressed { .. }
                | LtxError::FrameSize { .. }
        ),
        "{ranges:?}"
    );
    // An entry too few or too many, or of another page.
    assert_refused!(delta.with(|p| p.entries.truncate(1)), LtxError::Index { .. });
    let more = delta.with(|p| {
        let [_, offset, size] = p.entries[1];
        p.entries.push([6, offset + size, size]);
    });
    assert_refused!(more, LtxError::Index { .. });
    let [whole, ranges] = refused(&delta.with(|p| p.entries[1][0] = 6));
    assert!(matches!(whole, LtxError::Index { .. }), "{whole}");
    assert!(matches!(ranges, LtxError::OtherFrame { .. }), "{ranges}");
    assert_refused!(
        delta.with(|p| p.entries[1][0] = 1 << 32 | 5),
        LtxError::Index { .. }
    );
    // Another length: by ranges it says where the index begins, so that something else is read.
    for length in [0, 1, 2, 8, 10, 11, 1 << 40] {
        let [whole, _] = refused(&delta.with(|p| p.length = Some(length)));
        assert!(matches!(whole, LtxError::Index { .. }), "{whole}");
    }
    // Nothing is between the frames and the index but six zero bytes.
    let [_, ranges] = refused(&delta.with(|p| p.end.extend([0, 0, 0])));
    assert!(matches!(ranges, LtxError::Index { .. }), "{ranges}");
}

/// An index alone, of frames that nobody looks at.
fn index_of(header: &Header, entries: &[[u64; 3]]) -> Result<PageIndex, LtxError> {
    let parts = Parts {
        header: vec![0; 100],
        frames: vec![
            0;
            entries
                .last()
                .map_or(0, |[_, offset, size]| (offset + size - 100) as usize)
        ],
        end: vec![0; 6],
        entries: entries.to_vec(),
        length: None,
        post_apply: 0,
    };
    let file = parts.file();
    let len = file.len() as u64;
    let tail = PageIndex::tail_len(len, &file)? as usize;
    Ok(PageIndex::parse_tail(header, len, &file[file.len() - tail..])?.0)
}

#[test]
fn an_index_holds_to_the_order_of_pages_and_the_sizes_of_frames() {
    let lock = u64::from(page(1 << 21).get()) + 1;
    let delta = header(512, 3_000_000, ids(2, 2), PreApply::Untracked);
    let index = index_of(&delta, &[[2, 100, 11], [5, 111, 1034]]).unwrap();
    assert_eq!(index.range(page(5)), Some(111..1145));
    assert_eq!(
        (index.len(), index.is_empty(), index.pages()),
        (2, false, &[page(2), page(5)][..])
    );
    for wrong in [[2, 100, 10], [2, 100, 1035]] {
        assert!(matches!(index_of(&delta, &[wrong]), Err(LtxError::Index { .. })));
    }
    let second = |no| index_of(&delta, &[[4, 100, 11], [no, 111, 11]]).unwrap_err();
    assert!(matches!(second(4), LtxError::Order { .. }));
    assert!(matches!(second(3), LtxError::Order { .. }));
    assert!(matches!(second(lock), LtxError::LockPage { .. }));
    assert!(matches!(second(3_000_001), LtxError::Beyond { .. }));
    assert!(matches!(second(u64::from(u32::MAX) + 1), LtxError::Index { .. }));
    let snapshot = header(512, 2, ids(1, 2), PreApply::Untracked);
    assert!(matches!(
        index_of(&snapshot, &[[2, 100, 11]]),
        Err(LtxError::Missing { .. })
    ));
    assert!(
        matches!(index_of(&snapshot, &[[1, 100, 11]]), Err(LtxError::Missing { page: p, .. }) if p == page(2))
    );
    assert!(index_of(&snapshot, &[[1, 100, 11], [2, 111, 11]]).is_ok());
}

#[test]
fn frames_that_may_not_come_are_refused() {
    let renumber = |parts: &mut Parts, nth: usize, no: u32| {
        let at = parts.entries[nth][1] as usize - 100;
        parts.frames[at..at + 4].copy_from_slice(&no.to_be_bytes());
        parts.entries[nth][0] = no.into();
    };
    let delta = Parts::of(ids(7, 7), PreApply::Untracked, 3_000_000, &[2, 5]);
    assert_refused!(delta.with(|p| renumber(p, 1, 2)), LtxError::Order { .. });
    assert_refused!(delta.with(|p| renumber(p, 1, 1)), LtxError::Order { .. });
    assert_refused!(delta.with(|p| renumber(p, 1, 3_000_001)), LtxError::Beyond { .. });
    assert_refused!(
        delta.with(|p| renumber(p, 1, (1 << 21) + 1)),
        LtxError::LockPage { .. }
    );
    let untracked = Parts::of(ids(1, 7), PreApply::Untracked, 3, &[1, 2, 3]);
    for snapshot in [untracked, Parts::snapshot()] {
        assert_refused!(snapshot.with(|p| renumber(p, 2, 4)), LtxError::Beyond { .. });
        assert_refused!(snapshot.with(|p| p.header[15] = 2), LtxError::Beyond { .. });
        // One is missing: in the middle, at the end.
        assert_refused!(snapshot.with(|p| { p.header[15] = 4; renumber(p, 2, 4); }), LtxError::Missing { page: p, .. } if p == page(3));
        assert_refused!(snapshot.with(|p| p.header[15] = 4), LtxError::Missing { page: p, .. } if p == page(4));
    }
}

#[test]
fn a_trailer_has_the_checksum_of_the_database_that_its_header_says() {
    let sum = Checksum::of_page(page(1), b"another");
    let tracked = Parts::of(ids(7, 7), PreApply::Of(sum), 9, &[2, 5]);
    assert_refused!(
        Parts::delta().with(|p| p.post_apply = sum.get()),
        LtxError::DatabaseChecksum { .. }
    );
    assert_refused!(
        Parts::delta().with(|p| p.post_apply = 2),
        LtxError::DatabaseChecksum { .. }
    );
    assert_refused!(
        tracked.with(|p| p.post_apply = 0),
        LtxError::DatabaseChecksum { .. }
    );
    assert_refused!(
        tracked.with(|p| p.post_apply &= !(1 << 63)),
        LtxError::DatabaseChecksum { .. }
    );
    // After the file there are no pages.
    let cut = Parts::of(ids(7, 7), PreApply::Of(Checksum::EMPTY), 0, &[]);
    read(&cut.file()).unwrap();
    assert_refused!(
        cut.with(|p| p.post_apply = sum.get()),
        LtxError::DatabaseChecksum { .. }
    );
    // That of a snapshot is known, if its pages are.
    let other = Parts::snapshot().with(|p| p.post_apply ^= 1).file();
    assert!(matches!(read(&other), Err(LtxError::DatabaseChecksum { .. })));
}

#[test]
fn an_empty_database_without_checksums_is_read() {
    let parts = Parts::of(ids(7, 7), PreApply::Untracked, 1, &[]);
    let (content, _) = read(&parts.with(|p| p.header[15] = 0).file()).unwrap();
    assert_eq!(content.header.commit.0, 0);
}

#[test]
fn a_frame_holds_exactly_the_page_that_is_asked_for() {
    let header = header(512, 9, ids(7, 7), PreApply::Untracked);
    let frame = |bytes: &[u8]| {
        let block = block::compress(bytes);
        [
            &[0, 0, 0, 3, 0, 1][..],
            &(block.len() as u32).to_be_bytes(),
            &block,
        ]
        .concat()
    };
    let decode = |no, frame: &[u8]| decode_frame(&header, page(no), 500..500 + frame.len() as u64, frame);
    let good = frame(&[7; 512]);
    assert_eq!(decode(3, &good).unwrap(), [7; 512]);
    assert!(matches!(
        decode(3, &frame(&[7; 511])),
        Err(LtxError::PageLength {
            at: 500,
            got: 511,
            ..
        })
    ));
    assert!(matches!(
        decode(3, &frame(&[7; 513])),
        Err(LtxError::Compressed { at: 500, .. })
    ));
    // Another page, the end of the frames, more than a frame, less than one, or not as much as the index says.
    assert!(matches!(
        decode(4, &good),
        Err(LtxError::OtherFrame { at: 500, .. })
    ));
    assert!(matches!(
        decode(3, &[0; 6]),
        Err(LtxError::OtherFrame { at: 500, .. })
    ));
    assert!(matches!(
        decode(3, &[&good[..], &[0]].concat()),
        Err(LtxError::OtherFrame { .. })
    ));
    assert!(matches!(
        decode(3, &good[..good.len() - 1]),
        Err(LtxError::Cut { .. })
    ));
    assert!(matches!(
        decode_frame(&header, page(3), 500..501, &good),
        Err(LtxError::OtherFrame { .. })
    ));
    assert!(matches!(
        decode_frame(&header, page(3), u64::MAX..u64::MAX, &good),
        Err(LtxError::OtherFrame { .. })
    ));
}
