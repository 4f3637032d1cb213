//! [`Database`]: a replica (or a plain local database), its files, its remote, and what can be done with them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use partial_sync_core::ChangeId;

use crate::{
    checkpoint::{OPERATION, checkpoint},
    discard::{self, LocalChange},
    error::{Error, Result},
    look::stats::{Stats, stats},
    open::{
        close::CLOSE_WAIT,
        local::Local,
        options::Builder,
        paths::full_path,
        replica::{OPEN, OpenReplica},
        session::Session,
    },
    pull, push,
    runtime::CancelHandle,
    sql::connection::Connection,
};

/// How often closing looks whether the files are given back.
const CLOSE_LOOK: Duration = Duration::from_millis(5);

/// An open database. Cheap to clone; the files are given back when the last clone and the last connection are gone.
///
/// A replica may be opened several times in a process: all share its files, pages and requests, and each has its own
/// deadlines, thresholds, transform and cancellation.
#[derive(Clone)]
pub struct Database {
    inner: Opened,
    options: Arc<Builder>,
}

#[derive(Clone)]
enum Opened {
    Local(Arc<Local>),
    Replica(Arc<OpenReplica>),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Begins to say what to open. `:memory:` leaves no file.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref().to_owned())
    }

    /// A handle of a replica.
    pub(crate) fn replica(open: Arc<OpenReplica>, options: Builder) -> Self {
        Self {
            inner: Opened::Replica(open),
            options: Arc::new(options),
        }
    }

    /// A handle of a plain local database.
    pub(crate) fn local(local: Local, options: Builder) -> Self {
        Self {
            inner: Opened::Local(Arc::new(local)),
            options: Arc::new(options),
        }
    }

    /// Gives this handle back and, when it was the last one, closes the replica: waits until its files are closed and
    /// says whether all of it went well. Dropping the last handle does the same without saying.
    ///
    /// [`Error::LeftOpen`] when other handles, connections or statements keep the replica open and do not go in time (the
    /// handle's timeout, at most 5 seconds); it closes with the last of them.
    pub fn close(self) -> Result<()> {
        let Self { inner, options } = self;
        let is_left: Box<dyn Fn() -> bool> = match inner {
            Opened::Local(local) => {
                let left = Arc::downgrade(&local);
                Box::new(move || left.strong_count() > 0)
            }
            Opened::Replica(open) => {
                let left = Arc::downgrade(&open);
                if let Some(mut open) = Arc::into_inner(open) {
                    return open.give_back();
                }
                Box::new(move || left.strong_count() > 0 || OPEN.has(&left))
            }
        };
        let deadline = Instant::now() + options.timeout.min(CLOSE_WAIT);
        while is_left() {
            if Instant::now() >= deadline {
                return Err(Error::LeftOpen {
                    path: options.path.clone(),
                    what: "other handles, connections or statements",
                });
            }
            std::thread::sleep(CLOSE_LOOK);
        }
        Ok(())
    }

    /// A new connection. Connections are for one thread at a time each; open as many as there are threads.
    pub fn connection(&self) -> Result<Connection> {
        match &self.inner {
            Opened::Local(local) => local.connection(self.options.busy_timeout),
            Opened::Replica(open) => open.connection(self.options.busy_timeout),
        }
    }

    /// The path by which this process knows the database at `path`: one file in one folder has one, whatever the current
    /// folder is and however the folder is spelled. It need not be there yet, but its folder must. Not for `:memory:`.
    ///
    /// # Errors
    /// The folder is not there, or the path names no file.
    pub fn full_path(path: impl AsRef<Path>) -> Result<PathBuf> {
        full_path(path.as_ref())
    }

    /// Where the database is; `:memory:` for one that leaves no file.
    pub fn path(&self) -> &Path {
        match &self.inner {
            Opened::Local(local) if local.memory.is_none() => &local.path,
            _ => &self.options.path,
        }
    }

    /// Whether this is a replica (of a remote, reachable or not), and no plain local database.
    pub fn is_replica(&self) -> bool {
        matches!(self.inner, Opened::Replica(_))
    }

    pub(crate) fn open_replica(&self, operation: &'static str) -> Result<&OpenReplica> {
        match &self.inner {
            Opened::Local(_) => Err(Error::NoRemote { operation }),
            Opened::Replica(open) => Ok(open),
        }
    }

    pub(crate) fn session(&self, operation: &'static str) -> Result<Session<'_>> {
        Ok(Session::new(self.open_replica(operation)?, &self.options))
    }

    /// Brings the remote's changes and puts local ones that were not pushed back on top. True when something changed.
    pub fn pull(&self) -> Result<bool> {
        pull::pull(&self.session("a pull")?, self.options.long_poll)
    }

    /// The same, letting the remote wait this long for a change before it answers that there is none.
    pub fn pull_waiting(&self, wait: Duration) -> Result<bool> {
        pull::pull(&self.session("a pull")?, Some(wait))
    }

    /// Sends the local changes that were committed before it began to the remote, whole transactions in order; what is committed
    /// meanwhile may wait for the next push. What the remote confirmed leaves the change log, also when a later batch fails.
    pub fn push(&self) -> Result<()> {
        push::push(&self.session("a push")?)
    }

    /// Gives up one local change: it is neither pushed nor put back. The way out when the remote refuses it. With it goes
    /// what one row's change came with: rows that triggers, foreign-key actions and conflict clauses wrote
    /// ([`LocalChange::unit`]). What it did is gone from here with the next pull. False when there is no such change, or the remote
    /// has it: that is asked first where a push got no answer.
    pub fn discard_change(&self, change: ChangeId) -> Result<bool> {
        let gone = discard::discard(&self.session("discarding a change")?, change, false)?;
        Ok(!gone.is_empty())
    }

    /// The same, with every later change that cannot stay without it: of the same rows, of rows that refer to them by a
    /// foreign key, what could be written only because a key or unique value was free, and for a schema change of whatever
    /// it made or altered. What a statement or trigger computed from other rows is not looked at. Gives the changes that
    /// were given up.
    pub fn discard_change_with_dependents(&self, change: ChangeId) -> Result<Vec<ChangeId>> {
        discard::discard(&self.session("discarding a change")?, change, true)
    }

    /// Local changes that were not pushed, in order: at most `limit` of those after `after` (from the first one on:
    /// `ChangeId(0)`).
    pub fn local_changes(&self, after: ChangeId, limit: usize) -> Result<Vec<LocalChange>> {
        discard::list(&self.session("listing changes")?, after, limit)
    }

    /// Moves what is in the WAL into the database file and empties the WAL, as far as readers allow.
    pub fn checkpoint(&self) -> Result<()> {
        match &self.inner {
            Opened::Local(_) => self
                .connection()?
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)"),
            Opened::Replica(_) => checkpoint(&self.session(OPERATION)?),
        }
    }

    /// Counters and sizes.
    pub fn stats(&self) -> Result<Stats> {
        match &self.inner {
            Opened::Local(_) => Ok(Stats::default()),
            Opened::Replica(open) => stats(open),
        }
    }

    /// Breaks a pull, push, checkpoint or hydration that is under way, whatever it waits for, from any thread.
    pub fn cancel_handle(&self) -> Result<CancelHandle> {
        self.open_replica("cancelling")?;
        Ok(self.options.cancel.clone())
    }
}
