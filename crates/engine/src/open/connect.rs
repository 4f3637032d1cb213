//! [`Builder::connect`]: a plain local database, a replica that this process has open already, one that is in its files, or one
//! that is made from the remote.

use std::sync::Arc;

use partial_sync_transport::{Remote, ReplaceableToken};
use partial_sync_vfs::{MemoryStorage, OsStorage, Storage, sqlite::check_build};

use crate::{
    database::Database,
    error::{Error, Result},
    fetch::by_running::run_bootstrap_query,
    open::{
        files::open_or_make,
        first_connect::remove_files,
        info::Info,
        local::open_local,
        options::{Builder, DEFAULT_TIMEOUT},
        paths::{full_path, memory_path},
        remote::{self, ReplicaRemote},
        replica::{OPEN, OpenReplica},
        session::Session,
        sharing::Claim,
    },
    pull,
    runtime::runtime,
};

impl Builder {
    /// Opens the database, bootstrapping it from the remote when it is not here yet. A replica that is here is opened
    /// without asking the remote for anything.
    pub fn connect(self) -> Result<Database> {
        let begun = self.cancel.moment();
        check_build()?;
        self.check()?;
        let in_memory = self.path.as_os_str() == ":memory:";
        let storage: Arc<dyn Storage> = match &self.storage {
            Some(storage) => storage.clone(),
            None if in_memory => Arc::new(MemoryStorage::default()),
            None => Arc::new(OsStorage),
        };
        let path = match in_memory {
            true => memory_path(),
            false => full_path(&self.path)?,
        };
        let token = ReplaceableToken::new(self.token.clone());
        let given = remote::given(&self, &token)?;
        let info = Info::load(&*storage, &path)?;
        if given.is_none() && info.is_none() {
            let local = open_local(&self, path, in_memory)?;
            return Ok(Database::local(local, self));
        }
        let mut reservation = None;
        if self.storage.is_none() && !in_memory {
            match OPEN.claim(&path, &self, begun)? {
                Claim::Join(open) => {
                    join(&open, &self, given)?;
                    return Ok(Database::replica(open, self));
                }
                Claim::Open(ours) => reservation = Some(ours),
            }
        }
        let access = ReplicaRemote::of(given, info.as_ref(), &self, token);
        // Now and not at the first request: its threads inherit the signal mask of this one, which the C ABI relies on.
        runtime();
        let files = open_or_make(storage, path, &access.remote, &self, begun)?;
        let is_made = files.is_made && !files.info.is_unpulled();
        let mut open = OpenReplica::open(&self, files, access, reservation)?;
        if is_made && let Err(error) = run_bootstrap_query(&Session::since(&open, &self, begun)) {
            // As any first connect that failed.
            let _closed = open.give_back();
            remove_files(&*open.storage, open.replica.name());
            return Err(error);
        }
        let open = Arc::new(open);
        pull::recover(&Session::since(&open, &self, begun))?;
        open.share();
        Ok(Database::replica(open, self))
    }
}

/// Makes ready for a further handle of a replica that this process has open: of what belongs to the replica it must have the
/// same, and its token is used from now on.
fn join(open: &OpenReplica, options: &Builder, given: Option<Arc<dyn Remote>>) -> Result<()> {
    let path = || open.replica.name().to_owned();
    let otherwise = |option| Err(Error::OpenedOtherwise { path: path(), option });
    let info = open.info.lock().clone();
    if let Some(own) = &options.remote {
        if !Arc::ptr_eq(own, &open.remote) {
            return Err(Error::InUse { path: path() });
        }
    } else if let Some(url) = given.and_then(|remote| remote.known_url()) {
        // The one that is in use, which may be a new one that has not answered yet.
        let used = open.remote.known_url();
        if used.as_ref() != Some(&url) && !options.accept_new_url {
            info.check_url(Some(&url), &path())?;
        }
        if open.is_offline || used.is_some_and(|used| used != url) {
            return otherwise("url");
        }
    }
    let partial = options.partial.clone().unwrap_or_default();
    if partial.segment_size.is_some_and(|s| s != info.segment_size) {
        return otherwise("segment size");
    }
    if partial.prefetch.is_some() && partial.prefetch != info.prefetch {
        return otherwise("choice of prefetch");
    }
    if options.encryption.is_some() && options.encryption != open.encryption {
        return otherwise("remote encryption");
    }
    if ![DEFAULT_TIMEOUT, open.timeout].contains(&options.timeout) {
        return otherwise("timeout");
    }
    if let Some(token) = &options.token {
        open.token.replace(token.clone());
    }
    Ok(())
}
