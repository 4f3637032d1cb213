//! A revision of a database as a file, made while others write.
//!
//! Pages are read as an answer with pages reads them, a few at a time, and nothing is held between two reads: the WAL is not
//! kept from being reset, and a revision that expires meanwhile ends the copy.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use partial_sync_core::PageNo;

use crate::{
    error::{HistoryError, ServerError},
    follow::Follower,
    history::RevisionRecord,
    new_file::NewFile,
    pages::RevisionReader,
    system::disk_free,
};

/// Bytes that are read at a time.
const BATCH: usize = 256 << 10;
/// After so many bytes they are put on the disk, so that the system has few of them in memory, and the disk is looked at.
const SYNC_EVERY: u64 = 64 << 20;

/// Ends a copy when nobody waits for it any more.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Writes the revision into a file that is to become `target`, and leaves `reserve` bytes of the disk free.
pub(super) async fn copy(
    follower: &Arc<Follower>,
    at: RevisionRecord,
    target: &Path,
    reserve: u64,
) -> Result<NewFile, HistoryError> {
    let reader = RevisionReader::new(follower.clone(), at);
    let source = Arc::clone(follower.files().path());
    let given_up = GivenUp(Arc::default());
    let (flag, target) = (Arc::clone(&given_up.0), target.to_owned());
    let copied = tokio::task::spawn_blocking(move || write(&reader, &source, &target, reserve, &flag));
    let copied = copied.await.map_err(|_| ServerError::Stopping)?;
    drop(given_up);
    copied
}

fn write(
    reader: &RevisionReader,
    source: &Path,
    target: &Path,
    reserve: u64,
    given_up: &AtomicBool,
) -> Result<NewFile, HistoryError> {
    let page_size = reader.page_size();
    let pages = reader.at().db_size.0;
    let bytes = u64::from(pages) * u64::from(page_size.bytes());
    check_disk(target, bytes, reserve)?;
    let io = |source| ServerError::Io {
        operation: "written",
        path: target.to_owned(),
        source,
    };
    let new = NewFile::beside(target).map_err(io)?;
    // As private as what it is a copy of.
    let mode = std::fs::metadata(source).map_err(io)?.permissions();
    new.file().set_permissions(mode).map_err(io)?;
    let (mut written, mut synced) = (0, 0);
    let at_a_time = (BATCH / page_size.as_usize()).max(1);
    let mut numbers = (1..=pages).filter_map(PageNo::new).peekable();
    while numbers.peek().is_some() {
        let batch: Vec<PageNo> = numbers.by_ref().take(at_a_time).collect();
        for data in reader.read(&batch)? {
            new.write_at(&data, written).map_err(io)?;
            written += data.len() as u64;
        }
        if given_up.load(Relaxed) {
            return Err(ServerError::Stopping.into());
        }
        if written - synced >= SYNC_EVERY {
            new.file().sync_data().map_err(io)?;
            check_disk(target, bytes - written, reserve)?;
            synced = written;
        }
    }
    new.file().sync_data().map_err(io)?;
    Ok(new)
}

fn check_disk(target: &Path, needed: u64, reserve: u64) -> Result<(), ServerError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    match disk_free(folder) {
        Some(free) if free < needed.saturating_add(reserve) => Err(ServerError::DiskFull {
            needed,
            free,
            reserve,
        }),
        _ => Ok(()),
    }
}
