//! One replica of a history: its files, its handles and connections, and what the model knows of it.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use partial_sync::{Bootstrap, Builder, CancelHandle, Connection, Database, PartialSync};
use partial_sync_transport::Remote as RemoteTrait;
use partial_sync_vfs::crash::{CrashStorage, Survives};

use crate::{
    faults::Line,
    model::{State, Stock, Transaction},
    steps::{First, ReplicaSpec},
};

/// What a connection is in the middle of.
#[derive(Debug, Default)]
pub enum Txn {
    /// Nothing.
    #[default]
    None,
    /// A transaction that has not written; the states that it may be showing, once it has read.
    Reading(Option<Vec<Arc<State>>>),
    /// One that has the write lock; what it did.
    Writing(Transaction),
}

/// A connection.
pub struct Slot {
    /// The real one.
    pub conn: Connection,
    /// What it is in the middle of.
    pub txn: Txn,
}

/// See the module.
pub struct Replica {
    /// How it was opened first.
    pub spec: ReplicaSpec,
    /// Its number as a client.
    pub client: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its disk, unless its files are real.
    pub disk: Option<CrashStorage>,
    /// Its line to the remote.
    pub line: Line,
    /// The remote, seen through that line.
    pub remote: Arc<dyn RemoteTrait>,
    /// How long anything waits for a page.
    pub timeout: Duration,
    /// Handles; the second one is made by a second connect where files are real.
    pub handles: Vec<Database>,
    /// Connections by number.
    pub slots: BTreeMap<usize, Slot>,
    /// Whether a connect has succeeded.
    pub made: bool,
    /// Breaks waits.
    pub cancel: CancelHandle,
    /// Where a crash was asked for.
    pub crash: Option<Survives>,
    /// Crashes to check after the next step: before which operation, and what survives.
    pub forks: Vec<(u64, Survives)>,

    /// Whether the model knows what it is based on.
    pub is_known: bool,
    /// A pull is under way, and waits for what is done meanwhile: who takes turns with it waits in vain.
    pub is_pulling: bool,
    /// Whether a connect had succeeded before the step that is running.
    pub was_made: bool,
    /// What the step that is running may have committed, or not.
    pub maybe: Option<Transaction>,
    /// What was shown at any time since company came.
    pub shown: Vec<Arc<State>>,
    /// Every transaction that was committed locally, ever.
    pub log: Vec<Transaction>,
    /// How many of them the remote has.
    pub landed: usize,
    /// The remote's state it is based on; `None` = none yet.
    pub base: Option<usize>,
    /// What it shows: the base and the transactions after it, those of the open write transaction included.
    pub view: Stock,
    /// The same without the open transaction.
    pub committed: Arc<State>,
}

impl Replica {
    /// Options for opening the files at `path`.
    pub fn builder(&self, path: &PathBuf, remote: Arc<dyn RemoteTrait>) -> Builder {
        let first = match &self.spec.first {
            First::Prefix(bytes) => Some(Bootstrap::prefix(*bytes)),
            First::Query(sql) => Some(Bootstrap::query(sql.clone())),
            First::Whole | First::Nothing => None,
        };
        let builder = Database::builder(path)
            .remote_with(remote)
            .client_name(format!("c{}", self.client))
            .seed(self.client)
            .timeout(self.timeout)
            .busy_timeout(Duration::from_millis(1))
            .push_operations_threshold(self.spec.threshold)
            .bootstrap_if_empty(self.spec.first != First::Nothing);
        let builder = match self.spec.lists {
            true => builder.longest_question(0),
            false => builder,
        };
        match self.spec.first {
            First::Whole => builder,
            _ => builder.partial(PartialSync {
                bootstrap: first,
                segment_size: Some(self.spec.segment),
                prefetch: self.spec.prefetch,
            }),
        }
    }

    /// Whether somebody else than connection `conn` has the write lock.
    pub fn is_written_by_another(&self, conn: usize) -> bool {
        self.slots
            .iter()
            .any(|(n, slot)| *n != conn && matches!(slot.txn, Txn::Writing(_)))
    }

    /// Whether a write transaction is open.
    pub fn is_written(&self) -> bool {
        self.is_written_by_another(usize::MAX)
    }

    /// Whether any transaction is open.
    pub fn has_transactions(&self) -> bool {
        self.slots.values().any(|slot| !matches!(slot.txn, Txn::None))
    }

    /// From now on it shows this.
    pub fn show(&mut self, state: State) {
        self.committed = Arc::new(state);
        self.shown.push(self.committed.clone());
    }

    /// Whether its disk has stopped.
    pub fn has_stopped(&self) -> bool {
        self.disk.as_ref().is_some_and(CrashStorage::has_stopped)
    }

    /// Closes everything. An open transaction is rolled back, in the model too.
    pub fn close(&mut self) {
        if self.is_written() {
            let _ = self.view.run("ROLLBACK");
        }
        self.slots.clear();
        self.handles.clear();
    }
}
