//! What a server of an origin is told.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use partial_sync_transport::{
    AuthToken, HttpClient, HttpRemote, Remote, RemoteError, http::RetryPolicy, url::RemoteUrl,
};

/// How long the origin may be silent: less than those who ask this server wait.
const DEADLINE: Duration = Duration::from_secs(20);
/// Who asks this server tries again too.
const RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
};
/// Bytes of pages in memory, unless it is said.
const MEMORY: u64 = 64 << 20;

type Open = dyn Fn(&str, &Arc<dyn HttpClient>) -> Result<Arc<dyn Remote>, RemoteError> + Send + Sync;

/// Another remote to serve. See [`Server::from_origin`](crate::Server::from_origin).
#[derive(Clone)]
pub struct Origin {
    pub(super) url: String,
    token: AuthToken,
    remotes: Option<Arc<Open>>,
    pub(super) memory: u64,
    pub(super) folder: Option<(PathBuf, u64)>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", partial_sync_transport::url::redact(&self.url))
    }
}

impl Origin {
    /// The one at a url: one database, or several below it, each at its name.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: AuthToken::None,
            remotes: None,
            memory: MEMORY,
            folder: None,
        }
    }

    /// The token that this server reads with, for all its clients: they have to show one of its own. SQL is passed on with theirs.
    #[must_use]
    pub fn auth_token(mut self, token: impl Into<AuthToken>) -> Self {
        self.token = token.into();
        self
    }

    /// Up to so many bytes of pages are kept in memory, of all databases together. Default: 64 MiB.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Keeps up to so many bytes of pages in a folder too, over restarts. No other server may have it.
    #[must_use]
    pub fn cache(mut self, path: impl Into<PathBuf>, bytes: u64) -> Self {
        self.folder = Some((path.into(), bytes));
        self
    }

    /// Asks these remotes for pages, by the names of databases; SQL is sent to the url. For tests.
    #[must_use]
    pub fn asking(
        mut self,
        open: impl Fn(&str) -> Result<Arc<dyn Remote>, RemoteError> + Send + Sync + 'static,
    ) -> Self {
        self.remotes = Some(Arc::new(move |name, _| open(name)));
        self
    }

    /// The remote of a database.
    pub(super) fn remote(
        &self,
        name: &str,
        client: &Arc<dyn HttpClient>,
    ) -> Result<Arc<dyn Remote>, RemoteError> {
        if let Some(open) = &self.remotes {
            return open(name, client);
        }
        let remote = HttpRemote::builder(self.url_of(name)?)
            .auth_token(self.token.clone())
            .deadline(DEADLINE)
            .retry(RETRY)
            .client(Arc::clone(client))
            .build()?;
        Ok(Arc::new(remote))
    }

    /// Where a database is.
    pub(super) fn url_of(&self, name: &str) -> Result<String, RemoteError> {
        let url = RemoteUrl::parse(&self.url)?;
        Ok(match name {
            "" => self.url.clone(),
            name => url.endpoint(name).into(),
        })
    }

    /// Where SQL for it is sent.
    pub(super) fn sql_url_of(&self, name: &str) -> Result<String, RemoteError> {
        Ok(RemoteUrl::parse(&self.url_of(name)?)?.to_string())
    }
}
