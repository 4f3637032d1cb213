//! Files that follow each other in the log -> one that does the same.
//!
//! Each page of the result is the newest of the files', if the database still has it. Where a file lets the database grow it has
//! every page behind the old end ([`crate::Writer::append`] sees to it), so nothing older shows through after a cut, and a result depends
//! on its transactions only: not on which files it was made from, nor on who made it.

use std::io::Read;

use partial_sync_core::PageNo;
use partial_sync_ltx::{Header, LtxError, PreApply, Reader, TxRange};

use crate::{error::StoreError, upload::PutPage};

/// One of the files, with the page that comes next.
struct Input<R> {
    reader: Reader<R>,
    next: Option<PageNo>,
    page: Vec<u8>,
}

impl<R: Read> Input<R> {
    fn begin(reader: Reader<R>) -> Result<Self, LtxError> {
        let mut input = Self {
            reader,
            next: None,
            page: Vec::new(),
        };
        input.advance()?;
        Ok(input)
    }

    fn advance(&mut self) -> Result<(), LtxError> {
        self.next = self.reader.next_page()?.map(|(page, bytes)| {
            self.page.clear();
            self.page.extend_from_slice(bytes);
            page
        });
        Ok(())
    }
}

/// The header of the file of the transactions `ids`, from those of the files that it is made of, in their order. `None` if they do
/// not follow each other, or do not have these transactions.
pub(crate) fn header(ids: TxRange, headers: &[Header]) -> Option<Header> {
    let mut end = None;
    for (n, header) in headers.iter().enumerate() {
        let continues = match n {
            0 => header.ids.min() == ids.min(),
            _ => header.ids.continues(end) && header.page_size == headers[0].page_size,
        };
        if !continues {
            return None;
        }
        end = Some(header.ids.max());
    }
    let last = headers.last().filter(|last| last.ids.max() == ids.max())?;
    Some(Header {
        ids,
        pre_apply: PreApply::Untracked,
        wal: None,
        // It is nobody's, so that two who make it make the same.
        node: 0,
        ..*last
    })
}

/// Gives the pages of the result to `put`. `wrong` makes the error of the nth file.
pub(crate) fn merge<R: Read>(
    result: &Header,
    readers: Vec<Reader<R>>,
    wrong: impl Fn(usize, LtxError) -> StoreError,
    put: &mut PutPage<'_>,
) -> Result<(), StoreError> {
    let mut inputs = Vec::new();
    for (n, reader) in readers.into_iter().enumerate() {
        inputs.push(Input::begin(reader).map_err(|error| wrong(n, error))?);
    }
    while let Some(page) = inputs.iter().filter_map(|input| input.next).min() {
        let newest = inputs.iter().rfind(|input| input.next == Some(page));
        if let Some(input) = newest.filter(|_| result.commit.contains(page)) {
            put(page, &input.page)?;
        }
        for (n, input) in inputs.iter_mut().enumerate() {
            if input.next == Some(page) {
                input.advance().map_err(|error| wrong(n, error))?;
            }
        }
    }
    for (n, input) in inputs.into_iter().enumerate() {
        input.reader.finish().map_err(|error| wrong(n, error))?;
    }
    Ok(())
}
