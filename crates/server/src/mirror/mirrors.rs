//! The databases of a bucket by name, opened when they are asked for. Nothing is listed: a name is there if its head is.
//!
//! Anyone may ask for any name, and each that is looked for costs requests. So a few names are looked for at a time, one that is not there
//! keeps its turn for a moment, in which it is not looked for again, and few wait for a turn. A name that was there before waits for none.
//!
//! What must never happen here: that who makes up names makes requests to the bucket, or fills the memory, as fast as he asks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use partial_sync_store::{Reader, StoreError};
use partial_sync_transport::{HttpClient, http::ReqwestClient};
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

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

/// Names that are looked for at a time, and how long one that is not there keeps its turn.
const AT_A_TIME: usize = 8;
const ABSENT: Duration = Duration::from_secs(1);
/// Names that are looked for or wait for that.
const MOST_LOOKED_FOR: usize = 32;
/// How long who asks for a name waits until it is found or not.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Mirrors {
    options: Mirroring,
    client: Arc<dyn HttpClient>,
    /// There is one, without a name.
    is_single: bool,
    names: Arc<Names>,
}

struct Names {
    most_open: usize,
    known: Mutex<Known>,
    turns: Semaphore,
}

#[derive(Default)]
struct Known {
    slots: HashMap<String, Slot>,
    /// Were there when they were looked for last.
    found: HashSet<String>,
    /// Names that were not, and are looked for.
    looked_for: usize,
    /// None is opened any more.
    closed: bool,
}

/// What becomes of a look for a name; `None` = there is no such database.
type Look = Result<Option<Arc<LogStates>>, Arc<StoreError>>;

/// The same for all who wait for it; `None` = the look panicked.
type Told = Shared<BoxFuture<'static, Option<Look>>>;

enum Slot {
    /// It is looked for, or was not there a moment ago.
    LookedFor(Told),
    Open {
        states: Arc<LogStates>,
        asked: Instant,
    },
}

impl Mirrors {
    /// Looks what there is.
    pub(crate) async fn new(options: Mirroring, most_open: usize) -> Result<Self, ServerError> {
        let client = ReqwestClient::new().map_err(|source| ServerError::NoClient(source.to_string()))?;
        let mut this = Self {
            options,
            client: Arc::new(client),
            is_single: true,
            names: Arc::new(Names {
                most_open: most_open.max(1),
                known: Mutex::default(),
                turns: Semaphore::new(AT_A_TIME),
            }),
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
        let looked_for = {
            let mut known = self.names.known.lock();
            match known.slots.get_mut(name) {
                Some(Slot::Open { states, asked }) if states.check_open().is_ok() => {
                    *asked = Instant::now();
                    return Ok(Some(Arc::clone(states)));
                }
                Some(Slot::LookedFor(look)) => look.clone(),
                _ => self.look(&mut known, name)?,
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looked_for).await;
        let looked = looked.map_err(|_| ServerError::LogTooSlow)?;
        let looked = looked.ok_or(ServerError::Stopping)?;
        Ok(looked.map_err(StoreError::Shared)?)
    }

    /// Begins to look for a name. A task of its own, which continues also when nobody waits for it.
    fn look(&self, known: &mut Known, name: &str) -> Result<Told, ServerError> {
        if known.closed {
            return Err(ServerError::Stopping);
        }
        let bucket = self.options.place(name)?;
        let waits = !known.found.contains(name);
        if waits && known.looked_for >= MOST_LOOKED_FOR {
            return Err(ServerError::ManyNames);
        }
        known.looked_for += usize::from(waits);
        let (tell, told) = oneshot::channel::<Look>();
        let told = told.map(Result::ok).boxed().shared();
        known.slots.insert(name.to_owned(), Slot::LookedFor(told.clone()));
        let read = self.options.read.clone();
        let looking = Looking {
            names: Arc::clone(&self.names),
            name: name.to_owned(),
            told: told.clone(),
            waits,
        };
        tokio::spawn(async move {
            let turn = match waits {
                // It is never closed.
                true => looking.names.turns.acquire().await.ok(),
                false => None,
            };
            let found = match Reader::open(bucket, read).await {
                Ok(reader) => Ok(Some(LogStates::new(reader))),
                Err(StoreError::NoDatabase { .. }) => Ok(None),
                Err(error) => Err(Arc::new(error)),
            };
            let is_found = matches!(found, Ok(Some(_)));
            match &found {
                Ok(Some(states)) => looking.opened(Arc::clone(states)),
                Ok(None) => drop(looking.names.known.lock().found.remove(&looking.name)),
                Err(_) => looking.forget(&mut looking.names.known.lock()),
            }
            // It fails when nobody waits any more.
            let _ = tell.send(found);
            if !is_found {
                tokio::time::sleep(ABSENT).await;
            }
            drop(turn);
        });
        Ok(told)
    }

    /// Those that are open.
    fn opened(&self) -> Vec<(String, Arc<LogStates>)> {
        let known = self.names.known.lock();
        let opened = known.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Open { states, .. } => Some((name.clone(), Arc::clone(states))),
            Slot::LookedFor(_) => None,
        });
        opened.collect()
    }
}

/// A look that is under way, and its end whatever happens.
struct Looking {
    names: Arc<Names>,
    name: String,
    told: Told,
    waits: bool,
}

impl Looking {
    /// Whoever asks next looks again.
    fn forget(&self, known: &mut Known) {
        if let Some(Slot::LookedFor(told)) = known.slots.get(&self.name)
            && told.ptr_eq(&self.told)
        {
            known.slots.remove(&self.name);
        }
    }

    /// It is there.
    fn opened(&self, states: Arc<LogStates>) {
        let mut known = self.names.known.lock();
        if known.closed {
            return;
        }
        known.found.insert(self.name.clone());
        let asked = Instant::now();
        known
            .slots
            .insert(self.name.clone(), Slot::Open { states, asked });
        known.tidy(self.names.most_open);
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let mut known = self.names.known.lock();
        known.looked_for -= usize::from(self.waits);
        self.forget(&mut known);
    }
}

impl Known {
    /// Forgets the databases that were not asked for the longest, if too many are open and nobody uses them.
    fn tidy(&mut self, most_open: usize) {
        let mut open = 0usize;
        let mut unused = Vec::new();
        for (name, slot) in &self.slots {
            if let Slot::Open { states, asked } = slot {
                open += 1;
                // Held here, and by nobody who answers from it.
                if Arc::strong_count(states) == 1 && !states.has_waiters() {
                    unused.push((*asked, name.clone()));
                }
            }
        }
        unused.sort();
        for (_, name) in unused.into_iter().take(open.saturating_sub(most_open)) {
            self.slots.remove(&name);
        }
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
        let mut known = self.names.known.lock();
        known.closed = true;
        known.slots.clear();
        Box::pin(std::future::ready(()))
    }
}
