//! The databases of a bucket by name, opened when they are asked for. Nothing is listed: a name is there if its head is.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use partial_sync_store::{Reader, StoreError};
use partial_sync_transport::{HttpClient, http::ReqwestClient};
use tokio::time::Instant;

use super::{forward::Forward, options::Mirroring, states::LogStates};
use crate::{
    databases::is_name,
    error::ServerError,
    history::HistorySize,
    metrics::DatabaseGauges,
    ready::{Problem, Report},
    served::{Opened, Served},
    states::States,
};

/// See the module.
pub(crate) struct Mirrors {
    options: Mirroring,
    client: Arc<dyn HttpClient>,
    /// There is one, without a name.
    is_single: bool,
    most_open: usize,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The place of one name.
struct Slot {
    /// While it is open; who opens it holds this.
    states: tokio::sync::Mutex<Option<Arc<LogStates>>>,
    asked: Mutex<Instant>,
}

impl Mirrors {
    /// Looks what there is.
    pub(crate) async fn new(options: Mirroring, most_open: usize) -> Result<Self, ServerError> {
        let client = ReqwestClient::new().map_err(|source| ServerError::NoClient(source.to_string()))?;
        let mut this = Self {
            options,
            client: Arc::new(client),
            is_single: true,
            most_open: most_open.max(1),
            slots: Mutex::default(),
        };
        let found = this.states("").await?;
        this.is_single = found.is_some();
        match found {
            Some(states) => tracing::info!(?states, "the database of the bucket"),
            None => tracing::info!(
                "the bucket has no database at its own name: those below it are served by their names"
            ),
        }
        Ok(this)
    }

    /// The states of a database; `None` = there is none of that name.
    async fn states(&self, name: &str) -> Result<Option<Arc<LogStates>>, ServerError> {
        let slot = {
            let mut slots = self.slots.lock();
            let slot = slots.entry(name.to_owned()).or_insert_with(|| {
                Arc::new(Slot {
                    states: tokio::sync::Mutex::default(),
                    asked: Mutex::new(Instant::now()),
                })
            });
            Arc::clone(slot)
        };
        *slot.asked.lock() = Instant::now();
        let mut states = slot.states.lock().await;
        if let Some(states) = states.as_ref().filter(|states| states.check_open().is_ok()) {
            return Ok(Some(Arc::clone(states)));
        }
        *states = None;
        let opened = Reader::open(self.options.place(name)?, self.options.read.clone()).await;
        let found = match opened {
            Ok(reader) => Some(LogStates::new(reader)),
            Err(StoreError::NoDatabase { .. }) => None,
            Err(error) => {
                drop(states);
                self.tidy(name, &slot);
                return Err(error.into());
            }
        };
        states.clone_from(&found);
        drop(states);
        self.tidy(name, &slot);
        Ok(found)
    }

    /// Forgets a name that is not there, and the databases that were not asked for the longest, if too many are open and nobody uses
    /// them.
    fn tidy(&self, name: &str, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        let is_empty = slot.states.try_lock().is_ok_and(|states| states.is_none());
        if is_empty && Arc::strong_count(slot) == 2 {
            slots.remove(name);
        }
        if slots.len() <= self.most_open {
            return;
        }
        let mut asked: Vec<_> = slots
            .iter()
            .filter(|(_, slot)| Arc::strong_count(slot) == 1)
            .filter(|(_, slot)| {
                let states = slot.states.try_lock();
                // Held here, and by nobody who answers from it.
                let is_used = |states: &Arc<LogStates>| Arc::strong_count(states) > 1 || states.has_waiters();
                states.is_ok_and(|states| states.as_ref().is_none_or(|states| !is_used(states)))
            })
            .map(|(name, slot)| (*slot.asked.lock(), name.clone()))
            .collect();
        asked.sort();
        let surplus = slots.len() - self.most_open;
        for (_, name) in asked.into_iter().take(surplus) {
            slots.remove(&name);
        }
    }

    /// Those that are open.
    fn opened(&self) -> Vec<(String, Arc<LogStates>)> {
        let slots = self.slots.lock();
        let opened = slots.iter().filter_map(|(name, slot)| {
            let states = slot.states.try_lock().ok()?.clone()?;
            Some((name.clone(), states))
        });
        opened.collect()
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
            let states = self.states(name).await?;
            Ok(states.map(|states| Opened {
                name: name.into(),
                sql: Arc::new(Forward {
                    client: Arc::clone(&self.client),
                    states: Arc::clone(&states),
                }),
                held: Arc::clone(&states) as _,
                states,
            }))
        })
    }

    fn report(self: Arc<Self>, _: u64) -> BoxFuture<'static, Report> {
        Box::pin(async move {
            let failed = match self.is_single {
                // Every other request finds out for itself.
                true => match self.states("").await {
                    Ok(Some(states)) => states.up_to_date().await.err().map(drop),
                    _ => Some(()),
                },
                false => None,
            };
            Report {
                problems: failed.map(|()| Problem::of_bucket()).into_iter().collect(),
                comparing: Vec::new(),
            }
        })
    }

    fn gauges(self: Arc<Self>) -> BoxFuture<'static, Vec<DatabaseGauges>> {
        Box::pin(async move {
            let opened = self.opened().into_iter();
            let gauges = opened.map(|(name, states)| {
                let latest = states.latest();
                DatabaseGauges {
                    name,
                    seq: latest.at.seq.0,
                    pages: latest.at.db_size.0,
                    history: HistorySize::default(),
                    wal: None,
                    wal_syncs: 0,
                    disk_free: None,
                    followed: states.check_open().is_ok(),
                    history_reach: 0,
                    uncompared: 0,
                }
            });
            gauges.collect()
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.slots.lock().clear();
        Box::pin(std::future::ready(()))
    }
}
