//! Makes the file of a database that a bucket has, where there is none, and its page history, which knows the log.
//!
//! First the log is taken over, so that nobody adds to it; then the last state is restored under another name, with its history; the history
//! gets its name, then the file. Cut off before that, there is no file, and it is done again.
//!
//! What must never happen here: that a new, empty file is taken for the last state of a log, that two do this at one path, or that the log is
//! taken from its writer where it cannot be seen through.

use std::{fs::File, num::NonZeroU64, os::unix::fs::FileExt, path::Path, sync::Arc};

use partial_sync_core::{PageNo, PageSize};
use partial_sync_ltx::TxId;
use partial_sync_store::{Claim, End, Found, ReadOptions, Reader, Writer};
use partial_sync_vfs::side_file_path;

use super::attach::Attach;
use crate::{
    beside::remove_used,
    error::{HistoryError, ServerError},
    history::{Generation, History, RevisionRecord, Seq, page_hash},
    new_file::sync_folder_of,
};

/// Opens the page history of a file.
type OpenHistory = dyn Fn(&Path) -> Result<Arc<dyn History>, HistoryError> + Send + Sync;

/// Pages that are hashed at a time.
const AT_A_TIME: usize = 1024;

impl Attach {
    /// Makes the file at `path`, which is not there or empty, if the bucket has a database. Blocks. By who has the lock of the database: two
    /// would use the same names until it is done.
    pub(crate) fn adopt(&self, path: &Path, unix_ms: i64, history: &OpenHistory) -> Result<(), ServerError> {
        let end = self.runtime().block_on(self.bucket().end())?;
        let Some(End {
            head, last: Some(_), ..
        }) = end
        else {
            return Ok(());
        };
        if !self.takes_over() {
            return Err(ServerError::NoFile {
                path: path.to_owned(),
                bucket: self.bucket().name(),
                writer: head.writer.clone(),
            });
        }
        // It may have commits of the file that was here.
        let wal = side_file_path(path, "-wal");
        if wal.metadata().is_ok_and(|meta| meta.len() > 0) {
            return Err(ServerError::Leftover { path: wal });
        }
        let lineage = u64::from_str_radix(&head.lineage, 16);
        let lineage = lineage.map_err(|_| ServerError::OtherLog {
            bucket: self.bucket().name(),
            writer: head.writer.clone(),
            why: format!("its lineage, {}, is not one of this program", head.lineage),
        })?;
        let node = NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN);
        let begin = self.beginning(node, unix_ms);
        let writer =
            self.runtime()
                .block_on(Writer::take_over(self.bucket().clone(), begin, Claim::TakeOver))?;
        tracing::info!(bucket = ?self.bucket(), path = %path.display(), "the database of the bucket is restored here");
        let staged = side_file_path(path, "-adopted");
        let mut removed = false;
        remove_used(&staged, &mut removed)?;
        match std::fs::remove_file(&staged) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("removed", &staged, source));
            }
            _ => {}
        }
        self.restore(writer.last(), &staged)?;
        let state = RevisionRecord {
            seq: Seq(writer.last().get()),
            db_size: writer.commit(),
        };
        let noted = history(&staged)?;
        noted.begin_as(
            Generation(lineage),
            state.seq,
            writer.page_size(),
            state.db_size,
            unix_ms,
        )?;
        note_hashes(&*noted, &staged, writer.page_size(), state)?;
        noted.set_log_nodes(&[node.get()])?;
        drop(noted);
        // Its file alone gets the name: what SQLite could not write back into it would be lost.
        let wal = side_file_path(&staged, "-history-wal");
        if wal.metadata().is_ok_and(|meta| meta.len() > 0) {
            let why = "the page history was not written back from its WAL when it was closed; start again";
            return Err(io("completed", &wal, std::io::Error::other(why)));
        }
        remove_used(path, &mut removed)?;
        for suffix in ["-history", ""] {
            let (from, to) = (side_file_path(&staged, suffix), side_file_path(path, suffix));
            std::fs::rename(&from, &to).map_err(|source| io("renamed", &from, source))?;
            sync_folder_of(path).map_err(|source| io("synced", path, source))?;
        }
        Ok(())
    }

    fn restore(&self, id: TxId, to: &Path) -> Result<(), ServerError> {
        self.runtime().block_on(async {
            let reader = Reader::open(self.bucket().clone(), ReadOptions::default()).await?;
            match reader.state(id).await? {
                Found::Kept(state) => Ok(reader.restore(state, to).await?),
                _ => Err(ServerError::OtherId {
                    expected: Seq(id.get()),
                    found: Seq(reader.latest().id.get()),
                }),
            }
        })
    }
}

/// Tells the history what the pages of the file are.
fn note_hashes(
    history: &dyn History,
    path: &Path,
    page_size: PageSize,
    state: RevisionRecord,
) -> Result<(), ServerError> {
    let file = File::open(path).map_err(|source| io("opened", path, source))?;
    let mut left = history.comparison()?;
    let mut page = vec![0; page_size.as_usize()];
    while let Some(at) = left {
        let mut hashes = Vec::new();
        for no in (at.next.get()..=state.db_size.0)
            .filter_map(PageNo::new)
            .take(AT_A_TIME)
        {
            file.read_exact_at(&mut page, no.offset(page_size))
                .map_err(|source| io("read", path, source))?;
            hashes.push(Some(page_hash(&page)));
        }
        left = history.compare(state, at, &hashes)?;
    }
    Ok(())
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> ServerError {
    ServerError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}
