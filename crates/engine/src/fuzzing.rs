//! What the fuzz targets need of the inside. Only with the feature `fuzzing`, and never a part of the API.

use std::path::Path;

use partial_sync_core::{PageNo, PageSize};
use partial_sync_vfs::{MemoryStorage, Replica, write_whole};

pub use crate::look::inspect::{Owner, PageAt, PageView};
use crate::{
    capture,
    change::tokens::{self, TokenKind},
    look::inspect::{self, ReadPage},
    open::info::Info,
};

/// A token of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Whether it is a parameter.
    pub is_parameter: bool,
}

/// The tokens of a statement.
pub fn tokens(sql: &str) -> Vec<Token> {
    tokens::tokens(sql)
        .iter()
        .map(|token| {
            let _ = token.name();
            Token {
                start: token.start,
                end: token.end(),
                is_parameter: token.kind == TokenKind::Parameter,
            }
        })
        .collect()
}

/// Everything that is decided by looking at a text.
pub fn classify(sql: &str) {
    let _ = capture::classify::refuse_vacuum(sql);
}

/// Reads an info file; one that is good is the same after it was written and read again.
pub fn info_file(bytes: &[u8]) {
    let path = Path::new("/fuzz/app.db");
    let storage = MemoryStorage::default();
    write_whole(&storage, &Replica::info_path(path), bytes).expect("memory");
    let Ok(Some(info)) = Info::load(&storage, path) else {
        return;
    };
    let _ = info.base(path);
    info.save(&storage, path).expect("memory");
    let again = Info::load(&storage, path)
        .expect("written here")
        .expect("written here");
    assert_eq!(format!("{again:?}"), format!("{info:?}"));
}

struct FuzzedPages<'p>(&'p [Vec<u8>]);

impl ReadPage for FuzzedPages<'_> {
    fn read(&mut self, page: PageNo) -> Option<Vec<u8>> {
        self.0.get(page.get() as usize - 1).cloned()
    }
}

/// Walks a database of these pages, of which some (by index) are absent.
pub fn walk(
    pages: &[Vec<u8>],
    page_size: PageSize,
    is_absent: impl Fn(usize) -> bool,
) -> (Vec<Owner>, Vec<PageView>) {
    inspect::walk_pages(&mut FuzzedPages(pages), page_size, pages.len(), is_absent)
}
