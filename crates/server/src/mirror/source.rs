//! The pages that the working copy of a database in a bucket lacks, from the bucket.

use std::{io, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use partial_sync_ltx::TxId;
use partial_sync_store::{Reader, State, StoreError};
use partial_sync_vfs::{Miss, PageSink, PageSource, SourceError};
use tokio::runtime::Handle;

use crate::{follow::Missing, history::RevisionRecord};

/// See the module.
pub(super) struct LogSource {
    reader: Reader,
    runtime: Handle,
    /// What is not in the file is as at this state.
    at: Arc<Mutex<State>>,
}

impl LogSource {
    /// To be made on the runtime that the bucket is asked from.
    pub(super) fn new(reader: Reader, at: State) -> Self {
        Self {
            reader,
            runtime: Handle::current(),
            at: Arc::new(Mutex::new(at)),
        }
    }
}

impl Missing for LogSource {
    fn all_else_is_as_at(&self, at: RevisionRecord) {
        if let Some(id) = TxId::new(at.seq.0) {
            *self.at.lock() = State {
                id,
                size: at.db_size,
                time: 0,
            };
        }
    }
}

impl PageSource for LogSource {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        let (reader, at) = (self.reader.clone(), Arc::clone(&self.at));
        self.runtime.spawn(async move {
            let fetched = fetch(&reader, &at, &miss, &*sink).await;
            sink.finish(fetched);
        });
    }
}

async fn fetch(
    reader: &Reader,
    at: &Mutex<State>,
    miss: &Miss,
    sink: &dyn PageSink,
) -> Result<(), SourceError> {
    let failed = |error: StoreError| Arc::new(error) as SourceError;
    let asked = *at.lock();
    // One that the database had not at that state was never written either.
    let (there, beyond): (Vec<_>, Vec<_>) = miss.pages.iter().partition(|page| asked.size.contains(**page));
    if asked.id > reader.latest().id {
        reader.advance().await.map_err(failed)?;
    }
    let read = reader.pages(asked, &there).await.map_err(failed)?;
    let zeros = Bytes::from(vec![0; reader.page_size().as_usize()]);
    let beyond = beyond.into_iter().map(|page| (page, &zeros));
    for (page, data) in there.iter().copied().zip(&read).chain(beyond) {
        sink.page(page, data)
            .map_err(|error| Arc::new(io::Error::other(error)) as SourceError)?;
    }
    Ok(())
}
