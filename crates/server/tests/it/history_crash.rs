//! The page history stopped at any of its file operations: what it recorded is there at the next start, byte for byte, and
//! a revision that was given out never comes to mean another state (rule 8 for what the server keeps).

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_server::history::{
    Before, Change, Generation, History, Kept, RevisionRecord, Seq, SqliteHistory, page_hash,
};
use partial_sync_vfs::{
    Storage,
    crash::{CrashStorage, Survives, Trouble},
};

const PAGES: u32 = 6;
const REVISIONS: u64 = 6;

fn page(number: u32, revision: u64) -> Bytes {
    // Pages 1 and 2 change with every revision, the others with every third.
    let version = if number <= 2 { revision } else { revision / 3 };
    Bytes::from(vec![(number as u8).wrapping_mul(31) ^ version as u8; 512])
}

fn no(number: u32) -> PageNo {
    PageNo::new(number).unwrap()
}

/// What the history said that it has recorded.
#[derive(Default)]
struct Told {
    generation: Option<Generation>,
    latest: u64,
}

/// Records revisions until all are there or the disk fails.
fn live(
    storage: &Arc<CrashStorage>,
    database: &Path,
    told: &mut Told,
) -> Result<(), Box<dyn std::error::Error>> {
    let history = SqliteHistory::open_in(storage.clone() as Arc<dyn Storage>, database)?;
    if history.generation()?.is_none() {
        let begun = history.begin(PageSize::new(512)?, PageCount(PAGES), 1)?;
        (told.generation, told.latest) = (Some(begun), 1);
    }
    for revision in history.latest()?.seq.0..REVISIONS {
        let after = RevisionRecord {
            seq: Seq(revision),
            db_size: PageCount(PAGES),
        };
        let mut changes = (1..=PAGES)
            .filter(|&n| page(n, revision) != page(n, revision + 1))
            .map(|n| {
                Ok(Change {
                    page: no(n),
                    before: Before::Page(page(n, revision)),
                    after: Some(page_hash(&page(n, revision + 1))),
                })
            });
        history.record(after, PageCount(PAGES), revision as i64, &mut changes)?;
        told.latest = revision + 1;
    }
    Ok(())
}

/// Every page at every revision is what it was.
fn check(storage: &Arc<CrashStorage>, database: &Path, told: &Told) {
    let history = SqliteHistory::open_in(storage.clone() as Arc<dyn Storage>, database).unwrap();
    let Some((generation, _)) = history.generation().unwrap() else {
        assert!(told.generation.is_none(), "a history that was begun is gone");
        return;
    };
    assert!(told.generation.is_none_or(|told| told == generation));
    let latest = history.latest().unwrap().seq.0;
    assert!(
        latest >= told.latest,
        "revision {} was given out, the latest is {latest}",
        told.latest
    );
    for revision in 1..=latest {
        for number in 1..=PAGES {
            let kept = history.pages_at(Seq(revision), &[no(number)]).unwrap().remove(0);
            let found = match kept {
                Kept::Page(bytes) => bytes,
                Kept::Unchanged => page(number, latest),
                kept => panic!("{kept:?}"),
            };
            assert_eq!(
                found,
                page(number, revision),
                "page {number} at revision {revision} of {latest}"
            );
        }
    }
}

#[test]
fn invariant_8_a_page_history_survives_a_crash_at_any_file_operation() {
    let base = Path::new("/history/app.db");
    let operations = {
        let whole = Arc::new(CrashStorage::new(Path::new("/history/app.db-history")));
        live(&whole, base, &mut Told::default()).unwrap();
        whole.operations()
    };
    assert!(operations > 50, "{operations}");
    for survives in [Survives::Written, Survives::Synced, Survives::SyncedAndSome(7)] {
        for stop in 0..operations {
            let name = format!("/history/{survives:?}-{stop}.db");
            let (database, file) = (Path::new(&name), format!("{name}-history"));
            let disk = Arc::new(CrashStorage::new(Path::new(&file)));
            disk.trouble(Some(Trouble::Stop(stop)));
            let mut told = Told::default();
            let ended = live(&disk, database, &mut told);
            assert!(
                ended.is_err() || disk.has_stopped() || stop + 1 >= operations,
                "{survives:?} {stop}"
            );
            let again = Arc::new(disk.after_crash(survives, Path::new(&file)));
            check(&again, database, &told);
            // And it continues from there.
            live(&again, database, &mut told).unwrap();
            assert_eq!(told.latest.max(REVISIONS), REVISIONS);
            check(&again, database, &told);
        }
    }
}
