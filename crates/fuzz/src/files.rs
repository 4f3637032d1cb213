//! The files of a replica, as they may be after a crash, a bad disk or somebody's editor.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use partial_sync::{Bootstrap, Database, PartialSync, fuzzing};
use partial_sync_core::{PageCount, PageSize, SavedPageMap, saved_map};
use partial_sync_transport::MemoryRemote;
use partial_sync_vfs::{MemoryStorage, Storage};
use xxhash_rust::xxh3::xxh3_64;

use crate::input::{Input, database};

/// A map that is accepted is the same after it was written and read again; the checksums are made right, or nothing would
/// get past them: that of a file of the old format, or those around a record.
pub(crate) fn saved_page_map(data: &[u8]) {
    let mut input = Input(data);
    let sealed = input.byte() % 3;
    let mut bytes = input.rest().to_vec();
    match sealed {
        1 => {
            let sum = xxh3_64(&bytes);
            bytes.extend(sum.to_le_bytes());
        }
        2 => bytes = saved_map::sealed(&bytes, PageSize::DEFAULT, PageCount(300)),
        _ => {}
    }
    let Ok(saved) = SavedPageMap::decode(&bytes, PageCount(20_000)) else {
        return;
    };
    let map = &saved.map;
    let (present, dirty) = (map.present(), map.dirty());
    assert!(present.max().max(dirty.max()).is_none_or(|id| id < 20_000));
    assert_eq!(u64::from(map.present_count().0), present.len());
    assert_eq!(u64::from(map.dirty_count().0), dirty.len());
    let (bytes, _) = saved_map::whole(&map.all_chunks(), saved.page_size, saved.db_size);
    let again = SavedPageMap::decode(&bytes, PageCount(20_000)).expect("encoded here");
    assert!(!again.beyond && !again.map.changed_since_saved());
    assert!((again.map.present(), again.map.dirty()) == (present, dirty));
}

/// What is read from `-info` is what is read again after it was written.
pub(crate) fn info_file(data: &[u8]) {
    fuzzing::info_file(data);
}

const PAGE_SIZE: PageSize = match PageSize::new(512) {
    Ok(size) => size,
    Err(_) => panic!("SQLite's smallest"),
};

/// Files are in memory, but the folder must exist.
const PATH: &str = "/app.db";

/// The files of a small replica with an absent page, a local write and an unpushed change, all of it good.
static TEMPLATE: LazyLock<Vec<(&'static str, Vec<u8>)>> = LazyLock::new(|| {
    let storage = MemoryStorage::default();
    let db = connect(&storage, true).expect("a replica of a good remote can be made");
    let conn = db.connection().expect("it is open");
    conn.execute("UPDATE notes SET body = 'changed' WHERE id = 2", ())
        .expect("its pages are here");
    let files = ["", "-replica-wal", "-info", "-pages"];
    let files = files.map(|suffix| (suffix, contents(&storage, suffix))).to_vec();
    drop((conn, db));
    files
});

fn connect(storage: &MemoryStorage, with_remote: bool) -> partial_sync::Result<Database> {
    let mut builder = Database::builder(PATH)
        .storage(Arc::new(storage.clone()))
        // Without a remote there is nothing to wait for.
        .timeout(Duration::from_millis(if with_remote { 30_000 } else { 50 }))
        .busy_timeout(Duration::from_millis(50))
        .seed(1);
    if with_remote {
        builder = builder.remote_with(Arc::new(remote())).partial(PartialSync {
            bootstrap: Some(Bootstrap::prefix(3 * 512)),
            segment_size: Some(512),
            prefetch: Some(false),
        });
    }
    builder.connect()
}

/// A database of some pages of 512 bytes.
fn remote() -> MemoryRemote {
    let image = database(
        "PRAGMA page_size = 512; CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); CREATE INDEX n ON notes(body);
         INSERT INTO notes VALUES (1, 'a'), (2, 'b'), (3, printf('%.600c', 'x'));",
    );
    let remote = MemoryRemote::new();
    remote.push_revision(image.chunks(512).map(Bytes::copy_from_slice).collect());
    remote
}

fn path(suffix: &str) -> std::path::PathBuf {
    format!("{PATH}{suffix}").into()
}

fn contents(storage: &MemoryStorage, suffix: &str) -> Vec<u8> {
    partial_sync_vfs::read_whole(storage, &path(suffix), 1 << 20)
        .expect("memory")
        .unwrap_or_default()
}

/// A replica whose files were changed in any way opens or says why not, and what opened can be used, closed and opened
/// again. No request is made: the remote is not there.
///
/// The input is a list of edits: which file, how, where, how many bytes, the bytes.
pub(crate) fn replica_files(data: &[u8]) {
    let mut files = TEMPLATE.clone();
    files.push(("-changes", Vec::new()));
    let mut input = Input(data);
    while !input.is_empty() {
        let (which, how) = (input.byte(), input.byte());
        let at = usize::from(input.short());
        let len = usize::from(input.byte());
        let piece = input.take(len);
        let nth = usize::from(which) % files.len();
        let bytes = &mut files[nth].1;
        let at = at.min(bytes.len());
        match how % 7 {
            // Over what is there.
            0 => {
                bytes.resize(bytes.len().max(at + piece.len()), 0);
                bytes[at..at + piece.len()].copy_from_slice(piece);
            }
            1 => bytes.truncate(at),
            2 => *bytes = piece.to_vec(),
            3 => drop(bytes.splice(at..at, piece.iter().copied())),
            // A frame as `-changes` has them.
            4 => {
                bytes.push(which);
                bytes.extend((piece.len() as u32).to_le_bytes());
                bytes.extend(piece);
                bytes.extend(xxh3_64(piece).to_le_bytes());
            }
            // A page map of one record, with everything around it right.
            5 => *bytes = saved_map::sealed(piece, PAGE_SIZE, PageCount(7)),
            // The checksum at the end made right.
            _ => {
                let body = bytes.len().saturating_sub(8);
                let sum = xxh3_64(&bytes[..body]).to_le_bytes();
                bytes.truncate(body);
                bytes.extend(sum);
            }
        }
    }
    let storage = MemoryStorage::default();
    for (suffix, bytes) in &files {
        if *suffix == "-changes" && bytes.is_empty() {
            continue;
        }
        let file = storage.open(&path(suffix), true).expect("memory");
        file.write_at(bytes, 0).expect("memory");
    }
    if !storage.exists(&path("-info")).expect("memory") {
        return;
    }
    let opened = use_it(&storage);
    assert!(opened || !data.is_empty(), "a good replica does not open");
    if opened {
        assert!(use_it(&storage), "a replica that opened does not open again");
    }
}

/// Opens and uses what is in the storage; whether it opened.
fn use_it(storage: &MemoryStorage) -> bool {
    let db = match connect(storage, false) {
        Ok(db) => db,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    if let Ok(view) = db.page_map() {
        let counted: u32 = view.owners.iter().map(partial_sync::Owner::known).sum();
        assert!(counted <= view.total());
    }
    let _ = db.stats();
    if let Ok(conn) = db.connection() {
        for sql in [
            "SELECT count(*) FROM sqlite_schema",
            "SELECT sum(length(body)) FROM notes",
            "SELECT id FROM notes WHERE body = 'changed'",
        ] {
            let _ = conn.query_row(sql, (), |row| row.get::<Option<i64>>(0));
        }
        let _ = conn.execute("INSERT INTO notes VALUES (9, 'local')", ());
    }
    let _ = db.checkpoint();
    true
}
