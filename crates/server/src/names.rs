//! Databases by name, opened when they are asked for, where nobody says which there are: a name is there if who has them answers for it.
//!
//! Anyone may ask for any name, and each that is looked for costs requests. So a few names are looked for at a time, one that is not there
//! keeps its turn for a moment, in which it is not looked for again, and few wait for a turn. A name that was there before waits for none.
//!
//! What must never happen here: that who makes up names makes requests to others, or fills the memory, as fast as he asks.

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
use tokio::{
    sync::{Semaphore, oneshot},
    time::Instant,
};

use crate::error::ServerError;

/// Names that are looked for at a time, and how long one that is not there keeps its turn.
const AT_A_TIME: usize = 8;
const ABSENT: Duration = Duration::from_secs(1);
/// Names that are looked for or wait for that.
const MOST_LOOKED_FOR: usize = 32;
/// How long who asks for a name waits until it is found or not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database that is open.
pub(crate) trait Named: Send + Sync + 'static {
    /// Whether it is still what it was.
    fn is_open(&self) -> bool;

    /// Whether somebody answers from it, or waits for news of it, besides the names.
    fn is_used(self: &Arc<Self>) -> bool;
}

/// See the module.
pub(crate) struct Names<D, E> {
    most_open: usize,
    /// What is told to those who have waited too long.
    too_slow: fn() -> ServerError,
    known: Mutex<Known<D, E>>,
    turns: Semaphore,
}

struct Known<D, E> {
    slots: HashMap<String, Slot<D, E>>,
    /// Were there when they were looked for last.
    found: HashSet<String>,
    /// Names that were not, and are looked for.
    looked_for: usize,
    /// None is opened any more.
    closed: bool,
}

/// What becomes of a look for a name; `None` = there is no such database.
type Look<D, E> = Result<Option<Arc<D>>, E>;

/// The same for all who wait for it; `None` = the look panicked.
type Told<D, E> = Shared<BoxFuture<'static, Option<Look<D, E>>>>;

enum Slot<D, E> {
    /// It is looked for, or was not there a moment ago.
    LookedFor(Told<D, E>),
    Open {
        database: Arc<D>,
        asked: Instant,
    },
}

impl<D: Named, E: Clone + Send + Sync + Into<ServerError> + 'static> Names<D, E> {
    /// So many are open at a time; more are only while more are used.
    pub(crate) fn new(most_open: usize, too_slow: fn() -> ServerError) -> Arc<Self> {
        Arc::new(Self {
            most_open: most_open.max(1),
            too_slow,
            known: Mutex::new(Known {
                slots: HashMap::new(),
                found: HashSet::new(),
                looked_for: 0,
                closed: false,
            }),
            turns: Semaphore::new(AT_A_TIME),
        })
    }

    /// The database of a name, which is opened if it is not; `None` = there is none. Who opens it is told whether it is asked for the first
    /// time, or was not there.
    pub(crate) async fn get<F>(
        self: &Arc<Self>,
        name: &str,
        open: impl FnOnce(bool) -> Result<F, ServerError>,
    ) -> Result<Option<Arc<D>>, ServerError>
    where
        F: Future<Output = Look<D, E>> + Send + 'static,
    {
        let looked_for = {
            let mut known = self.known.lock();
            match known.slots.get_mut(name) {
                Some(Slot::Open { database, asked }) if database.is_open() => {
                    *asked = Instant::now();
                    return Ok(Some(Arc::clone(database)));
                }
                Some(Slot::LookedFor(look)) => look.clone(),
                _ => self.look(&mut known, name, open)?,
            }
        };
        let looked = tokio::time::timeout(PATIENCE, looked_for).await;
        let looked = looked.map_err(|_| (self.too_slow)())?;
        let looked = looked.ok_or(ServerError::Stopping)?;
        looked.map_err(Into::into)
    }

    /// Begins to look for a name. A task of its own, which continues also when nobody waits for it.
    fn look<F>(
        self: &Arc<Self>,
        known: &mut Known<D, E>,
        name: &str,
        open: impl FnOnce(bool) -> Result<F, ServerError>,
    ) -> Result<Told<D, E>, ServerError>
    where
        F: Future<Output = Look<D, E>> + Send + 'static,
    {
        if known.closed {
            return Err(ServerError::Stopping);
        }
        let waits = !known.found.contains(name);
        if waits && known.looked_for >= MOST_LOOKED_FOR {
            return Err(ServerError::ManyNames);
        }
        let open = open(waits)?;
        known.looked_for += usize::from(waits);
        let (tell, told) = oneshot::channel::<Look<D, E>>();
        let told = told.map(Result::ok).boxed().shared();
        known.slots.insert(name.to_owned(), Slot::LookedFor(told.clone()));
        let looking = Looking {
            names: Arc::clone(self),
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
            let found = open.await;
            let is_found = matches!(found, Ok(Some(_)));
            match &found {
                Ok(Some(database)) => looking.opened(Arc::clone(database)),
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
    pub(crate) fn opened(&self) -> Vec<(String, Arc<D>)> {
        let known = self.known.lock();
        let opened = known.slots.iter().filter_map(|(name, slot)| match slot {
            Slot::Open { database, .. } => Some((name.clone(), Arc::clone(database))),
            Slot::LookedFor(_) => None,
        });
        opened.collect()
    }

    /// Lets go of all. None is opened after it.
    pub(crate) fn close(&self) -> Vec<Arc<D>> {
        let slots = {
            let mut known = self.known.lock();
            known.closed = true;
            std::mem::take(&mut known.slots)
        };
        let opened = slots.into_values().filter_map(|slot| match slot {
            Slot::Open { database, .. } => Some(database),
            Slot::LookedFor(_) => None,
        });
        opened.collect()
    }
}

/// A look that is under way, and its end whatever happens.
struct Looking<D, E: Clone> {
    names: Arc<Names<D, E>>,
    name: String,
    told: Told<D, E>,
    waits: bool,
}

impl<D: Named, E: Clone> Looking<D, E> {
    /// It is there.
    fn opened(&self, database: Arc<D>) {
        let mut known = self.names.known.lock();
        if known.closed {
            return;
        }
        known.found.insert(self.name.clone());
        let asked = Instant::now();
        known
            .slots
            .insert(self.name.clone(), Slot::Open { database, asked });
        let surplus = known.tidy(self.names.most_open);
        // Their ends need not be waited for by those who ask for names.
        drop((known, surplus));
    }
}

impl<D, E: Clone> Looking<D, E> {
    /// Who asks next looks again.
    fn forget(&self, known: &mut Known<D, E>) {
        if let Some(Slot::LookedFor(told)) = known.slots.get(&self.name)
            && told.ptr_eq(&self.told)
        {
            known.slots.remove(&self.name);
        }
    }
}

impl<D, E: Clone> Drop for Looking<D, E> {
    fn drop(&mut self) {
        let mut known = self.names.known.lock();
        known.looked_for -= usize::from(self.waits);
        self.forget(&mut known);
    }
}

impl<D: Named, E> Known<D, E> {
    /// Forgets the databases that were not asked for the longest, if too many are open and nobody uses them.
    fn tidy(&mut self, most_open: usize) -> Vec<Slot<D, E>> {
        let mut open = 0usize;
        let mut unused = Vec::new();
        for (name, slot) in &self.slots {
            if let Slot::Open { database, asked } = slot {
                open += 1;
                if !database.is_used() {
                    unused.push((*asked, name.clone()));
                }
            }
        }
        unused.sort();
        let surplus = unused.into_iter().take(open.saturating_sub(most_open));
        surplus.filter_map(|(_, name)| self.slots.remove(&name)).collect()
    }
}
