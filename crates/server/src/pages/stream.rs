//! The body of an answer: the header and then the pages, a batch at a time, each read and encoded when the client has
//! taken the one before.

use std::{io, iter::Peekable, sync::Arc};

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
};

/// Bytes of pages read at a time, at most; [`BLOCK`] where they are sent in blocks, after the first.
const BATCH: usize = 128 << 10;

/// An answer under way.
pub(super) struct Batches {
    reader: RevisionReader,
    packer: Packer,
    /// Bytes of pages of the next batch, at most.
    batch: usize,
    pages: Pages,
    ready: Option<PageBatch>,
    /// After them, what a query that runs meanwhile touches.
    coming: Option<Coming>,
    in_flight: InFlight,
    /// Of the batch that is being taken: who sends it may have copied it.
    taken: Option<Arc<Held>>,
}

type Pages = Peekable<Box<dyn Iterator<Item = PageNo> + Send>>;

fn pages_of(ids: impl Iterator<Item = u32> + Send + 'static) -> Pages {
    let pages: Box<dyn Iterator<Item = PageNo> + Send> = Box::new(ids.filter_map(|id| PageId(id).no()));
    pages.peekable()
}

struct PageBatch {
    bytes: Bytes,
    pages: u64,
}

impl Batches {
    /// Encodes the header and reads the first batch, so that what fails at once still gets a status of its own. Blocks.
    pub(super) fn new(
        reader: RevisionReader,
        header: &PullUpdatesHeader,
        encoding: PageEncoding,
        ids: [RoaringBitmap; 2],
        coming: Option<Coming>,
        in_flight: InFlight,
    ) -> Result<Self, Refusal> {
        let mut this = Self {
            reader,
            packer: Packer::new(encoding),
            batch: BATCH,
            pages: pages_of(ids.into_iter().flatten()),
            ready: None,
            coming,
            in_flight,
            taken: None,
        };
        let mut bytes = BytesMut::new();
        encode_frame(header, &mut bytes);
        let first = this.read(bytes)?;
        if encoding == PageEncoding::ZstdBlocks {
            this.batch = BLOCK;
        }
        this.ready = Some(first);
        Ok(this)
    }

    /// Reads and encodes a batch.
    fn read(&mut self, mut bytes: BytesMut) -> Result<PageBatch, HistoryError> {
        let at_a_time = self.in_flight.piece().min(self.batch) / self.reader.page_size().as_usize();
        let pages: Vec<PageNo> = self.pages.by_ref().take(at_a_time.max(1)).collect();
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

    /// Whether there are more pages to read; waits for a query that touches some.
    async fn has_more(&mut self) -> bool {
        if self.pages.peek().is_none()
            && let Some(coming) = &mut self.coming
            && let Some(ids) = coming.next().await
        {
            self.pages = pages_of(ids.into_iter());
        }
        self.pages.peek().is_some()
    }

    /// The body: as one piece if the first batch is all of it, else as a stream.
    pub(super) fn into_body(mut self, turns: ReadTurns, metrics: Arc<Metrics>) -> Body {
        let is_whole = self.coming.is_none() && self.pages.peek().is_none();
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
                        let read = turns.run(move || {
                            let batch = this.read(BytesMut::new());
                            (this, batch)
                        });
                        let (back, batch) = read.await.map_err(io::Error::other)?;
                        this = back;
                        batch.map_err(|error| {
                            tracing::warn!(%error, "an answer was cut off");
                            io::Error::other(error)
                        })?
                    }
                };
                metrics.sent(batch.pages, batch.bytes.len() as u64);
                Ok(Some((batch.bytes, this)))
            }
        })
    }
}
