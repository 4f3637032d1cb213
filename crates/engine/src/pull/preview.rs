//! The database on which a pull puts local changes back: the remote's new state, writable, in temporary files. It is a
//! replica like any other, whose absent pages come from what is staged, from the replica's pages that did not change, or
//! from the remote at the new revision. Readers and writers of the replica continue meanwhile, and a change that cannot be put
//! back is found while nothing has happened yet.
//!
//! What it fetches is staged too: the pull may have to write it.

use std::sync::Arc;

use partial_sync_core::{PageCount, PageMap, PageNo};
use partial_sync_transport::{RemoteError, RemoteErrorKind};
use partial_sync_vfs::{
    Base, Miss, PageSink, PageSource, Replica, ReplicaConfig, SourceError, Storage, sqlite::Conn,
};
use roaring::RoaringBitmap;

use super::{
    staged::{OPERATION, Staged},
    unchanged::Unchanged,
};
use crate::{
    error::{Error, PageFetchError, Result},
    fetch::request::{pinned, stream},
    open::{
        plain::{DbpageReader, integer, open_plain},
        session::Session,
        side_files::{PREVIEW, preview_files, side_file_path},
    },
    runtime::runtime,
};

/// See the module. Its files go with it.
pub(super) struct Preview {
    // The connection closes before the replica, the replica before its files are removed.
    conn: Conn,
    replica: Closing,
    _files: PreviewFiles,
}

impl Preview {
    pub(super) fn open(
        session: &Session<'_>,
        base: &Base,
        staged: &Arc<Staged>,
        unchanged: &Arc<Unchanged>,
    ) -> Result<Self> {
        let path = side_file_path(session.replica.name(), PREVIEW);
        let files = PreviewFiles::new(session)?;
        let failed = |e| Error::storage("create", &path, e);
        let page_size = session.replica.page_size();
        session
            .storage
            .open(&path, true)
            .and_then(|file| file.set_len(base.size.bytes(page_size)))
            .map_err(failed)?;
        let replica = Replica::register(ReplicaConfig {
            storage: session.storage.clone(),
            path: path.clone(),
            page_size,
            base: base.clone(),
            map: PageMap::new(),
            source: Arc::new(PreviewSource {
                staged: staged.clone(),
                unchanged: unchanged.clone(),
                remote: session.remote.clone(),
                deadline: session.options.timeout,
                page_size,
            }),
            segment: partial_sync_core::SegmentSize::new(session.info.lock().segment_size)?,
            prefetch: false,
            wait: session.options.timeout,
            temporary: true,
        })
        .map_err(failed)?;
        // A fetch that outlives a failure must not keep the name.
        let replica = Closing(replica);
        let conn = open_plain(&replica.0, session.options.timeout)?;
        conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0")?;
        Ok(Self {
            conn,
            replica,
            _files: files,
        })
    }

    pub(super) fn conn(&self) -> &Conn {
        &self.conn
    }

    /// 0-based ids of the pages that putting back has written.
    pub(super) fn written(&self) -> RoaringBitmap {
        self.replica.0.map().dirty()
    }

    /// 0-based ids of the pages that putting back has read.
    pub(super) fn read(&self) -> RoaringBitmap {
        self.replica.0.map().present()
    }

    /// How many pages the database has now.
    pub(super) fn size(&self) -> Result<PageCount> {
        let pages = integer(&self.conn, "PRAGMA page_count")?;
        Ok(PageCount(u32::try_from(pages).unwrap_or(u32::MAX)))
    }

    /// Reads the pages that it has written.
    pub(super) fn reader(&self) -> Result<DbpageReader> {
        DbpageReader::new(&self.conn)
    }
}

/// A replica that is closed when it goes out of scope.
struct Closing(Arc<Replica>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The names of the preview's files, which are removed at both ends of its life.
struct PreviewFiles {
    storage: Arc<dyn Storage>,
    paths: Vec<std::path::PathBuf>,
}

impl PreviewFiles {
    fn new(session: &Session<'_>) -> Result<Self> {
        let files = Self {
            storage: session.storage.clone(),
            paths: preview_files(session.replica.name()),
        };
        for path in &files.paths {
            files
                .storage
                .remove(path)
                .map_err(|e| Error::storage("remove", path, e))?;
        }
        Ok(files)
    }
}

impl Drop for PreviewFiles {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = self.storage.remove(path) {
                tracing::warn!(%error, path = %path.display(), "a file of a pull could not be removed; the next one does it");
            }
        }
    }
}

/// Where the preview's pages come from.
struct PreviewSource {
    staged: Arc<Staged>,
    unchanged: Arc<Unchanged>,
    remote: Arc<dyn partial_sync_transport::Remote>,
    deadline: std::time::Duration,
    page_size: partial_sync_core::PageSize,
}

impl PreviewSource {
    fn local(&self, page: PageNo) -> Result<Option<Vec<u8>>> {
        match self.staged.read(page.id())? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.unchanged.read(page.id()),
        }
    }

    fn is_local(&self, page: PageNo) -> bool {
        self.staged.has(page.id()) || self.unchanged.has(page.id())
    }
}

impl PageSource for PreviewSource {
    fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
        match self.local(miss.wanted) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let given = sink.page(miss.wanted, &bytes);
                return sink.finish(given.map_err(|error| Arc::new(error) as SourceError));
            }
            Err(error) => return sink.finish(Err(Arc::new(error))),
        }
        // The rest of its segment comes along, as in any replica; what is local is read when it is wanted.
        let absent: Vec<PageNo> = miss
            .pages
            .iter()
            .copied()
            .filter(|&page| page == miss.wanted || !self.is_local(page))
            .collect();
        // An answer that never comes must not keep the file open.
        let (remote, staged) = (self.remote.clone(), Arc::downgrade(&self.staged));
        let request = pinned(&miss.base, &absent, self.page_size, self.deadline);
        runtime().spawn(async move {
            let result = stream(&*remote, request, |page, data| {
                // Staged first: the put-back continues, and may end, as soon as it has its page.
                staged
                    .upgrade()
                    .ok_or(Error::Interrupted { operation: OPERATION })
                    .and_then(|staged| staged.put(page.id(), data))
                    .map_err(|e| RemoteError::new(RemoteErrorKind::Client, e.to_string()))?;
                sink.page(page, data)
                    .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))
            })
            .await;
            sink.finish(result.map_err(|source| Arc::new(PageFetchError { source }) as SourceError));
        });
    }
}
