//! What is written is read back, in both ways of reading.

use std::io::{self, Read};

use partial_sync_core::PageSize;
use partial_sync_ltx::{Checksum, PreApply, Reader};
use proptest::prelude::*;

use crate::support::{
    Content, any_content, assert_same, checksum, header, ids, page, pages_of, read, read_by_ranges,
};

/// Gives few bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = to.len().min(self.1);
        self.0.read(&mut to[..most])
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_whole_and_by_ranges(content in any_content(), trickle in 1..2000usize) {
        let (file, written) = content.write().unwrap();
        prop_assert_eq!(written.len, file.len() as u64);
        let (back, read_contents) = read(&file).unwrap();
        assert_same(&back, &content);
        prop_assert_eq!(&read_contents, &written);
        assert_same(&read_by_ranges(&file).unwrap(), &content);
        // A reader that takes no page checks them all the same.
        prop_assert_eq!(&Reader::new(Trickle(&file, trickle)).unwrap().finish().unwrap(), &written);
        // And what was read is written as it was.
        prop_assert_eq!(back.file(), file);
    }
}

#[test]
fn growing_and_shrinking_files_take_a_database_from_state_to_state_with_its_checksum() {
    for power in 9..=16 {
        let size = PageSize::new(1 << power).unwrap();
        let database = |pages: u8, salt: u8| -> Vec<u8> {
            (0..pages)
                .flat_map(|no| vec![(no / 2) ^ salt; size.as_usize()])
                .collect()
        };
        // It grows, shrinks, shrinks to nothing, and grows again.
        let states = [
            database(3, 0),
            database(7, 0),
            database(7, 1),
            database(2, 1),
            Vec::new(),
            database(4, 2),
        ];
        let (mut now, mut sum, mut position) = (Vec::new(), Checksum::EMPTY, None);
        for (id, state) in (1..).zip(&states) {
            let commit = (state.len() / size.as_usize()) as u32;
            let pre_apply = if id == 1 {
                PreApply::Nothing
            } else {
                PreApply::Of(sum)
            };
            let changed = pages_of(state, size).filter(|(page, bytes)| {
                let from = page.offset(size) as usize;
                now.get(from..from + bytes.len()) != Some(*bytes)
            });
            let content = Content {
                header: header(size.bytes(), commit, ids(id, id), pre_apply),
                pages: changed.map(|(page, bytes)| (page, bytes.to_vec())).collect(),
                post_apply: Some(checksum(state, size)),
            };
            let (read, contents) = read(&content.file()).unwrap();
            read.header.check_continues(position.as_ref()).unwrap();
            // Applied page by page, the checksum is kept up with what each page was before.
            for (page, bytes) in &read.pages {
                let at = page.offset(size) as usize;
                if let Some(old) = now.get(at..at + bytes.len()) {
                    sum = sum.toggled(Checksum::of_page(*page, old));
                }
                sum = sum.toggled(Checksum::of_page(*page, bytes));
                now.resize(now.len().max(at + bytes.len()), 0);
                now[at..at + bytes.len()].copy_from_slice(bytes);
            }
            for (page, bytes) in pages_of(&now, size).skip(commit as usize) {
                sum = sum.toggled(Checksum::of_page(page, bytes));
            }
            now.truncate(state.len());
            assert!(now == *state, "{size:?}, transaction {id}");
            assert_eq!(contents.trailer.post_apply, Some(sum));
            position = Some(contents.position());
        }
    }
}

#[test]
fn a_file_without_pages_is_one() {
    let empty = Content {
        header: header(512, 0, ids(1, 1), PreApply::Nothing),
        pages: Vec::new(),
        post_apply: Some(Checksum::EMPTY),
    };
    // A transaction that changes nothing, as a fence is.
    let nothing = Content {
        header: header(512, 9, ids(5, 5), PreApply::Untracked),
        pages: Vec::new(),
        post_apply: None,
    };
    for content in [empty, nothing] {
        let file = content.file();
        assert_eq!(file.len(), 100 + 6 + 1 + 8 + 16);
        assert_same(&read(&file).unwrap().0, &content);
        assert_same(&read_by_ranges(&file).unwrap(), &content);
    }
}

#[test]
fn the_largest_page_number_is_written_and_read() {
    let content = Content {
        header: header(512, 0xffff_fffe, ids(2, u64::MAX), PreApply::Untracked),
        pages: vec![(page(0xffff_fffe), vec![1; 512])],
        post_apply: None,
    };
    let file = content.file();
    assert_same(&read(&file).unwrap().0, &content);
    assert_same(&read_by_ranges(&file).unwrap(), &content);
}
