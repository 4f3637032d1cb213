//! The one door through which a remote's page becomes a page of a replica.
//!
//! Before such a page is stored, given to a reader or compared with a local one it goes through [`admit`], so that all pages of
//! a replica have one length, its page 1 says WAL mode, and the page of SQLite's locks is never there.

use std::borrow::Cow;

use crate::{
    header::DatabaseHeader,
    types::{PageNo, PageSize},
};

/// A page of another length than the database's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {page} came with {got} bytes where the database has {expected} bytes a page")]
pub struct WrongLength {
    /// The page.
    pub page: PageNo,
    /// Its length.
    pub got: usize,
    /// What it should be.
    pub expected: PageSize,
}

/// The page of a replica that a remote's page becomes. `None`: there is nothing to store, because SQLite takes its locks there.
///
/// ```
/// use partial_sync_core::{PageNo, PageSize, admit::admit};
/// let page_1 = admit(PageNo::FIRST, &[0; 4096], PageSize::DEFAULT)?.unwrap();
/// assert_eq!(page_1[18..20], [2, 2]);
/// assert!(admit(PageNo::lock_byte(PageSize::DEFAULT), &[0; 4096], PageSize::DEFAULT)?.is_none());
/// # Ok::<_, partial_sync_core::admit::WrongLength>(())
/// ```
pub fn admit(page: PageNo, data: &[u8], size: PageSize) -> Result<Option<Cow<'_, [u8]>>, WrongLength> {
    if data.len() != size.as_usize() {
        return Err(WrongLength {
            page,
            got: data.len(),
            expected: size,
        });
    }
    Ok(match page {
        PageNo::FIRST => {
            let mut page_1 = data.to_vec();
            DatabaseHeader::set_wal(&mut page_1);
            Some(page_1.into())
        }
        _ if page.is_lock_byte_page(size) => None,
        _ => Some(data.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_admitted_has_one_length_says_wal_mode_and_is_not_the_page_of_locks() {
        for bytes in [512, 1024, 4096, 65536] {
            let size = PageSize::new(bytes).unwrap();
            let (first, lock_byte) = (PageNo::FIRST, PageNo::lock_byte(size));
            let data: Vec<u8> = (0..bytes).map(|n| n as u8 | 4).collect();
            let page_1 = admit(first, &data, size).unwrap().unwrap();
            let changed: Vec<usize> = (0..data.len()).filter(|&at| page_1[at] != data[at]).collect();
            assert_eq!((&changed[..], &page_1[18..20]), (&[18, 19][..], &[2, 2][..]));
            assert_eq!(admit(lock_byte, &data, size), Ok(None));
            for page in [PageNo::new(2).unwrap(), lock_byte.next().unwrap()] {
                assert_eq!(admit(page, &data, size).unwrap().unwrap(), data);
            }
            for page in [first, lock_byte, lock_byte.next().unwrap()] {
                for got in [0, data.len() - 1, data.len() + 1] {
                    let other = vec![0; got];
                    let expected = size;
                    assert_eq!(
                        admit(page, &other, size),
                        Err(WrongLength { page, got, expected })
                    );
                }
            }
        }
    }
}
