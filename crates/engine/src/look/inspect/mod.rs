//! What is here of a database, page by page, and which table or index each page belongs to.
//!
//! Computed from the pages that are here alone: nothing is fetched, nothing is locked, nothing is changed. Pages are read
//! as they are, damaged ones included, and each at most once, so that any bytes lead to an answer.

mod pages;
mod schema;
mod view;
mod walk;

use partial_sync_core::PageCount;

use self::view::NO_OWNER;
#[cfg(feature = "fuzzing")]
pub(crate) use self::view::ReadPage;
pub use self::view::{Owner, OwnerKind, PageAt, PageMapView, PageRole, PageView};
use crate::{
    database::Database,
    error::{Error, Result},
    open::info::Info,
};

/// A database larger than this (128 GiB of 4 KiB pages) is not drawn page by page.
const MOST_PAGES: u32 = 1 << 25;
impl Database {
    /// Says for each page whether it is present and, where the present pages tell, to which table or index it belongs.
    /// Fetches nothing.
    pub fn page_map(&self) -> Result<PageMapView> {
        let open = self.open_replica("inspecting the page map")?;
        let replica = &open.replica;
        let total = PageCount(replica.counts().total);
        if total.0 > MOST_PAGES {
            return Err(Error::UnusableDatabase {
                why: format!("its {total} pages are more than can be shown one by one ({MOST_PAGES})"),
            });
        }
        let (present, dirty) = (replica.map().present(), replica.map().dirty());
        let mut pages = vec![
            PageView {
                at: PageAt::Absent,
                role: PageRole::Unknown,
                owner: NO_OWNER
            };
            total.0 as usize
        ];
        for (ids, at) in [(&present, PageAt::Present), (&dirty, PageAt::Dirty)] {
            for id in ids.iter() {
                if let Some(page) = pages.get_mut(id as usize) {
                    page.at = at;
                }
            }
        }
        let mut source = pages::Pages::open(open)?;
        let owners = walk::attribute(&mut source, replica.page_size(), &mut pages);
        let revision = replica.base().revision.as_str().to_owned();
        Ok(PageMapView {
            page_size: replica.page_size().bytes(),
            revision,
            owners,
            pages,
        })
    }

    /// The remote that the replica at `path` belongs to, read from its info file; `None` when no replica is there. The
    /// replica need not be open and may be open elsewhere.
    pub fn remote_of(path: impl AsRef<std::path::Path>) -> Result<Option<String>> {
        let info = Info::load(&partial_sync_vfs::OsStorage, path.as_ref())?;
        Ok(info.filter(|info| info.ready).map(|info| info.remote_url))
    }
}

/// Walks pages from elsewhere.
#[cfg(feature = "fuzzing")]
pub(crate) fn walk_pages(
    source: &mut dyn ReadPage,
    page_size: partial_sync_core::PageSize,
    count: usize,
    is_absent: impl Fn(usize) -> bool,
) -> (Vec<Owner>, Vec<PageView>) {
    let at = |n| {
        if is_absent(n) {
            PageAt::Absent
        } else {
            PageAt::Present
        }
    };
    let view = |n| PageView {
        at: at(n),
        role: PageRole::Unknown,
        owner: NO_OWNER,
    };
    let mut pages: Vec<_> = (0..count).map(view).collect();
    let owners = walk::attribute(source, page_size, &mut pages);
    (owners, pages)
}
