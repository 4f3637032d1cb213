//! A backup is put in the place of a database that is being served and written to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use partial_sync_server::{ServerError, backup_file::is_backup, restore};
use serde_json::Value;

use super::{
    deleting::{poll, wait_for_polls},
    support::Served,
};
use crate::pages::support::shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_beside_writers_polls_and_transactions_is_a_new_lineage_and_loses_nothing_after_it() {
    let served = Arc::new(Served::new(&["a"]).await);
    let (path, backup) = (served.path("a"), served.folder.path().join("backup"));
    shell(&path, "INSERT INTO t VALUES (1, 'in the backup')");
    shell(&path, &format!(".backup '{}'", backup.display()));
    let client = served.client("a");
    let old = client.latest().await;
    // A transaction that keeps others from nothing, and would come back.
    let (_, open) = served.sql("a", Value::Null, &["BEGIN", "SELECT * FROM t"]).await;
    let waiting = poll(&client, &old);
    wait_for_polls(&served, 1).await;
    let next = Arc::new(AtomicU64::new(100));
    let written = |count: u64| {
        let (served, next) = (served.clone(), next.clone());
        tokio::spawn(async move {
            let mut acknowledged = vec![];
            while acknowledged.len() < count as usize {
                let id = next.fetch_add(1, SeqCst);
                let (status, told) = served
                    .sql("a", Value::Null, &[&format!("INSERT INTO t VALUES ({id}, 'x')")])
                    .await;
                match told["results"][0]["type"].as_str() {
                    Some("ok") => acknowledged.push(id),
                    _ => assert!(matches!(status, 200 | 503), "{status} {told}"),
                }
            }
            acknowledged
        })
    };
    let writers: Vec<_> = (0..3).map(|_| written(60)).collect();
    while next.load(SeqCst) < 130 {
        tokio::task::yield_now().await;
    }
    let restored = tokio::task::spawn_blocking({
        let (backup, path) = (backup.clone(), path.clone());
        move || restore(&backup, &path, Duration::from_secs(30))
    });
    assert!(restored.await.unwrap().unwrap().served);
    let after = written(20).await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let rows: Vec<u64> = shell(&path, "SELECT id FROM t")
        .lines()
        .map(|id| id.parse().unwrap())
        .collect();
    assert!(
        rows.contains(&1) && after.iter().all(|id| rows.contains(id)),
        "{rows:?} {after:?}"
    );
    assert_eq!(shell(&path, "PRAGMA integrity_check"), "ok");
    let told = match waiting.await.unwrap() {
        Err(told) => told,
        // It had been woken by a commit before.
        Ok(_) => client.since(&old.revision).await.unwrap_err(),
    };
    assert_eq!((told.status, told.code.as_str()), (400, "REVISION_UNKNOWN"));
    let (status, told) = served.sql("a", open["baton"].clone(), &["COMMIT"]).await;
    assert_eq!((status, told["code"].as_str()), (400, Some("STREAM_EXPIRED")));
    // Again and again, also at once.
    for _ in 0..3 {
        let (backup, path) = (backup.clone(), path.clone());
        let again = tokio::task::spawn_blocking(move || restore(&backup, &path, Duration::from_secs(30)));
        assert!(again.await.unwrap().unwrap().served);
        let now = client.latest().await;
        assert_eq!(now.whole().len(), 2);
    }
}

/// As a server of before would: it has the lock, and knows nothing of restores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_no_server_takes_over_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("a.db"), folder.path().join("backup"));
    shell(&path, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    shell(&path, &format!(".backup '{}'", backup.display()));
    shell(&path, "INSERT INTO t VALUES (2)");
    let lock = std::fs::File::create(folder.path().join("a.db-lock")).unwrap();
    lock.lock().unwrap();
    let failed = restore(&backup, &path, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(failed, ServerError::NotTakenOver { .. }), "{failed}");
    assert_eq!(shell(&path, "SELECT count(*) FROM t"), "2");
    drop(lock);
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    // A program that another test starts has the lock too, until it is this program no more.
    let done = restore(&backup, &path, Duration::from_secs(60)).unwrap();
    assert!(!done.served);
    assert_eq!(shell(&path, "SELECT count(*) FROM t"), "1");
}

/// Was red: the file that was looked at lost all locks that this process had on it, and others wrote what was being read.
#[test]
fn what_is_restored_from_or_looked_at_keeps_the_locks_that_this_process_has_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("a.db"), folder.path().join("backup"));
    shell(&backup, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    let reader = rusqlite::Connection::open(&backup).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    let others_may_write = || {
        let mut other = std::process::Command::new("sqlite3");
        let said = other.arg(&backup).arg("UPDATE t SET x = 2").output().unwrap();
        said.status.success()
    };
    assert!(!others_may_write());
    assert!(!is_backup(&backup).unwrap());
    assert!(!others_may_write());
    // Twice: what was read before is read from its start.
    for _ in 0..2 {
        restore(&backup, &path, Duration::ZERO).unwrap();
        assert_eq!(shell(&path, "SELECT x FROM t"), "1");
        assert!(!others_may_write());
    }
    drop(reader);
    assert!(others_may_write());
}
