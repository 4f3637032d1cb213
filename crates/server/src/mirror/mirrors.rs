//! The databases of a bucket by name, opened when they are asked for. Nothing is listed: a name is there if its head is.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use partial_sync_core::PageNo;
use partial_sync_store::{Reader, StoreError};
use partial_sync_transport::{HttpClient, http::ReqwestClient};

use super::{
    opened::Mirror,
    options::{Mirroring, TakeOver},
    succession::{Silent, Succession},
};
use crate::{
    database::Opener,
    databases::{is_name, serving},
    error::ServerError,
    forward::Forward,
    log_states::LogStates,
    metrics::DatabaseGauges,
    names::{Named, Names},
    ready::{Problem, Report},
    served::{Opened, Served, gauges_of, report_of},
    states::States,
};

/// How often writers are asked whether they are there.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Mirrors {
    options: Mirroring,
    opener: Arc<Opener>,
    succession: Option<Arc<Succession>>,
    client: Arc<dyn HttpClient>,
    /// There is one, without a name.
    is_single: bool,
    names: Arc<Names<Mirror, Arc<StoreError>>>,
}

impl Named for Mirror {
    fn is_open(&self) -> bool {
        self.states.check_open().is_ok()
    }

    fn is_used(self: &Arc<Self>) -> bool {
        // Held here.
        Mirror::is_used(self, 1)
    }
}

impl Mirrors {
    /// Looks what there is.
    pub(crate) async fn new(
        options: Mirroring,
        opener: Opener,
        most_open: usize,
    ) -> Result<Arc<Self>, ServerError> {
        let client = ReqwestClient::new().map_err(|source| ServerError::NoClient(source.to_string()))?;
        let opener = Arc::new(opener);
        let succession = options.take_over.clone().map(|(when, url)| {
            Arc::new(Succession {
                opener: Arc::clone(&opener),
                url,
                when,
                folder: options.read.folder.as_ref().map(|folder| folder.path.clone()),
            })
        });
        let mut this = Self {
            options,
            opener,
            succession,
            client: Arc::new(client),
            is_single: true,
            names: Names::new(most_open, || ServerError::LogTooSlow),
        };
        let found = this.mirror("").await?;
        this.is_single = found.is_some();
        match &found {
            Some(mirror) => tracing::info!(?mirror, "the database of the bucket"),
            None => tracing::info!(
                "the bucket has no database at its own name: those below it are served by their names"
            ),
        }
        if let Some(mirror) = found {
            match mirror.written().await {
                Err(error) if !mirror.is_claimed() => {
                    tracing::error!(%error, "this server could not become the writer that it was");
                }
                written => drop(written?),
            }
        }
        let this = Arc::new(this);
        if let Some(TakeOver::After(lease)) = this.succession.as_ref().map(|it| it.when) {
            tokio::spawn(Self::succeed_writers(Arc::downgrade(&this), lease));
        }
        Ok(this)
    }

    /// Takes the databases over whose writers are gone, for as long as this server runs.
    async fn succeed_writers(me: Weak<Self>, lease: Duration) {
        let mut silent = Silent::default();
        loop {
            tokio::time::sleep(ASK_EVERY.min(lease)).await;
            let Some(this) = me.upgrade() else { return };
            let mirrors: Vec<_> = this
                .names
                .opened()
                .into_iter()
                .map(|(_, mirror)| mirror)
                .collect();
            let waiting = mirrors.iter().filter(|mirror| mirror.written_now().is_none());
            let writers: Vec<_> = waiting.filter_map(|mirror| mirror.states.writer()).collect();
            let gone = silent.longer_than(lease, &this.client, writers.into_iter()).await;
            for mirror in mirrors {
                if mirror
                    .states
                    .writer()
                    .is_some_and(|writer| gone.contains(&writer))
                    && let Err(error) = mirror.succeed(&gone).await
                {
                    tracing::warn!(?mirror, %error, "the writer is gone, and this server could not take its place");
                }
            }
        }
    }

    /// A database; `None` = there is none of that name.
    async fn mirror(&self, name: &str) -> Result<Option<Arc<Mirror>>, ServerError> {
        let open = |is_new: bool| {
            let (place, read) = (self.options.place(name), self.options.read.clone());
            let succession = self.succession.clone();
            let claims = is_new && succession.as_ref().is_some_and(|it| it.when == TakeOver::Now);
            let name = name.to_owned();
            Ok(async move {
                let opened = async {
                    let bucket = place?;
                    let reader = Reader::open(bucket.clone(), read).await?;
                    Ok((bucket, reader))
                };
                match opened.await {
                    Ok((bucket, reader)) => {
                        let (first, latest) = (reader.clone(), reader.latest());
                        // What every replica begins with; if it cannot be read now, it is when it is asked for.
                        tokio::spawn(async move { first.pages(latest, &[PageNo::FIRST]).await.map(drop) });
                        let states = LogStates::new(reader);
                        Ok(Some(Mirror::new(&name, bucket, states, succession, claims)))
                    }
                    Err(StoreError::NoDatabase { .. }) => Ok(None),
                    Err(error) => Err(Arc::new(error)),
                }
            })
        };
        self.names.get(name, open).await
    }
}

impl Served for Mirrors {
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
            let Some(mirror) = self.mirror(name).await? else {
                return Ok(None);
            };
            match mirror.written().await {
                Ok(Some(database)) => return Ok(Some(serving::opened(database, &self.opener.sql))),
                Ok(None) => {}
                // What the bucket has can be served all the same.
                Err(error) => {
                    tracing::error!(database = name, %error, "this server could not become the writer")
                }
            }
            let states = Arc::clone(&mirror.states);
            Ok(Some(Opened {
                name: name.into(),
                sql: Arc::new(Forward {
                    client: Arc::clone(&self.client),
                    writer: Arc::clone(&states) as _,
                }),
                held: mirror,
                states,
            }))
        })
    }

    fn report(self: Arc<Self>, _: u64) -> BoxFuture<'static, Report> {
        Box::pin(async move { report_of(&*self, Problem::of_bucket()).await })
    }

    fn gauges(self: Arc<Self>) -> BoxFuture<'static, Vec<DatabaseGauges>> {
        Box::pin(async move {
            let opened = self.names.opened().into_iter();
            let gauges = opened.map(|(name, mirror)| match mirror.written_now() {
                Some(database) => serving::gauges_of(&database, &self.opener),
                None => gauges_of(name, &*mirror.states),
            });
            gauges.collect()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let mirrors = self.names.close();
        Box::pin(async {
            for mirror in mirrors {
                mirror.close(&*self.opener.sql).await;
            }
        })
    }
}
