//! Absent pages from a remote: one request for each miss, pinned to the reader's revision, streamed into the sink. Unless
//! prefetch is off, and where the remote can, the request names the statement too ([`crate::fetch::statement_prefetch`]).

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use parking_lot::Mutex;
use partial_sync_core::PageSize;
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{Miss, PageSink, PageSource, SourceError};
use tokio::{sync::watch, time::Instant};

use crate::{
    error::PageFetchError,
    fetch::{
        request::{pinned, put},
        statement_prefetch::{Flight, StatementPrefetch},
    },
    open::info::Info,
    runtime::runtime,
};

tokio::task_local! {
    /// Set while a page is fetched that a statement waits for.
    static FOR_A_STATEMENT: ();
}

/// Whether the function that asks this, one for the url, for the token or for sending a request, was called for a page that a
/// statement waits for. It must not use the database: the statement would wait for it, and it for the statement.
pub fn is_asked_for_a_statement() -> bool {
    FOR_A_STATEMENT.try_with(|()| ()).is_ok()
}

/// The [`PageSource`] of a replica.
pub(crate) struct RemoteSource {
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) info: Arc<Mutex<Info>>,
    pub(crate) page_size: PageSize,
    pub(crate) deadline: Duration,
    /// Unless prefetch is off: what a statement will touch comes along, where the remote can tell.
    pub(crate) prefetch: Option<Arc<StatementPrefetch>>,
    /// Never told anything: what is under way ends when this is dropped, with the replica.
    pub(crate) lives: watch::Sender<()>,
}

impl PageSource for RemoteSource {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        let (remote, page_size, deadline) = (self.remote.clone(), self.page_size, self.deadline);
        tracing::debug!(
            wanted = %miss.wanted, pages = miss.pages.len(), revision = %miss.base.revision, statement = miss.statement,
            "fetching absent pages"
        );
        let elsewhere = || base_is_elsewhere(&*remote, &self.info.lock());
        if let Some(source) = FOR_A_STATEMENT.sync_scope((), elsewhere) {
            sink.finish(Err(Arc::new(PageFetchError { source }) as SourceError));
            return;
        }
        let prefetch = self.prefetch.clone();
        let mut lives = self.lives.subscribe();
        runtime().spawn(FOR_A_STATEMENT.scope((), async move {
            tokio::select! {
                _ = lives.changed() => {}
                result = answer_miss(&*remote, prefetch.as_deref(), &miss, &*sink, page_size, deadline) => {
                    sink.finish(result.map_err(|source| Arc::new(PageFetchError { source }) as SourceError));
                }
            }
        }));
    }
}

/// Refuses to ask the remote for pages of the base when that is another remote's: they would be of another database.
pub(crate) fn base_is_elsewhere(remote: &dyn Remote, info: &Info) -> Option<RemoteError> {
    let url = remote.known_url();
    info.base_is_elsewhere(url.as_deref()).then(|| {
        let message = format!(
            "{} is not the remote that this replica's pages are from; absent ones can be read after a pull \
             from it",
            url.as_deref().unwrap_or("the remote")
        );
        RemoteError::new(RemoteErrorKind::RevisionUnknown, message)
    })
}

async fn answer_miss(
    remote: &dyn Remote,
    prefetch: Option<&StatementPrefetch>,
    miss: &Miss,
    sink: &dyn PageSink,
    page_size: PageSize,
    deadline: Duration,
) -> Result<(), RemoteError> {
    let began = Instant::now();
    let mut request = pinned(&miss.base, &miss.pages, page_size, deadline);
    while let Some(prefetch) = prefetch.filter(|_| sink.fills())
        && let Some(statement) = prefetch.statement(miss)
    {
        match prefetch.join(&statement) {
            Flight::Lead(flight) => {
                if !narrow(&mut request, miss, sink) {
                    return Ok(());
                }
                if prefetch
                    .fetch_with_statement(remote, &request, &statement, &flight, sink)
                    .await?
                {
                    return Ok(());
                }
                break;
            }
            Flight::Follow(came) => {
                let is_here = || sink.has(miss.wanted);
                let has_ended = prefetch.follow(&statement, came, deadline, is_here).await;
                if sink.has(miss.wanted) {
                    return Ok(());
                }
                if !has_ended {
                    break;
                }
            }
            Flight::Alone => break,
        }
    }
    if !narrow(&mut request, miss, sink) {
        return Ok(());
    }
    // Who waits does so no longer for the statement's sake, and is to hear why no page comes.
    request.deadline = Some(deadline.saturating_sub(began.elapsed()));
    let mut answer = remote.pages(request).await?;
    if let Some(prefetch) = prefetch {
        prefetch.learn(answer.header.features);
    }
    while let Some(next) = answer.pages.next().await {
        put(sink, &next?)?;
    }
    Ok(())
}

/// Takes out of a request what has come by other ways since it was made. False when the page that it was made for has:
/// anyone who waits for another one asks again.
fn narrow(request: &mut PagesRequest, miss: &Miss, sink: &dyn PageSink) -> bool {
    if let PageSelector::Ids(ids) = &mut request.select
        && sink.fills()
    {
        *ids -= sink.present_among(ids);
    }
    !sink.has(miss.wanted)
}
