//! Commits of other programs, checkpoints of other programs.

use partial_sync_server::Server;
use rusqlite::Connection;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_size_and_journal_mode_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    for (page_size, mode) in [
        (512, "delete"),
        (1024, "wal"),
        (16384, "truncate"),
        (65536, "delete"),
    ] {
        let path = folder.path().join(format!("{page_size}.db"));
        let made = format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode={mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v)"
        );
        shell(&path, &made);
        let server = Server::builder(&path).listen("127.0.0.1:0").await.unwrap();
        let client = Client::new(&server.url());
        let mut states = Vec::new();
        for _ in 0..4 {
            shell(&path, "INSERT INTO t(v) VALUES (randomblob(200000)), (1)");
            let answer = client.latest().await;
            assert_eq!(answer.pages[&0].len(), page_size);
            assert_eq!(answer.whole(), dump(&path), "{page_size}");
            states.push(answer);
        }
        for state in states {
            assert_eq!(client.at(&state.revision).await.unwrap(), state);
        }
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_made_and_an_empty_database_can_be_pulled_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    let server = Server::builder(&path).listen("127.0.0.1:0").await.unwrap();
    let client = Client::new(&server.url());
    let empty = client.latest().await;
    assert_eq!(empty.whole(), dump(&path));
    shell(
        &path,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES (randomblob(50000))",
    );
    let full = client.latest().await;
    assert_eq!(full.whole(), dump(&path));
    assert_eq!(client.since(&empty.revision).await.unwrap().ids(), full.ids());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wal_does_not_grow_for_ever_under_a_writer_that_never_pauses() {
    let db = TestDb::new();
    let server = db.serve().await;
    let path = db.path.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let db = Connection::open(&path).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        // Nobody but the server moves the WAL's pages into the file.
        db.execute_batch("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF")
            .unwrap();
        insert(&db, 1, 2000);
        let (mut frames, mut resets) = (0, 0);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while resets < 3 && std::time::Instant::now() < until {
            db.execute("UPDATE t SET v = randomblob(500) WHERE id % 7 = 0", [])
                .unwrap();
            let now: i64 = db
                .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
                .unwrap();
            resets += i32::from(now < frames);
            frames = now;
        }
        resets
    });
    assert_eq!(
        writing.await.unwrap(),
        3,
        "the WAL started over while it was written to"
    );
    let client = Client::new(&server.url());
    assert_eq!(client.latest().await.whole(), dump(&db.path));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_empties_the_wal_succeeds_while_the_server_is_idle() {
    let db = TestDb::new();
    let server = db.serve().await;
    insert(&db.open(), 1, 100);
    // The shell waits for readers of the WAL for up to 20 seconds; "0" first means that it did not have to give up.
    let answer = shell(&db.path, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(answer, "0|0|0");
    server.shutdown().await;
}
