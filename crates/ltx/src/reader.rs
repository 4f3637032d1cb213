//! Reads a file from its beginning to its end, and checks all of it.
//!
//! What must never happen here: that [`Reader::finish`] succeeds for a file that breaks a rule of the format, or for one of which a
//! page is not what was written.

use std::io::{BufReader, Read};

use partial_sync_core::PageNo;

use crate::{
    checksum::{Checksum, FileDigest},
    contents::Contents,
    error::LtxError,
    frame,
    header::{HEADER_LEN, Header},
    index::{PageIndex, read_entry, read_length},
    input::Input,
    order::Order,
    trailer::{COUNTED, TRAILER_LEN, Trailer},
};

/// Reads a file.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<BufReader<R>>,
    header: Header,
    digest: FileDigest,
    order: Order,
    index: PageIndex,
    /// That of the pages so far.
    pages: Checksum,
    stage: Stage,
    page: Vec<u8>,
    compressed: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// A frame follows, or their end.
    Frames,
    /// The index follows.
    Index,
    /// An error was found.
    Failed,
}

impl<R: Read> Reader<R> {
    /// Begins a file: reads its header. `read` is read in pieces of some KiB, to its end, and must end with the file.
    ///
    /// # Errors
    /// [`LtxError`] if this is not the header of a file.
    pub fn new(read: R) -> Result<Self, LtxError> {
        let mut input = Input::new(BufReader::new(read), 0);
        let bytes: [u8; HEADER_LEN] = input.array("the header")?;
        let header = Header::parse(&bytes)?;
        let mut digest = FileDigest::new();
        digest.update(&bytes);
        Ok(Self {
            input,
            header,
            digest,
            order: Order::of(&header),
            index: PageIndex::default(),
            pages: Checksum::EMPTY,
            stage: Stage::Frames,
            page: vec![0; header.page_size.as_usize()],
            compressed: Vec::new(),
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next page and its number, ascending; `None` after the last. Each is of the right form, but whether it is what was
    /// written is known only when [`finish`](Self::finish) has succeeded.
    ///
    /// # Errors
    /// [`LtxError`] if what follows is not a frame that such a file may have here, and then at every further call.
    pub fn next_page(&mut self) -> Result<Option<(PageNo, &[u8])>, LtxError> {
        match self.stage {
            Stage::Frames => {}
            Stage::Index => return Ok(None),
            Stage::Failed => return Err(LtxError::Failed),
        }
        self.stage = Stage::Failed;
        let page = self.read_frame()?;
        self.stage = match page {
            Some(_) => Stage::Frames,
            None => Stage::Index,
        };
        Ok(page.map(|page| (page, &self.page[..])))
    }

    fn read_frame(&mut self) -> Result<Option<PageNo>, LtxError> {
        let at = self.input.at();
        let page_size = self.header.page_size;
        let Some(head) = frame::read(&mut self.input, &mut self.page, page_size, &mut self.compressed)?
        else {
            self.digest.update(&frame::END);
            self.order.end(at)?;
            return Ok(None);
        };
        self.order.accept(head.page, at)?;
        self.digest.update(head.bytes());
        self.digest.update(&self.page);
        if self.checks_pages() {
            self.pages = self.pages.toggled(Checksum::of_page(head.page, &self.page));
        }
        self.index.push(head.page, self.input.at() - at);
        Ok(Some(head.page))
    }

    /// Whether the file says the checksum of exactly its own pages.
    fn checks_pages(&self) -> bool {
        self.header.is_tracked() && self.header.ids.is_snapshot()
    }

    /// Reads the rest, with the pages that were not taken yet, and checks the file as a whole.
    ///
    /// # Errors
    /// [`LtxError`] if the file breaks a rule of the format, or is not what was written.
    pub fn finish(mut self) -> Result<Contents, LtxError> {
        while self.next_page()?.is_some() {}
        self.check_index()?;
        let at = self.input.at();
        let bytes: [u8; TRAILER_LEN] = self.input.array("the trailer")?;
        let (trailer, counted) = Trailer::parse(&bytes, at, &self.header)?;
        if !self.input.is_at_end()? {
            let at = at + TRAILER_LEN as u64;
            return Err(LtxError::Continues { at });
        }
        self.digest.update(&counted);
        let checks_pages = self.checks_pages();
        let computed = self.digest.finish();
        if trailer.file != computed {
            let (at, stored) = (at + COUNTED as u64, trailer.file.get());
            return Err(LtxError::FileChecksum { at, stored, computed });
        }
        if checks_pages && trailer.post_apply != Some(self.pages) {
            let stored = trailer.post_apply.map_or(0, Checksum::get);
            let why = "that of its pages is another one";
            return Err(LtxError::DatabaseChecksum { at, stored, why });
        }
        Ok(Contents {
            header: self.header,
            index: self.index,
            trailer,
            len: self.input.at(),
        })
    }

    /// Reads the index, which must say where the frames were.
    fn check_index(&mut self) -> Result<(), LtxError> {
        let begin = self.input.at();
        let digest = &mut self.digest;
        let mut each = |bytes: &[u8]| digest.update(bytes);
        let mut frames = self.index.iter();
        loop {
            let at = self.input.at();
            let why = match (read_entry(&mut self.input, &mut each)?, frames.next()) {
                (Some(entry), Some((page, range))) if entry.is(page, &range) => continue,
                (None, None) => break,
                (Some(_), Some(_)) => "an entry is not that of the frame",
                (Some(_), None) => "it has an entry more than there are frames",
                (None, Some(_)) => "it has no entry for a frame",
            };
            return Err(LtxError::Index { at, why });
        }
        let length = read_length(&mut self.input, begin)?;
        self.digest.update(&length);
        Ok(())
    }
}
