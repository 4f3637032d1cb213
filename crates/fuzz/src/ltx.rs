//! Files of a bucket, which anybody may have written.

use partial_sync_core::PageNo;
use partial_sync_ltx::{Contents, Header, LtxError, PageIndex, Reader, Writer, decode_frame};

/// A file that is accepted is accepted again after it was written, says the same, and its pages are found by its index. The checksum
/// of the file is made right, or nothing would get past it.
pub(crate) fn ltx_file(data: &[u8]) {
    let mut file = data.to_vec();
    let mut read = whole(&file);
    if let Err(LtxError::FileChecksum { at, computed, .. }) = &read {
        let at = *at as usize;
        file[at..at + 8].copy_from_slice(&computed.get().to_be_bytes());
        read = whole(&file);
    }
    let by_ranges = by_ranges(&file);
    let (contents, pages) = match read {
        Ok(read) => read,
        Err(error) => {
            // In parts, all is checked but the checksum of the file, and that which a snapshot has of its pages.
            assert!(
                by_ranges.is_err() || matches!(error, LtxError::DatabaseChecksum { .. }),
                "{error}"
            );
            return;
        }
    };
    let (index, found) = by_ranges.expect("what is whole can be read in parts");
    assert!(index == contents.index && found == pages);
    assert_eq!(contents.len, file.len() as u64);
    assert!(
        contents
            .header
            .check_continues(Some(&contents.position()))
            .is_err()
    );

    let Ok(mut writer) = Writer::new(Vec::new(), contents.header) else {
        // The one header that is read and not written.
        assert!(contents.header.commit.0 == 0 && !contents.header.is_tracked());
        return;
    };
    for (page, bytes) in &pages {
        writer.page(*page, bytes).expect("it was in a file");
    }
    let (file, written) = writer.finish(contents.trailer.post_apply).expect("it was a file");
    let (again, same) = whole(&file).expect("it was written here");
    assert!(again == written && same == pages);
    assert_eq!(
        (again.header, again.trailer.post_apply),
        (contents.header, contents.trailer.post_apply)
    );
}

type Pages = Vec<(PageNo, Vec<u8>)>;

fn whole(file: &[u8]) -> Result<(Contents, Pages), LtxError> {
    let mut reader = Reader::new(file)?;
    let mut pages = Vec::new();
    while let Some((page, bytes)) = reader.next_page()? {
        pages.push((page, bytes.to_vec()));
    }
    Ok((reader.finish()?, pages))
}

fn by_ranges(file: &[u8]) -> Result<(PageIndex, Pages), LtxError> {
    let len = file.len() as u64;
    let header = Header::parse(file)?;
    let needed = PageIndex::tail_len(len, file)?;
    let tail = &file[file.len() - needed as usize..];
    let (index, _) = PageIndex::parse_tail(&header, len, tail)?;
    let mut pages = Vec::new();
    for (page, range) in index.iter() {
        let frame = &file[range.start as usize..range.end as usize];
        pages.push((page, decode_frame(&header, page, range, frame)?));
    }
    Ok((index, pages))
}
