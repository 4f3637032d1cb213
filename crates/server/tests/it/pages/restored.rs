//! A database that is put back as it was, together with its page history.

use std::path::Path;

use super::support::{Client, TestDb, dump, insert};

fn copy(from: &Path, to: &Path) {
    for name in ["app.db", "app.db-history"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Was red: numbers were counted on from the restored history, so a client that had been given revision 3 of the first
/// life was told what had changed since revision 3 of the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_made_after_the_backup_is_unknown_once_the_backup_is_restored() {
    let db = TestDb::new();
    let live = db.path.parent().unwrap();
    let backup = tempfile::tempdir().unwrap();
    let server = db.serve().await;
    insert(&db.open(), 1, 50);
    let kept = Client::new(&server.url()).latest().await;
    server.shutdown().await;
    copy(live, backup.path());

    let server = db.serve().await;
    insert(&db.open(), 51, 50);
    let undone = Client::new(&server.url()).latest().await;
    server.shutdown().await;
    copy(backup.path(), live);

    let server = db.serve().await;
    insert(&db.open(), 51, 50);
    let client = Client::new(&server.url());
    let now = client.latest().await;
    assert_eq!(now.whole(), dump(&db.path));
    assert_ne!(now.revision, undone.revision);
    let refused = client.since(&undone.revision).await.unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (400, "REVISION_UNKNOWN"));
    assert_eq!(client.at(&kept.revision).await.unwrap(), kept);
    server.shutdown().await;
}
