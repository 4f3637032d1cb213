//! One database of a bucket while it is open: its states there, and where this server is its writer, the working copy.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use partial_sync_store::Bucket;
use tokio::{sync::OwnedMutexGuard, time::Instant};

use super::succession::Succession;
use crate::{
    access::SqlEndpoint, database::Database, error::ServerError, forward::Writer, log_states::LogStates,
    states::States,
};

/// How long it is not tried again to become the writer after that failed: each try may write into the bucket, and anyone may ask.
const PAUSE: Duration = Duration::from_secs(5);

/// When this server takes the place of the writer, without waiting for that one to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// When it is first asked for.
    Now,
    /// When the head names this server: it was the writer, before it was started again.
    IfNamed,
    /// Never: another server has taken it over, perhaps one that has the same url, and would take it back.
    Lost,
}

/// See the module.
pub(super) struct Mirror {
    pub states: Arc<LogStates>,
    name: String,
    bucket: Bucket,
    succession: Option<Arc<Succession>>,
    claim: Mutex<Claim>,
    /// When this server could not become the writer, the last time.
    failed: Mutex<Option<Instant>>,
    /// While it is written here; who makes it so holds this.
    written: Arc<tokio::sync::Mutex<Option<Arc<Database>>>>,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.states.fmt(f)
    }
}

impl Mirror {
    /// `claims`: it becomes the writer at once.
    pub(super) fn new(
        name: &str,
        bucket: Bucket,
        states: Arc<LogStates>,
        succession: Option<Arc<Succession>>,
        claims: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            states,
            name: name.to_owned(),
            bucket,
            succession,
            claim: Mutex::new(if claims { Claim::Now } else { Claim::IfNamed }),
            failed: Mutex::default(),
            written: Arc::default(),
        })
    }

    /// The working copy, if it is written here. While it is becoming that, it is not: those who ask meanwhile are told what the bucket has.
    pub(super) async fn written(&self) -> Result<Option<Arc<Database>>, ServerError> {
        let Some(succession) = &self.succession else {
            return Ok(None);
        };
        let Ok(mut written) = Arc::clone(&self.written).try_lock_owned() else {
            return Ok(None);
        };
        if let Some(database) = &*written {
            if is_good(database) {
                return Ok(Some(Arc::clone(database)));
            }
            tracing::warn!(database = self.name, "this server is not the writer any more");
            if database.handle().listener.is_taken_over() {
                *self.claim.lock() = Claim::Lost;
            }
            if let Some(database) = written.take() {
                close_soon(database, Arc::clone(&succession.opener.sql));
            }
        }
        if self.has_failed() {
            return Ok(None);
        }
        let is_ours = || succession.is_ours(&self.name, &self.states);
        let claim = *self.claim.lock();
        if claim != Claim::Now && is_ours() {
            // The head that is known may be that of before: SQL would be passed on to this server.
            Arc::clone(&self.states).up_to_date().await?;
        }
        let takes = match claim {
            Claim::Now => true,
            Claim::IfNamed => is_ours(),
            Claim::Lost => false,
        };
        match takes {
            true => self.take_over(succession, written).await.map(Some),
            false => Ok(None),
        }
    }

    /// The working copy, if there is one now.
    pub(super) fn written_now(&self) -> Option<Arc<Database>> {
        self.written.try_lock().ok()?.clone()
    }

    /// Becomes the writer if the present one is among those that are gone.
    pub(super) async fn succeed(&self, gone: &HashSet<String>) -> Result<(), ServerError> {
        let Some(succession) = &self.succession else {
            return Ok(());
        };
        let written = Arc::clone(&self.written).lock_owned().await;
        if written.is_some() || self.has_failed() {
            return Ok(());
        }
        // Another server may have done it.
        Arc::clone(&self.states).up_to_date().await?;
        match self.states.writer().is_some_and(|writer| gone.contains(&writer)) {
            true => self.take_over(succession, written).await.map(drop),
            false => Ok(()),
        }
    }

    /// Whether this server is to be the writer in any case, and was not yet.
    pub(super) fn is_claimed(&self) -> bool {
        *self.claim.lock() == Claim::Now
    }

    /// Whether it is too early to try again.
    fn has_failed(&self) -> bool {
        self.failed.lock().is_some_and(|at| at.elapsed() < PAUSE)
    }

    /// Becomes the writer. What was begun is finished when nobody waits for it any more.
    async fn take_over(
        &self,
        succession: &Arc<Succession>,
        mut written: OwnedMutexGuard<Option<Arc<Database>>>,
    ) -> Result<Arc<Database>, ServerError> {
        let (succession, states) = (Arc::clone(succession), Arc::clone(&self.states));
        let (name, bucket) = (self.name.clone(), self.bucket.clone());
        let taken = tokio::spawn(async move {
            let database = succession.take_over(&name, bucket, &states).await?;
            *written = Some(Arc::clone(&database));
            Ok::<_, ServerError>(database)
        });
        let taken = taken.await.unwrap_or(Err(ServerError::Stopping));
        let database = taken.inspect_err(|_| *self.failed.lock() = Some(Instant::now()))?;
        *self.claim.lock() = Claim::IfNamed;
        Ok(database)
    }

    /// Whether somebody answers from it, or waits for news of it, besides the one who asks. `held`: how often the caller has it.
    pub(super) fn is_used(self: &Arc<Self>, held: usize) -> bool {
        let Ok(written) = self.written.try_lock() else {
            return true;
        };
        let in_use = |database: &Arc<Database>| {
            let succession = self.succession.as_ref();
            succession.is_some_and(|succession| database.is_in_use(&*succession.opener.sql))
        };
        // The states are held by the log of the working copy too.
        Arc::strong_count(self) > held
            || Arc::strong_count(&self.states) > 1 + usize::from(written.is_some())
            || self.states.has_waiters()
            || written.as_ref().is_some_and(in_use)
    }

    /// Closes the working copy.
    pub(super) async fn close(&self, sql: &dyn SqlEndpoint) {
        let written = self.written.lock().await.take();
        if let Some(database) = written {
            database.close(sql).await;
        }
    }
}

/// SQL goes where the head says.
impl Writer for LogStates {
    fn url(&self) -> Option<String> {
        self.writer()
    }

    fn look_again(self: Arc<Self>) -> BoxFuture<'static, bool> {
        Box::pin(async move { self.up_to_date().await.is_ok() })
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let written = self
            .written
            .try_lock()
            .ok()
            .and_then(|mut written| written.take());
        if let (Some(database), Some(succession)) = (written, &self.succession) {
            close_soon(database, Arc::clone(&succession.opener.sql));
        }
    }
}

/// Whether it is written here still.
fn is_good(database: &Database) -> bool {
    database.is_good() && !database.handle().listener.is_taken_over()
}

/// Closes a working copy that nobody is given any more.
fn close_soon(database: Arc<Database>, sql: Arc<dyn SqlEndpoint>) {
    // Without a runtime the process ends, and the copy with it.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { database.close(&*sql).await });
    }
}
