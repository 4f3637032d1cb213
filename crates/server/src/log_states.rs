//! The states of a database, out of its log in a bucket.
//!
//! A state is looked for when somebody asks for the latest one, and every second while somebody waits for it. Who names one that is
//! newer than those known here has been told of it by another server: it is looked for.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use partial_sync_core::{PageNo, PageSize, Revision};
use partial_sync_ltx::TxId;
use partial_sync_store::{Reader, State, StoreError};
use roaring::RoaringBitmap;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    error::{HistoryError, ServerError},
    history::{Generation, RevisionRecord, Seq},
    looks::Looks,
    states::{Found, Latest, States},
};

/// How often is looked for commits while somebody waits for one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct LogStates {
    reader: Reader,
    generation: Generation,
    published: watch::Sender<Latest>,
    looks: Looks<Result<(), Arc<StoreError>>>,
    runtime: Handle,
}

impl fmt::Debug for LogStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader.fmt(f)
    }
}

impl LogStates {
    /// Those of a log, which is looked at for as long as they are there.
    pub(crate) fn new(reader: Reader) -> Arc<Self> {
        let generation = Generation(reader.generation());
        let this = Arc::new(Self {
            published: watch::Sender::new(latest_of(generation, reader.latest())),
            generation,
            reader,
            looks: Looks::default(),
            runtime: Handle::current(),
        });
        tokio::spawn(look_while_somebody_waits(Arc::downgrade(&this)));
        this
    }

    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// Where SQL goes.
    pub(crate) fn writer(&self) -> Option<String> {
        self.reader.writer()
    }

    /// Whether somebody waits for a new state.
    pub(crate) fn has_waiters(&self) -> bool {
        self.published.receiver_count() > 0
    }

    /// Looks for new states; those who ask meanwhile share the next look.
    async fn look(self: &Arc<Self>) -> Result<Latest, ServerError> {
        let reader = self.reader.clone();
        let look = async move { reader.advance().await.map(drop).map_err(Arc::new) };
        let looked = self.looks.take(look).await.ok_or(ServerError::Stopping)?;
        let latest = latest_of(self.generation, self.reader.latest());
        self.published.send_if_modified(|published| {
            let is_new = published.at.seq < latest.at.seq;
            if is_new {
                *published = latest;
            }
            is_new
        });
        if self.check_open().is_err() {
            self.published.send_modify(|_| {});
        }
        looked?;
        Ok(self.latest())
    }

    /// The transaction of a revision, if it is one of this history.
    fn id_of(&self, revision: &Revision) -> Option<TxId> {
        TxId::new(self.generation.parse(revision)?.0)
    }

    fn state(at: RevisionRecord) -> Result<State, HistoryError> {
        Ok(State {
            id: TxId::new(at.seq.0).ok_or(HistoryError::Unknown(at.seq))?,
            size: at.db_size,
            time: 0,
        })
    }
}

fn record(state: State) -> RevisionRecord {
    RevisionRecord {
        seq: Seq(state.id.get()),
        db_size: state.size,
    }
}

fn latest_of(generation: Generation, state: State) -> Latest {
    let at = record(state);
    Latest {
        at,
        revision: generation.revision(at.seq),
    }
}

fn failed(seq: Seq, error: StoreError) -> HistoryError {
    match error.root() {
        StoreError::Gone { .. } => HistoryError::Expired(seq),
        _ => ServerError::from(error).into(),
    }
}

async fn look_while_somebody_waits(states: Weak<LogStates>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(states) = states.upgrade() else { return };
        if states.has_waiters()
            && let Err(error) = states.look().await
        {
            tracing::warn!(?states, %error, "cannot look for commits");
            if states.check_open().is_err() {
                return;
            }
        }
    }
}

impl States for LogStates {
    fn page_size(&self) -> PageSize {
        self.reader.page_size()
    }

    fn is_writable(&self) -> bool {
        self.reader.writer().is_some()
    }

    fn check_open(&self) -> Result<(), ServerError> {
        Ok(self.reader.check_open()?)
    }

    fn latest(&self) -> Latest {
        self.published.borrow().clone()
    }

    fn subscribe(&self) -> watch::Receiver<Latest> {
        self.published.subscribe()
    }

    fn up_to_date(self: Arc<Self>) -> BoxFuture<'static, Result<Latest, ServerError>> {
        Box::pin(async move { self.look().await })
    }

    fn find(&self, revision: &Revision) -> Result<Option<RevisionRecord>, HistoryError> {
        let Some(id) = self.id_of(revision) else {
            return Ok(None);
        };
        let seq = Seq(id.get());
        let found = self.runtime.block_on(async {
            if id > self.reader.latest().id {
                self.reader.advance().await?;
            }
            self.reader.state(id).await
        });
        match found.map_err(|error| failed(seq, error))? {
            partial_sync_store::Found::Kept(state) => Ok(Some(record(state))),
            partial_sync_store::Found::Gone => Err(HistoryError::Expired(seq)),
            partial_sync_store::Found::Unknown => Ok(None),
        }
    }

    fn find_at_once(&self, revision: &Revision) -> Found {
        let Some(id) = self.id_of(revision) else {
            return Found::Unknown;
        };
        match self.reader.state_at_once(id) {
            Some(partial_sync_store::Found::Kept(state)) => Found::Kept(record(state)),
            _ => Found::NotAtOnce,
        }
    }

    fn pages(&self, at: RevisionRecord, pages: &[PageNo]) -> Result<Vec<Option<Bytes>>, HistoryError> {
        let read = self.runtime.block_on(self.reader.pages(Self::state(at)?, pages));
        let read = read.map_err(|error| failed(at.seq, error))?;
        Ok(read.into_iter().map(Some).collect())
    }

    fn changed(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
        among: &RoaringBitmap,
    ) -> Result<RoaringBitmap, HistoryError> {
        let changed = self.reader.changed(Self::state(since)?, Self::state(until)?);
        let changed = self.runtime.block_on(changed);
        Ok(changed.map_err(|error| failed(since.seq, error))? & among)
    }

    fn changed_at_once(
        &self,
        since: RevisionRecord,
        until: RevisionRecord,
    ) -> Result<Option<RoaringBitmap>, ServerError> {
        let changed = self
            .reader
            .changed_at_once(Self::state(since)?, Self::state(until)?);
        match changed {
            // It is told by the other way.
            Err(error) if matches!(error.root(), StoreError::Gone { .. }) => Ok(None),
            changed => Ok(changed?),
        }
    }

    fn check_none_lost(&self, _: RevisionRecord, _: &RoaringBitmap) -> Result<(), HistoryError> {
        Ok(())
    }
}
