//! The log of a database that is open: one transaction for each revision, in their order.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use partial_sync_core::PageCount;
use partial_sync_store::{Bucket, Keeper, ReadOptions, Reader, StoreError, Writer};
use tokio::{runtime::Handle, sync::watch};

use super::{keeping::keep, options::Durability};
use crate::{
    error::ServerError,
    follow::{Pages, RevisionLog},
    history::Seq,
    log_states::LogStates,
    states::States,
};

/// How long a transaction may take to get into the bucket when the database is being closed.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Log {
    writer: Mutex<Writer>,
    keeper: Keeper,
    bucket: Bucket,
    /// Once somebody asked for an old state.
    states: Mutex<Option<Arc<LogStates>>>,
    runtime: Handle,
    durability: Durability,
    /// How long anybody waits for a transaction to get into the bucket.
    patience: Duration,
    last: AtomicU64,
    fenced: AtomicBool,
    closing: watch::Sender<bool>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

impl RevisionLog for Log {
    fn ship(
        &self,
        seq: Seq,
        db_size: PageCount,
        unix_ms: i64,
        pages: &mut Pages<'_>,
    ) -> Result<(), ServerError> {
        let mut writer = self.writer.lock();
        let page_size = writer.page_size();
        let pages = pages.filter(|page| !matches!(page, Ok((page, _)) if page.is_lock_byte_page(page_size)));
        let pages = pages.map(|page| page.map_err(|error| StoreError::Source(error.into())));
        let shipped = self.within(async {
            let last = writer.settle().await?;
            match last.get() < seq.0 {
                true => writer.append(pages, db_size, unix_ms).await,
                false => Ok(last),
            }
        })?;
        match shipped.get() == seq.0 {
            true => {
                self.last.store(seq.0, SeqCst);
                Ok(())
            }
            false => Err(ServerError::OtherId {
                expected: seq,
                found: Seq(shipped.get()),
            }),
        }
    }

    fn is_fenced(&self) -> bool {
        self.fenced.load(SeqCst)
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn is_durable(&self) -> bool {
        self.durability == Durability::Durable
    }

    fn states(&self, until: Seq) -> Result<Arc<dyn States>, ServerError> {
        let mut states = self.states.lock();
        let known = states.clone().filter(|states| states.check_open().is_ok());
        let known = match known {
            Some(known) => known,
            None => {
                let opened = Reader::open(self.bucket.clone(), ReadOptions::default());
                LogStates::new(self.runtime.block_on(opened)?)
            }
        };
        *states = Some(Arc::clone(&known));
        drop(states);
        if known.latest().at.seq < until {
            self.runtime.block_on(Arc::clone(&known).up_to_date())?;
        }
        Ok(known)
    }

    fn close(&self) {
        self.closing.send_replace(true);
    }

    fn keep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { keep(&self.keeper, || self.last()).await })
    }
}

impl Log {
    /// The log that a writer adds to; with its states, where they are known.
    pub(crate) fn new(
        writer: Writer,
        bucket: Bucket,
        runtime: Handle,
        (durability, patience): (Durability, Duration),
        states: Option<Arc<LogStates>>,
    ) -> Self {
        Self {
            bucket,
            states: Mutex::new(states),
            keeper: writer.keeper(),
            last: AtomicU64::new(writer.last().get()),
            writer: Mutex::new(writer),
            runtime,
            durability,
            patience,
            fenced: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        }
    }

    /// Waits for what asks the bucket, which ends when nothing moves any more: begun again before that, a large transaction over a slow line
    /// would never get there. Who waits for the step has his own patience. One that is being closed does not wait long.
    fn within<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, ServerError> {
        let mut closing = self.closing.subscribe();
        let done = self.runtime.block_on(async {
            let late = async {
                // It fails only without a sender.
                let _ = closing.wait_for(|closing| *closing).await;
                tokio::time::sleep(LAST_PATIENCE).await;
            };
            tokio::select! {
                done = work => Some(done),
                () = late => None,
            }
        });
        let done = done.ok_or(ServerError::LogTooSlow)?;
        if let Err(StoreError::Fenced { .. }) = &done
            && !self.fenced.swap(true, SeqCst)
        {
            tracing::error!(
                "another server has taken the database over: nothing is written here any more, and what was committed here and is \
                 not in the bucket is not in the database"
            );
        }
        Ok(done?)
    }

    /// The last transaction that is known to be in the bucket.
    fn last(&self) -> Seq {
        Seq(self.last.load(SeqCst))
    }
}
