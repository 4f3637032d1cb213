//! What a log has at its end, and who wrote it: so a server finds out, before it changes anything, whether its file continues the log.

use partial_sync_ltx::{HEADER_LEN, TxId};

use crate::{bucket::Bucket, error::StoreError, head::Head, layout::FileName};

/// A file without pages has as many bytes: the header, the end of its frames, an index of one entry and its length, the trailer.
const WITHOUT_PAGES: u64 = HEADER_LEN as u64 + 6 + 1 + 8 + 16;

/// The head of a log, and its last transaction.
#[derive(Clone, Debug)]
pub struct End {
    /// The head.
    pub head: Head,
    /// The last transaction; `None` when the first snapshot is not there yet.
    pub last: Option<TxId>,
}

/// Who wrote a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// The writer.
    pub node: u64,
    /// It has no pages: it changed nothing, and is there to keep other writers from that id.
    pub is_fence: bool,
}

impl Bucket {
    /// The end of the log; `None` if there is none.
    ///
    /// # Errors
    /// If requests fail, or the head is not one.
    pub async fn end(&self) -> Result<Option<End>, StoreError> {
        let Some((head, _)) = self.head().await? else {
            return Ok(None);
        };
        let last = match head.l0_floor {
            Some(floor) => Some(self.last(floor).await?),
            None => None,
        };
        Ok(Some(End { head, last }))
    }

    /// Who wrote a transaction behind the floor; `None` if it is not there.
    ///
    /// # Errors
    /// If requests fail, or the file is not one.
    pub async fn wrote(&self, id: TxId) -> Result<Option<Wrote>, StoreError> {
        let name = FileName::commit(id);
        let Some(size) = self.size(name).await? else {
            return Ok(None);
        };
        let header = self.header(name).await?;
        Ok(Some(Wrote {
            node: header.node,
            is_fence: size == WITHOUT_PAGES,
        }))
    }
}
