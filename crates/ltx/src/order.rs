//! Which pages a file may hold, and in which order; for frames that are read, frames that are written, and the index alike.

use partial_sync_core::{PageCount, PageNo, PageSize};

use crate::{error::LtxError, header::Header};

/// The pages so far.
#[derive(Debug)]
pub(crate) struct Order {
    page_size: PageSize,
    commit: PageCount,
    /// Every page has to come.
    whole: bool,
    last: Option<PageNo>,
}

impl Order {
    pub(crate) fn of(header: &Header) -> Self {
        Self {
            page_size: header.page_size,
            commit: header.commit,
            whole: header.ids.is_snapshot(),
            last: None,
        }
    }

    /// Whether the next page may be `page`; `at` is where it is in the file.
    pub(crate) fn accept(&mut self, page: PageNo, at: u64) -> Result<(), LtxError> {
        if let Some(before) = self.last
            && page <= before
        {
            return Err(LtxError::Order { at, page, before });
        }
        let commit = self.commit;
        if !commit.contains(page) {
            return Err(LtxError::Beyond { at, page, commit });
        }
        if page.is_lock_byte_page(self.page_size) {
            return Err(LtxError::LockPage { at, page });
        }
        match self.due() {
            Some(due) if due != page => return Err(LtxError::Missing { at, page: due }),
            _ => self.last = Some(page),
        }
        Ok(())
    }

    /// Whether no further page has to come.
    pub(crate) fn end(&self, at: u64) -> Result<(), LtxError> {
        match self.due() {
            Some(page) => Err(LtxError::Missing { at, page }),
            None => Ok(()),
        }
    }

    /// The page that has to come next, if one has to.
    fn due(&self) -> Option<PageNo> {
        if !self.whole {
            return None;
        }
        let mut next = self.last.map_or(Some(PageNo::FIRST), PageNo::next)?;
        if next.is_lock_byte_page(self.page_size) {
            next = next.next()?;
        }
        self.commit.contains(next).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(page_size: u32, commit: u32, whole: bool, last: u32) -> Order {
        Order {
            page_size: PageSize::new(page_size).unwrap(),
            commit: PageCount(commit),
            whole,
            last: PageNo::new(last),
        }
    }

    fn page(no: u32) -> PageNo {
        PageNo::new(no).unwrap()
    }

    #[test]
    fn a_snapshot_has_every_page_but_that_of_the_locks_for_every_page_size() {
        for power in 9..=16 {
            let size = 1 << power;
            let lock = (1 << 30) / size + 1;
            for commit in lock - 1..=lock + 1 {
                let mut order = order(size, commit, true, lock - 2);
                assert!(
                    matches!(order.end(0), Err(LtxError::Missing { page: p, .. }) if p == page(lock - 1))
                );
                order.accept(page(lock - 1), 0).unwrap();
                if commit >= lock {
                    assert!(matches!(
                        order.accept(page(lock), 0),
                        Err(LtxError::LockPage { .. })
                    ));
                }
                if commit > lock {
                    assert!(
                        matches!(order.end(0), Err(LtxError::Missing { page: p, .. }) if p == page(lock + 1))
                    );
                    order.accept(page(lock + 1), 0).unwrap();
                }
                order.end(0).unwrap();
                assert!(matches!(
                    order.accept(page(commit + 1), 0),
                    Err(LtxError::Beyond { .. })
                ));
            }
        }
    }

    #[test]
    fn a_snapshot_begins_with_page_1_and_leaves_none_out() {
        let mut order = order(512, 3, true, 0);
        assert!(
            matches!(order.accept(page(2), 9), Err(LtxError::Missing { at: 9, page: p }) if p == page(1))
        );
        order.accept(page(1), 0).unwrap();
        assert!(matches!(order.accept(page(3), 0), Err(LtxError::Missing { page: p, .. }) if p == page(2)));
        assert!(matches!(order.accept(page(1), 0), Err(LtxError::Order { .. })));
    }

    #[test]
    fn other_files_have_any_pages_in_order_up_to_the_largest() {
        let mut order = order(65536, 0xffff_fffe, false, 0);
        order.end(0).unwrap();
        order.accept(page(7), 0).unwrap();
        assert!(matches!(order.accept(page(7), 0), Err(LtxError::Order { .. })));
        assert!(matches!(
            order.accept(page(16385), 0),
            Err(LtxError::LockPage { .. })
        ));
        order.accept(page(0xffff_fffe), 0).unwrap();
        assert!(matches!(
            order.accept(page(u32::MAX), 0),
            Err(LtxError::Beyond { .. })
        ));
        order.end(0).unwrap();
    }
}
