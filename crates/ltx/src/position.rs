//! Where a database is in its history, and which file takes it further.

use partial_sync_core::PageSize;

use crate::{
    checksum::Checksum,
    error::LtxError,
    header::{Header, PreApply},
    ids::TxId,
};

/// Where a database is to which files were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its last transaction.
    pub id: TxId,
    /// Bytes of a page.
    pub page_size: PageSize,
    /// Its checksum, if the files have some.
    pub checksum: Option<Checksum>,
}

impl Header {
    /// Whether the file takes a database further that is at `position`; `None` is one without any transaction.
    ///
    /// A file may begin with transactions that the database has already, as a compaction does: it has every page that they
    /// changed, so that applying it gives the same.
    ///
    /// # Errors
    /// [`LtxError::Position`] if a transaction is missing between them, the file brings no new one, or it is of another
    /// database.
    pub fn check_continues(&self, position: Option<&Position>) -> Result<(), LtxError> {
        let wrong = |why| Err(LtxError::Position { ids: self.ids, why });
        if !self.ids.continues(position.map(|position| position.id)) {
            return wrong("a transaction is missing between them, or the file brings no new one");
        }
        let Some(position) = position else {
            return Ok(());
        };
        if position.page_size != self.page_size {
            return wrong("its pages have another size");
        }
        match (self.pre_apply, position.checksum) {
            (PreApply::Of(before), Some(checksum))
                if position.id.next() == Some(self.ids.min()) && before != checksum =>
            {
                wrong("the checksum of the database is not the one that the file continues")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use partial_sync_core::{PageCount, PageNo};

    use super::*;
    use crate::ids::TxRange;

    #[test]
    fn a_file_continues_only_the_database_that_it_was_made_of() {
        let checksum = |byte| Checksum::of_page(PageNo::FIRST, &[byte; 512]);
        let header = |min, max, pre_apply| Header {
            page_size: PageSize::DEFAULT,
            commit: PageCount(1),
            ids: TxRange::new(TxId::new(min).unwrap(), TxId::new(max).unwrap()).unwrap(),
            timestamp: 0,
            pre_apply,
            wal: None,
            node: 0,
        };
        let position = |id, checksum| Position {
            id: TxId::new(id).unwrap(),
            page_size: PageSize::DEFAULT,
            checksum,
        };
        let before = PreApply::Of(checksum(1));
        let first = header(1, 3, PreApply::Nothing);
        first.check_continues(None).unwrap();
        first
            .check_continues(Some(&position(2, Some(checksum(2)))))
            .unwrap();
        assert!(first.check_continues(Some(&position(3, None))).is_err());
        assert!(header(2, 3, before).check_continues(None).is_err());
        assert!(
            header(4, 4, before)
                .check_continues(Some(&position(2, None)))
                .is_err()
        );
        header(4, 4, before)
            .check_continues(Some(&position(3, Some(checksum(1)))))
            .unwrap();
        header(4, 4, before)
            .check_continues(Some(&position(3, None)))
            .unwrap();
        assert!(
            header(4, 4, before)
                .check_continues(Some(&position(3, Some(checksum(2)))))
                .is_err()
        );
        // It says what was before transaction 4, and the database is past that.
        header(4, 6, before)
            .check_continues(Some(&position(5, Some(checksum(2)))))
            .unwrap();
        header(4, 4, PreApply::Untracked)
            .check_continues(Some(&position(3, Some(checksum(2)))))
            .unwrap();
        let other = Position {
            page_size: PageSize::new(512).unwrap(),
            ..position(3, None)
        };
        assert!(header(4, 4, before).check_continues(Some(&other)).is_err());
    }
}
