//! The server without a socket and without a life of its own, for simulations: requests are function calls, and nothing
//! happens between them. It does not look for commits, keep the WAL short, compare pages or let go of old revisions unless it
//! is told to, so the same calls in the same order give the same answers.

use std::{fmt, sync::Arc, time::SystemTime};

use axum::{body::Body, http::Request};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use partial_sync_transport::{
    HttpClient, RemoteError, RemoteErrorKind,
    http::{HttpRequest, HttpResponse},
};
use tokio::sync::watch;

use crate::{
    app::App, clock::Clock, database::Database, databases::Databases, error::ServerError, history::Retention,
    serve::Answers as _,
};

/// A server of one file, made by [`ServerBuilder::in_process`](crate::ServerBuilder::in_process). It answers what is sent
/// through it as an [`HttpClient`], whatever the host in the url. Dropping it without [`close`](Self::close) is a kill.
pub struct InProcess {
    pub(crate) app: Arc<App>,
    pub(crate) databases: Arc<Databases>,
    pub(crate) clock: Clock,
    /// Long polls continue until it changes.
    pub(crate) stop: watch::Sender<bool>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl InProcess {
    async fn database(&self) -> Result<Arc<Database>, ServerError> {
        self.databases.get("").await?.ok_or(ServerError::Stopping)
    }

    /// Gives the latest commit a revision, which ends long polls.
    pub async fn refresh(&self) -> Result<(), ServerError> {
        self.database().await?.follower().refresh().await.map(drop)
    }

    /// Moves the WAL into the file when it is long or old enough, as a server with a life of its own does now and then.
    pub async fn tend(&self) -> Result<(), ServerError> {
        self.database().await?.follower().tend().await.map(drop)
    }

    /// Compares a few pages with the page history, if they have not all been since it was opened. `true` = there are more.
    pub async fn compare(&self) -> Result<bool, ServerError> {
        self.database().await?.follower().compare().await
    }

    /// Lets go of old revisions that `retention` does not keep.
    pub async fn prune(&self, retention: Retention) -> Result<(), ServerError> {
        let database = self.database().await?;
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        while database.follower().history().prune(&retention, now)?.more {}
        Ok(())
    }

    /// Ends long polls, notes where the database stands, and closes it.
    pub async fn close(self) {
        self.stop.send_replace(true);
        self.app.sql.shut_down().await;
        self.databases.close().await;
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // As the end of a process would, even if a request is still under way.
        self.databases.unlock();
    }
}

impl HttpClient for InProcess {
    fn keeps_codings(&self) -> bool {
        true
    }

    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        let app = Arc::clone(&self.app);
        async move {
            let bad = |e: &dyn fmt::Display| RemoteError::new(RemoteErrorKind::Client, e.to_string());
            let mut builder = Request::builder().method(request.method).uri(&request.url);
            for (name, value) in &request.headers {
                builder = builder.header(name, value);
            }
            let request = builder.body(Body::from(request.body)).map_err(|e| bad(&e))?;
            let answer = app.answer(request).await;
            let (head, body) = answer.into_parts();
            let headers = head.headers.iter().filter_map(|(name, value)| {
                let value = value.to_str().ok()?.to_owned();
                Some((name.as_str().to_owned(), value))
            });
            let broken =
                |e| RemoteError::with_source(RemoteErrorKind::Unreachable, "the answer broke off", e);
            Ok(HttpResponse {
                status: head.status.as_u16(),
                headers: headers.collect(),
                end_is_marked: true,
                body: body
                    .into_data_stream()
                    .map(move |piece| piece.map_err(broken))
                    .boxed(),
            })
        }
        .boxed()
    }
}
