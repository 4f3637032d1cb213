//! Large databases that take little of the disk: the remote's, and what a replica says that it has of it.

use std::path::{Path, PathBuf};

use partial_sync_core::{
    PageCount, PageSize,
    chunk::{Bits, CHUNK_PAGES, CHUNK_WORDS, Chunk},
    saved_map,
};

use crate::result::Result;

/// Rows of the table, four of which fill a page.
pub(super) const ROWS: i64 = 6_000;
/// The pages before this one, but for the first, are absent at first: the table is in them.
pub(super) const CONTENT: u32 = 2_048;

/// Which of the pages after the table are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    All,
    EverySecond,
}

impl Shape {
    pub(super) const ALL: [Self; 2] = [Self::All, Self::EverySecond];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "contiguous",
            Self::EverySecond => "every second",
        }
    }

    /// A name for files.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::EverySecond => "second",
        }
    }

    fn pattern(self) -> u64 {
        match self {
            Self::All => u64::MAX,
            Self::EverySecond => 0x5555_5555_5555_5555,
        }
    }
}

/// Makes a database of so many pages, of which those after the table are zeros that no part of SQLite's asks for.
pub(super) fn make_remote(path: &Path, pages: u32) -> Result<()> {
    let conn = rusqlite::Connection::open(path)?;
    conn.execute_batch(&format!(
        "PRAGMA page_size = 4096;
         CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {ROWS})
         INSERT INTO t SELECT x, printf('%0900d', x) FROM c"
    ))?;
    conn.close().map_err(|(_, error)| error)?;
    let mut bytes = std::fs::read(path)?;
    let used = bytes.len() / 4096;
    assert!(
        (1500..CONTENT as usize).contains(&used),
        "the table takes {used} pages"
    );
    // How many pages it has.
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    std::fs::write(path, bytes)?;
    lengthen(path, pages)
}

fn lengthen(path: &Path, pages: u32) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let wanted = u64::from(pages) * 4096;
    if file.metadata()?.len() < wanted {
        file.set_len(wanted)?;
    }
    Ok(())
}

/// Makes a replica of so many pages that is closed, and of which page 1 is here, one that has pages after the table too.
pub(super) fn have(path: &Path, pages: u32, shape: Shape) -> Result<()> {
    lengthen(path, pages)?;
    let map = PathBuf::from(format!("{}-pages", path.display()));
    let (bytes, _) = saved_map::whole(&chunks(pages, shape), PageSize::DEFAULT, PageCount(pages));
    Ok(std::fs::write(map, bytes)?)
}

fn chunks(pages: u32, shape: Shape) -> Vec<Chunk> {
    let mut chunks = vec![];
    for first in 0..pages.div_ceil(CHUNK_PAGES) {
        let mut words = [shape.pattern(); CHUNK_WORDS];
        for (word, id) in words.iter_mut().zip((first * CHUNK_PAGES..).step_by(64)) {
            if id < CONTENT {
                *word = u64::from(id == 0);
            } else if id + 64 > pages {
                *word &= !(u64::MAX.checked_shl(pages.saturating_sub(id)).unwrap_or(0));
            }
        }
        let chunk = Chunk {
            first,
            count: 1,
            present: Bits::of(words),
            dirty: Bits::Empty,
        };
        chunk.append_to(&mut chunks);
    }
    chunks
}

/// Bytes of the disk that the files of a folder take.
pub(super) fn allocated(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += std::os::unix::fs::MetadataExt::blocks(&entry?.metadata()?) * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_names_the_first_page_and_those_after_the_table_up_to_the_end() {
        for pages in [2_500, 8_192, 9_001] {
            for (shape, step) in [(Shape::All, 1), (Shape::EverySecond, 2)] {
                let (bytes, _) = saved_map::whole(&chunks(pages, shape), PageSize::DEFAULT, PageCount(pages));
                let saved = saved_map::SavedPageMap::decode(&bytes, PageCount(pages)).unwrap();
                assert!(!saved.beyond);
                let wanted: Vec<u32> = std::iter::once(0).chain((CONTENT..pages).step_by(step)).collect();
                assert_eq!(saved.map.present().iter().collect::<Vec<_>>(), wanted);
            }
        }
    }
}
