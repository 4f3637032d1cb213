//! Writes a file.
//!
//! What must never happen here: that [`Writer::finish`] succeeds for a file that [`Reader`](crate::Reader), or the programs that
//! the format is from, would refuse.

use std::io::{self, Write};

use partial_sync_core::PageNo;

use crate::{
    checksum::{Checksum, FileDigest},
    contents::Contents,
    error::LtxError,
    frame,
    header::{Header, PreApply},
    index::PageIndex,
    order::Order,
    trailer::{self, Trailer},
};

/// Writes a file: its header at once, each page when it is given, the rest at the end. What was written without
/// [`finish`](Self::finish) is not a file, and is refused as one that was cut off.
#[derive(Debug)]
pub struct Writer<W> {
    output: Output<W>,
    header: Header,
    digest: FileDigest,
    order: Order,
    index: PageIndex,
    /// That of the pages so far.
    pages: Checksum,
    failed: bool,
    frame: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file: writes its header. `write` gets a piece for each page.
    ///
    /// # Errors
    /// [`LtxError`] if the header contradicts itself, says an empty database without checksums (which other programs
    /// cannot merge with other files), or cannot be written.
    pub fn new(write: W, header: Header) -> Result<Self, LtxError> {
        let bytes = header.encode()?;
        if header.commit.0 == 0 && !header.is_tracked() {
            return Err(LtxError::Commit(header.commit));
        }
        let mut writer = Self {
            output: Output { write, at: 0 },
            header,
            digest: FileDigest::new(),
            order: Order::of(&header),
            index: PageIndex::default(),
            pages: Checksum::EMPTY,
            failed: false,
            frame: Vec::new(),
        };
        writer.digest.update(&bytes);
        writer.output.all(&bytes)?;
        Ok(writer)
    }

    /// Writes a page. Pages come in ascending order, within the size of the database that the header says, and without that of
    /// SQLite's locks; in a snapshot, all others come.
    ///
    /// # Errors
    /// [`LtxError`] if the page may not come here or has not the bytes of a page, which leaves the file as it was; or if it cannot
    /// be written, after which the file cannot be continued.
    pub fn page(&mut self, page: PageNo, bytes: &[u8]) -> Result<(), LtxError> {
        if self.failed {
            return Err(LtxError::Failed);
        }
        let (at, page_size) = (self.output.at, self.header.page_size);
        if bytes.len() != page_size.as_usize() {
            let got = bytes.len();
            return Err(LtxError::PageLength {
                at,
                page,
                got,
                page_size,
            });
        }
        self.order.accept(page, at)?;
        self.failed = true;
        let head = frame::write(page, bytes, &mut self.frame)?;
        self.output.all(&self.frame)?;
        self.failed = false;
        self.digest.update(head.bytes());
        self.digest.update(bytes);
        if let PreApply::Nothing = self.header.pre_apply {
            self.pages = self.pages.toggled(Checksum::of_page(page, bytes));
        }
        self.index.push(page, self.output.at - at);
        Ok(())
    }

    /// Writes the rest, flushes, and gives back what was written to and what the file holds. `post_apply` is the checksum of the
    /// database after the file: needed by a file with checksums that is not a snapshot. Of a snapshot it is known, and
    /// compared if it is given; a file without checksums has none.
    ///
    /// # Errors
    /// [`LtxError`] if a page is missing in a snapshot, if `post_apply` is not what such a file has, or if it cannot be written.
    pub fn finish(mut self, post_apply: Option<Checksum>) -> Result<(W, Contents), LtxError> {
        if self.failed {
            return Err(LtxError::Failed);
        }
        self.order.end(self.output.at)?;
        let post_apply = self.post_apply(post_apply)?;
        let Self {
            output,
            digest,
            index,
            ..
        } = &mut self;
        let mut put = |bytes: &[u8]| {
            digest.update(bytes);
            output.all(bytes)
        };
        put(&frame::END)?;
        index.encode(put)?;
        self.digest.update(&trailer::counted(post_apply));
        let trailer = Trailer {
            post_apply,
            file: self.digest.finish(),
        };
        self.output.all(&trailer.encode())?;
        let (write, len) = self.output.end()?;
        let contents = Contents {
            header: self.header,
            index: self.index,
            trailer,
            len,
        };
        Ok((write, contents))
    }

    /// The checksum that the trailer is to have.
    fn post_apply(&self, given: Option<Checksum>) -> Result<Option<Checksum>, LtxError> {
        let at = self.output.at;
        let wrong = |why| {
            let stored = given.map_or(0, Checksum::get);
            Err(LtxError::DatabaseChecksum { at, stored, why })
        };
        let checksum = match (self.header.pre_apply, given) {
            (PreApply::Untracked, None) => None,
            (PreApply::Untracked, Some(_)) => return wrong("the header says that there is none"),
            (PreApply::Nothing, Some(given)) if given != self.pages => {
                return wrong("that of its pages is another one");
            }
            (PreApply::Nothing, _) => Some(self.pages),
            (PreApply::Of(_), Some(given)) => Some(given),
            (PreApply::Of(_), None) => {
                return wrong(
                    "a file with checksums that is not a snapshot needs that of the database after it",
                );
            }
        };
        trailer::check_empty(checksum, at, &self.header)?;
        Ok(checksum)
    }
}

/// Bytes that are written in order, with how many they were.
#[derive(Debug)]
struct Output<W> {
    write: W,
    at: u64,
}

impl<W: Write> Output<W> {
    fn all(&mut self, bytes: &[u8]) -> Result<(), LtxError> {
        let failed = |source: io::Error| LtxError::Write { at: self.at, source };
        self.write.write_all(bytes).map_err(failed)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn end(mut self) -> Result<(W, u64), LtxError> {
        let failed = |source: io::Error| LtxError::Write { at: self.at, source };
        self.write.flush().map_err(failed)?;
        Ok((self.write, self.at))
    }
}
