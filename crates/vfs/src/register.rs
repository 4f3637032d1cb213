//! How a replica becomes known to SQLite: its files are opened, the VFS is registered, and its path is taken.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use partial_sync_core::{PageCount, PageMap, PageSize, Revision, SegmentSize};

use crate::{
    error::ReadError,
    registry,
    replica::{Replica, ReplicaConfig},
    shim,
    source::{Base, Miss, PageSink, PageSource},
    storage::Storage,
};

/// There is nothing to wait for in a whole database.
const WHOLE_WAIT: Duration = Duration::from_secs(30);

/// The source of a whole database, which is never asked.
struct NoSource;

impl PageSource for NoSource {
    fn fetch(&self, _miss: Miss, sink: Box<dyn PageSink>) {
        sink.finish(Err(Arc::new(ReadError::Abandoned)));
    }
}

impl Replica {
    /// Opens the replica's files and makes its name known to the VFS. The storage must have the main file.
    /// [`io::ErrorKind::WouldBlock`] when the name is taken; [`io::ErrorKind::ResourceBusy`], with a
    /// [`ReadError::LeftOpen`] in it, when who had it before is closed but has connections left.
    pub fn register(config: ReplicaConfig) -> io::Result<Arc<Self>> {
        Self::register_as(config, false)
    }

    fn register_as(config: ReplicaConfig, whole: bool) -> io::Result<Arc<Self>> {
        let wait = config.wait;
        let replica = Self::new(config, whole)?;
        shim::register_vfs()?;
        registry::register(&replica, wait).map(|()| replica)
    }

    /// A plain database file whose operations go through `storage`: every page is here, there is no map and no source. For
    /// databases that one process keeps beside something else, so that tests can stop them at any operation too.
    pub fn register_whole(storage: Arc<dyn Storage>, path: PathBuf) -> io::Result<Arc<Self>> {
        let revision = Revision::new("whole").ok_or(io::ErrorKind::InvalidInput)?;
        let config = ReplicaConfig {
            storage,
            path,
            page_size: PageSize::DEFAULT,
            base: Base {
                revision,
                size: PageCount::ZERO,
            },
            map: PageMap::new(),
            source: Arc::new(NoSource),
            segment: SegmentSize::DEFAULT,
            prefetch: false,
            wait: WHOLE_WAIT,
            temporary: false,
        };
        Self::register_as(config, true)
    }
}
