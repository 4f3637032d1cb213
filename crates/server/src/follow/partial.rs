//! A file that lacks most of its pages: the database is somewhere else, and a page that is not here comes from there when it is read.
//! It is the working copy of a server that keeps nothing: the folder that it is in goes with it.
//!
//! All connections to it are of this process and of the VFS that knows what is missing; SQLite reads it by its path like any other.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use partial_sync_core::{PageCount, PageMap, PageSize, SegmentSize};
use partial_sync_vfs::{Base, OsStorage, PageSource, Replica, ReplicaConfig};
use tempfile::TempDir;

use crate::{
    error::ServerError,
    history::{Generation, RevisionRecord},
    lock::DatabaseLock,
};

/// How long a read waits for a page.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the names of folders begin with, and the file in one.
const PREFIX: &str = "partial-sync-copy-";
const NAME: &str = "copy.db";
/// The folder of a process that was killed is removed by the next one, if it is older: whose it is is not known at once.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// Gives the pages that are not here, as they were at a state that it knows.
pub(crate) trait Missing: PageSource {
    /// Every page that was written since the beginning is in the file, which is in this state, and so is everybody who reads it: those
    /// that are not here are as this state has them.
    fn all_else_is_as_at(&self, at: RevisionRecord);
}

/// Where a working copy can be, and nothing else is. Fields are dropped in order.
pub(crate) struct CopyFolder {
    _lock: DatabaseLock,
    folder: TempDir,
}

/// See the module. Fields are dropped in order.
pub(crate) struct PartialFile {
    replica: Arc<Replica>,
    missing: Arc<dyn Missing>,
    _folder: CopyFolder,
}

impl fmt::Debug for PartialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PartialFile").field(&self.replica.name()).finish()
    }
}

fn io(operation: &'static str, path: &Path, source: io::Error) -> ServerError {
    ServerError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

impl CopyFolder {
    /// A new one below `parent`, which is made if it is not there, or where temporary files are. Blocks.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self, ServerError> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        std::fs::create_dir_all(&parent).map_err(|source| io("made", &parent, source))?;
        remove_left_over(&parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent);
        let folder = folder.map_err(|source| io("written", &parent, source))?;
        Ok(Self {
            _lock: DatabaseLock::take(&folder.path().join(NAME))?,
            folder,
        })
    }
}

impl PartialFile {
    /// One without any page.
    pub(crate) fn new(
        folder: CopyFolder,
        page_size: PageSize,
        generation: Generation,
        at: RevisionRecord,
        missing: Arc<dyn Missing>,
    ) -> Result<Self, ServerError> {
        let path = folder.folder.path().join(NAME);
        let replica = Replica::register(ReplicaConfig {
            storage: Arc::new(OsStorage),
            path: path.clone(),
            page_size,
            base: Base {
                revision: generation.revision(at.seq),
                size: at.db_size,
            },
            map: PageMap::new(),
            source: Arc::clone(&missing) as _,
            segment: SegmentSize::DEFAULT,
            prefetch: true,
            wait: PATIENCE,
            temporary: true,
        });
        Ok(Self {
            replica: replica.map_err(|source| io("written", &path, source))?,
            missing,
            _folder: folder,
        })
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What [`Missing::all_else_is_as_at`] says.
    pub(super) fn all_is_in_file(&self, at: RevisionRecord) {
        self.missing.all_else_is_as_at(at);
    }

    /// Pages of the main file.
    pub(super) fn pages(&self) -> PageCount {
        let pages = self.replica.page_size().pages_for(self.replica.file_size());
        PageCount(u32::try_from(pages).unwrap_or(u32::MAX - 1))
    }
}

/// Removes what processes left that were killed.
fn remove_left_over(parent: &Path) {
    let folders = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(PREFIX)) {
        let changed = folder.metadata().and_then(|meta| meta.modified());
        let is_old = changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_OVER));
        if is_old
            && DatabaseLock::take(&folder.path().join(NAME)).is_ok()
            && let Err(error) = std::fs::remove_dir_all(folder.path())
        {
            tracing::debug!(path = %folder.path().display(), %error, "left over of a server that was killed, and not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use partial_sync_core::PageNo;
    use partial_sync_vfs::{Miss, PageSink, VFS_NAME};
    use rusqlite::{Connection, OpenFlags};

    use super::*;
    use crate::{
        clock::Clock,
        follow::{Follower, SourceFiles},
        history::{KeptElsewhere, Seq},
    };

    /// The pages of a file, and what it was told.
    struct OfFile {
        bytes: Vec<u8>,
        fetched: Mutex<Vec<PageNo>>,
        told: Mutex<Vec<Seq>>,
    }

    impl PageSource for OfFile {
        fn fetch(&self, miss: Miss, sink: Box<dyn PageSink>) {
            for page in miss.pages {
                self.fetched.lock().push(page);
                let at = page.id().0 as usize * 4096;
                sink.page(page, &self.bytes[at..at + 4096]).unwrap();
            }
            sink.finish(Ok(()));
        }
    }

    impl Missing for OfFile {
        fn all_else_is_as_at(&self, at: RevisionRecord) {
            self.told.lock().push(at.seq);
        }
    }

    fn connect(path: &Path) -> Connection {
        Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, VFS_NAME).unwrap()
    }

    #[tokio::test]
    async fn what_is_missing_is_of_a_newer_state_only_when_all_is_in_the_file_and_nobody_reads_an_older_one()
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.db");
        let whole = Connection::open(&path).unwrap();
        whole
            .execute_batch(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
                 WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT INTO t SELECT i, randomblob(3000) FROM n",
            )
            .unwrap();
        drop(whole);
        let bytes = std::fs::read(&path).unwrap();
        let at = RevisionRecord {
            seq: Seq(7),
            db_size: PageCount((bytes.len() / 4096) as u32),
        };
        let source = Arc::new(OfFile {
            bytes,
            fetched: Mutex::default(),
            told: Mutex::default(),
        });
        let (size, generation) = (PageSize::DEFAULT, Generation(1));
        let missing = Arc::clone(&source) as Arc<dyn Missing>;
        let of_copy = CopyFolder::new(Some(folder.path())).unwrap();
        let file = PartialFile::new(of_copy, size, generation, at, missing).unwrap();
        let files = SourceFiles::open_partial(file).unwrap();
        let copy = files.path().as_ref().clone();
        let of_other = folder.path().join(format!("{PREFIX}killed"));
        std::fs::create_dir(&of_other).unwrap();
        std::fs::write(of_other.join(NAME), "what it had").unwrap();
        let long_ago = std::time::SystemTime::now() - LEFT_OVER * 2;
        for folder in [&*of_other, copy.parent().unwrap()] {
            std::fs::File::open(folder)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
        }
        remove_left_over(folder.path());
        assert!(!of_other.exists() && copy.exists(), "whose owner is gone");
        let history = Arc::new(KeptElsewhere::new(generation, size, at));
        let follower = Arc::new(Follower::open(files, history, Clock::default()).unwrap());

        let reader = connect(&copy);
        reader
            .execute_batch("BEGIN; SELECT v FROM t WHERE id = 1")
            .unwrap();
        let sum = |db: &Connection| -> i64 {
            db.query_row("SELECT sum(length(v)) FROM t", [], |row| row.get(0))
                .unwrap()
        };
        let writer = connect(&copy);
        writer
            .execute_batch("UPDATE t SET v = x'00' WHERE id < 10")
            .unwrap();
        follower.refresh().await.unwrap();
        follower.tend().await.unwrap();
        assert_eq!(*source.told.lock(), [], "somebody reads what was before");
        let few = source.fetched.lock().len();
        assert!(few < 200, "{few} pages fetched for ten rows");
        assert_eq!(sum(&reader), 2000 * 3000);
        reader.execute_batch("COMMIT").unwrap();
        while source.told.lock().is_empty() {
            follower.tend().await.unwrap();
        }
        let latest = follower.current().seq;
        assert_eq!(*source.told.lock(), [latest]);
        assert_eq!(sum(&writer), 1991 * 3000 + 9);
    }
}
