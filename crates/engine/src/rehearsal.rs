//! A pull tries its put-back before it touches the replica: on a database in memory that shows the remote's new state,
//! made of the staged pages, of the replica's pages that did not change, and of pages fetched at the new revision.
//!
//! Two things come of it. The pages that the put-back reads and that are not here are staged too, so that between the
//! pull's two commits nothing waits for the network. And a change that cannot be put back is found while the pull can
//! still be called off.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use partial_sync_core::{ChangeId, PageMap, PageSize, SegmentSize};
use partial_sync_transport::{Remote, RemoteError, RemoteErrorKind};
use partial_sync_vfs::{
    Base, MemoryStorage, Miss, PageSink, PageSource, ReadError, Replica, ReplicaConfig, SourceError, Storage,
    as_wal_mode,
    sqlite::{Conn, Step, ValueRef},
};
use roaring::RoaringBitmap;

use crate::{
    change::transform::TransformFn,
    database::open_plain,
    error::{Error, PageFetchError, Result},
    log::Chunk,
    putback,
    runtime::runtime,
    source::{pinned, stream},
    staged::StagedPages,
};

/// What to rehearse.
pub(crate) struct Rehearsal<'a> {
    pub replica: &'a Arc<Replica>,
    /// A connection to the replica, in a read transaction.
    pub snapshot: Conn,
    pub remote: &'a Arc<dyn Remote>,
    pub staged: StagedPages,
    /// Pages of the replica that are as at the new revision: present, unchanged, and clean when the snapshot began.
    pub unchanged: RoaringBitmap,
    pub base: Base,
    pub page_size: PageSize,
    pub deadline: Duration,
    pub client: putback::Client<'a>,
    pub transform: Option<&'a TransformFn>,
}

/// What came of it.
pub(crate) struct Rehearsed {
    /// The last change of this client that the new state has.
    pub position: Option<ChangeId>,
    /// Pages that had to be fetched, by 0-based id.
    pub fetched: FetchedPages,
    /// 0-based ids of the pages that were read.
    pub read: RoaringBitmap,
}

type FetchedPages = Vec<(u32, Vec<u8>)>;

impl Rehearsal<'_> {
    /// Runs the changes of `log` that the new state does not have yet, and throws the result away.
    pub(crate) fn run(self, log: &[Chunk]) -> Result<Rehearsed> {
        let fetched = Arc::<Mutex<FetchedPages>>::default();
        let read = Arc::<Mutex<RoaringBitmap>>::default();
        let source = Source {
            path: self.replica.name().to_owned(),
            snapshot: self.snapshot,
            remote: self.remote.clone(),
            staged: self.staged,
            unchanged: self.unchanged,
            page_size: self.page_size,
            deadline: self.deadline,
            fetched: fetched.clone(),
            read: read.clone(),
        };
        let storage = MemoryStorage::default();
        let mut path = self.replica.name().as_os_str().to_owned();
        path.push("-rehearsal");
        let path = PathBuf::from(path);
        let failed = |e| Error::storage("rehearse", &path, e);
        let size = self.base.size.bytes(self.page_size);
        storage
            .open(&path, true)
            .and_then(|file| file.set_len(size))
            .map_err(failed)?;
        let preview = Replica::register(ReplicaConfig {
            storage: Arc::new(storage),
            path: path.clone(),
            page_size: self.page_size,
            base: self.base,
            map: PageMap::new(),
            source: Arc::new(source),
            segment: SegmentSize::new(1)?,
            prefetch: false,
            wait: self.deadline,
        })
        .map_err(failed)?;
        // A fetch that outlives a failure must not keep the name.
        let preview = Closing(preview);
        let conn = open_plain(&preview.0, self.deadline)?;
        let position = if log.is_empty() {
            // Nothing to put back, but the schema will be read between the pull's two commits.
            conn.execute_batch("SELECT 1 FROM sqlite_schema LIMIT 1")?;
            None
        } else {
            putback::position(&conn, self.client.id)?
        };
        let left = not_yet(log, position);
        if !left.is_empty() {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let result = putback::run(&conn, left, self.client, self.transform);
            conn.execute_batch("ROLLBACK")
                .or_else(|e| if conn.is_autocommit() { Ok(()) } else { Err(e) })?;
            result?;
        }
        drop(conn);
        drop(preview);
        let fetched = std::mem::take(&mut *fetched.lock());
        let read = std::mem::take(&mut *read.lock());
        Ok(Rehearsed {
            position,
            fetched,
            read,
        })
    }
}

/// A replica that is closed when it goes out of scope.
struct Closing(Arc<Replica>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The chunks behind a position. Positions lie between transactions, so no chunk is cut.
pub(crate) fn not_yet(log: &[Chunk], position: Option<ChangeId>) -> &[Chunk] {
    let from = log.partition_point(|chunk| position.is_some_and(|p| chunk.last <= p));
    &log[from..]
}

struct Source {
    /// Of the replica.
    path: PathBuf,
    snapshot: Conn,
    remote: Arc<dyn Remote>,
    staged: StagedPages,
    unchanged: RoaringBitmap,
    page_size: PageSize,
    deadline: Duration,
    fetched: Arc<Mutex<FetchedPages>>,
    read: Arc<Mutex<RoaringBitmap>>,
}

impl Source {
    fn local(&self, id: u32) -> io::Result<Option<Vec<u8>>> {
        if let Some(page) = self.staged.read(id)? {
            return Ok(Some(page));
        }
        if !self.unchanged.contains(id) {
            return Ok(None);
        }
        // Through SQLite, because the newest copy of a page may be in the WAL: an earlier pull wrote it there.
        self.committed(id).map_err(io::Error::other)
    }

    fn committed(&self, id: u32) -> partial_sync_vfs::sqlite::Result<Option<Vec<u8>>> {
        let mut select = self
            .snapshot
            .prepare_one("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
        select.bind(1, ValueRef::Integer(i64::from(id) + 1))?;
        Ok(match select.step()? {
            Step::Row => match select.value(0)? {
                ValueRef::Blob(page) => Some(page.to_vec()),
                _ => None,
            },
            Step::Done => None,
        })
    }
}

impl PageSource for Source {
    fn fetch(&self, miss: Miss, sink: PageSink) {
        self.read.lock().extend(miss.pages.iter().map(|p| p.id().0));
        let mut absent = vec![];
        for &page in &miss.pages {
            let put = match self.local(page.id().0) {
                Ok(Some(bytes)) => sink.page(page, &bytes),
                Ok(None) => {
                    absent.push(page);
                    Ok(())
                }
                Err(source) => Err(ReadError::Io {
                    doing: "read",
                    path: self.path.clone(),
                    source,
                }),
            };
            if let Err(error) = put {
                return sink.finish(Err(Arc::new(error) as SourceError));
            }
        }
        if absent.is_empty() {
            return sink.finish(Ok(()));
        }
        let (remote, fetched) = (self.remote.clone(), self.fetched.clone());
        let request = pinned(&miss.base, &absent, self.page_size, self.deadline);
        runtime().spawn(async move {
            let result = stream(&*remote, request, |page, data| {
                let data = if page.get() == 1 {
                    as_wal_mode(data)
                } else {
                    data.to_vec()
                };
                // Noted first: the rehearsal goes on, and may end, as soon as it has its page.
                fetched.lock().push((page.id().0, data.clone()));
                sink.page(page, &data)
                    .map_err(|e| RemoteError::new(RemoteErrorKind::Protocol, e.to_string()))
            })
            .await;
            sink.finish(result.map_err(|source| Arc::new(PageFetchError { source }) as SourceError));
        });
    }
}
