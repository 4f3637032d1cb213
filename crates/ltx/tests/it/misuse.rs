//! What a writer is asked to write that is not a file is refused.

use std::io::{self, Write};

use partial_sync_core::PageCount;
use partial_sync_ltx::{Checksum, LtxError, PreApply, Reader, Wal, Writer};

use crate::support::{Content, assert_same, header, ids, page, read};

fn writer(commit: u32, min: u64, pre_apply: PreApply) -> Writer<Vec<u8>> {
    Writer::new(Vec::new(), header(512, commit, ids(min, 9), pre_apply)).unwrap()
}

#[test]
fn a_header_that_contradicts_itself_is_not_written() {
    let good = header(512, 3, ids(2, 2), PreApply::Untracked);
    let refused = |header| Writer::new(Vec::new(), header).err().unwrap();
    let sum = PreApply::Of(Checksum::EMPTY);
    assert!(matches!(
        refused(header(512, 3, ids(1, 2), sum)),
        LtxError::DatabaseChecksum { .. }
    ));
    assert!(matches!(
        refused(header(512, 3, ids(2, 2), PreApply::Nothing)),
        LtxError::DatabaseChecksum { .. }
    ));
    assert!(matches!(
        refused(header(512, u32::MAX, ids(2, 2), sum)),
        LtxError::Commit(PageCount(u32::MAX))
    ));
    // Other programs can write, and merge with others, no empty database without checksums.
    assert!(matches!(
        refused(header(512, 0, ids(2, 2), PreApply::Untracked)),
        LtxError::Commit(PageCount(0))
    ));
    for (offset, size) in [(0, 1), (1 << 63, 1), (1, 1 << 63)] {
        let wal = Some(Wal {
            offset,
            size,
            salts: [0; 2],
        });
        assert!(matches!(
            refused(partial_sync_ltx::Header { wal, ..good }),
            LtxError::Wal { .. }
        ));
    }
}

#[test]
fn a_page_that_may_not_come_is_refused_and_the_file_continues_without_it() {
    let mut writer = writer(3_000_000, 2, PreApply::Untracked);
    writer.page(page(5), &[1; 512]).unwrap();
    assert!(matches!(
        writer.page(page(6), &[1; 511]),
        Err(LtxError::PageLength { got: 511, .. })
    ));
    assert!(matches!(
        writer.page(page(5), &[1; 512]),
        Err(LtxError::Order { .. })
    ));
    assert!(matches!(
        writer.page(page(4), &[1; 512]),
        Err(LtxError::Order { .. })
    ));
    assert!(matches!(
        writer.page(page(3_000_001), &[1; 512]),
        Err(LtxError::Beyond { .. })
    ));
    assert!(matches!(
        writer.page(page((1 << 21) + 1), &[1; 512]),
        Err(LtxError::LockPage { .. })
    ));
    writer.page(page(7), &[2; 512]).unwrap();
    let (file, _) = writer.finish(None).unwrap();
    let expected = Content {
        header: header(512, 3_000_000, ids(2, 9), PreApply::Untracked),
        pages: vec![(page(5), vec![1; 512]), (page(7), vec![2; 512])],
        post_apply: None,
    };
    assert_same(&read(&file).unwrap().0, &expected);
}

#[test]
fn a_snapshot_that_lacks_a_page_is_not_finished() {
    let mut snapshot = writer(2, 1, PreApply::Untracked);
    assert!(
        matches!(snapshot.page(page(2), &[1; 512]), Err(LtxError::Missing { page: p, .. }) if p == page(1))
    );
    snapshot.page(page(1), &[1; 512]).unwrap();
    assert!(matches!(snapshot.finish(None), Err(LtxError::Missing { page: p, .. }) if p == page(2)));
}

#[test]
fn the_checksum_after_a_file_is_one_that_it_can_have() {
    let sum = Checksum::of_page(page(1), &[1; 512]);
    let refused = |writer: Writer<Vec<u8>>, given| {
        matches!(writer.finish(given), Err(LtxError::DatabaseChecksum { .. }))
    };
    assert!(refused(writer(1, 2, PreApply::Untracked), Some(sum)));
    assert!(refused(writer(1, 2, PreApply::Of(sum)), None));
    assert!(refused(writer(0, 2, PreApply::Of(sum)), Some(sum)));
    assert!(
        writer(0, 2, PreApply::Of(sum))
            .finish(Some(Checksum::EMPTY))
            .is_ok()
    );
    let snapshot = || {
        let mut writer = writer(1, 1, PreApply::Nothing);
        writer.page(page(1), &[1; 512]).unwrap();
        writer
    };
    assert!(refused(snapshot(), Some(Checksum::EMPTY)));
    let (_, contents) = snapshot().finish(None).unwrap();
    assert_eq!(contents.trailer.post_apply, Some(sum));
    assert_eq!(snapshot().finish(Some(sum)).unwrap().1, contents);
}

/// Takes so many bytes, then nothing.
#[derive(Debug)]
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        match n {
            0 => Err(io::ErrorKind::StorageFull.into()),
            n => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_could_not_write_stays_failed() {
    let header = header(512, 9, ids(2, 2), PreApply::Untracked);
    let mut writer = Writer::new(Full(110), header).unwrap();
    assert!(matches!(
        writer.page(page(1), &[1; 512]),
        Err(LtxError::Write { at: 100, .. })
    ));
    assert!(matches!(writer.page(page(2), &[1; 512]), Err(LtxError::Failed)));
    assert!(matches!(writer.finish(None), Err(LtxError::Failed)));
    assert!(matches!(
        Writer::new(Full(99), header),
        Err(LtxError::Write { at: 0, .. })
    ));
    assert!(matches!(
        Writer::new(Full(120), header).unwrap().finish(None),
        Err(LtxError::Write { .. })
    ));
}

/// Cannot be read, after some bytes.
struct Broken<'a>(&'a [u8]);

impl io::Read for Broken<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.0.read(to)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn an_error_of_what_is_read_is_told_with_its_place() {
    let (file, _) = writer(9, 2, PreApply::Untracked).finish(None).unwrap();
    let error = Reader::new(Broken(&file)).unwrap().finish().unwrap_err();
    assert!(
        matches!(&error, LtxError::Read { at, .. } if *at == file.len() as u64),
        "{error}"
    );
    assert!(matches!(
        Reader::new(Broken(&file[..50])),
        Err(LtxError::Read { at: 50, .. })
    ));
}
