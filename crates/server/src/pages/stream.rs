//! The body of an answer: the header and then the pages, a batch at a time, each read and encoded when the client has
//! taken the one before.

use std::{collections::VecDeque, io, sync::Arc};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use partial_sync_core::{PageId, PageNo};
use partial_sync_transport::wire::{BLOCK, Packer, PageEncoding, PullUpdatesHeader, encode_frame};
use roaring::RoaringBitmap;

use super::{
    in_flight::{Held, InFlight},
    reader::RevisionReader,
    refusal::Refusal,
    touched::Coming,
    turns::ReadTurns,
};
use crate::{
    error::HistoryError,
    front::{counted, in_pieces},
    metrics::Metrics,
    states::Statement,
};

/// Bytes of pages read at a time, at most; [`BLOCK`] where they are sent in blocks, after the first.
const BATCH: usize = 128 << 10;

/// Bytes of pages of which it is known that they are read soon.
const AHEAD: usize = 4 << 20;

/// An answer under way.
pub(super) struct Batches {
    reader: RevisionReader,
    packer: Packer,
    /// Bytes of pages of the next batch, at most.
    batch: usize,
    pages: Pages,
    /// The next ones of them, and of how many it was said that they are read soon.
    next: VecDeque<PageNo>,
    said: usize,
    ready: Option<PageBatch>,
    /// After them, what a query that runs meanwhile touches.
    coming: Option<Coming>,
    query: Option<Arc<Statement>>,
    /// Whether that is what is being sent.
    is_along: bool,
    in_flight: InFlight,
    /// Of the batch that is being taken: who sends it may have copied it.
    taken: Option<Arc<Held>>,
}

type Pages = Box<dyn Iterator<Item = PageNo> + Send>;

fn pages_of(ids: impl Iterator<Item = u32> + Send + 'static) -> Pages {
    Box::new(ids.filter_map(|id| PageId(id).no()))
}

struct PageBatch {
    bytes: Bytes,
    pages: u64,
}

impl Batches {
    /// One of which nothing was read yet.
    pub(super) fn new(
        reader: RevisionReader,
        encoding: PageEncoding,
        ids: [RoaringBitmap; 2],
        coming: Option<(Coming, Arc<Statement>)>,
        in_flight: InFlight,
    ) -> Self {
        let (coming, query) = coming.unzip();
        Self {
            reader,
            packer: Packer::new(encoding),
            batch: BATCH,
            pages: pages_of(ids.into_iter().flatten()),
            next: VecDeque::new(),
            said: 0,
            ready: None,
            coming,
            query,
            is_along: false,
            in_flight,
            taken: None,
        }
    }

    /// Encodes the header and reads the first batch, so that what fails at once still gets a status of its own. Blocks.
    pub(super) fn begin(
        mut self,
        header: &PullUpdatesHeader,
        encoding: PageEncoding,
    ) -> Result<Self, Refusal> {
        let mut bytes = BytesMut::new();
        encode_frame(header, &mut bytes);
        let first = self.read(bytes)?;
        if encoding == PageEncoding::ZstdBlocks {
            self.batch = BLOCK;
        }
        self.ready = Some(first);
        Ok(self)
    }

    /// Gets the pages of the next batch, and those that follow, from where they are; for the query first of all, and for what it touches.
    /// Blocks no thread.
    pub(super) async fn draw_near(&mut self) -> Result<(), HistoryError> {
        if !self.reader.states().are_far() {
            return Ok(());
        }
        let ahead = AHEAD / self.reader.page_size().as_usize();
        let more = ahead.saturating_sub(self.next.len());
        self.next.extend(self.pages.by_ref().take(more));
        let next = self.next.len();
        // Each once, and many together.
        let is_worth_it = (next - self.said) * 2 >= ahead || self.said == 0;
        let said = if is_worth_it { next } else { self.said };
        let soon = std::mem::replace(&mut self.said, said)..said;
        let is_of_query = self.taken.is_none() || self.is_along;
        let query = self.query.as_ref().filter(|_| is_of_query);
        let now = self.at_a_time().min(next);
        let pages = &*self.next.make_contiguous();
        let near = self.reader.draw_near(&pages[..now], &pages[soon], query);
        near.await
    }

    fn at_a_time(&self) -> usize {
        let pages = self.in_flight.piece().min(self.batch) / self.reader.page_size().as_usize();
        pages.max(1)
    }

    /// Reads and encodes a batch.
    fn read(&mut self, mut bytes: BytesMut) -> Result<PageBatch, HistoryError> {
        let at_a_time = self.at_a_time();
        let drawn = self.next.drain(..at_a_time.min(self.next.len()));
        let mut pages: Vec<PageNo> = drawn.collect();
        self.said = self.said.saturating_sub(pages.len());
        pages.extend(self.pages.by_ref().take(at_a_time - pages.len()));
        let ids = pages.iter().map(|page| u64::from(page.id().0));
        let read: Vec<_> = ids.zip(self.reader.read(&pages)?).collect();
        self.packer
            .pack(&read, &mut bytes)
            .map_err(|e| HistoryError::Damaged(e.to_string()))?;
        let held = Arc::new(self.in_flight.hold(bytes.len()));
        self.taken = Some(Arc::clone(&held));
        Ok(PageBatch {
            bytes: counted(bytes.freeze(), held),
            pages: pages.len() as u64,
        })
    }

    /// Whether there is a page to read.
    fn has_next(&mut self) -> bool {
        if self.next.is_empty() {
            self.next.extend(self.pages.next());
        }
        !self.next.is_empty()
    }

    /// The same; waits for a query that touches some.
    async fn has_more(&mut self) -> bool {
        if !self.has_next()
            && let Some(coming) = &mut self.coming
            && let Some(ids) = coming.next().await
        {
            self.pages = pages_of(ids.into_iter());
            self.is_along = true;
        }
        self.has_next()
    }

    /// The body: as one piece if the first batch is all of it, else as a stream.
    pub(super) fn into_body(mut self, turns: ReadTurns, metrics: Arc<Metrics>) -> Body {
        let is_whole = self.coming.is_none() && !self.has_next();
        match self.ready.take_if(|_| is_whole) {
            Some(whole) => {
                metrics.sent(whole.pages, whole.bytes.len() as u64);
                in_pieces(whole.bytes)
            }
            None => Body::from_stream(self.into_stream(turns, metrics)),
        }
    }

    /// An error in the middle ends it without an end, so that the client sees it cut.
    fn into_stream(
        self,
        turns: ReadTurns,
        metrics: Arc<Metrics>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send {
        stream::try_unfold(self, move |mut this| {
            let (turns, metrics) = (turns.clone(), Arc::clone(&metrics));
            async move {
                let batch = match this.ready.take() {
                    Some(batch) => batch,
                    None if !this.has_more().await => return Ok(None),
                    None => {
                        let near = this.draw_near().await;
                        near.map_err(cut_off)?;
                        let read = turns.run(move || {
                            let batch = this.read(BytesMut::new());
                            (this, batch)
                        });
                        let (back, batch) = read.await.map_err(io::Error::other)?;
                        this = back;
                        batch.map_err(cut_off)?
                    }
                };
                metrics.sent(batch.pages, batch.bytes.len() as u64);
                Ok(Some((batch.bytes, this)))
            }
        })
    }
}

fn cut_off(error: HistoryError) -> io::Error {
    tracing::warn!(%error, "an answer was cut off");
    io::Error::other(error)
}
