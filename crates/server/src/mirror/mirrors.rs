//! The databases of a bucket by name, opened when they are asked for. Nothing is listed: a name is there if its head is.
//!
//! Anyone may ask for any name, and each that is looked for costs requests. So a few names are looked for at a time, one that is not there
//! keeps its turn for a moment, in which it is not looked for again, and few wait for a turn. A name that was there before waits for none.
//!
//! What must never happen here: that who makes up names makes requests to the bucket, or fills the memory, as fast as he asks.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
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

use super::{
    forward::Forward,
    opened::Mirror,
    options::{Mirroring, TakeOver},
    succession::{Silent, Succession},
};
use crate::{
    database::Opener,
    databases::{is_name, serving},
    error::ServerError,
    history::HistorySize,
    log_states::LogStates,
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
type Look = Result<Option<Arc<Mirror>>, Arc<StoreError>>;

/// The same for all who wait for it; `None` = the look panicked.
type Told = Shared<BoxFuture<'static, Option<Look>>>;

enum Slot {
    /// It is looked for, or was not there a moment ago.
    LookedFor(Told),
    Open {
        mirror: Arc<Mirror>,
        asked: Instant,
    },
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
            names: Arc::new(Names {
                most_open: most_open.max(1),
                known: Mutex::default(),
                turns: Semaphore::new(AT_A_TIME),
            }),
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
            mirror.written().await?;
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
            let mirrors: Vec<_> = this.opened().into_iter().map(|(_, mirror)| mirror).collect();
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
        let looked_for = {
            let mut known = self.names.known.lock();
            match known.slots.get_mut(name) {
                Some(Slot::Open { mirror, asked }) if mirror.states.check_open().is_ok() => {
                    *asked = Instant::now();
                    return Ok(Some(Arc::clone(mirror)));
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
        let succession = self.succession.clone();
        let claims = waits && succession.as_ref().is_some_and(|it| it.when == TakeOver::Now);
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
            let found = match Reader::open(bucket.clone(), read).await {
                Ok(reader) => {
                    let states = LogStates::new(reader);
                    Ok(Some(Mirror::new(
                        &looking.name,
                        bucket,
                        states,
                        succession,
                        claims,
                    )))
                }
                Err(StoreError::NoDatabase { .. }) => Ok(None),
                Err(error) => Err(Arc::new(error)),
            };
            let is_found = matches!(found, Ok(Some(_)));
            match &found {
                Ok(Some(mirror)) => looking.opened(Arc::clone(mirror)),
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
    fn opened(&self) -> Vec<(String, Arc<Mirror>)> {
        let known = self.names.known.lock();
        let opened = known.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Open { mirror, .. } => Some((name.clone(), Arc::clone(mirror))),
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
    fn opened(&self, mirror: Arc<Mirror>) {
        let mut known = self.names.known.lock();
        if known.closed {
            return;
        }
        known.found.insert(self.name.clone());
        let asked = Instant::now();
        known
            .slots
            .insert(self.name.clone(), Slot::Open { mirror, asked });
        let surplus = known.tidy(self.names.most_open);
        // Their ends need not be waited for by those who ask for names.
        drop((known, surplus));
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
    fn tidy(&mut self, most_open: usize) -> Vec<Slot> {
        let mut open = 0usize;
        let mut unused = Vec::new();
        for (name, slot) in &self.slots {
            if let Slot::Open { mirror, asked } = slot {
                open += 1;
                if !mirror.is_used(1) {
                    unused.push((*asked, name.clone()));
                }
            }
        }
        unused.sort();
        let surplus = unused.into_iter().take(open.saturating_sub(most_open));
        surplus.filter_map(|(_, name)| self.slots.remove(&name)).collect()
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
                    states: Arc::clone(&states),
                }),
                held: mirror,
                states,
            }))
        })
    }

    fn report(self: Arc<Self>, _: u64) -> BoxFuture<'static, Report> {
        Box::pin(async move {
            let failed = match self.is_single {
                // Every other request finds out for itself.
                true => match Served::open(&*self, "").await {
                    Ok(Some(opened)) => opened.states.up_to_date().await.err().map(drop),
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
            let gauges = opened.map(|(name, mirror)| {
                if let Some(database) = mirror.written_now() {
                    return serving::gauges_of(&database, &self.opener);
                }
                let (states, latest) = (&mirror.states, mirror.states.latest());
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
        let slots = {
            let mut known = self.names.known.lock();
            known.closed = true;
            std::mem::take(&mut known.slots)
        };
        Box::pin(async {
            for slot in slots.into_values() {
                if let Slot::Open { mirror, .. } = slot {
                    mirror.close(&*self.opener.sql).await;
                }
            }
        })
    }
}
