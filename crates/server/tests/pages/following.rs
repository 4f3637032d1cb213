//! Commits of other programs, checkpoints of other programs.

use super::support::{Client, TestDb, dump, insert, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_the_sqlite3_shell_are_in_the_next_answer() {
    let db = TestDb::new();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    let mut states = vec![(client.latest().await.revision, dump(&db.path))];
    for round in 0..8 {
        shell(
            &db.path,
            &format!("INSERT INTO t(v) VALUES (randomblob(3000 * {round} + 1))"),
        );
        let answer = client.latest().await;
        assert_ne!(answer.revision, states.last().unwrap().0);
        assert_eq!(answer.whole(), dump(&db.path));
        states.push((answer.revision.clone(), dump(&db.path)));
        if round % 2 == 1 {
            shell(&db.path, "PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }
    for (revision, pages) in states {
        assert_eq!(client.at(&revision).await.unwrap().whole(), pages);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_makes_no_revision() {
    let db = TestDb::new();
    let writer = db.open();
    let server = db.serve().await;
    let client = Client::new(&server.url());
    insert(&writer, 1, 200);
    let before = client.latest().await;
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        shell(&db.path, &format!("PRAGMA wal_checkpoint({mode})"));
        assert_eq!(client.latest().await, before, "{mode}");
    }
    server.shutdown().await;
}
