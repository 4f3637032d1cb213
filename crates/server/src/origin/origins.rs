//! The databases of an origin by name, opened when they are asked for. Nothing is listed: a name is there if the origin answers for it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use partial_sync_transport::{HttpClient, RemoteError, RemoteErrorKind, http::ReqwestClient};

use tokio::sync::Semaphore;

use super::{cache::Cache, fetching::turns_in_all, options::Origin, states::OriginStates};
use crate::{
    databases::is_name,
    error::ServerError,
    forward::{Forward, Writer},
    metrics::DatabaseGauges,
    names::{Named, Names},
    ready::{Problem, Report},
    served::{Opened, Served, gauges_of, report_of},
    states::States,
};

/// See the module.
pub(crate) struct Origins {
    origin: Origin,
    client: Arc<dyn HttpClient>,
    cache: Arc<Cache>,
    /// Of requests for pages.
    turns: Arc<Semaphore>,
    /// There is one, without a name.
    is_single: bool,
    names: Arc<Names<OriginStates, Arc<RemoteError>>>,
}

impl Named for OriginStates {
    fn is_open(&self) -> bool {
        self.check_open().is_ok()
    }

    fn is_used(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || self.has_waiters()
    }
}

/// SQL goes to the origin.
struct ToOrigin {
    url: String,
    states: Arc<OriginStates>,
}

impl Writer for ToOrigin {
    fn url(&self) -> Option<String> {
        Some(self.url.clone())
    }

    fn heeds(&self) -> bool {
        self.states.heeds_access()
    }
}

impl Origins {
    /// Looks what there is.
    pub(crate) async fn new(origin: Origin, most_open: usize) -> Result<Self, ServerError> {
        let client = ReqwestClient::new().map_err(|source| ServerError::NoClient(source.to_string()))?;
        let memory = usize::try_from(origin.memory).unwrap_or(usize::MAX);
        let folder = origin.folder.clone();
        let open = move || Cache::open(memory, folder.as_ref().map(|(path, bytes)| (&**path, *bytes)));
        let cache = tokio::task::spawn_blocking(open).await;
        let mut this = Self {
            cache: Arc::new(cache.map_err(|_| ServerError::Stopping)??),
            turns: turns_in_all(),
            origin,
            client: Arc::new(client),
            is_single: true,
            names: Names::new(most_open, || ServerError::OriginTooSlow),
        };
        let found = this.states("").await?;
        this.is_single = found.is_some();
        match found {
            Some(states) => tracing::info!(origin = ?states, "serving a database of another remote"),
            None => tracing::info!(
                origin = ?this.origin,
                "the remote has no database at its own url: those below it are served by their names"
            ),
        }
        Ok(this)
    }

    /// The states of a database; `None` = there is none of that name.
    async fn states(&self, name: &str) -> Result<Option<Arc<OriginStates>>, ServerError> {
        let open = |_| {
            let (remote, cache) = (self.origin.remote(name, &self.client), Arc::clone(&self.cache));
            let turns = Arc::clone(&self.turns);
            Ok(async move {
                let opened = match remote {
                    Ok(remote) => OriginStates::open(remote, &cache, turns).await,
                    Err(error) => Err(error),
                };
                match opened {
                    Ok(states) => Ok(Some(states)),
                    Err(error) if error.kind == RemoteErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Arc::new(error)),
                }
            })
        };
        self.names.get(name, open).await
    }
}

impl Served for Origins {
    fn is_single(&self) -> bool {
        self.is_single
    }

    fn known_as<'a>(&'a self, name: &'a str) -> &'a str {
        name
    }

    fn has(&self, name: &str) -> bool {
        match self.is_single {
            true => name.is_empty(),
            false => is_name(name),
        }
    }

    fn open<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Opened>, ServerError>> {
        Box::pin(async move {
            if !self.has(name) {
                return Ok(None);
            }
            let states = self.states(name).await?;
            let sql = self.origin.sql_url_of(name)?;
            Ok(states.map(|states| Opened {
                name: name.into(),
                sql: Arc::new(Forward {
                    client: Arc::clone(&self.client),
                    writer: Arc::new(ToOrigin {
                        url: sql,
                        states: Arc::clone(&states),
                    }),
                }),
                held: Arc::clone(&states) as _,
                states,
            }))
        })
    }

    fn report(self: Arc<Self>, _: u64) -> BoxFuture<'static, Report> {
        Box::pin(async move { report_of(&*self, Problem::of_origin()).await })
    }

    fn gauges(self: Arc<Self>) -> BoxFuture<'static, Vec<DatabaseGauges>> {
        Box::pin(async move {
            let opened = self.names.opened().into_iter();
            let gauges = opened.map(|(name, states)| gauges_of(name, &*states));
            gauges.collect()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let cache = Arc::clone(&self.cache);
            // A panic there has been reported by its thread.
            let _ = tokio::task::spawn_blocking(move || cache.finish()).await;
            self.names.close();
        })
    }
}
