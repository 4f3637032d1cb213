//! Files for tests: what one holds, as plain values, and the two ways through the crate.

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_ltx::{
    Checksum, Contents, Header, LtxError, PageIndex, PreApply, Reader, TxId, TxRange, Wal, Writer,
    decode_frame,
};
use proptest::prelude::*;

/// What a file holds.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) header: Header,
    pub(crate) pages: Vec<(PageNo, Vec<u8>)>,
    pub(crate) post_apply: Option<Checksum>,
}

pub(crate) fn page(no: u32) -> PageNo {
    PageNo::new(no).unwrap()
}

pub(crate) fn ids(min: u64, max: u64) -> TxRange {
    TxRange::new(TxId::new(min).unwrap(), TxId::new(max).unwrap()).unwrap()
}

pub(crate) fn header(page_size: u32, commit: u32, ids: TxRange, pre_apply: PreApply) -> Header {
    Header {
        page_size: PageSize::new(page_size).unwrap(),
        commit: PageCount(commit),
        ids,
        timestamp: 1_700_000_000_000,
        pre_apply,
        wal: None,
        node: 0,
    }
}

/// The checksum of a database of these bytes.
pub(crate) fn checksum(database: &[u8], size: PageSize) -> Checksum {
    pages_of(database, size).fold(Checksum::EMPTY, |sum, (page, bytes)| {
        sum.toggled(Checksum::of_page(page, bytes))
    })
}

/// The pages of a database, without that of the locks.
pub(crate) fn pages_of(database: &[u8], size: PageSize) -> impl Iterator<Item = (PageNo, &[u8])> {
    (1..)
        .map(page)
        .zip(database.chunks(size.as_usize()))
        .filter(move |(page, _)| !page.is_lock_byte_page(size))
}

impl Content {
    pub(crate) fn write(&self) -> Result<(Vec<u8>, Contents), LtxError> {
        let mut writer = Writer::new(Vec::new(), self.header)?;
        for (page, bytes) in &self.pages {
            writer.page(*page, bytes)?;
        }
        writer.finish(self.post_apply)
    }

    pub(crate) fn file(&self) -> Vec<u8> {
        self.write().unwrap().0
    }
}

/// What a file holds, read whole.
pub(crate) fn read(file: &[u8]) -> Result<(Content, Contents), LtxError> {
    let mut reader = Reader::new(file)?;
    let mut pages = Vec::new();
    while let Some((page, bytes)) = reader.next_page()? {
        pages.push((page, bytes.to_vec()));
    }
    let contents = reader.finish()?;
    let content = Content {
        header: contents.header,
        pages,
        post_apply: contents.trailer.post_apply,
    };
    Ok((content, contents))
}

/// What a file holds, read as one does that has only ranges of it: the header, the tail, and each frame alone.
pub(crate) fn read_by_ranges(file: &[u8]) -> Result<Content, LtxError> {
    let len = file.len() as u64;
    let header = Header::parse(file)?;
    let needed = PageIndex::tail_len(len, &file[file.len().saturating_sub(24)..])?;
    let (index, trailer) = PageIndex::parse_tail(&header, len, &file[file.len() - needed as usize..])?;
    let mut pages = Vec::new();
    for (page, range) in index.iter() {
        let frame = &file[range.start as usize..range.end as usize];
        pages.push((page, decode_frame(&header, page, range, frame)?));
    }
    Ok(Content {
        header,
        pages,
        post_apply: trailer.post_apply,
    })
}

pub(crate) fn assert_same(a: &Content, b: &Content) {
    assert_eq!((a.header, a.post_apply), (b.header, b.post_apply));
    assert!(a.pages == b.pages, "other pages");
}

/// A page that compresses well, badly, or somewhat.
fn any_page(size: usize) -> impl Strategy<Value = Vec<u8>> {
    (any::<u64>(), 0..4).prop_map(move |(seed, kind)| {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        match kind {
            0 => vec![seed as u8; size],
            1 => (0..size).map(|_| random()).collect(),
            2 => (0..size).map(|n| if n % 16 < 3 { random() } else { 0 }).collect(),
            _ => (0..size)
                .map(|n| if n < size / 3 { random() } else { n as u8 })
                .collect(),
        }
    })
}

fn any_wal() -> impl Strategy<Value = Option<Wal>> {
    prop::option::of(
        (1..=i64::MAX as u64, 0..=i64::MAX as u64, any::<[u32; 2]>()).prop_map(|(offset, size, salts)| Wal {
            offset,
            size,
            salts,
        }),
    )
}

fn any_checksum() -> impl Strategy<Value = Checksum> {
    any::<u64>().prop_map(|n| Checksum::of_stored(n | 1 << 63).unwrap())
}

/// Any content that the format allows.
pub(crate) fn any_content() -> impl Strategy<Value = Content> {
    let about = (9..=16u32, any_wal(), any::<(i64, u64)>(), any::<bool>());
    (about, any::<(bool, bool)>(), any_checksum(), any_checksum()).prop_flat_map(
        |((power, wal, (timestamp, node), snapshot), (tracked, at_lock), before, after)| {
            let size = 1u32 << power;
            let lock = (1 << 30) / size + 1;
            // Some pages, small numbers or those around the page of the locks; all of a small database in a snapshot.
            let first = if at_lock && !snapshot { lock - 3 } else { 1 };
            let numbers = prop::collection::btree_set(first..first + 8, 0..6);
            (numbers, 1..7u32, 1..u64::MAX, 1..u64::MAX).prop_flat_map(move |(numbers, many, a, b)| {
                let commit = match snapshot {
                    true => many,
                    false => numbers.last().map_or(many, |last| last + many - 1),
                };
                let numbers: Vec<u32> = match snapshot {
                    true => (1..=many).collect(),
                    false => numbers.into_iter().filter(|no| *no != lock).collect(),
                };
                let (min, max) = match snapshot {
                    true => (1, a),
                    false => (a.min(b).max(2), a.max(b).max(2)),
                };
                let pre_apply = match (tracked, snapshot) {
                    (false, _) => PreApply::Untracked,
                    (true, true) => PreApply::Nothing,
                    (true, false) => PreApply::Of(before),
                };
                let header = Header {
                    timestamp,
                    wal,
                    node,
                    ..header(size, commit, ids(min, max), pre_apply)
                };
                let pages: Vec<_> = numbers
                    .into_iter()
                    .map(|no| any_page(size as usize).prop_map(move |bytes| (page(no), bytes)))
                    .collect();
                pages.prop_map(move |pages| {
                    let rolled = pages.iter().fold(Checksum::EMPTY, |sum, (page, bytes)| {
                        sum.toggled(Checksum::of_page(*page, bytes))
                    });
                    let post_apply = match header.pre_apply {
                        PreApply::Untracked => None,
                        PreApply::Nothing => Some(rolled),
                        PreApply::Of(_) => Some(after),
                    };
                    Content {
                        header,
                        pages,
                        post_apply,
                    }
                })
            })
        },
    )
}
